//! Rules that the model takes for granted, each with an example.

use crate::samples::{START_MS, block, entry, name, pack, pack_id, record, uid};
use backyfs::catalog::{Catalog, CatalogError};
use backyfs::words::attribute::AttributeChange;
use backyfs::words::clock::SystemClock;
use backyfs::words::geometry::MapDepth;
use backyfs::words::ids::{BatchId, BlockId, FragmentId};
use backyfs::words::record::{RecordKind, Verdict};
use backyfs::words::stamp::Stamp;
use std::fs;

fn new() -> (tempfile::TempDir, Catalog) {
    let dir = tempfile::tempdir().unwrap();
    let catalog = Catalog::open(dir.path(), &SystemClock).unwrap();
    (dir, catalog)
}

#[test]
fn attributes_that_come_before_their_record_are_applied_when_it_comes() {
    let (_dir, catalog) = new();
    catalog.add_entry(&entry(1, 2, 9, AttributeChange::AddTag("b".into()))).unwrap();
    catalog.add_entry(&entry(1, 1, 8, AttributeChange::Name(name("new")))).unwrap();
    catalog.set_verdict(uid(1), Verdict::Confirmed).unwrap();
    assert_eq!((catalog.names().unwrap(), catalog.tags().unwrap()), (vec![], vec![]));
    catalog.put_record(&record(1, RecordKind::Version, "old", 0), Verdict::Pending).unwrap();
    assert_eq!(catalog.names().unwrap(), [name("new")]);
    assert_eq!(catalog.tagged("b").unwrap(), [uid(1)]);
    let version = catalog.version(uid(1)).unwrap().unwrap();
    assert_eq!((version.record.attributes.name, version.attributes.name), (name("old"), name("new")));
    assert_eq!(version.verdict, Verdict::Confirmed);
}

#[test]
fn a_record_with_a_tombstone_is_never_listed() {
    let (_dir, catalog) = new();
    catalog.add_tombstone(uid(1)).unwrap();
    catalog.put_record(&record(1, RecordKind::Version, "vm", 0), Verdict::Confirmed).unwrap();
    catalog.put_record(&record(2, RecordKind::Version, "vm", 1), Verdict::Confirmed).unwrap();
    catalog.add_entry(&entry(1, 1, 1, AttributeChange::Protected(true))).unwrap();
    assert_eq!(catalog.version_uids().unwrap(), [uid(2)]);
    assert!(catalog.version(uid(1)).unwrap().is_none() && catalog.entries(uid(1)).unwrap().is_empty());
    assert!(catalog.is_known(uid(1)).unwrap(), "it need not be read again");
    catalog.add_entry(&entry(2, 1, 1, AttributeChange::Protected(true))).unwrap();
    catalog.add_tombstone(uid(2)).unwrap();
    assert_eq!(catalog.entries(uid(2)).unwrap().len(), 1, "their objects are still to be deleted");
    catalog.remove_record(uid(2)).unwrap();
    assert_eq!(catalog.entries(uid(2)).unwrap(), []);
    assert_eq!((catalog.version_uids().unwrap(), catalog.names().unwrap()), (vec![], vec![]));
}

#[test]
fn a_late_reader_of_the_target_takes_no_verdict_back() {
    let (_dir, catalog) = new();
    let version = record(1, RecordKind::Version, "vm", 0);
    catalog.put_record(&version, Verdict::Confirmed).unwrap();
    catalog.put_record(&version, Verdict::Pending).unwrap();
    catalog.set_verdict(uid(1), Verdict::Withdrawing).unwrap();
    assert_eq!(catalog.record(uid(1)).unwrap().unwrap().1, Verdict::Confirmed);
}

#[test]
fn drafts_and_pins_are_no_versions() {
    let (_dir, catalog) = new();
    catalog.put_record(&record(1, RecordKind::Draft, "vm", 0), Verdict::Confirmed).unwrap();
    catalog.put_record(&record(2, RecordKind::Draft, "vm", 5), Verdict::Confirmed).unwrap();
    catalog.put_record(&record(3, RecordKind::Draft, "vm", 9), Verdict::Pending).unwrap();
    catalog.put_record(&record(4, RecordKind::Pin, "vm", 9), Verdict::Confirmed).unwrap();
    assert_eq!(catalog.draft_of(&name("vm")).unwrap().unwrap().uid, uid(2));
    assert_eq!(catalog.draft_children(None).unwrap().len(), 1);
    assert!(catalog.names().unwrap().is_empty() && catalog.version_uids().unwrap().is_empty());
    assert!(catalog.version(uid(1)).unwrap().is_none() && catalog.version_summary(uid(1)).unwrap().is_none());
    assert_eq!(catalog.records(RecordKind::Pin).unwrap().len(), 1);
    assert_eq!(catalog.find_by_prefix("").unwrap(), []);
}

#[test]
fn names_longer_than_a_key() {
    let (_dir, catalog) = new();
    let long = vec!["ü".repeat(127); 15].join("/");
    assert!(long.len() > 3800);
    let deep = vec!["x"; 2000].join("/");
    for (number, text) in (0..).zip([long.as_str(), deep.as_str()]) {
        catalog.put_record(&record(number, RecordKind::Version, text, 0), Verdict::Confirmed).unwrap();
        assert_eq!(catalog.newest_complete(&name(text)).unwrap(), Some(uid(number)));
        catalog.hide_name(&name(text)).unwrap();
        let parent = name(text).parent().unwrap().to_owned();
        assert_eq!(catalog.children(Some(&parent)).unwrap().len(), 1);
        assert_eq!(catalog.collision(&name(&parent)).unwrap(), Some(name(text)));
    }
    assert_eq!(catalog.names().unwrap().len(), 2);
    assert_eq!(catalog.hidden().unwrap().len(), 2);
    catalog.remove_record(uid(0)).unwrap();
    catalog.remove_record(uid(1)).unwrap();
    assert_eq!(catalog.children(None).unwrap(), []);
}

#[test]
fn a_condemned_pack_stays_dead_whatever_comes_later() {
    let (_dir, catalog) = new();
    let empty = catalog.fingerprint().unwrap();
    let (batch, root) = (BatchId::from_bytes([1; 16]), block(7));
    catalog.set_checked(&root, MapDepth::for_blocks(1), &empty).unwrap();
    catalog.absorb_batch(batch, &[pack_id(1)]).unwrap();
    let fingerprint = catalog.fingerprint().unwrap();
    assert_ne!(fingerprint, empty);
    assert!(!catalog.is_checked(&root, MapDepth::for_blocks(1), &fingerprint).unwrap());
    catalog.absorb_fragment(FragmentId::from_bytes([1; 16]), &[pack(1, [1, 2]), pack(2, [2])]).unwrap();
    assert!(!catalog.has_location(&block(1)).unwrap() && catalog.has_location(&block(2)).unwrap());
    assert_eq!(catalog.all_locations(&block(2)).unwrap().len(), 2);
    assert_eq!(catalog.locations(&block(2)).unwrap()[0].pack, pack_id(2));
    assert_eq!(catalog.without_location(&[block(1), BlockId::HOLE, block(2)]).unwrap(), [block(1)]);
}

#[test]
fn what_is_local_stays_when_the_rest_is_cleared() {
    let (dir, catalog) = new();
    let host = catalog.host_id().unwrap();
    catalog.put_record(&record(1, RecordKind::Version, "vm", 0), Verdict::Confirmed).unwrap();
    catalog.hide_name(&name("vm")).unwrap();
    catalog.note_bad(&pack_id(1), &[(block(1), "a bit flipped".to_owned())]).unwrap();
    catalog.set_meta("cursor", b"12").unwrap();
    catalog.rebuild().unwrap().finish().unwrap();
    drop(catalog);
    let catalog = Catalog::open(dir.path(), &SystemClock).unwrap();
    assert_eq!((catalog.host_id().unwrap(), catalog.version_uids().unwrap()), (host, vec![]));
    assert_eq!(catalog.hidden().unwrap(), [name("vm")]);
    assert_eq!(catalog.damaged().unwrap(), [(block(1), "a bit flipped".to_owned())]);
    assert!(catalog.is_damaged(&block(1)).unwrap() && !catalog.has_sound_location(&block(1)).unwrap());
    assert_eq!(catalog.get_meta("cursor").unwrap().as_deref(), Some(&b"12"[..]));
    catalog.remove_meta("cursor").unwrap();
    assert_eq!(catalog.get_meta("cursor").unwrap(), None);
}

#[test]
fn the_order_of_versions_is_their_moment_not_their_uid() {
    let (_dir, catalog) = new();
    for (number, created) in [(1, 30), (2, 10), (3, 20)] {
        catalog.put_record(&record(number, RecordKind::Version, "vm", created), Verdict::Confirmed).unwrap();
    }
    assert_eq!(catalog.version_uids().unwrap(), [uid(2), uid(3), uid(1)]);
    let versions = catalog.versions_of(&name("vm")).unwrap();
    assert_eq!(versions[0], (Stamp::from_millis(START_MS + 10), uid(2)));
    assert_eq!(catalog.newest_complete(&name("vm")).unwrap(), Some(uid(1)));
    assert_eq!(catalog.find_by_prefix(&uid(2).to_string()[..17]).unwrap(), [uid(1), uid(2), uid(3)]);
}

#[test]
fn one_process_opens_it_once_and_can_say_so() {
    let (dir, catalog) = new();
    assert!(matches!(Catalog::open(dir.path(), &SystemClock), Err(CatalogError::Busy { .. })));
    assert!(matches!(Catalog::discard(dir.path()), Err(CatalogError::Busy { .. })));
    drop(catalog);
    Catalog::discard(dir.path()).unwrap();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    Catalog::discard(dir.path()).unwrap();
}

#[test]
fn a_damaged_file_says_how_to_mend_it() {
    let (dir, catalog) = new();
    let fragments = (0..2000).map(|at| pack(at, at * 10..at * 10 + 10));
    catalog.absorb_packs(&fragments.collect::<Vec<_>>()).unwrap();
    drop(catalog);
    let data = dir.path().join("data.mdb");
    let whole = fs::read(&data).unwrap();
    let cut = &whole[..whole.len() / 4096 / 2 * 4096];
    for (what, bytes) in [("zeroed", &[0; 8192][..]), ("garbage", &[0xa5; 100_000]), ("cut off", cut)] {
        fs::write(&data, bytes).unwrap();
        let opened = Catalog::open(dir.path(), &SystemClock).and_then(|catalog| catalog.dump().map(drop));
        let message = opened.expect_err(what).to_string();
        assert!(message.contains("backyfs rebuild"), "{what}: {message}");
    }
    Catalog::discard(dir.path()).unwrap();
    assert!(Catalog::open(dir.path(), &SystemClock).is_ok());
}
