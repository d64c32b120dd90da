//! Key slots: who can open the repository. Each wraps the same root key, so they come and go without touching anything sealed.

use crate::format::layout::{self, Object};
use crate::format::slot::{Argon2Costs, Slot, SlotKind};
use crate::repo::header::is_about_one;
use crate::repo::{RepoError, Repository};
use crate::seal::recovery::RecoveryKey;
use crate::seal::{KeyError, Secret, keys};
use crate::target::TargetError;
use crate::words::ids::SlotId;
use crate::words::stamp::Stamp;
use std::collections::BTreeMap;

/// A key slot, as far as can be told without its secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotSummary {
    /// Which.
    pub id: SlotId,
    /// What opens it; `None` when it is damaged.
    pub kind: Option<SlotKind>,
    /// When it was made.
    pub created: Option<Stamp>,
}

impl Repository {
    /// Every key slot, oldest first.
    ///
    /// # Errors
    /// When the target fails.
    pub fn slots(&self) -> Result<Vec<SlotSummary>, RepoError> {
        let mut slots = Vec::new();
        for (id, bytes) in self.slot_objects()? {
            let slot = Slot::decode(&bytes).ok().filter(|slot| slot.repo == self.id() && slot.id == id);
            slots.push(SlotSummary {
                id,
                kind: slot.as_ref().map(|slot| slot.kind),
                created: slot.map(|slot| slot.created),
            });
        }
        slots.sort_by_key(|slot| (slot.created, slot.id));
        Ok(slots)
    }

    /// Every slot, from its second copy if the first is damaged or gone: that one opens the repository, too.
    fn slot_objects(&self) -> Result<Vec<(SlotId, Vec<u8>)>, RepoError> {
        let target = &self.core.target;
        let mut slots: BTreeMap<SlotId, Vec<u8>> = BTreeMap::new();
        for info in self.core.list_keys()? {
            let Some(Object::Slot(id) | Object::SpareSlot(id)) = layout::parse(&info.key) else { continue };
            let is_whole = |bytes: &Vec<u8>| Slot::decode(bytes).is_ok_and(|slot| slot.id == id);
            if slots.get(&id).is_some_and(is_whole) {
                continue;
            }
            match target.get(&info.key) {
                Ok(bytes) if is_whole(&bytes) => drop(slots.insert(id, bytes)),
                Ok(bytes) => drop(slots.entry(id).or_insert(bytes)),
                Err(error) if is_about_one(&**target, &error) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(slots.into_iter().collect())
    }

    /// The slots that a secret opens.
    ///
    /// # Errors
    /// When the target fails, or the secret cannot be stretched.
    pub fn slots_of(&self, secret: &Secret) -> Result<Vec<SlotId>, RepoError> {
        let mut open = Vec::new();
        for (id, bytes) in self.slot_objects()? {
            if keys::opens(&self.core.sealer, &bytes, secret)? {
                open.push(id);
            }
        }
        Ok(open)
    }

    /// Adds a slot for a secret; durable when it returns.
    ///
    /// # Errors
    /// When the secret protects nothing, opens the repository already, or the target fails.
    pub fn add_slot(&self, secret: &Secret) -> Result<SlotId, RepoError> {
        if !self.slots_of(secret)?.is_empty() {
            return Err(KeyError::Known { secret: secret.word() }.into());
        }
        self.put_slot(keys::new_slot(&self.core.sealer, secret, Argon2Costs::DEFAULT)?)
    }

    /// Adds a slot for a new recovery key, which is to be shown once.
    ///
    /// # Errors
    /// When the target fails.
    pub fn add_recovery_slot(&self) -> Result<(SlotId, RecoveryKey), RepoError> {
        let (recovery, slot) = keys::new_recovery_slot(&self.core.sealer)?;
        Ok((self.put_slot(slot)?, recovery))
    }

    fn put_slot(&self, (key, bytes): keys::NewObject) -> Result<SlotId, RepoError> {
        let core = &self.core;
        core.target.put(&key, &[&bytes])?;
        // What is relied on tomorrow is read back today.
        let read = core.target.get(&key)?;
        let slot = Slot::decode(&read).map_err(RepoError::format(key.as_str()))?;
        if read != bytes {
            return Err(KeyError::NotRead { slot: slot.id }.into());
        }
        if self.header().has_spares() {
            self.put_twin_of_slot(Object::SpareSlot(slot.id), &bytes)?;
        }
        Ok(slot.id)
    }

    /// Writes one copy of a slot, as long as the other stands: a slot that somebody removes meanwhile does not live on in this one, since
    /// whoever removes deletes the second copy before and after the first.
    ///
    /// # Errors
    /// When the target fails. It can be repeated.
    pub(super) fn put_twin_of_slot(&self, object: Object, bytes: &[u8]) -> Result<(), RepoError> {
        let (target, Some(twin)) = (&self.core.target, object.twin()) else { return Ok(()) };
        target.put(&object.key(), &[bytes])?;
        let Err(error) = target.get(&twin.key()) else { return Ok(()) };
        // Whether it is gone or cannot be told: what was there before is no worse than before.
        target.delete(&object.key())?;
        match error {
            TargetError::NotFound { .. } => Ok(()),
            error => Err(error.into()),
        }
    }

    /// Removes a slot. The last one that is not damaged is never removed, not even when two hosts remove one each at the same
    /// moment: who finds none left afterwards puts its own back.
    ///
    /// # Errors
    /// [`KeyError::LastSlot`]; when there is no such slot, or the target fails.
    pub fn remove_slot(&self, id: SlotId) -> Result<(), RepoError> {
        let target = &self.core.target;
        let (first, second) = (layout::slot(id), Object::SpareSlot(id).key());
        let known = self.slot_objects()?.into_iter().find(|(known, _)| *known == id);
        // Of one that is not there the target says so itself.
        let bytes = known.map_or_else(|| target.get(&first), |(_, bytes)| Ok(bytes))?;
        let others = |slots: Vec<SlotSummary>| slots.iter().any(|slot| slot.id != id && slot.kind.is_some());
        if !others(self.slots()?) {
            return Err(KeyError::LastSlot { slot: id }.into());
        }
        let copies: &[_] = if self.header().has_spares() { &[&first, &second] } else { &[&first] };
        // The second copy twice: see `put_twin_of_slot`.
        for key in copies.iter().rev().chain(&copies[1..]) {
            target.delete(key)?;
        }
        if others(self.slots()?) {
            return Ok(());
        }
        for key in copies {
            target.put(key, &[&bytes])?;
        }
        Err(KeyError::LastSlot { slot: id }.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repo::testing::{open, secret, small};
    use crate::target::memory::MemoryTarget;
    use crate::target::through::Through;
    use crate::target::{ObjectInfo, Target};
    use crate::words::clock::{Clock, SystemClock};
    use parking_lot::Mutex;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Lets somebody else do something before the call of a number.
    struct Between {
        inner: Arc<MemoryTarget>,
        calls: AtomicUsize,
        deed: Mutex<Option<(usize, Deed)>>,
    }

    type Deed = Box<dyn FnOnce() + Send>;

    impl Between {
        fn call(&self) -> &MemoryTarget {
            let number = self.calls.fetch_add(1, Ordering::Relaxed);
            let mut deed = self.deed.lock();
            if deed.as_ref().is_some_and(|(at, _)| *at == number) {
                let (_, deed) = deed.take().unwrap();
                deed();
            }
            &self.inner
        }
    }

    impl Through for Between {
        fn within(&self) -> &dyn Target {
            &*self.inner
        }
        fn put(&self, key: &layout::ObjectKey, parts: &[&[u8]]) -> Result<(), TargetError> {
            self.call().put(key, parts)
        }
        fn get(&self, key: &layout::ObjectKey) -> Result<Vec<u8>, TargetError> {
            self.call().get(key)
        }
        fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, TargetError> {
            self.call().list(prefix)
        }
        fn delete(&self, key: &layout::ObjectKey) -> Result<(), TargetError> {
            self.call().delete(key)
        }
    }

    #[test]
    fn a_slot_that_is_removed_while_it_is_repaired_stays_removed() {
        let (memory, dir) = (Arc::new(MemoryTarget::default()), tempfile::tempdir().unwrap());
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        Repository::create(&*memory, &[secret()], &small(), &clock).unwrap();
        let between = Between { inner: Arc::clone(&memory), calls: AtomicUsize::new(0), deed: Mutex::default() };
        let between = Arc::new(between);
        let one = open(Arc::clone(&between) as _, &dir.path().join("one"), Arc::default()).unwrap();
        let two = open(Arc::clone(&memory) as _, &dir.path().join("two"), Arc::default()).unwrap();
        let id = one.add_slot(&Secret::key_file(vec![8; 64])).unwrap();
        let copies = [Object::Slot(id), Object::SpareSlot(id)];
        let whole = memory.save();
        let remove = move |repo: &Repository| repo.remove_slot(id).unwrap();
        for lost in copies {
            // May find nothing to make it from.
            let repair = move |repo: &Repository| {
                let _ = repo.put_back_kept(lost).unwrap();
            };
            for removes_first in [true, false] {
                let mut met = 0;
                for number in 0.. {
                    memory.put_back(whole.clone());
                    memory.delete(&lost.key()).unwrap();
                    between.calls.store(0, Ordering::Relaxed);
                    let two = Arc::clone(&two);
                    let deed: Deed =
                        if removes_first { Box::new(move || repair(&two)) } else { Box::new(move || remove(&two)) };
                    *between.deed.lock() = Some((number, deed));
                    match removes_first {
                        true => remove(&one),
                        false => repair(&one),
                    }
                    if between.deed.lock().take().is_some() {
                        break;
                    }
                    met += 1;
                    let left: Vec<_> = copies.iter().filter(|copy| memory.get(&copy.key()).is_ok()).collect();
                    assert!(left.is_empty(), "{lost:?}, {removes_first}, at call {number}: {left:?}");
                }
                assert!(met >= 3, "{met} calls");
            }
        }
    }
}
