//! The damage matrix: one object of each kind is flipped, cut, deleted, exchanged with another, or replaced by an older one; then a
//! host that knew everything, one that knows nothing, or one with an old state does something.
//!
//! Whatever comes next:
//! * no wrong byte is ever read, restored or shown;
//! * what could be read after the damage can be read after what came next;
//! * everything that was acknowledged and whose bytes are still stored can be read in the end, by a host that knows nothing, after a
//!   host that knew has repaired and collected; and what the damage took is healed by the next backups;
//! * a scrub gets to its end whatever it meets.
//!
//! `BACKYFS_TEST_ROUNDS=N` damages N objects of each kind.

mod scene;

use crate::format::layout::{self, Object, ObjectKey};
use crate::ops::backup::{Backup, backup};
use crate::ops::gc::tests::lab::{image, numbers};
use crate::ops::gc::{Options, Report, Sharing, gc};
use crate::ops::rebuild::{IndexSource, rebuild};
use crate::ops::repair::repair;
use crate::ops::restore::{self, OnDamage, restore_stream};
use crate::ops::scrub::{self, Selection, scrub};
use crate::ops::{Interrupt, OpsError};
use crate::repo::{Repository, testing};
use crate::source::Recipe;
use crate::source::destination::{Consent, Holes, Start};
use crate::target::Target;
use crate::words::ids::Uid;
use crate::words::monitor::Silent;
use crate::words::name::Name;
use crate::words::record::{Record, RecordKind};
use scene::{Case, Put, Scene, Unreadable, Who};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

macro_rules! kinds {
    ($($kind:ident: $row:ident;)*) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        enum Kind { $($kind),* }
        const KINDS: &[Kind] = &[$(Kind::$kind),*];
        $(#[test]
        fn $row() {
            row(Kind::$kind);
        })*
    };
}

kinds! {
    Header: of_the_header;
    Slot: of_key_slots;
    Ring: of_key_rings;
    SpareHeader: of_the_second_copy_of_the_header;
    SpareSlot: of_second_copies_of_key_slots;
    SpareRing: of_second_copies_of_key_rings;
    DataPack: of_packs_of_data;
    MapPack: of_packs_of_maps;
    Fragment: of_index_fragments;
    Version: of_records_of_versions;
    Draft: of_records_of_drafts;
    Pin: of_pins;
    OkOfVersion: of_confirmations_of_versions;
    OkOfDraft: of_confirmations_of_drafts;
    OkOfPin: of_confirmations_of_pins;
    Withdrawing: of_withdrawals;
    Tombstone: of_tombstones;
    Attribute: of_attribute_entries;
    Condemned: of_condemned_batches;
    Damage: of_damage_reports;
}

impl Kind {
    /// A new kind of object does not compile here, and so gets its row.
    fn of(scene: &Scene, object: Object) -> Option<Self> {
        Some(match object {
            Object::Header => Self::Header,
            Object::Slot(_) => Self::Slot,
            Object::Ring(_) => Self::Ring,
            Object::SpareHeader => Self::SpareHeader,
            Object::SpareSlot(_) => Self::SpareSlot,
            Object::SpareRing(_) => Self::SpareRing,
            Object::Pack(pack) if scene.is_map(pack) => Self::MapPack,
            Object::Pack(_) => Self::DataPack,
            Object::Fragment(_) => Self::Fragment,
            Object::Record(kind, _) => match kind {
                RecordKind::Version => Self::Version,
                RecordKind::Draft => Self::Draft,
                RecordKind::Pin => Self::Pin,
            },
            Object::Ok(uid) => match scene.kind_of(uid)? {
                RecordKind::Version => Self::OkOfVersion,
                RecordKind::Draft => Self::OkOfDraft,
                RecordKind::Pin => Self::OkOfPin,
            },
            Object::Withdrawing(_) => Self::Withdrawing,
            Object::Tombstone(_) => Self::Tombstone,
            Object::Attribute(..) => Self::Attribute,
            Object::Condemned(_) => Self::Condemned,
            Object::Damage(_) => Self::Damage,
        })
    }
}

/// What is done to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Action {
    /// A bit near its beginning.
    FlipFirst,
    /// A bit in its middle.
    Flip,
    Truncate,
    Delete,
    /// It and another one change places.
    Swap,
    /// Older bytes come back under its name.
    Replay,
    /// One that was deleted comes back.
    Revive,
    /// And with it its verdict and attributes, as a delayed network or an old copy of the target bring them.
    ReviveWhole,
}

const ACTIONS: [Action; 8] = [
    Action::FlipFirst,
    Action::Flip,
    Action::Truncate,
    Action::Delete,
    Action::Swap,
    Action::Replay,
    Action::Revive,
    Action::ReviveWhole,
];

/// What comes after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Read,
    Restore,
    Backup,
    Scrub,
    Gc,
    RebuildFromFragments,
    RebuildFromPacks,
    Repair,
}

const NEXT: [Next; 8] = [
    Next::Read,
    Next::Restore,
    Next::Backup,
    Next::Scrub,
    Next::Gc,
    Next::RebuildFromFragments,
    Next::RebuildFromPacks,
    Next::Repair,
];

/// What is put under which names; nothing: deleted.
type Done = Vec<(ObjectKey, Option<Vec<u8>>)>;

/// Does something to the `number`th object of a kind, or says that there is none to do it to.
fn damage(scene: &Scene, kind: Kind, action: Action, number: usize) -> Option<Done> {
    let is_there = |key: &ObjectKey| scene.saved.contains_key(key);
    let of_kind = |key: &ObjectKey| layout::parse(key).and_then(|object| Kind::of(scene, object)) == Some(kind);
    let all = scene.objects(|scene, object| Kind::of(scene, object) == Some(kind));
    let objects: Vec<&ObjectKey> = all.iter().filter(|key| is_there(key)).collect();
    let nth = |from: usize| objects.get((number + from) % objects.len().max(1)).map(|key| (*key).clone());
    let bytes = |key: &ObjectKey| scene.saved[key].to_vec();
    let changed = |change: &dyn Fn(&mut Vec<u8>)| {
        let key = nth(0)?;
        let mut changed = bytes(&key);
        change(&mut changed);
        Some(vec![(key, Some(changed))])
    };
    let put = |(key, bytes): &Put| (key.clone(), Some(bytes.to_vec()));
    match action {
        Action::FlipFirst => changed(&|bytes| bytes[17] ^= 1),
        Action::Flip => changed(&|bytes| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 0x10;
        }),
        Action::Truncate => changed(&|bytes| bytes.truncate(bytes.len() / 2)),
        Action::Delete => Some(vec![(nth(0)?, None)]),
        Action::Swap => {
            let (one, other) = (nth(0)?, nth(1)?);
            let (first, second) = (bytes(&one), bytes(&other));
            (one != other).then(|| vec![(one, Some(second)), (other, Some(first))])
        }
        Action::Replay => {
            let differs = |(key, bytes): &&Put| scene.saved.get(key).is_some_and(|now| now != bytes) && of_kind(key);
            let older: Vec<&Put> = scene.history.iter().filter(differs).collect();
            older.get(number % older.len().max(1)).map(|older| vec![put(older)])
        }
        Action::Revive | Action::ReviveWhole => {
            let gone: Vec<&Put> = scene.history.iter().filter(|(key, _)| !is_there(key) && of_kind(key)).collect();
            let revived = *gone.get(number % gone.len().max(1))?;
            let Some((_, uid)) = layout::parse_record(&revived.0).filter(|_| action == Action::ReviveWhole) else {
                return (action == Action::Revive).then(|| vec![put(revived)]);
            };
            let belongs = |key: &ObjectKey| {
                *key == layout::ok(uid) || key.as_str().starts_with(&layout::attributes_of(uid)) || *key == revived.0
            };
            Some(scene.history.iter().filter(|(key, _)| belongs(key)).map(put).collect())
        }
    }
}

fn inflict(case: &Case<'_>, done: &Done) {
    for (key, bytes) in done {
        match bytes {
            Some(bytes) => case.memory.repeat((key.clone(), Arc::new(bytes.clone()))),
            None => case.memory.delete(key).unwrap(),
        }
    }
}

/// So many objects of each kind.
fn rounds() -> usize {
    std::env::var("BACKYFS_TEST_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(1)
}

fn row(kind: Kind) {
    let scene = Scene::new();
    let all = [Who::Knowing, Who::New, Who::Old].into_iter().flat_map(|who| NEXT.map(|next| (who, next)));
    let all = all.filter(|(who, next)| *who != Who::Old || matches!(next, Next::Backup | Next::Gc));
    let all: Vec<(Who, Next)> = all.collect();
    let (mut cases, mut failed) = (0, Vec::new());
    for number in 0..rounds() {
        for action in ACTIONS {
            let Some(done) = damage(&scene, kind, action, number) else { continue };
            let damaged = format!("{action:?} {}", done[0].0);
            let lost = lost_to(&scene, &done, &damaged);
            for (who, next) in all.iter().copied() {
                let what = format!("{damaged}, then {next:?} on a host {who:?}");
                let matrix = Matrix { scene: &scene, kind, done: &done, lost: &lost, who, what };
                cases += 1;
                if let Err(panic) = catch_unwind(AssertUnwindSafe(|| matrix.case(next))) {
                    failed.push(panic.downcast::<String>().map_or(matrix.what, |text| *text));
                }
            }
        }
    }
    println!("{kind:?}: {cases} cases");
    assert!(failed.is_empty(), "{} of {cases} cases failed:\n{}", failed.len(), failed.join("\n"));
}

/// What the damage took: what cannot be read right after it by the hosts of each kind.
fn lost_to(scene: &Scene, done: &Done, what: &str) -> BTreeMap<Who, Unreadable> {
    let mut lost = BTreeMap::new();
    for who in [Who::Knowing, Who::New, Who::Old] {
        let case = Case::new(scene);
        inflict(&case, done);
        let Ok(host) = case.host(who) else { continue };
        // Who knew everything does not look first, and so sees what is left of the blocks alone.
        if who != Who::Knowing {
            let _ = host.refresh();
        }
        lost.insert(who, scene.unreadable(&host, what));
    }
    lost
}

struct Matrix<'a> {
    scene: &'a Scene,
    kind: Kind,
    done: &'a Done,
    lost: &'a BTreeMap<Who, Unreadable>,
    who: Who,
    what: String,
}

impl Matrix<'_> {
    fn case(&self, next: Next) {
        let (scene, who, what) = (self.scene, self.who, &self.what);
        let case = Case::new(scene);
        // What repairs in the end knew everything before, and was away meanwhile.
        let state = case.state(Who::Knowing);
        inflict(&case, self.done);
        let host = case.host(who).unwrap_or_else(|error| panic!("{what}: {error}"));
        let made = self.follow(&case, &host, next);
        self.not_less(&host, self.lost.get(&who), "there");
        drop(host);
        if let Ok(other) = case.host(Who::New) {
            let _ = other.refresh();
            self.not_less(&other, self.lost.get(&Who::New), "on another host");
            self.shows_no_stranger(&other);
        }
        self.in_the_end(&case, &state, made);
    }

    /// Nothing that could be read after the damage is unreadable now.
    fn not_less(&self, host: &Arc<Repository>, lost: Option<&Unreadable>, place: &str) {
        let now = self.scene.unreadable(host, &self.what);
        let more: Vec<_> = now.iter().filter(|at| lost.is_none_or(|lost| !lost.contains(at))).collect();
        let names = more.iter().map(|(kept, _)| self.scene.kept[*kept].record.attributes.name.to_string());
        let names: std::collections::BTreeSet<_> = names.collect();
        let excused = self.is_excused(&more);
        assert!(more.is_empty() || excused, "{}: {place} unreadable now: {names:?} {more:?}", self.what);
    }

    /// What nobody could know to be needed: the record itself was deleted, before hosts came that had never seen it.
    fn is_excused(&self, more: &[&(usize, usize)]) -> bool {
        more.iter().all(|(kept, _)| self.may_be_gone(&self.scene.kept[*kept].record))
    }

    fn may_be_gone(&self, record: &Record) -> bool {
        let deleted = self.done.iter().filter(|(_, bytes)| bytes.is_none());
        let is_deleted = deleted.filter_map(|(key, _)| layout::parse_record(key)).any(|(_, uid)| uid == record.uid);
        // Only versions are known to be lost. Drafts and pins come and go without a trace, so nobody can tell.
        let is_untold = self.who != Who::Knowing || record.kind != RecordKind::Version;
        // A host whose state was put back has lost the overlays that it made since, and so drops their pins.
        let is_dropped = self.who == Who::Old && record.kind == RecordKind::Pin;
        is_deleted && is_untold || is_dropped
    }

    /// What is shown is what was made: names, sizes, contents.
    fn shows_no_stranger(&self, host: &Arc<Repository>) {
        for uid in host.catalog().version_uids().unwrap() {
            let version = host.version(uid).unwrap();
            if let Some(kept) = self.scene.kept.iter().find(|kept| kept.record.uid == uid) {
                assert_eq!(version.record.image, kept.record.image, "{}", self.what);
                assert_eq!(version.attributes.name, kept.record.attributes.name, "{}", self.what);
            }
        }
    }

    fn follow(&self, case: &Case<'_>, host: &Arc<Repository>, next: Next) -> Option<(Uid, Vec<u32>)> {
        let what = &self.what;
        match next {
            Next::Read => drop(host.refresh()),
            Next::Restore => {
                let _ = host.refresh();
                self.restores(case, host);
            }
            Next::Backup => {
                let _ = host.refresh();
                // Much of it is stored already, or was.
                let blocks = [numbers(5..25), numbers(100..130), numbers(700..710)].concat();
                let made = back_up(case, host, "new", &blocks);
                let is_list = self.kind == Kind::Condemned && self.who != Who::Knowing;
                match made {
                    Ok(uid) => return Some((uid, blocks)),
                    Err(error) => assert!(is_list || self.lost_anything(), "{what}: {error}"),
                }
            }
            Next::Scrub => drop(scrub_all(host).unwrap_or_else(|error| panic!("{what}: {error}"))),
            Next::Gc => drop(collect(host)),
            Next::RebuildFromFragments => drop(rebuild(host, IndexSource::Fragments, &Silent)),
            Next::RebuildFromPacks => drop(rebuild(host, IndexSource::Packs, &Silent)),
            Next::Repair => drop(repair(host, false, &Silent, &Interrupt::never())),
        }
        None
    }

    fn lost_anything(&self) -> bool {
        self.lost.get(&Who::Knowing).is_none_or(|lost| !lost.is_empty())
    }

    /// To files and to streams: what is not right is said to be zero.
    fn restores(&self, case: &Case<'_>, host: &Arc<Repository>) {
        let options = restore::Options {
            consent: Consent::Force,
            start: Start::Anew,
            holes: Holes::Keep,
            on_damage: OnDamage::Skip,
            threads: 2,
        };
        for uid in host.catalog().version_uids().unwrap() {
            let version = host.version(uid).unwrap();
            let Some(kept) = self.scene.kept.iter().find(|kept| kept.record.uid == uid) else { continue };
            let mut expected = image(&kept.blocks);
            let path = case.dir.path().join("restored");
            let volume = Recipe::File { path: path.clone() }.volume().unwrap();
            let restored = restore::restore(host, &version, &*volume, &options, &Silent, &Interrupt::never()).unwrap();
            for range in &restored.zeroed {
                expected[range.offset as usize..(range.offset + range.length) as usize].fill(0);
            }
            assert!(std::fs::read(&path).unwrap() == expected, "{}: {uid} is restored wrong", self.what);
            let mut streamed = Vec::new();
            let whole =
                restore_stream(host, &version, &mut streamed, OnDamage::Stop, &Silent, &Interrupt::never()).is_ok();
            assert_eq!(whole, restored.zeroed.is_empty(), "{}: {uid}", self.what);
            let expected = image(&kept.blocks);
            assert!(expected.starts_with(&streamed) && (!whole || streamed == expected), "{}: {uid}", self.what);
            std::fs::remove_file(&path).unwrap();
        }
    }

    /// The host that knew everything comes back, repairs, collects; whoever comes then reads what is stored. What is not stored any
    /// more is healed by the next backup.
    fn in_the_end(&self, case: &Case<'_>, state: &Path, made: Option<(Uid, Vec<u32>)>) {
        let what = &self.what;
        let knowing = testing::open(Arc::clone(&case.memory) as _, state, Arc::default());
        let knowing = knowing.unwrap_or_else(|error| panic!("{what}: in the end {error}"));
        let repaired = repair(&knowing, false, &Silent, &Interrupt::never());
        let repaired = repaired.unwrap_or_else(|error| panic!("{what}: no repair: {error}"));
        let lost = self.lost.get(&Who::Knowing);
        self.not_less(&knowing, lost, "after a repair");
        if self.lost_anything() && lost.is_some() {
            for attempt in 0..2 {
                scrub_all(&knowing).unwrap_or_else(|error| panic!("{what}: no scrub: {error}"));
                if attempt == 0 {
                    for (number, kept) in self.scene.kept.iter().enumerate() {
                        let uid = back_up(case, &knowing, &format!("heal{number}"), &kept.blocks)
                            .unwrap_or_else(|error| panic!("{what}: heals not: {error}"));
                        let image = knowing.version(uid).unwrap().record.image;
                        let bad = scene::unreadable(&knowing, image, &kept.blocks, what);
                        assert_eq!(bad, [0_usize; 0], "{what}: what was acknowledged cannot be read");
                    }
                    if let Some((_, blocks)) = &made {
                        back_up(case, &knowing, "heal", blocks).unwrap_or_else(|error| panic!("{what}: {error}"));
                    }
                }
            }
        }
        let report = collect(&knowing).unwrap_or_else(|error| panic!("{what}: no collection: {error}"));
        assert!(report.obstacles.is_empty(), "{what}: {report:?}\n{repaired:?}");
        let last = case.host(Who::New).unwrap_or_else(|error| panic!("{what}: at last {error}"));
        last.refresh().unwrap_or_else(|error| panic!("{what}: at last {error}"));
        for (who, host) in [(Who::Knowing, &knowing), (Who::New, &last)] {
            let bad = self.scene.unreadable(host, what);
            let bad: Vec<_> = bad.iter().collect();
            let fine = bad.is_empty() || self.is_excused(&bad);
            let (lost, of) = (self.lost_anything(), self.done.iter().map(|(key, _)| key).collect::<Vec<_>>());
            assert!(
                fine,
                "{what}: at last unreadable by {who:?}, lost before {lost}, of {of:?}: {bad:?}\n{repaired:?}\n{report:?}"
            );
            if let Some((uid, blocks)) = &made {
                let image = host.version(*uid).unwrap_or_else(|error| panic!("{what}: {error}")).record.image;
                assert_eq!(scene::unreadable(host, image, blocks, what), [0_usize; 0], "{what}: the new one");
            }
            self.shows_no_stranger(host);
        }
        let shown = last.catalog().known_records().unwrap();
        for kept in self.scene.kept.iter().filter(|kept| !self.may_be_gone(&kept.record)) {
            let is_shown = shown.iter().any(|known| known.uid == kept.record.uid);
            assert!(is_shown, "{what}: the record of {} is gone: {repaired:?}", kept.record.attributes.name);
        }
    }
}

fn back_up(case: &Case<'_>, host: &Arc<Repository>, name: &str, blocks: &[u32]) -> Result<Uid, OpsError> {
    let path = case.dir.path().join("source");
    std::fs::write(&path, image(blocks)).unwrap();
    let job = Backup::new(Recipe::File { path }, Name::new(name).unwrap());
    backup(host, &job, &Silent, &Interrupt::never()).map(|made| made.record.uid)
}

fn scrub_all(host: &Repository) -> Result<scrub::report::ScrubReport, OpsError> {
    let (selection, start) = (Selection::All, scrub::Start::Resume);
    let options = scrub::Options { selection, percent: None, rate: None, threads: 2, start };
    scrub(host, &options, &Silent, &Interrupt::never())
}

fn collect(host: &Repository) -> Result<Report, OpsError> {
    let options = Options { dry_run: false, dead_percent: 1, unfinished_ms: 0, sharing: Sharing::Unknown };
    gc(host, &options, &Silent, &Interrupt::never())
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().flatten().map(|entry| entry.path());
    let nested = entries.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] });
    nested.collect()
}

/// What a host keeps for itself: copies of header and keys, who it is, locks. (Its catalog is made anew when it is lost, and comes back
/// old in the rows above. What its scrubs have found is the subject of the next test.)
#[test]
fn of_what_a_host_keeps() {
    let scene = Scene::new();
    let case = Case::new(&scene);
    let state = case.state(Who::Knowing);
    let files = files_below(&state);
    let files = files.iter().map(|path| path.strip_prefix(&state).unwrap().to_owned());
    let files: Vec<PathBuf> = files.filter(|path| !path.to_string_lossy().contains("/catalog/")).collect();
    assert!(files.len() > 5, "{files:?}");
    for file in files {
        for action in [Action::Flip, Action::Truncate, Action::Delete] {
            let case = Case::new(&scene);
            let (state, what) = (case.state(Who::Knowing), format!("{action:?} {}", file.display()));
            let path = state.join(&file);
            let mut bytes = std::fs::read(&path).unwrap();
            let middle = bytes.len() / 2;
            match action {
                Action::Delete => std::fs::remove_file(&path).unwrap(),
                Action::Flip if bytes.is_empty() => continue,
                Action::Flip => bytes[middle] ^= 0x10,
                _ => bytes.truncate(middle),
            }
            if action != Action::Delete {
                std::fs::write(&path, &bytes).unwrap();
            }
            if let Ok(host) = testing::open(Arc::clone(&case.memory) as _, &state, Arc::default()) {
                let _ = host.refresh();
                let made = back_up(&case, &host, "new", &numbers(100..130));
                assert_eq!(scene.unreadable(&host, &what), Unreadable::new(), "{what}: {made:?}");
                let _ = (scrub_all(&host), repair(&host, false, &Silent, &Interrupt::never()), collect(&host));
                assert_eq!(scene.unreadable(&host, &what), Unreadable::new(), "{what}");
            }
            let other = case.host(Who::New).unwrap_or_else(|error| panic!("{what}: {error}"));
            other.refresh().unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(scene.unreadable(&other, &what), Unreadable::new(), "{what}: elsewhere");
        }
    }
}

#[test]
fn of_what_scrubs_have_found() {
    let scene = Scene::new();
    let case = Case::new(&scene);
    let host = case.host(Who::Knowing).unwrap();
    scrub_all(&host).unwrap();
    for (key, value) in host.catalog().metas("scrub/").unwrap() {
        for garbage in [Vec::new(), vec![0xff; value.len()], value[..value.len() / 2].to_vec()] {
            host.catalog().set_meta(&key, &garbage).unwrap();
            let told = scrub::report::last(&host);
            let report = scrub_all(&host).unwrap_or_else(|error| panic!("{key} {garbage:?} {told:?}: {error}"));
            assert_eq!((report.packs_read, report.damaged_packs.len()), (report.packs, 2), "{key}");
        }
    }
}

#[test]
fn every_kind_stands_in_the_scene() {
    let scene = Scene::new();
    for kind in KINDS {
        let there = scene.saved.keys().filter_map(layout::parse);
        let count = there.filter(|object| Kind::of(&scene, *object) == Some(*kind)).count();
        let least = if matches!(kind, Kind::Header | Kind::SpareHeader) { 1 } else { 2 };
        assert!(count >= least, "{kind:?}: {count}");
        let done: Vec<Action> =
            ACTIONS.into_iter().filter(|action| damage(&scene, *kind, *action, 0).is_some()).collect();
        println!("{kind:?}: {count} objects, {done:?}");
    }
    for directory in layout::directories() {
        let is_known = scene.saved.keys().any(|key| key.as_str().starts_with(&directory));
        let is_one_of_many = directory.starts_with(layout::PACKS);
        let is_read = ![layout::ASIDE, layout::TMP].contains(&format!("{directory}/").as_str());
        assert!(is_known || is_one_of_many || !is_read, "nothing stands in {directory}");
    }
}
