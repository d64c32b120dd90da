//! Key versions: making one, and learning of one.
//!
//! A key ring is never deleted, not even when nothing is sealed under it any more: docs/decisions/0014-key-rings-stay.md says why.

use crate::format::frame::FrameKind;
use crate::format::layout::{self, Object};
use crate::repo::header::may_be_lost;
use crate::repo::learn::Learner;
use crate::repo::{Core, RepoError, Repository};
use crate::seal::{KeyError, SealError, keys};
use crate::target::{ObjectInfo, Put};
use crate::words::ids::KeyVersion;
use std::collections::BTreeSet;

impl Core {
    /// Learns key versions that somebody made since this repository was opened; says whether there were any.
    pub(super) fn learn_rings(&self) -> Result<bool, RepoError> {
        self.learn_rings_of(&self.target.list(layout::KEYS)?)
    }

    /// As [`Self::learn_rings`], of a version that something is sealed under: should its ring be lost, the second copy serves.
    pub(super) fn learn_ring_in_use(&self) -> bool {
        self.learn_rings().unwrap_or(false) || self.learn_spare_rings().unwrap_or(false)
    }

    fn learn_spare_rings(&self) -> Result<bool, RepoError> {
        if !self.header.has_spares() {
            return Ok(false);
        }
        self.learn_rings_of(&self.target.list(layout::SPARE)?)
    }

    /// What lies in `keys/` and, where there are second copies, of those.
    pub(super) fn list_keys(&self) -> Result<Vec<ObjectInfo>, RepoError> {
        let mut listed = self.target.list(layout::KEYS)?;
        if self.header.has_spares() {
            listed.extend(self.target.list(layout::SPARE)?);
        }
        Ok(listed)
    }

    /// As [`Self::learn_rings`], from a list of what lies beside the rings.
    fn learn_rings_of(&self, listed: &[ObjectInfo]) -> Result<bool, RepoError> {
        let known: BTreeSet<KeyVersion> = self.sealer.keyring().versions().collect();
        let listed = versions_in(listed);
        if listed.is_subset(&known) {
            return Ok(false);
        }
        let mut rings = Vec::new();
        for version in listed {
            match self.target.get(&layout::ring(version)) {
                Ok(ring) if self.sealer.with_rings(std::slice::from_ref(&ring)).is_ok() => rings.push(ring),
                Err(error) if !may_be_lost(&*self.target, &error) => return Err(error.into()),
                first => {
                    let second = self.target.get(&Object::SpareRing(version).key());
                    rings.push(second.or(first)?);
                }
            }
        }
        self.sealer.adopt(&self.sealer.with_rings(&rings)?);
        Ok(self.sealer.keyring().versions().any(|version| !known.contains(&version)))
    }

    /// Opens an object; one of a key version that is not known yet makes it known.
    pub(super) fn open_object(&self, kind: FrameKind, id: [u8; 32], bytes: &[u8]) -> Result<Vec<u8>, SealError> {
        match self.sealer.open_object(kind, id, bytes) {
            Err(SealError::UnknownKey { .. }) if self.learn_ring_in_use() => self.sealer.open_object(kind, id, bytes),
            opened => opened,
        }
    }
}

/// The key versions of which there is a ring, whole or not.
fn versions_in(listed: &[ObjectInfo]) -> BTreeSet<KeyVersion> {
    let version = |info: &ObjectInfo| match layout::parse(&info.key)? {
        Object::Ring(version) | Object::SpareRing(version) => Some(version),
        _ => None,
    };
    listed.iter().filter_map(version).collect()
}

impl Learner<'_> {
    /// Learns key versions that are new.
    pub(super) fn rings(&mut self) -> Result<(), RepoError> {
        let listed = self.listed(layout::KEYS, "")?;
        self.core.learn_rings_of(&listed).map(drop)
    }
}

impl Repository {
    /// Makes a new key version: from now on everything new is sealed under it, here at once, on other hosts when they next publish
    /// or look. What is stored stays as it is.
    ///
    /// # Errors
    /// When the target fails.
    pub fn rekey(&self) -> Result<KeyVersion, RepoError> {
        let core = &self.core;
        loop {
            let listed = core.list_keys()?;
            core.learn_rings_of(&listed)?;
            let (version, (key, ring)) = keys::new_version(&core.sealer);
            // One that cannot be read has its number: another ring of that number would be taken for it.
            if let Some(version) = versions_in(&listed).into_iter().find(|taken| *taken >= version) {
                return Err(KeyError::Unreadable { version }.into());
            }
            // Another host may take the number first; then its ring is learnt, and the next number is tried. The second copy comes first,
            // so that of two that are made at once neither is written over the other's.
            let spare = Object::SpareRing(version).key();
            if core.header.has_spares() && core.target.put_new(&spare, &[&ring])? == Put::Exists {
                continue;
            }
            if core.target.put_new(&key, &[&ring])? == Put::Created {
                core.sealer.adopt(&core.sealer.with_rings(std::slice::from_ref(&ring))?);
                crate::repo::keep::keep(&self.state_dir, &[(Object::Ring(version), &ring)]);
                return Ok(version);
            }
        }
    }

    /// The key version that new objects are sealed under, as this process knows it.
    pub fn key_version(&self) -> KeyVersion {
        self.core.sealer.keyring().current()
    }

    /// The key versions that can be opened, oldest first.
    pub fn key_versions(&self) -> Vec<KeyVersion> {
        self.core.sealer.keyring().versions().collect()
    }
}
