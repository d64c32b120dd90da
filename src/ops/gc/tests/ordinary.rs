//! One thing after the other.

use super::lab::{BLOCK, Lab, image, numbers};
use crate::format::layout;
use crate::ops::gc::auto::{self, Due, Schedule};
use crate::ops::gc::policy::Reason;
use crate::ops::gc::{Options, Sharing};
use crate::ops::rebuild::IndexSource;
use crate::target::Crash;
use crate::words::clock::TestClock;
use crate::words::ids::PackId;
use crate::words::stamp::Stamp;
use std::sync::Arc;
use std::time::Duration;

#[test]
fn space_comes_back_and_what_is_needed_stays() {
    let lab = Lab::new();
    let (one, other) = (lab.host("one"), lab.host("other"));
    let kept = one.back_up("kept", &image(&numbers(1..200))).unwrap();
    let kept_bytes = lab.packs_bytes();
    let gone = one.back_up("gone", &image(&numbers(100..600))).unwrap();
    let before = lab.packs_bytes();
    assert_eq!(one.gc().unwrap().deleted_packs, 0);
    one.repo.remove_version(gone.uid).unwrap();
    let dry = one.gc_with(&Options { dry_run: true, ..Options::default() }).unwrap();
    assert!(dry.going.iter().map(|row| row.packs).sum::<u64>() > 3 && dry.deleted_packs == 0, "{dry:?}");
    assert_eq!(lab.packs_bytes(), before);
    let report = one.gc().unwrap();
    assert!(report.obstacles.is_empty() && report.going == dry.going, "{report:?}");
    let after = lab.packs_bytes();
    assert_eq!(report.freed_bytes, (before - after) as i64);
    assert!(after < kept_bytes + 70 * BLOCK, "{kept_bytes} {before} {after}");
    assert_eq!(one.read(kept.uid).unwrap(), image(&numbers(1..200)));
    assert!(one.gc().unwrap().nothing_new);
    // The other host knows nothing of it yet, and finds what was moved.
    assert_eq!(
        other.back_up("again", &image(&numbers(1..300))).map(|record| record.image.root.is_hole()).ok(),
        Some(false)
    );
    for host in [&other, &lab.host("new")] {
        host.repo.refresh().unwrap();
        assert_eq!(host.read(kept.uid).unwrap(), image(&numbers(1..200)));
    }
    other.gc().unwrap();
    assert_eq!(lab.host("third").read(kept.uid).unwrap(), image(&numbers(1..200)));
}

#[test]
fn a_reader_that_was_not_told_finds_what_was_moved() {
    let lab = Lab::new();
    let (one, sleeper) = (lab.host("one"), lab.host("sleeper"));
    let gone = one.back_up("gone", &image(&numbers(20..400))).unwrap();
    let kept = one.back_up("kept", &image(&numbers(1..40))).unwrap();
    sleeper.repo.refresh().unwrap();
    one.repo.remove_version(gone.uid).unwrap();
    let report = one.gc_with(&Options { dead_percent: 1, ..Options::default() }).unwrap();
    assert!(report.copied_blocks >= 20, "{report:?}");
    assert_eq!(sleeper.read(kept.uid).unwrap(), image(&numbers(1..40)));
    assert!(sleeper.repo.catalog().damaged().unwrap().is_empty());
    assert!(sleeper.read(gone.uid).is_err());
}

#[test]
fn what_was_removed_is_told_from_what_is_unfinished() {
    let lab = Lab::new();
    let one = lab.host("one");
    let made = one.back_up("a", &image(&numbers(1..100))).unwrap();
    one.repo.store_block(&image(&[1000]), crate::words::ids::BlockId::HOLE).unwrap();
    one.repo.flush_packs([]).unwrap();
    one.repo.remove_version(made.uid).unwrap();
    let report = one.gc().unwrap();
    assert_eq!(report.going.iter().map(|row| row.reason).collect::<Vec<_>>(), [Reason::Dead]);
    assert_eq!((report.staying.packs, report.staying.unfinished_packs), (0, 1));
    assert!(report.staying.unfinished_until.is_some());
    // Seen unreferenced a second time, and still young.
    assert!(one.gc().unwrap().nothing_new);
    let report = one.gc_all().unwrap();
    assert_eq!(report.going.iter().map(|row| row.reason).collect::<Vec<_>>(), [Reason::Abandoned]);
    assert_eq!(lab.packs_bytes(), 0);
}

#[test]
fn packs_that_nobody_indexed_wait_and_are_looked_into_before_they_go() {
    let lab = Lab::new();
    let one = lab.host("one");
    let kept = one.back_up("a", &image(&numbers(1..100))).unwrap();
    for (key, _) in lab.memory.history("index/") {
        crate::target::Target::delete(&*lab.memory, &key).unwrap();
    }
    // To a host that has only the packs, nothing names them.
    let other = lab.sleepy("other");
    other.repo.refresh().unwrap();
    let report = other.gc_all().unwrap();
    // The root cannot be found, so nothing goes.
    assert!(!report.obstacles.is_empty() && report.deleted_packs == 0 && report.going.is_empty(), "{report:?}");
    other.rebuild(IndexSource::Packs);
    assert_eq!(other.gc_all().unwrap().deleted_packs, 0);
    assert_eq!(other.read(kept.uid).unwrap(), image(&numbers(1..100)));
    // A pack whose writer died before it indexed it.
    let (key, bytes) = lab.memory.history("packs/").into_iter().next().unwrap();
    let orphan: Vec<u8> = bytes.iter().map(|byte| byte ^ 1).collect();
    crate::target::Target::put(&*lab.memory, &layout::pack(PackId::from_bytes([9; 32])), &[&orphan]).unwrap();
    assert_eq!(other.gc().unwrap().staying.unfinished_packs, 1);
    assert_eq!(other.gc_all().unwrap().deleted_packs, 1);
    assert_eq!(other.read(kept.uid).unwrap(), image(&numbers(1..100)));
    assert!(crate::target::Target::get(&*lab.memory, &key).is_ok());
}

#[test]
fn a_pack_that_comes_back_is_deleted_again_and_helps_nobody() {
    let lab = Lab::new();
    let one = lab.host("one");
    let gone = one.back_up("gone", &image(&numbers(1..100))).unwrap();
    one.repo.remove_version(gone.uid).unwrap();
    assert!(one.gc().unwrap().deleted_packs >= 2);
    for prefix in ["packs/", "index/"] {
        lab.memory.history(prefix).into_iter().for_each(|put| lab.memory.repeat(put));
    }
    let other = lab.host("other");
    let made = other.back_up("again", &image(&numbers(1..50))).unwrap();
    let report = other.gc().unwrap();
    assert!(report.resumed_packs >= 2 && report.deleted_packs == report.resumed_packs, "{report:?}");
    assert_eq!(lab.host("new").read(made.uid).unwrap(), image(&numbers(1..50)));
}

#[test]
fn the_good_one_of_two_copies_is_kept() {
    let lab = Lab::new();
    let one = lab.host("one");
    let content = image(&numbers(1..64));
    let first = one.back_up("a", &content).unwrap();
    lab.memory.damage(&lab.largest_pack(), |bytes| bytes[8000] ^= 1);
    let two = lab.host("two");
    assert!(two.read(first.uid).is_err());
    // The block is stored anew with other blocks, which then go; the other host never learns that the old copy is bad.
    let second = two.back_up("b", &image(&numbers(1..600))).unwrap();
    assert_eq!(two.read(first.uid).unwrap(), content);
    two.repo.remove_version(second.uid).unwrap();
    let report =
        lab.host("three").gc_with(&Options { unfinished_ms: 0, dead_percent: 10, ..Options::default() }).unwrap();
    assert!(report.deleted_packs > 5 && report.obstacles.is_empty(), "{report:?}");
    assert_eq!(lab.host("four").read(first.uid).unwrap(), content);
}

#[test]
fn damage_keeps_its_packs_and_no_others() {
    let lab = Lab::new();
    let one = lab.host("one");
    let kept = one.back_up("kept", &image(&numbers(1..10))).unwrap();
    let data = lab.largest_pack();
    let gone = one.back_up("gone", &image(&numbers(10..300))).unwrap();
    lab.memory.damage(&data, |bytes| bytes[8000] ^= 1);
    one.repo.remove_version(gone.uid).unwrap();
    let two = lab.host("two");
    let options = Options { unfinished_ms: 0, dead_percent: 1, ..Options::default() };
    // Many small packs of one kind make the damaged one go, too.
    for n in 0..20 {
        two.back_up("small", &image(&[5000 + n])).unwrap();
    }
    let report = two.gc_with(&options).unwrap();
    assert_eq!((report.damaged_packs, report.obstacles.len()), (1, 0), "{report:?}");
    assert!(report.deleted_packs > 20);
    assert!(crate::target::Target::get(&*lab.memory, &data).is_ok());
    let three = lab.host("three");
    let image_ref = three.repo.version(kept.uid).unwrap().record.image;
    let reader = crate::image::ImageReader::new(three.repo, image_ref, "test");
    let readable = (0..9).filter(|n| reader.read_at(n * 4096, &mut [0; 4096]).is_ok()).count();
    assert_eq!(readable, 8);
}

#[test]
fn an_unreadable_record_or_map_stops_everything() {
    for prefix in ["versions/", "index/", "packs/"] {
        let lab = Lab::new();
        let one = lab.host("one");
        one.back_up("kept", &image(&numbers(1..10))).unwrap();
        // Of the packs of the first backup the map's is the smallest.
        let (key, _) = lab.memory.history(prefix).into_iter().min_by_key(|(_, bytes)| bytes.len()).unwrap();
        let gone = one.back_up("gone", &image(&numbers(10..300))).unwrap();
        one.repo.remove_version(gone.uid).unwrap();
        lab.memory.damage(&key, |bytes| bytes[100] ^= 1);
        let before = lab.packs_bytes();
        let report = lab.host("two").gc_all().unwrap();
        assert!(!report.obstacles.is_empty() && report.deleted_packs == 0, "{prefix}: {report:?}");
        assert_eq!((lab.packs_bytes(), lab.memory.bytes_below("condemned/")), (before, 0), "{prefix}");
    }
}

#[test]
fn abandoned_records_are_withdrawn_and_stay_dead() {
    let content = image(&numbers(1..20));
    let mut withdrawn = 0;
    for at in 0.. {
        let lab = Lab::new();
        let host = lab.host("one");
        host.held.die_after(at, Crash::After);
        // Taken over from elsewhere: its moment is long ago.
        let acknowledged = host.back_up_of(Some(Stamp::from_millis(1_000_000)), "x", &content).ok();
        let died = host.held.is_dead();
        drop(host);
        // A foreign host leaves the record of a writer that may be alive alone; its own host knows better.
        assert_eq!(lab.host("two").gc().unwrap().withdrawn_records, 0);
        let again = lab.host("one");
        let report = again.gc().unwrap();
        withdrawn += report.withdrawn_records;
        let shown = again.repo.catalog().version_uids().unwrap();
        assert!(acknowledged.iter().all(|record| shown.contains(&record.uid)));
        // Everything that was ever written arrives once more.
        for prefix in ["versions/", "ok/"] {
            lab.memory.history(prefix).into_iter().for_each(|put| lab.memory.repeat(put));
        }
        let third = lab.host("three");
        assert_eq!(third.repo.catalog().version_uids().unwrap(), shown, "died at {at}");
        for uid in shown {
            assert_eq!(third.read(uid).unwrap(), content);
        }
        assert_eq!(
            third.repo.catalog().known_records().unwrap().len(),
            acknowledged.iter().count().max(third.repo.catalog().version_uids().unwrap().len())
        );
        if !died {
            break;
        }
    }
    assert!(withdrawn > 0);
}

#[test]
fn where_hosts_may_not_see_each_other_nothing_goes_unless_there_is_one_only() {
    let lab = Lab::new();
    let one = lab.host("one");
    let gone = one.back_up("gone", &image(&numbers(1..100))).unwrap();
    one.repo.remove_version(gone.uid).unwrap();
    lab.memory.set_doubtful();
    let refused = one.gc().unwrap_err().to_string();
    assert!(refused.contains("it remembers lists") && refused.contains("--only-host"), "{refused}");
    assert!(!one.gc_with(&Options { dry_run: true, ..Options::default() }).unwrap().going.is_empty());
    assert!(lab.memory.bytes_below("condemned/") == 0 && lab.packs_bytes() > 0);
    one.gc_with(&Options { sharing: Sharing::OnlyHere, ..Options::default() }).unwrap();
    assert_eq!(lab.packs_bytes(), 0);
}

#[test]
fn it_collects_by_itself_when_it_is_time() {
    let lab = Lab::new();
    let clock = Arc::new(TestClock::new(Stamp::from_millis(1_795_372_262_000), 1));
    let one = lab.host_at("one", &clock);
    let (interval, free_percent) = (Some(Duration::from_secs(3600)), 10);
    let look = || auto::look(&one.repo, Schedule { interval, free_percent }, &Options::default()).unwrap();
    // The time counts from the first look.
    assert_eq!(look(), None);
    let gone = one.back_up("gone", &image(&numbers(1..100))).unwrap();
    one.repo.remove_version(gone.uid).unwrap();
    clock.advance_ms(3_599_000);
    assert_eq!(look(), None);
    assert!(lab.packs_bytes() > 0);
    clock.advance_ms(1000);
    assert_eq!(look(), Some(Due::Time));
    assert_eq!((lab.packs_bytes(), look()), (0, None));
}
