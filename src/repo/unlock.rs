//! Getting at the keys of a repository: header, slots and rings, as they lie on the target.
//!
//! Where each object costs a request, a host that has opened the repository before asks for two of them only: the header, and the slot
//! that it was opened with. Key rings never change and are kept here anyway; newer ones are learnt by the first look at the target.
//! A slot is always asked for, because one that was removed must open nothing.
//!
//! Everything here lies on the target twice. The second copies are asked for only when the first do not open the repository.

use crate::format::layout::{self, Object, ObjectKey};
use crate::format::repository::UncheckedHeader;
use crate::format::slot::{Slot, SlotKind};
use crate::repo::header::{may_be_lost, without_header};
use crate::repo::{RepoError, keep};
use crate::seal::{KeyError, Sealer, Secret, keys};
use crate::target::{Target, TargetError};
use crate::words::clock::Clock;
use crate::words::ids::{KeyVersion, SlotId};
use crate::words::monitor::Monitor;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

/// So many answers in a row that say the same are believed.
const AGREEING: u32 = 3;

/// How often an object is read at most until its answers agree.
const AGREEING_TRIES: u32 = 40;

/// How often all of it is read at most, until two readings in a row say the same.
const READINGS_MAX: u32 = 6;

/// What a repository is opened with, as it lies on the target.
#[derive(PartialEq, Eq)]
struct Locks {
    header: Vec<u8>,
    slots: Vec<(SlotId, Vec<u8>)>,
    rings: Vec<Vec<u8>>,
}

impl Locks {
    /// Reads them, each with `get`.
    fn read(target: &dyn Target, get: impl Fn(&ObjectKey) -> Result<Vec<u8>, TargetError>) -> Result<Self, RepoError> {
        let (mut slots, mut rings) = (Vec::new(), Vec::new());
        let header = get(&layout::header()).map_err(|error| match error {
            TargetError::NotFound { .. } => without_header(target),
            error => error.into(),
        })?;
        for info in target.list(layout::KEYS)? {
            match layout::parse(&info.key) {
                Some(Object::Slot(id)) => slots.push((id, get(&info.key)?)),
                Some(Object::Ring(_)) => rings.push(get(&info.key)?),
                _ => {}
            }
        }
        Ok(Self { header, slots, rings })
    }

    fn unlock(&self, secret: &Secret, clock: &Arc<dyn Clock>) -> Result<Sealer, KeyError> {
        let slots: Vec<Vec<u8>> = self.slots.iter().map(|(_, bytes)| bytes.clone()).collect();
        keys::unlock(&self.header, &slots, &self.rings, secret, clock)
    }

    /// The only slot that a secret of this kind can have opened, if there is one.
    fn slot_for(&self, secret: &Secret) -> Option<SlotId> {
        let fits = |kind| match secret {
            Secret::KeyFile(_) => matches!(kind, SlotKind::KeyFile),
            Secret::Passphrase(_) => !matches!(kind, SlotKind::KeyFile),
        };
        let mut fitting = self.slots.iter().filter(|(_, bytes)| Slot::decode(bytes).is_ok_and(|slot| fits(slot.kind)));
        let (id, _) = fitting.next()?;
        fitting.next().is_none().then_some(*id)
    }
}

/// Reads an object until the same bytes have come [`AGREEING`] times in a row, or, of a target that never agrees with itself, until
/// patience ends.
fn get_agreed(target: &dyn Target, key: &ObjectKey) -> Result<Vec<u8>, TargetError> {
    let mut bytes = target.get(key)?;
    let mut agreeing = 1;
    for _ in 0..AGREEING_TRIES {
        let again = target.get(key)?;
        agreeing = if again == bytes { agreeing + 1 } else { 1 };
        bytes = again;
        if agreeing == AGREEING {
            break;
        }
    }
    Ok(bytes)
}

/// What lies on the target, first and second copies, whatever of it can be read. As much as a repair sees that has nothing else.
pub struct Twins {
    /// Copies of the header.
    pub headers: Vec<Vec<u8>>,
    /// All slots.
    pub slots: Vec<(SlotId, Vec<u8>)>,
    /// All key rings.
    pub rings: Vec<Vec<u8>>,
}

impl Twins {
    /// Reads them. Each copy is there once, the first before the second.
    pub fn read(target: &dyn Target) -> Self {
        let mut twins = Self { headers: Vec::new(), slots: Vec::new(), rings: Vec::new() };
        let lists = [layout::KEYS, layout::SPARE].map(|prefix| target.list(prefix).unwrap_or_default());
        let listed = lists.into_iter().flatten().map(|info| info.key);
        for key in std::iter::once(layout::header()).chain(listed) {
            let (Some(object), Ok(bytes)) = (layout::parse(&key), get_agreed(target, &key)) else { continue };
            match object {
                Object::Header | Object::SpareHeader if !twins.headers.contains(&bytes) => twins.headers.push(bytes),
                Object::Ring(_) | Object::SpareRing(_) if !twins.rings.contains(&bytes) => twins.rings.push(bytes),
                Object::Slot(id) | Object::SpareSlot(id) if !twins.slots.contains(&(id, bytes.clone())) => {
                    twins.slots.push((id, bytes));
                }
                _ => {}
            }
        }
        twins
    }

    /// Opens the keys. `None` when they do not, or there is nothing that `tried` has not been tried with already.
    fn unlock(self, tried: Option<&Locks>, secret: &Secret, clock: &Arc<dyn Clock>) -> Option<(Locks, Sealer)> {
        let Self { headers, slots, rings } = self;
        let is_known = tried.is_some_and(|tried| {
            headers.iter().all(|header| *header == tried.header)
                && slots.iter().all(|slot| tried.slots.contains(slot))
                && rings.iter().all(|ring| tried.rings.contains(ring))
        });
        let mut locks = Locks { header: Vec::new(), slots, rings };
        for header in headers.into_iter().filter(|_| !is_known) {
            locks.header = header;
            if let Ok(sealer) = locks.unlock(secret, clock) {
                return Some((locks, sealer));
            }
        }
        None
    }
}

/// Opens the keys, and keeps what a repair, or the next opening, can use. `states` has the state directories of all repositories.
///
/// # Errors
/// When there is no repository, the secret opens no slot, or the target fails.
pub(super) fn unlock(
    target: &dyn Target,
    secret: &Secret,
    states: &Path,
    clock: &Arc<dyn Clock>,
    monitor: &dyn Monitor,
) -> Result<Sealer, RepoError> {
    if target.is_paged()
        && let Some(sealer) = unlock_again(target, secret, states, clock)?
    {
        return Ok(sealer);
    }
    let mut tried = None;
    let sealer = match unlock_first(target, secret, clock, &mut tried) {
        Ok(sealer) => sealer,
        Err(RepoError::Target(error)) if !may_be_lost(target, &error) => return Err(RepoError::Target(error)),
        Err(error) => {
            let (locks, sealer) =
                Twins::read(target).unlock(tried.as_ref(), secret, clock).ok_or_else(|| error.clone())?;
            monitor.warn(&format!("{error}: its second copy serves, and `backyfs repair` puts it right"));
            tried = Some(locks);
            sealer
        }
    };
    adopt_lost_rings(target, &sealer, monitor);
    if let Some(locks) = tried {
        keep_locks(&states.join(sealer.repo().to_string()), &locks, &sealer, secret);
    }
    Ok(sealer)
}

/// Opens the keys with the first copies; what was tried last, or opened, is left in `tried`.
fn unlock_first(
    target: &dyn Target,
    secret: &Secret,
    clock: &Arc<dyn Clock>,
    tried: &mut Option<Locks>,
) -> Result<Sealer, RepoError> {
    let mut locks = tried.insert(Locks::read(target, |key| target.get(key))?);
    let mut opened = locks.unlock(secret, clock);
    for _ in 1..READINGS_MAX {
        if opened.is_ok() {
            break;
        }
        // More carefully: an answer may have been changed on its way. What says the same again is so.
        let again = Locks::read(target, |key| get_agreed(target, key))?;
        if again == *locks {
            break;
        }
        locks = tried.insert(again);
        opened = locks.unlock(secret, clock);
    }
    Ok(opened?)
}

/// Rings are never deleted, so one that is not there, or did not open, is lost: its second copy serves.
fn adopt_lost_rings(target: &dyn Target, sealer: &Sealer, monitor: &dyn Monitor) {
    let keyring = sealer.keyring();
    let known: BTreeSet<KeyVersion> = keyring.versions().collect();
    for version in (KeyVersion::FIRST.0..keyring.current().0).map(KeyVersion).filter(|v| !known.contains(v)) {
        let spare = target.get(&Object::SpareRing(version).key());
        if let Some(Ok(found)) = spare.ok().map(|ring| sealer.with_rings(&[ring])) {
            let problem = "cannot be read: its second copy serves, and `backyfs repair` puts it right";
            monitor.warn(&format!("key ring {} {problem}", version.0));
            sealer.adopt(&found);
        }
    }
}

/// Opens the keys with what this host knows of the repository. `None` when that is not enough, whyever.
fn unlock_again(
    target: &dyn Target,
    secret: &Secret,
    states: &Path,
    clock: &Arc<dyn Clock>,
) -> Result<Option<Sealer>, RepoError> {
    let found = |got| match got {
        Ok(bytes) => Ok(Some(bytes)),
        Err(TargetError::NotFound { .. }) => Ok(None),
        Err(error) => Err(RepoError::from(error)),
    };
    // Without a note the header would be asked for twice.
    let has_note = |entry: &std::fs::DirEntry| keep::opened_by(&entry.path()).is_some();
    if !std::fs::read_dir(states)
        .is_ok_and(|mut entries| entries.any(|entry| entry.is_ok_and(|entry| has_note(&entry))))
    {
        return Ok(None);
    }
    let Some(header) = found(target.get(&layout::header()))? else { return Ok(None) };
    let Ok(unchecked) = UncheckedHeader::decode(&header) else { return Ok(None) };
    let state_dir = states.join(unchecked.claimed_repo().to_string());
    let Some(id) = keep::opened_by(&state_dir) else { return Ok(None) };
    let Some(slot) = found(target.get(&layout::slot(id)))? else { return Ok(None) };
    Ok(keys::unlock(&header, &[slot], &keep::rings(&state_dir), secret, clock).ok())
}

/// Keeps what was read and opens.
fn keep_locks(state_dir: &Path, locks: &Locks, sealer: &Sealer, secret: &Secret) {
    let version = |ring: &Vec<u8>| Some(sealer.with_rings(std::slice::from_ref(ring)).ok()?.keyring().current());
    let rings = locks.rings.iter().filter_map(|ring| Some((Object::Ring(version(ring)?), ring.as_slice())));
    let rings: Vec<_> = rings.collect();
    keep::keep(state_dir, &[&[(Object::Header, locks.header.as_slice())], rings.as_slice()].concat());
    if let Some(slot) = locks.slot_for(secret) {
        keep::note_opened_by(state_dir, slot);
    }
}
