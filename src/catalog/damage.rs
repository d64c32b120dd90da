//! Copies of blocks that were found to be bad: nothing is deduplicated against a block of which no other copy is known.
//!
//! What this host noted itself is kept until it was reported to the target; what the reports on the target say follows from
//! them and is learnt again by a rebuild.

use crate::catalog::error::CatalogError;
use crate::catalog::store::Fault;
use crate::catalog::tables::Tables;
use crate::catalog::{Catalog, key};
use crate::format;
use crate::words::damage::DamageReport;
use crate::words::ids::{BlockId, DamageId, PackId};
use heed::{RoTxn, RwTxn};
use std::collections::{BTreeMap, BTreeSet};

/// Longest description kept, in bytes.
const REASON_MAX_BYTES: usize = 1000;

/// Who knows of a bad copy, as the first byte of its row says.
const NOTED: u8 = 0;
const REPORTED: u8 = 1;

/// Bytes of a key: block id, pack id.
const KEY_LEN: usize = BlockId::LEN + PackId::LEN;

/// A bad copy of a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadCopy {
    /// The block.
    pub block: BlockId,
    /// The pack that holds the copy.
    pub pack: PackId,
    /// What is wrong with it.
    pub reason: String,
    /// Whether a report on the target says so.
    pub is_reported: bool,
}

impl Catalog {
    /// Notes that copies of blocks in a pack are bad, and waits until that is durable: damage must not spread after a power cut
    /// either. Costs no commit when all of it is known.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn note_bad(&self, pack: &PackId, blocks: &[(BlockId, String)]) -> Result<(), CatalogError> {
        let is_known = self.store.read(|tables, txn| {
            blocks.iter().try_fold(true, |known, (block, _)| {
                Ok(known && tables.bad_copies.get(txn, &copy_key(block, pack))?.is_some())
            })
        })?;
        if is_known {
            return Ok(());
        }
        self.store.write_durably(|tables, txn| {
            for (block, reason) in blocks {
                let key = copy_key(block, pack);
                if tables.bad_copies.get(txn, &key)?.is_none() {
                    tables.bad_copies.put(txn, &key, &row(NOTED, reason))?;
                }
            }
            Ok(())
        })
    }

    /// Forgets what this host alone noted about copies in a pack, save those of `still` bad blocks.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn forget_noted(&self, pack: &PackId, still: &BTreeSet<BlockId>) -> Result<(), CatalogError> {
        let noted = self.bad_copies()?.into_iter().filter(|copy| copy.pack == *pack && !copy.is_reported);
        let gone: Vec<_> = noted.filter(|copy| !still.contains(&copy.block)).collect();
        if gone.is_empty() {
            return Ok(());
        }
        self.store.write_durably(|tables, txn| {
            for copy in &gone {
                tables.bad_copies.delete(txn, &copy_key(&copy.block, pack))?;
            }
            Ok(())
        })
    }

    /// Learns a report. Learning it again changes nothing.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn absorb_damage(&self, id: DamageId, report: &DamageReport) -> Result<(), CatalogError> {
        let bytes = format::damage::encode(report);
        self.store.write(|tables, txn| {
            tables.damage.put(txn, id.as_bytes(), &bytes)?;
            for block in &report.blocks {
                tables.bad_copies.put(txn, &copy_key(block, &report.pack), &row(REPORTED, &report.reason))?;
            }
            Ok(())
        })
    }

    /// Forgets a report that is gone from the target: its copies count again, unless another report names them.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn forget_damage(&self, id: DamageId) -> Result<(), CatalogError> {
        self.store.write(|tables, txn| {
            let Some(gone) = tables.damage.get(txn, id.as_bytes())?.map(decode).transpose()? else { return Ok(()) };
            tables.damage.delete(txn, id.as_bytes())?;
            let others = reports(tables, txn)?;
            let others = others.values().filter(|report| report.pack == gone.pack);
            let still: BTreeSet<BlockId> = others.flat_map(|report| report.blocks.iter().copied()).collect();
            for block in gone.blocks.iter().filter(|block| !still.contains(block)) {
                tables.bad_copies.delete(txn, &copy_key(block, &gone.pack))?;
            }
            Ok(())
        })
    }

    /// Every report learnt.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn damage_reports(&self) -> Result<BTreeMap<DamageId, DamageReport>, CatalogError> {
        self.store.read(reports)
    }

    /// Every bad copy known, in order of blocks.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn bad_copies(&self) -> Result<Vec<BadCopy>, CatalogError> {
        self.store.read(|tables, txn| {
            let rows = tables.bad_copies.iter(txn)?;
            rows.map(|row| {
                let (key, row) = row?;
                let [origin] = key::array(row, 0, "bad_copies")?;
                Ok(BadCopy {
                    block: BlockId::from_bytes(key::array(key, 0, "bad_copies")?),
                    pack: PackId::from_bytes(key::array(key, BlockId::LEN, "bad_copies")?),
                    reason: String::from_utf8_lossy(&row[1..]).into_owned(),
                    is_reported: origin == REPORTED,
                })
            })
            .collect()
        })
    }
}

fn copy_key(block: &BlockId, pack: &PackId) -> [u8; KEY_LEN] {
    key::join(&[block.as_bytes(), pack.as_bytes()])
}

fn row(origin: u8, reason: &str) -> Vec<u8> {
    let reason = &reason[..reason.floor_char_boundary(REASON_MAX_BYTES)];
    [&[origin], reason.as_bytes()].concat()
}

fn decode(bytes: &[u8]) -> Result<DamageReport, Fault> {
    format::damage::decode(bytes).map_err(|error| Fault::Corrupt(format!("a damage report: {error}")))
}

pub(super) fn reports(tables: &Tables, txn: &RoTxn) -> Result<BTreeMap<DamageId, DamageReport>, Fault> {
    let rows = tables.damage.iter(txn)?;
    rows.map(|row| {
        let (id, report) = row?;
        Ok((DamageId::from_bytes(key::array(id, 0, "damage")?), decode(report)?))
    })
    .collect()
}

/// The packs whose copy of a block is bad, and why. Nearly always none, which one look into the table tells.
pub(super) fn bad_packs(tables: &Tables, txn: &RoTxn, id: &BlockId) -> Result<Vec<(PackId, String)>, Fault> {
    let mut packs = Vec::new();
    for row in tables.bad_copies.prefix_iter(txn, id.as_bytes())? {
        let (key, row) = row?;
        let reason = String::from_utf8_lossy(row.get(1..).unwrap_or_default()).into_owned();
        packs.push((PackId::from_bytes(key::array(key, BlockId::LEN, "bad_copies")?), reason));
    }
    Ok(packs)
}

/// Gives new tables what was noted here and is on no target.
pub(super) fn take_over(old: &Tables, new: &Tables, txn: &mut RwTxn) -> Result<(), Fault> {
    let mut noted = Vec::new();
    for row in old.bad_copies.iter(txn)? {
        let (key, row) = row?;
        if row.first() == Some(&NOTED) {
            noted.push((key.to_vec(), row.to_vec()));
        }
    }
    for (key, row) in noted {
        if new.bad_copies.get(txn, &key)?.is_none() {
            new.bad_copies.put(txn, &key, &row)?;
        }
    }
    Ok(())
}
