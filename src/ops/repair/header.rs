//! Opening needs the repository header and a key ring. When they are lost or damaged on the target, their second copies there serve, or
//! those in a state directory of this host, if the secret opens the repository with them.

use crate::format::layout::{self, Object};
use crate::ops::OpsError;
use crate::ops::repair::Step;
use crate::repo::header::{is_about_one, may_be_lost};
use crate::repo::putback::CopyPlace;
use crate::repo::unlock::Twins;
use crate::repo::{RepoError, keep};
use crate::seal::{KeyError, Sealer, Secret, keys};
use crate::target::{Target, TargetError};
use crate::words::clock::{Clock, ClockExt};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// An object of the target, what it should be, and what is wrong with it.
type Lack<'a> = (Object, &'a [u8], String);

/// What is left of a repository that cannot be opened any more.
#[derive(Debug)]
pub struct Kept {
    sealer: Sealer,
    /// The header and key rings.
    objects: Vec<(Object, Vec<u8>)>,
    place: CopyPlace,
}

/// Looks through the state directory and the target for copies with which `secret` opens the repository at `target`. `None` when there
/// are none.
///
/// # Errors
/// When the target cannot be reached, or the secret is wrong.
pub fn find(
    target: &dyn Target,
    state_dir: &Path,
    secret: &Secret,
    clock: &Arc<dyn Clock>,
) -> Result<Option<Kept>, OpsError> {
    match target.list(layout::KEYS) {
        Err(error) if !may_be_lost(target, &error) => return Err(RepoError::from(error).into()),
        _ => {}
    }
    let there = Twins::read(target);
    let slots: Vec<Vec<u8>> = there.slots.into_iter().map(|(_, bytes)| bytes).collect();
    // What this host keeps is as good and may be more.
    let mut candidates: Vec<(Vec<u8>, Vec<Vec<u8>>, CopyPlace)> = Vec::new();
    for directory in directories(state_dir) {
        let Some(header) = keep::read(&directory, &layout::header()) else { continue };
        let rings = keep::rings(&directory).into_iter().chain(there.rings.iter().cloned());
        candidates.push((header, rings.collect(), CopyPlace::Host));
    }
    candidates.extend(there.headers.into_iter().map(|header| (header, there.rings.clone(), CopyPlace::Target)));
    // Those rings are among the ones that the first candidate of the same header has.
    let mut seen = BTreeSet::new();
    candidates.retain(|(header, ..)| seen.insert(header.clone()));
    let mut refused = None;
    for (header, rings, place) in candidates {
        match keys::unlock(&header, &slots, &rings, secret, clock) {
            Ok(sealer) => {
                let version = |ring: &Vec<u8>| sealer.with_rings(std::slice::from_ref(ring)).ok();
                let rings = rings.into_iter().filter_map(|ring| {
                    let version = version(&ring)?.keyring().current();
                    Some((Object::Ring(version), ring))
                });
                // Each ring once; the header last: with it the repository exists.
                let rings: BTreeMap<Object, Vec<u8>> = rings.collect();
                let objects = rings.into_iter().chain([(Object::Header, header)]).collect();
                return Ok(Some(Kept { sealer: sealer.clone(), objects, place }));
            }
            Err(error @ (KeyError::WrongSecret { .. } | KeyError::Slot(_))) => refused = Some(error),
            Err(_) => {}
        }
    }
    refused.map_or(Ok(None), |error| Err(RepoError::from(error).into()))
}

fn directories(state_dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(state_dir) else { return Vec::new() };
    let mut found: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    found.retain(|path| path.is_dir());
    found.sort();
    found
}

impl Kept {
    /// What is missing on the target or does not open there.
    ///
    /// # Errors
    /// When the target cannot be reached.
    pub fn steps(&self, target: &dyn Target) -> Result<Vec<Step>, OpsError> {
        let lacking = self.lacking(target)?.into_iter();
        let step = |(object, _, problem): Lack<'_>| Step {
            object: object.key().to_string(),
            problem,
            remedy: self.place.remedy().to_owned(),
        };
        Ok(lacking.map(step).collect())
    }

    fn lacking(&self, target: &dyn Target) -> Result<Vec<Lack<'_>>, OpsError> {
        let mut lacking = Vec::new();
        for (object, bytes) in &self.objects {
            let problem = match target.get(&object.key()) {
                Ok(found) => match self.problem(*object, &found) {
                    Some(problem) => problem,
                    None => continue,
                },
                Err(TargetError::NotFound { .. }) => "it is missing".to_owned(),
                // Without a header a directory does not look like a repository, and says it is not there.
                Err(TargetError::Unreachable { .. }) if !target.is_paged() => "it is missing".to_owned(),
                Err(error) if is_about_one(target, &error) => error.to_string(),
                Err(error) => return Err(RepoError::from(error).into()),
            };
            lacking.push((*object, bytes.as_slice(), problem));
        }
        Ok(lacking)
    }

    fn problem(&self, object: Object, bytes: &[u8]) -> Option<String> {
        if object == Object::Header {
            return keys::check_header(&self.sealer, bytes).err().map(|error| error.to_string());
        }
        match self.sealer.with_rings(&[bytes.to_vec()]) {
            Ok(opened) if Object::Ring(opened.keyring().current()) == object => None,
            Ok(_) => Some("it is the ring of another key version".to_owned()),
            Err(error) => Some(error.to_string()),
        }
    }

    /// Puts it back. What stood there is set aside first.
    ///
    /// # Errors
    /// When the target fails. It can be repeated.
    pub fn execute(&self, target: &dyn Target, clock: &dyn Clock) -> Result<(), OpsError> {
        if target.list(layout::KEYS).is_err() {
            target.prepare().map_err(RepoError::from)?;
        }
        for (object, bytes, _) in self.lacking(target)? {
            let key = object.key();
            if let Ok(found) = target.get(&key) {
                target.put(&layout::aside(&key, clock.damage_id()), &[&found]).map_err(RepoError::from)?;
            }
            target.put(&key, &[bytes]).map_err(RepoError::from)?;
        }
        Ok(())
    }
}
