//! The versions that are open as disks, or hold an overlay. A version is one [`Disk`] at a time, whoever opens it.

use crate::catalog::VersionSummary;
use crate::fs::seam::Answer;
use crate::fs::trees::disk::Disk;
use crate::ops::overlays;
use crate::repo::Repository;
use crate::words::ids::Uid;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;

/// See the module.
pub(super) struct Disks {
    repo: Arc<Repository>,
    open: Mutex<HashMap<Uid, Arc<Disk>>>,
}

impl Disks {
    pub(super) fn new(repo: Arc<Repository>) -> Self {
        Self { repo, open: Mutex::default() }
    }

    /// The disk of a version.
    pub(super) fn of(&self, version: &VersionSummary) -> Answer<Arc<Disk>> {
        let mut open = self.open.lock();
        if let Some(disk) = open.get(&version.uid) {
            return Ok(Arc::clone(disk));
        }
        // Nobody but this table holds a disk counted once, and nobody can take it from here meanwhile.
        open.retain(|_, disk| Arc::strong_count(disk) > 1 || disk.holds_overlay());
        let disk = Arc::new(Disk::open(&self.repo, version.clone())?);
        open.insert(version.uid, Arc::clone(&disk));
        Ok(disk)
    }

    /// The disk of a version if it is open or holds an overlay: what `stat` needs, and costs no more than a look at a
    /// directory otherwise.
    pub(super) fn existing(&self, version: &VersionSummary) -> Answer<Option<Arc<Disk>>> {
        if let Some(disk) = self.open.lock().get(&version.uid) {
            return Ok(Some(Arc::clone(disk)));
        }
        if overlays::exists(&self.repo, version.uid) { self.of(version).map(Some) } else { Ok(None) }
    }

    /// Forgets the disk of a version that was deleted.
    pub(super) fn forget(&self, uid: Uid) {
        self.open.lock().remove(&uid);
    }

    /// Every disk that is open.
    pub(super) fn all(&self) -> Vec<Arc<Disk>> {
        self.open.lock().values().cloned().collect()
    }
}
