//! Random operations, reopening included, against maps in memory that are asked naively.

use crate::samples::{block, entry, name, pack, pack_id, record, uid};
use backyfs::catalog::{Catalog, Child};
use backyfs::words::attribute::{AttributeChange, AttributeEntry, Attributes, Validity, fold};
use backyfs::words::clock::{SystemClock, TestClock};
use backyfs::words::damage::DamageReport;
use backyfs::words::geometry::MapDepth;
use backyfs::words::ids::{BatchId, BlockId, DamageId, EntryId, FragmentId, HostId, PackId, Uid};
use backyfs::words::name::Name;
use backyfs::words::record::{BlockKind, Location, PackContents, Record, RecordKind, Verdict};
use backyfs::words::stamp::Stamp;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const NAMES: [&str; 8] = ["a", "a/b", "a/b/c", "a/x", "b", "host/ü m", "host/vm", "z"];
const TAGS: [&str; 3] = ["t", "t2", "week ly"];
const BLOCKS: u64 = 24;
const PACKS: u64 = 8;
const UIDS: u64 = 8;

#[derive(Debug, Clone)]
enum Op {
    Fragment(u64, Vec<u64>),
    Forget(u64),
    Packs(u64),
    Batch(u64, Vec<u64>),
    Record(u64, Verdict),
    Verdict(u64, Verdict),
    Remove(u64),
    Tombstone(u64),
    RemoveTombstone(u64),
    Entry(u64, u64, u64, AttributeChange),
    Checked(u64),
    Bad(u64, u64),
    ForgetBad(u64),
    Report(u64, u64, u64),
    Unreport(u64),
    Hide(usize, bool),
    Reopen,
    Clear,
}

fn verdict() -> impl Strategy<Value = Verdict> {
    prop_oneof![1 => Just(Verdict::Pending), 1 => Just(Verdict::Withdrawing), 3 => Just(Verdict::Confirmed)]
}

fn change() -> impl Strategy<Value = AttributeChange> {
    prop_oneof![
        3 => (0..NAMES.len()).prop_map(|at| AttributeChange::Name(name(NAMES[at]))),
        3 => (0..TAGS.len()).prop_map(|at| AttributeChange::AddTag(TAGS[at].into())),
        1 => (0..TAGS.len()).prop_map(|at| AttributeChange::RemoveTag(TAGS[at].into())),
        1 => any::<bool>().prop_map(AttributeChange::Protected),
        1 => Just(AttributeChange::Validity(Validity::Incomplete("it was killed".into()))),
        1 => Just(AttributeChange::Validity(Validity::Valid)),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => (0..6u64, prop::collection::vec(0..PACKS, 0..3)).prop_map(|(f, p)| Op::Fragment(f, p)),
        1 => (0..6u64).prop_map(Op::Forget),
        1 => (0..PACKS).prop_map(Op::Packs),
        1 => (0..4u64, prop::collection::vec(0..PACKS + 2, 0..2)).prop_map(|(b, p)| Op::Batch(b, p)),
        6 => (0..UIDS, verdict()).prop_map(|(u, v)| Op::Record(u, v)),
        3 => (0..UIDS, verdict()).prop_map(|(u, v)| Op::Verdict(u, v)),
        1 => (0..UIDS).prop_map(Op::Remove),
        1 => (0..UIDS).prop_map(Op::Tombstone),
        1 => (0..UIDS).prop_map(Op::RemoveTombstone),
        6 => (0..UIDS, 1..5u64, 0..40u64, change()).prop_map(|(u, l, e, c)| Op::Entry(u, l, e, c)),
        1 => (0..4u64).prop_map(Op::Checked),
        1 => (0..BLOCKS, 0..PACKS).prop_map(|(b, p)| Op::Bad(b, p)),
        1 => (0..PACKS).prop_map(Op::ForgetBad),
        1 => (0..3u64, 0..PACKS, 0..BLOCKS).prop_map(|(r, p, b)| Op::Report(r, p, b)),
        1 => (0..3u64).prop_map(Op::Unreport),
        1 => (0..NAMES.len(), any::<bool>()).prop_map(|(n, on)| Op::Hide(n, on)),
        1 => Just(Op::Reopen),
        1 => prop::bool::weighted(0.1).prop_map(|clear| if clear { Op::Clear } else { Op::Reopen }),
    ]
}

/// What pack `number` holds, always: packs are named by their contents.
fn contents(number: u64) -> PackContents {
    pack(number, (0..4).map(|at| (number * 5 + at * at) % BLOCKS))
}

/// What record `number` is, always.
fn sample(number: u64) -> Record {
    let kind = match number % 4 {
        3 => RecordKind::Draft,
        2 if number == 2 => RecordKind::Pin,
        _ => RecordKind::Version,
    };
    let mut record = record(number, kind, NAMES[(number * 3) as usize % NAMES.len()], 5 - number as i64 / 2);
    record.attributes.tags.extend((number == 4).then(|| TAGS[0].to_owned()));
    record
}

#[derive(Debug, Default)]
struct Model {
    fragments: BTreeSet<FragmentId>,
    packs: BTreeMap<PackId, PackContents>,
    batches: BTreeSet<BatchId>,
    condemned: BTreeSet<PackId>,
    records: BTreeMap<Uid, Record>,
    verdicts: BTreeMap<Uid, Verdict>,
    tombstones: BTreeSet<Uid>,
    entries: BTreeMap<(Uid, u64, EntryId), AttributeEntry>,
    /// Bad copies, and whether a report names them.
    bad: BTreeMap<(BlockId, PackId), bool>,
    reports: BTreeMap<DamageId, DamageReport>,
    /// With the newest version at that moment.
    hidden: BTreeMap<Name, Option<(Stamp, Uid)>>,
}

fn rank(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Pending => 0,
        Verdict::Withdrawing => 1,
        Verdict::Confirmed => 2,
    }
}

impl Model {
    fn raise(&mut self, uid: Uid, verdict: Verdict) {
        let known = self.verdicts.entry(uid).or_insert(Verdict::Pending);
        if rank(verdict) > rank(*known) {
            *known = verdict;
        }
    }

    fn newest(&self, name: &Name) -> Option<(Stamp, Uid)> {
        self.names(RecordKind::Version).get(name).and_then(|versions| versions.last().copied())
    }

    fn remove(&mut self, uid: Uid) {
        self.records.remove(&uid);
        self.verdicts.remove(&uid);
        self.entries.retain(|(version, ..), _| *version != uid);
    }

    fn locations(&self, id: &BlockId, condemned: bool) -> Vec<Location> {
        let packs = self.packs.values().filter(|pack| condemned || !self.condemned.contains(&pack.pack));
        let mut found: Vec<_> = packs
            .flat_map(|pack| pack.blocks.iter().map(move |block| (pack.pack, block)))
            .filter(|(_, block)| block.id == *id)
            .map(|(pack, block)| {
                let (offset, frame_len, plain_len) = (block.offset, block.frame_len, block.plain_len);
                Location { pack, offset, frame_len, plain_len }
            })
            .collect();
        found.sort_by_key(|at| (self.bad.contains_key(&(*id, at.pack)), *at));
        found
    }

    /// Bad copies that are not condemned, and no other.
    fn is_damaged(&self, id: &BlockId) -> bool {
        let bad = self.bad.keys().any(|(block, pack)| block == id && !self.condemned.contains(pack));
        bad && !self.is_sound(id)
    }

    fn is_sound(&self, id: &BlockId) -> bool {
        self.locations(id, false).iter().any(|at| !self.bad.contains_key(&(*id, at.pack)))
    }

    fn folded(&self, uid: Uid) -> Attributes {
        let entries: Vec<_> = self.entries.values().filter(|entry| entry.version == uid).cloned().collect();
        fold(&self.records[&uid].attributes, &entries)
    }

    /// Confirmed records of a kind: moment, uid, folded attributes; oldest first.
    fn listed(&self, kind: RecordKind) -> Vec<(Stamp, Uid, Attributes)> {
        let records = self.records.values().filter(|record| record.kind == kind);
        let confirmed = records.filter(|record| self.verdicts.get(&record.uid) == Some(&Verdict::Confirmed));
        let mut listed: Vec<_> = confirmed.map(|r| (r.created, r.uid, self.folded(r.uid))).collect();
        listed.sort_by_key(|(created, uid, _)| (*created, *uid));
        listed
    }

    fn names(&self, kind: RecordKind) -> BTreeMap<Name, Vec<(Stamp, Uid)>> {
        let mut names: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (created, uid, attributes) in self.listed(kind) {
            names.entry(attributes.name).or_default().push((created, uid));
        }
        names
    }

    fn children(&self, dir: &str) -> Vec<Child> {
        let prefix = if dir.is_empty() { String::new() } else { format!("{dir}/") };
        let mut children: BTreeMap<String, (bool, bool)> = BTreeMap::new();
        for name in self.names(RecordKind::Version).keys() {
            let Some(rest) = name.as_str().strip_prefix(&prefix) else { continue };
            let (component, below) = rest.split_once('/').map_or((rest, false), |(component, _)| (component, true));
            let child = children.entry(component.to_owned()).or_default();
            *child = (child.0 || !below, child.1 || below);
        }
        children.into_iter().map(|(component, (is_name, is_dir))| Child { component, is_name, is_dir }).collect()
    }
}

struct Pair {
    dir: tempfile::TempDir,
    catalog: Option<Catalog>,
    model: Model,
}

/// A map too small for what is put, so that it grows on the way.
fn open(dir: &tempfile::TempDir) -> Catalog {
    Catalog::open_with_map(dir.path(), &SystemClock, 256 << 10).unwrap()
}

impl Pair {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let catalog = Some(open(&dir));
        Self { dir, catalog, model: Model::default() }
    }

    fn catalog(&self) -> &Catalog {
        self.catalog.as_ref().unwrap()
    }

    fn apply(&mut self, op: &Op) {
        let catalog = self.catalog().clone();
        let model = &mut self.model;
        match op {
            Op::Fragment(number, packs) => {
                let id = FragmentId::from_bytes([*number as u8; 16]);
                let packs: Vec<_> = packs.iter().map(|number| contents(*number)).collect();
                catalog.absorb_fragment(id, &packs).unwrap();
                if model.fragments.insert(id) {
                    model.packs.extend(packs.into_iter().map(|pack| (pack.pack, pack)));
                }
            }
            Op::Forget(number) => {
                let id = FragmentId::from_bytes([*number as u8; 16]);
                catalog.forget_fragments(&[id]).unwrap();
                model.fragments.remove(&id);
            }
            Op::Packs(number) => {
                catalog.absorb_packs(&[contents(*number)]).unwrap();
                model.packs.insert(pack_id(*number), contents(*number));
            }
            Op::Batch(number, packs) => {
                let id = BatchId::from_bytes([*number as u8; 16]);
                let packs: Vec<_> = packs.iter().map(|number| pack_id(*number)).collect();
                catalog.absorb_batch(id, &packs).unwrap();
                if model.batches.insert(id) {
                    model.condemned.extend(packs);
                }
            }
            Op::Record(number, verdict) => {
                let record = sample(*number);
                catalog.put_record(&record, *verdict).unwrap();
                if !model.tombstones.contains(&record.uid) {
                    model.raise(record.uid, *verdict);
                    model.records.insert(record.uid, record);
                }
            }
            Op::Verdict(number, verdict) => {
                catalog.set_verdict(uid(*number), *verdict).unwrap();
                if !model.tombstones.contains(&uid(*number)) {
                    model.raise(uid(*number), *verdict);
                }
            }
            Op::Remove(number) => {
                catalog.remove_record(uid(*number)).unwrap();
                model.remove(uid(*number));
            }
            Op::Tombstone(number) => {
                catalog.add_tombstone(uid(*number)).unwrap();
                model.records.remove(&uid(*number));
                model.verdicts.remove(&uid(*number));
                model.tombstones.insert(uid(*number));
            }
            Op::RemoveTombstone(number) => {
                catalog.remove_tombstone(uid(*number)).unwrap();
                model.tombstones.remove(&uid(*number));
            }
            Op::Entry(version, lamport, number, change) => {
                let entry = entry(*version, *lamport, *number, change.clone());
                catalog.add_entry(&entry).unwrap();
                if !model.tombstones.contains(&entry.version) {
                    model.entries.entry((entry.version, entry.lamport, entry.entry)).or_insert(entry);
                }
            }
            Op::Checked(number) => {
                let fingerprint = catalog.fingerprint().unwrap();
                catalog.set_checked(&block(*number), MapDepth::for_blocks(1), &fingerprint).unwrap();
                assert!(catalog.is_checked(&block(*number), MapDepth::for_blocks(1), &fingerprint).unwrap());
                assert!(!catalog.is_checked(&block(*number), MapDepth::for_blocks(5000), &fingerprint).unwrap());
            }
            Op::Bad(number, pack) => {
                catalog.note_bad(&pack_id(*pack), &[(block(*number), "a bit flipped".to_owned())]).unwrap();
                model.bad.entry((block(*number), pack_id(*pack))).or_insert(false);
            }
            Op::ForgetBad(pack) => {
                catalog.forget_noted(&pack_id(*pack), &BTreeSet::from([block(1)])).unwrap();
                model.bad.retain(|(id, at), reported| *reported || *at != pack_id(*pack) || *id == block(1));
            }
            Op::Report(number, pack, first) => {
                let id = DamageId::from_bytes([*number as u8; 16]);
                if model.reports.contains_key(&id) {
                    return;
                }
                let blocks = vec![block(*first), block((first + 1) % BLOCKS)];
                let (pack, kind, host, at) = (pack_id(*pack), BlockKind::Data, HostId::NIL, Stamp::from_millis(1));
                let report = DamageReport { pack, kind, host, at, reason: "it is gone".to_owned(), blocks };
                catalog.absorb_damage(id, &report).unwrap();
                model.bad.extend(report.blocks.iter().map(|block| ((*block, pack), true)));
                model.reports.insert(id, report);
            }
            Op::Unreport(number) => {
                let id = DamageId::from_bytes([*number as u8; 16]);
                catalog.forget_damage(id).unwrap();
                let Some(gone) = model.reports.remove(&id) else { return };
                let still = |block: &BlockId| {
                    model.reports.values().any(|report| report.pack == gone.pack && report.blocks.contains(block))
                };
                for block in gone.blocks.iter().filter(|block| !still(block)) {
                    model.bad.remove(&(*block, gone.pack));
                }
            }
            Op::Hide(number, true) => {
                catalog.hide_name(&name(NAMES[*number])).unwrap();
                let hidden = name(NAMES[*number]);
                model.hidden.insert(hidden.clone(), model.newest(&hidden));
            }
            Op::Hide(number, false) => {
                catalog.unhide_name(&name(NAMES[*number])).unwrap();
                model.hidden.remove(&name(NAMES[*number]));
            }
            Op::Reopen => {
                drop(catalog);
                self.catalog = None;
                self.catalog = Some(open(&self.dir));
            }
            Op::Clear => {
                catalog.rebuild().unwrap().finish().unwrap();
                let (mut bad, hidden) = (std::mem::take(&mut model.bad), std::mem::take(&mut model.hidden));
                bad.retain(|_, reported| !*reported);
                *model = Model { bad, hidden, ..Model::default() };
            }
        }
    }

    fn compare(&self) {
        self.compare_index();
        self.compare_records();
        self.compare_names();
        let (catalog, model) = (self.catalog(), &self.model);
        let hidden = model.hidden.iter().filter(|(name, then)| model.newest(name) <= **then);
        let hidden: BTreeSet<Name> = hidden.map(|(name, _)| name.clone()).collect();
        assert_eq!(catalog.hidden().unwrap(), hidden.iter().cloned().collect::<Vec<_>>());
        for text in NAMES {
            assert_eq!(catalog.is_hidden(&name(text)).unwrap(), hidden.contains(&name(text)));
        }
    }

    fn compare_index(&self) {
        let (catalog, model) = (self.catalog(), &self.model);
        assert_eq!(catalog.known_fragments().unwrap(), model.fragments);
        assert_eq!(catalog.known_batches().unwrap(), model.batches);
        assert_eq!(catalog.condemned_packs().unwrap(), model.condemned);
        let packs: BTreeSet<_> = catalog.packs().unwrap().into_iter().map(|pack| pack.pack).collect();
        assert_eq!(packs, model.packs.keys().copied().collect());
        let ids: Vec<_> = (0..BLOCKS).map(block).chain([BlockId::HOLE]).collect();
        let mut missing = Vec::new();
        for id in &ids {
            let locations = model.locations(id, false);
            assert_eq!(catalog.locations(id).unwrap(), locations);
            assert_eq!(catalog.has_location(id).unwrap(), !locations.is_empty());
            missing.extend((locations.is_empty() && !id.is_hole()).then_some(*id));
            let mut all = model.locations(id, true);
            all.sort_by_key(|at| model.condemned.contains(&at.pack));
            assert_eq!(catalog.all_locations(id).unwrap(), all);
            assert_eq!(catalog.is_damaged(id).unwrap(), model.is_damaged(id));
            assert_eq!(catalog.has_sound_location(id).unwrap(), model.is_sound(id));
        }
        assert_eq!(catalog.damage_reports().unwrap(), model.reports);
        let bad: BTreeMap<_, _> =
            catalog.bad_copies().unwrap().into_iter().map(|c| ((c.block, c.pack), c.is_reported)).collect();
        assert_eq!(bad, model.bad);
        assert_eq!(catalog.without_location(&ids).unwrap(), missing);
        for number in 0..PACKS + 2 {
            assert_eq!(catalog.is_condemned(&pack_id(number)).unwrap(), model.condemned.contains(&pack_id(number)));
        }
    }

    fn compare_records(&self) {
        let (catalog, model) = (self.catalog(), &self.model);
        assert_eq!(catalog.tombstones().unwrap(), model.tombstones);
        for number in 0..UIDS {
            let uid = uid(number);
            let record = model.records.get(&uid).map(|record| (record.clone(), model.verdicts[&uid]));
            assert_eq!(catalog.record(uid).unwrap(), record);
            assert_eq!(catalog.is_known(uid).unwrap(), record.is_some() || model.tombstones.contains(&uid));
            let entries: Vec<_> = model.entries.values().filter(|entry| entry.version == uid).cloned().collect();
            assert_eq!(catalog.entries(uid).unwrap(), entries);
            assert_eq!(catalog.next_lamport(uid).unwrap(), entries.last().map_or(1, |entry| entry.lamport + 1));
            assert_eq!(catalog.attributes(uid).unwrap(), record.as_ref().map(|_| model.folded(uid)));
            let version = catalog.version(uid).unwrap();
            let expected = record.filter(|(record, _)| record.kind == RecordKind::Version);
            assert_eq!(version.as_ref().map(|v| (v.record.clone(), v.verdict)), expected);
            assert_eq!(version.map(|v| v.attributes), expected.map(|_| model.folded(uid)));
        }
        for kind in [RecordKind::Version, RecordKind::Draft, RecordKind::Pin] {
            let of_kind = model.records.values().filter(|record| record.kind == kind);
            let expected: Vec<_> = of_kind.map(|record| (record.clone(), model.verdicts[&record.uid])).collect();
            assert_eq!(catalog.records(kind).unwrap(), expected);
            let uids: Vec<_> = expected.iter().map(|(record, _)| record.uid).collect();
            assert_eq!(catalog.record_uids(kind).unwrap(), uids);
        }
        let known = catalog.known_records().unwrap().into_iter().map(|known| known.uid);
        assert_eq!(known.collect::<Vec<_>>(), model.records.keys().copied().collect::<Vec<_>>());
        let known = catalog.known_entries().unwrap();
        assert_eq!(known, model.entries.keys().map(|(uid, _, entry)| (*uid, *entry)).collect());
    }

    fn compare_names(&self) {
        let (catalog, model) = (self.catalog(), &self.model);
        let listed = model.listed(RecordKind::Version);
        let uids: Vec<_> = listed.iter().map(|(_, uid, _)| *uid).collect();
        assert_eq!(catalog.version_uids().unwrap(), uids);
        let summaries = catalog.version_summaries().unwrap();
        let short: Vec<_> = summaries.iter().map(|s| (s.created, s.uid, s.attributes.clone())).collect();
        assert_eq!(short, listed);
        for (at, summary) in summaries.iter().enumerate() {
            assert_eq!(catalog.version_summary(summary.uid).unwrap().as_ref(), Some(summary));
            let next = catalog.versions_after(Some((summary.created, summary.uid)), 1).unwrap();
            assert_eq!(next.first(), summaries.get(at + 1));
        }
        let names = model.names(RecordKind::Version);
        assert_eq!(catalog.names().unwrap().into_iter().collect::<BTreeSet<_>>(), names.keys().cloned().collect());
        let drafts = model.names(RecordKind::Draft);
        assert_eq!(
            catalog.draft_names().unwrap().into_iter().collect::<BTreeSet<_>>(),
            drafts.keys().cloned().collect()
        );
        for text in NAMES {
            let name = name(text);
            let versions = names.get(&name).cloned().unwrap_or_default();
            assert_eq!(catalog.versions_of(&name).unwrap(), versions);
            assert_eq!(catalog.name_exists(&name).unwrap(), !versions.is_empty());
            assert_eq!(catalog.newest(&name).unwrap(), versions.last().map(|(_, uid)| *uid));
            let mut complete = versions.iter().filter(|(_, uid)| model.folded(*uid).validity.is_complete());
            assert_eq!(catalog.newest_complete(&name).unwrap(), complete.next_back().map(|(_, uid)| *uid));
            let collides = names.keys().any(|other| other.collides_with(&name));
            let collision = catalog.collision(&name).unwrap();
            assert_eq!(collision.is_some(), collides);
            assert!(collision.is_none_or(|other| other.collides_with(&name) && names.contains_key(&other)));
            assert_eq!(catalog.children(Some(text)).unwrap(), model.children(text));
            let drafts = drafts.get(&name).cloned().unwrap_or_default();
            let newest =
                drafts.last().map(|(_, uid)| Record { attributes: model.folded(*uid), ..model.records[uid].clone() });
            assert_eq!(catalog.draft_of(&name).unwrap(), newest);
            assert_eq!(catalog.drafts_of(&name).unwrap(), drafts);
        }
        assert_eq!(catalog.children(None).unwrap(), model.children(""));
        let drafts = catalog.drafts().unwrap().into_iter();
        let drafts: Vec<_> = drafts.map(|draft| (draft.created, draft.uid, draft.attributes)).collect();
        assert_eq!(drafts, model.listed(RecordKind::Draft));
        let mut tags = BTreeMap::<_, Vec<_>>::new();
        for (_, uid, attributes) in &listed {
            attributes.tags.iter().for_each(|tag| tags.entry(tag.clone()).or_default().push(*uid));
        }
        assert_eq!(catalog.tags().unwrap(), tags.keys().cloned().collect::<Vec<_>>());
        for tag in TAGS {
            assert_eq!(catalog.tagged(tag).unwrap(), tags.get(tag).cloned().unwrap_or_default());
        }
        let sorted: BTreeSet<_> = uids.iter().copied().collect();
        assert_eq!(catalog.find_by_prefix("019A0000-").unwrap(), sorted.iter().copied().collect::<Vec<_>>());
        for uid in &sorted {
            assert_eq!(catalog.find_by_prefix(&uid.to_string()).unwrap(), [*uid]);
        }
        assert_eq!(catalog.find_by_prefix("019b").unwrap(), []);
    }

    /// A catalog that learns the same things in another order is equal.
    fn compare_rebuilt(&self) {
        let dir = tempfile::tempdir().unwrap();
        let clock = TestClock::new(Stamp::from_millis(0), 1);
        let rebuilt = Catalog::open(dir.path(), &clock).unwrap();
        let model = &self.model;
        model.tombstones.iter().for_each(|uid| rebuilt.add_tombstone(*uid).unwrap());
        for entry in model.entries.values().rev().filter(|entry| !model.tombstones.contains(&entry.version)) {
            rebuilt.add_entry(entry).unwrap();
        }
        for record in model.records.values().rev() {
            rebuilt.put_record(record, Verdict::Pending).unwrap();
            rebuilt.set_verdict(record.uid, model.verdicts[&record.uid]).unwrap();
        }
        let condemned: Vec<_> = model.condemned.iter().copied().collect();
        model.batches.iter().for_each(|batch| rebuilt.absorb_batch(*batch, &condemned).unwrap());
        let packs: Vec<_> = model.packs.values().rev().cloned().collect();
        rebuilt.absorb_packs(&packs).unwrap();
        let fragments: Vec<_> = model.fragments.iter().map(|fragment| (*fragment, Vec::new())).collect();
        rebuilt.absorb_fragments(&fragments).unwrap();
        model.reports.iter().for_each(|(id, report)| rebuilt.absorb_damage(*id, report).unwrap());
        pretty_assert(&rebuilt, self.catalog());
    }
}

fn pretty_assert(rebuilt: &Catalog, live: &Catalog) {
    assert_eq!(rebuilt.dump().unwrap(), live.dump().unwrap());
    assert_ne!(rebuilt.host_id().unwrap(), live.host_id().unwrap());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn the_catalog_says_what_a_naive_model_says(ops in prop::collection::vec(op(), 1..60)) {
        let mut pair = Pair::new();
        for (at, op) in ops.iter().enumerate() {
            pair.apply(op);
            if at % 7 == 0 {
                pair.compare();
            }
        }
        pair.compare();
        pair.compare_rebuilt();
    }
}
