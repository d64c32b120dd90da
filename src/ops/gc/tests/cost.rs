//! What collections ask of the target.

use super::lab::{Host, image, numbers};
use crate::image::{DraftImage, Settled};
use crate::ops::Interrupt;
use crate::ops::gc::{Options, gc};
use crate::repo::Repository;
use crate::repo::testing::{open, small};
use crate::seal::Secret;
use crate::target::memory::{HeldTarget, MemoryTarget};
use crate::target::{Call, Operation, RecordingTarget, Target};
use crate::words::clock::{Clock, ClockExt, SystemClock};
use crate::words::monitor::{Counter, Silent, Tally};
use crate::words::record::Record;
use std::sync::Arc;

/// Blocks of the image: three levels of map, and some more leaves.
const LEAVES: u32 = 40;
const VERSIONS: u32 = 100;

fn collect(repo: &Repository) -> crate::ops::gc::Report {
    let report = gc(repo, &Options::default(), &Silent, &Interrupt::never()).unwrap();
    assert!(report.obstacles.is_empty(), "{report:?}");
    report
}

fn published(host: &Host, settled: &Settled, like: &Record) -> Record {
    let uid = SystemClock.uid();
    let record = Record { uid, image: settled.image, start: settled.image, ..like.clone() };
    host.repo.publish(&record, &[like.image]).unwrap();
    record
}

#[test]
fn the_cost_follows_what_changed() {
    let recording = Arc::new(RecordingTarget::new(MemoryTarget::default()));
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    Repository::create(&*recording, &[Secret::key_file(vec![7; 64])], &small(), &clock).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let held = HeldTarget::new(Arc::clone(&recording) as Arc<dyn Target>);
    let repo = open(Arc::clone(&held) as _, dir.path(), Arc::new(Tally::default())).unwrap();
    let host = Host { repo, held };
    // Sparse, so that a large map needs little data: one block in each leaf.
    let mut versions = vec![host.back_up("vm", &image(&numbers(1..3))).unwrap()];
    let first = DraftImage::new(Arc::clone(&host.repo), versions[0].image, None);
    for leaf in 1..LEAVES {
        first.write_at((u64::from(leaf) * 4) << 20, &image(&[100 + leaf])).unwrap();
    }
    versions[0] = published(&host, &first.settle().unwrap(), &versions[0]);
    for version in 1..VERSIONS {
        let draft = DraftImage::new(Arc::clone(&host.repo), versions[0].image, Some(versions[0].image));
        draft.write_at((u64::from(version % LEAVES) * 4) << 20, &image(&[1000 + version])).unwrap();
        versions.push(published(&host, &draft.settle().unwrap(), &versions[0]));
    }
    collect(&host.repo);
    collect(&host.repo);

    // Nothing happened: a look at each listing, and not one object read or written.
    recording.take();
    assert!(collect(&host.repo).nothing_new);
    let calls = recording.take();
    assert!(calls.len() <= 10 && calls.iter().all(|call| call.operation == Operation::List), "{calls:?}");

    // One of a hundred goes: its own leaf and root need not be read either, for they were walked before.
    host.repo.remove_version(versions[50].uid).unwrap();
    recording.take();
    let report = collect(&host.repo);
    let calls = recording.take();
    let reads = |calls: &[Call]| calls.iter().filter(|call| call.operation == Operation::ReadAt).count();
    assert!(reads(&calls) <= 8 && calls.len() < 120, "{} reads, {} calls, {report:?}", reads(&calls), calls.len());

    // A host that comes to it new reads each node once: 40 leaves and their root, and one of each for every version.
    let tally = Arc::new(Tally::default());
    let other = open(Arc::clone(&recording) as Arc<dyn Target>, &dir.path().join("other"), Arc::clone(&tally)).unwrap();
    recording.take();
    collect(&other);
    let nodes = u64::from(LEAVES + 1 + 2 * VERSIONS);
    assert!(tally.get(Counter::TargetReads) <= nodes, "{} of {nodes}", tally.get(Counter::TargetReads));
    // And not again.
    let made = host.back_up("more", &image(&numbers(1..5))).unwrap();
    recording.take();
    let before = tally.get(Counter::TargetReads);
    assert!(!collect(&other).nothing_new);
    assert!(tally.get(Counter::TargetReads) - before <= 2);
    assert_eq!(host.read(made.uid).unwrap(), image(&numbers(1..5)));
}
