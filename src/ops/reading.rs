//! Keeping a version readable while somebody reads it, or makes another from it: a lease, so that nobody on this host deletes it, and a pin, so that no
//! collection on any host takes its blocks after somebody elsewhere deleted it.
//!
//! Both are a courtesy to the reader. Where neither can be had (a target that is read-only, a state directory that is full) a
//! restore must work all the same.

use crate::catalog::VersionSummary;
use crate::ops::overlays::{self, Pinned};
use crate::repo::lease::Lease;
use crate::repo::{RepoError, Repository};
use crate::target::TargetError;
use crate::words::clock::ClockExt;
use crate::words::ids::Uid;
use crate::words::record::RecordKind;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

/// Work that ends sooner needs no pin: nothing is deleted and collected in that time but by who insists on it.
pub const PIN_AFTER: Duration = Duration::from_secs(2);

/// Says on this host that a version is being read.
///
/// # Errors
/// [`RepoError::InUse`] when it is being deleted at this moment.
pub fn lease(repo: &Repository, version: Uid) -> Result<Option<Lease>, RepoError> {
    match repo.lease_reading(version) {
        Err(error @ RepoError::InUse { .. }) => Err(error),
        lease => {
            Ok(lease.inspect_err(|error| tracing::warn!("version {version} is read without a lease: {error}")).ok())
        }
    }
}

/// A pin that goes when it is dropped, or, should the process die, at the next mount or collection of this host.
pub struct ReadingPin {
    repo: Arc<Repository>,
    pin: Option<(Uid, Lease)>,
}

impl ReadingPin {
    /// Pins a version, if that is possible.
    pub fn new(repo: &Arc<Repository>, version: &VersionSummary) -> Self {
        Self::of(repo, &Pinned::from(version))
    }

    /// Pins an image, if that is possible.
    pub fn of(repo: &Arc<Repository>, what: &Pinned) -> Self {
        let uid = repo.clock().uid();
        // The lease comes first: a pin without one is taken for a dead reader's.
        let pin = repo.lease_reading(uid).and_then(|lease| {
            overlays::publish_pin(repo, uid, what)?;
            Ok((uid, lease))
        });
        let pin = pin.inspect_err(|error| {
            let version = what.version;
            if is_denied(error) {
                // Who may only look has nothing to be told.
                tracing::debug!("version {version} is in use without a pin: {error}");
            } else {
                tracing::warn!("version {version} is in use without a pin: {error}");
            }
        });
        Self { repo: Arc::clone(repo), pin: pin.ok() }
    }
}

impl ReadingPin {
    /// Leaves the pin where it is, for the next mount or collection of this host to remove: of a target that does not answer nothing more is asked.
    pub fn leave(mut self) {
        self.pin = None;
    }
}

fn is_denied(error: &RepoError) -> bool {
    matches!(error, RepoError::Target(error) if matches!(**error, TargetError::Denied { .. }))
}

impl Drop for ReadingPin {
    fn drop(&mut self) {
        let Some((uid, _lease)) = self.pin.take() else { return };
        if let Err(error) = self.repo.remove_record(RecordKind::Pin, uid) {
            tracing::warn!("a pin stays until the next mount or collection: {error}");
        }
    }
}

/// A pin for work that may end in a moment: it is published when that did not happen. Nobody waits for it.
pub struct LatePin {
    /// Closed when the work ends.
    work: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl LatePin {
    /// Of work that began now.
    pub fn new(repo: &Arc<Repository>, what: Pinned) -> Self {
        let (work, ended) = mpsc::channel::<()>();
        let repo = Arc::clone(repo);
        let run = move || {
            if ended.recv_timeout(PIN_AFTER) == Err(RecvTimeoutError::Timeout) {
                let _pin = ReadingPin::of(&repo, &what);
                let _ = ended.recv();
            }
        };
        let thread = std::thread::Builder::new().name("late-pin".into()).spawn(run);
        let thread = thread.inspect_err(|error| tracing::warn!("a base is not pinned: {error}")).ok();
        Self { work: Some(work), thread }
    }
}

impl Drop for LatePin {
    fn drop(&mut self) {
        self.work = None;
        // The pin is gone before the process may end.
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
