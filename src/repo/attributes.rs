//! Changing attributes: small sealed entries, appended; they fold to the same answer on every host.

use crate::catalog::Version;
use crate::format::frame::FrameKind;
use crate::format::{attribute, layout};
use crate::repo::{RepoError, Repository, object_id};
use crate::words::attribute::{AttributeChange, AttributeEntry, Attributes, Validity, apply};
use crate::words::clock::ClockExt;
use crate::words::ids::Uid;
use crate::words::name::Name;
use std::collections::BTreeSet;

impl Repository {
    /// Changes attributes of a version; durable on the target when it returns. Changes that change nothing cost nothing; only that a
    /// version never expires is written down the first time, since schedules would give it an expiry where nobody has spoken of one.
    ///
    /// # Errors
    /// When there is no such version, a new name collides with another, or target or catalog fail.
    pub fn change_attributes(&self, uid: Uid, changes: &[AttributeChange]) -> Result<Attributes, RepoError> {
        let core = &self.core;
        let version = self.version(uid)?;
        let mut now = version.attributes;
        for change in changes {
            let before = now.clone();
            apply(&mut now, change);
            if now == before && (*change != AttributeChange::Expire(None) || self.is_expiry_said(uid)?) {
                continue;
            }
            if let AttributeChange::Name(name) = change {
                self.check_name(name)?;
            }
            let entry = AttributeEntry {
                version: uid,
                entry: core.clock.entry_id(),
                lamport: core.catalog.next_lamport(uid)?,
                host: core.host,
                at: core.clock.now(),
                change: change.clone(),
            };
            let object = object_id(uid.as_bytes(), entry.entry.as_bytes());
            let sealed = core.sealer.seal_object(FrameKind::Attribute, object, &attribute::encode(&entry));
            core.target.put(&layout::attribute(uid, entry.entry), &[&sealed])?;
            core.catalog.add_entry(&entry)?;
        }
        Ok(now)
    }

    /// Whether anybody has spoken of the expiry of a version since it was made.
    fn is_expiry_said(&self, uid: Uid) -> Result<bool, RepoError> {
        let entries = self.core.catalog.entries(uid)?;
        Ok(entries.iter().any(|entry| matches!(entry.change, AttributeChange::Expire(_))))
    }

    /// Sets the tags to exactly these: what is missing is added, what is too much is removed.
    ///
    /// # Errors
    /// As [`Repository::change_attributes`].
    pub fn set_tags(&self, uid: Uid, tags: &BTreeSet<String>) -> Result<(), RepoError> {
        let now = self.version(uid)?.attributes.tags;
        let removed = now.difference(tags).cloned().map(AttributeChange::RemoveTag);
        let added = tags.difference(&now).cloned().map(AttributeChange::AddTag);
        let changes: Vec<_> = removed.chain(added).collect();
        self.change_attributes(uid, &changes).map(drop)
    }

    /// Marks a version as not to be trusted, durably.
    ///
    /// # Errors
    /// As [`Repository::change_attributes`].
    pub fn set_validity(&self, uid: Uid, validity: Validity) -> Result<(), RepoError> {
        self.change_attributes(uid, &[AttributeChange::Validity(validity)]).map(drop)
    }

    /// A confirmed version with its attributes.
    ///
    /// # Errors
    /// When there is none.
    pub fn version(&self, uid: Uid) -> Result<Version, RepoError> {
        self.core.catalog.version(uid)?.ok_or_else(|| RepoError::NoSuchVersion { spec: uid.to_string() })
    }

    /// Checks that a new name does not need a file and a directory in one place. One that has versions stands, whatever other
    /// hosts have made beside it.
    ///
    /// # Errors
    /// [`RepoError::NameCollision`].
    pub fn check_name(&self, name: &Name) -> Result<(), RepoError> {
        if self.core.catalog.name_exists(name)? {
            return Ok(());
        }
        match self.core.catalog.collision(name)? {
            Some(other) => Err(RepoError::NameCollision { name: name.to_string(), other: other.to_string() }),
            None => Ok(()),
        }
    }
}
