//! One host is held up at each of its calls in turn, while others do all of their work; then it goes on. Whatever was acknowledged
//! must be there.

use super::lab::{BLOCK, Host, Lab, image, numbers};
use crate::image::ImageReader;
use crate::ops::gc::Options;
use crate::ops::rebuild::IndexSource;
use crate::repo::withdraw::Found;
use crate::words::ids::Uid;
use crate::words::record::Verdict;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Versions that were acknowledged, and what they hold.
type Acknowledged = Vec<(Uid, Vec<u8>)>;

fn collect(host: &Host) {
    let options = Options { dead_percent: 10, unfinished_ms: 0, ..Options::default() };
    let report = host.gc_with(&options).unwrap();
    assert!(report.obstacles.is_empty(), "{report:?}");
}

/// Runs `held` on a host of its own that stops at its call `at`, then `others`, then lets it go on. `None` when it never came
/// so far.
fn interleave(
    at: u64,
    prepare: impl Fn(&Lab) -> Acknowledged,
    held: impl Fn(&Host) -> Acknowledged + Send + Sync + 'static,
    others: impl Fn(&Lab) -> Acknowledged,
) -> Option<()> {
    let lab = Lab::new();
    let mut done = prepare(&lab);
    let host = Arc::new(lab.host("held"));
    host.held.hold_after(at);
    let finished = Arc::new(AtomicBool::new(false));
    let thread = std::thread::spawn({
        let (host, finished) = (Arc::clone(&host), Arc::clone(&finished));
        move || {
            let done = held(&host);
            finished.store(true, Ordering::SeqCst);
            done
        }
    });
    let was_held = host.held.wait_until_held(|| finished.load(Ordering::SeqCst));
    if was_held {
        done.extend(others(&lab));
    }
    host.held.release();
    done.extend(thread.join().unwrap());
    drop(host);
    for what in ["at once", "after another collection"] {
        let fresh = lab.host(what);
        for (uid, bytes) in &done {
            let read = fresh.read(*uid).unwrap_or_else(|error| panic!("held at {at}, {what}: {error}"));
            assert!(read == *bytes, "held at {at}, {what}: other bytes");
        }
        collect(&fresh);
    }
    was_held.then_some(())
}

fn every_call(run: impl Fn(u64) -> Option<()>) {
    let calls = (0..).find(|at| run(*at).is_none()).unwrap_or(0);
    assert!(calls > 8, "{calls} calls only");
}

/// One version that stays; one that was removed; both share blocks.
fn one_removed(lab: &Lab) -> Acknowledged {
    let one = lab.host("one");
    let content = image(&numbers(1..12));
    let kept = one.back_up("kept", &content).unwrap();
    let gone = one.back_up("gone", &image(&numbers(8..40))).unwrap();
    one.repo.remove_version(gone.uid).unwrap();
    vec![(kept.uid, content)]
}

/// Backs up what the removed version held, and a little more; a backup that fails promises nothing.
fn write_again(host: &Host) -> Acknowledged {
    let content = image(&numbers(8..44));
    host.back_up("again", &content).map(|record| (record.uid, content)).into_iter().collect()
}

fn collector(lab: &Lab, name: &str) -> Acknowledged {
    collect(&lab.host(name));
    Vec::new()
}

#[test]
fn a_writer_is_held_up_while_another_host_collects() {
    every_call(|at| interleave(at, one_removed, write_again, |lab| collector(lab, "two")));
}

#[test]
fn a_writer_is_held_up_while_two_collect_and_a_third_writes() {
    every_call(|at| {
        interleave(at, one_removed, write_again, |lab| {
            collector(lab, "two");
            let done = write_again(&lab.host("three"));
            assert_eq!(done.len(), 1, "nobody is in its way");
            collector(lab, "four");
            done
        })
    });
}

#[test]
fn a_collector_is_held_up_while_others_write() {
    let held = |host: &Host| {
        let _ = host.gc_with(&Options { dead_percent: 10, unfinished_ms: 0, ..Options::default() }).unwrap();
        Vec::new()
    };
    every_call(|at| interleave(at, one_removed, held, |lab| write_again(&lab.host("two"))));
}

#[test]
fn a_collector_is_held_up_while_others_write_and_collect() {
    let held = |host: &Host| {
        let _ = host.gc_with(&Options { dead_percent: 10, unfinished_ms: 0, ..Options::default() }).unwrap();
        Vec::new()
    };
    every_call(|at| {
        interleave(at, duplicated, held, |lab| {
            let done = write_again(&lab.host("two"));
            collector(lab, "three");
            done
        })
    });
}

/// The same blocks in two packs: two hosts stored them at once.
fn duplicated(lab: &Lab) -> Acknowledged {
    let (one, two) = (lab.host("one"), lab.host("two"));
    let (first, second) = (image(&numbers(1..12)), image(&numbers(5..16)));
    let a = one.back_up("a", &first).unwrap();
    // It has not looked since, and its check does not mind.
    two.repo.store_block(&image(&[700]), crate::words::ids::BlockId::HOLE).unwrap();
    let b = two.back_up("b", &second).unwrap();
    let gone = one.back_up("gone", &image(&numbers(8..40))).unwrap();
    one.repo.remove_version(gone.uid).unwrap();
    vec![(a.uid, first), (b.uid, second)]
}

#[test]
fn two_collectors_meet_blocks_that_both_packs_hold() {
    let held = |host: &Host| {
        let _ = host.gc_with(&Options { dead_percent: 10, unfinished_ms: 0, ..Options::default() }).unwrap();
        Vec::new()
    };
    every_call(|at| interleave(at, duplicated, held, |lab| collector(lab, "three")));
}

#[test]
fn a_reader_is_held_up_while_what_it_reads_is_moved() {
    every_call(|at| {
        interleave(
            at,
            one_removed,
            |host| {
                for uid in host.repo.catalog().version_uids().unwrap() {
                    let of = host.repo.version(uid).unwrap().record.image;
                    // Each block by a request of its own.
                    for number in (1..12).rev() {
                        let (mut bytes, reader) = ([0; BLOCK], ImageReader::new(Arc::clone(&host.repo), of, "test"));
                        reader.read_at(u64::from(number - 1) * BLOCK as u64, &mut bytes).unwrap();
                        assert!(bytes[..] == image(&[number])[..], "block {number}");
                    }
                }
                Vec::new()
            },
            |lab| collector(lab, "two"),
        )
    });
}

#[test]
fn a_writer_is_held_up_while_a_finder_takes_it_for_dead() {
    let withdrawn = Arc::new(AtomicBool::new(false));
    every_call(|at| {
        withdrawn.store(false, Ordering::SeqCst);
        let (seen, told) = (Arc::clone(&withdrawn), Arc::clone(&withdrawn));
        interleave(
            at,
            one_removed,
            move |host| {
                let done = write_again(host);
                assert!(done.is_empty() || !seen.load(Ordering::SeqCst), "a withdrawn version was acknowledged");
                done
            },
            move |lab| {
                let finder = lab.host("finder");
                for uid in finder.repo.catalog().known_records().unwrap() {
                    let Some((record, verdict)) = finder.repo.catalog().record(uid.uid).unwrap() else { continue };
                    if verdict != Verdict::Confirmed && finder.repo.withdraw(&record).unwrap() == Found::Withdrawn {
                        told.store(true, Ordering::SeqCst);
                    }
                }
                collector(lab, "two")
            },
        )
    });
}

#[test]
fn a_rebuild_is_held_up_while_packs_go_and_fragments_are_merged() {
    every_call(|at| {
        interleave(
            at,
            |lab| {
                let done = one_removed(lab);
                let one = lab.host("one");
                (1000..1009).for_each(|number| one.store(number));
                done
            },
            |host| {
                host.rebuild(IndexSource::Fragments);
                for uid in host.repo.catalog().version_uids().unwrap() {
                    assert_eq!(host.read(uid).unwrap(), image(&numbers(1..12)));
                }
                let learned = host.repo.refresh_everything().unwrap();
                assert_eq!((learned.rebuilt, learned.unreadable), (None, vec![]));
                Vec::new()
            },
            |lab| collector(lab, "two"),
        )
    });
}
