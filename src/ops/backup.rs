//! Backing up a source without a mount.
//!
//! ```text
//! choose a base -> open the source (snapshot) -> who knows the changes? -> compare a sample -> pull -> settle -> publish
//! ```
//!
//! With changes known (by hints, or by the difference of two snapshots) the image begins as the base and only what changed is
//! read; otherwise it begins empty and everything is read, while blocks equal to the base's cost a hash.
//!
//! An interrupted backup publishes nothing. What it stored stays, as a draft record: `--continue` goes on where it stopped. So
//! that a killed one loses little, that is written every now and then.

use crate::image::DraftImage;
use crate::ops::automatic;
use crate::ops::base::{self, Base, ChangesFrom};
use crate::ops::commit::{Publication, publish_version};
use crate::ops::overlays::{self, Pinned};
use crate::ops::pull::{OnBadSectors, Position, Pull, Unchanged};
use crate::ops::reading::LatePin;
use crate::ops::retain::Policy;
use crate::ops::retain::due::Labels;
use crate::ops::snapshots::Session;
use crate::ops::unfinished::Unfinished;
use crate::ops::{Interrupt, OpsError, unchanged};
use crate::repo::{RepoError, Repository};
use crate::source::Recipe;
use crate::source::bad_sectors::BadSectors;
use crate::words::attribute::{Attributes, Validity};
use crate::words::ids::{DraftId, Uid};
use crate::words::monitor::Monitor;
use crate::words::name::Name;
use crate::words::record::{ImageRef, Record};
use crate::words::stamp::Stamp;
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How much time's work a kill may cost.
const SAVE_INTERVAL: Duration = Duration::from_secs(30);

/// What to back up, and as what.
#[derive(Debug, Clone)]
pub struct Backup {
    /// What.
    pub source: Recipe,
    /// Name of the backup.
    pub name: Name,
    /// Which snapshot of the source this is; for sources that take snapshots of their own only when it is empty.
    pub snapshot_name: String,
    /// Tags.
    pub tags: BTreeSet<String>,
    /// When it may go.
    pub expire: Option<Stamp>,
    /// Its moment, when it is a backup that was made elsewhere and is being taken over.
    pub created: Option<Stamp>,
    /// What of these follows from schedules instead.
    pub automatic: Automatic,
    /// The version it was made from, instead of the newest of the name.
    pub from: Option<Uid>,
    /// Who knows what has changed.
    pub changes: ChangesFrom,
    /// Where to begin.
    pub begin: Begin,
    /// About sectors that cannot be read.
    pub on_bad: OnBadSectors,
}

/// What schedules say of a version.
#[derive(Debug, Clone)]
pub enum Automatic {
    /// Nothing: tags and expiry are as given.
    Nothing,
    /// Its tags.
    Tags(Arc<Policy>),
    /// Its tags, and when it may go.
    Everything(Arc<Policy>),
}

impl Backup {
    /// A plain backup of a source under a name.
    pub fn new(source: Recipe, name: Name) -> Self {
        Self {
            source,
            name,
            snapshot_name: String::new(),
            tags: BTreeSet::new(),
            expire: None,
            created: None,
            automatic: Automatic::Nothing,
            from: None,
            changes: ChangesFrom::Source,
            begin: Begin::Anew,
            on_bad: OnBadSectors::Tolerate,
        }
    }
}

/// Where a backup begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// At the beginning.
    Anew,
    /// Where an interrupted one stopped, if there is one and the source is what it was.
    Continue,
}

/// What became of it.
#[derive(Debug)]
pub struct BackedUp {
    /// The version.
    pub record: Record,
    /// What could not be read, and is zero in it.
    pub bad: BadSectors,
}

/// Makes a version of a source.
///
/// # Errors
/// When the source cannot be read (the offset is named) other than for bad sectors, differs from its base where it should not,
/// the name is taken as a directory, or the repository fails. Nothing is published then.
pub fn backup(
    repo: &Arc<Repository>,
    job: &Backup,
    monitor: &dyn Monitor,
    interrupt: &Interrupt,
) -> Result<BackedUp, OpsError> {
    let started = Instant::now();
    repo.check_name(&job.name)?;
    check_moment(repo, job)?;
    let base = Base::find(repo, &job.name, job.from)?;
    // What is the base's is taken over by its ids: nobody may collect it before the version says that it needs it.
    let _held = hold(repo, base.as_ref())?;
    let described = job.source.volume()?.describe();
    let (left, claim) = Unfinished::find(repo, &job.name, &described)?.unzip();
    let (session, resumed) = open(repo, job, base.as_ref(), left.as_ref(), monitor)?;
    let source = Arc::clone(session.source());
    let plan = base::plan(&session, base.as_ref(), &job.changes, monitor, repo)?;
    // What stood still in the interrupted one must be what stands still in this one.
    let resumed = resumed.filter(|record| {
        let fits = record.start == plan.start;
        if !fits {
            monitor.warn("the interrupted backup knew of other changes: it begins anew, and nothing is stored twice");
        }
        fits
    });
    let image = start_image(repo, &plan, source.size_bytes(), resumed)?;
    let mut work = Work {
        repo,
        image: &image,
        relative: resumed.map(|record| record.image).or(base.as_ref().map(|base| base.image)),
        earlier_bad: resumed
            .and_then(|record| BadSectors::parse(Unfinished::state_of(record, &described)))
            .unwrap_or_default(),
        saved: Instant::now(),
        unfinished: Unfinished {
            draft: claim.map_or_else(|| repo.new_draft(), Ok)?,
            name: job.name.clone(),
            source: described,
            snapshot_name: session.snapshot_name().unwrap_or_default().to_owned(),
            file: source.attributes(),
            base: base.as_ref().map_or(Uid::NIL, |base| base.uid),
            start: resumed.map_or(plan.start, |record| record.start),
            record: left.clone(),
        },
    };
    // A last block that is only partly there was cut off above.
    let from = resumed.and_then(|record| record.broken.as_ref()).map_or(0, |broken| broken.at);
    let from = from / repo.block_size().bytes_u64() * repo.block_size().bytes_u64();
    let pull = Pull {
        repo,
        source: &*plan.source,
        image: &image,
        unchanged: Unchanged::Stands,
        on_bad: job.on_bad,
        monitor,
        interrupt,
    };
    let bad = work.pull(&pull, from..source.size_bytes())?;
    let mut settled = image.settle()?;
    if let Some(base) = base.as_ref().filter(|_| asks_the_index(repo, &plan, resumed)) {
        unchanged::tell_unchanged(repo, &base.image, &mut settled);
    }
    if source.has_changed() {
        monitor.warn(&format!("{} was changed while it was read: take a snapshot first", source.describe()));
    }
    let publication = Publication {
        attributes: attributes(repo, job, &session, &bad)?,
        base: work.unfinished.base,
        supersedes: Uid::NIL,
        draft: work.unfinished.record.as_ref().map_or(DraftId::NIL, |record| record.draft),
        created: job.created,
        duration_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
        relatives: work.unfinished.record.iter().map(|record| record.image).collect(),
    };
    let record = publish_version(repo, &settled, publication)?;
    work.unfinished.finish(repo);
    Ok(BackedUp { record, bad })
}

/// Pins the base of a backup that takes longer than a moment.
fn hold(repo: &Arc<Repository>, base: Option<&Base>) -> Result<Option<LatePin>, OpsError> {
    let Some(base) = base else { return Ok(None) };
    // What a killed one left behind; costs nothing when there is none.
    if let Err(error) = overlays::drop_stale_pins(repo) {
        tracing::warn!("pins that nobody needs any more stay until the next collection: {error}");
    }
    let version = repo.catalog().version_summary(base.uid).map_err(RepoError::from)?;
    Ok(version.map(|version| LatePin::new(repo, Pinned::from(&version))))
}

/// A moment that is given must have been, and be free: who takes backups over and begins again does not get each of them twice.
fn check_moment(repo: &Repository, job: &Backup) -> Result<(), OpsError> {
    let Some(created) = job.created else { return Ok(()) };
    if created > repo.clock().now() {
        return Err(OpsError::refused(format!(
            "{} is in the future: a backup cannot have been made then",
            created.to_millis_text()
        )));
    }
    let taken = repo.catalog().versions_of(&job.name).map_err(RepoError::from)?;
    match taken.iter().find(|(moment, _)| *moment == created) {
        None => Ok(()),
        Some((_, uid)) => Err(OpsError::refused(format!(
            "{} has a version of {} already: {uid}; delete that first if it is to be taken over again",
            job.name,
            created.to_millis_text()
        ))),
    }
}

fn attributes(repo: &Repository, job: &Backup, session: &Session, bad: &BadSectors) -> Result<Attributes, OpsError> {
    let validity = match job.on_bad {
        _ if bad.is_empty() => Validity::Valid,
        OnBadSectors::Tolerate => Validity::Incomplete(bad.to_string()),
        // Whoever asked for it has a backup that counts; what it lacks stands with it.
        OnBadSectors::Skip => Validity::Invalid(bad.to_string()),
    };
    let snapshot_name = match session.snapshot_name() {
        Some(name) => name.to_owned(),
        None => job.snapshot_name.clone(),
    };
    // What is not complete counts for no schedule.
    let labels = if validity.is_complete() { labels(repo, job)? } else { given(job) };
    Ok(Attributes {
        name: job.name.clone(),
        snapshot_name,
        tags: labels.tags,
        expire: labels.expire,
        protected: false,
        validity,
        file: session.source().attributes(),
    })
}

fn given(job: &Backup) -> Labels {
    Labels { tags: job.tags.clone(), expire: job.expire }
}

/// Decided when all is stored: what is due is due at publication, however long the copy took.
fn labels(repo: &Repository, job: &Backup) -> Result<Labels, OpsError> {
    let (policy, expires) = match &job.automatic {
        Automatic::Nothing => return Ok(given(job)),
        Automatic::Tags(policy) => (policy, false),
        Automatic::Everything(policy) => (policy, true),
    };
    automatic::label_overdue(repo, policy)?;
    let labels = automatic::labels(repo, policy, &job.name)?;
    let expire = if expires { labels.expire } else { job.expire };
    Ok(Labels { tags: job.tags.union(&labels.tags).cloned().collect(), expire })
}

/// Opens the source: at the snapshot of an interrupted backup if that is to go on and still fits, else as it is now. The record
/// that is returned is the one to go on from.
fn open<'a>(
    repo: &Arc<Repository>,
    job: &Backup,
    base: Option<&Base>,
    left: Option<&'a Record>,
    monitor: &dyn Monitor,
) -> Result<(Session, Option<&'a Record>), OpsError> {
    let anew = |why: &str| {
        if job.begin == Begin::Continue {
            monitor.warn(&format!("{why}: everything is read again, and nothing stored twice"));
        }
        Ok((Session::now(repo, &job.source)?, None))
    };
    let Some(left) = left.filter(|_| job.begin == Begin::Continue) else {
        return anew("there is no interrupted backup to go on from");
    };
    if left.base != base.map_or(Uid::NIL, |base| base.uid) {
        return anew("there is a newer version than the interrupted backup began from");
    }
    // What takes snapshots and has not kept that one (thick volumes do not) is something else by now, whatever its time says.
    let session = match left.attributes.snapshot_name.as_str() {
        "" if job.source.volume()?.takes_snapshots() => None,
        "" => Some(Session::now(repo, &job.source)?),
        name => Session::kept(repo, &job.source, name)?,
    };
    let Some(session) = session else { return anew("the snapshot of the interrupted backup is gone or in use") };
    let now = session.source();
    let same = now.size_bytes() == left.image.size_bytes && now.attributes().mtime == left.attributes.file.mtime;
    if same { Ok((session, Some(left))) } else { anew("the source has changed since the interrupted backup") }
}

/// Whether everything is read and looked up in the index.
fn asks_the_index(repo: &Repository, plan: &base::Plan, resumed: Option<&Record>) -> bool {
    unchanged::asks_the_index(repo) && !plan.is_incremental && resumed.is_none()
}

/// The image as it is before anything is read.
fn start_image(
    repo: &Arc<Repository>,
    plan: &base::Plan,
    size_bytes: u64,
    resumed: Option<&Record>,
) -> Result<Arc<DraftImage>, OpsError> {
    let start = resumed.map_or(plan.start, |record| record.image);
    let compared_with = plan.compared_with.filter(|_| !asks_the_index(repo, plan, resumed));
    let image = DraftImage::new(Arc::clone(repo), start, compared_with);
    let whole = size_bytes / repo.block_size().bytes_u64() * repo.block_size().bytes_u64();
    if size_bytes != whole && !plan.last_is_unchanged {
        // The last block is written as far as it goes. What stood there must not be asked for the rest of it.
        image.truncate(whole.min(image.size_bytes()))?;
    }
    image.truncate(size_bytes)?;
    Ok(image)
}

/// Pulls, and keeps how far it got.
struct Work<'a> {
    repo: &'a Repository,
    image: &'a Arc<DraftImage>,
    relative: Option<ImageRef>,
    /// What the run before this could not read.
    earlier_bad: BadSectors,
    saved: Instant,
    unfinished: Unfinished,
}

impl Work<'_> {
    fn pull(&mut self, pull: &Pull<'_>, range: Range<u64>) -> Result<BadSectors, OpsError> {
        let begun = range.start;
        let bad = pull.run(range, &mut |position| {
            if self.saved.elapsed() < SAVE_INTERVAL {
                return Ok(());
            }
            self.saved = Instant::now();
            self.save(position)
        });
        match bad {
            Ok(bad) => Ok(self.with_earlier(&bad)),
            Err(error) => {
                // The first error is the one to tell.
                if error.position.reached > begun
                    && let Err(second) = self.save(&error.position)
                {
                    tracing::warn!("how far it got could not be kept: {second}");
                }
                Err(error.error)
            }
        }
    }

    fn with_earlier(&self, bad: &BadSectors) -> BadSectors {
        BadSectors::new(self.earlier_bad.ranges().iter().chain(bad.ranges()).cloned().collect())
    }

    fn save(&mut self, position: &Position) -> Result<(), OpsError> {
        let settled = self.image.settle()?;
        let bad = self.with_earlier(&position.bad);
        let state = if bad.is_empty() { "go on with --continue".to_owned() } else { bad.to_string() };
        self.unfinished.save(self.repo, &settled, position.reached, &state, self.relative)
    }
}

#[cfg(test)]
#[cfg(feature = "rbd")]
#[path = "backup_rbd_tests.rs"]
mod rbd_tests;
#[cfg(test)]
#[path = "backup_tests.rs"]
mod tests;
