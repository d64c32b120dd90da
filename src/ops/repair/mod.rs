//! Repairing a repository whose objects are missing or damaged: plan, then execute.
//!
//! What this host knows is put back; what packs say of themselves is written into the index anew; what cannot be read is set aside,
//! never deleted. Blocks that no pack holds any more cannot be made up: the versions that lack them are listed, with the ranges, and a
//! backup of the same content heals them.

pub mod give_up;
pub mod header;
pub mod orphans;
#[cfg(test)]
mod tests;

use crate::catalog::PackSummary;
use crate::format::layout::{self, Object, ObjectKey};
use crate::ops::scrub::assess::Assessor;
use crate::ops::scrub::mark::remark;
use crate::ops::scrub::report::VersionFinding;
use crate::ops::scrub::{learn, past_damage};
use crate::ops::{Interrupt, OpsError};
use crate::repo::examine::PackState;
use crate::repo::header::answers;
use crate::repo::objects::{BadObject, ObjectsSeen};
use crate::repo::{RepoError, Repository};
use crate::words::attribute::{AttributeChange, AttributeEntry};
use crate::words::ids::{BatchId, PackId, Uid};
use crate::words::monitor::Monitor;
use crate::words::record::{PackContents, PackedBlock, Record, Verdict};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// Packs that one new index fragment speaks of.
const PACKS_PER_FRAGMENT: usize = 256;
/// Ranges that a repair lists beyond those of every version: some 20 MB.
const SPARE_RANGES: usize = 100_000;

/// One thing to be done. Each can be repeated.
#[derive(Debug, Clone, PartialEq)]
enum Deed {
    /// One of the two copies of the header, a key slot or a key ring, from the other or from this host's.
    Kept(Object),
    Record(Box<Record>, Verdict),
    Mark(Object),
    Entry(Box<AttributeEntry>),
    Batch(BatchId),
    /// Describe a pack in a new index fragment.
    Index(PackId),
    /// Keep an object out of the way; nothing needs it.
    Aside(ObjectKey),
    /// Write down, for all hosts, that a pack is missing.
    Missing(PackId),
}

/// When a deed is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Turn {
    /// What checks rely on.
    Foundations,
    Records,
    Verdicts,
    Aside,
}

impl Deed {
    fn turn(&self) -> Turn {
        match self {
            Self::Kept(_) | Self::Entry(_) | Self::Batch(_) | Self::Index(_) | Self::Missing(_) => Turn::Foundations,
            Self::Mark(Object::Withdrawing(_) | Object::Tombstone(_)) => Turn::Foundations,
            Self::Record(..) => Turn::Records,
            Self::Mark(_) => Turn::Verdicts,
            Self::Aside(_) => Turn::Aside,
        }
    }
}

/// A step of a plan, for people and scripts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    /// What it concerns.
    pub object: String,
    /// What is wrong.
    pub problem: String,
    /// What is done about it.
    pub remedy: String,
}

/// What can be done, and what cannot.
#[derive(Debug, Default)]
pub struct Plan {
    deeds: Vec<Deed>,
    /// What will be done, in this order.
    pub steps: Vec<Step>,
    /// What cannot be repaired, and why.
    pub hopeless: Vec<BadObject>,
    /// What packs that are to be described hold.
    contents: Vec<PackContents>,
}

/// What a repair did, or would do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Repaired {
    /// Whether anything was changed.
    pub is_dry_run: bool,
    /// What was, or would be, done.
    pub steps: Vec<Step>,
    /// What cannot be repaired.
    pub hopeless: Vec<BadObject>,
    /// Versions that lack bytes, with the ranges, as far as is known now.
    pub versions: Vec<VersionFinding>,
}

impl Repaired {
    /// Whether anything is left that somebody should know.
    pub fn is_damage(&self) -> bool {
        !self.hopeless.is_empty() || !self.versions.is_empty() || self.is_dry_run && !self.steps.is_empty()
    }
}

/// Looks at every object but the contents of packs, and plans. Changes nothing.
///
/// # Errors
/// When the target cannot be reached, the catalog fails, or it was interrupted.
pub fn plan(repo: &Repository, monitor: &dyn Monitor, interrupt: &Interrupt) -> Result<Plan, OpsError> {
    let mut plan = Plan::default();
    let seen = repo.examine_objects(&|_| interrupt.check().is_ok());
    let ObjectsSeen { bad, described, .. } = match seen {
        Err(RepoError::Stopped) => return Err(OpsError::Interrupted),
        seen => seen?,
    };
    plan.index(repo, &described, monitor, interrupt)?;
    for bad in &bad {
        plan.object(repo, bad)?;
    }
    Ok(plan)
}

/// Directories that are gone: objects of that name can be neither found nor written.
fn lost_directories(repo: &Repository) -> Result<Vec<Step>, OpsError> {
    let mut lost = Vec::new();
    for directory in repo.directories() {
        match repo.target().list(&format!("{directory}/")) {
            Ok(_) => {}
            Err(error) if !answers(repo.target()) => return Err(RepoError::from(error).into()),
            Err(_) => lost.push(Step {
                object: format!("{directory}/"),
                problem: "the directory is missing".to_owned(),
                remedy: "it is made again".to_owned(),
            }),
        }
    }
    Ok(lost)
}

impl Plan {
    fn add(&mut self, deed: Deed, object: impl ToString, problem: &str, remedy: &str) {
        let (object, problem, remedy) = (object.to_string(), problem.to_owned(), remedy.to_owned());
        self.steps.push(Step { object, problem, remedy });
        self.deeds.push(deed);
    }

    fn give_up(&mut self, bad: &BadObject, why: &str) {
        let problem = format!("{}; {why}", bad.problem);
        self.hopeless.push(BadObject { object: bad.object.clone(), problem });
    }

    /// Packs that are there and no readable fragment describes wholly, and packs that are not there.
    fn index(
        &mut self,
        repo: &Repository,
        described: &BTreeMap<PackId, u32>,
        monitor: &dyn Monitor,
        interrupt: &Interrupt,
    ) -> Result<(), OpsError> {
        let catalog = repo.catalog();
        let known: BTreeMap<PackId, PackSummary> =
            catalog.packs().map_err(RepoError::from)?.into_iter().map(|pack| (pack.pack, pack)).collect();
        let condemned = catalog.condemned_packs().map_err(RepoError::from)?;
        let stored: BTreeMap<PackId, u64> = repo.stored_packs()?.into_iter().collect();
        let lacking: Vec<(PackId, u64)> = stored
            .iter()
            .map(|(pack, size_bytes)| (*pack, *size_bytes))
            .filter(|(pack, _)| !condemned.contains(pack))
            .filter(|(pack, _)| {
                let wanted = known.get(pack).map_or(0, |known| known.block_count);
                described.get(pack).is_none_or(|told| *told < wanted)
            })
            .collect();
        let ids: BTreeSet<PackId> = lacking.iter().map(|(pack, _)| *pack).collect();
        let mut from_catalog = catalog.blocks_in(&ids).map_err(RepoError::from)?;
        for (done, (pack, size_bytes)) in lacking.iter().enumerate() {
            interrupt.check()?;
            monitor.progress(done as u64, lacking.len() as u64);
            let object = layout::pack(*pack);
            let problem = "no readable index fragment describes it";
            let found = match (repo.inspect_pack(*pack, *size_bytes), known.get(pack)) {
                (Ok(found), _) => Some(found),
                (Err(error @ RepoError::Target(_)), _) if !error.is_gone() => return Err(error.into()),
                // What it cannot say itself, this host may still know.
                (Err(_), Some(known)) => {
                    let (pack, kind) = (*pack, known.kind);
                    Some(PackContents { pack, kind, size_bytes: *size_bytes, blocks: Vec::new() })
                }
                (Err(error), None) => {
                    let bad = BadObject { object: object.to_string(), problem: problem.to_owned() };
                    self.give_up(&bad, &error.to_string());
                    None
                }
            };
            let Some(found) = found else { continue };
            let descriptions = descriptions(found, from_catalog.remove(pack).unwrap_or_default());
            let blocks = descriptions.first().map_or(0, |found| found.blocks.len());
            let remedy = format!("its {blocks} blocks are written into the index");
            self.contents.extend(descriptions);
            self.add(Deed::Index(*pack), object, problem, &remedy);
        }
        let reports = catalog.damage_reports().map_err(RepoError::from)?;
        let told: BTreeSet<PackId> = reports.into_values().map(|report| report.pack).collect();
        for pack in known.values().filter(|known| !known.condemned) {
            if !stored.contains_key(&pack.pack) && !told.contains(&pack.pack) {
                let remedy = "all hosts are told, so that its blocks are stored anew when they are backed up again";
                self.add(Deed::Missing(pack.pack), layout::pack(pack.pack), "it is missing", remedy);
            }
        }
        Ok(())
    }

    /// What can be done about an object that is missing or damaged.
    fn object(&mut self, repo: &Repository, bad: &BadObject) -> Result<(), OpsError> {
        let catalog = repo.catalog();
        let Some(key) = ObjectKey::new(&bad.object).ok() else { return Ok(()) };
        let Some(object) = layout::parse(&key) else { return Ok(()) };
        let put_back = "it is put back from what this host knows";
        match object {
            Object::Header | Object::Ring(_) | Object::SpareHeader | Object::SpareRing(_) => {
                match repo.kept_copy(object) {
                    Some((_, place)) => self.add(Deed::Kept(object), key, &bad.problem, place.remedy()),
                    None => self.give_up(bad, "there is no other copy of it"),
                }
            }
            Object::Record(kind, uid) => match record_of(repo, uid)? {
                Some((record, verdict)) if record.kind == kind => {
                    self.add(Deed::Record(Box::new(record), verdict), key, &bad.problem, put_back);
                }
                _ => self.give_up(bad, "this host does not know it: `--orphans` lists images that can be recovered"),
            },
            Object::Ok(uid) => match record_of(repo, uid)? {
                Some((_, Verdict::Confirmed)) => self.add(Deed::Mark(object), key, &bad.problem, put_back),
                _ => self.give_up(bad, "this host does not know the record it confirms"),
            },
            // They say all by being there.
            Object::Withdrawing(_) | Object::Tombstone(_) => {
                self.add(Deed::Mark(object), key, &bad.problem, "it is written again");
            }
            Object::Attribute(uid, entry) => {
                let entries = catalog.entries(uid).map_err(RepoError::from)?;
                match entries.into_iter().find(|known| known.entry == entry) {
                    Some(known) => self.add(Deed::Entry(Box::new(known)), key, &bad.problem, put_back),
                    None => {
                        let remedy = "this host does not know what it said; it is set aside";
                        self.add(Deed::Aside(key), &bad.object, &bad.problem, remedy);
                    }
                }
            }
            Object::Condemned(batch) => {
                if catalog.known_batches().map_err(RepoError::from)?.contains(&batch) {
                    self.add(Deed::Batch(batch), key, &bad.problem, put_back);
                } else {
                    self.give_up(bad, "this host does not know which packs it condemns: repair where it is known");
                }
            }
            Object::Fragment(_) => {
                let remedy = "what it said is in the index anew; it is set aside";
                self.add(Deed::Aside(key), &bad.object, &bad.problem, remedy);
            }
            Object::Damage(_) => self.add(
                Deed::Aside(key),
                &bad.object,
                &bad.problem,
                "it is set aside; the next scrub finds the damage again",
            ),
            Object::Slot(_) | Object::SpareSlot(_) => match repo.kept_copy(object) {
                Some((_, place)) => {
                    // A removal that was cut short is told by nothing.
                    let remedy = match object {
                        Object::Slot(_) => {
                            "it is put back from its other copy (if it was to be removed: `backyfs key remove`)"
                        }
                        _ => place.remedy(),
                    };
                    self.add(Deed::Kept(object), key, &bad.problem, remedy);
                }
                None => {
                    let remedy = "it opens nothing any more; it is set aside: make another with `backyfs key add`";
                    self.add(Deed::Aside(key), &bad.object, &bad.problem, remedy);
                }
            },
            Object::Pack(_) => {}
        }
        Ok(())
    }

    /// Carries the plan out: what packs hold and which of them are condemned; then records, each confirmed after a check that relies
    /// on both; then what goes aside, fragments above all, which the index stands for by then.
    ///
    /// # Errors
    /// When target or catalog fail. Then it can be planned anew and repeated.
    pub fn execute(&self, repo: &Repository, interrupt: &Interrupt) -> Result<(), OpsError> {
        self.contents.chunks(PACKS_PER_FRAGMENT).try_for_each(|packs| repo.index_packs(packs))?;
        let mut deeds: Vec<&Deed> = self.deeds.iter().collect();
        deeds.sort_by_key(|deed| deed.turn());
        for deed in deeds {
            interrupt.check()?;
            execute_one(repo, deed)?;
        }
        Ok(())
    }
}

fn record_of(repo: &Repository, uid: Uid) -> Result<Option<(Record, Verdict)>, OpsError> {
    if let Some(known) = repo.catalog().record(uid).map_err(RepoError::from)? {
        return Ok(Some(known));
    }
    let lost = repo.lost_records()?.into_iter().find(|record| record.uid == uid);
    Ok(lost.map(|record| (record, Verdict::Confirmed)))
}

fn execute_one(repo: &Repository, deed: &Deed) -> Result<(), OpsError> {
    match deed {
        Deed::Index(_) => {}
        Deed::Kept(object) => {
            repo.keep_aside(&object.key())?;
            repo.put_back_kept(*object)?;
        }
        Deed::Record(record, verdict) => {
            repo.keep_aside(&layout::record(record.kind, record.uid))?;
            repo.put_back_record(record, *verdict)?;
        }
        Deed::Mark(object) => {
            repo.keep_aside(&object.key())?;
            match object {
                Object::Ok(uid) => {
                    let Some((record, _)) = record_of(repo, *uid)? else { return Ok(()) };
                    repo.confirm_again(&record)?;
                }
                _ => repo.put_back_mark(*object)?,
            }
        }
        Deed::Entry(entry) => {
            repo.keep_aside(&layout::attribute(entry.version, entry.entry))?;
            repo.put_back_entry(entry)?;
        }
        Deed::Batch(batch) => {
            repo.keep_aside(&layout::condemned(*batch))?;
            repo.put_back_batch(*batch)?;
        }
        Deed::Aside(key) => drop(repo.move_aside(key)?),
        Deed::Missing(pack) => {
            let missing = BTreeMap::from([(*pack, PackState::Missing)]);
            crate::ops::scrub::settle_suspects(repo, &missing)?;
        }
    }
    Ok(())
}

/// Plans, executes unless it is a dry run, and lists which ranges of which versions are gone. With damage known from the last scrub
/// and packs that are missing now; packs are not read.
///
/// # Errors
/// As [`plan`] and [`Plan::execute`].
pub fn repair(
    repo: &Repository,
    is_dry_run: bool,
    monitor: &dyn Monitor,
    interrupt: &Interrupt,
) -> Result<Repaired, OpsError> {
    let mut repaired = Repaired { is_dry_run, ..Repaired::default() };
    let directories = lost_directories(repo)?;
    if !directories.is_empty() && !is_dry_run {
        // Nothing can be listed, nor put, without them.
        repo.target().prepare().map_err(RepoError::from)?;
    }
    let unlearnt = past_damage(repo, repo.refresh_as_known())?;
    let plan = plan(repo, monitor, interrupt)?;
    if !is_dry_run {
        plan.execute(repo, interrupt)?;
        if unlearnt.is_some() || !plan.steps.is_empty() {
            // A fragment that is not there any more makes this learn the index anew.
            learn(repo)?;
        }
    }
    (repaired.steps, repaired.hopeless) = (plan.steps, plan.hopeless);
    repaired.steps.splice(..0, directories);
    let gone: BTreeSet<PackId> = missing_packs(repo)?;
    let mut assessor = Assessor::new(repo, *interrupt).without(gone).with_more_ranges(SPARE_RANGES);
    let now = repo.clock().now().to_seconds_text();
    for version in repo.catalog().version_summaries().map_err(RepoError::from)? {
        let found = assessor.assess(&version.image)?;
        if found.lost_bytes == 0 {
            continue;
        }
        let wanted = remark(&version.attributes.validity, &found).filter(|_| !is_dry_run);
        let marked = wanted.as_ref().map(|validity| validity.word().to_owned());
        if let Some(validity) = wanted {
            repo.change_attributes(version.uid, &[AttributeChange::Validity(validity)])?;
        }
        repaired.versions.push(VersionFinding {
            uid: version.uid.to_string(),
            name: version.attributes.name.to_string(),
            at: now.clone(),
            unseen_blocks: found.unseen,
            lost_bytes: found.lost_bytes,
            ranges: found.ranges,
            marked,
        });
    }
    Ok(repaired)
}

/// What a pack says, with what the catalog knows beyond it. What cannot be true beside that, as when the pack was put in another's place, is
/// a description of its own: whoever reads tries each. Behind the end of what is stored there is nothing, and whoever said so could not
/// be read.
fn descriptions(found: PackContents, mut known: Vec<PackedBlock>) -> Vec<PackContents> {
    known.retain(|block| block.end() <= found.size_bytes);
    known.sort_by_key(|block| block.offset);
    let (mut all, mut layer) = (Vec::new(), found);
    loop {
        let (mut free_from, mut fits, mut rest) = (0, Vec::new(), Vec::new());
        for block in known {
            if u64::from(block.offset) >= free_from && layer.has_room_for(&block) {
                free_from = block.end();
                fits.push(block);
            } else {
                rest.push(block);
            }
        }
        let empty = PackContents { blocks: Vec::new(), ..layer };
        layer.join(&PackContents { blocks: fits, ..empty });
        all.push(layer);
        if rest.is_empty() {
            return all;
        }
        // The first of them fits, so each turn leaves fewer.
        (known, layer) = (rest, empty);
    }
}

/// Packs that the index names and that are not there: a dry run has not told anybody of them yet.
fn missing_packs(repo: &Repository) -> Result<BTreeSet<PackId>, OpsError> {
    let known = repo.catalog().packs().map_err(RepoError::from)?;
    let stored: BTreeSet<PackId> = repo.stored_packs()?.into_iter().map(|(pack, _)| pack).collect();
    Ok(known
        .into_iter()
        .filter(|known| !known.condemned)
        .map(|known| known.pack)
        .filter(|p| !stored.contains(p))
        .collect())
}
