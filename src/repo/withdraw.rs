//! The finder: who meets a record that was never confirmed, and whose writer is gone (GC rule 5).

use crate::format::frame::FrameKind;
use crate::format::layout;
use crate::repo::lease::Lease;
use crate::repo::{RepoError, Repository, object_id};
use crate::target::TargetError;
use crate::words::ids::Uid;
use crate::words::record::{Record, Verdict};

/// What became of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Nobody was ever told that it is safe, and nobody will be: it is gone.
    Withdrawn,
    /// Its writer was faster: it is confirmed, and everything in it is there.
    Confirmed,
}

impl Repository {
    /// Whether a process of this host is publishing a record at this moment.
    ///
    /// # Errors
    /// When the state directory fails.
    pub fn is_being_published(&self, uid: Uid) -> Result<bool, RepoError> {
        Lease::is_held(&self.publishing_dir(), &uid.to_string())
    }

    /// Withdraws an unconfirmed record, unless its writer confirms it first. Safe whether or not the writer is really gone: the
    /// writer writes `ok` and then looks for `withdrawing`, this writes `withdrawing` and then looks for `ok`, so never does a
    /// writer succeed whose record was deleted. Should `ok` turn up, the version must be whole, hence the check before.
    ///
    /// The tombstone comes when it is certain that the writer will see `withdrawing`: with it, writes of record and `ok` that
    /// were delayed on their way mean nothing.
    ///
    /// # Errors
    /// When target or catalog fail. It can be repeated.
    pub fn withdraw(&self, record: &Record) -> Result<Found, RepoError> {
        let (core, uid) = (&self.core, record.uid);
        match self.check_image(&record.image, &[]) {
            // What is lost cannot be confirmed.
            Ok(_) | Err(RepoError::Damaged { .. } | RepoError::Format { .. } | RepoError::Seal { .. }) => {}
            Err(error) => return Err(error),
        }
        let withdrawing = core.sealer.seal_object(FrameKind::Withdrawing, object_id(uid.as_bytes(), &[]), &[]);
        core.target.put(&layout::withdrawing(uid), &[&withdrawing])?;
        match core.target.get(&layout::ok(uid)) {
            Ok(_) => {
                core.catalog.set_verdict(uid, Verdict::Confirmed)?;
                return Ok(Found::Confirmed);
            }
            Err(TargetError::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        core.put_tombstone(uid)?;
        core.catalog.add_tombstone(uid)?;
        core.delete_record(record.kind, uid)?;
        core.catalog.remove_record(uid)?;
        Ok(Found::Withdrawn)
    }
}
