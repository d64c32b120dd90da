//! Removing records. Space comes back with a collection, never here.

use crate::catalog::Version;
use crate::format::frame::FrameKind;
use crate::format::{self, layout};
use crate::repo::{Core, RepoError, Repository, object_id};
use crate::target::TargetError;
use crate::words::ids::Uid;
use crate::words::record::{Record, RecordKind, Removed, Why};

impl Repository {
    /// Deletes a version: a tombstone first, so that a record that arrives late stays dead, then the record. What allows a
    /// deletion (age, protection, use) is decided above; this is the deed.
    ///
    /// # Errors
    /// When there is no such version, or target or catalog fail. It can be repeated.
    pub fn remove_version(&self, uid: Uid) -> Result<(), RepoError> {
        self.remove_version_because(uid, Why::Asked)
    }

    /// As [`Repository::remove_version`], for another reason. The tombstone keeps what statistics need: it stays for ever anyway, and
    /// is written at the moment when the version's record goes.
    ///
    /// # Errors
    /// As [`Repository::remove_version`].
    pub fn remove_version_because(&self, uid: Uid, why: Why) -> Result<(), RepoError> {
        let core = &self.core;
        let Version { record, attributes, .. } = self.version(uid)?;
        let removed = Removed { why, at: core.clock.now(), by: core.host, record: Record { attributes, ..record } };
        let object = object_id(uid.as_bytes(), &[]);
        let tombstone = core.sealer.seal_object(FrameKind::Tombstone, object, &format::removed::encode(&removed));
        core.target.put(&layout::tombstone(uid), &[&tombstone])?;
        core.catalog.add_removed(&removed)?;
        core.delete_record(RecordKind::Version, uid)?;
        core.catalog.remove_record(uid)?;
        Ok(())
    }

    /// Removes a draft record or a pin that is not needed any more. No tombstone: should a delayed copy of it arrive, it is
    /// superseded all the same.
    ///
    /// # Errors
    /// When target or catalog fail. It can be repeated.
    pub fn remove_record(&self, kind: RecordKind, uid: Uid) -> Result<(), RepoError> {
        self.core.delete_record(kind, uid)?;
        self.core.catalog.remove_record(uid)?;
        Ok(())
    }
}

impl Core {
    /// Marks a record as removed for ever, whatever of it arrives later.
    pub(crate) fn put_tombstone(&self, uid: Uid) -> Result<(), RepoError> {
        let tombstone = self.sealer.seal_object(FrameKind::Tombstone, object_id(uid.as_bytes(), &[]), &[]);
        Ok(self.target.put(&layout::tombstone(uid), &[&tombstone])?)
    }

    /// Deletes a record's objects: the record, its verdict, its attribute entries. The record goes first: without it the
    /// others mean nothing.
    pub(crate) fn delete_record(&self, kind: RecordKind, uid: Uid) -> Result<(), RepoError> {
        self.target.delete(&layout::record(kind, uid))?;
        self.target.delete(&layout::ok(uid))?;
        if kind == RecordKind::Version {
            for entry in self.catalog.entries(uid)? {
                self.target.delete(&layout::attribute(uid, entry.entry))?;
            }
        }
        Ok(())
    }

    /// As [`Core::delete_record`], for a record that means nothing any more and that whoever comes by clears away. Who may not delete
    /// leaves it to others: to look, and to restore, it takes no more than reading.
    ///
    /// # Errors
    /// When the target cannot be reached.
    pub(super) fn clear_record(&self, kind: RecordKind, uid: Uid) -> Result<(), RepoError> {
        match self.delete_record(kind, uid) {
            Err(RepoError::Target(error)) if matches!(*error, TargetError::Denied { .. }) => {
                tracing::debug!("a record that is not needed stays: {error}");
                Ok(())
            }
            cleared => cleared,
        }
    }
}
