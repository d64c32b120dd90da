//! The damage matrix: what is done to an object, to which object, and what comes next. A scrub ends, names what is damaged and
//! nothing else, tells other hosts, and marks exactly the bytes that cannot be read; the next backup of the same heals them.

use super::*;
use crate::format::layout;
use crate::format::layout::ObjectKey;
use crate::image::ImageReader;
use crate::ops::backup::{Backup, backup};
use crate::ops::rebuild::{IndexSource, rebuild};
use crate::repo::testing::{TestRepository, create, open, small};
use crate::source::Recipe;
use crate::target::through::Through;
use crate::target::{DirTarget, Target, TargetError};
use crate::words::attribute::Validity;
use crate::words::clock::{Clock, SystemClock};
use crate::words::monitor::{Silent, Tally};
use crate::words::name::Name;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub(in crate::ops) struct World {
    pub(in crate::ops) test: TestRepository,
}

fn everything() -> Options {
    Options { selection: Selection::All, percent: None, rate: None, threads: 2, start: Start::Resume }
}

pub(in crate::ops) fn scrub_all(repo: &Repository) -> ScrubReport {
    scrub(repo, &everything(), &Silent, &Interrupt::never()).unwrap()
}

impl World {
    /// Two names, the second a part of the first and some more; an attribute, a tombstone.
    pub(in crate::ops) fn new() -> Self {
        let test = create(&small());
        let world = Self { test };
        let mut bytes = vec![0; 300 * 4096];
        SystemClock.random(&mut bytes);
        std::fs::write(world.path("one.img"), &bytes).unwrap();
        bytes.truncate(100 * 4096);
        let mut more = vec![0; 50 * 4096 + 17];
        SystemClock.random(&mut more);
        bytes.extend(more);
        std::fs::write(world.path("two.img"), &bytes).unwrap();
        std::fs::write(world.path("gone.img"), b"gone").unwrap();
        let one = world.back_up("one");
        world.back_up("two");
        let gone = world.back_up("gone");
        world.test.repo.change_attributes(one, &[AttributeChange::AddTag("t".into())]).unwrap();
        world.test.repo.remove_version(gone).unwrap();
        world
    }

    pub(in crate::ops) fn repo(&self) -> &Arc<Repository> {
        &self.test.repo
    }

    pub(in crate::ops) fn path(&self, name: &str) -> PathBuf {
        self.test.dir.path().join(name)
    }

    pub(in crate::ops) fn back_up(&self, name: &str) -> Uid {
        let job = Backup::new(Recipe::File { path: self.path(&format!("{name}.img")) }, Name::new(name).unwrap());
        backup(self.repo(), &job, &Silent, &Interrupt::never()).unwrap().record.uid
    }

    /// The same target, seen by a host that knows nothing of it.
    pub(in crate::ops) fn other_host(&self) -> Arc<Repository> {
        let target = Arc::new(DirTarget::open(self.path("target")));
        let mut number = [0; 8];
        SystemClock.random(&mut number);
        let state = self.path(&format!("state-{}", u64::from_le_bytes(number)));
        let repo = open(target, &state, Arc::new(Tally::default())).unwrap();
        repo.refresh().unwrap();
        repo
    }

    pub(in crate::ops) fn objects(&self, prefix: &str) -> Vec<String> {
        let listed = self.repo().target().list(prefix).unwrap();
        listed.into_iter().map(|info| info.key.to_string()).collect()
    }

    pub(in crate::ops) fn file(&self, object: &str) -> PathBuf {
        self.path("target").join(object)
    }

    /// Packs of a kind, those with most blocks first.
    pub(in crate::ops) fn packs(&self, kind: BlockKind) -> Vec<String> {
        let mut packs = self.repo().catalog().packs().unwrap();
        packs.retain(|pack| pack.kind == kind);
        packs.sort_by_key(|pack| std::cmp::Reverse((pack.block_count, pack.pack)));
        packs.into_iter().map(|pack| layout::pack(pack.pack).to_string()).collect()
    }
}

use crate::words::record::BlockKind;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::ops) enum Action {
    Flip(u64),
    FlipNearEnd(u64),
    Truncate,
    Remove,
    Replace,
}

pub(in crate::ops) fn act(world: &World, action: Action, object: &str, others: &[String]) {
    let file = world.file(object);
    let bytes = std::fs::read(&file).unwrap();
    let flipped = |at: usize| {
        let mut bytes = bytes.clone();
        bytes[at] ^= 0x10;
        bytes
    };
    let changed = match action {
        Action::Flip(at) => flipped(at as usize),
        Action::FlipNearEnd(at) => flipped(bytes.len() - 1 - at as usize),
        Action::Truncate => bytes[..bytes.len() / 2].to_vec(),
        // One that is there: a pack may have been collected.
        Action::Replace => match others.iter().find(|other| *other != object && world.file(other).exists()) {
            Some(other) => std::fs::read(world.file(other)).unwrap(),
            None => vec![0; bytes.len()],
        },
        Action::Remove => return std::fs::remove_file(&file).unwrap(),
    };
    replace(&file, &changed);
}

fn replace(file: &Path, bytes: &[u8]) {
    std::fs::remove_file(file).unwrap();
    std::fs::write(file, bytes).unwrap();
}

/// Offsets of blocks of a version that cannot be read, by reading them all.
pub(in crate::ops) fn unreadable(repo: &Arc<Repository>, uid: Uid) -> Vec<u64> {
    let image = repo.version(uid).unwrap().record.image;
    let reader = ImageReader::new(Arc::clone(repo), image, "test");
    let offsets = (0..image.block_count()).map(|index| index * 4096);
    offsets.filter(|at| reader.read_at(*at, &mut vec![0; 4096.min(image.size_bytes - at) as usize]).is_err()).collect()
}

fn told(finding: Option<&VersionFinding>, size: u64) -> Vec<u64> {
    let ranges = finding.map(|finding| finding.ranges.clone()).unwrap_or_default();
    let blocks = ranges.iter().flat_map(|r| (r.offset..(r.offset + r.length).min(size)).step_by(4096));
    let mut blocks: Vec<u64> = blocks.collect();
    blocks.sort_unstable();
    blocks
}

fn check_versions(world: &World, report: &ScrubReport, what: &str) {
    // Another host that reads everything must find the same bytes bad that the report names.
    let other = world.other_host();
    for uid in world.repo().catalog().version_uids().unwrap() {
        let finding = report.findings.iter().find(|finding| finding.uid == uid.to_string());
        let version = world.repo().version(uid).unwrap();
        let bad = unreadable(&other, uid);
        assert_eq!(told(finding, version.record.image.size_bytes), bad, "{what}: version {uid}");
        let validity = other.version(uid).unwrap().attributes.validity;
        assert_eq!(matches!(validity, Validity::Invalid(_)), !bad.is_empty(), "{what}: {validity}");
    }
}

/// Damages a pack, scrubs, heals it with the next backup, scrubs again.
fn damaged_pack(kind: BlockKind, action: Action) {
    let world = World::new();
    let packs = world.packs(kind);
    let object = &packs[0];
    let what = format!("{action:?} {kind:?} pack");
    assert!(!scrub_all(world.repo()).is_damage(), "{what}: sound before");
    act(&world, action, object, &packs);

    let report = scrub_all(world.repo());
    let named: Vec<_> = report.damaged_packs.iter().map(|pack| pack.pack.as_str()).collect();
    assert_eq!((named, report.is_damage()), (vec![object.as_str()], true), "{what}");
    assert!(report.damaged_packs[0].is_news && report.damaged_objects.is_empty(), "{what}: {report:?}");
    check_versions(&world, &report, &what);
    let again = scrub_all(world.repo());
    assert!(!again.damaged_packs[0].is_news, "{what}: told once");
    assert_eq!(world.objects(layout::DAMAGE).len(), 1, "{what}: reported once");

    // A host that learnt of the damage by the report alone does not deduplicate against it either.
    let other = world.other_host();
    let known = other.catalog().damaged().unwrap().len() as u64;
    assert_eq!(known, report.damaged_packs[0].bad_blocks, "{what}");
    world.back_up("one");
    world.back_up("two");
    let healed = scrub_all(world.repo());
    check_versions(&world, &healed, &what);
    assert!(!healed.is_damage(), "{what}: {}", healed.text());
    for uid in world.repo().catalog().version_uids().unwrap() {
        assert_eq!(world.repo().version(uid).unwrap().attributes.validity, Validity::Valid, "{what}");
        assert_eq!(unreadable(&world.other_host(), uid), [0u64; 0], "{what}");
    }
}

const ACTIONS: [Action; 4] = [Action::Flip(100), Action::Truncate, Action::Remove, Action::Replace];

#[test]
fn damaged_data_packs_are_named_marked_and_healed() {
    for action in ACTIONS.into_iter().chain([Action::Flip(3), Action::FlipNearEnd(3), Action::FlipNearEnd(60)]) {
        damaged_pack(BlockKind::Data, action);
    }
}

#[test]
fn damaged_map_packs_are_named_marked_and_healed() {
    for action in ACTIONS.into_iter().chain([Action::FlipNearEnd(60)]) {
        damaged_pack(BlockKind::Map, action);
    }
}

#[test]
fn every_other_damaged_object_is_named() {
    let prefixes =
        [layout::INDEX, layout::VERSIONS, layout::OK, layout::ATTRIBUTES, layout::TOMBSTONES, layout::HEADER];
    for prefix in prefixes.into_iter().chain(["keys/slot", "keys/ring", "spare/backyfs", "spare/slot", "spare/ring"]) {
        for action in [Action::Flip(90), Action::Truncate, Action::Remove, Action::Replace] {
            let world = World::new();
            let objects = world.objects(prefix);
            let object = &objects[0];
            let what = format!("{action:?} {object}");
            act(&world, action, object, &objects);
            let report = scrub_all(world.repo());
            let named: BTreeSet<_> = report.damaged_objects.iter().map(|bad| bad.object.as_str()).collect();
            // What nobody can know to be missing: a tombstone, whose version is gone as it should.
            let is_known = action != Action::Remove || prefix != layout::TOMBSTONES;
            // A fragment that is gone is noticed, and written anew from the packs.
            if prefix == layout::INDEX && action != Action::Remove {
                let lost = named.iter().filter(|name| name.starts_with(layout::PACKS)).count();
                assert!(lost > 0, "{what}: {report:?}");
                assert_eq!(named.len() - lost, usize::from(action != Action::Remove), "{what}: {report:?}");
            } else {
                let expected: BTreeSet<_> = is_known.then_some(object.as_str()).into_iter().collect();
                assert_eq!(named, expected, "{what}: {report:?}");
            }
            assert_eq!(report.is_damage(), is_known, "{what}");
            assert!(report.damaged_packs.is_empty(), "{what}");
            // Every block can still be read here: nothing of that is damage to a version.
            for uid in world.repo().catalog().version_uids().unwrap() {
                assert_eq!(world.repo().version(uid).unwrap().attributes.validity, Validity::Valid, "{what}");
            }
        }
    }
}

#[test]
fn a_bad_copy_beside_a_good_one_harms_nobody() {
    let world = World::new();
    let pack = &world.packs(BlockKind::Data)[0];
    let intact = std::fs::read(world.file(pack)).unwrap();
    act(&world, Action::Remove, pack, &[]);
    scrub_all(world.repo());
    let before = world.packs(BlockKind::Data);
    world.back_up("one");
    world.back_up("two");
    assert!(!scrub_all(world.repo()).is_damage());
    let second = world.packs(BlockKind::Data).into_iter().find(|pack| !before.contains(pack)).unwrap();
    // The pack comes back, from a copy of the target: it is read, found good, and the report is taken back.
    std::fs::write(world.file(pack), &intact).unwrap();
    let report = scrub_all(world.repo());
    assert!(report.damaged_packs.is_empty() && world.objects(layout::DAMAGE).is_empty(), "{report:?}");
    assert!(world.repo().catalog().bad_copies().unwrap().is_empty());
    // The second copies are the ones to go now; reads take the good ones without trying the bad.
    act(&world, Action::Truncate, &second, &[]);
    scrub_all(world.repo());
    for uid in world.repo().catalog().version_uids().unwrap() {
        assert_eq!(unreadable(world.repo(), uid), [0_u64; 0], "{uid} has a good copy of everything");
    }
}

#[test]
fn a_rebuilt_catalog_knows_of_damage_and_a_version_made_from_a_damaged_one_says_so() {
    let world = World::new();
    act(&world, Action::Flip(100), &world.packs(BlockKind::Data)[0], &[]);
    scrub_all(world.repo());
    let before = world.repo().catalog().dump().unwrap();
    rebuild(world.repo(), IndexSource::Fragments, &Silent).unwrap();
    assert_eq!(world.repo().catalog().dump().unwrap(), before);
    let damaged = world.repo().catalog().damaged().unwrap();
    assert_eq!(damaged.len(), 1);
    // Patched in place: the damaged block is not written anew.
    let uids = world.repo().catalog().version_uids().unwrap();
    let one = world.repo().version(uids[0]).unwrap();
    let draft = crate::image::DraftImage::new(Arc::clone(world.repo()), one.record.image, Some(one.record.image));
    let lost = unreadable(world.repo(), uids[0])[0];
    draft.write_at(if lost == 0 { 8192 } else { 0 }, b"patched").unwrap();
    let attributes = crate::words::attribute::Attributes { validity: Validity::Valid, ..one.attributes };
    let publication =
        crate::ops::commit::Publication { base: uids[0], ..crate::ops::commit::Publication::new(attributes) };
    let patched = crate::ops::commit::publish_version(world.repo(), &draft.settle().unwrap(), publication).unwrap();
    assert!(matches!(patched.attributes.validity, Validity::Invalid(_)));
}

#[test]
fn what_reading_met_is_reported_and_marked() {
    let world = World::new();
    act(&world, Action::Flip(100), &world.packs(BlockKind::Data)[0], &[]);
    assert!(!publish_noted(world.repo(), &Interrupt::never()).unwrap());
    let uid = world.repo().catalog().version_uids().unwrap()[0];
    assert_eq!(unreadable(world.repo(), uid).len(), 1);
    assert!(publish_noted(world.repo(), &Interrupt::never()).unwrap());
    assert!(!publish_noted(world.repo(), &Interrupt::never()).unwrap());
    let other = world.other_host();
    assert_eq!(other.catalog().damaged().unwrap().len(), 1);
    assert!(matches!(other.version(uid).unwrap().attributes.validity, Validity::Invalid(_)));
}

/// Interrupts after so many bytes.
struct StopAfter(u64, &'static AtomicBool);

impl Monitor for StopAfter {
    fn count(&self, _: crate::words::monitor::Counter, _: u64) {}
    fn progress(&self, done: u64, _: u64) {
        self.1.store(done >= self.0, Ordering::Relaxed);
    }
}

#[test]
fn an_interrupted_scrub_goes_on_where_it_stopped() {
    static STOP: AtomicBool = AtomicBool::new(false);
    let world = World::new();
    let options = Options { threads: 1, ..everything() };
    let stopped = scrub(world.repo(), &options, &StopAfter(500_000, &STOP), &Interrupt::new(&STOP));
    assert!(matches!(stopped, Err(OpsError::Interrupted)));
    let half = report::last(world.repo()).unwrap().unwrap();
    assert!(half.finished.is_none() && half.packs_read < half.packs && half.bytes_read >= 500_000, "{half:?}");
    std::thread::sleep(std::time::Duration::from_millis(5));
    let tally = |repo: &Repository| repo.catalog().scrubbed().unwrap();
    let read = tally(world.repo());
    let whole = scrub(world.repo(), &options, &Silent, &Interrupt::never()).unwrap();
    assert_eq!((whole.packs_read, whole.bytes_read), (whole.packs, whole.packs_bytes));
    let after = tally(world.repo());
    assert!(read.iter().all(|(pack, at)| after[pack] == *at), "what was read is not read again");
    // Done: the next one begins anew.
    std::thread::sleep(std::time::Duration::from_millis(5));
    scrub_all(world.repo());
    assert!(after.iter().all(|(pack, at)| tally(world.repo())[pack] > *at));
}

#[test]
fn what_was_read_before_an_interruption_says_nothing_of_damage_since() {
    let world = World::new();
    // As a scrub leaves it that has read every pack and is interrupted then.
    begin(world.repo(), &everything()).unwrap();
    let now = world.repo().clock().now();
    let read: Vec<_> = world.repo().stored_packs().unwrap().into_iter().map(|(pack, _)| (pack, now)).collect();
    world.repo().catalog().set_scrubbed(&read).unwrap();
    act(&world, Action::Flip(100), &world.packs(BlockKind::Data)[0], &[]);
    let uid = world.repo().catalog().version_uids().unwrap()[0];
    assert_eq!(unreadable(world.repo(), uid).len(), 1);
    assert!(publish_noted(world.repo(), &Interrupt::never()).unwrap());
    let report = scrub_all(world.repo());
    assert_eq!(report.bytes_read, report.packs_bytes, "it goes on where that one was");
    assert!(matches!(world.repo().version(uid).unwrap().attributes.validity, Validity::Invalid(_)), "{report:?}");
    assert_eq!(world.repo().catalog().damaged().unwrap().len(), 1);
}

#[test]
fn packs_that_were_read_in_the_future_are_read_again() {
    let world = World::new();
    let later = world.repo().clock().now().plus_millis(3_600_000);
    let read: Vec<_> = world.repo().stored_packs().unwrap().into_iter().map(|(pack, _)| (pack, later)).collect();
    world.repo().catalog().set_scrubbed(&read).unwrap();
    act(&world, Action::Flip(100), &world.packs(BlockKind::Data)[0], &[]);
    assert_eq!(scrub_all(world.repo()).damaged_packs.len(), 1);
}

#[test]
fn a_percentage_covers_everything_in_time_and_only_then_versions_are_seen_good() {
    let world = World::new();
    let options = Options { percent: Some(16), ..everything() };
    let mut reports = Vec::new();
    for _ in 0..7 {
        reports.push(scrub(world.repo(), &options, &Silent, &Interrupt::never()).unwrap());
    }
    assert!(reports[0].versions_good == 0 && reports[0].packs_never_read > 0, "{:?}", reports[0]);
    assert!(reports[6].versions_good == 2 && reports[6].packs_never_read == 0, "{:?}", reports[6]);
}

#[test]
fn a_percentage_covers_everything_past_damage_and_interruptions() {
    static STOP: AtomicBool = AtomicBool::new(false);
    let world = World::new();
    let packs = world.objects(layout::PACKS);
    let damaged: BTreeSet<&String> = packs.iter().step_by(2).collect();
    damaged.iter().for_each(|pack| act(&world, Action::Flip(100), pack, &[]));
    let options = Options { percent: Some(16), threads: 1, ..everything() };
    let mut report = ScrubReport::default();
    for _ in 0..7 {
        let _ = scrub(world.repo(), &options, &StopAfter(1, &STOP), &Interrupt::new(&STOP));
        STOP.store(false, Ordering::Relaxed);
        report = scrub(world.repo(), &options, &Silent, &Interrupt::never()).unwrap();
    }
    assert_eq!(report.damaged_packs.iter().map(|bad| &bad.pack).collect::<BTreeSet<_>>(), damaged);
    assert_eq!(report.packs_never_read, 0, "{report:?}");
    check_versions(&world, &report, "after seven runs");
    world.back_up("one");
    world.back_up("two");
    scrub_all(world.repo());
    for uid in world.repo().catalog().version_uids().unwrap() {
        assert_eq!(world.repo().version(uid).unwrap().attributes.validity, Validity::Valid, "healed");
        assert_eq!(unreadable(&world.other_host(), uid), [0_u64; 0], "healed");
    }
}

#[test]
fn one_version_costs_its_packs_and_a_persons_word_stays() {
    let world = World::new();
    let uids = world.repo().catalog().version_uids().unwrap();
    let two = Selection::Versions("two".into(), vec![uids[1]]);
    let by_hand = Validity::Invalid("no".into());
    world.repo().set_validity(uids[1], by_hand.clone()).unwrap();
    let options = Options { selection: two, ..everything() };
    let report = scrub(world.repo(), &options, &Silent, &Interrupt::never()).unwrap();
    assert!(report.packs < world.repo().catalog().packs().unwrap().len() as u64, "{report:?}");
    assert_eq!((report.versions, report.versions_good), (1, 1));
    assert_eq!(world.repo().version(uids[1]).unwrap().attributes.validity, by_hand);
    assert!(report::of_version(world.repo(), uids[0]).unwrap().is_none());
    assert!(report::of_version(world.repo(), uids[1]).unwrap().unwrap().summary().contains("seen good"));
}

#[test]
fn without_a_key_damaged_packs_are_named() {
    let world = World::new();
    let target = DirTarget::open(world.path("target"));
    let options = keyless::KeylessOptions { rate: None, threads: 2, after: None };
    let run = |options: &_| keyless::scrub(&target, options, &Silent, &Interrupt::never()).unwrap();
    let (sound, finished) = run(&options);
    assert!(finished && sound.damaged_packs.is_empty() && sound.packs_read == sound.packs && sound.packs > 3);
    let pack = &world.packs(BlockKind::Data)[0];
    act(&world, Action::Flip(5000), pack, &[]);
    let (report, _) = run(&options);
    assert_eq!(report.damaged_packs.iter().map(|bad| &bad.pack).collect::<Vec<_>>(), [pack]);
    let (rest, _) = run(&keyless::KeylessOptions { after: Some(pack.clone()), ..options.clone() });
    assert!(rest.packs_read < report.packs_read && rest.damaged_packs.is_empty());
}

#[test]
fn a_source_is_compared_byte_by_byte() {
    let world = World::new();
    let uid = world.repo().catalog().version_uids().unwrap()[1];
    let version = world.repo().version(uid).unwrap();
    let compare = |path: &Path| {
        let disk = crate::source::file::FileSource::open(path).unwrap();
        source::compare(world.repo(), &version, &disk, (None, 2), &Silent, &Interrupt::never()).unwrap()
    };
    let path = world.path("two.img");
    assert!(compare(&path).is_equal());
    let mut bytes = std::fs::read(&path).unwrap();
    let len = bytes.len();
    bytes[5000] ^= 1;
    bytes[6000] ^= 1;
    bytes[len - 1] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let found = compare(&path);
    let ranges: Vec<_> = found.differing.iter().map(|range| (range.offset, range.length)).collect();
    let last = (len - 1) as u64 / 512 * 512;
    assert_eq!(ranges, [(4608, 512), (5632, 512), (last, len as u64 - last)]);
    std::fs::write(&path, &bytes[..4096]).unwrap();
    assert!(!compare(&path).is_equal() && compare(&path).differing_bytes == 0);
}

/// A target of which some packs may not be read.
struct Closed {
    inner: DirTarget,
    packs: BTreeSet<String>,
}

impl Closed {
    fn check(&self, key: &ObjectKey) -> Result<(), TargetError> {
        if !self.packs.contains(key.as_str()) {
            return Ok(());
        }
        let (target, source) = (self.describe(), std::io::Error::from(std::io::ErrorKind::PermissionDenied));
        Err(TargetError::Denied { target, action: "reading", key: key.to_string(), source })
    }
}

impl Through for Closed {
    fn within(&self) -> &dyn Target {
        &self.inner
    }
    fn get(&self, key: &ObjectKey) -> Result<Vec<u8>, TargetError> {
        self.check(key).and_then(|()| self.inner.get(key))
    }
    fn read_at(&self, key: &ObjectKey, offset: u64, buf: &mut [u8]) -> Result<(), TargetError> {
        self.check(key).and_then(|()| self.inner.read_at(key, offset, buf))
    }
}

#[test]
fn packs_that_may_not_be_read_do_not_keep_a_percentage_from_the_others() {
    let world = World::new();
    let data = world.packs(BlockKind::Data);
    let packs: BTreeSet<String> = data.iter().step_by(2).cloned().collect();
    let bytes_of =
        |packs: &BTreeSet<String>| packs.iter().map(|p| world.file(p).metadata().unwrap().len()).sum::<u64>();
    let target = Closed { inner: DirTarget::open(world.path("target")), packs: packs.clone() };
    let repo = open(Arc::new(target), &world.path("closed"), Arc::new(Tally::default())).unwrap();
    let options = Options { percent: Some(10), ..everything() };
    let mut tried = Vec::new();
    for run in 0..20 {
        let report = scrub(&repo, &options, &Silent, &Interrupt::never()).unwrap();
        let readable = report.packs_bytes - bytes_of(&packs);
        assert!(report.bytes_read >= readable.min(report.packs_bytes / 10), "run {run}: {report:?}");
        let unreadable: BTreeSet<String> = report.unreadable_packs.iter().map(|bad| bad.pack.clone()).collect();
        assert!(unreadable.is_subset(&packs), "{report:?}");
        tried.push(unreadable);
    }
    let read = repo.catalog().scrubbed().unwrap();
    let all = repo.catalog().packs().unwrap().len();
    assert_eq!(read.len(), all - packs.len(), "everything else was read");
    let together: BTreeSet<String> = tried.iter().flatten().cloned().collect();
    assert_eq!(together, packs, "those too have had their turn");
    let turns = |pack: &String| tried.iter().filter(|tried| tried.contains(pack)).count();
    assert!(packs.iter().all(|pack| turns(pack) <= 10), "and not in each run: {tried:?}");
}

#[test]
fn what_heals_one_version_heals_the_others() {
    let world = World::new();
    scrub_all(world.repo());
    let uids = world.repo().catalog().version_uids().unwrap();
    // Both versions have the first block; only one of them is asked for afterwards.
    let first = |uid: Uid| {
        let image = world.repo().version(uid).unwrap().record.image;
        ImageReader::new(Arc::clone(world.repo()), image, "test").block_id(0).unwrap()
    };
    assert_eq!(first(uids[0]), first(uids[1]));
    let copy = world.repo().catalog().locations(&first(uids[0])).unwrap()[0];
    act(&world, Action::Flip(u64::from(copy.offset) + 40), layout::pack(copy.pack).as_str(), &[]);
    scrub_all(world.repo());
    let validity = |uid: Uid| world.repo().version(uid).unwrap().attributes.validity;
    assert!(uids[..2].iter().all(|uid| matches!(validity(*uid), Validity::Invalid(_))), "{copy:?}");
    let asked = Options { selection: Selection::Versions("one".into(), vec![uids[0]]), ..everything() };
    let run = || scrub(world.repo(), &asked, &Silent, &Interrupt::never()).unwrap();
    // Nothing is said of what was not asked for as long as it is damaged.
    assert!(run().findings.iter().all(|finding| finding.uid == uids[0].to_string()));
    world.back_up("one");
    let report = run();
    assert_eq!((validity(uids[0]), validity(uids[1])), (Validity::Valid, Validity::Valid), "{report:?}");
    let marked: BTreeSet<_> = report.findings.iter().map(|finding| finding.uid.as_str()).collect();
    assert_eq!(marked, uids[..2].iter().map(Uid::to_string).collect::<Vec<_>>().iter().map(String::as_str).collect());
}

#[test]
fn other_objects_are_read_at_the_rate_too() {
    let world = World::new();
    let told = std::cell::Cell::new(0);
    let seen = world.repo().examine_objects(&|bytes| {
        told.set(told.get() + bytes);
        true
    });
    let of = |object: &String| world.file(object).metadata().unwrap().len();
    let prefixes = layout::directories()
        .into_iter()
        .filter(|prefix| !prefix.starts_with("packs") && !layout::TMP.starts_with(prefix.as_str()));
    let objects = prefixes.flat_map(|prefix| world.objects(&format!("{prefix}/")));
    let sizes: Vec<u64> = objects.chain([layout::header().to_string()]).map(|object| of(&object)).collect();
    let (bytes, largest): (u64, u64) = (sizes.iter().sum(), sizes.iter().copied().max().unwrap());
    assert!((bytes - largest..bytes).contains(&told.get()), "{} of {bytes}: {seen:?}", told.get());
    let begun = std::time::Instant::now();
    let pacer = Pacer::new(Some(bytes * 2), Interrupt::never());
    look_at_objects(world.repo(), None, &mut ScrubReport::default(), &pacer).unwrap();
    // What is last is small, and waits for those before it.
    assert!(begun.elapsed() >= std::time::Duration::from_millis(240), "{:?}", begun.elapsed());
}
