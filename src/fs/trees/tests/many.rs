//! Many versions: listing and stat stay cheap, and the target is never asked.

use super::{AT, World, caller, record, world};
use crate::fs::nodes::{Node, VersionFile};
use crate::words::clock::ClockExt;
use crate::words::monitor::Counter;
use crate::words::record::{ImageRef, Verdict};
use crate::words::stamp::Stamp;
use std::time::{Duration, Instant};

const VERSIONS: i64 = 10_000;

/// `ls -l`: a listing, and a lookup, the attributes and the target of each entry.
fn ls_l(w: &World, dir: &Node) -> (usize, Duration) {
    let began = Instant::now();
    let listed = w.trees.list(dir).unwrap();
    for (name, node) in &listed {
        let found = w.trees.lookup(caller(), dir, name.to_str().unwrap()).unwrap();
        assert_eq!(found, *node);
        w.trees.attr(&found).unwrap();
        if matches!(found, Node::NameLink(..) | Node::TagLink(..)) {
            w.trees.readlink(&found).unwrap();
        }
    }
    (listed.len(), began.elapsed())
}

#[test]
fn ten_thousand_versions_are_listed_in_less_than_a_second_each_way() {
    let w = world();
    let repo = &w.test.repo;
    let records: Vec<_> = (0..VERSIONS)
        .map(|n| {
            // Half of them of one name, the others each of its own in a few directories; a tag on all.
            let name = if n % 2 == 0 { "vm".to_owned() } else { format!("host{}/vm{n}", n % 16) };
            let created = Stamp::from_millis(AT + n * 400);
            let uid = repo.clock().uid_at(created);
            let mut record = record(uid, &name, created, ImageRef::empty(repo.block_size()));
            record.attributes.tags.insert("nightly".into());
            (record, Verdict::Confirmed)
        })
        .collect();
    repo.catalog().put_records(&records).unwrap();
    // Nothing below is to need the target: it is not there.
    let target = w.test.dir.path().join("target");
    std::fs::rename(&target, target.with_extension("away")).unwrap();
    let half = VERSIONS as usize / 2;
    let tagged = |path: &str| Node::TagDir("nightly".into(), path.into());
    for (dir, entries) in [
        (Node::Versions, VERSIONS as usize),
        (Node::NameDir(String::new()), 9),
        (Node::NameDir("vm".into()), half + 1),
        (Node::NameDir("host1".into()), half / 8),
        (Node::Tags, 1),
        (tagged("vm"), half),
        (tagged("host1"), half / 8),
        (tagged(""), 9),
    ] {
        let (listed, took) = ls_l(&w, &dir);
        assert_eq!(listed, entries, "{dir:?}");
        println!("{dir:?}: {entries} entries in {took:?}");
        assert!(took < Duration::from_secs(1), "{dir:?} took {took:?}");
    }
    let uid = repo.catalog().version_uids().unwrap()[VERSIONS as usize / 3];
    let began = Instant::now();
    for file in VersionFile::ALL {
        w.trees.attr(&Node::VersionFile(uid, file)).unwrap();
    }
    assert!(began.elapsed() < Duration::from_millis(50));
    assert_eq!(w.test.tally.get(Counter::TargetReads), 0);
}
