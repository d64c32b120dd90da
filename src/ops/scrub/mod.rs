//! Scrubbing: reading everything that is stored, to find damage before somebody needs what it hit.
//!
//! Packs are read, each from end to end; every other object is opened; then the maps of versions say whom the damage concerns.
//! Nothing that is found stops it: damage is named, reported to all hosts (`repo::damage`), and marked on the versions. Only a
//! target that cannot be reached at all ends a scrub early, and the next one goes on from there.
//!
//! A version that was marked damaged becomes valid again when each of its blocks was seen good: in a pack that this host has read
//! from end to end, and that no report says is bad.

pub mod assess;
mod choose;
pub mod keyless;
pub mod mark;
mod pace;
mod packs;
pub mod report;
pub mod source;
mod tried;

#[cfg(test)]
pub(in crate::ops) mod tests;

use crate::catalog::VersionSummary;
use crate::ops::error::is_damage;
use crate::ops::scrub::assess::{Assessment, Assessor, NODE_BYTES};
use crate::ops::scrub::choose::{Candidate, Queue};
use crate::ops::scrub::pace::Pacer;
use crate::ops::scrub::packs::PacksRead;
use crate::ops::scrub::report::{DamagedPack, ScrubReport, VersionFinding, keep};
use crate::ops::scrub::tried::Tried;
use crate::ops::walk::{Found, walk};
use crate::ops::{Interrupt, OpsError};
use crate::repo::examine::{PackState, WINDOW_BYTES};
use crate::repo::header::answers;
use crate::repo::learn::Learned;
use crate::repo::objects::{BadObject, ObjectsSeen};
use crate::repo::{RepoError, Repository};
use crate::words::attribute::AttributeChange;
use crate::words::geometry::{BlockSize, FANOUT};
use crate::words::ids::{BlockId, PackId, Uid};
use crate::words::monitor::Monitor;
use crate::words::stamp::Stamp;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Where it is kept what is being scrubbed, and since when.
const RUN: &str = "scrub/run";

/// What to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// Everything on the target.
    All,
    /// These versions, and the packs that hold their blocks. The text is what was asked for.
    Versions(String, Vec<Uid>),
}

/// Where to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Where a scrub of the same was interrupted, if one was.
    Resume,
    /// From the beginning.
    Anew,
}

/// How to scrub.
#[derive(Debug, Clone)]
pub struct Options {
    /// What.
    pub selection: Selection,
    /// Only so much of it, what nobody looked at for longest: 1 to 100.
    pub percent: Option<u8>,
    /// Bytes a second at most.
    pub rate: Option<u64>,
    /// Threads that read.
    pub threads: usize,
    /// Where to begin.
    pub start: Start,
}

impl Options {
    fn describe(&self) -> String {
        let what = match &self.selection {
            Selection::All => "all".to_owned(),
            Selection::Versions(text, _) => text.clone(),
        };
        self.percent.map_or(what.clone(), |percent| format!("{percent}% of {what}"))
    }
}

/// Scrubs. What was found is also kept, for [`report::last`].
///
/// # Errors
/// When the target cannot be reached or the catalog fails, and [`OpsError::Interrupted`]. The next one goes on from there.
pub fn scrub(
    repo: &Repository,
    options: &Options,
    monitor: &dyn Monitor,
    interrupt: &Interrupt,
) -> Result<ScrubReport, OpsError> {
    let pacer = Pacer::new(options.rate, *interrupt);
    let since = begin(repo, options)?;
    let mut report =
        ScrubReport { what: options.describe(), started: since.to_seconds_text(), ..ScrubReport::default() };
    let unlearnt = learn(repo)?;
    repo.report_noted()?;

    let read = read_packs(repo, options, since, &mut report, &pacer, monitor)?;
    let has_news = settle(repo, &read, unlearnt.is_some(), &mut report, &pacer)?;
    if read.stopped {
        keep(repo, &report)?;
        return Err(OpsError::Interrupted);
    }
    look_at_objects(repo, unlearnt, &mut report, &pacer)?;
    judge(repo, options, has_news, &mut report, &pacer, interrupt)?;
    repo.drop_stale_damage()?;
    report.finished = Some(repo.clock().now().to_seconds_text());
    keep(repo, &report)?;
    repo.catalog().remove_meta(RUN).map_err(RepoError::from)?;
    Ok(report)
}

/// Tells all hosts of damage that reading has shown on this one, and marks the versions that it concerns. Costs a look at the
/// catalog when there is no news. Says whether there was any.
///
/// # Errors
/// When target or catalog fail, or it was interrupted. It can be repeated.
pub fn publish_noted(repo: &Repository, interrupt: &Interrupt) -> Result<bool, OpsError> {
    if repo.report_noted()? == 0 {
        return Ok(false);
    }
    let mut assessor = Assessor::new(repo, *interrupt);
    let now = repo.clock().now().to_seconds_text();
    for version in repo.catalog().version_summaries().map_err(RepoError::from)? {
        let found = assessor.assess(&version.image)?;
        if found.lost_bytes > 0 {
            mark_version(repo, &version, found, &now)?;
        }
    }
    Ok(true)
}

/// Finds out which blocks of packs that are not intact are bad, and reports them to all hosts.
///
/// # Errors
/// When target or catalog fail. It can be repeated.
pub fn settle_suspects(repo: &Repository, suspects: &BTreeMap<PackId, PackState>) -> Result<(), OpsError> {
    packs::settle(repo, suspects, false, &Pacer::new(None, Interrupt::never())).map(drop)
}

/// When this scrub began: now, or when the same one was interrupted.
fn begin(repo: &Repository, options: &Options) -> Result<Stamp, OpsError> {
    let catalog = repo.catalog();
    let (what, mut now) = (options.describe(), repo.clock().now());
    let before = catalog.get_meta(RUN).map_err(RepoError::from)?;
    let before = before.and_then(|bytes| serde_json::from_slice::<(String, i64)>(&bytes).ok());
    if let Some((_, since)) = before.filter(|(same, _)| *same == what && options.start == Start::Resume) {
        return Ok(Stamp::from_millis(since).min(now));
    }
    // What the run before read in this very millisecond is not what this one has read.
    if catalog.scrubbed().map_err(RepoError::from)?.values().any(|at| *at == now) {
        std::thread::sleep(Duration::from_millis(2));
        now = repo.clock().now();
    }
    let run = serde_json::to_vec(&(what, now.millis())).unwrap_or_default();
    catalog.set_meta(RUN, &run).map_err(RepoError::from)?;
    Ok(now)
}

/// Learns what other hosts did, past whatever is damaged. A list of condemned packs that cannot be read is a finding like any other.
///
/// # Errors
/// When the target cannot be reached or the catalog fails.
pub fn learn(repo: &Repository) -> Result<Option<BadObject>, OpsError> {
    past_damage(repo, repo.refresh())
}

/// Learns what there is, for whoever lists, reads or restores: an object that cannot be read is told of, and nobody is kept from the
/// rest by it. Whoever publishes or collects meets it again, and stops there.
///
/// # Errors
/// When the target cannot be reached or the catalog fails.
pub fn learn_to_read(repo: &Repository) -> Result<(), OpsError> {
    let refreshed = repo.refresh();
    let is_whole = refreshed.is_ok();
    if let Some(BadObject { object, problem }) = past_damage(repo, refreshed)?.filter(|_| !is_whole) {
        repo.monitor().warn(&format!(
            "{object}: {problem}: what is known without it can be read and restored; run `backyfs repair` before the next backup"
        ));
    }
    Ok(())
}

/// As [`learn`], from a refresh that was made already.
///
/// # Errors
/// As [`learn`].
pub fn past_damage(repo: &Repository, refreshed: Result<Learned, RepoError>) -> Result<Option<BadObject>, OpsError> {
    match refreshed {
        Ok(learned) => Ok(learned.rebuilt.map(|object| {
            let problem = "it was missing; what packs say of themselves replaced it".to_owned();
            BadObject { object, problem }
        })),
        Err(error @ (RepoError::Seal { .. } | RepoError::Format { .. })) => {
            let text = error.to_string();
            let (object, problem) = text.split_once(": ").unwrap_or(("", &text));
            Ok(Some(BadObject { object: object.to_owned(), problem: problem.to_owned() }))
        }
        // A directory that is gone is damage, as long as the rest answers. What was learnt before that counts.
        Err(RepoError::Target(error)) if is_there(repo) => {
            Ok(Some(BadObject { object: "the target".to_owned(), problem: error.to_string() }))
        }
        Err(error) => Err(error.into()),
    }
}

fn is_there(repo: &Repository) -> bool {
    let target = repo.target();
    answers(target) && target.list(crate::format::layout::PACKS).is_ok()
}

fn read_packs(
    repo: &Repository,
    options: &Options,
    since: Stamp,
    report: &mut ScrubReport,
    pacer: &Pacer,
    monitor: &dyn Monitor,
) -> Result<PacksRead, OpsError> {
    let catalog = repo.catalog();
    // The index first, the listing after it: what the index names was stored before.
    let known = catalog.packs().map_err(RepoError::from)?;
    let condemned: BTreeSet<PackId> = catalog.condemned_packs().map_err(RepoError::from)?;
    let stored: BTreeMap<PackId, u64> = repo.stored_packs()?.into_iter().collect();
    let mut candidates: BTreeMap<PackId, u64> =
        known.iter().filter(|p| !p.condemned).map(|p| (p.pack, p.size_bytes)).collect();
    let unindexed = stored.iter().filter(|(pack, _)| !candidates.contains_key(pack) && !condemned.contains(pack));
    let unindexed: Vec<_> = unindexed.map(|(pack, size)| (*pack, *size)).collect();
    match &options.selection {
        Selection::All => {
            report.unindexed_packs = unindexed.len() as u64;
            candidates.extend(unindexed);
        }
        Selection::Versions(_, uids) => {
            let wanted = packs_of(repo, uids, pacer)?;
            candidates.retain(|pack, _| wanted.contains(pack));
        }
    }
    // What is missing need not be read, so it is found however few percent are asked for.
    let missing: Vec<PackId> = candidates.keys().filter(|pack| !stored.contains_key(pack)).copied().collect();
    let candidates: Vec<Candidate> = candidates
        .into_keys()
        .filter_map(|pack| stored.get(&pack).map(|size_bytes| Candidate { pack, size_bytes: *size_bytes }))
        .collect();
    let mut read = catalog.scrubbed().map_err(RepoError::from)?;
    let gone: Vec<PackId> =
        read.keys().filter(|pack| condemned.contains(pack) && !stored.contains_key(pack)).copied().collect();
    if !gone.is_empty() {
        catalog.forget_scrubbed(&gone).map_err(RepoError::from)?;
    }
    // After a clock was put back nobody knows when those were read that were read in the future.
    let now = repo.clock().now();
    read.retain(|_, at| *at <= now);
    let mut tried = Tried::load(repo)?;
    tried.retain(|pack, at| stored.contains_key(pack) && at <= now && read.get(pack).is_none_or(|read| *read < at));
    let mut queue = Queue::new(&candidates, &read, tried.times(), options.percent, since);
    let done = candidates.iter().filter(|candidate| read.get(&candidate.pack).is_some_and(|at| *at >= since));
    let done: Vec<_> = done.copied().collect();
    let bytes = |packs: &[Candidate]| packs.iter().map(|candidate| candidate.size_bytes).sum::<u64>();
    let threads = threads(repo, options.threads);
    let done_bytes = bytes(&done);
    let mut result = PacksRead::default();
    // What cannot be read counts for nothing, and others are read in its place.
    loop {
        let chosen = queue.next();
        if chosen.is_empty() || result.stopped {
            break;
        }
        let begun = done_bytes + result.bytes;
        let more = packs::read(repo, &chosen, (begun, begun + bytes(&chosen)), &mut tried, pacer, threads, monitor)?;
        queue.count(more.bytes);
        result.add(more);
    }
    report.packs = candidates.len() as u64;
    report.packs_bytes = bytes(&candidates);
    report.packs_read = done.len() as u64 + result.read;
    report.bytes_read = done_bytes + result.bytes;
    let read = catalog.scrubbed().map_err(RepoError::from)?;
    let suspects = &result.suspects;
    let never = candidates.iter().filter(|c| !read.contains_key(&c.pack) && !suspects.contains_key(&c.pack));
    report.packs_never_read = never.count() as u64;
    result.suspects.extend(missing.into_iter().map(|pack| (pack, PackState::Missing)));
    Ok(result)
}

/// Each thread holds a window and a block at most twice.
fn threads(repo: &Repository, wanted: usize) -> usize {
    let each = usize::try_from(WINDOW_BYTES).unwrap_or(usize::MAX) + 2 * BlockSize::MAX.bytes();
    wanted.min(repo.memory().pipeline / each).max(1)
}

/// The packs that hold blocks of versions.
fn packs_of(repo: &Repository, uids: &[Uid], pacer: &Pacer) -> Result<BTreeSet<PackId>, OpsError> {
    const AT_ONCE: usize = 4096;
    let mut packs = BTreeSet::new();
    let mut ids: Vec<BlockId> = Vec::with_capacity(AT_ONCE);
    let add = |ids: &mut Vec<BlockId>, packs: &mut BTreeSet<PackId>| {
        let added = repo.catalog().packs_of(ids, packs).map_err(RepoError::from);
        ids.clear();
        added
    };
    for uid in uids {
        let image = repo.version(*uid)?.record.image;
        let mut nodes = BTreeSet::from([image.root]);
        collect_nodes(repo, image.root, image.depth().root_level(), &mut nodes)?;
        let nodes: Vec<BlockId> = nodes.into_iter().collect();
        repo.catalog().packs_of(&nodes, &mut packs).map_err(RepoError::from)?;
        walk(repo, &image, &mut |found| {
            if let Found::Block { id, .. } = found {
                ids.push(id);
            }
            if ids.len() < AT_ONCE {
                return Ok::<(), OpsError>(());
            }
            if pacer.pass(AT_ONCE as u64 / FANOUT * NODE_BYTES).is_break() {
                return Err(OpsError::Interrupted);
            }
            Ok(add(&mut ids, &mut packs)?)
        })?;
    }
    add(&mut ids, &mut packs)?;
    Ok(packs)
}

fn collect_nodes(repo: &Repository, id: BlockId, level: u8, nodes: &mut BTreeSet<BlockId>) -> Result<(), OpsError> {
    if level == 0 || id.is_hole() {
        return Ok(());
    }
    let node = match repo.read_node(&id) {
        Ok(node) => node,
        Err(error) if is_damage(&error) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    for child in node.ids().iter().filter(|child| !child.is_hole()) {
        if nodes.insert(*child) {
            collect_nodes(repo, *child, level - 1, nodes)?;
        }
    }
    Ok(())
}

/// Reports what is damaged and takes back what is not any more; says whether anything changed.
fn settle(
    repo: &Repository,
    read: &PacksRead,
    is_list_unreadable: bool,
    report: &mut ScrubReport,
    pacer: &Pacer,
) -> Result<bool, OpsError> {
    let catalog = repo.catalog();
    if !is_list_unreadable && !read.suspects.is_empty() {
        // A collector may have deleted what was missing.
        learn(repo)?;
    }
    let settled = packs::settle(repo, &read.suspects, is_list_unreadable, pacer)?;
    let mut has_news = settled.damaged.iter().any(|pack| pack.is_news);
    report.damaged_packs = settled.damaged;
    report.unreadable_packs = settled.unreadable;
    let noted = catalog.bad_copies().map_err(RepoError::from)?.into_iter().map(|copy| copy.pack);
    let reported = catalog.damage_reports().map_err(RepoError::from)?.into_values().map(|report| report.pack);
    for pack in noted.chain(reported).collect::<BTreeSet<PackId>>() {
        // Read just now, and not found damaged: it is good now. What a scrub read before it was interrupted says nothing of damage
        // that was met since.
        let is_seen = read.intact.contains(&pack);
        let known = catalog.pack(&pack).map_err(RepoError::from)?.filter(|known| !known.condemned);
        if let Some(known) = known.filter(|_| is_seen) {
            repo.settle_damage(pack, known.kind, None, &BTreeSet::new())?;
            has_news = true;
        }
    }
    add_known(repo, report)?;
    Ok(has_news)
}

/// Damage that is known, in packs that were not read now.
fn add_known(repo: &Repository, report: &mut ScrubReport) -> Result<(), OpsError> {
    let catalog = repo.catalog();
    for known in catalog.damage_reports().map_err(RepoError::from)?.into_values() {
        let pack = crate::format::layout::pack(known.pack).to_string();
        let is_listed = report.damaged_packs.iter().any(|listed| listed.pack == pack);
        if is_listed || catalog.is_condemned(&known.pack).map_err(RepoError::from)? {
            continue;
        }
        let mut lost_blocks = 0;
        for id in &known.blocks {
            lost_blocks += u64::from(catalog.is_damaged(id).map_err(RepoError::from)?);
        }
        let problem = known.reason.strip_prefix(&format!("{pack}: ")).unwrap_or(&known.reason).to_owned();
        let bad_blocks = known.blocks.len() as u64;
        report.damaged_packs.push(DamagedPack { pack, problem, bad_blocks, lost_blocks, is_news: false });
    }
    Ok(())
}

fn look_at_objects(
    repo: &Repository,
    unlearnt: Option<BadObject>,
    report: &mut ScrubReport,
    pacer: &Pacer,
) -> Result<(), OpsError> {
    let seen = repo.examine_objects(&|bytes| pacer.pass(bytes).is_continue());
    let ObjectsSeen { checked, mut bad, described } = match seen {
        Err(RepoError::Stopped) => return Err(OpsError::Interrupted),
        seen => seen?,
    };
    if let Some(unlearnt) = unlearnt.filter(|object| bad.iter().all(|known| known.object != object.object)) {
        bad.push(unlearnt);
    }
    for pack in repo.catalog().packs().map_err(RepoError::from)? {
        let told = described.get(&pack.pack).copied().unwrap_or(0);
        if !pack.condemned && told < pack.block_count {
            let object = crate::format::layout::pack(pack.pack).to_string();
            let problem = "no readable index fragment describes it: other hosts do not find what is in it".to_owned();
            bad.push(BadObject { object, problem });
        }
    }
    (report.objects_read, report.damaged_objects) = (checked, bad);
    Ok(())
}

/// Looks at versions, and marks them. Where only some were asked for and nothing new was found, of the others those that were marked
/// damaged: what healed one of them may have healed them as well, and nobody would look at them again for that.
fn judge(
    repo: &Repository,
    options: &Options,
    has_news: bool,
    report: &mut ScrubReport,
    pacer: &Pacer,
    interrupt: &Interrupt,
) -> Result<(), OpsError> {
    let catalog = repo.catalog();
    let mut versions = catalog.version_summaries().map_err(RepoError::from)?;
    let all: BTreeSet<Uid> = versions.iter().map(|version| version.uid).collect();
    let is_asked_for = |version: &VersionSummary| match &options.selection {
        Selection::Versions(_, uids) => has_news || uids.contains(&version.uid),
        Selection::All => true,
    };
    versions.retain(|version| is_asked_for(version) || mark::speaks_of_damage(&version.attributes.validity));
    let mut assessor = Assessor::new(repo, *interrupt).at_pace(pacer);
    let (mut rows, now) = (Vec::new(), repo.clock().now().to_seconds_text());
    for version in &versions {
        let found = assessor.assess(&version.image)?;
        if !is_asked_for(version) && (found.lost_bytes > 0 || found.unseen > 0) {
            continue;
        }
        let finding = mark_version(repo, version, found, &now)?;
        report.versions += 1;
        report.versions_good += u64::from(finding.lost_bytes == 0 && finding.unseen_blocks == 0);
        rows.push((version.uid, serde_json::to_string(&finding).unwrap_or_default()));
        if finding.lost_bytes > 0 || finding.marked.is_some() {
            report.findings.push(finding);
        }
    }
    let known = catalog.found_versions().map_err(RepoError::from)?;
    let gone: Vec<Uid> = known.difference(&all).copied().collect();
    Ok(catalog.set_findings(&rows, &gone).map_err(RepoError::from)?)
}

fn mark_version(
    repo: &Repository,
    version: &VersionSummary,
    found: Assessment,
    now: &str,
) -> Result<VersionFinding, OpsError> {
    let wanted = mark::remark(&version.attributes.validity, &found);
    let marked = wanted.as_ref().map(|validity| validity.word().to_owned());
    if let Some(validity) = wanted {
        match repo.change_attributes(version.uid, &[AttributeChange::Validity(validity)]) {
            // Deleted meanwhile.
            Ok(_) | Err(RepoError::NoSuchVersion { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(VersionFinding {
        uid: version.uid.to_string(),
        name: version.attributes.name.to_string(),
        at: now.to_owned(),
        unseen_blocks: found.unseen,
        lost_bytes: found.lost_bytes,
        ranges: found.ranges,
        marked,
    })
}
