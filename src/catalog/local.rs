//! What only this host knows and no target can give back: its id, hidden names, what other layers keep. Written durably.

use crate::catalog::error::CatalogError;
use crate::catalog::store::Fault;
use crate::catalog::{Catalog, key};
use crate::words::clock::{Clock, ClockExt};
use crate::words::ids::HostId;
use crate::words::name::Name;
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

    /// Hides a name in `incoming/`.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn hide_name(&self, name: &Name) -> Result<(), CatalogError> {
        let text = name.as_str().as_bytes();
        self.store.write_durably(|tables, txn| Ok(tables.hidden.put(txn, &Sha256::digest(text), text)?))
    }

    /// Shows a name again. Costs no commit when it was not hidden.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn unhide_name(&self, name: &Name) -> Result<(), CatalogError> {
        if !self.is_hidden(name)? {
            return Ok(());
        }
        self.store.write_durably(|tables, txn| {
            tables.hidden.delete(txn, &Sha256::digest(name.as_str().as_bytes()))?;
            Ok(())
        })
    }

    /// Whether a name is hidden.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn is_hidden(&self, name: &Name) -> Result<bool, CatalogError> {
        let key = Sha256::digest(name.as_str().as_bytes());
        self.store.read(|tables, txn| Ok(tables.hidden.get(txn, &key)?.is_some()))
    }

    /// Every hidden name, sorted.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn hidden(&self) -> Result<Vec<Name>, CatalogError> {
        let mut names = self.store.read(|tables, txn| {
            let rows = tables.hidden.iter(txn)?;
            rows.map(|row| {
                let name = std::str::from_utf8(row?.1).ok().and_then(|text| Name::new(text).ok());
                name.ok_or_else(|| Fault::Corrupt("a hidden name is none".to_owned()))
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

/// A key that cannot be mistaken for one of this layer.
fn meta_key(key: &str) -> Vec<u8> {
    assert!(key.len() <= META_KEY_MAX_BYTES, "keys are names chosen by the program");
    [META, key.as_bytes()].concat()
}
