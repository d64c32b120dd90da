//! rmdir deletes a version, unlink never does; discarding an overlay.

use crate::fs::errno::Errno;
use crate::fs::nodes::{Node, VersionFile};
use crate::fs::process::{ProcessId, identify};
use crate::fs::seam::{Answer, Caller, NodeKind};
use crate::fs::trees::attached::is_attached;
use crate::fs::trees::{Trees, failed};
use crate::ops::remove::{self, Consent, Options};
use crate::words::ids::Uid;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How long a refused unlink keeps a process from deleting versions. A tool that empties directories before it removes them
/// does so within this time; a person at a shell starts a process for each command.
const MEMORY: Duration = Duration::from_secs(600);
/// For processes we cannot tell apart, because they live in a pid namespace we do not see.
const MEMORY_OF_STRANGERS: Duration = Duration::from_secs(10);

/// Processes that tried to unlink a file of a version: tools that delete trees go on after EPERM, and must not get the whole
/// version by rmdir.
#[derive(Default)]
pub(super) struct Unlinkers(Mutex<HashMap<Option<ProcessId>, Instant>>);

impl Unlinkers {
    fn note(&self, caller: Caller) {
        let mut tried = self.0.lock();
        tried.retain(|_, at| at.elapsed() < MEMORY);
        tried.insert(identify(caller.pid), Instant::now());
    }

    fn has_tried(&self, caller: Caller) -> bool {
        let process = identify(caller.pid);
        let memory = if process.is_some() { MEMORY } else { MEMORY_OF_STRANGERS };
        self.0.lock().get(&process).is_some_and(|at| at.elapsed() < memory)
    }
}

impl Trees {
    /// unlink(2): always refused; inside a version it is also remembered.
    ///
    /// # Errors
    /// EPERM, or EISDIR for what is a directory.
    pub fn unlink(&self, caller: Caller, parent: &Node, component: &str) -> Answer<()> {
        let node = self.find(parent, component)?;
        if let Node::VersionFile(..) = node {
            self.unlinkers.note(caller);
        }
        Err(if node.kind() == NodeKind::Directory { Errno::EISDIR } else { Errno::EPERM })
    }

    /// rmdir(2): deletes a version in `by_version/`, as rmdir deletes a group in cgroupfs. Waits up to a second for handles that
    /// are being closed.
    ///
    /// # Errors
    /// EPERM when it is young or protected, EBUSY when it is open or overlaid, ENOTEMPTY for a process that tried to unlink
    /// files first.
    pub fn rmdir(&self, caller: Caller, parent: &Node, component: &str) -> Answer<()> {
        let node = self.find(parent, component)?;
        let Node::Version(uid) = node else {
            return Err(if node.kind() == NodeKind::Directory { Errno::EPERM } else { Errno::ENOTDIR });
        };
        if self.unlinkers.has_tried(caller) {
            return Err(Errno::ENOTEMPTY);
        }
        if self.is_orphan(uid)? {
            // It is deleted already, and visible only for the sake of its overlay.
            return Err(Errno::EBUSY);
        }
        let disk = self.disks.of(&self.version(uid)?);
        disk.remove(|open_handles| {
            let options =
                Options { consent: Consent::Plain, protect_younger: self.options.protect_younger, open_handles };
            let removal = remove::plan(&self.repo, uid, &options).map_err(failed("rmdir"))?;
            removal.execute(&self.repo).map_err(failed("deletion of a version"))
        })?;
        self.disks.forget(uid);
        tracing::info!("version {uid} was deleted by rmdir");
        Ok(())
    }

    /// Drops what was written over a version. Waits up to a second for handles that are being closed.
    pub(super) fn discard_overlay(&self, uid: Uid) -> Answer<()> {
        let version = self.version(uid)?;
        let disk = self.disks.of(&version);
        let data = Node::VersionFile(uid, VersionFile::Data).ino();
        let dropped = disk.discard(
            || is_attached(uid),
            || match self.kernel.drop_pages(data) {
                // Nothing is mounted, so nothing is cached.
                Err(Errno::ENOSYS) => Ok(()),
                answer => answer,
            },
        );
        if dropped.is_ok() {
            tracing::info!("the overlay of version {uid} was discarded");
        }
        dropped
    }
}
