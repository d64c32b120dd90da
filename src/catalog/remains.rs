//! What a collection remembers from one run to the next: when it first saw a pack that nothing refers to, whether anything ever
//! did, and the images of records that went since. None of it matters for safety: it tells what an unfinished backup stored,
//! which is worth keeping for a while, from what a removed version leaves behind, which is not.

use crate::catalog::error::CatalogError;
use crate::catalog::key::RecordRow;
use crate::catalog::store::Fault;
use crate::catalog::tables::Tables;
use crate::catalog::{Catalog, key, stored};
use crate::format;
use crate::words::ids::{BlockId, PackId, Uid};
use crate::words::record::{Record, RecordKind, Verdict};
use crate::words::stamp::Stamp;
use heed::RwTxn;
use std::collections::HashMap;

/// What was seen of a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sighting {
    /// A record referred to something in it once.
    Referenced,
    /// Nothing ever did, since this moment at least.
    Unreferenced(Stamp),
}

/// The root of a map, and the level it stands at.
pub type Root = (BlockId, u8);

impl Catalog {
    /// What earlier collections saw.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn sightings(&self) -> Result<HashMap<PackId, Sighting>, CatalogError> {
        self.store.read(|tables, txn| {
            let rows = tables.sightings.iter(txn)?;
            rows.map(|row| {
                let (pack, row) = row?;
                let pack = PackId::from_bytes(key::array(pack, 0, "sightings")?);
                let millis = i64::from_be_bytes(key::array(row, 0, "sightings")?);
                let seen = match millis {
                    i64::MIN => Sighting::Referenced,
                    millis => Sighting::Unreferenced(Stamp::from_millis(millis)),
                };
                Ok((pack, seen))
            })
            .collect()
        })
    }

    /// Replaces what is remembered of packs.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn set_sightings(&self, seen: &HashMap<PackId, Sighting>) -> Result<(), CatalogError> {
        let mut rows: Vec<_> = seen.iter().collect();
        rows.sort_unstable_by_key(|(pack, _)| **pack);
        self.store.write(|tables, txn| {
            tables.sightings.clear(txn)?;
            for (pack, seen) in &rows {
                let millis = match seen {
                    Sighting::Referenced => i64::MIN,
                    Sighting::Unreferenced(since) => since.millis(),
                };
                tables.sightings.put(txn, pack.as_bytes(), &millis.to_be_bytes())?;
            }
            Ok(())
        })
    }

    /// The images of records that were removed since [`Catalog::forget_removed`], as far as this host knew them; of a draft the
    /// last one.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn removed_roots(&self) -> Result<Vec<Root>, CatalogError> {
        self.store.read(|tables, txn| {
            let rows = tables.removed.iter(txn)?;
            rows.map(|row| {
                let row = row?.1;
                let [level] = key::array(row, 0, "removed")?;
                Ok((BlockId::from_bytes(key::array(row, 1, "removed")?), level))
            })
            .collect()
        })
    }

    /// Forgets them.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn forget_removed(&self) -> Result<(), CatalogError> {
        self.store.write(|tables, txn| Ok(tables.removed.clear(txn)?))
    }
}

/// Notes the image of a record that is about to be forgotten. `left` is what its tombstone says, if anything.
pub(super) fn note_removed(tables: &Tables, txn: &mut RwTxn, uid: Uid, left: &[u8]) -> Result<(), Fault> {
    let known = match stored::row(tables, txn, uid)? {
        Some(RecordRow { verdict: Verdict::Confirmed, record: Some((_, _, bytes)) }) => Some(stored::decode(bytes)?),
        // What a tombstone says is true of versions that were confirmed, and known to no one here.
        _ if !left.is_empty() => format::removed::decode(left).ok().map(|removed| removed.record),
        _ => None,
    };
    let Some(Record { kind, image, draft, .. }) = known.filter(|record| !record.image.root.is_hole()) else {
        return Ok(());
    };
    let key = if kind == RecordKind::Draft { *draft.as_bytes() } else { *uid.as_bytes() };
    let row: [u8; 33] = key::join(&[&[image.depth().root_level()], image.root.as_bytes()]);
    Ok(tables.removed.put(txn, &key, &row)?)
}
