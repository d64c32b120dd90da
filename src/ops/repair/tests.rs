//! What is lost is put back as far as this host, or the packs, know it; the rest is named; nothing is destroyed.

use super::give_up::give_up;
use super::*;
use crate::format::fragment;
use crate::format::layout::{ASIDE, ATTRIBUTES, CONDEMNED, HEADER, INDEX, OK, PACKS, TOMBSTONES, VERSIONS};
use crate::image::ImageReader;
use crate::ops::backup::{Backup, backup};
use crate::ops::gc::{Options, Sharing, gc};
use crate::ops::scrub::tests::{Action, World, act, scrub_all, unreadable};
use crate::repo::rebuild::IndexSource;
use crate::repo::testing;
use crate::source::Recipe;
use crate::target::DirTarget;
use crate::target::through::Worn;
use crate::words::attribute::Validity;
use crate::words::clock::{Clock, SystemClock};
use crate::words::ids::BlockId;
use crate::words::monitor::Silent;
use crate::words::name::Name;
use crate::words::record::{BlockKind, RecordKind};
use std::sync::Arc;

fn run(repo: &Repository) -> Repaired {
    repair(repo, false, &Silent, &Interrupt::never()).unwrap()
}

/// Every object and its bytes, save what a repair sets aside.
fn contents(world: &World) -> BTreeMap<String, Vec<u8>> {
    let names = world.objects("").into_iter().filter(|name| !name.starts_with(ASIDE));
    names.map(|name| (name.clone(), std::fs::read(world.file(&name)).unwrap())).collect()
}

fn attributes(repo: &Repository) -> Vec<(Uid, crate::words::attribute::Attributes)> {
    let versions = repo.catalog().version_summaries().unwrap().into_iter();
    versions.map(|version| (version.uid, version.attributes)).collect()
}

#[test]
fn descriptions_of_a_pack_can_be_read_whatever_is_known_of_it() {
    let block = |id: u8, offset, frame_len| PackedBlock {
        id: BlockId::from_bytes([id; 32]),
        offset,
        frame_len,
        plain_len: 4096,
    };
    let pack = PackId::from_bytes([7; 32]);
    let said = |blocks| PackContents { pack, kind: BlockKind::Data, size_bytes: 1000, blocks };
    let found = said(vec![block(1, 32, 100), block(3, 300, 100)]);
    let offsets = |known: Vec<PackedBlock>| -> Vec<Vec<u32>> {
        let all = descriptions(found.clone(), known);
        assert_eq!(fragment::decode(&fragment::encode(&all)).unwrap().packs, all);
        all.iter().map(|pack| pack.blocks.iter().map(|block| block.offset).collect()).collect()
    };
    assert_eq!(offsets(vec![]), [[32, 300]]);
    // What it says too, what lies between, and what was cut off.
    assert_eq!(offsets(vec![block(9, 950, 100), block(2, 132, 168), block(1, 32, 100)]), [[32, 132, 300]],);
    // Another pack in its place, and then two of them.
    let other = [block(4, 32, 200), block(5, 232, 100), block(6, 500, 100)];
    assert_eq!(offsets(other.to_vec()), [vec![32, 300, 500], vec![32, 232]]);
    let third = [block(7, 40, 100), block(8, 140, 200)];
    assert_eq!(offsets([&other[..], &third].concat()), [vec![32, 300, 500], vec![32, 232], vec![40, 140]]);
}

#[test]
fn every_object_that_this_host_knows_is_put_back() {
    let keys = ["keys/ring", "keys/slot", "spare/backyfs", "spare/ring", "spare/slot"];
    for prefix in [HEADER, INDEX, VERSIONS, OK, ATTRIBUTES, TOMBSTONES].into_iter().chain(keys) {
        for action in [Action::Flip(90), Action::Truncate, Action::Remove, Action::Replace] {
            let world = World::new();
            let objects = world.objects(prefix);
            let object = &objects[0];
            let what = format!("{action:?} {object}");
            let known = attributes(world.repo());
            let is_noticed = action != Action::Remove || prefix != TOMBSTONES;
            act(&world, action, object, &objects);
            let damaged = contents(&world);

            let plan = repair(world.repo(), true, &Silent, &Interrupt::never()).unwrap();
            assert_eq!(contents(&world), damaged, "{what}: a dry run changes nothing");
            assert_eq!((plan.is_damage(), plan.steps.is_empty()), (is_noticed, !is_noticed), "{what}: {plan:?}");
            let done = run(world.repo());
            assert_eq!((&done.steps, done.is_damage()), (&plan.steps, false), "{what}: {done:?}");
            let again = scrub_all(world.repo());
            assert!(!again.is_damage(), "{what}: {}", again.text());
            assert!(run(world.repo()).steps.is_empty(), "{what}: nothing is left to do");
            // What was there and could not be read lies aside, byte for byte.
            let aside: Vec<_> =
                world.objects(ASIDE).iter().map(|name| std::fs::read(world.file(name)).unwrap()).collect();
            let kept = damaged.get(object).filter(|_| is_noticed).into_iter().cloned().collect::<Vec<_>>();
            assert_eq!(aside, kept, "{what}");
            let other = world.other_host();
            assert_eq!(attributes(&other), known, "{what}");
            assert!(known.iter().all(|(uid, _)| unreadable(&other, *uid).is_empty()), "{what}");
        }
    }
}

#[test]
fn without_index_and_without_a_catalog_the_packs_tell() {
    let world = World::new();
    let known = attributes(world.repo());
    for object in world.objects(INDEX) {
        act(&world, Action::Flip(90), &object, &[]);
    }
    // One pack without a footer, too: its frames tell.
    act(&world, Action::FlipNearEnd(3), &world.packs(BlockKind::Data)[0], &[]);
    let other = world.other_host();
    assert!(!unreadable(&other, known[0].0).is_empty(), "it knows no block");
    let done = run(&other);
    assert!(done.hopeless.is_empty() && done.versions.is_empty(), "{done:?}");
    for host in [other, world.other_host()] {
        assert!(known.iter().all(|(uid, _)| unreadable(&host, *uid).is_empty()));
    }
    assert!(world.objects(INDEX).len() == 1 && !world.objects(ASIDE).is_empty());
}

#[test]
fn what_no_pack_holds_any_more_is_listed_and_healed_by_the_next_backup() {
    let world = World::new();
    let lost = world.packs(BlockKind::Data)[0].clone();
    act(&world, Action::Remove, &lost, &[]);
    let plan = repair(world.repo(), true, &Silent, &Interrupt::never()).unwrap();
    let done = run(world.repo());
    assert_eq!(plan.steps, done.steps);
    assert_eq!(done.steps.iter().map(|step| &step.object).collect::<Vec<_>>(), [&lost]);
    let lost_bytes =
        |repaired: &Repaired| repaired.versions.iter().map(|v| (v.uid.clone(), v.lost_bytes)).collect::<Vec<_>>();
    assert_eq!(lost_bytes(&plan), lost_bytes(&done), "a dry run tells the same");
    let other = world.other_host();
    for (uid, attributes) in attributes(&other) {
        let bad = unreadable(&other, uid);
        let listed = done.versions.iter().find(|version| version.uid == uid.to_string());
        let ranges = listed.map(|version| version.ranges.clone()).unwrap_or_default();
        let size = other.version(uid).unwrap().record.image.size_bytes;
        let offsets = ranges.iter().flat_map(|r| (r.offset..(r.offset + r.length).min(size)).step_by(4096));
        assert_eq!(offsets.collect::<Vec<_>>(), bad, "version {uid}");
        assert_eq!(attributes.validity == Validity::Valid, bad.is_empty());
    }
    world.back_up("one");
    world.back_up("two");
    assert!(!scrub_all(world.repo()).is_damage());
    assert!(attributes(world.repo()).iter().all(|(_, attributes)| attributes.validity == Validity::Valid));
}

#[test]
fn a_directory_that_is_gone_is_made_again() {
    let world = World::new();
    let pack = world.packs(BlockKind::Data)[0].clone();
    std::fs::remove_dir_all(world.file(&pack).parent().unwrap()).unwrap();
    assert!(scrub_all(world.repo()).damaged_packs.iter().any(|bad| bad.pack == pack));
    std::fs::remove_dir(world.file("withdrawing")).unwrap();
    let other =
        testing::open(Arc::new(DirTarget::open(world.path("target"))), &world.path("s"), Arc::default()).unwrap();
    assert!(crate::ops::scrub::learn(&other).is_ok());
    run(&other);
    world.back_up("one");
    assert!(!scrub_all(world.repo()).is_damage());
}

#[test]
fn an_image_without_a_record_is_recovered_from_its_map() {
    let world = World::new();
    let (uid, _) = attributes(world.repo())[1];
    let image = world.repo().version(uid).unwrap().record.image;
    for object in [layout::record(crate::words::record::RecordKind::Version, uid), layout::ok(uid)] {
        std::fs::remove_file(world.file(object.as_str())).unwrap();
    }
    let other = world.other_host();
    assert!(other.version(uid).is_err());
    let found = orphans::orphans(&other).unwrap();
    // The version that was removed on purpose is an orphan, too, until it is collected.
    let [first, ..] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!((first.root.clone(), first.lost_blocks), (image.root.to_string(), 0), "{found:?}");
    assert_eq!(first.size_bytes, image.size_bytes.next_multiple_of(4096));
    let name = Name::new("back").unwrap();
    assert!(orphans::recover(&other, "ff", &name).is_err());
    let record = orphans::recover(&other, &first.root[..12], &name).unwrap();
    assert!(!record.attributes.validity.is_complete());
    let mut bytes = vec![0; image.size_bytes as usize];
    ImageReader::new(Arc::clone(&other), record.image, "test").read_at(0, &mut bytes).unwrap();
    assert_eq!(bytes, std::fs::read(world.path("two.img")).unwrap());
    assert!(orphans::orphans(&other).unwrap().iter().all(|orphan| orphan.root != first.root));
    // The host that knew the record puts it back whole.
    world.repo().refresh().unwrap();
    assert_eq!(run(world.repo()).steps.len(), 1);
    assert_eq!(unreadable(&world.other_host(), uid), [0u64; 0]);
}

#[test]
fn header_and_key_ring_come_back_from_this_host() {
    for (header, ring) in [(Action::Remove, Action::Flip(90)), (Action::Flip(50), Action::Remove)] {
        let world = World::new();
        let rings = world.objects("keys/ring");
        for (copy, ring_copy) in
            [(HEADER, &rings[0]), (&world.objects("spare/backyfs")[0], &world.objects("spare/ring")[0])]
        {
            testing::open(Arc::new(DirTarget::open(world.path("target"))), &world.path("before"), Arc::default())
                .unwrap();
            act(&world, header, copy, &[]);
            act(&world, ring, ring_copy, &[]);
        }
        let target = DirTarget::open(world.path("target"));
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let (state, secret) = (world.path("state"), testing::secret());
        assert!(
            testing::open(Arc::new(DirTarget::open(world.path("target"))), &world.path("new"), Arc::default()).is_err()
        );
        let wrong = crate::seal::Secret::key_file([9; 64]);
        assert!(header::find(&target, &state, &wrong, &clock).is_err());
        assert!(header::find(&target, &world.path("new"), &secret, &clock).unwrap().is_none());
        let kept = header::find(&target, &state, &secret, &clock).unwrap().unwrap();
        assert_eq!(kept.steps(&target).unwrap().len(), 2);
        kept.execute(&target, &*clock).unwrap();
        assert!(kept.steps(&target).unwrap().is_empty());
        assert!(
            attributes(&world.other_host()).iter().all(|(uid, _)| unreadable(&world.other_host(), *uid).is_empty())
        );
        assert_eq!(world.objects(ASIDE).len(), 1);
        assert!(!world.objects(PACKS).is_empty());
        let done = run(&world.other_host());
        assert_eq!((done.hopeless.len(), done.steps.len()), (0, 2), "{done:?}");
        assert!(!scrub_all(world.repo()).is_damage());
    }
}

#[test]
fn what_lies_on_bad_sectors_is_written_anew() {
    let world = World::new();
    let objects = [HEADER, "keys/slot", "keys/ring", "spare/slot", "spare/backyfs"]
        .map(|prefix| world.objects(prefix)[0].clone());
    for object in objects {
        let inner = Arc::new(DirTarget::open(world.path("target")));
        let worn = Worn::new(inner, vec![layout::ObjectKey::new(&object).unwrap()]);
        let repo = testing::open(worn, &world.path(&object.replace('/', "-")), Arc::default()).unwrap();
        let done = run(&repo);
        assert_eq!(
            done.steps.iter().map(|step| step.object.as_str()).collect::<Vec<_>>(),
            [object.as_str()],
            "{done:?}"
        );
        assert_eq!((run(&repo).steps.len(), done.is_damage()), (0, false), "{object}");
    }
}

#[test]
fn a_record_that_comes_back_is_checked_before_it_is_confirmed() {
    let world = World::new();
    let (uid, _) = attributes(world.repo())[1];
    for object in [layout::record(RecordKind::Version, uid), layout::ok(uid)] {
        std::fs::remove_file(world.file(object.as_str())).unwrap();
    }
    // A collector that sees no record condemns what it needs, and stalls.
    let collector = world.other_host();
    let packs: Vec<PackId> = collector.catalog().packs().unwrap().into_iter().map(|pack| pack.pack).collect();
    collector.condemn(&packs).unwrap();
    world.repo().refresh().unwrap();
    assert_eq!(run(world.repo()).hopeless, []);
    collector.delete_packs(&packs, &|| true).unwrap();
    let other = world.other_host();
    assert_eq!((other.version(uid).is_ok(), unreadable(&other, uid)), (true, Vec::new()));
}

#[test]
fn a_confirmation_that_comes_back_is_checked_too() {
    let world = World::new();
    let (uid, _) = attributes(world.repo())[1];
    std::fs::remove_file(world.file(layout::ok(uid).as_str())).unwrap();
    let packs: Vec<PackId> = world.repo().catalog().packs().unwrap().into_iter().map(|pack| pack.pack).collect();
    let collector = world.other_host();
    collector.condemn(&packs).unwrap();
    assert_eq!(run(world.repo()).hopeless, []);
    collector.delete_packs(&packs, &|| true).unwrap();
    assert_eq!(unreadable(&world.other_host(), uid), [0u64; 0]);
}

#[test]
fn a_version_that_lost_blocks_comes_back_with_the_rest() {
    let world = World::new();
    let (uid, _) = attributes(world.repo())[1];
    let object = layout::record(RecordKind::Version, uid).to_string();
    act(&world, Action::Flip(90), &object, &[]);
    for pack in world.packs(BlockKind::Data) {
        act(&world, Action::Remove, &pack, &[]);
    }
    let done = run(world.repo());
    assert!(done.versions.iter().any(|version| version.uid == uid.to_string()), "{done:?}");
    assert!(world.other_host().version(uid).is_ok());
}

#[test]
fn what_no_host_can_read_is_given_up_when_somebody_asks_for_it() {
    let world = World::new();
    let (uid, _) = attributes(world.repo())[1];
    let record = layout::record(RecordKind::Version, uid).to_string();
    act(&world, Action::Flip(90), &record, &[]);
    let other = world.other_host();
    let collect = || gc(&other, &Options::default(), &Silent, &Interrupt::never()).unwrap().obstacles;
    assert!(collect().iter().any(|obstacle| obstacle.contains(&record) && obstacle.contains("--give-up")));
    assert!(give_up(world.repo(), &record, Sharing::Unknown, false).is_err(), "it is known here");
    let sound = layout::record(RecordKind::Version, attributes(world.repo())[0].0).to_string();
    for not in [sound.as_str(), HEADER, "versions/nothing", "../elsewhere", &world.objects(PACKS)[0]] {
        assert!(give_up(&other, not, Sharing::Unknown, false).is_err(), "{not}");
    }
    let asked = give_up(&other, &record, Sharing::Unknown, true).unwrap();
    assert!(asked.moved_to.is_none() && world.file(&record).exists());
    let told = give_up(&other, &record, Sharing::Unknown, false).unwrap();
    assert_eq!(told.lost, asked.lost);
    assert!(told.lost[0].contains(&uid.to_string()), "{told:?}");
    assert!(!world.file(&record).exists() && world.file(&told.moved_to.unwrap()).exists());
    assert_eq!(collect(), Vec::<String>::new());
}

/// A host of its own that has not looked at the target.
fn stranger(world: &World, state: &str) -> Arc<Repository> {
    testing::open(Arc::new(DirTarget::open(world.path("target"))), &world.path(state), Arc::default()).unwrap()
}

#[test]
fn a_damaged_list_of_condemned_packs_keeps_nobody_from_reading() {
    let world = World::new();
    let known = attributes(world.repo());
    let dead = PackId::from_bytes([9; 32]);
    world.repo().condemn(&[dead]).unwrap();
    let batch = world.objects(CONDEMNED)[0].clone();
    act(&world, Action::FlipNearEnd(3), &batch, &[]);
    let other = stranger(&world, "other");
    assert!(other.refresh().is_err());
    let can_read = || {
        assert_eq!(attributes(&other), known);
        assert!(known.iter().all(|(uid, _)| unreadable(&other, *uid).is_empty()));
        // Whoever publishes or deletes has not seen the whole list.
        assert!(other.check_image(&other.version(known[0].0).unwrap().record.image, &[]).is_err());
        assert!(gc(&other, &Options::default(), &Silent, &Interrupt::never()).is_err());
    };
    crate::ops::scrub::learn_to_read(&other).unwrap();
    can_read();
    let rebuilt = other.rebuild(IndexSource::Fragments, &Silent).unwrap();
    assert!(rebuilt.learned.unreadable.iter().any(|text| text.contains(&batch)), "{rebuilt:?}");
    can_read();
    // Who knows it still does after a rebuild, and puts it back.
    world.repo().rebuild(IndexSource::Packs, &Silent).unwrap();
    assert!(world.repo().catalog().is_condemned(&dead).unwrap());
    assert!(give_up(world.repo(), &batch, Sharing::OnlyHere, false).is_err());
    assert_eq!(run(world.repo()).hopeless, []);
    other.refresh().unwrap();
    assert!(other.catalog().is_condemned(&dead).unwrap());
}

#[test]
fn what_a_list_that_was_given_up_had_deleted_is_not_relied_upon() {
    let world = World::new();
    let (uid, _) = attributes(world.repo())[1];
    world.repo().remove_version(uid).unwrap();
    let collected = gc(world.repo(), &Options { dead_percent: 1, ..Options::default() }, &Silent, &Interrupt::never());
    assert!(collected.unwrap().deleted_packs > 0);
    let batches = world.objects(CONDEMNED);
    batches.iter().for_each(|batch| act(&world, Action::FlipNearEnd(3), batch, &[]));
    let other = stranger(&world, "other");
    crate::ops::scrub::learn_to_read(&other).unwrap();
    for batch in &batches {
        give_up(&other, batch, Sharing::OnlyHere, false).unwrap();
    }
    let job = Backup::new(Recipe::File { path: world.path("two.img") }, Name::new("two").unwrap());
    let again = backup(&other, &job, &Silent, &Interrupt::never()).unwrap().record.uid;
    assert_eq!(unreadable(&world.other_host(), again), [0u64; 0]);
}

#[test]
fn a_list_of_condemned_packs_that_was_given_up_is_written_anew_by_who_knows_it() {
    let world = World::new();
    let dead = PackId::from_bytes([9; 32]);
    world.repo().condemn(&[dead]).unwrap();
    let batch = world.objects(CONDEMNED)[0].clone();
    act(&world, Action::FlipNearEnd(3), &batch, &[]);
    let other = stranger(&world, "other");
    assert!(give_up(&other, &batch, Sharing::Unknown, false).is_err(), "others may be at it");
    let told = give_up(&other, &batch, Sharing::OnlyHere, false).unwrap();
    assert!(world.file(&told.moved_to.unwrap()).exists());
    other.refresh().unwrap();
    assert!(gc(&other, &Options::default(), &Silent, &Interrupt::never()).unwrap().obstacles.is_empty());
    assert!(!other.catalog().is_condemned(&dead).unwrap());
    world.repo().refresh().unwrap();
    other.refresh().unwrap();
    assert!(other.catalog().is_condemned(&dead).unwrap());
}
