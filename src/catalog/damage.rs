//! Blocks that were found damaged on the target: nothing is deduplicated against them. Known on this host only.

use crate::catalog::error::CatalogError;
use crate::catalog::{Catalog, key};
use crate::words::ids::BlockId;

/// Longest description kept, in bytes.
const REASON_MAX_BYTES: usize = 1000;

impl Catalog {
    /// Notes what is wrong with a block, and waits until that is durable: damage must not spread after a power cut either.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn mark_damaged(&self, id: &BlockId, reason: &str) -> Result<(), CatalogError> {
        let reason = &reason[..reason.floor_char_boundary(REASON_MAX_BYTES)];
        self.store.write_durably(|tables, txn| Ok(tables.damaged.put(txn, id.as_bytes(), reason.as_bytes())?))
    }

    /// Whether a block is known to be damaged.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn is_damaged(&self, id: &BlockId) -> Result<bool, CatalogError> {
        self.store.read(|tables, txn| Ok(tables.damaged.get(txn, id.as_bytes())?.is_some()))
    }

    /// Whether any block is known to be damaged: nearly always not, and then nothing else need be asked.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn any_damaged(&self) -> Result<bool, CatalogError> {
        self.store.read(|tables, txn| Ok(!tables.damaged.is_empty(txn)?))
    }

    /// Forgets damage, after the block was stored again. Costs no commit when there was none.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn clear_damaged(&self, id: &BlockId) -> Result<(), CatalogError> {
        if !self.is_damaged(id)? {
            return Ok(());
        }
        self.store.write_durably(|tables, txn| {
            tables.damaged.delete(txn, id.as_bytes())?;
            Ok(())
        })
    }

    /// Every damaged block and what is wrong with it.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn damaged(&self) -> Result<Vec<(BlockId, String)>, CatalogError> {
        self.store.read(|tables, txn| {
            let mut damaged = Vec::new();
            for row in tables.damaged.iter(txn)? {
                let (id, reason) = row?;
                let id = BlockId::from_bytes(key::array(id, 0, "damaged")?);
                damaged.push((id, String::from_utf8_lossy(reason).into_owned()));
            }
            Ok(damaged)
        })
    }
}
