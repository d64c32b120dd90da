//! On a real cluster: `CEPH_CONF` names its configuration file, and it has a pool `rbd`.

use crate::source::conformance::{self, New};
use crate::source::file_destination::PART_SUFFIX;
use crate::source::rbd::cluster::OpenPool;
use crate::source::rbd::image::{Image, Mode};
use crate::source::rbd::{Pool, RbdImage, find, list, look, volume};
use crate::source::volume::{Moment, SNAPSHOT_MARK};
use crate::source::{Content, Source, SourceError};
use std::sync::Arc;

const SIZE: usize = (12 << 20) + 512;

/// An image of this name with this content, in a pool that every test has a name in.
fn image(name: &str, content: Option<&[u8]>) -> (RbdImage, Arc<OpenPool>) {
    assert!(std::env::var_os("CEPH_CONF").is_some(), "CEPH_CONF names no cluster; tests/lab/ceph makes one");
    let pool = Pool::new("rbd", "");
    let open = OpenPool::open(&pool).unwrap();
    let name = format!("{name}-{}", std::process::id());
    if let Some(content) = content {
        Image::create(&open, &name, content.len() as u64).unwrap();
        let image = Image::open(&open, &name, Mode::Write).unwrap();
        for (part, at) in content.chunks(4096).zip((0..).step_by(4096)) {
            if part.iter().any(|byte| *byte != 0) {
                image.write(at, part).unwrap();
            }
        }
        image.flush().unwrap();
    }
    (RbdImage { pool, image: name, snapshot: None }, open)
}

/// One of our names for snapshots.
fn name() -> String {
    format!("{SNAPSHOT_MARK}{}", crate::words::clock::ClockExt::uuid(&crate::words::clock::SystemClock))
}

fn content() -> Vec<u8> {
    let mut content = vec![0; SIZE];
    content[100_000..2_000_000].fill(3);
    content[SIZE - 600..].fill(4);
    content
}

fn changed(source: &dyn Source, since: &str, at: u64) -> Content {
    source.changes_since(since).unwrap().unwrap().extent_at(at, SIZE as u64, Content::Unchanged).content
}

#[test]
fn an_image_is_read_as_it_was_and_tells_what_has_changed() {
    let expected = content();
    let (image, pool) = image("reads", Some(&expected));
    let volume = volume(&image).unwrap();
    let [first, second] = [name(), name()];
    let source = volume.open(Moment::Now { name: &first }).unwrap();
    conformance::reads_what_it_holds(&*source, &expected);
    assert_eq!(source.extent_at(5 << 20).unwrap().content, Content::Hole);
    assert_eq!((source.snapshot_name(), source.has_changed()), (Some(first.as_str()), false));

    // Writes after the snapshot are not in it, and are told exactly afterwards.
    let head = Image::open(&pool, &image.image, Mode::Write).unwrap();
    head.write(9 << 20, &[9; 4096]).unwrap();
    head.zero(&(0..4 << 20)).unwrap();
    head.take_snapshot("somebody-elses").unwrap();
    conformance::reads_what_it_holds(&*source, &expected);
    let later = volume.open(Moment::Now { name: &second }).unwrap();
    assert_eq!(changed(&*later, &first, 9 << 20), Content::Data);
    assert_ne!(changed(&*later, &first, 1 << 20), Content::Unchanged);
    assert_eq!(changed(&*later, &first, (9 << 20) + 8192), Content::Unchanged);
    assert_eq!(changed(&*later, &first, SIZE as u64 - 1), Content::Unchanged);
    assert_eq!(later.changes_since("backyfs-never").unwrap(), None);
    drop((source, later));

    // Only ours go, and one that is gone is gone.
    for name in [&first, &second, &first] {
        volume.remove_snapshot(name).unwrap();
    }
    let left: Vec<String> = head.snapshots().unwrap().into_iter().map(|(_, name)| name).collect();
    assert_eq!(left, ["somebody-elses"]);
    let theirs = RbdImage { snapshot: Some("somebody-elses".into()), ..image.clone() };
    let theirs = super::volume(&theirs).unwrap();
    assert!(!theirs.takes_snapshots());
    assert_eq!(theirs.open(Moment::Now { name: "unused" }).unwrap().snapshot_name(), None);
    // Removed while it is read it would be zeros; that it is gone is noticed, also when another is called so.
    let opened = theirs.open(Moment::Now { name: "unused" }).unwrap();
    opened.check().unwrap();
    head.remove_snapshot("somebody-elses").unwrap();
    assert!(matches!(opened.check(), Err(SourceError::Snapshot { .. })));
    head.take_snapshot("somebody-elses").unwrap();
    assert!(matches!(opened.check(), Err(SourceError::Snapshot { .. })));
    drop(opened);
    head.remove_snapshot("somebody-elses").unwrap();
    drop(head);
    Image::remove(&pool, &image.image).unwrap();
}

#[test]
fn an_image_is_restored_in_every_manner() {
    let (image, pool) = image("restores", None);
    let volume = super::volume(&image).unwrap();
    let other = RbdImage { image: format!("{}-other", image.image), ..image.clone() };
    let expected = conformance::restores_in_every_manner(&*volume, &*super::volume(&other).unwrap(), New::Zeros);
    Image::remove(&pool, &format!("{}{PART_SUFFIX}", other.image)).unwrap();
    let name = name();
    conformance::reads_what_it_holds(&*volume.open(Moment::Now { name: &name }).unwrap(), &expected);
    volume.remove_snapshot(&name).unwrap();
    // In use, it is not overwritten.
    let head = Image::open(&pool, &image.image, Mode::Write).unwrap();
    let manner = crate::source::destination::Manner {
        consent: crate::source::destination::Consent::Force,
        ..conformance::new_manner(1)
    };
    let refused = volume.destination(&manner).err().unwrap();
    assert!(matches!(refused, SourceError::DestinationKind { .. }), "{refused}");
    drop(head);
    Image::remove(&pool, &image.image).unwrap();
}

#[test]
fn a_pool_is_a_collection() {
    let (image, open) = image("listed", Some(&[1; 4096]));
    assert!(list(&image.pool).unwrap().contains(&image.image));
    assert!(find(&image).unwrap().is_some() && look(&image).unwrap().size_bytes == 4096);
    let none = RbdImage { image: "none".into(), ..image.clone() };
    assert!(find(&none).unwrap().is_none() && look(&none).is_err());
    let pool = Pool { pool: "no-such-pool".into(), ..image.pool.clone() };
    assert!(matches!(list(&pool), Err(SourceError::Open { .. })));
    Image::remove(&open, &image.image).unwrap();
}
