//! Condemned packs, and what has been checked under which list of them.

use crate::catalog::error::CatalogError;
use crate::catalog::store::Fault;
use crate::catalog::tables::Tables;
use crate::catalog::{Catalog, index, key};
use crate::words::geometry::MapDepth;
use crate::words::ids::{BatchId, BlockId, CondemnedFingerprint, PackId};
use heed::RoTxn;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;

impl Catalog {
    /// Learns one batch of condemned packs. They are dead for ever: their copies count no more, whenever their entries
    /// arrive. Absorbing a batch again changes nothing.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn absorb_batch(&self, batch: BatchId, packs: &[PackId]) -> Result<(), CatalogError> {
        self.store.write(|tables, txn| {
            if tables.batches.get(txn, batch.as_bytes())?.is_some() {
                return Ok(());
            }
            for pack in packs {
                tables.condemned.put(txn, pack.as_bytes(), &[])?;
                index::condemn(tables, txn, pack)?;
            }
            tables.batches.put(txn, batch.as_bytes(), &[])?;
            // What was checked under a shorter list says nothing under this one. A check that runs meanwhile under the
            // shorter list may still add to it: that entry is true, and never asked for again.
            Ok(tables.checked.clear(txn)?)
        })
    }

    /// Every batch absorbed.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn known_batches(&self) -> Result<BTreeSet<BatchId>, CatalogError> {
        self.store.read(batches)
    }

    /// Names the list of condemned packs as it is known: SHA-256 over the text of the batch ids, sorted, each followed by a
    /// newline.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn fingerprint(&self) -> Result<CondemnedFingerprint, CatalogError> {
        self.store.read(fingerprint)
    }

    /// Whether a pack is condemned.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn is_condemned(&self, pack: &PackId) -> Result<bool, CatalogError> {
        self.store.read(|tables, txn| Ok(tables.condemned.get(txn, pack.as_bytes())?.is_some()))
    }

    /// Every condemned pack.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn condemned_packs(&self) -> Result<BTreeSet<PackId>, CatalogError> {
        self.store.read(packs)
    }

    /// Notes that every block below `root` had a copy in no condemned pack under the list named by `fingerprint`.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn set_checked(
        &self,
        root: &BlockId,
        depth: MapDepth,
        fingerprint: &CondemnedFingerprint,
    ) -> Result<(), CatalogError> {
        let key = key::checked(fingerprint, depth.levels(), root);
        self.store.write(|tables, txn| Ok(tables.checked.put(txn, &key, &[])?))
    }

    /// Whether [`Catalog::set_checked`] was called with the same arguments.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn is_checked(
        &self,
        root: &BlockId,
        depth: MapDepth,
        fingerprint: &CondemnedFingerprint,
    ) -> Result<bool, CatalogError> {
        let key = key::checked(fingerprint, depth.levels(), root);
        self.store.read(|tables, txn| Ok(tables.checked.get(txn, &key)?.is_some()))
    }
}

pub(super) fn batches(tables: &Tables, txn: &RoTxn) -> Result<BTreeSet<BatchId>, Fault> {
    let ids = tables.batches.iter(txn)?;
    ids.map(|row| Ok(BatchId::from_bytes(key::array(row?.0, 0, "batches")?))).collect()
}

pub(super) fn packs(tables: &Tables, txn: &RoTxn) -> Result<BTreeSet<PackId>, Fault> {
    let ids = tables.condemned.iter(txn)?;
    ids.map(|row| Ok(PackId::from_bytes(key::array(row?.0, 0, "condemned")?))).collect()
}

pub(super) fn fingerprint(tables: &Tables, txn: &RoTxn) -> Result<CondemnedFingerprint, Fault> {
    let mut hash = Sha256::new();
    for batch in batches(tables, txn)? {
        hash.update(format!("{batch}\n"));
    }
    Ok(CondemnedFingerprint::from_bytes(hash.finalize().into()))
}
