//! Keeping a version readable while somebody reads it: a lease, so that nobody on this host deletes it, and a pin, so that no
//! collection on any host takes its blocks after somebody elsewhere deleted it.
//!
//! Both are a courtesy to the reader. Where neither can be had (a target that is read-only, a state directory that is full) a
//! restore must work all the same.

use crate::catalog::VersionSummary;
use crate::ops::overlays;
use crate::repo::lease::Lease;
use crate::repo::{RepoError, Repository};
use crate::target::TargetError;
use crate::words::clock::ClockExt;
use crate::words::ids::Uid;
use crate::words::record::RecordKind;
use std::sync::Arc;

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
        let uid = repo.clock().uid();
        // The lease comes first: a pin without one is taken for a dead reader's.
        let pin = repo.lease_reading(uid).and_then(|lease| {
            overlays::publish_pin(repo, uid, version)?;
            Ok((uid, lease))
        });
        let pin = pin.inspect_err(|error| {
            if is_denied(error) {
                // Who may only look has nothing to be told.
                tracing::debug!("version {} is read without a pin: {error}", version.uid);
            } else {
                tracing::warn!("version {} is read without a pin: {error}", version.uid);
            }
        });
        Self { repo: Arc::clone(repo), pin: pin.ok() }
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
