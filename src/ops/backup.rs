//! Backing up a file or a block device without a mount.
//!
//! ```text
//! data extents -> chunks -> read -> draft image (pipeline: zero, unchanged, known, or stored) -> settle -> publish
//! ```
//!
//! An interrupted backup publishes nothing, but what it stored is in packs and index: repeating it stores nothing twice. So
//! that a killed one loses little, the same is done every now and then.

use crate::image::DraftImage;
use crate::ops::commit::{Publication, publish_version};
use crate::ops::source::Source;
use crate::ops::{Interrupt, OpsError};
use crate::repo::Repository;
use crate::words::attribute::{Attributes, Validity};
use crate::words::ids::{DraftId, Uid};
use crate::words::monitor::{Counter, Monitor};
use crate::words::name::Name;
use crate::words::record::{ImageRef, Record};
use crate::words::stamp::Stamp;
use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What is read at once.
const CHUNK_BYTES: u64 = 4 << 20;
/// How many chunks before it is read a chunk is looked for in the page cache: the kernel's own read-ahead must not have
/// reached it by then.
const CHUNKS_AHEAD: usize = 4;
/// How much time's work a kill may cost.
const INDEX_INTERVAL: Duration = Duration::from_secs(30);

/// What to back up, and as what.
#[derive(Debug, Clone)]
pub struct Backup {
    /// A file or a block device.
    pub source: PathBuf,
    /// Name of the backup.
    pub name: Name,
    /// Which snapshot of the source this is.
    pub snapshot_name: String,
    /// Tags.
    pub tags: BTreeSet<String>,
    /// When it may go.
    pub expire: Option<Stamp>,
    /// The version it probably resembles, instead of the newest of the name.
    pub from: Option<Uid>,
}

/// A chunk of the source, and what of it the page cache did not hold.
struct Chunk {
    range: Range<u64>,
    absent: Vec<Range<u64>>,
}

/// Makes a version of a source.
///
/// # Errors
/// When the source cannot be read (the offset is named), the name is taken as a directory, or the repository fails. Nothing is
/// published then.
pub fn backup(
    repo: &Arc<Repository>,
    job: &Backup,
    monitor: &dyn Monitor,
    interrupt: &Interrupt,
) -> Result<Record, OpsError> {
    let started = Instant::now();
    let source = Source::open(&job.source)?;
    repo.check_name(&job.name)?;
    let base = match job.from {
        Some(uid) => Some(uid),
        None => repo.catalog().newest(&job.name).map_err(crate::repo::RepoError::from)?,
    };
    let base_image = base.map(|uid| repo.version(uid).map(|version| version.record.image)).transpose()?;
    let image = DraftImage::new(Arc::clone(repo), ImageRef::empty(repo.block_size()), base_image);
    let copied = copy(repo, &source, &image, monitor, interrupt).and_then(|()| Ok(image.settle()?));
    let settled = match copied {
        Ok(settled) => settled,
        Err(error) => {
            // What was stored must be found again. When that fails too, the first error is the one to tell.
            if let Err(second) = repo.flush_packs([]) {
                tracing::warn!("what was stored could not be indexed: {second}");
            }
            return Err(error);
        }
    };
    if source.has_changed() {
        monitor.warn(&format!("{} was changed while it was read: take a snapshot first", source.path().display()));
    }
    let attributes = Attributes {
        name: job.name.clone(),
        snapshot_name: job.snapshot_name.clone(),
        tags: job.tags.clone(),
        expire: job.expire,
        protected: false,
        validity: Validity::Valid,
        file: source.attributes(),
    };
    let publication = Publication {
        attributes,
        base: base.unwrap_or(Uid::NIL),
        supersedes: Uid::NIL,
        draft: DraftId::NIL,
        duration_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
        relatives: Vec::new(),
    };
    Ok(publish_version(repo, &settled, publication)?)
}

fn copy(
    repo: &Repository,
    source: &Source,
    image: &Arc<DraftImage>,
    monitor: &dyn Monitor,
    interrupt: &Interrupt,
) -> Result<(), OpsError> {
    let total = source.size_bytes();
    image.truncate(total)?;
    let mut buffer = vec![0; usize::try_from(CHUNK_BYTES.min(total)).unwrap_or(0)];
    let mut waiting: VecDeque<Chunk> = VecDeque::new();
    let mut looked = 0;
    let mut indexed = Instant::now();
    monitor.progress(0, total);
    loop {
        while waiting.len() < CHUNKS_AHEAD {
            let Some(range) = source.next_chunk(looked, CHUNK_BYTES) else { break };
            looked = range.end;
            waiting.push_back(Chunk { absent: source.absent_pages(&range), range });
        }
        let Some(Chunk { range, absent }) = waiting.pop_front() else { break };
        interrupt.check()?;
        let len = usize::try_from(range.end - range.start).unwrap_or(0);
        source.read(range.start, &mut buffer[..len])?;
        monitor.count(Counter::BytesRead, len as u64);
        source.forget_pages(&absent);
        image.write_at(range.start, &buffer[..len])?;
        monitor.progress(range.end, total);
        if indexed.elapsed() >= INDEX_INTERVAL {
            repo.flush_packs([])?;
            indexed = Instant::now();
        }
    }
    monitor.progress(total, total);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repo::testing;
    use std::os::unix::fs::FileExt;
    use std::sync::atomic::{AtomicBool, Ordering};

    /// Raises a flag when half of the source has been read.
    struct StopHalfway(&'static AtomicBool);

    impl Monitor for StopHalfway {
        fn count(&self, _: Counter, _: u64) {}

        fn progress(&self, done: u64, total: u64) {
            self.0.store(done > total / 2, Ordering::Relaxed);
        }
    }

    fn noise(len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        crate::words::clock::Clock::random(&crate::words::clock::SystemClock, &mut bytes);
        bytes
    }

    #[test]
    fn an_interrupted_backup_publishes_nothing_and_repeated_stores_nothing_twice() {
        static STOP: AtomicBool = AtomicBool::new(false);
        let test = testing::create(&testing::small());
        let source = test.dir.path().join("source");
        std::fs::write(&source, noise(12 << 20)).unwrap();
        let job = Backup {
            source: source.clone(),
            name: Name::new("vm").unwrap(),
            snapshot_name: String::new(),
            tags: BTreeSet::new(),
            expire: None,
            from: None,
        };
        let stopped = backup(&test.repo, &job, &StopHalfway(&STOP), &Interrupt::new(&STOP));
        assert!(matches!(stopped, Err(OpsError::Interrupted)));
        assert_eq!(test.repo.catalog().version_uids().unwrap(), []);
        let (stored, silent) = (test.tally.get(Counter::BlocksStored), crate::words::monitor::Silent);
        assert!(stored > 1000, "{stored}");
        backup(&test.repo, &job, &silent, &Interrupt::never()).unwrap();
        let map_nodes = 5;
        assert!(test.tally.get(Counter::BlocksStored) <= (12 << 20) / 4096 + map_nodes);

        // Unchanged, and again with a hole where there was data: nothing is looked up, nothing but nodes of the map stored.
        let (lookups, stored) = (test.tally.get(Counter::IndexLookups), test.tally.get(Counter::BlocksStored));
        std::fs::File::options().write(true).open(&source).unwrap().write_all_at(&[0; 4096], 1 << 20).unwrap();
        let record = backup(&test.repo, &job, &silent, &Interrupt::never()).unwrap();
        assert!(test.tally.get(Counter::IndexLookups) - lookups <= map_nodes);
        assert!(test.tally.get(Counter::BlocksStored) - stored <= 2);
        assert_eq!(record.image.allocated_blocks, (12 << 20) / 4096 - 1);
        assert!(!record.base.is_nil());
    }
}
