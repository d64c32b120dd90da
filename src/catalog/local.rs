//! What only this host knows and no target can give back: its id, hidden names, what other layers keep. Written durably.

use crate::catalog::error::CatalogError;
use crate::catalog::store::Fault;
use crate::catalog::tables::Tables;
use crate::catalog::{Catalog, key, lookup};
use crate::words::clock::{Clock, ClockExt};
use crate::words::ids::HostId;
use crate::words::name::Name;
use heed::RoTxn;
use sha2::{Digest, Sha256};

const HOST_ID: &[u8] = b"host id";
const META: &[u8] = b"meta/";

/// Longest key of [`Catalog::set_meta`], in bytes.
pub const META_KEY_MAX_BYTES: usize = 500;

impl Catalog {
    /// The id of this host, that is of this state directory.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn host_id(&self) -> Result<HostId, CatalogError> {
        self.store.read(|tables, txn| {
            let id = tables.local.get(txn, HOST_ID)?;
            let id = id.ok_or_else(|| Fault::Corrupt("it has no host id".to_owned()))?;
            Ok(HostId::from_bytes(key::array(id, 0, "local")?))
        })
    }

    /// Gives a new catalog its host id.
    pub(super) fn make_host_id(&self, clock: &dyn Clock) -> Result<(), CatalogError> {
        if self.store.read(|tables, txn| Ok(tables.local.get(txn, HOST_ID)?.is_some()))? {
            return Ok(());
        }
        let id = clock.host_id();
        self.store.write_durably(|tables, txn| {
            // Another process may have been faster; the first one stands.
            if tables.local.get(txn, HOST_ID)?.is_none() {
                tables.local.put(txn, HOST_ID, id.as_bytes())?;
            }
            Ok(())
        })
    }

    /// Hides a name in `incoming/`, until it has a version that is newer than its newest is now, whoever publishes it.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn hide_name(&self, name: &Name) -> Result<(), CatalogError> {
        let text = name.as_str().as_bytes();
        self.store.write_durably(|tables, txn| {
            let mut row = [text, &[0]].concat();
            if let Some((created, uid)) = lookup::newest_moment(tables, txn, name)? {
                row.extend_from_slice(&key::time_bytes(created));
                row.extend_from_slice(uid.as_bytes());
            }
            Ok(tables.hidden.put(txn, &Sha256::digest(text), &row)?)
        })
    }

    /// Shows a name again. Costs no commit when it was not hidden.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn unhide_name(&self, name: &Name) -> Result<(), CatalogError> {
        let key = Sha256::digest(name.as_str().as_bytes());
        if self.store.read(|tables, txn| Ok(tables.hidden.get(txn, &key)?.is_none()))? {
            return Ok(());
        }
        self.store.write_durably(|tables, txn| {
            tables.hidden.delete(txn, &key)?;
            Ok(())
        })
    }

    /// Whether a name is hidden.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn is_hidden(&self, name: &Name) -> Result<bool, CatalogError> {
        let key = Sha256::digest(name.as_str().as_bytes());
        self.store.read(|tables, txn| match tables.hidden.get(txn, &key)? {
            None => Ok(false),
            Some(row) => Ok(still_hidden(tables, txn, row)?.is_some()),
        })
    }

    /// Every hidden name, sorted.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn hidden(&self) -> Result<Vec<Name>, CatalogError> {
        let mut names = self.store.read(|tables, txn| {
            let rows = tables.hidden.iter(txn)?;
            rows.filter_map(|row| match row {
                Ok((_, row)) => still_hidden(tables, txn, row).transpose(),
                Err(error) => Some(Err(error.into())),
            })
            .collect::<Result<Vec<_>, _>>()
        })?;
        names.sort();
        Ok(names)
    }

    /// What [`Catalog::set_meta`] has stored last.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn get_meta(&self, key: &str) -> Result<Option<Vec<u8>>, CatalogError> {
        let key = meta_key(key);
        self.store.read(|tables, txn| Ok(tables.local.get(txn, &key)?.map(<[u8]>::to_vec)))
    }

    /// Keeps bytes for another layer. The key is at most [`META_KEY_MAX_BYTES`] long.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn set_meta(&self, key: &str, bytes: &[u8]) -> Result<(), CatalogError> {
        let key = meta_key(key);
        self.store.write_durably(|tables, txn| Ok(tables.local.put(txn, &key, bytes)?))
    }

    /// What is kept under keys that begin with `prefix`, in order of keys.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn metas(&self, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, CatalogError> {
        let prefix = meta_key(prefix);
        self.store.read(|tables, txn| {
            let rows = tables.local.prefix_iter(txn, &prefix)?;
            rows.map(|row| {
                let (key, bytes) = row?;
                let key = String::from_utf8_lossy(key.get(META.len()..).unwrap_or_default()).into_owned();
                Ok((key, bytes.to_vec()))
            })
            .collect()
        })
    }

    /// Drops what was kept under a key.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn remove_meta(&self, key: &str) -> Result<(), CatalogError> {
        let key = meta_key(key);
        self.store.write_durably(|tables, txn| {
            tables.local.delete(txn, &key)?;
            Ok(())
        })
    }
}

/// The name in a row of `hidden`; `None` when a version has come since that is newer than the newest was then.
fn still_hidden(tables: &Tables, txn: &RoTxn, row: &[u8]) -> Result<Option<Name>, Fault> {
    // Names hold no zero byte.
    let (text, then) = row.split_at(row.iter().position(|byte| *byte == 0).unwrap_or(row.len()));
    let name = std::str::from_utf8(text).ok().and_then(|text| Name::new(text).ok());
    let name = name.ok_or_else(|| Fault::Corrupt("a hidden name is none".to_owned()))?;
    let then = then.get(1..).filter(|then| then.len() == key::MOMENT_LEN);
    let then = then.map(|then| key::moment(then, "hidden")).transpose()?;
    let now = lookup::newest_moment(tables, txn, &name)?;
    Ok((now <= then).then_some(name))
}

/// A key that cannot be mistaken for one of this layer.
fn meta_key(key: &str) -> Vec<u8> {
    assert!(key.len() <= META_KEY_MAX_BYTES, "keys are names chosen by the program");
    [META, key.as_bytes()].concat()
}
