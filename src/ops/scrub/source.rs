//! Comparing a version with what it was made from, byte by byte.

use crate::catalog::Version;
use crate::ops::error::is_damage;
use crate::ops::scrub::pace::Pacer;
use crate::ops::scrub::report::{LostRange, RANGES_MAX};
use crate::ops::walk::{Found, walk};
use crate::ops::{Interrupt, OpsError};
use crate::repo::{RepoError, Repository};
use crate::source::{Content, Source};
use crate::words::ids::BlockId;
use crate::words::monitor::{Counter, Monitor};
use crossbeam_channel::{Sender, bounded};
use parking_lot::Mutex;
use serde::Serialize;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

/// Differences are told in these units: what disks write.
const SECTOR_BYTES: usize = 512;

/// Bytes that differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DifferingRange {
    /// From where.
    pub offset: u64,
    /// How many, in whole sectors of 512 bytes, cut at the end.
    pub length: u64,
}

/// What a comparison showed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Comparison {
    pub uid: String,
    pub name: String,
    pub source: String,
    pub size_bytes: u64,
    pub source_size_bytes: u64,
    pub compared_bytes: u64,
    pub differing_bytes: u64,
    /// At most [`RANGES_MAX`].
    pub differing: Vec<DifferingRange>,
    /// Bytes of the version that cannot be read.
    pub lost_bytes: u64,
    /// At most [`RANGES_MAX`].
    pub lost: Vec<LostRange>,
}

impl Comparison {
    /// Whether version and source are the same.
    pub fn is_equal(&self) -> bool {
        self.size_bytes == self.source_size_bytes && self.differing_bytes == 0 && self.lost_bytes == 0
    }
}

enum Job {
    Block {
        index: u64,
        id: BlockId,
    },
    /// What the version has as a hole.
    Hole(Range<u64>),
}

/// Compares a version with a source. Nothing is marked: a source that lives may have changed rightly.
///
/// # Errors
/// When the source or the target cannot be read, and [`OpsError::Interrupted`].
pub fn compare(
    repo: &Repository,
    version: &Version,
    source: &dyn Source,
    (rate, threads): (Option<u64>, usize),
    monitor: &dyn Monitor,
    interrupt: &Interrupt,
) -> Result<Comparison, OpsError> {
    let image = version.record.image;
    let work = Work {
        repo,
        source,
        block: image.block_size.bytes_u64(),
        end: image.size_bytes.min(source.size_bytes()),
        pacer: Pacer::new(rate, *interrupt),
        compared: AtomicU64::new(0),
        monitor,
        found: Mutex::default(),
        error: Mutex::default(),
    };
    std::thread::scope(|scope| {
        let (queue, jobs) = bounded::<Job>(threads.max(1) * 4);
        for _ in 0..threads.max(1) {
            let (jobs, work) = (jobs.clone(), &work);
            scope.spawn(move || {
                for job in jobs {
                    if work.error.lock().is_some() {
                        continue;
                    }
                    if let Err(error) = work.run(job) {
                        work.error.lock().get_or_insert(error);
                    }
                }
            });
        }
        drop(jobs);
        if let Err(error) = work.enumerate(&image, &queue) {
            work.error.lock().get_or_insert(error);
        }
        drop(queue);
    });
    if let Some(error) = work.error.into_inner() {
        return Err(error);
    }
    let Differences { mut differing, mut lost } = work.found.into_inner();
    differing.sort_by_key(|range| range.start);
    lost.sort_by_key(|(range, _)| range.start);
    let mut comparison = Comparison {
        uid: version.record.uid.to_string(),
        name: version.attributes.name.to_string(),
        source: source.describe(),
        size_bytes: image.size_bytes,
        source_size_bytes: source.size_bytes(),
        compared_bytes: work.compared.into_inner(),
        ..Comparison::default()
    };
    for range in differing {
        let (offset, length) = (range.start, range.end - range.start);
        comparison.differing_bytes += length;
        let has_room = comparison.differing.len() < RANGES_MAX;
        match comparison.differing.last_mut() {
            Some(last) if last.offset + last.length == offset => last.length += length,
            _ if has_room => comparison.differing.push(DifferingRange { offset, length }),
            _ => {}
        }
    }
    for (range, reason) in lost {
        let (offset, length) = (range.start, range.end - range.start);
        comparison.lost_bytes += length;
        if comparison.lost.len() < RANGES_MAX {
            comparison.lost.push(LostRange { offset, length, reason });
        }
    }
    Ok(comparison)
}

#[derive(Default)]
struct Differences {
    differing: Vec<Range<u64>>,
    lost: Vec<(Range<u64>, String)>,
}

struct Work<'a> {
    repo: &'a Repository,
    source: &'a dyn Source,
    block: u64,
    /// Both have bytes up to here.
    end: u64,
    pacer: Pacer,
    compared: AtomicU64,
    monitor: &'a dyn Monitor,
    found: Mutex<Differences>,
    error: Mutex<Option<OpsError>>,
}

impl Work<'_> {
    fn enumerate(&self, image: &crate::words::record::ImageRef, queue: &Sender<Job>) -> Result<(), OpsError> {
        let hand = |job| queue.send(job).map_err(|_| OpsError::Interrupted);
        // Where the version has a hole, only what the source holds needs to be looked at.
        let hole = |range: Range<u64>| {
            let mut at = range.start;
            while at < range.end {
                let extent = self.source.extent_at(at)?;
                let end = extent.range.end.min(range.end);
                while extent.content != Content::Hole && at < end {
                    let next = ((at / self.block + 1) * self.block).min(end);
                    hand(Job::Hole(at..next))?;
                    at = next;
                }
                at = end;
            }
            Ok::<(), OpsError>(())
        };
        let mut reached = 0;
        walk(self.repo, image, &mut |found| {
            if self.error.lock().is_some() || self.pacer.pass(0).is_break() {
                return Err(OpsError::Interrupted);
            }
            match found {
                Found::Block { index, id } => {
                    hole(reached..(index * self.block).min(self.end))?;
                    reached = (index + 1) * self.block;
                    hand(Job::Block { index, id })
                }
                Found::Lost { blocks, error } => {
                    hole(reached..(blocks.start * self.block).min(self.end))?;
                    reached = blocks.end.saturating_mul(self.block);
                    let range = blocks.start * self.block..reached.min(image.size_bytes);
                    self.found.lock().lost.push((range, error.to_string()));
                    Ok(())
                }
            }
        })?;
        hole(reached.min(self.end)..self.end)
    }

    fn run(&self, job: Job) -> Result<(), OpsError> {
        let range = match &job {
            Job::Hole(range) => range.clone(),
            Job::Block { index, .. } => index * self.block..((index + 1) * self.block).min(self.end),
        };
        let len = usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(0);
        if len == 0 {
            return Ok(());
        }
        if self.pacer.pass(len as u64).is_break() {
            return Err(OpsError::Interrupted);
        }
        let stored = match &job {
            Job::Hole(_) => None,
            Job::Block { id, .. } => match self.repo.read_block(id) {
                Ok(block) => Some(block),
                Err(error) if is_damage(&error) => {
                    self.found.lock().lost.push((range, RepoError::to_string(&error)));
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            },
        };
        let mut buffer = vec![0; len];
        self.source.read_at(range.start, &mut buffer)?;
        self.monitor.count(Counter::BytesRead, len as u64);
        let mut at = range.start;
        for (number, sector) in buffer.chunks(SECTOR_BYTES).enumerate() {
            let from = number * SECTOR_BYTES;
            let is_equal = match &stored {
                Some(block) => block[from..from + sector.len()] == *sector,
                None => sector.iter().all(|byte| *byte == 0),
            };
            let end = at + sector.len() as u64;
            if !is_equal {
                let mut found = self.found.lock();
                match found.differing.last_mut() {
                    Some(last) if last.end == at => last.end = end,
                    _ => found.differing.push(at..end),
                }
            }
            at = end;
        }
        let done = self.compared.fetch_add(len as u64, Ordering::Relaxed) + len as u64;
        self.monitor.progress(done, self.end);
        Ok(())
    }
}
