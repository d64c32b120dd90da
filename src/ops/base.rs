//! The version a backup is compared with, and whether who knows the changes may be believed.

use crate::image::ImageReader;
use crate::ops::snapshots::Session;
use crate::ops::walk::{Found, walk};
use crate::ops::{OpsError, sample};
use crate::repo::{RepoError, Repository};
use crate::source::bad_sectors::{BadSectors, DAMAGE};
use crate::source::changes::Changes;
use crate::source::hinted::Hinted;
use crate::source::{Source, SourceError, hints};
use crate::words::attribute::Validity;
use crate::words::ids::{BlockId, Uid};
use crate::words::monitor::Monitor;
use crate::words::name::Name;
use crate::words::record::{ImageRef, Record};
use std::collections::HashSet;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Who knows what has changed since the base.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangesFrom {
    /// The source, if it can tell.
    Source,
    /// A file of hints; `-` is standard input.
    Hints(PathBuf),
    /// Nobody: everything is read.
    Nobody,
}

/// See the module.
#[derive(Debug, Clone)]
pub struct Base {
    /// Which version.
    pub uid: Uid,
    /// Its image.
    pub image: ImageRef,
    /// The snapshot it was made from, if it was.
    pub snapshot_name: String,
    /// How far it is the source: all of a version, the beginning of an unfinished copy.
    pub reached: u64,
    validity: Validity,
}

/// What of a base is not to be believed.
enum Distrust {
    /// These parts, which may be none.
    Parts(Vec<Range<u64>>),
    /// All of it, because nobody knows which part.
    All(String),
}

/// How a backup is made.
pub struct Plan {
    /// What is read, with everything that is known of what changed.
    pub source: Arc<dyn Source>,
    /// The image it begins from.
    pub start: ImageRef,
    /// The image whose blocks it probably equals.
    pub compared_with: Option<ImageRef>,
    /// Whether the last block is the base's.
    pub last_is_unchanged: bool,
    /// Whether only what changed is read.
    pub is_incremental: bool,
}

impl Base {
    /// The version named, else the newest of the name.
    ///
    /// # Errors
    /// When the catalog fails.
    pub fn find(repo: &Repository, name: &Name, from: Option<Uid>) -> Result<Option<Self>, OpsError> {
        let uid = match from {
            Some(uid) => Some(uid),
            None => repo.catalog().newest(name).map_err(RepoError::from)?,
        };
        let Some(uid) = uid else { return Ok(None) };
        let version = repo.version(uid)?;
        Ok(Some(Self {
            uid,
            image: version.record.image,
            reached: version.record.image.size_bytes,
            snapshot_name: version.attributes.snapshot_name,
            validity: version.attributes.validity,
        }))
    }

    /// An unfinished copy of a snapshot, as far as it got.
    pub fn of_draft(draft: &Record) -> Option<Self> {
        let broken = draft.broken.as_ref()?;
        let reached = broken.at;
        let snapshot_name = draft.attributes.snapshot_name.clone();
        // A command that was interrupted has noted there which sectors it could not read.
        let validity =
            BadSectors::find(&broken.reason).map_or(Validity::Valid, |bad| Validity::Incomplete(bad.to_string()));
        (!snapshot_name.is_empty()).then_some(Self {
            uid: draft.uid,
            image: draft.image,
            snapshot_name,
            reached,
            validity,
        })
    }

    /// What of it must be read again whatever the changes say: blocks that are damaged on the target, sectors that could not be
    /// read when it was made.
    fn distrust(&self, repo: &Repository) -> Result<Distrust, OpsError> {
        let mut parts = match (&self.validity, BadSectors::parse(self.validity.reason())) {
            (_, Some(bad)) => bad.ranges().to_vec(),
            (Validity::Incomplete(reason), None) => return Ok(Distrust::All(format!("it is incomplete ({reason})"))),
            (Validity::Valid | Validity::Invalid(_), None) => Vec::new(),
        };
        let damaged: HashSet<BlockId> =
            repo.catalog().damaged().map_err(RepoError::from)?.into_iter().map(|(id, _)| id).collect();
        // Damage that was found elsewhere may not be known here by its blocks.
        let tells_damage = self.validity.reason().contains(DAMAGE);
        let is_invalid = tells_damage || (matches!(self.validity, Validity::Invalid(_)) && parts.is_empty());
        if damaged.is_empty() && is_invalid {
            return Ok(Distrust::All("it is invalid, and which blocks of it are bad is not known here".into()));
        }
        if damaged.is_empty() {
            return Ok(Distrust::Parts(parts));
        }
        let block = self.image.block_size.bytes_u64();
        let known = parts.len();
        let mut lost = None;
        walk(repo, &self.image, &mut |found| -> Result<(), OpsError> {
            match found {
                Found::Block { index, id } if damaged.contains(&id) => parts.push(index * block..(index + 1) * block),
                Found::Block { .. } => {}
                Found::Lost { error, .. } => lost = Some(error),
            }
            Ok(())
        })?;
        match lost {
            Some(error) => Ok(Distrust::All(format!("its map is damaged ({error})"))),
            None if is_invalid && parts.len() == known => {
                Ok(Distrust::All("it is invalid, and which blocks of it are bad is not known here".into()))
            }
            None => Ok(Distrust::Parts(parts)),
        }
    }
}

/// Decides how to back up what was opened, and compares a sample of what is said to be unchanged.
///
/// # Errors
/// When hints cannot be read or are for something else, or the sample differs.
pub fn plan(
    session: &Session,
    base: Option<&Base>,
    changes: &ChangesFrom,
    monitor: &dyn Monitor,
    repo: &Arc<Repository>,
) -> Result<Plan, OpsError> {
    let source = Arc::clone(session.source());
    let known = match (changes, base) {
        (ChangesFrom::Hints(path), _) => Some(read_hints(path, source.size_bytes())?),
        (ChangesFrom::Source, Some(base)) => session.changes_since(&base.snapshot_name)?,
        _ => None,
    };
    let everything = |source: Arc<dyn Source>| Plan {
        source,
        start: ImageRef::empty(repo.block_size()),
        compared_with: base.map(|base| base.image),
        last_is_unchanged: false,
        is_incremental: false,
    };
    let read_all = |why: &str| {
        monitor.warn(&format!("everything is read: {why}"));
        // Whoever tells changes is overruled.
        Ok(everything(Arc::clone(&source)))
    };
    let Some(changes) = known else {
        return match (changes, base) {
            // A source that could have told: who waits for hours wants to know why.
            (ChangesFrom::Source, Some(Base { snapshot_name: name, .. }))
                if session.snapshot_name().is_some() && !name.is_empty() =>
            {
                read_all(&format!("what has changed since snapshot {name} cannot be told"))
            }
            _ => Ok(everything(source)),
        };
    };
    let Some(base) = base else { return read_all("there is no version yet that the changes could be relative to") };
    if base.image.block_size != repo.block_size() {
        return read_all("the base has blocks of another size");
    }
    let distrusted = match base.distrust(repo)? {
        Distrust::Parts(parts) => parts,
        Distrust::All(why) => return read_all(&format!("version {} cannot be relied on: {why}", base.uid)),
    };
    let whole = 0..source.size_bytes();
    incremental(source, base, &changes, distrusted, whole, repo)
}

/// How a part of a source is copied of which an unfinished copy has an earlier state; `None` when what has changed since then
/// cannot be told.
///
/// # Errors
/// As [`plan`].
pub fn plan_known(
    session: &Session,
    base: &Base,
    range: Range<u64>,
    repo: &Arc<Repository>,
) -> Result<Option<Plan>, OpsError> {
    if range.is_empty() || base.image.block_size != repo.block_size() {
        return Ok(None);
    }
    let Some(changes) = session.changes_since(&base.snapshot_name)? else { return Ok(None) };
    let Distrust::Parts(parts) = base.distrust(repo)? else { return Ok(None) };
    match incremental(Arc::clone(session.source()), base, &changes, parts, range, repo) {
        // Nobody has to remove it before a copy succeeds.
        Err(OpsError::Differs { offset, .. }) => {
            repo.monitor().warn(&format!(
                "{} is not what an unfinished copy has of it at offset {offset}: all of it is copied again",
                session.source().describe()
            ));
            Ok(None)
        }
        plan => plan.map(Some),
    }
}

fn incremental(
    source: Arc<dyn Source>,
    base: &Base,
    changes: &Changes,
    distrusted: Vec<Range<u64>>,
    range: Range<u64>,
    repo: &Arc<Repository>,
) -> Result<Plan, OpsError> {
    let source: Arc<dyn Source> = Arc::new(Hinted::new(source, changes, base.image.size_bytes, distrusted));
    let unchanged = sample::unchanged_runs(repo, &*source, range)?;
    let reader = ImageReader::new(Arc::clone(repo), base.image, format!("version {}", base.uid));
    sample::check(repo, &*source, &reader, base.uid, &unchanged)?;
    let last_is_unchanged = unchanged.last().is_some_and(|run| run.end == source.size_bytes());
    let compared_with = Some(base.image);
    Ok(Plan { source, start: base.image, compared_with, last_is_unchanged, is_incremental: true })
}

fn read_hints(path: &Path, size_bytes: u64) -> Result<Changes, SourceError> {
    let file = path.display().to_string();
    if path.as_os_str() == "-" {
        return hints::read(std::io::stdin().lock(), "standard input", size_bytes);
    }
    let opened = std::fs::File::open(path);
    let opened = opened.map_err(|error| SourceError::Hints { file: file.clone(), problem: error.to_string() })?;
    hints::read(opened, &file, size_bytes)
}
