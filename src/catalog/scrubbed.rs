//! What this host has looked at: when each pack was read from end to end, and how each version was found.

use crate::catalog::error::CatalogError;
use crate::catalog::{Catalog, key};
use crate::words::ids::{PackId, Uid};
use crate::words::stamp::Stamp;
use std::collections::{BTreeMap, BTreeSet};

impl Catalog {
    /// Notes when packs were read from end to end.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn set_scrubbed(&self, packs: &[(PackId, Stamp)]) -> Result<(), CatalogError> {
        self.store.write(|tables, txn| {
            for (pack, at) in packs {
                tables.scrubbed.put(txn, pack.as_bytes(), &key::time_bytes(*at))?;
            }
            Ok(())
        })
    }

    /// When each pack was last read from end to end.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn scrubbed(&self) -> Result<BTreeMap<PackId, Stamp>, CatalogError> {
        self.store.read(|tables, txn| {
            let rows = tables.scrubbed.iter(txn)?;
            rows.map(|row| {
                let (pack, at) = row?;
                let pack = PackId::from_bytes(key::array(pack, 0, "scrubbed")?);
                Ok((pack, key::time(key::array(at, 0, "scrubbed")?)))
            })
            .collect()
        })
    }

    /// Forgets when packs were read, once they are gone.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn forget_scrubbed(&self, packs: &[PackId]) -> Result<(), CatalogError> {
        self.store.write(|tables, txn| {
            for pack in packs {
                tables.scrubbed.delete(txn, pack.as_bytes())?;
            }
            Ok(())
        })
    }

    /// Replaces what is remembered of versions: one text each.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn set_findings(&self, found: &[(Uid, String)], gone: &[Uid]) -> Result<(), CatalogError> {
        self.store.write(|tables, txn| {
            for (uid, text) in found {
                tables.findings.put(txn, uid.as_bytes(), text.as_bytes())?;
            }
            for uid in gone {
                tables.findings.delete(txn, uid.as_bytes())?;
            }
            Ok(())
        })
    }

    /// What is remembered of a version.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn finding(&self, uid: Uid) -> Result<Option<String>, CatalogError> {
        self.store.read(|tables, txn| {
            let text = tables.findings.get(txn, uid.as_bytes())?;
            Ok(text.map(|text| String::from_utf8_lossy(text).into_owned()))
        })
    }

    /// The versions of which something is remembered.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn found_versions(&self) -> Result<BTreeSet<Uid>, CatalogError> {
        self.store.read(|tables, txn| {
            let rows = tables.findings.iter(txn)?;
            rows.map(|row| Ok(Uid::from_bytes(key::array(row?.0, 0, "findings")?))).collect()
        })
    }
}
