//! Who writes the cache: one thread of the process that holds the lock on its directory.

use crate::repo::disk_cache::entries::Entries;
use crate::repo::disk_cache::segment::{Contents, Place, Segment, ShortId};
use crate::repo::disk_cache::{Plan, Waiting, segment_files};
use crate::words::ids::BlockId;
use crossbeam_channel::{Receiver, Sender, unbounded};
use parking_lot::RwLock;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

const LOCK_NAME: &str = "lock";
/// After a failure, and between two attempts to become the one who writes.
const PAUSE: Duration = Duration::from_secs(10);

/// Takes frames and writes them in the background.
pub(super) struct Writer {
    queue: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    queued: Arc<AtomicUsize>,
    queue_bytes: usize,
}

enum Job {
    Keep(ShortId, Vec<u8>, Waiting),
    #[cfg(test)]
    Answer(Sender<()>),
}

impl Writer {
    /// Learns what there is and starts the thread. When the directory cannot be used, nothing is kept.
    pub(super) fn start(plan: Plan, entries: Arc<RwLock<Entries>>) -> Self {
        let queue_bytes = plan.queue_bytes;
        let mut keeper = Keeper { plan, entries, lock: None, current: None, paused_until: None };
        if let Err(error) = keeper.begin() {
            keeper.pause("opened", &error);
        }
        let (queue, jobs) = unbounded();
        let thread = thread::Builder::new().name("cache-write".to_owned()).spawn(move || keeper.work(&jobs)).ok();
        Self { queue: thread.is_some().then_some(queue), thread, queued: Arc::default(), queue_bytes }
    }

    /// Hands a frame over, unless too much waits already.
    pub(super) fn offer(&self, id: &BlockId, frame: &[u8]) {
        let Some(queue) = &self.queue else { return };
        if let Some(waiting) = Waiting::reserve(&self.queued, frame.len(), self.queue_bytes) {
            // The thread ends only after this.
            let _ = queue.send(Job::Keep(id.into(), frame.to_vec(), waiting));
        }
    }

    /// Waits until the queue is empty.
    #[cfg(test)]
    pub(super) fn settle(&self) {
        let (answer, answered) = crossbeam_channel::bounded(1);
        if let Some(queue) = &self.queue
            && queue.send(Job::Answer(answer)).is_ok()
        {
            let _ = answered.recv();
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Keeper {
    plan: Plan,
    entries: Arc<RwLock<Entries>>,
    /// Held by the one who writes.
    lock: Option<File>,
    current: Option<Current>,
    paused_until: Option<Instant>,
}

/// The segment that is being filled, and what goes into its table.
struct Current {
    segment: Arc<Segment>,
    frames: Vec<(ShortId, Place)>,
}

impl Keeper {
    fn work(mut self, jobs: &Receiver<Job>) {
        for job in jobs {
            match job {
                #[cfg(test)]
                Job::Answer(answer) => drop(answer.send(())),
                Job::Keep(id, frame, _waiting) => {
                    if self.paused_until.is_some_and(|until| Instant::now() < until) {
                        continue;
                    }
                    self.paused_until = None;
                    if let Err(error) = self.keep(id, &frame) {
                        self.pause("written to", &error);
                    }
                }
            }
        }
        if let Err(error) = self.finish() {
            tracing::debug!("the cache was not closed: {error}");
        }
    }

    /// A full or broken disk costs the cache and nothing else.
    fn pause(&mut self, what: &str, error: &io::Error) {
        tracing::warn!("the cache {} cannot be {what}, going on without for now: {error}", self.plan.dir.display());
        self.paused_until = Some(Instant::now() + PAUSE);
        if error.kind() == io::ErrorKind::StorageFull
            && self.lock.is_some()
            && let Err(error) = self.evict()
        {
            tracing::debug!("the cache keeps its size: {error}");
        }
    }

    /// Takes the lock if it is free, and learns what there is.
    fn begin(&mut self) -> io::Result<()> {
        let dir = &self.plan.dir;
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let lock = File::options().write(true).create(true).truncate(false).mode(0o600).open(dir.join(LOCK_NAME))?;
        match lock.try_lock() {
            Ok(()) => self.lock = Some(lock),
            Err(fs::TryLockError::WouldBlock) => {}
            Err(fs::TryLockError::Error(error)) => return Err(error),
        }
        let mut known = Entries::default();
        for (number, path) in segment_files(dir) {
            match Segment::open(path.clone(), number, self.plan.repo) {
                Ok((segment, contents)) => {
                    if self.lock.is_some() && !contents.finished {
                        segment.finish(&contents.frames)?;
                    }
                    known.add(Arc::new(segment), &contents);
                }
                Err(error) => {
                    tracing::debug!("{}: {error}", path.display());
                    if self.lock.is_some() {
                        fs::remove_file(path)?;
                    }
                }
            }
        }
        *self.entries.write() = known;
        if self.lock.is_some() {
            self.make_room(0)?;
        }
        Ok(())
    }

    fn keep(&mut self, id: ShortId, frame: &[u8]) -> io::Result<()> {
        if self.lock.is_none() {
            self.begin()?;
            if self.lock.is_none() {
                // Another process writes. Asked again after a while.
                self.paused_until = Some(Instant::now() + PAUSE);
                return Ok(());
            }
        }
        let len = frame.len() as u64;
        let full = |current: &Current| current.segment.size_bytes() + len > self.plan.segment_bytes();
        if self.current.as_ref().is_some_and(full) {
            self.finish()?;
        }
        self.make_room(len)?;
        if self.current.is_none() {
            let number = self.entries.read().next_number();
            let segment = Arc::new(Segment::create(&self.plan.dir, number, self.plan.repo)?);
            self.entries.write().add(Arc::clone(&segment), &Contents::default());
            self.current = Some(Current { segment, frames: Vec::new() });
        }
        let Some(current) = &mut self.current else { return Ok(()) };
        let place = current.segment.append(frame)?;
        current.frames.push((id, place));
        self.entries.write().insert(id, current.segment.number, place);
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        self.current.take().map_or(Ok(()), |current| current.segment.finish(&current.frames))
    }

    fn make_room(&mut self, len: u64) -> io::Result<()> {
        loop {
            let entries = self.entries.read();
            let fits = entries.held_bytes() + len <= self.plan.limit_bytes && entries.len() < self.plan.entries_max;
            drop(entries);
            if fits || !self.evict()? {
                return Ok(());
            }
        }
    }

    /// Removes the segment that was not read from for the longest time. Says whether there was one.
    fn evict(&mut self) -> io::Result<bool> {
        let current = self.current.as_ref().map(|current| current.segment.number);
        let oldest = self.entries.read().least_used(current);
        let Some(oldest) = oldest else {
            // All there is is being filled.
            let had_current = self.current.is_some();
            self.finish()?;
            return if had_current { self.evict() } else { Ok(false) };
        };
        self.entries.write().remove(oldest.number);
        match oldest.remove() {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(true),
        }
    }
}
