//! Reading a source into an image: what changed is read by several threads, what did not is left or taken over, holes are made.
//!
//! ```text
//! extents -> runs of whole blocks -> chunks -> bounded queue -> threads: read, name -> image (zero, unchanged, known)
//!                                                                                      -> pipeline -> image (stored)
//! ```
//!
//! Each block is written once and whole, or not at all, so the image never asks the target for the rest of one.

use crate::image::{DraftImage, ImageReader};
use crate::ops::{Interrupt, OpsError};
use crate::repo::{RepoError, Repository};
use crate::source::bad_sectors::BadSectors;
use crate::source::blocks::Runs;
use crate::source::{Content, Source, SourceError};
use crate::words::monitor::{Counter, Monitor};
use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::ops::{ControlFlow, Range};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What is read at once: an object of rbd, and a few requests of a disk.
const CHUNK_BYTES: usize = 4 << 20;
/// Reads under way, at least. Disks and clusters answer several at once; with many more, an interrupted backup would have too much in hand.
const THREADS_MIN: usize = 4;
/// And at most, where there are more cores: each reads and hashes.
const THREADS_MAX: usize = 16;
/// What is read and then hashed at once, unless two blocks are more: it fits into the cache next to a core.
const NAMED_BYTES: usize = 256 << 10;
/// What a chunk that cannot be read is taken apart into first, so that few bad sectors cost few single reads.
const PIECE_BYTES: u64 = 64 << 10;
/// More bad sectors than this are no bad sectors but a source that is broken.
const GIVE_UP_BYTES: u64 = 64 << 20;

/// Where the image gets what did not change from.
#[derive(Clone, Copy)]
pub enum Unchanged<'a> {
    /// The image began as the base and holds it.
    Stands,
    /// The image began empty; it is taken over from here without being read.
    TakenFrom(&'a ImageReader),
}

/// What to do about sectors that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnBadSectors {
    /// They are zero in the image; too many end the work.
    Tolerate,
    /// They are zero in the image, however many: `--skip-errors`.
    Skip,
}

/// See the module.
pub struct Pull<'a> {
    /// Whose blocks they become.
    pub repo: &'a Repository,
    /// What is read.
    pub source: &'a dyn Source,
    /// What is written; as large as what is pulled into it.
    pub image: &'a Arc<DraftImage>,
    /// Where unchanged parts come from.
    pub unchanged: Unchanged<'a>,
    /// About sectors that cannot be read.
    pub on_bad: OnBadSectors,
    /// Told how it goes.
    pub monitor: &'a dyn Monitor,
    /// May stop it.
    pub interrupt: &'a Interrupt,
}

/// Why it stopped, and how far it got.
pub struct Stopped {
    /// Why.
    pub error: OpsError,
    /// How far.
    pub position: Position,
}

/// How far it got, for whoever keeps that.
pub struct Position {
    /// Everything before this is in the image.
    pub reached: u64,
    /// What could not be read so far.
    pub bad: BadSectors,
}

struct Flow<'a> {
    pull: &'a Pull<'a>,
    /// Where the chunks begin that are not written yet.
    flying: Mutex<BTreeSet<u64>>,
    enumerated: AtomicU64,
    bad: Mutex<Vec<Range<u64>>>,
    bad_bytes: AtomicU64,
    done: AtomicU64,
    failed: AtomicBool,
    error: Mutex<Option<OpsError>>,
}

impl Pull<'_> {
    /// Pulls the blocks that begin in `range`. `now_and_then` is called between chunks with how far it got.
    ///
    /// # Errors
    /// When the source fails for good, the image does, or it is stopped.
    pub fn run(
        &self,
        range: Range<u64>,
        now_and_then: &mut dyn FnMut(&Position) -> Result<(), OpsError>,
    ) -> Result<BadSectors, Stopped> {
        let flow = Flow {
            pull: self,
            flying: Mutex::default(),
            enumerated: AtomicU64::new(range.start),
            bad: Mutex::default(),
            bad_bytes: AtomicU64::new(0),
            done: AtomicU64::new(range.start),
            failed: AtomicBool::new(false),
            error: Mutex::new(None),
        };
        let threads = threads(self.repo.memory().pipeline, self.repo.block_size().bytes());
        let (queue, chunks) = bounded(threads);
        std::thread::scope(|scope| {
            for _ in 0..threads {
                let chunks = chunks.clone();
                let flow = &flow;
                scope.spawn(move || flow.serve(&chunks));
            }
            // Only the threads have it now: when none is left, handing out fails instead of waiting for them.
            drop(chunks);
            if let Err(error) = flow.enumerate(range, &queue, now_and_then) {
                flow.fail(error);
            }
            drop(queue);
        });
        let (error, position) = (flow.error.lock().take(), flow.position());
        // What was read counts only if the source still stands. After an error whoever goes on opens it again, and so sees that.
        match error.or_else(|| self.source.check().err().map(OpsError::from)) {
            Some(error) => Err(Stopped { error, position }),
            None => Ok(position.bad),
        }
    }
}

/// Bytes that are named at once: never one block alone, as two are named together faster than one after the other.
fn named_bytes(block: usize) -> usize {
    NAMED_BYTES.max(2 * block)
}

/// How many read: one for each core, as far as half of what the pipeline may have holds a chunk of each and the copies of one call.
fn threads(memory: usize, block: usize) -> usize {
    let cores = std::thread::available_parallelism().map_or(THREADS_MIN, usize::from);
    let each = CHUNK_BYTES + named_bytes(block);
    cores.clamp(THREADS_MIN, THREADS_MAX).min(memory / 2 / each).max(1)
}

impl Flow<'_> {
    fn fail(&self, error: OpsError) {
        self.error.lock().get_or_insert(error);
        self.failed.store(true, Ordering::Relaxed);
    }

    fn position(&self) -> Position {
        let flying = self.flying.lock();
        let reached = flying.first().copied().unwrap_or_else(|| self.enumerated.load(Ordering::Relaxed));
        Position { reached, bad: BadSectors::new(self.bad.lock().clone()) }
    }

    fn enumerate(
        &self,
        range: Range<u64>,
        queue: &Sender<Range<u64>>,
        now_and_then: &mut dyn FnMut(&Position) -> Result<(), OpsError>,
    ) -> Result<(), OpsError> {
        let Pull { source, image, unchanged, repo, .. } = *self.pull;
        for run in Runs::new(source, repo.block_size(), range) {
            let run = run?;
            let (start, len) = (run.range.start, run.range.end - run.range.start);
            match (run.content, unchanged) {
                (Content::Hole, _) => image.punch(start, len)?,
                (Content::Unchanged, Unchanged::Stands) => {}
                (Content::Unchanged, Unchanged::TakenFrom(base)) => take_over(image, base, &run.range)?,
                (Content::Data, _) => {
                    self.hand_out(&run.range, queue, now_and_then)?;
                    continue;
                }
            }
            self.enumerated.store(run.range.end, Ordering::Relaxed);
            self.advance(len);
            self.check()?;
        }
        Ok(())
    }

    fn hand_out(
        &self,
        run: &Range<u64>,
        queue: &Sender<Range<u64>>,
        now_and_then: &mut dyn FnMut(&Position) -> Result<(), OpsError>,
    ) -> Result<(), OpsError> {
        let mut start = run.start;
        while start < run.end {
            self.check()?;
            let end = ((start / CHUNK_BYTES as u64 + 1) * CHUNK_BYTES as u64).min(run.end);
            self.flying.lock().insert(start);
            self.enumerated.store(end, Ordering::Relaxed);
            // The threads outlive this: they take chunks until the queue is closed.
            queue.send(start..end).map_err(|_| OpsError::Interrupted)?;
            now_and_then(&self.position())?;
            start = end;
        }
        Ok(())
    }

    fn check(&self) -> Result<(), OpsError> {
        self.pull.interrupt.check()?;
        if self.failed.load(Ordering::Relaxed) { Err(OpsError::Interrupted) } else { Ok(()) }
    }

    fn serve(&self, chunks: &Receiver<Range<u64>>) {
        let mut buffer = vec![0; CHUNK_BYTES];
        for chunk in chunks {
            // What was handed out may be minutes of work for a slow source: it is not all waited for.
            if let Err(error) = self.pull.interrupt.check() {
                self.fail(error);
            }
            // After a failure the queue is only emptied, so that nobody waits for room in it.
            if self.failed.load(Ordering::Relaxed) {
                continue;
            }
            let len = chunk.end - chunk.start;
            let read = || self.chunk(&chunk, &mut buffer[..usize::try_from(len).unwrap_or(0)]);
            // A panic counts as a failure: the others are not to read on, and the queue is still to be emptied.
            match catch_unwind(AssertUnwindSafe(read)).unwrap_or(Err(RepoError::Stopped.into())) {
                Ok(()) => {
                    self.flying.lock().remove(&chunk.start);
                    self.advance(len);
                }
                Err(error) => self.fail(error),
            }
        }
    }

    fn chunk(&self, chunk: &Range<u64>, buffer: &mut [u8]) -> Result<(), OpsError> {
        let Pull { source, image, repo, monitor, .. } = *self.pull;
        let piece_bytes = named_bytes(repo.block_size().bytes());
        let mut reached = chunk.start;
        let mut written = Ok(());
        let mut write = |piece: &[u8]| {
            monitor.count(Counter::BytesRead, piece.len() as u64);
            written = image.write_named(reached, piece);
            reached += piece.len() as u64;
            if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        let read = source.read_pieces(chunk.start, buffer, piece_bytes, &mut write);
        written?;
        match read {
            Ok(()) => {}
            Err(error) if error.is_bad_medium() => {
                let rest = &mut buffer[..usize::try_from(chunk.end - reached).unwrap_or(0)];
                source.check()?;
                self.salvage(reached, rest)?;
                // What ran full meanwhile has made everything since unreadable.
                source.check()?;
                monitor.count(Counter::BytesRead, rest.len() as u64);
                image.write_named(reached, rest)?;
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Reads piece by piece, and sector by sector where a piece cannot be read.
    fn salvage(&self, start: u64, buffer: &mut [u8]) -> Result<(), SourceError> {
        let sector = u64::from(self.pull.source.sector_bytes());
        let step = if buffer.len() as u64 > PIECE_BYTES { PIECE_BYTES } else { sector };
        let mut at = start;
        for piece in buffer.chunks_mut(usize::try_from(step).unwrap_or(usize::MAX)) {
            let end = at + piece.len() as u64;
            match self.pull.source.read_at(at, piece) {
                Ok(()) => {}
                Err(error) if error.is_bad_medium() && step > sector => self.salvage(at, piece)?,
                Err(error) if error.is_bad_medium() => {
                    piece.fill(0);
                    tracing::warn!("{error}; {} bytes there count as zeros", piece.len());
                    self.bad.lock().push(at..end);
                    let bad = self.bad_bytes.fetch_add(end - at, Ordering::Relaxed) + (end - at);
                    if bad > GIVE_UP_BYTES && self.pull.on_bad == OnBadSectors::Tolerate {
                        return Err(error);
                    }
                }
                Err(error) => return Err(error),
            }
            at = end;
        }
        Ok(())
    }

    fn advance(&self, bytes: u64) {
        let done = self.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.pull.monitor.progress(done, self.pull.source.size_bytes());
    }
}

/// Takes a range of whole blocks over from the base.
fn take_over(image: &Arc<DraftImage>, base: &ImageReader, range: &Range<u64>) -> Result<(), OpsError> {
    let mut at = range.start;
    while at < range.end {
        let taken = image.graft(base, at, at, range.end - at)?;
        if taken == 0 {
            // Blocks of another size: nothing of a map can be shared, and then nothing is called unchanged.
            return Err(OpsError::refused("the base has blocks of another size"));
        }
        at += taken;
    }
    Ok(())
}
