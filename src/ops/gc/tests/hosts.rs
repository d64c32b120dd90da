//! What a collection does is no sign that the target was put back to an earlier state; and where it was, that is noticed.

use super::lab::{Host, Lab, image, numbers};
use crate::format::frame::FrameHeader;
use crate::format::layout;
use crate::ops::Interrupt;
use crate::ops::gc::{Options, Report, Sharing};
use crate::ops::migrate::migrate;
use crate::repo::testing::open;
use crate::target::{Operation, RecordingTarget, Target};
use crate::words::clock::TestClock;
use crate::words::ids::Uid;
use crate::words::monitor::Silent;
use crate::words::stamp::Stamp;
use std::sync::Arc;

const ALL_GOES: Options = Options { dry_run: false, dead_percent: 1, unfinished_ms: 0, sharing: Sharing::Unknown };

fn fragments(lab: &Lab) -> usize {
    lab.memory.list(layout::INDEX).unwrap().len()
}

fn collect(host: &Host) -> Report {
    let report = host.gc_with(&ALL_GOES).unwrap();
    assert!(report.obstacles.is_empty(), "{report:?}");
    report
}

/// One version that stays and shares blocks with one that goes, and enough fragments for merging.
fn fill(host: &Host) -> (Uid, Vec<u8>) {
    let content = image(&numbers(1..60));
    let gone = host.back_up("gone", &image(&numbers(30..200))).unwrap();
    let kept = host.back_up("kept", &content).unwrap();
    (1000..1009).for_each(|number| host.store(number));
    host.repo.remove_version(gone.uid).unwrap();
    (kept.uid, content)
}

#[test]
fn another_host_takes_a_collection_for_what_it_is() {
    let lab = Lab::new();
    let one = lab.host("one");
    // One that writes down what it asks.
    let asked = Arc::new(RecordingTarget::new(Arc::clone(&lab.memory)));
    let repo = open(Arc::clone(&asked) as _, &lab.dir.path().join("two"), Arc::default()).unwrap();
    let two = Host { repo, held: Arc::clone(&one.held) };
    let (kept, content) = fill(&one);
    two.repo.refresh().unwrap();
    for round in 0..3 {
        let before = fragments(&lab);
        let report = collect(&one);
        assert!(report.merged_fragments >= 7 && report.deleted_packs > 0, "{report:?}");
        assert!(fragments(&lab) < before, "{before} fragments, then {}", fragments(&lab));
        // Merged once more before the other looks: the last one names those of the one before, too.
        (2000..2009).for_each(|number| one.store(number + 10 * round));
        collect(&one);
        (3000..3009).for_each(|number| one.store(number + 10 * round));
        asked.take();
        match round {
            0 => assert_eq!(two.repo.refresh().unwrap().rebuilt, None),
            // A backup and a reader learn of it as well.
            1 => drop(two.back_up("more", &image(&numbers(150..190))).unwrap()),
            _ => {}
        }
        assert!(two.read(kept).unwrap() == content);
        let learned = two.repo.refresh_everything().unwrap();
        assert_eq!((learned.rebuilt, learned.unreadable), (None, vec![]), "round {round}");
        let calls = asked.take();
        let listed =
            |prefix| calls.iter().filter(|call| call.operation == Operation::List && call.key == prefix).count();
        assert_eq!(listed(layout::PACKS), 0, "round {round}: nothing was made anew");
        assert!(listed(layout::INDEX) <= 8, "round {round}: {} lists", listed(layout::INDEX));
        assert_eq!(two.repo.catalog().dump().unwrap(), lab.host("fresh").repo.catalog().dump().unwrap());
    }
}

#[test]
fn a_merged_fragment_that_is_lost_is_missed() {
    let lab = Lab::new();
    let (one, two) = (lab.host("one"), lab.host("two"));
    let (kept, content) = fill(&one);
    collect(&one);
    two.repo.refresh().unwrap();
    let listed = lab.memory.list(layout::INDEX).unwrap();
    listed.iter().for_each(|info| lab.memory.delete(&info.key).unwrap());
    assert!(two.repo.refresh().unwrap().rebuilt.is_some());
    // Written anew, from the packs, for every host.
    assert!(two.read(kept).unwrap() == content && lab.host("fresh").read(kept).unwrap() == content);
    assert_eq!(two.repo.refresh().unwrap().rebuilt, None);
}

#[test]
fn a_target_put_back_to_before_a_collection_is_learnt_anew() {
    let lab = Lab::new();
    let (one, two) = (lab.host("one"), lab.host("two"));
    let (kept, content) = fill(&one);
    let before = lab.memory.save();
    collect(&one);
    let made = one.back_up("made", &image(&numbers(300..350))).unwrap();
    two.repo.refresh().unwrap();
    assert!(two.read(made.uid).is_ok());
    // Packs that were deleted are back, and where their blocks were copied to is not.
    lab.memory.put_back(before);
    assert!(two.repo.refresh().unwrap().rebuilt.is_some());
    assert!(two.read(kept).unwrap() == content && two.read(made.uid).is_err());
    // The other notices while it collects, or before: nothing that is there goes.
    let report = one.gc_with(&ALL_GOES).unwrap();
    for name in ["fresh", "one", "two"] {
        assert!(lab.host(&format!("{name} again")).read(kept).unwrap() == content, "{report:?}");
    }
    assert!(one.read(kept).unwrap() == content);
    let again = one.back_up("made", &image(&numbers(300..350))).unwrap();
    assert!(lab.host("last").read(again.uid).unwrap() == image(&numbers(300..350)));
    collect(&one);
    collect(&two);
    assert!(lab.host("end").read(kept).unwrap() == content);
}

#[test]
fn lists_that_begin_late_miss_nothing_of_a_collection() {
    let lab = Lab::new();
    lab.memory.set_paged();
    let clock = Arc::new(TestClock::new(Stamp::from_millis(1_795_372_262_000), 1));
    let (one, two) = (lab.host_at("one", &clock), lab.host_at("two", &clock));
    let (kept, content) = fill(&one);
    two.repo.refresh().unwrap();
    for _ in 0..3 {
        // Longer than a look goes back.
        clock.advance_ms(5 * 24 * 3_600_000);
        (1000..1009).for_each(|number| one.store(number));
        one.back_up("vm", &image(&numbers(200..220))).unwrap();
        collect(&one);
        let learned = two.repo.refresh().unwrap();
        assert_eq!((learned.rebuilt, learned.unreadable), (None, vec![]));
        assert!(two.read(kept).unwrap() == content);
        // It collects too, with fragments in mind that are long gone.
        collect(&two);
        assert_eq!(one.repo.refresh().unwrap().rebuilt, None);
        assert!(one.read(kept).unwrap() == content);
    }
    for host in [&one, &two] {
        assert_eq!(host.repo.refresh_everything().unwrap().rebuilt, None);
        assert_eq!(host.repo.catalog().dump().unwrap(), lab.host_at("fresh", &clock).repo.catalog().dump().unwrap());
    }
}

#[test]
fn what_is_copied_out_is_sealed_under_the_newest_key() {
    let lab = Lab::new();
    let one = lab.host("one");
    let (kept, content) = fill(&one);
    one.repo.rekey().unwrap();
    let report = collect(&one);
    assert!(report.copied_blocks > 0, "{report:?}");
    let mut old = 0;
    for pack in one.repo.catalog().packs().unwrap().into_iter().filter(|pack| !pack.condemned) {
        let bytes = lab.memory.get(&layout::pack(pack.pack)).unwrap();
        let blocks = one.repo.inspect_pack(pack.pack, pack.size_bytes).unwrap().blocks;
        let versions =
            blocks.iter().map(|block| FrameHeader::decode(&bytes[block.offset as usize..]).unwrap().key_version);
        let mut versions: Vec<_> = versions.collect();
        versions.dedup();
        assert_eq!(versions.len(), 1, "versions fall within {}", pack.pack);
        old += usize::from(versions[0] < one.repo.key_version());
    }
    // The rest by a migration, while another host collects what it condemned.
    let two = lab.host("two");
    let migrated = migrate(&one.repo, &Silent, &Interrupt::never()).unwrap();
    assert_eq!(migrated.condemned_packs, old as u64);
    collect(&two);
    assert_eq!(migrate(&one.repo, &Silent, &Interrupt::never()).unwrap().unused, [1]);
    assert!(one.read(kept).unwrap() == content && lab.host("fresh").read(kept).unwrap() == content);
}
