//! Snapshots of sources: taken for a backup, kept as the base of the next one, removed when nobody needs them.
//!
//! Before a snapshot is taken a note of it is durable in the state directory; whoever works with it holds a lock on its note. So
//! whatever a crash left is found by its note, and a note that nobody has locked is decided by one rule: **a snapshot stays while
//! the newest version of a name, or an unfinished backup, was made from it** (its name stands in their `snapshot_name`). The
//! rule needs no step after publication: a crash between any two leaves what the next run puts right. Snapshots without a note
//! of ours or a version of ours are somebody else's and are never touched.

use crate::ops::OpsError;
use crate::repo::{RepoError, Repository};
use crate::source::changes::Changes;
use crate::source::volume::{Moment, SNAPSHOT_MARK, is_ours};
use crate::source::{Recipe, Source, SourceError};
use crate::words::clock::ClockExt;
use nix::fcntl::{Flock, FlockArg};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where the notes are, below the state directory.
const DIRECTORY: &str = "snapshots";
const SUFFIX: &str = ".json";

/// What stands in a note.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    of: Recipe,
    snapshot: String,
    /// Who wrote it; notes of the first versions do not say.
    #[serde(default)]
    host: Option<String>,
}

/// A source opened for a backup. When the last owner drops it, what nobody needs any more is removed.
pub struct Session {
    repo: Arc<Repository>,
    recipe: Recipe,
    source: Option<Arc<dyn Source>>,
    /// Snapshots it was compared with, which may have been taken by other hosts.
    since: Mutex<Vec<String>>,
    note: Option<Flock<File>>,
}

impl Session {
    /// Opens a source as it is now.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn now(repo: &Arc<Repository>, recipe: &Recipe) -> Result<Self, OpsError> {
        let volume = recipe.volume()?;
        let name = format!("{}{SNAPSHOT_MARK}{}", volume.snapshot_prefix(), repo.clock().uuid());
        let note = if volume.takes_snapshots() { Some(write_note(repo, recipe, &name)?) } else { None };
        Self::open(repo, recipe, Moment::Now { name: &name }, note)
    }

    /// Opens a source again as it was at a snapshot that an unfinished backup kept. `None` when there is no such snapshot, or
    /// somebody works with it.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn kept(repo: &Arc<Repository>, recipe: &Recipe, name: &str) -> Result<Option<Self>, OpsError> {
        let path = directory(repo).join(format!("{name}{SUFFIX}"));
        let Some(note) = lock(&path).map_err(|error| state(&path, error))? else { return Ok(None) };
        match Self::open(repo, recipe, Moment::Kept { name }, Some(note)) {
            Err(OpsError::Source(SourceError::Open { source, .. })) if source.kind() == io::ErrorKind::NotFound => {
                Ok(None)
            }
            opened => opened.map(Some),
        }
    }

    /// One of a source that is no volume.
    #[cfg(test)]
    pub fn of(repo: &Arc<Repository>, source: Arc<dyn Source>) -> Self {
        let recipe = Recipe::File { path: PathBuf::new() };
        Self { repo: Arc::clone(repo), recipe, source: Some(source), since: Mutex::default(), note: None }
    }

    fn open(
        repo: &Arc<Repository>,
        recipe: &Recipe,
        moment: Moment<'_>,
        note: Option<Flock<File>>,
    ) -> Result<Self, OpsError> {
        // Made first, so that its drop removes the snapshot when opening fails half way.
        let mut session =
            Self { repo: Arc::clone(repo), recipe: recipe.clone(), source: None, since: Mutex::default(), note };
        session.source = Some(recipe.volume()?.open(moment)?);
        Ok(session)
    }

    /// What was opened.
    pub fn source(&self) -> &Arc<dyn Source> {
        self.source.as_ref().expect("a session that was handed out has a source until it is dropped")
    }

    /// What is different from a snapshot of ours; `None` when that cannot be told. When the session ends and nobody needs that
    /// snapshot any more, it is removed.
    ///
    /// # Errors
    /// When whoever knows fails.
    pub fn changes_since(&self, snapshot: &str) -> Result<Option<Changes>, OpsError> {
        // Only a name that cannot be given twice says that it is the snapshot meant.
        if !is_ours(snapshot) {
            return Ok(None);
        }
        let changes = self.source().changes_since(snapshot)?;
        if changes.is_some() {
            self.since.lock().push(snapshot.to_owned());
        }
        Ok(changes)
    }

    /// The snapshot's name, to stand in the version made from it.
    pub fn snapshot_name(&self) -> Option<&str> {
        self.source().snapshot_name()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // The source closes what it has open first: a snapshot in use cannot be removed.
        self.source = None;
        let Some(note) = self.note.take() else { return };
        drop(note);
        tidy(&self.repo);
        for since in self.since.get_mut() {
            if let Err(error) = remove_unneeded(&self.repo, &self.recipe, since) {
                tracing::warn!("snapshot {since} stays for now: {error}");
            }
        }
    }
}

/// Removes what crashes and earlier backups left and nobody needs. What cannot be removed now is tried again next time.
pub fn tidy(repo: &Repository) {
    let directory = directory(repo);
    let entries = match std::fs::read_dir(&directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return,
        Err(error) => return tracing::warn!("{}: {error}", directory.display()),
    };
    for path in entries.flatten().map(|entry| entry.path()) {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if !name.strip_suffix(SUFFIX).is_some_and(is_ours) {
            continue;
        }
        if let Err(error) = tidy_one(repo, &path) {
            tracing::warn!("what {} tells of stays for now: {error}", path.display());
        }
    }
}

fn tidy_one(repo: &Repository, path: &Path) -> Result<(), OpsError> {
    let Some(_lock) = lock(path).map_err(|error| state(path, error))? else { return Ok(()) };
    let text = std::fs::read(path).map_err(|error| state(path, error))?;
    let Note { of, snapshot, host } = serde_json::from_slice(&text).map_err(|error| state(path, error.into()))?;
    // A copy of another host's state directory has its notes too; that host may be reading the snapshot, and has the note as well.
    let is_foreign = host.is_some_and(|host| host != repo.host().to_string());
    if is_foreign {
        tracing::info!(
            "snapshot {snapshot} of {of:?} belongs to the host whose state directory was copied, and is left to it"
        );
    }
    if is_foreign || remove_unneeded(repo, &of, &snapshot)? {
        std::fs::remove_file(path).map_err(|error| state(path, error))?;
    }
    Ok(())
}

/// Removes a snapshot unless the rule keeps it; says whether it is gone.
fn remove_unneeded(repo: &Repository, recipe: &Recipe, snapshot: &str) -> Result<bool, OpsError> {
    // Another host may have published from it meanwhile.
    repo.refresh()?;
    if is_needed(repo, snapshot)? {
        return Ok(false);
    }
    recipe.volume()?.remove_snapshot(snapshot)?;
    Ok(true)
}

/// The rule.
fn is_needed(repo: &Repository, snapshot: &str) -> Result<bool, OpsError> {
    let catalog = repo.catalog();
    if catalog.drafts().map_err(RepoError::from)?.iter().any(|draft| draft.attributes.snapshot_name == snapshot) {
        return Ok(true);
    }
    for name in catalog.names().map_err(RepoError::from)? {
        let Some(uid) = catalog.newest(&name).map_err(RepoError::from)? else { continue };
        let newest = catalog.version(uid).map_err(RepoError::from)?;
        if newest.is_some_and(|version| version.attributes.snapshot_name == snapshot) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn directory(repo: &Repository) -> PathBuf {
    repo.state_dir().join(DIRECTORY)
}

fn state(path: &Path, source: io::Error) -> OpsError {
    RepoError::State { path: path.display().to_string(), source: Arc::new(source) }.into()
}

/// Locks a note; `None` when there is none, or somebody works with its snapshot.
fn lock(path: &Path) -> io::Result<Option<Flock<File>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        // It may have been removed between the opening and the lock.
        Ok(lock) => Ok(path.exists().then_some(lock)),
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, errno)) => Err(errno.into()),
    }
}

/// Writes a note durably and locked: it gets its name only then, so nobody finds it unlocked while its snapshot is being taken.
fn write_note(repo: &Repository, recipe: &Recipe, name: &str) -> Result<Flock<File>, OpsError> {
    let directory = directory(repo);
    let path = directory.join(format!("{name}{SUFFIX}"));
    let host = Some(repo.host().to_string());
    let note = Note { of: recipe.clone(), snapshot: name.to_owned(), host };
    let write = || {
        std::fs::create_dir_all(&directory)?;
        let hidden = directory.join(format!(".{name}{SUFFIX}"));
        let file = File::options().write(true).create_new(true).open(&hidden)?;
        let mut file =
            Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| io::Error::from(errno))?;
        file.write_all(&serde_json::to_vec(&note)?)?;
        file.sync_all()?;
        std::fs::rename(&hidden, &path)?;
        File::open(&directory)?.sync_all()?;
        Ok(file)
    };
    write().map_err(|error| state(&path, error))
}
