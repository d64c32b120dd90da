//! Records, what is known of their confirmation, and tombstones.

use crate::catalog::error::CatalogError;
use crate::catalog::key::{RecordRow, rank};
use crate::catalog::store::Fault;
use crate::catalog::stored::{self, KnownRecord};
use crate::catalog::tables::Tables;
use crate::catalog::{Catalog, listed, remains};
use crate::format;
use crate::words::ids::Uid;
use crate::words::record::{Record, RecordKind, Removed, Verdict};
use heed::RwTxn;
use std::collections::BTreeSet;

impl Catalog {
    /// Learns a record. Records are immutable: one that is known stays as it is. Its verdict only ever rises, from pending
    /// over withdrawing to confirmed, because the objects that say so are never taken back: whoever read the target earlier
    /// and writes later cannot hide what another process has confirmed meanwhile. A record with a tombstone is ignored.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn put_record(&self, record: &Record, verdict: Verdict) -> Result<(), CatalogError> {
        self.put_all(&[(record, verdict)])
    }

    /// Learns several records in one transaction: other processes see all or none of them.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn put_records(&self, records: &[(Record, Verdict)]) -> Result<(), CatalogError> {
        let records: Vec<_> = records.iter().map(|(record, verdict)| (record, *verdict)).collect();
        self.put_all(&records)
    }

    fn put_all(&self, records: &[(&Record, Verdict)]) -> Result<(), CatalogError> {
        let rows: Vec<_> = records.iter().map(|row| (row.0, row.1, format::record::encode(row.0))).collect();
        self.store.write(|tables, txn| {
            rows.iter().try_for_each(|(record, verdict, bytes)| put(tables, txn, record, *verdict, bytes))
        })
    }

    /// Learns a verdict, which only ever rises (see [`Catalog::put_record`]). It may come before its record.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn set_verdict(&self, uid: Uid, verdict: Verdict) -> Result<(), CatalogError> {
        self.set_verdicts(&[(uid, verdict)])
    }

    /// Learns several verdicts in one transaction.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn set_verdicts(&self, verdicts: &[(Uid, Verdict)]) -> Result<(), CatalogError> {
        self.store.write(|tables, txn| {
            for (uid, verdict) in verdicts {
                if !stored::has_tombstone(tables, txn, *uid)? {
                    raise(tables, txn, *uid, *verdict)?;
                }
            }
            Ok(())
        })
    }

    /// A record and its verdict.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn record(&self, uid: Uid) -> Result<Option<(Record, Verdict)>, CatalogError> {
        self.store.read(|tables, txn| stored::record(tables, txn, uid))
    }

    /// Forgets a record, its verdict and its attribute entries.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn remove_record(&self, uid: Uid) -> Result<(), CatalogError> {
        self.store.write(|tables, txn| {
            remains::note_removed(tables, txn, uid, &[])?;
            listed::remove(tables, txn, uid)?;
            remove_entries(tables, txn, uid)?;
            tables.records.delete(txn, uid.as_bytes())?;
            Ok(())
        })
    }

    /// Every record of a kind, whatever its verdict, in order of uid.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn records(&self, kind: RecordKind) -> Result<Vec<(Record, Verdict)>, CatalogError> {
        self.store.read(|tables, txn| {
            let mut found = Vec::new();
            for row in tables.records.iter(txn)? {
                let row = RecordRow::decode(row?.1)?;
                if let Some((_, _, bytes)) = row.record.filter(|(row_kind, ..)| *row_kind == kind) {
                    found.push((stored::decode(bytes)?, row.verdict));
                }
            }
            Ok(found)
        })
    }

    /// The uids of all records of a kind, whatever their verdict, in order.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn record_uids(&self, kind: RecordKind) -> Result<Vec<Uid>, CatalogError> {
        let known = self.known_records()?.into_iter();
        Ok(known.filter(|known| known.kind == kind).map(|known| known.uid).collect())
    }

    /// Every record known, in order of uid, without reading more than that.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn known_records(&self) -> Result<Vec<KnownRecord>, CatalogError> {
        self.store.read(stored::known_records)
    }

    /// Whether there is nothing to learn from reading this record on the target: it is known, or it has a tombstone.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn is_known(&self, uid: Uid) -> Result<bool, CatalogError> {
        self.store.read(|tables, txn| {
            let known = stored::row(tables, txn, uid)?.is_some_and(|row| row.record.is_some());
            Ok(known || stored::has_tombstone(tables, txn, uid)?)
        })
    }

    /// Learns that a record was removed: it and its verdict are forgotten, and ignored when they arrive again. Entries that
    /// are known stay until [`Catalog::remove_record`], so that whoever finishes the removal knows what to delete.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn add_tombstone(&self, uid: Uid) -> Result<(), CatalogError> {
        self.bury(uid, &[])
    }

    /// As [`Catalog::add_tombstone`], and keeps what is left of the version.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn add_removed(&self, removed: &Removed) -> Result<(), CatalogError> {
        self.bury(removed.record.uid, &format::removed::encode(removed))
    }

    /// The first that says anything of a version stands.
    fn bury(&self, uid: Uid, left: &[u8]) -> Result<(), CatalogError> {
        self.store.write(|tables, txn| {
            let known = tables.tombstones.get(txn, uid.as_bytes())?.map(<[u8]>::is_empty);
            if known.is_none() {
                remains::note_removed(tables, txn, uid, left)?;
                listed::remove(tables, txn, uid)?;
                tables.records.delete(txn, uid.as_bytes())?;
            }
            if known.is_none_or(|says_nothing| says_nothing) {
                tables.tombstones.put(txn, uid.as_bytes(), left)?;
            }
            Ok(())
        })
    }

    /// What is left of versions that were removed, oldest first. Of those removed by early releases nothing is.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn removed(&self) -> Result<Vec<Removed>, CatalogError> {
        let mut removed = self.store.read(stored::removed)?;
        removed.sort_by_key(|removed| (removed.record.created, removed.record.uid));
        Ok(removed)
    }

    /// Forgets a tombstone that is gone from the target.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn remove_tombstone(&self, uid: Uid) -> Result<(), CatalogError> {
        self.store.write(|tables, txn| {
            tables.tombstones.delete(txn, uid.as_bytes())?;
            Ok(())
        })
    }

    /// Whether a record is known to have been removed.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn has_tombstone(&self, uid: Uid) -> Result<bool, CatalogError> {
        self.store.read(|tables, txn| stored::has_tombstone(tables, txn, uid))
    }

    /// Every tombstone.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn tombstones(&self) -> Result<BTreeSet<Uid>, CatalogError> {
        self.store.read(stored::tombstones)
    }
}

fn put(tables: &Tables, txn: &mut RwTxn, record: &Record, verdict: Verdict, bytes: &[u8]) -> Result<(), Fault> {
    let known = stored::row(tables, txn, record.uid)?;
    if known.is_some_and(|row| row.record.is_some()) {
        return raise(tables, txn, record.uid, verdict);
    }
    let known = known.map_or(Verdict::Pending, |row| row.verdict);
    if stored::has_tombstone(tables, txn, record.uid)? {
        return Ok(());
    }
    let verdict = if rank(known) > rank(verdict) { known } else { verdict };
    let row = RecordRow { verdict, record: Some((record.kind, record.created, bytes)) };
    tables.records.put(txn, record.uid.as_bytes(), &row.encode())?;
    listed::insert(tables, txn, record.uid)
}

fn raise(tables: &Tables, txn: &mut RwTxn, uid: Uid, verdict: Verdict) -> Result<(), Fault> {
    let known = stored::row(tables, txn, uid)?.unwrap_or(RecordRow { verdict: Verdict::Pending, record: None });
    if rank(verdict) <= rank(known.verdict) {
        return Ok(());
    }
    let raised = RecordRow { verdict, ..known }.encode();
    tables.records.put(txn, uid.as_bytes(), &raised)?;
    listed::insert(tables, txn, uid)
}

fn remove_entries(tables: &Tables, txn: &mut RwTxn, uid: Uid) -> Result<(), Fault> {
    let rows = tables.entries.prefix_iter(txn, uid.as_bytes())?;
    let keys = rows.map(|row| Ok(row?.0.to_vec())).collect::<Result<Vec<_>, Fault>>()?;
    for key in keys {
        tables.entries.delete(txn, &key)?;
    }
    Ok(())
}
