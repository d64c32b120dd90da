//! Attribute entries, and what they fold into.

use crate::catalog::error::CatalogError;
use crate::catalog::{Catalog, key, listed, stored};
use crate::format;
use crate::words::attribute::{AttributeEntry, Attributes};
use crate::words::ids::{EntryId, Uid};
use crate::words::record::{Record, RecordKind, Verdict};
use std::collections::HashSet;

/// A version as it stands: the record and what has been said of it since.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// As published.
    pub record: Record,
    /// As folded from the record's and all entries.
    pub attributes: Attributes,
    /// Whether it is confirmed.
    pub verdict: Verdict,
}

impl Catalog {
    /// Learns an attribute entry; learning it again changes nothing. It may come before its record, and is ignored when that
    /// has a tombstone.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn add_entry(&self, entry: &AttributeEntry) -> Result<(), CatalogError> {
        self.add_entries(std::slice::from_ref(entry))
    }

    /// Learns several entries in one transaction: other processes see all or none of them.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn add_entries(&self, entries: &[AttributeEntry]) -> Result<(), CatalogError> {
        let rows: Vec<_> = entries.iter().map(|entry| (entry, format::attribute::encode(entry))).collect();
        self.store.write(|tables, txn| {
            for (entry, bytes) in &rows {
                let key = key::entry(entry.version, entry.lamport, entry.entry);
                let known = tables.entries.get(txn, &key)?.is_some();
                if known || stored::has_tombstone(tables, txn, entry.version)? {
                    continue;
                }
                tables.entries.put(txn, &key, bytes)?;
                listed::insert(tables, txn, entry.version)?;
            }
            Ok(())
        })
    }

    /// All entries of a version in the order in which they fold.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn entries(&self, uid: Uid) -> Result<Vec<AttributeEntry>, CatalogError> {
        self.store.read(|tables, txn| stored::entries(tables, txn, uid))
    }

    /// Every entry known, without reading more than that.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn known_entries(&self) -> Result<HashSet<(Uid, EntryId)>, CatalogError> {
        self.store.read(|tables, txn| {
            let mut known = HashSet::new();
            for row in tables.entries.iter(txn)? {
                let key = row?.0;
                let uid = Uid::from_bytes(key::array(key, 0, "entries")?);
                known.insert((uid, EntryId::from_bytes(key::array(key, 24, "entries")?)));
            }
            Ok(known)
        })
    }

    /// The clock of the next entry for a version: one more than the largest known, 1 when there is none.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn next_lamport(&self, uid: Uid) -> Result<u64, CatalogError> {
        self.store.read(|tables, txn| {
            let Some(last) = tables.entries.rev_prefix_iter(txn, uid.as_bytes())?.next() else { return Ok(1) };
            let lamport = u64::from_be_bytes(key::array(last?.0, 16, "entries")?);
            Ok(lamport.saturating_add(1))
        })
    }

    /// The attributes of a record of any kind as they stand.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn attributes(&self, uid: Uid) -> Result<Option<Attributes>, CatalogError> {
        self.store.read(|tables, txn| {
            let Some((record, _)) = stored::record(tables, txn, uid)? else { return Ok(None) };
            stored::folded(tables, txn, &record).map(Some)
        })
    }

    /// A version, whatever its verdict; `None` when there is no record of that uid or it is no version.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn version(&self, uid: Uid) -> Result<Option<Version>, CatalogError> {
        self.store.read(|tables, txn| {
            let Some((record, verdict)) = stored::record(tables, txn, uid)? else { return Ok(None) };
            if record.kind != RecordKind::Version {
                return Ok(None);
            }
            let attributes = stored::folded(tables, txn, &record)?;
            Ok(Some(Version { record, attributes, verdict }))
        })
    }
}
