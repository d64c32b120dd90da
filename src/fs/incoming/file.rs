//! One name below `incoming/`: what is open of it, and what is being written to it.

use crate::fs::errno::Errno;
use crate::fs::process::{ProcessId, TaskKind};
use crate::fs::seam::Fh;
use crate::image::{DraftImage, ImageReader};
use crate::ops::snapshots::Session;
use crate::repo::claims::ClaimedDraft;
use crate::words::attribute::FileAttributes;
use crate::words::ids::Uid;
use crate::words::name::Name;
use crate::words::record::{Broken, ImageRef, Record};
use crate::words::stamp::Stamp;
use parking_lot::{Condvar, Mutex, MutexGuard};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

/// A file that has been seen since the mount. It keeps its number over a rename.
pub struct File {
    /// Its inode is made of it.
    pub number: u64,
    /// What changes.
    pub state: Mutex<FileState>,
    /// Signalled when a write or a close ends.
    pub quiet: Condvar,
    /// Held while its content is made durable or published, so that commits of one file come one after the other.
    pub commit: Mutex<()>,
}

/// See [`File`].
pub struct FileState {
    /// Its name now.
    pub name: Name,
    /// It was unlinked or replaced: handles go on, the name leads elsewhere.
    pub detached: bool,
    /// What is being written, or was not long ago.
    pub work: Option<Work>,
    /// Open handles.
    pub handles: BTreeMap<Fh, Handle>,
    /// Writes that are between a look at `work` and their end.
    pub writing: usize,
    /// Closes that are being answered: what they commit is neither truncated nor renamed nor removed meanwhile.
    pub closing: usize,
}

/// An image being written. It outlives its publication while handles are open, since they may go on.
pub struct Work {
    /// Names it on the target; nobody else on this host touches it meanwhile.
    pub draft: ClaimedDraft,
    /// The content.
    pub image: Arc<DraftImage>,
    /// What the content was when this began, or when it was last published: equal content is no change.
    pub start: ImageRef,
    /// The version it was started from or last published as; nil when it started empty without one.
    pub base: Uid,
    /// An image known to be good whose maps it shares; for the check of a commit.
    pub relative: Option<ImageRef>,
    /// What a copy that began empty replaces and will probably equal: its blocks are taken over where they are the same, so it is held.
    pub before: Option<ImageRef>,
    /// Count of changes at which the content equals `start`.
    pub clean_changes: u64,
    /// Count of changes contained in what is durable on the target.
    pub durable_changes: u64,
    /// How often something else was said of it that its record is to say: its name, or whether it is broken.
    pub said: u64,
    /// How much of that is durable.
    pub durable_said: u64,
    /// It was created or truncated on opening, so it is there even while it is empty.
    pub explicit: bool,
    /// The newest draft record on the target.
    pub record: Option<Record>,
    /// The version that the next publication replaces (going on after close).
    pub supersedes: Uid,
    /// Mode, owner and mtime it will be published with.
    pub attributes: FileAttributes,
    /// The time was set by somebody; writes after that set it again.
    pub mtime_set: bool,
    /// Why it is not whole.
    pub broken: Option<Broken>,
    /// Sticks until it is opened anew.
    pub error: Option<Errno>,
    /// Who has written since the last publication.
    pub writers: BTreeSet<ProcessId>,
    /// The last publication.
    pub published: Option<Published>,
    /// When the first change came.
    pub began: Stamp,
    /// How many changes of the content have begun.
    pub begun: u64,
    /// The source it is a copy of, while it is nothing else.
    pub origin: Option<Origin>,
}

/// A draft that is a copy of an opened source: the version knows its snapshot, and the next copy what has changed since. It is copied
/// in parts, one behind the other, and nobody else writes to it.
pub struct Origin {
    /// The source; its snapshot stays while this does.
    pub session: Arc<Session>,
    /// It is the source up to here.
    pub reached: u64,
    /// [`Work::begun`] with the first part of it.
    pub since: u64,
    /// [`Work::begun`] with the last part of it, which may still be running; any other change makes it something else.
    pub begun: u64,
    /// Count of changes of the image with the last part that ended. What was settled at another count is not as far, or further.
    pub changes: u64,
}

/// How far a draft was a copy of its source at some moment. It still is that when nobody else has written to it since, which
/// [`Work::still_reached`] tells.
#[derive(Debug, Clone, Copy)]
pub struct Reached {
    since: u64,
    at: u64,
}

impl Origin {
    /// Whether the image is all of the source.
    pub fn is_whole(&self, image: &ImageRef) -> bool {
        let size = self.session.source().size_bytes();
        self.reached == size && image.size_bytes == size
    }
}

/// A publication that its writer may go on from.
#[derive(Debug, Clone, Copy)]
pub struct Published {
    /// As which version.
    pub uid: Uid,
    /// By whom.
    pub by: Option<ProcessId>,
    /// When.
    pub at: Instant,
}

/// An open handle.
pub struct Handle {
    /// Who opened it; unknown for a process in a pid namespace we do not see.
    pub opener: Option<ProcessId>,
    /// Whether a program opened it, or the kernel (knfsd), which closes whenever it likes. The unknown is a program.
    pub kind: TaskKind,
    /// Whether it may write.
    pub writes: bool,
    /// O_APPEND.
    pub append: bool,
    /// What it shows while nothing is being written.
    pub version: Option<Arc<ImageReader>>,
    /// A reader that was there before the draft goes on showing its version.
    pub pinned: bool,
    /// The end of its last write.
    pub reached: u64,
    /// It has been opened or written since its opener last closed it: its writer is at work.
    pub active: bool,
    /// The thread of its last write and the process that belongs to it, to spare a look at /proc for every write.
    pub last_writer: Option<(u32, ProcessId)>,
}

impl Work {
    /// Whether anything differs from the start, as far as counting tells.
    pub fn is_changed(&self) -> bool {
        self.image.changes() != self.clean_changes
    }

    /// Whether it is to be shown instead of a version.
    pub fn is_draft(&self) -> bool {
        self.explicit || self.is_changed()
    }

    /// Breaks it at a place, unless it is broken before that: a continuation begins at the first.
    pub fn break_at(&mut self, at: u64, reason: String) {
        if self.broken.as_ref().is_none_or(|broken| at < broken.at) {
            self.broken = Some(Broken { at, reason });
        }
    }

    /// Whether its record says that it is whole while it is not, or the other way round.
    pub fn record_misleads(&self, unfinished: Option<&Broken>) -> bool {
        let Some(record) = &self.record else { return false };
        let is_other = match (&record.broken, &self.broken) {
            // What it says may be less: not all of it was a copy, or stored.
            (Some(told), Some(broken)) => told.reason != broken.reason || told.at > broken.at,
            (_, broken) => broken.is_some(),
        };
        record.broken.is_some() != unfinished.is_some() || is_other
    }

    /// The source, if nobody else has written to the copy of it.
    fn sole_origin(&self) -> Option<&Origin> {
        self.origin.as_ref().filter(|origin| origin.begun == self.begun)
    }

    /// What an image that was settled at so many changes is a copy of, if nobody else has written to it.
    pub fn copied_from(&self, changes: u64) -> Option<&Origin> {
        self.sole_origin().filter(|origin| origin.changes == changes)
    }

    /// How far it is a copy of its source. What is settled from now on is that far, whatever the next parts have come to.
    pub fn reached(&self) -> Option<Reached> {
        self.sole_origin().map(|origin| Reached { since: origin.since, at: origin.reached })
    }

    /// The source that what was settled since is a copy of, and how far.
    pub fn still_reached(&self, reached: Reached) -> Option<(&Origin, u64)> {
        self.sole_origin().filter(|origin| origin.since == reached.since).map(|origin| (origin, reached.at))
    }

    /// Whether something is not durable yet.
    pub fn is_volatile(&self) -> bool {
        self.said != self.durable_said || self.image.changes() != self.durable_changes
    }

    /// A write or truncation has gone over the place where it broke.
    pub fn mend(&mut self, from: u64, to: u64) {
        if self.broken.as_ref().is_some_and(|broken| from <= broken.at && broken.at < to) {
            self.broken = None;
        }
    }
}

impl FileState {
    /// A handle through which a writer is at work, of another process than `process`.
    pub fn active_writer(&self, except: Option<ProcessId>) -> Option<&Handle> {
        self.handles
            .values()
            .find(|handle| handle.writes && handle.active && (except.is_none() || handle.opener != except))
    }

    /// Why what is stored now would not be whole, should nothing more be heard of its writers.
    pub fn unfinished(&self) -> Option<Broken> {
        if let Some(broken) = self.work.as_ref().and_then(|work| work.broken.clone()) {
            return Some(broken);
        }
        let active = || self.handles.values().filter(|handle| handle.writes && handle.active);
        let reached = active().map(|handle| handle.reached).filter(|reached| *reached > 0).min();
        let at = reached.or_else(|| active().next().map(|_| 0))?;
        Some(Broken { at, reason: "its writer had not closed it yet when this was stored".to_owned() })
    }

    /// The work, if it still is that of an image.
    pub fn work_of(&mut self, image: &Arc<DraftImage>) -> Option<&mut Work> {
        self.work.as_mut().filter(|work| Arc::ptr_eq(&work.image, image))
    }

    /// Whether anyone has it open for writing.
    pub fn has_write_handles(&self) -> bool {
        self.handles.values().any(|handle| handle.writes)
    }
}

impl File {
    /// The state, once no close is being answered: what close() acknowledges must not be replaced before it is stored.
    pub fn lock_when_closed(&self) -> MutexGuard<'_, FileState> {
        let mut state = self.state.lock();
        while state.closing > 0 {
            self.quiet.wait(&mut state);
        }
        state
    }

    /// A file nobody has opened.
    pub fn new(number: u64, name: Name) -> Arc<Self> {
        let state = FileState { name, detached: false, work: None, handles: BTreeMap::new(), writing: 0, closing: 0 };
        Arc::new(Self { number, state: Mutex::new(state), quiet: Condvar::new(), commit: Mutex::new(()) })
    }
}
