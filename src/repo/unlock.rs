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
use crate::repo::header::{is_about_one, may_be_lost, without_header};
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
            let Some(object @ (Object::Slot(_) | Object::Ring(_))) = layout::parse(&info.key) else { continue };
            let bytes = match get(&info.key) {
                // One of them may be enough.
                Err(error) if is_about_one(target, &error) => continue,
                bytes => bytes?,
            };
            match object {
                Object::Slot(id) => slots.push((id, bytes)),
                _ => rings.push(bytes),
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
#[derive(Default)]
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
        let mut twins = Self::default();
        let lists = [layout::KEYS, layout::SPARE].map(|prefix| target.list(prefix).unwrap_or_default());
        twins.add(target, std::iter::once(layout::header()).chain(lists.into_iter().flatten().map(|info| info.key)));
        twins
    }

    /// The second copies that say something else than what was read of the first.
    fn read_second(target: &dyn Target, first: &Locks) -> Self {
        let mut twins = Self::default();
        twins.add(target, target.list(layout::SPARE).unwrap_or_default().into_iter().map(|info| info.key));
        twins.headers.retain(|header| *header != first.header);
        twins.slots.retain(|slot| !first.slots.contains(slot));
        twins.rings.retain(|ring| !first.rings.contains(ring));
        twins
    }

    fn add(&mut self, target: &dyn Target, keys: impl Iterator<Item = ObjectKey>) {
        for key in keys {
            let (Some(object), Ok(bytes)) = (layout::parse(&key), get_agreed(target, &key)) else { continue };
            match object {
                Object::Header | Object::SpareHeader if !self.headers.contains(&bytes) => self.headers.push(bytes),
                Object::Ring(_) | Object::SpareRing(_) if !self.rings.contains(&bytes) => self.rings.push(bytes),
                Object::Slot(id) | Object::SpareSlot(id) if !self.slots.contains(&(id, bytes.clone())) => {
                    self.slots.push((id, bytes));
                }
                _ => {}
            }
        }
    }
}

/// Opens the keys with the second copies after the first did not. `None` when these do not either, or say nothing else.
fn unlock_second(
    target: &dyn Target,
    secret: &Secret,
    clock: &Arc<dyn Clock>,
    tried: Option<&Locks>,
    refusal: &RepoError,
) -> Option<(Locks, Sealer)> {
    let Twins { mut headers, mut slots, mut rings } =
        tried.map_or_else(|| Twins::read(target), |first| Twins::read_second(target, first));
    if let Some(first) = tried {
        if headers.is_empty() && slots.is_empty() && rings.is_empty() {
            return None;
        }
        // A secret that opened none of the slots is not stretched for them again.
        let is_refused = matches!(refusal, RepoError::Key(key) if matches!(**key, KeyError::WrongSecret { .. }));
        headers.insert(0, first.header.clone());
        slots.extend(first.slots.iter().filter(|_| !is_refused).cloned());
        rings.extend(first.rings.iter().cloned());
    }
    if slots.is_empty() {
        return None;
    }
    let mut locks = Locks { header: Vec::new(), slots, rings };
    for header in headers {
        locks.header = header;
        if let Ok(sealer) = locks.unlock(secret, clock) {
            return Some((locks, sealer));
        }
    }
    None
}

/// What of the first copies does not serve.
fn what_is_lost(error: &RepoError) -> String {
    let what = match error {
        RepoError::Target(error) => return error.to_string(),
        RepoError::Key(key) => match &**key {
            KeyError::WrongSecret { .. } | KeyError::NoSlot { .. } | KeyError::Slot(_) => "a key slot",
            KeyError::NoRing { .. } => "the key ring",
            _ => "the header of the repository",
        },
        _ => "the header of the repository",
    };
    format!("{what} cannot be read")
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
                unlock_second(target, secret, clock, tried.as_ref(), &error).ok_or_else(|| error.clone())?;
            tracing::debug!("opened with second copies: {error}");
            let lost = what_is_lost(&error);
            monitor.warn(&format!("{lost}: its second copy serves, and `backyfs repair` puts it right"));
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
        Err(error) if may_be_lost(target, &error) => Ok(None),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repo::Repository;
    use crate::repo::testing::{open, secret, small};
    use crate::target::memory::MemoryTarget;
    use crate::target::through::Worn;
    use crate::words::clock::SystemClock;

    fn made() -> (Arc<MemoryTarget>, tempfile::TempDir) {
        let (memory, clock): (_, Arc<dyn Clock>) = (Arc::new(MemoryTarget::default()), Arc::new(SystemClock));
        Repository::create(&*memory, &[secret()], &small(), &clock).unwrap();
        (memory, tempfile::tempdir().unwrap())
    }

    fn names(target: &MemoryTarget, prefix: &str) -> Vec<ObjectKey> {
        target.list(prefix).unwrap().into_iter().map(|info| info.key).collect()
    }

    #[test]
    fn what_lies_on_bad_sectors_is_read_elsewhere() {
        let (memory, dir) = made();
        let firsts = [vec![layout::header()], names(&memory, layout::KEYS)].concat();
        for (number, bad) in firsts.iter().cloned().map(|key| vec![key]).chain([firsts.clone()]).enumerate() {
            open(Worn::new(Arc::clone(&memory) as _, bad), &dir.path().join(number.to_string()), Arc::default())
                .unwrap();
        }
        let both = firsts.iter().filter_map(|key| Some(layout::parse(key)?.twin()?.key())).chain(firsts.clone());
        assert!(open(Worn::new(memory, both.collect()), &dir.path().join("both"), Arc::default()).is_err());
    }

    #[test]
    fn the_header_of_another_repository_is_read_past() {
        let ((memory, dir), (other, _)) = (made(), made());
        memory.put(&layout::header(), &[&other.get(&layout::header()).unwrap()]).unwrap();
        open(memory, dir.path(), Arc::default()).unwrap();
    }

    #[test]
    fn a_new_key_version_is_never_written_over_one_that_lost_its_first_ring() {
        let (memory, dir) = made();
        let repo = open(Arc::clone(&memory) as _, &dir.path().join("one"), Arc::default()).unwrap();
        let second = repo.rekey().unwrap();
        let kept = memory.get(&Object::SpareRing(second).key()).unwrap();
        memory.delete(&layout::ring(second)).unwrap();
        let other = open(Arc::clone(&memory) as _, &dir.path().join("two"), Arc::default()).unwrap();
        assert_eq!(other.rekey().unwrap(), KeyVersion(second.0 + 1));
        assert_eq!(memory.get(&Object::SpareRing(second).key()).unwrap(), kept);
        // Neither copy can be read: no number is taken, and nobody tries for ever.
        let copies = [layout::ring(KeyVersion(3)), Object::SpareRing(KeyVersion(3)).key()];
        let whole = memory.save();
        for lost in [None, Some(&copies[0]), Some(&copies[1])] {
            memory.put_back(whole.clone());
            copies.iter().for_each(|key| memory.put(key, &[b"nothing"]).unwrap());
            lost.into_iter().for_each(|key| memory.delete(key).unwrap());
            let before = memory.save();
            let state = dir.path().join(format!("{lost:?}").replace('/', "-"));
            let third = open(Arc::clone(&memory) as _, &state, Arc::default()).unwrap();
            assert!(third.rekey().unwrap_err().to_string().contains("key version 3"));
            assert!(memory.save() == before, "{lost:?}");
        }
    }

    /// A program that knows nothing of second copies would leave that of a slot which it removes.
    #[test]
    fn a_repository_of_the_format_before_has_no_second_copies() {
        let (memory, dir) = made();
        let repo = open(Arc::clone(&memory) as _, &dir.path().join("one"), Arc::default()).unwrap();
        let old = keys::header_in_format(&repo.core.sealer, 1);
        drop(repo);
        memory.put(&layout::header(), &[&old]).unwrap();
        names(&memory, layout::SPARE).iter().for_each(|key| memory.delete(key).unwrap());
        let repo = open(Arc::clone(&memory) as _, &dir.path().join("two"), Arc::default()).unwrap();
        repo.rekey().unwrap();
        let slot = repo.add_slot(&Secret::key_file(vec![8; 64])).unwrap();
        repo.add_recovery_slot().unwrap();
        repo.remove_slot(slot).unwrap();
        assert_eq!(repo.examine_objects(&|_| true).unwrap().bad, []);
        assert_eq!(names(&memory, layout::SPARE), []);
    }
}
