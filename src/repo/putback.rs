//! Putting back objects that are missing or damaged on the target, from what this host knows of them; and setting aside what cannot
//! be read. Objects are immutable, so the same said again is the same object.
//!
//! Nothing that is damaged is destroyed: before anything is written over it, its bytes are kept in `aside/`, which nothing reads.

use crate::format::frame::FrameKind;
use crate::format::layout::{self, Object, ObjectKey};
use crate::format::{attribute, condemned, record, removed};
use crate::repo::header::is_about_one;
use crate::repo::lease::Lease;
use crate::repo::{RepoError, Repository, object_id};
use crate::target::TargetError;
use crate::words::attribute::AttributeEntry;
use crate::words::clock::ClockExt;
use crate::words::ids::{BatchId, Uid};
use crate::words::record::{Record, Verdict};

/// Where the copy lies that something is put back from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyPlace {
    /// On the target: its other copy.
    Target,
    /// In the state directory of this host.
    Host,
}

impl CopyPlace {
    /// What is done with it, in words.
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::Target => "it is put back from its other copy",
            Self::Host => "it is put back from the copy of this host",
        }
    }
}

impl Repository {
    /// Copies what stands under a name to `aside/`, and answers where. Nothing there is fine.
    ///
    /// # Errors
    /// When the target fails; then nothing may be written over it.
    pub fn keep_aside(&self, key: &ObjectKey) -> Result<Option<ObjectKey>, RepoError> {
        let bytes = match self.core.target.get(key) {
            Ok(bytes) => bytes,
            Err(TargetError::NotFound { .. }) => return Ok(None),
            Err(error) if is_about_one(&*self.core.target, &error) => {
                tracing::warn!("nothing of it can be kept: {error}");
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        let aside = layout::aside(key, self.core.clock.damage_id());
        self.core.target.put(&aside, &[&bytes])?;
        Ok(Some(aside))
    }

    /// Moves an object to `aside/`, and answers where it is now.
    ///
    /// # Errors
    /// When the target fails. It can be repeated.
    pub fn move_aside(&self, key: &ObjectKey) -> Result<Option<ObjectKey>, RepoError> {
        let aside = self.keep_aside(key)?;
        self.core.target.delete(key)?;
        Ok(aside)
    }

    /// Puts a record back, and its verdict if it was confirmed. A record that somebody withdraws or has deleted stays away.
    ///
    /// While it was away no collector saw it, so what it needs may be condemned by now: all that is left of it is checked after it was
    /// put, as at its publication, before this returns. Its verdict goes before it: a record without looks like one whose writer died,
    /// and a collection on another host would withdraw it for ever. A verdict without a record means nothing. Since a kill must not leave
    /// a confirmed record that lacks what could have been copied, it is checked before that, too; the second check then costs a few requests.
    ///
    /// # Errors
    /// When target or catalog fail, and when it was withdrawn meanwhile. It can be repeated.
    pub fn put_back_record(&self, record: &Record, verdict: Verdict) -> Result<bool, RepoError> {
        let core = &self.core;
        let uid = record.uid;
        if self.is_there(&layout::tombstone(uid))? || self.is_there(&layout::withdrawing(uid))? {
            return Ok(false);
        }
        if verdict == Verdict::Confirmed {
            self.check_what_is_left(&record.image)?;
        }
        let _alive = Lease::take(&self.publishing_dir(), &uid.to_string())?;
        let sealed = core.sealer.seal_object(
            FrameKind::from(record.kind),
            object_id(uid.as_bytes(), &[]),
            &record::encode(record),
        );
        if verdict == Verdict::Confirmed {
            self.put_back_mark(Object::Ok(uid))?;
        }
        core.target.put(&layout::record(record.kind, uid), &[&sealed])?;
        if verdict == Verdict::Confirmed {
            self.check_confirmed(record)?;
        }
        core.catalog.put_record(record, verdict)?;
        Ok(true)
    }

    /// Confirms a record that was confirmed once and is there, after a check of all that is left of it.
    ///
    /// # Errors
    /// When target or catalog fail, and when it was withdrawn meanwhile. It can be repeated.
    pub fn confirm_again(&self, record: &Record) -> Result<(), RepoError> {
        self.check_what_is_left(&record.image)?;
        self.put_back_mark(Object::Ok(record.uid))?;
        self.check_confirmed(record)
    }

    /// Blocks that no pack holds any more do not keep the rest from being read: what is lost is for the repair to list.
    fn check_confirmed(&self, record: &Record) -> Result<(), RepoError> {
        let lost = self.check_what_is_left(&record.image)?;
        if lost > 0 {
            tracing::warn!("record {} is put back although {lost} of its blocks cannot be read", record.uid);
        }
        if self.is_there(&layout::withdrawing(record.uid))? {
            return Err(RepoError::Withdrawn { uid: record.uid });
        }
        Ok(())
    }

    /// Puts back an object that says all by being there: `ok`, `withdrawing`, a tombstone.
    ///
    /// # Errors
    /// When the target fails. It can be repeated.
    pub fn put_back_mark(&self, object: Object) -> Result<(), RepoError> {
        let (kind, uid): (FrameKind, Uid) = match object {
            Object::Ok(uid) => (FrameKind::Ok, uid),
            Object::Withdrawing(uid) => (FrameKind::Withdrawing, uid),
            Object::Tombstone(uid) => (FrameKind::Tombstone, uid),
            _ => return Ok(()),
        };
        // What is left of a version, for statistics, as far as this host knows it.
        let left = match object {
            Object::Tombstone(_) => {
                let known =
                    self.core.catalog.removed().inspect_err(|error| tracing::warn!("statistics are left out: {error}"));
                known.unwrap_or_default().into_iter().find(|left| left.record.uid == uid)
            }
            _ => None,
        };
        let plain = left.as_ref().map(removed::encode).unwrap_or_default();
        let sealed = self.core.sealer.seal_object(kind, object_id(uid.as_bytes(), &[]), &plain);
        Ok(self.core.target.put(&object.key(), &[&sealed])?)
    }

    /// Puts an attribute entry back.
    ///
    /// # Errors
    /// When the target fails. It can be repeated.
    pub fn put_back_entry(&self, entry: &AttributeEntry) -> Result<(), RepoError> {
        let object = object_id(entry.version.as_bytes(), entry.entry.as_bytes());
        let sealed = self.core.sealer.seal_object(FrameKind::Attribute, object, &attribute::encode(entry));
        Ok(self.core.target.put(&layout::attribute(entry.version, entry.entry), &[&sealed])?)
    }

    /// Puts a batch of condemned packs back. Which packs stood in it is not known any more, so it names all that are condemned: the
    /// lists add up, and each of them is dead for ever anyway.
    ///
    /// # Errors
    /// When target or catalog fail. It can be repeated.
    pub fn put_back_batch(&self, batch: BatchId) -> Result<(), RepoError> {
        let packs: Vec<_> = self.core.catalog.condemned_packs()?.into_iter().collect();
        let object = object_id(batch.as_bytes(), &[]);
        let sealed = self.core.sealer.seal_object(FrameKind::Condemned, object, &condemned::encode(&packs));
        Ok(self.core.target.put(&layout::condemned(batch), &[&sealed])?)
    }

    /// Puts back one of the two copies of the header, a key slot or a key ring; says whether there is another, here or there.
    ///
    /// # Errors
    /// When the target fails. It can be repeated.
    pub fn put_back_kept(&self, object: Object) -> Result<bool, RepoError> {
        let Some((bytes, _)) = self.kept_copy(object) else { return Ok(false) };
        match object {
            Object::Slot(_) | Object::SpareSlot(_) => self.put_twin_of_slot(object, &bytes)?,
            _ => self.core.target.put(&object.key(), &[&bytes])?,
        }
        Ok(true)
    }

    /// A good copy of the header, a key slot or a key ring: the other one on the target, or the one that this host keeps, which has none
    /// of slots.
    pub fn kept_copy(&self, object: Object) -> Option<(Vec<u8>, CopyPlace)> {
        let twin = object.twin()?;
        let is_good = |bytes: &Vec<u8>| self.is_whole(object, bytes);
        if let Some(bytes) = self.core.target.get(&twin.key()).ok().filter(is_good) {
            return Some((bytes, CopyPlace::Target));
        }
        let first = if matches!(object, Object::SpareHeader | Object::SpareRing(_)) { twin } else { object };
        let here = crate::repo::keep::read(&self.state_dir, &first.key()).filter(is_good);
        here.map(|bytes| (bytes, CopyPlace::Host))
    }

    fn is_there(&self, key: &ObjectKey) -> Result<bool, RepoError> {
        match self.core.target.get(key) {
            Ok(_) => Ok(true),
            Err(TargetError::NotFound { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}
