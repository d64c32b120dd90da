//! Growing by itself, and a full disk below it.

use crate::samples::{block, name, pack, record, uid};
use backyfs::catalog::{Catalog, CatalogError};
use backyfs::words::clock::SystemClock;
use backyfs::words::ids::FragmentId;
use backyfs::words::record::{RecordKind, Verdict};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::path::Path;

fn open(dir: &Path, initial_map_bytes: usize) -> Catalog {
    Catalog::open_with_map(dir, &SystemClock, initial_map_bytes).unwrap()
}

#[test]
fn a_full_map_doubles_until_everything_fits() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = open(dir.path(), 64 << 10);
    let packs: Vec<_> = (0..100).map(|at| pack(at, at * 200..at * 200 + 200)).collect();
    catalog.absorb_fragment(FragmentId::from_bytes([1; 16]), &packs).unwrap();
    assert!((0..20_000).step_by(777).all(|number| catalog.has_location(&block(number)).unwrap()));
    let (file, map) = catalog.size_bytes().unwrap();
    assert!(file <= map && map > 1 << 20, "{file} {map}");
    drop(catalog);
    let catalog = open(dir.path(), 64 << 10);
    assert_eq!(catalog.size_bytes().unwrap().1, map, "the size is remembered");
    assert_eq!(catalog.packs().unwrap().len(), 100);
}

#[test]
fn more_blocks_than_one_transaction_takes() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = open(dir.path(), 256 << 20);
    let packs: Vec<_> = (0..3).map(|at| pack(at, at * 20_000..at * 20_000 + 20_000)).collect();
    catalog.absorb_fragments(&[(FragmentId::from_bytes([1; 16]), packs)]).unwrap();
    let all: Vec<_> = (0..60_001).map(block).collect();
    assert_eq!(catalog.without_location(&all).unwrap(), [block(60_000)]);
}

/// A small file system of its own, gone when dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// `None` where mounting is not allowed.
    fn new(size: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let options = format!("size={size}");
        let mounted = mount(Some("none"), dir.path(), Some("tmpfs"), MsFlags::empty(), Some(options.as_str()));
        mounted.is_ok().then_some(Self(dir))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        umount2(self.0.path(), MntFlags::MNT_DETACH).unwrap();
    }
}

#[test]
fn a_full_disk_is_said_and_harms_nothing() {
    let Some(disk) = SmallDisk::new("3m") else { return };
    let dir = disk.0.path().join("catalog");
    let catalog = Catalog::open(&dir, &SystemClock).unwrap();
    catalog.put_record(&record(1, RecordKind::Version, "vm", 0), Verdict::Confirmed).unwrap();
    let mut stored = 0;
    let error = loop {
        let contents = pack(stored, stored * 500..stored * 500 + 500);
        match catalog.absorb_packs(&[contents]) {
            Ok(()) => stored += 1,
            Err(error) => break error,
        }
        assert!(stored < 1000);
    };
    assert!(matches!(error, CatalogError::NoSpace { .. }), "{error:?}");
    let check = |catalog: &Catalog| {
        assert_eq!(catalog.names().unwrap(), [name("vm")]);
        assert_eq!(catalog.packs().unwrap().len() as u64, stored);
        let all: Vec<_> = (0..stored * 500).map(block).collect();
        assert_eq!(catalog.without_location(&all).unwrap(), []);
        catalog.dump().unwrap();
    };
    check(&catalog);
    let again = catalog.absorb_packs(&[pack(stored, stored * 500..stored * 500 + 500)]);
    assert!(matches!(again, Err(CatalogError::NoSpace { .. })));
    check(&catalog);
    let bigger = Some("size=30m");
    mount(Some("none"), disk.0.path(), Some("tmpfs"), MsFlags::MS_REMOUNT, bigger).unwrap();
    // Without opening it again.
    catalog.put_record(&record(2, RecordKind::Version, "vm", 1), Verdict::Confirmed).unwrap();
    catalog.absorb_packs(&[pack(stored, stored * 500..stored * 500 + 500)]).unwrap();
    assert!(catalog.has_location(&block(stored * 500 + 499)).unwrap());
    drop(catalog);
    let catalog = Catalog::open(&dir, &SystemClock).unwrap();
    assert_eq!(catalog.version_uids().unwrap(), [uid(1), uid(2)]);
}
