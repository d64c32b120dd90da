//! The damage matrix over collections: what is done to an object, to which object, and who collects then. Whatever could be read
//! before can be read afterwards, and where nobody can know what is needed, nothing goes.

use super::lab::{Lab, image, numbers};
use crate::format::layout;
use crate::image::ImageReader;
use crate::ops::Interrupt;
use crate::ops::gc::{Options, Report, Sharing, gc};
use crate::ops::rebuild::IndexSource;
use crate::ops::repair::repair;
use crate::ops::scrub::tests::{Action, World, act, unreadable};
use crate::repo::Repository;
use crate::repo::testing::open;
use crate::target::{Crash, DirTarget, Target};
use crate::words::attribute::AttributeChange;
use crate::words::clock::{Clock, SystemClock, TestClock};
use crate::words::ids::Uid;
use crate::words::monitor::Silent;
use crate::words::record::{BlockKind, RecordKind};
use std::collections::BTreeMap;
use std::sync::Arc;

const OPTIONS: Options = Options { dry_run: false, dead_percent: 1, unfinished_ms: 0, sharing: Sharing::Unknown };

/// Which blocks of which versions a host that knows nothing cannot read.
fn unreadable_anywhere(world: &World) -> BTreeMap<Uid, Vec<u64>> {
    let host = world.other_host();
    let uids = host.catalog().version_uids().unwrap();
    uids.into_iter().map(|uid| (uid, unreadable(&host, uid))).collect()
}

/// Versions that stay, versions that went, a collection long ago, one that is due.
fn scene() -> World {
    let world = World::new();
    let uids = world.repo().catalog().version_uids().unwrap();
    gc(world.repo(), &OPTIONS, &Silent, &Interrupt::never()).unwrap();
    world.repo().remove_version(uids[1]).unwrap();
    std::fs::write(world.path("three.img"), std::fs::read(world.path("two.img")).unwrap().split_off(80 * 4096))
        .unwrap();
    let gone = world.back_up("three");
    std::fs::write(world.path("three.img"), &std::fs::read(world.path("three.img")).unwrap()[..30 * 4096]).unwrap();
    world.back_up("three");
    world.repo().remove_version(gone).unwrap();
    world
}

/// What goes first: on which hosts the collection runs.
#[derive(Debug, Clone, Copy)]
enum Collector {
    /// One that knew everything before the damage.
    Knowing,
    /// One that sees the target for the first time.
    New,
}

fn collect(repo: &Repository) -> Option<Report> {
    // It may say that it cannot: a list of condemned packs that cannot be read is no list.
    gc(repo, &OPTIONS, &Silent, &Interrupt::never()).ok()
}

fn case(collector: Collector, action: Action, choose: impl Fn(&World) -> Vec<String>) -> Option<Report> {
    let world = scene();
    let objects = choose(&world);
    let what = format!("{action:?} {} before a collection by a host {collector:?}", objects[0]);
    let shown = unreadable_anywhere(&world);
    assert!(shown.values().all(Vec::is_empty), "{what}: everything can be read before");
    act(&world, action, &objects[0], &objects);
    let before = unreadable_anywhere(&world);
    // Damage to anything but a pack takes no block; who knew everything can say where all of them are.
    let lost = if objects[0].starts_with(layout::PACKS) { before.clone() } else { shown };
    let packs = world.objects(layout::PACKS);
    let host: Arc<Repository> = match collector {
        Collector::Knowing => Arc::clone(world.repo()),
        Collector::New => world.other_host(),
    };
    let report = collect(&host);
    if report.as_ref().is_none_or(|report| !report.obstacles.is_empty() && report.copied_blocks == 0) {
        let left = world.objects(layout::PACKS);
        assert!(packs.iter().all(|pack| left.contains(pack)), "{what}: nothing may go: {report:?}");
    }
    // Nobody who comes now can know of a version without a record.
    let unknown = |uid: &Uid| action == Action::Remove && objects[0].ends_with(&uid.to_string());
    let compare = |when: &str, before: &BTreeMap<Uid, Vec<u64>>| {
        let after = unreadable_anywhere(&world);
        for (uid, bad) in before.iter().filter(|(uid, _)| !unknown(uid)) {
            let now = after.get(uid).unwrap_or_else(|| panic!("{what}, {when}: version {uid} is gone: {report:?}"));
            assert!(now.iter().all(|at| bad.contains(at)), "{what}, {when}: {uid} {bad:?}, then {now:?}: {report:?}");
        }
    };
    compare("after it", &before);
    // And once more, by one that has seen nothing of all that.
    collect(&world.other_host());
    compare("after another one", &before);
    repair(world.repo(), false, &Silent, &Interrupt::never()).unwrap_or_else(|error| panic!("{what}: {error}"));
    compare("after a repair", &lost);
    report
}

const ACTIONS: [Action; 4] = [Action::Flip(90), Action::Truncate, Action::Remove, Action::Replace];
const COLLECTORS: [Collector; 2] = [Collector::Knowing, Collector::New];

fn every_collector(action: Action, choose: impl Fn(&World) -> Vec<String>) {
    COLLECTORS.into_iter().for_each(|collector| drop(case(collector, action, &choose)));
}

fn every(choose: impl Fn(&World) -> Vec<String>, check: impl Fn(Collector, Action, Option<Report>)) {
    for collector in COLLECTORS {
        for action in ACTIONS {
            check(collector, action, case(collector, action, &choose));
        }
    }
}

#[test]
fn of_data() {
    every(|world| world.packs(BlockKind::Data), |_, _, report| drop(report.expect("data hides nothing")));
}

#[test]
fn of_maps() {
    let needed = |world: &World| {
        let uid = world.repo().catalog().version_uids().unwrap()[0];
        let root = world.repo().version(uid).unwrap().record.image.root;
        let mut packs = world.packs(BlockKind::Map);
        let holds = |pack: &String| {
            let copies = world.repo().catalog().locations(&root).unwrap();
            copies.iter().any(|copy| layout::pack(copy.pack).as_str() == pack)
        };
        packs.sort_by_key(|pack| !holds(pack));
        packs
    };
    every(needed, |collector, action, report| {
        let report = report.expect("it says what is wrong");
        // Who read the map before needs nobody to read it again.
        if matches!(collector, Collector::New) {
            assert!(!report.obstacles.is_empty() && report.deleted_packs == 0, "{action:?}: {report:?}");
        }
    });
}

#[test]
fn of_index_fragments() {
    every(
        |world| world.objects(layout::INDEX),
        |collector, action, report| {
            let report = report.expect("it says what is wrong");
            let is_seen = action != Action::Remove && matches!(collector, Collector::New);
            assert!(!is_seen || (!report.obstacles.is_empty() && report.deleted_packs == 0), "{action:?}: {report:?}");
        },
    );
}

#[test]
fn of_records() {
    every(
        |world| world.objects(layout::VERSIONS),
        |collector, action, report| {
            let report = report.expect("it says what is wrong");
            let is_seen = action != Action::Remove && matches!(collector, Collector::New);
            assert!(!is_seen || (!report.obstacles.is_empty() && report.deleted_packs == 0), "{action:?}: {report:?}");
        },
    );
}

#[test]
fn a_lost_record_keeps_its_blocks_where_it_was_known() {
    let world = scene();
    let uid = world.repo().catalog().version_uids().unwrap()[0];
    let image = world.repo().version(uid).unwrap().record.image;
    std::fs::remove_file(world.file(layout::record(RecordKind::Version, uid).as_str())).unwrap();
    for _ in 0..2 {
        collect(world.repo()).expect("nothing is unreadable");
        assert!(world.repo().version(uid).is_err() && world.repo().lost_records().unwrap().len() == 1);
        let mut bytes = vec![0; image.size_bytes as usize];
        ImageReader::new(Arc::clone(world.repo()), image, "lost").read_at(0, &mut bytes).unwrap();
        assert!(bytes == std::fs::read(world.path("one.img")).unwrap());
    }
}

#[test]
fn of_condemned_batches() {
    for action in [Action::Flip(90), Action::Truncate, Action::Replace] {
        let world = scene();
        let batches = world.objects(layout::CONDEMNED);
        let stranger = world.other_host();
        act(&world, action, &batches[0], &batches);
        // Who knows the batch needs nobody to read it again.
        collect(world.repo()).expect("it was read before");
        for uid in world.repo().catalog().version_uids().unwrap() {
            assert_eq!(unreadable(&stranger, uid), [0_u64; 0], "{action:?}");
        }
        // To anybody else an incomplete list must not pass for the whole one.
        let before = world.objects(layout::PACKS);
        world.repo().remove_version(world.repo().catalog().version_uids().unwrap()[0]).unwrap();
        let new = open(Arc::new(DirTarget::open(world.path("target"))), &world.path("new"), Arc::default()).unwrap();
        assert!(new.refresh().is_err(), "{action:?}");
        assert!(collect(&new).is_none(), "{action:?}");
        // What is stored can be read there all the same.
        let uids = new.catalog().version_uids().unwrap();
        assert_eq!(uids, world.repo().catalog().version_uids().unwrap(), "{action:?}");
        for uid in uids {
            assert_eq!(unreadable(&new, uid), [0_u64; 0], "{action:?}");
        }
        assert_eq!(world.objects(layout::PACKS), before, "{action:?}");
    }
    every_collector(Action::Remove, |world| world.objects(layout::CONDEMNED));
}

#[test]
fn of_verdicts_and_attributes() {
    for prefix in [layout::OK, layout::ATTRIBUTES, layout::TOMBSTONES] {
        every(|world| world.objects(prefix), |_, _, report| drop(report));
    }
}

#[test]
fn a_version_whose_confirmation_was_lost_stays_when_somebody_relies_on_it() {
    let lab = Lab::new();
    let one = lab.host("one");
    let tagged = one.back_up("vm", &image(&numbers(1..60))).unwrap();
    let left = one.back_up("other", &image(&numbers(100..160))).unwrap();
    one.repo.change_attributes(tagged.uid, &[AttributeChange::AddTag("kept".into())]).unwrap();
    for uid in [tagged.uid, left.uid] {
        lab.memory.delete(&layout::ok(uid)).unwrap();
    }
    // Who knew them goes on knowing, also after a rebuild.
    one.rebuild(IndexSource::Fragments);
    let report = one.gc_with(&Options::default()).unwrap();
    assert_eq!((report.withdrawn_records, report.unconfirmed.len()), (0, 0), "{report:?}");
    // Who never did, and looks a week later, cannot know that the one was ever confirmed.
    let clock = Arc::new(TestClock::new(one.repo.clock().now().plus_millis(7 * 86_400_000), 1));
    let late = lab.host_at("late", &clock);
    let report = late.gc_with(&Options::default()).unwrap();
    assert_eq!((report.withdrawn_records, report.unconfirmed.len()), (1, 1), "{report:?}");
    assert!(lab.memory.get(&layout::record(RecordKind::Version, tagged.uid)).is_ok());
}

#[test]
fn a_repair_that_dies_leaves_nothing_that_looks_abandoned() {
    let lab = Lab::new();
    let bytes = image(&numbers(1..20));
    let uid = lab.host("one").back_up("vm", &bytes).unwrap().uid;
    let objects = [layout::record(RecordKind::Version, uid), layout::ok(uid)];
    objects.iter().for_each(|object| lab.memory.delete(object).unwrap());
    let (lost, mut before) = (lab.memory.save(), [false; 2]);
    for calls in 0.. {
        lab.memory.put_back(lost.clone());
        let one = lab.host("one");
        one.held.die_after(calls, Crash::After);
        let repaired = repair(&one.repo, false, &Silent, &Interrupt::never());
        let is_whole = repaired.is_ok() && !one.held.is_dead();
        drop(one);
        let there = objects.each_ref().map(|object| lab.memory.get(object).is_ok());
        if there != before {
            // Another host looks a week later, when nobody is expected to be at work on it any more.
            let clock = Arc::new(TestClock::new(SystemClock.now().plus_millis(7 * 86_400_000), 1));
            let late = lab.host_at(&format!("late{calls}"), &clock);
            assert_eq!(late.gc_with(&Options::default()).unwrap().withdrawn_records, 0, "it died after {calls} calls");
            let one = lab.host("one");
            repair(&one.repo, false, &Silent, &Interrupt::never()).unwrap();
            assert!(one.read(uid).unwrap() == bytes, "it died after {calls} calls");
            before = there;
        }
        if is_whole {
            assert!(calls > 10 && before == [true; 2], "{calls} calls only");
            break;
        }
    }
}
