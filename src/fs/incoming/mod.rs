//! `incoming/`: writing here is the backup.
//!
//! A name shows its draft if it has one, else its newest version. The first changed byte begins a draft ([`file::Work`]);
//! a close by its opener publishes it as a version, a close by anyone else or an fsync makes it durable as a draft record, a
//! death leaves it broken. docs/semantics.md says it for users.
//!
//! Locks are taken in this order: a file's `commit`, the table, a file's `state`. None of the last two is held while the
//! target is written to, except where a comment says why.

mod change;
mod close;
mod commit;
mod exits;
pub mod file;
mod holding;
mod io;
mod labelling;
mod look;
mod open;
mod place;
mod pull;
#[cfg(test)]
mod pull_tests;
mod rename;
mod table;
#[cfg(test)]
mod testing;
mod upkeep;

use crate::fs::incoming::file::File;
use crate::fs::incoming::table::Table;
use crate::fs::process::ProcessId;
use crate::fs::process_watch::{ProcessWatch, Watch};
use crate::ops::retain::Policy;
use crate::repo::Repository;
use crate::words::ids::Uid;
use crate::words::name::{Name, TemporaryNames};
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

pub use io::GraftSource;
pub use look::DraftSummary;
pub use open::OpenedFile;
pub use pull::PullInto;

/// How long after a close its writer may go on, or die and take it back.
pub const SECOND_THOUGHTS: Duration = Duration::from_secs(10);

/// What can be set.
#[derive(Debug, Clone)]
pub struct IncomingOptions {
    /// Names that become versions only when renamed.
    pub temporary: TemporaryNames,
    /// A commit that takes longer fails.
    pub commit_timeout: Duration,
    /// Drafts that were never published expire after this.
    pub draft_expire: Duration,
    /// Schedules of names.
    pub policy: Arc<Policy>,
    /// Owner and mode of directories.
    pub uid: u32,
    /// Group of directories.
    pub gid: u32,
}

/// The tree. Shared by every request, and by the thread that hears of dead writers.
pub struct Incoming {
    repo: Arc<Repository>,
    options: IncomingOptions,
    table: Mutex<Table>,
    next_fh: AtomicU64,
    /// Versions opened through the other trees, which nobody may take back by going on.
    looked_at: Mutex<HashSet<Uid>>,
    /// What each process closed last.
    last_closed: Mutex<HashMap<ProcessId, Closed>>,
    watch: ProcessWatch,
    watched: Mutex<HashMap<ProcessId, Watch>>,
    /// Watched processes that have ended.
    ended: Mutex<Vec<ProcessId>>,
    /// Versions that wait for their automatic tags.
    unlabelled: labelling::Unlabelled,
    /// Pins of what drafts were made from.
    held: Mutex<holding::Held>,
    me: Weak<Incoming>,
    stopping: AtomicBool,
}

/// The last close of a process.
struct Closed {
    file: Arc<File>,
    at: Instant,
    /// What it published by that.
    version: Option<Uid>,
}

impl Incoming {
    /// The tree of a repository.
    ///
    /// # Errors
    /// When the thread that watches writers cannot be started.
    pub fn new(repo: Arc<Repository>, options: IncomingOptions) -> std::io::Result<Arc<Self>> {
        let watch = ProcessWatch::start()?;
        Ok(Arc::new_cyclic(|me| Self {
            repo,
            options,
            table: Mutex::default(),
            next_fh: AtomicU64::new(1),
            looked_at: Mutex::default(),
            last_closed: Mutex::default(),
            watch,
            watched: Mutex::default(),
            ended: Mutex::default(),
            unlabelled: labelling::Unlabelled::default(),
            held: Mutex::default(),
            me: Weak::clone(me),
            stopping: AtomicBool::new(false),
        }))
    }

    /// Notes that a version was opened elsewhere: it is in use now, so its writer can no longer go on with it.
    pub fn note_opened(&self, uid: Uid) {
        let mut seen = self.looked_at.lock();
        // Only versions published within the last seconds matter; a bound keeps the set small.
        if seen.len() > 10_000 {
            seen.clear();
        }
        seen.insert(uid);
    }

    fn is_temporary(&self, name: &Name) -> bool {
        self.options.temporary.matches(name)
    }
}
