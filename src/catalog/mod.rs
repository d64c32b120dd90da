//! The catalog: what this host knows of the target, in LMDB, shared by every process of the host.
//!
//! It is an index. Everything in it but a few local notes follows from the target and can be learnt again; nothing
//! acknowledged lives here only. Each call reads or writes LMDB in one short transaction and keeps nothing in the process, so
//! what one process writes the next call of any other sees. The tables are described in `tables.rs`, durability, growth
//! and locking in `store.rs`.

mod attributes;
mod condemned;
mod damage;
mod dump;
mod error;
mod index;
mod key;
mod listed;
mod local;
mod lookup;
mod mirror;
mod names;
mod rebuild;
mod records;
mod remains;
mod scrubbed;
mod standing;
mod store;
mod stored;
mod survey;
mod tables;

pub use attributes::Version;
pub use damage::BadCopy;
pub use dump::CatalogDump;
pub use error::CatalogError;
pub use index::PackSummary;
pub use listed::VersionSummary;
pub use local::META_KEY_MAX_BYTES;
pub use mirror::{MirroredNode, short_id};
pub use names::Child;
pub use rebuild::Rebuild;
pub use remains::{Root, Sighting};
pub use standing::Standing;
pub use stored::KnownRecord;
pub use survey::{StoredCopy, Stretch};

use crate::words::clock::Clock;
use heed::{RoTxn, RwTxn};
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use store::{Fault, Side, Store};
use tables::Tables;

/// How the tables are laid out; another number means that this program cannot read them.
const LAYOUT: u32 = 1;
const LAYOUT_KEY: &[u8] = b"layout";

/// An open catalog. Clones share it; one process opens a directory once. Not to be used across a fork.
#[derive(Clone)]
pub struct Catalog {
    store: View,
}

/// A set of derived tables of the store.
#[derive(Clone)]
struct View {
    store: Arc<Store>,
    side: Side,
}

impl View {
    fn read<T>(&self, job: impl Fn(&Tables, &RoTxn) -> Result<T, Fault>) -> Result<T, CatalogError> {
        self.store.read(self.side, job)
    }

    fn write<T>(&self, job: impl Fn(&Tables, &mut RwTxn) -> Result<T, Fault>) -> Result<T, CatalogError> {
        self.store.write(self.side, job)
    }

    fn write_durably<T>(&self, job: impl Fn(&Tables, &mut RwTxn) -> Result<T, Fault>) -> Result<T, CatalogError> {
        self.store.write_durably(job)
    }
}

impl Catalog {
    /// Opens the catalog in `dir`; a new and empty one when there is none, whose host id comes from `clock`.
    ///
    /// # Errors
    /// [`CatalogError::Busy`] when this process has it open already; [`CatalogError::Corrupt`] when it cannot be understood.
    pub fn open(dir: &Path, clock: &dyn Clock) -> Result<Self, CatalogError> {
        Self::open_with_map(dir, clock, store::INITIAL_MAP_BYTES)
    }

    /// Like [`Catalog::open`], with another address space to begin with: a multiple of the page size.
    ///
    /// # Errors
    /// As [`Catalog::open`].
    pub fn open_with_map(dir: &Path, clock: &dyn Clock, initial_map_bytes: usize) -> Result<Self, CatalogError> {
        let store = Arc::new(Store::open(dir, initial_map_bytes)?);
        let catalog = Self { store: View { store, side: Side::Used } };
        catalog.check_layout()?;
        catalog.make_host_id(clock)?;
        catalog.end_abandoned_rebuild()?;
        Ok(catalog)
    }

    /// Deletes the catalog in `dir`, damaged or not, with what was local in it.
    ///
    /// # Errors
    /// [`CatalogError::Busy`] when this or another process has it open; [`CatalogError::Io`].
    pub fn discard(dir: &Path) -> Result<(), CatalogError> {
        store::discard(dir)
    }

    /// Bytes of the catalog's file and of the address space set aside for it.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn size_bytes(&self) -> Result<(u64, u64), CatalogError> {
        self.store.store.sizes()
    }

    fn check_layout(&self) -> Result<(), CatalogError> {
        let layout = self.store.read(layout)?;
        if layout.is_none() {
            self.store.write(|tables, txn| Ok(tables.facts.put(txn, LAYOUT_KEY, &LAYOUT.to_be_bytes())?))?;
        }
        match layout {
            None | Some(LAYOUT) => Ok(()),
            Some(other) => {
                Err(self.store.store.describe(Fault::Corrupt(format!("its layout is {other}, not {LAYOUT}"))))
            }
        }
    }
}

fn layout(tables: &Tables, txn: &heed::RoTxn) -> Result<Option<u32>, Fault> {
    let bytes = tables.facts.get(txn, LAYOUT_KEY)?;
    bytes.map(|bytes| key::array(bytes, 0, "facts").map(u32::from_be_bytes)).transpose()
}

impl fmt::Debug for Catalog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Catalog").field("dir", &self.store.store.dir()).finish()
    }
}
