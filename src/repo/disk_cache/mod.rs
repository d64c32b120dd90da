//! A cache of sealed frames on the local disk, between the target and what is decoded in memory: what was read once from a
//! distant target is read from here the next time, after a restart as well.
//!
//! Frames are kept as the target holds them. Each authenticates itself as the block it is asked for, so nothing here has to be
//! trusted: an entry that leads to other bytes, or to none, is a miss. Hence no fsync, and no index on disk that could be wrong
//! in a way that matters.
//!
//! Few files: frames are appended to segments ([`segment`]), a 64th of the whole each; when there is no room the segment that
//! was not read from for the longest time goes. What is written to the target is not kept: of a backup little is read soon, and
//! its blocks are in memory while it goes on.
//!
//! One process of a host at a time writes, the one that holds the lock on the directory; others read what was there when they
//! began. Whoever finds the lock free takes over. Nothing that fails here fails a read.

mod entries;
mod segment;
mod writer;

use crate::repo::MemoryPlan;
use crate::words::ids::{BlockId, RepoId};
use entries::Entries;
use parking_lot::RwLock;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use writer::Writer;

/// Where it lies and how large it gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheSettings {
    /// A directory; each repository has one of its own below.
    pub dir: PathBuf,
    /// Bytes of all segments of one repository.
    pub limit_bytes: u64,
}

/// See the module. Nothing is read or made before the first block is asked for.
pub struct DiskCache {
    plan: Plan,
    opened: OnceLock<Opened>,
}

struct Opened {
    entries: Arc<RwLock<Entries>>,
    writer: Writer,
}

/// What a cache is opened with.
#[derive(Debug, Clone)]
struct Plan {
    dir: PathBuf,
    repo: RepoId,
    limit_bytes: u64,
    /// Entries that fit into the memory set aside for them.
    entries_max: usize,
    /// Bytes of frames that may wait to be written.
    queue_bytes: usize,
}

/// Bytes of memory for one entry, with what the table keeps free.
const ENTRY_BYTES: usize = 40;
/// Segments of a full cache.
const SEGMENTS: u64 = 64;

impl Plan {
    fn segment_bytes(&self) -> u64 {
        (self.limit_bytes / SEGMENTS).clamp(1 << 20, 1 << 30)
    }
}

impl DiskCache {
    /// The least size worth its while.
    pub const MIN_BYTES: u64 = 64 << 20;

    /// A cache for a repository.
    pub fn new(settings: &CacheSettings, repo: RepoId, memory: &MemoryPlan) -> Self {
        let plan = Plan {
            dir: settings.dir.join(repo.to_string()),
            repo,
            limit_bytes: settings.limit_bytes,
            entries_max: (memory.cache_entries / ENTRY_BYTES).max(1),
            queue_bytes: memory.cache_queue,
        };
        Self { plan, opened: OnceLock::new() }
    }

    fn opened(&self) -> &Opened {
        self.opened.get_or_init(|| {
            let entries = Arc::new(RwLock::new(Entries::default()));
            let writer = Writer::start(self.plan.clone(), Arc::clone(&entries));
            Opened { entries, writer }
        })
    }

    /// Replaces what `frame` holds by what is kept for a block, and says whether there is anything. The caller opens it, and
    /// calls [`DiskCache::forget`] when it is not authentic.
    pub fn get(&self, id: &BlockId, frame: &mut Vec<u8>) -> bool {
        let opened = self.opened();
        let Some((segment, place)) = opened.entries.read().find(id) else { return false };
        match segment.read(&place, id, frame) {
            Ok(true) => true,
            // Another block whose id begins alike.
            Ok(false) => false,
            Err(error) => {
                tracing::debug!("the cache has lost a block: {error}");
                opened.entries.write().forget(id);
                false
            }
        }
    }

    /// Drops the entry of a block that turned out to be something else.
    pub fn forget(&self, id: &BlockId) {
        self.opened().entries.write().forget(id);
    }

    /// Keeps the frame of a block, if there is time for it: a reader never waits.
    pub fn keep(&self, id: &BlockId, frame: &[u8]) {
        let opened = self.opened();
        if !opened.entries.read().contains(id) {
            opened.writer.offer(id, frame);
        }
    }

    /// Waits until everything offered so far was written or dropped.
    #[cfg(test)]
    pub fn settle(&self) {
        self.opened().writer.settle();
    }

    /// Bytes and files that a cache takes on disk, by looking at its directory.
    pub fn usage(settings: &CacheSettings, repo: RepoId) -> (u64, u64) {
        let sizes = segment_files(&settings.dir.join(repo.to_string())).into_iter();
        let sizes = sizes.filter_map(|(_, path)| Some(fs::metadata(path).ok()?.len()));
        sizes.fold((0, 0), |(bytes, files), size| (bytes + size, files + 1))
    }
}

/// The segments in a directory by number, oldest first; none when it cannot be read.
fn segment_files(dir: &Path) -> Vec<(u32, PathBuf)> {
    let Ok(listed) = fs::read_dir(dir) else { return Vec::new() };
    let mut found: Vec<_> = listed
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name();
            let number = name.to_str()?.strip_suffix(segment::SUFFIX).filter(|digits| digits.len() == 8)?;
            Some((u32::from_str_radix(number, 16).ok()?, entry.path()))
        })
        .collect();
    found.sort_unstable();
    found
}

/// Bytes that wait in a queue, given back when dropped.
struct Waiting {
    held: Arc<AtomicUsize>,
    bytes: usize,
}

impl Waiting {
    /// `None` when that would be more than `limit`.
    fn reserve(held: &Arc<AtomicUsize>, bytes: usize, limit: usize) -> Option<Self> {
        let fits = |now: usize| now.checked_add(bytes).filter(|then| *then <= limit);
        held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).ok()?;
        Some(Self { held: Arc::clone(held), bytes })
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
