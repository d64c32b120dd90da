//! Key slots: who can open the repository. Each wraps the same root key, so they come and go without touching anything sealed.

use crate::format::layout::{self, Object};
use crate::format::slot::{Argon2Costs, Slot, SlotKind};
use crate::repo::{RepoError, Repository};
use crate::seal::recovery::RecoveryKey;
use crate::seal::{KeyError, Secret, keys};
use crate::target::TargetError;
use crate::words::ids::SlotId;
use crate::words::stamp::Stamp;

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

    fn slot_objects(&self) -> Result<Vec<(SlotId, Vec<u8>)>, RepoError> {
        let mut slots = Vec::new();
        for info in self.core.target.list(layout::KEYS)? {
            let Some(Object::Slot(id)) = layout::parse(&info.key) else { continue };
            match self.core.target.get(&info.key) {
                Ok(bytes) => slots.push((id, bytes)),
                Err(TargetError::NotFound { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(slots)
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
        if read == bytes { Ok(slot.id) } else { Err(KeyError::NotRead { slot: slot.id }.into()) }
    }

    /// Removes a slot. The last one that is not damaged is never removed, not even when two hosts remove one each at the same
    /// moment: who finds none left afterwards puts its own back.
    ///
    /// # Errors
    /// [`KeyError::LastSlot`]; when there is no such slot, or the target fails.
    pub fn remove_slot(&self, id: SlotId) -> Result<(), RepoError> {
        let core = &self.core;
        let key = layout::slot(id);
        let bytes = core.target.get(&key)?;
        let others = |slots: Vec<SlotSummary>| slots.iter().any(|slot| slot.id != id && slot.kind.is_some());
        if !others(self.slots()?) {
            return Err(KeyError::LastSlot { slot: id }.into());
        }
        core.target.delete(&key)?;
        if others(self.slots()?) {
            return Ok(());
        }
        core.target.put(&key, &[&bytes])?;
        Err(KeyError::LastSlot { slot: id }.into())
    }
}
