//! Giving back the space of what nobody needs any more, beside everything else that goes on. docs/architecture.md has the protocol
//! and why it is safe.
//!
//! ```text
//! learn all -> withdraw what was left unconfirmed -> survey -> choose       (plan)
//! for each round:  condemn -> list of condemned -> records -> index -> copy what is needed -> delete
//! merge index fragments
//! ```
//!
//! It can be killed anywhere: packs that are condemned and still there are taken up by the next collection of any host.

pub mod auto;
mod clean;
mod keepers;
mod marks;
mod obstacles;
pub mod policy;
mod reach;
mod report;
mod rescue;
mod roots;
mod survey;
#[cfg(test)]
pub(in crate::ops) mod tests;

pub use keepers::{InUse, Keepers};
pub use report::{GoingRow, Report, Staying};

use crate::ops::gc::policy::{Choice, DEAD_PERCENT_DEFAULT, Kept, PackFacts, Policy, Reason};
use crate::ops::gc::roots::Roots;
use crate::ops::{Interrupt, OpsError, overlays};
use crate::repo::withdraw::Found;
use crate::repo::{RepoError, Repository, merge};
use crate::target::Coherence;
use crate::words::ids::{PackId, Uid};
use crate::words::monitor::Monitor;
use crate::words::record::Verdict;
use crate::words::stamp::Stamp;
use std::collections::{BTreeMap, HashMap, HashSet};

/// After this long nobody expects the writer of an unconfirmed record on another host to be at work still. Should it be, its
/// close() fails; nothing is lost.
const FOREIGN_WRITER_MS: i64 = 24 * 3_600_000;
/// What unfinished backups stored is kept for so many days unless the settings say otherwise.
pub const UNFINISHED_DAYS_DEFAULT: i64 = 7;
/// What one round copies at most.
const ROUND_COPY_BYTES: u64 = 1 << 30;
/// Memory for one block of a condemned pack that is looked at.
const CANDIDATE_BYTES: usize = 256;

/// Who uses the target. Where a host may not see at once what others wrote, deleting is safe only without others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    /// Other hosts may.
    Unknown,
    /// Only this host, somebody says.
    OnlyHere,
}

/// How to collect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Only say what would be done.
    pub dry_run: bool,
    /// Percent of a pack that must be without use before the rest is copied.
    pub dead_percent: u8,
    /// What unfinished backups stored goes after so many milliseconds.
    pub unfinished_ms: i64,
    /// Who uses the target.
    pub sharing: Sharing,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            dry_run: false,
            dead_percent: DEAD_PERCENT_DEFAULT,
            unfinished_ms: UNFINISHED_DAYS_DEFAULT * 24 * 3_600_000,
            sharing: Sharing::Unknown,
        }
    }
}

/// What is to be done.
struct Plan {
    /// Packs that go now, a round at a time.
    rounds: Vec<Vec<PackId>>,
    /// When the first pack that is kept for its age may go.
    due: Option<Stamp>,
}

/// One collection.
struct Collection<'a> {
    repo: &'a Repository,
    options: &'a Options,
    monitor: &'a dyn Monitor,
    interrupt: &'a Interrupt,
    /// Packs on the target and their sizes; those deleted are taken out.
    stored: HashMap<PackId, u64>,
    /// Condemned packs that are gone: those that were condemned before the packs were listed and are not in the list, and those
    /// deleted since. One that was made and condemned after the list was read is not in it either, and still there.
    gone: HashSet<PackId>,
    report: Report,
}

/// How often a collection is begun that met what somebody removed meanwhile.
const ATTEMPTS_MAX: u32 = 3;

/// Collects.
///
/// # Errors
/// When another collection runs on this host, the target is not coherent, target or catalog fail, or the work is to stop. What was
/// done until then stands, and the next collection goes on from there.
pub fn gc(
    repo: &Repository,
    options: &Options,
    monitor: &dyn Monitor,
    interrupt: &Interrupt,
) -> Result<Report, OpsError> {
    if let Coherence::Doubtful(why) = repo.coherence()
        && options.sharing == Sharing::Unknown
        && !options.dry_run
    {
        return Err(OpsError::refused(format!(
            "nothing is collected: {why}, so this host may not see what others need. Mount NFS with actimeo=0,lookupcache=none; or, \
             if no other host uses this target, collect with --only-host"
        )));
    }
    let alone = repo.lease_collection()?;
    let Some(_alone) = alone else {
        return Err(OpsError::refused("another collection of this repository runs on this host"));
    };
    let mut before: Option<Report> = None;
    let mut attempts = 0;
    loop {
        attempts += 1;
        let known = roots::uids(repo)?;
        let report = Report { dry_run: options.dry_run, ..Report::default() };
        let mut collection =
            Collection { repo, options, monitor, interrupt, stored: HashMap::new(), gone: HashSet::new(), report };
        collection.run()?;
        let mut report = collection.report;
        report.add(before.as_ref());
        if options.dry_run || report.obstacles.is_empty() || attempts == ATTEMPTS_MAX {
            return Ok(report);
        }
        // What could not be read may have belonged to what somebody removed meanwhile, and another collection have taken it.
        repo.refresh_everything()?;
        if known.is_subset(&roots::uids(repo)?) {
            return Ok(report);
        }
        before = Some(report);
    }
}

/// An object without which nobody can say what is needed, and the way out.
fn blind(what: &str) -> String {
    format!(
        "it cannot be read: {what}; `backyfs repair` puts it back where it is known; when no host knows it, `backyfs repair --give-up` goes \
         on without it"
    )
}

impl Collection<'_> {
    fn run(&mut self) -> Result<(), OpsError> {
        let now = self.repo.clock().now();
        self.repo.refresh()?;
        if !self.options.dry_run {
            overlays::drop_stale_pins(self.repo)?;
            self.withdraw(now)?;
            if clean::is_clean(self.repo, self.options, now)? {
                self.report.nothing_new = true;
                self.report.kept_by = Keepers::read(self.repo, now)?;
                return Ok(());
            }
        }
        let learned = self.repo.refresh_everything()?;
        self.report.obstacles.extend(learned.blind.iter().map(|what| blind(what)));
        let condemned = self.repo.catalog().condemned_packs().map_err(RepoError::from)?;
        self.stored = self.repo.stored_packs()?.into_iter().collect();
        self.gone = condemned.into_iter().filter(|pack| !self.stored.contains_key(pack)).collect();
        self.report.kept_by = Keepers::read(self.repo, now)?;
        let plan = self.plan(now)?;
        self.report.resumed_packs = self.doomed()?.len() as u64;
        if self.options.dry_run {
            return Ok(());
        }
        let due = plan.due;
        self.execute(plan)?;
        if self.report.obstacles.is_empty() {
            self.merge()?;
            self.repo.catalog().forget_removed().map_err(RepoError::from)?;
            if self.report.damaged_packs == 0 {
                clean::set_clean(self.repo, self.options, due)?;
            }
        }
        Ok(())
    }

    /// Records that were never confirmed and whose writer is gone. A version that somebody has tagged, or made another one from, was
    /// confirmed once: its `ok` is what was lost, and that is no reason to lose the version.
    fn withdraw(&mut self, now: Stamp) -> Result<(), OpsError> {
        let records = roots::records(self.repo)?;
        let relied_on: HashSet<Uid> =
            records.iter().filter(|(_, v)| *v == Verdict::Confirmed).map(|(r, _)| r.base).collect();
        for (record, verdict) in records {
            self.interrupt.check()?;
            let uid = record.uid;
            if verdict == Verdict::Pending
                && (relied_on.contains(&uid) || !self.repo.catalog().entries(uid).map_err(RepoError::from)?.is_empty())
            {
                self.report.unconfirmed.push(format!("{uid} of {}", record.attributes.name));
                continue;
            }
            // Of its publication: versions that were taken over from elsewhere are created in the past.
            let age_ms = now.millis().saturating_sub(record.uid.millis());
            let is_left = match verdict {
                Verdict::Confirmed => false,
                _ if record.host == self.repo.host() => !self.repo.is_being_published(record.uid)?,
                Verdict::Withdrawing => true,
                Verdict::Pending => age_ms >= FOREIGN_WRITER_MS,
            };
            if is_left && self.repo.withdraw(&record)? == Found::Withdrawn {
                self.report.withdrawn_records += 1;
            }
        }
        Ok(())
    }

    fn plan(&mut self, now: Stamp) -> Result<Plan, OpsError> {
        let roots = Roots::read(self.repo)?;
        let surveyed = survey::survey(self.repo, &roots, &self.stored, now, self.interrupt)?;
        self.report.obstacles.extend(obstacles::of_maps(self.repo, &surveyed.unreadable, self.interrupt)?);
        let policy = Policy {
            dead_percent: self.options.dead_percent,
            pack_bytes: self.repo.header().pack_size_bytes,
            unfinished_ms: self.options.unfinished_ms,
            now,
        };
        let choices = policy::choose(&surveyed.packs, &policy);
        let due = self.tell(&surveyed.packs, &choices);
        if !self.options.dry_run {
            self.repo.catalog().set_sightings(&surveyed.sightings).map_err(RepoError::from)?;
        }
        let going = surveyed.packs.iter().zip(&choices).filter(|(_, choice)| matches!(choice, Choice::Condemn(_)));
        let going: Vec<PackFacts> = going.map(|(pack, _)| *pack).collect();
        Ok(Plan { rounds: policy::rounds(going, self.blocks_max() as u64, ROUND_COPY_BYTES), due })
    }

    fn tell(&mut self, packs: &[PackFacts], choices: &[Choice]) -> Option<Stamp> {
        let mut going: BTreeMap<Reason, GoingRow> = BTreeMap::new();
        let staying = &mut self.report.staying;
        let mut due: Option<Stamp> = None;
        for (pack, choice) in packs.iter().zip(choices) {
            match choice {
                Choice::Condemn(reason) => {
                    let row = GoingRow { reason: *reason, packs: 0, bytes: 0, needed_bytes: 0 };
                    let row = going.entry(*reason).or_insert(row);
                    row.packs += 1;
                    row.bytes += pack.size_bytes;
                    row.needed_bytes += pack.live_bytes;
                }
                Choice::Keep(Kept::Needed { dead_bytes }) => {
                    staying.packs += 1;
                    staying.bytes += pack.size_bytes;
                    staying.dead_bytes += dead_bytes;
                }
                Choice::Keep(Kept::Unfinished { until }) => {
                    staying.unfinished_packs += 1;
                    staying.unfinished_bytes += pack.size_bytes;
                    due = Some(due.map_or(*until, |due| due.min(*until)));
                }
            }
        }
        staying.unfinished_until = due.map(super::super::words::stamp::Stamp::to_seconds_text);
        self.report.going = going.into_values().collect();
        due
    }

    /// Condemned packs that lie on the target.
    fn doomed(&self) -> Result<HashMap<PackId, u64>, OpsError> {
        let condemned = self.repo.catalog().condemned_packs().map_err(RepoError::from)?;
        let there = condemned.iter().filter_map(|pack| Some((*pack, *self.stored.get(pack)?)));
        Ok(there.collect())
    }

    fn blocks_max(&self) -> usize {
        (self.repo.memory().node_cache / CANDIDATE_BYTES).max(1000)
    }

    fn execute(&mut self, plan: Plan) -> Result<(), OpsError> {
        if !self.report.obstacles.is_empty() {
            // Without knowing all that is needed nothing is condemned either: it could not be taken back.
            self.report.going.clear();
            return Ok(());
        }
        let total = plan.rounds.iter().map(Vec::len).sum::<usize>() as u64;
        let mut done = 0;
        // The first round also takes what was condemned earlier.
        let resumes = self.report.resumed_packs > 0 && plan.rounds.is_empty();
        let empty = resumes.then(Vec::new);
        for round in plan.rounds.into_iter().chain(empty) {
            self.interrupt.check()?;
            self.monitor.progress(done, total);
            if !self.round(&round)? {
                break;
            }
            done += round.len() as u64;
        }
        self.monitor.progress(done, total);
        Ok(())
    }

    /// One round, strictly in this order. Says whether another one may follow.
    fn round(&mut self, packs: &[PackId]) -> Result<bool, OpsError> {
        let repo = self.repo;
        if !packs.is_empty() {
            repo.condemn(packs)?;
        }
        // The whole list, after our own batch: what was condemned by others at the same time is seen by them or by us.
        repo.learn_condemned()?;
        let doomed = self.doomed()?;
        // Every record from the target, after the list; then the index.
        let learned = repo.refresh_everything()?;
        let roots = Roots::read(repo)?;
        if let Some(what) = learned.blind.first() {
            self.report.obstacles.push(blind(what));
            return Ok(false);
        }
        rescue::learn_contents(repo, &doomed)?;
        let going: HashSet<PackId> = doomed.keys().copied().collect();
        let rescued = loop {
            let rescued = rescue::rescue(repo, &going, &roots, self.blocks_max(), self.interrupt)?;
            self.report.copied_blocks += rescued.blocks;
            self.report.copied_bytes += rescued.bytes;
            self.report.freed_bytes -= i64::try_from(rescued.bytes).unwrap_or(i64::MAX);
            // A rebuild by another process of this host forgets what only the packs themselves say. Then it was not all looked at.
            if rescued.obstacle.is_some() || rescue::learn_contents(repo, &doomed)? == 0 {
                break rescued;
            }
        };
        if let Some(obstacle) = rescued.obstacle {
            self.report.obstacles.push(obstacle);
            return Ok(false);
        }
        self.report.damaged_packs = rescued.spared.len() as u64;
        self.delete(going.difference(&rescued.spared).copied().collect())?;
        Ok(true)
    }

    fn delete(&mut self, mut packs: Vec<PackId>) -> Result<(), OpsError> {
        packs.sort_unstable();
        let go_on = || self.interrupt.check().is_ok();
        let deleted = self.repo.delete_packs(&packs, &go_on)?;
        let gone: HashSet<PackId> = packs.into_iter().take(deleted).collect();
        for pack in &gone {
            let bytes = self.stored.remove(pack).unwrap_or(0);
            self.report.deleted_packs += 1;
            self.report.freed_bytes += i64::try_from(bytes).unwrap_or(i64::MAX);
        }
        self.gone.extend(&gone);
        self.repo.catalog().purge_copies(&gone).map_err(RepoError::from)?;
        self.interrupt.check()
    }

    fn merge(&mut self) -> Result<(), OpsError> {
        for plan in merge::plan(&self.repo.catalog().fragment_sizes().map_err(RepoError::from)?) {
            self.interrupt.check()?;
            self.report.merged_fragments += self.repo.merge_fragments(&plan, &self.gone)? as u64;
        }
        Ok(())
    }
}
