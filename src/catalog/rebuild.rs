//! Making the derived tables anew while the old ones are used, by this process and others.
//!
//! A rebuild fills the second set of tables from the target and then makes it the one that is used, in one transaction: nobody
//! ever sees a catalog that is half full. Meanwhile every change is written to both sets. So what is learnt or published
//! during the rebuild is in the new set if it was on the target too late for the rebuild to find it there. One thing is not: an
//! index fragment is absorbed in several transactions, of which the first may have been before the rebuild began. It is on the target
//! by then, so a rebuild absorbs every fragment it finds itself, whatever the tables say ([`Catalog::absorb_anew`]).
//!
//! A lock on a file lets one rebuild go on at a time. One that was killed leaves the second set behind, which the next to open
//! the catalog, or to rebuild it, takes for what it is.

use crate::catalog::error::CatalogError;
use crate::catalog::store::{Sets, Side};
use crate::catalog::{Catalog, LAYOUT, LAYOUT_KEY, View, damage, index};
use std::fs::{File, TryLockError};
use std::io;
use std::sync::Arc;

const LOCK_NAME: &str = "rebuild.lock";

/// A rebuild under way; dropped, it is given up.
pub struct Rebuild {
    catalog: Catalog,
    lock: Option<File>,
}

impl Catalog {
    /// Begins a rebuild; waits while another process is at one.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn rebuild(&self) -> Result<Rebuild, CatalogError> {
        let lock = self.rebuild_lock()?;
        lock.lock().map_err(|source| self.io(source))?;
        self.store.store.switch(|sets, txn| {
            let Sets { used, .. } = Sets::get(&sets[0], txn)?;
            let other = &sets[usize::from(1 - used)];
            other.clear_derived(txn)?;
            other.facts.put(txn, LAYOUT_KEY, &LAYOUT.to_be_bytes())?;
            Sets { used, rebuilding: true }.put(other, txn)
        })?;
        let view = View { store: Arc::clone(&self.store.store), side: Side::Rebuilt };
        Ok(Rebuild { catalog: Self { store: view }, lock: Some(lock) })
    }

    /// Forgets a rebuild whose process was killed: nothing need be written twice for it any more.
    pub(super) fn end_abandoned_rebuild(&self) -> Result<(), CatalogError> {
        let rebuilding = self.store.read(|tables, txn| Ok(Sets::get(tables, txn)?.rebuilding))?;
        if !rebuilding {
            return Ok(());
        }
        let lock = self.rebuild_lock()?;
        match lock.try_lock() {
            Ok(()) => self.give_up_rebuild(),
            Err(TryLockError::WouldBlock) => Ok(()),
            Err(TryLockError::Error(source)) => Err(self.io(source)),
        }
    }

    fn give_up_rebuild(&self) -> Result<(), CatalogError> {
        self.store.store.switch(|sets, txn| {
            let Sets { used, rebuilding } = Sets::get(&sets[0], txn)?;
            if rebuilding {
                sets[usize::from(1 - used)].clear_derived(txn)?;
                Sets { used, rebuilding: false }.put(&sets[0], txn)?;
            }
            Ok(())
        })
    }

    fn rebuild_lock(&self) -> Result<File, CatalogError> {
        let path = self.store.store.dir().join(LOCK_NAME);
        File::options().write(true).create(true).truncate(false).open(path).map_err(|source| self.io(source))
    }

    fn io(&self, source: io::Error) -> CatalogError {
        CatalogError::Io { path: self.store.store.dir().to_owned(), source }
    }
}

impl Rebuild {
    /// The new tables. What is written here is seen by nobody else yet.
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// Makes the new tables the ones that are used, for every process at once.
    ///
    /// # Errors
    /// See [`CatalogError`]; the old ones stay then.
    pub fn finish(mut self) -> Result<(), CatalogError> {
        let old = self.catalog.store.store.switch(|sets, txn| {
            let Sets { used, .. } = Sets::get(&sets[0], txn)?;
            let (old, new) = (&sets[usize::from(used)], &sets[usize::from(1 - used)]);
            index::take_over(old, new, txn)?;
            damage::take_over(old, new, txn)?;
            // Found good meanwhile by who still believed the old tables; found good anew costs a walk.
            new.checked.clear(txn)?;
            Sets { used: 1 - used, rebuilding: false }.put(new, txn)?;
            Ok(used)
        })?;
        let lock = self.lock.take();
        // What nobody uses any more takes space only; the next rebuild would empty it too.
        let emptied = self.catalog.store.store.switch(|sets, txn| Ok(sets[usize::from(old)].clear_derived(txn)?));
        drop(lock);
        if let Err(error) = emptied {
            tracing::warn!("the tables before a rebuild were not emptied: {error}");
        }
        Ok(())
    }
}

impl Drop for Rebuild {
    fn drop(&mut self) {
        if self.lock.is_some()
            && let Err(error) = self.catalog.give_up_rebuild()
        {
            tracing::warn!("a rebuild that failed is still written to: {error}");
        }
    }
}
