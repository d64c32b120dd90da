//! Reading what is stored of one record: its row, its entries, its tombstone. Everything that lists or changes records builds
//! on this.

use crate::catalog::key::{self, RecordRow};
use crate::catalog::store::Fault;
use crate::catalog::tables::Tables;
use crate::format;
use crate::words::attribute::{AttributeEntry, Attributes, fold};
use crate::words::ids::Uid;
use crate::words::record::{Record, RecordKind, Removed, Verdict};
use heed::RoTxn;
use std::collections::BTreeSet;

/// What can be said of a record without decoding it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct KnownRecord {
    /// Which.
    pub uid: Uid,
    /// What it stands for.
    pub kind: RecordKind,
    /// Whether it is confirmed.
    pub verdict: Verdict,
}

/// The row of a record, which may hold a verdict only.
pub(super) fn row<'t>(tables: &Tables, txn: &'t RoTxn, uid: Uid) -> Result<Option<RecordRow<'t>>, Fault> {
    tables.records.get(txn, uid.as_bytes())?.map(RecordRow::decode).transpose()
}

pub(super) fn decode(bytes: &[u8]) -> Result<Record, Fault> {
    format::record::decode(bytes).map_err(|error| Fault::Corrupt(format!("a record: {error}")))
}

pub(super) fn record(tables: &Tables, txn: &RoTxn, uid: Uid) -> Result<Option<(Record, Verdict)>, Fault> {
    let Some(row) = row(tables, txn, uid)? else { return Ok(None) };
    row.record.map(|(_, _, bytes)| Ok((decode(bytes)?, row.verdict))).transpose()
}

pub(super) fn known_records(tables: &Tables, txn: &RoTxn) -> Result<Vec<KnownRecord>, Fault> {
    let mut known = Vec::new();
    for row in tables.records.iter(txn)? {
        let (uid, row) = row?;
        let RecordRow { verdict, record } = RecordRow::decode(row)?;
        if let Some((kind, ..)) = record {
            known.push(KnownRecord { uid: Uid::from_bytes(key::array(uid, 0, "records")?), kind, verdict });
        }
    }
    Ok(known)
}

pub(super) fn has_tombstone(tables: &Tables, txn: &RoTxn, uid: Uid) -> Result<bool, Fault> {
    Ok(tables.tombstones.get(txn, uid.as_bytes())?.is_some())
}

pub(super) fn tombstones(tables: &Tables, txn: &RoTxn) -> Result<BTreeSet<Uid>, Fault> {
    let uids = tables.tombstones.iter(txn)?;
    uids.map(|row| Ok(Uid::from_bytes(key::array(row?.0, 0, "tombstones")?))).collect()
}

pub(super) fn removed(tables: &Tables, txn: &RoTxn) -> Result<Vec<Removed>, Fault> {
    let mut found = Vec::new();
    for row in tables.tombstones.iter(txn)? {
        let (_, left) = row?;
        if !left.is_empty() {
            let left = format::removed::decode(left);
            found.push(left.map_err(|error| Fault::Corrupt(format!("a tombstone: {error}")))?);
        }
    }
    Ok(found)
}

pub(super) fn entries(tables: &Tables, txn: &RoTxn, uid: Uid) -> Result<Vec<AttributeEntry>, Fault> {
    let rows = tables.entries.prefix_iter(txn, uid.as_bytes())?;
    rows.map(|row| {
        let entry = format::attribute::decode(row?.1);
        entry.map_err(|error| Fault::Corrupt(format!("an attribute entry of {uid}: {error}")))
    })
    .collect()
}

pub(super) fn folded(tables: &Tables, txn: &RoTxn, record: &Record) -> Result<Attributes, Fault> {
    Ok(fold(&record.attributes, &entries(tables, txn, record.uid)?))
}
