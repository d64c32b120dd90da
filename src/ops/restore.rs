//! Restoring a version: to a file or a device by as many threads as there are cores, or in order to a stream.

use crate::catalog::Version;
use crate::image::ImageReader;
use crate::ops::error::is_damage;
use crate::ops::reading::{self, ReadingPin};
use crate::ops::walk::{Found, walk_range};
use crate::ops::{Interrupt, OpsError};
use crate::repo::lease::Lease;
use crate::repo::{RepoError, Repository};
use crate::source::Volume;
use crate::source::destination::{Consent, Destination, Holes, Manner, Start};
use crate::words::ids::BlockId;
use crate::words::monitor::{Counter, Monitor};
use crate::words::record::ImageRef;
use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::Mutex;
use std::io::Write;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// How often the kernel is asked to begin writing.
const WRITEBACK_BYTES: u64 = 64 << 20;
/// What a thread reads at once, at most: neighbours come with one request.
const BATCH_BYTES: u64 = 8 << 20;
/// Long holes are zeroed in parts of this, so that the work can be stopped.
const ZERO_BYTES: u64 = 1 << 30;

/// What to do about blocks that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnDamage {
    /// Stop at the first.
    Stop,
    /// Write zeros instead, and list them: `--skip-damaged`.
    Skip,
}

/// How to restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Whether something may be overwritten.
    pub consent: Consent,
    /// Anew, or going on.
    pub start: Start,
    /// What becomes of holes.
    pub holes: Holes,
    /// What becomes of damaged blocks.
    pub on_damage: OnDamage,
    /// Threads that decode and write.
    pub threads: usize,
}

/// What was done. Bytes of the image.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Restored {
    /// The version.
    pub uid: String,
    /// Where it was restored to; `-` for a stream.
    pub destination: String,
    /// Of the whole image.
    pub size_bytes: u64,
    /// Written.
    pub written_bytes: u64,
    /// Found to be right already.
    pub kept_bytes: u64,
    /// Damaged, and zero in the destination.
    pub zeroed: Vec<ZeroedRange>,
}

/// Bytes that are zero because they could not be read.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ZeroedRange {
    /// From where.
    pub offset: u64,
    /// How many.
    pub length: u64,
    /// Why.
    pub reason: String,
}

/// Restores to a volume: a file, a block device, an image of a cluster.
///
/// # Errors
/// When the destination refuses, the target fails, or a block is damaged and was not to be skipped.
pub fn restore(
    repo: &Arc<Repository>,
    version: &Version,
    volume: &dyn Volume,
    options: &Options,
    monitor: &dyn Monitor,
    interrupt: &Interrupt,
) -> Result<Restored, OpsError> {
    let _reading = begin(repo, version)?;
    let image = version.record.image;
    let Options { consent, start, holes, .. } = *options;
    let destination = volume.destination(&Manner { size_bytes: image.size_bytes, consent, start, holes })?;
    let work = Work {
        repo,
        image,
        range: 0..image.size_bytes,
        uid: version.record.uid.to_string(),
        destination: &*destination,
        options: *options,
        monitor,
        interrupt,
        total_bytes: image.allocated_blocks * image.block_size.bytes_u64(),
        written: AtomicU64::new(0),
        kept: AtomicU64::new(0),
        failed: AtomicBool::new(false),
        error: Mutex::new(None),
        zeroed: Mutex::new(Vec::new()),
    };
    work.run();
    let Work { uid, written, kept, error, zeroed, .. } = work;
    if let Some(error) = error.into_inner() {
        return Err(error);
    }
    let mut zeroed = zeroed.into_inner();
    zeroed.sort_by_key(|range| range.offset);
    let zeroed = joined(zeroed);
    let (written_bytes, kept_bytes) = (written.into_inner(), kept.into_inner());
    let destination = destination.finish(&version.attributes.file)?;
    Ok(Restored { uid, destination, size_bytes: image.size_bytes, written_bytes, kept_bytes, zeroed })
}

/// Keeps the version where it is until the restore has ended.
fn begin(repo: &Arc<Repository>, version: &Version) -> Result<(Option<Lease>, Option<ReadingPin>), OpsError> {
    let uid = version.record.uid;
    let lease = reading::lease(repo, uid)?;
    let summary = repo.catalog().version_summary(uid).map_err(RepoError::from)?;
    Ok((lease, summary.map(|version| ReadingPin::new(repo, &version))))
}

/// A part of an image.
pub struct RangeOf<'a> {
    /// The image.
    pub image: ImageRef,
    /// How it is called in messages.
    pub label: &'a str,
    /// Whole blocks, or up to the end.
    pub range: Range<u64>,
}

/// Restores a part of an image into an open destination, which is large enough.
///
/// # Errors
/// When the destination or the target fails, or a block is damaged.
pub fn restore_range(
    repo: &Arc<Repository>,
    what: &RangeOf<'_>,
    destination: &dyn Destination,
    threads: usize,
    monitor: &dyn Monitor,
) -> Result<(), OpsError> {
    let (consent, start, holes, on_damage) = (Consent::None, Start::Anew, Holes::Keep, OnDamage::Stop);
    let work = Work {
        repo,
        image: what.image,
        range: what.range.clone(),
        uid: what.label.to_owned(),
        destination,
        options: Options { consent, start, holes, on_damage, threads },
        monitor,
        interrupt: &Interrupt::never(),
        total_bytes: what.range.end - what.range.start,
        written: AtomicU64::new(0),
        kept: AtomicU64::new(0),
        failed: AtomicBool::new(false),
        error: Mutex::new(None),
        zeroed: Mutex::new(Vec::new()),
    };
    work.run();
    work.error.into_inner().map_or(Ok(()), Err)
}

/// Restores to a stream, in order.
///
/// # Errors
/// As [`restore`], and when the stream ends.
pub fn restore_stream(
    repo: &Arc<Repository>,
    version: &Version,
    out: &mut dyn Write,
    on_damage: OnDamage,
    monitor: &dyn Monitor,
    interrupt: &Interrupt,
) -> Result<Restored, OpsError> {
    let _reading = begin(repo, version)?;
    let uid = version.record.uid.to_string();
    let size_bytes = version.record.image.size_bytes;
    // The reader's read-ahead decodes on all cores.
    let reader = ImageReader::new(Arc::clone(repo), version.record.image, format!("version {uid}"));
    let mut restored = Restored { uid, destination: "-".into(), size_bytes, ..Restored::default() };
    let block = version.record.image.block_size.bytes_u64();
    let mut buffer = vec![0; version.record.image.block_size.bytes()];
    let mut offset = 0;
    while offset < size_bytes {
        interrupt.check()?;
        let part = &mut buffer[..usize::try_from((size_bytes - offset).min(block)).unwrap_or(0)];
        match reader.read_at(offset, part) {
            Ok(()) => {}
            Err(error) if is_damage(&error) && on_damage == OnDamage::Skip => {
                part.fill(0);
                note(&mut restored.zeroed, offset..offset + part.len() as u64, &error);
            }
            Err(source) if is_damage(&source) => return Err(OpsError::Damaged { uid: restored.uid, offset, source }),
            Err(error) => return Err(error.into()),
        }
        let failed = |source| OpsError::Destination { path: "-".into(), action: "written", source };
        out.write_all(part).map_err(failed)?;
        offset += part.len() as u64;
        restored.written_bytes = offset;
        monitor.progress(offset, size_bytes);
    }
    out.flush().map_err(|source| OpsError::Destination { path: "-".into(), action: "written", source })?;
    Ok(restored)
}

/// Neighbours of the same cause become one, in whichever order they were met.
fn joined(zeroed: Vec<ZeroedRange>) -> Vec<ZeroedRange> {
    let mut joined: Vec<ZeroedRange> = Vec::with_capacity(zeroed.len());
    for range in zeroed {
        match joined.last_mut() {
            Some(last) if last.offset + last.length == range.offset && last.reason == range.reason => {
                last.length += range.length;
            }
            _ => joined.push(range),
        }
    }
    joined
}

/// Adds a range; neighbours of the same cause become one.
fn note(zeroed: &mut Vec<ZeroedRange>, range: Range<u64>, error: &RepoError) {
    let (length, reason) = (range.end - range.start, error.to_string());
    match zeroed.last_mut() {
        Some(last) if last.offset + last.length == range.start && last.reason == reason => last.length += length,
        _ => zeroed.push(ZeroedRange { offset: range.start, length, reason }),
    }
}

enum Job {
    Blocks(Vec<(u64, BlockId)>),
    Zero(Range<u64>),
}

struct Work<'a> {
    repo: &'a Arc<Repository>,
    image: ImageRef,
    /// Bytes of it that are restored; whole blocks, or up to the end.
    range: Range<u64>,
    uid: String,
    destination: &'a dyn Destination,
    options: Options,
    monitor: &'a dyn Monitor,
    interrupt: &'a Interrupt,
    total_bytes: u64,
    written: AtomicU64,
    kept: AtomicU64,
    failed: AtomicBool,
    error: Mutex<Option<OpsError>>,
    zeroed: Mutex<Vec<ZeroedRange>>,
}

impl Work<'_> {
    fn run(&self) {
        let threads = self.options.threads.max(1);
        let (queue, jobs) = bounded(threads);
        std::thread::scope(|scope| {
            for _ in 0..threads {
                let jobs = jobs.clone();
                scope.spawn(move || self.serve(&jobs));
            }
            if let Err(error) = self.enumerate(&queue) {
                self.fail(error);
            }
            drop(queue);
        });
    }

    fn fail(&self, error: OpsError) {
        self.error.lock().get_or_insert(error);
        self.failed.store(true, Ordering::Relaxed);
    }

    /// Hands out blocks in order and, where something may have been there before, holes.
    fn enumerate(&self, queue: &Sender<Job>) -> Result<(), OpsError> {
        let block = self.image.block_size.bytes_u64();
        let mut reached = self.range.start;
        let blocks = self.range.start / block..self.range.end.div_ceil(block);
        let size = self.range.end;
        let hand = |job| queue.send(job).map_err(|_| OpsError::Interrupted);
        let mut batch = Vec::new();
        // All threads together decode no more than half of what the cache holds.
        let room = self.repo.memory().block_cache as u64 / 2 / self.options.threads.max(1) as u64;
        let batch_max = (room.min(BATCH_BYTES) / block).max(1) as usize;
        let hole = |from: u64, to: u64| {
            let mut at = from;
            while !self.destination.is_fresh() && at < to {
                let end = (at + ZERO_BYTES).min(to);
                hand(Job::Zero(at..end))?;
                at = end;
            }
            Ok::<(), OpsError>(())
        };
        walk_range(self.repo, &self.image, blocks, &mut |found| {
            self.interrupt.check()?;
            if self.failed.load(Ordering::Relaxed) {
                return Err(OpsError::Interrupted);
            }
            match found {
                Found::Block { index, id } => {
                    hole(reached, index * block)?;
                    reached = ((index + 1) * block).min(size);
                    batch.push((index, id));
                    if batch.len() >= batch_max {
                        hand(Job::Blocks(std::mem::take(&mut batch)))?;
                    }
                    Ok(())
                }
                Found::Lost { blocks, error } => {
                    let range = blocks.start * block..(blocks.end * block).min(size);
                    hole(reached, range.end)?;
                    reached = range.end;
                    self.lost(range, error)
                }
            }
        })?;
        if !batch.is_empty() {
            hand(Job::Blocks(batch))?;
        }
        hole(reached, size)
    }

    fn lost(&self, range: Range<u64>, source: RepoError) -> Result<(), OpsError> {
        match self.options.on_damage {
            OnDamage::Skip => {
                note(&mut self.zeroed.lock(), range, &source);
                Ok(())
            }
            OnDamage::Stop => Err(OpsError::Damaged { uid: self.uid.clone(), offset: range.start, source }),
        }
    }

    fn serve(&self, jobs: &Receiver<Job>) {
        let mut buffer = vec![0; self.image.block_size.bytes()];
        for job in jobs {
            // What was handed out may be minutes of work for a slow destination.
            if let Err(error) = self.interrupt.check() {
                self.fail(error);
            }
            // After a failure the queue is only emptied, so that nobody waits for room in it.
            if self.failed.load(Ordering::Relaxed) {
                continue;
            }
            let done = match job {
                Job::Zero(range) => self.destination.zero(&range).map_err(OpsError::from),
                Job::Blocks(blocks) => self.blocks(blocks, &mut buffer),
            };
            if let Err(error) = done {
                self.fail(error);
            }
        }
    }

    fn blocks(&self, mut blocks: Vec<(u64, BlockId)>, buffer: &mut [u8]) -> Result<(), OpsError> {
        if !self.destination.is_fresh() && self.options.start == Start::Resume {
            let mut differing = Vec::with_capacity(blocks.len());
            for (index, id) in blocks {
                if !self.is_there(index, &id, buffer)? {
                    differing.push((index, id));
                }
            }
            blocks = differing;
        }
        let ids: Vec<BlockId> = blocks.iter().map(|(_, id)| *id).collect();
        let mut outcome = Ok(());
        self.repo.read_blocks(&ids, &mut |at, block| {
            if outcome.is_ok() {
                outcome = self.block(blocks[at].0, block);
            }
        });
        outcome
    }

    /// Where a block belongs, in bytes of the image; the last one may be cut off by the end.
    fn range_of(&self, index: u64) -> Range<u64> {
        let offset = index * self.image.block_size.bytes_u64();
        offset..(offset + self.image.block_size.bytes_u64()).min(self.image.size_bytes)
    }

    /// Whether the destination holds a block already.
    fn is_there(&self, index: u64, id: &BlockId, buffer: &mut [u8]) -> Result<bool, OpsError> {
        let range = self.range_of(index);
        let len = usize::try_from(range.end - range.start).unwrap_or(0);
        buffer.fill(0);
        self.destination.read(range.start, &mut buffer[..len])?;
        if self.repo.data_id(buffer) != *id {
            return Ok(false);
        }
        self.advance(&self.kept, len as u64);
        Ok(true)
    }

    fn block(&self, index: u64, block: Result<Arc<Vec<u8>>, RepoError>) -> Result<(), OpsError> {
        let Range { start: offset, end } = self.range_of(index);
        let len = usize::try_from(end - offset).unwrap_or(0);
        match block {
            Ok(block) => {
                if self.destination.is_fresh() && self.options.holes == Holes::Keep {
                    self.destination.write_sparsely(offset, &block[..len])?;
                } else {
                    self.destination.write(offset, &block[..len])?;
                }
                self.monitor.count(Counter::BytesWritten, len as u64);
                self.advance(&self.written, len as u64);
                Ok(())
            }
            Err(error) if is_damage(&error) => {
                self.lost(offset..end, error)?;
                if !self.destination.is_fresh() {
                    self.destination.zero(&(offset..end))?;
                }
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    fn advance(&self, counter: &AtomicU64, bytes: u64) {
        counter.fetch_add(bytes, Ordering::Relaxed);
        let done = self.written.load(Ordering::Relaxed) + self.kept.load(Ordering::Relaxed);
        if done / WRITEBACK_BYTES != (done - bytes.min(done)) / WRITEBACK_BYTES {
            self.destination.start_writeback();
        }
        self.monitor.progress(done, self.total_bytes);
    }
}
