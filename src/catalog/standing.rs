//! How the copies of a block stand: sound, seen, bad, lost.

use crate::catalog::error::CatalogError;
use crate::catalog::index::{self, Copies};
use crate::catalog::store::Fault;
use crate::catalog::tables::Tables;
use crate::catalog::{Catalog, damage};
use crate::words::ids::{BlockId, PackId};
use crate::words::record::PackedBlock;
use heed::RoTxn;
use std::collections::{BTreeMap, BTreeSet};

/// How the copies of a block stand, as far as this host knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// A copy was seen good when its pack was last looked at.
    Seen,
    /// Nothing bad is known of a copy, but nobody looked at it yet.
    Unseen,
    /// The only copies of which nothing bad is known are in condemned packs, which may be gone.
    Condemned,
    /// There is none that can be read; why.
    Lost(String),
}

impl Catalog {
    /// How blocks stand, in order, when the packs in `gone` are not there. One view of the index answers for all.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn standings(&self, ids: &[BlockId], gone: &BTreeSet<PackId>) -> Result<Vec<Standing>, CatalogError> {
        self.store.read(|tables, txn| ids.iter().map(|id| standing(tables, txn, id, gone)).collect())
    }

    /// The blocks that the index says are in these packs, each in order of offset. Reads all of the index once.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn blocks_in(&self, packs: &BTreeSet<PackId>) -> Result<BTreeMap<PackId, Vec<PackedBlock>>, CatalogError> {
        self.store.read(|tables, txn| index::blocks_in(tables, txn, packs))
    }

    /// Adds to `packs` those that hold a copy of one of `ids` and are not condemned.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn packs_of(&self, ids: &[BlockId], packs: &mut BTreeSet<PackId>) -> Result<(), CatalogError> {
        let found = self.store.read(|tables, txn| {
            let mut found = Vec::new();
            for id in ids {
                let Copies { live, .. } = index::copies(tables, txn, id)?;
                found.extend(live.into_iter().map(|location| location.pack));
            }
            Ok(found)
        })?;
        packs.extend(found);
        Ok(())
    }

    /// Whether a block is known to be damaged: it has bad copies that are not condemned, and no other.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn is_damaged(&self, id: &BlockId) -> Result<bool, CatalogError> {
        self.store.read(|tables, txn| is_damaged(tables, txn, id))
    }

    /// Every damaged block, and what is wrong with its copies.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn damaged(&self) -> Result<Vec<(BlockId, String)>, CatalogError> {
        let mut damaged: Vec<(BlockId, String)> = Vec::new();
        for copy in self.bad_copies()? {
            match damaged.last_mut() {
                Some((block, reason)) if *block == copy.block => *reason = format!("{reason}; {}", copy.reason),
                _ if self.is_damaged(&copy.block)? => damaged.push((copy.block, copy.reason)),
                _ => {}
            }
        }
        Ok(damaged)
    }
}

fn standing(tables: &Tables, txn: &RoTxn, id: &BlockId, gone: &BTreeSet<PackId>) -> Result<Standing, Fault> {
    let mut bad = damage::bad_packs(tables, txn, id)?;
    let Copies { live, condemned } = index::copies(tables, txn, id)?;
    let missing = live.iter().filter(|copy| gone.contains(&copy.pack));
    bad.extend(missing.map(|copy| (copy.pack, format!("pack {} is missing", copy.pack))));
    let mut is_sound = false;
    for copy in live.iter().filter(|copy| bad.iter().all(|(pack, _)| *pack != copy.pack)) {
        is_sound = true;
        if tables.scrubbed.get(txn, copy.pack.as_bytes())?.is_some() {
            return Ok(Standing::Seen);
        }
    }
    let is_told_bad = |pack: &PackId| bad.iter().any(|(bad, _)| bad == pack);
    Ok(match bad.first() {
        _ if is_sound => Standing::Unseen,
        _ if condemned.iter().any(|copy| !is_told_bad(&copy.pack)) => Standing::Condemned,
        Some(_) => Standing::Lost(bad.into_iter().map(|(_, reason)| reason).collect::<Vec<_>>().join("; ")),
        None => Standing::Lost("the index knows no copy of it".to_owned()),
    })
}

fn is_damaged(tables: &Tables, txn: &RoTxn, id: &BlockId) -> Result<bool, Fault> {
    let mut is_bad = false;
    for (pack, _) in damage::bad_packs(tables, txn, id)? {
        is_bad |= tables.condemned.get(txn, pack.as_bytes())?.is_none();
    }
    Ok(is_bad && !index::has_sound_copy(tables, txn, id)?)
}
