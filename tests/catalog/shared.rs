//! Several processes on one catalog. A process opens LMDB once, so the others are this test binary started again: a test
//! that does nothing unless the environment says which part to play.

use crate::samples::{block, name, pack, record, uid};
use backyfs::catalog::{Catalog, CatalogError};
use backyfs::words::clock::SystemClock;
use backyfs::words::ids::FragmentId;
use backyfs::words::record::{RecordKind, Verdict};
use std::path::Path;
use std::process::{Child, Command, Stdio};

const PART: &str = "BACKYFS_TEST_CATALOG_PART";
const DIR: &str = "BACKYFS_TEST_CATALOG_DIR";

fn start(part: &str, dir: &Path) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "shared::other_process", "--nocapture"]).env(PART, part).env(DIR, dir);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap()
}

fn run(part: &str, dir: &Path) {
    assert!(start(part, dir).wait().unwrap().success(), "{part}");
}

/// A map that must grow for anything.
fn small(dir: &Path) -> Catalog {
    Catalog::open_with_map(dir, &SystemClock, 256 << 10).unwrap()
}

fn fill(catalog: &Catalog, from: u64, packs: u64) {
    for number in from..from + packs {
        let mut id = [7; 16];
        id[..8].copy_from_slice(&number.to_be_bytes());
        let contents = pack(number, number * 50..number * 50 + 50);
        catalog.absorb_fragment(FragmentId::from_bytes(id), &[contents]).unwrap();
    }
}

#[test]
fn other_process() {
    let (Ok(part), Some(dir)) = (std::env::var(PART), std::env::var_os(DIR)) else { return };
    let catalog = small(Path::new(&dir));
    match part.as_str() {
        "see and answer" => {
            assert_eq!(catalog.names().unwrap(), [name("from the first")]);
            catalog.put_record(&record(2, RecordKind::Version, "from the second", 1), Verdict::Confirmed).unwrap();
        }
        "grow" => fill(&catalog, 1000, 400),
        "fill" => fill(&catalog, 2000, 150),
        "be killed" => loop {
            fill(&catalog, 5000, 50);
            catalog.rebuild().unwrap().finish().unwrap();
        },
        "hold" => drop(std::io::stdin().read_line(&mut String::new())),
        other => panic!("no part {other}"),
    }
}

#[test]
fn each_process_sees_what_the_other_wrote() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = small(dir.path());
    catalog.put_record(&record(1, RecordKind::Version, "from the first", 0), Verdict::Confirmed).unwrap();
    run("see and answer", dir.path());
    assert_eq!(catalog.names().unwrap(), [name("from the first"), name("from the second")]);
    assert_eq!(catalog.version_uids().unwrap(), [uid(1), uid(2)]);
}

#[test]
fn growth_in_another_process_is_followed() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = small(dir.path());
    let (_, before) = catalog.size_bytes().unwrap();
    run("grow", dir.path());
    assert!(catalog.has_location(&block(1000 * 50)).unwrap());
    assert!(catalog.size_bytes().unwrap().1 > before);
    fill(&catalog, 0, 100);
    assert_eq!(catalog.packs().unwrap().len(), 500);
}

#[test]
fn two_processes_and_their_threads_fill_and_grow_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = small(dir.path());
    let mut other = start("fill", dir.path());
    std::thread::scope(|scope| {
        for thread in 0..3 {
            let catalog = &catalog;
            scope.spawn(move || fill(catalog, thread * 100, 60));
        }
        for _ in 0..2 {
            scope.spawn(|| {
                for number in 0..20_000 {
                    catalog.locations(&block(number)).unwrap();
                }
            });
        }
    });
    assert!(other.wait().unwrap().success());
    assert_eq!(catalog.packs().unwrap().len(), 330);
    for number in [0, 100, 200, 2000] {
        assert!(catalog.has_location(&block(number * 50 + 49)).unwrap());
    }
}

#[test]
fn threads_that_end_give_their_reader_slot_back() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = small(dir.path());
    for _ in 0..150 {
        std::thread::scope(|scope| (0..10).for_each(|_| drop(scope.spawn(|| catalog.names().unwrap()))));
    }
}

#[test]
fn a_process_killed_while_writing_leaves_a_whole_catalog() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = small(dir.path());
    catalog.hide_name(&name("kept")).unwrap();
    for wait_ms in [30, 60, 90, 120, 150] {
        let mut other = start("be killed", dir.path());
        std::thread::sleep(std::time::Duration::from_millis(wait_ms));
        other.kill().unwrap();
        other.wait().unwrap();
        fill(&catalog, 0, 3);
        catalog.dump().unwrap();
        assert_eq!(catalog.hidden().unwrap(), [name("kept")]);
    }
}

#[test]
fn it_is_not_discarded_under_another_process() {
    let dir = tempfile::tempdir().unwrap();
    drop(small(dir.path()));
    let mut other = start("hold", dir.path());
    // The other one takes its lock some time after it was started.
    let refused = (0..500).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(10));
        if !dir.path().join("lock.mdb").exists() {
            return false;
        }
        matches!(Catalog::discard(dir.path()), Err(CatalogError::Busy { .. }))
    });
    assert!(refused);
    drop(other.stdin.take());
    assert!(other.wait().unwrap().success());
    Catalog::discard(dir.path()).unwrap();
}
