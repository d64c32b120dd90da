//! A target in memory, hosts on it, and images of few blocks.

use crate::format::layout::ObjectKey;
use crate::image::overlay::OverlayFile;
use crate::image::{DraftImage, ImageReader};
use crate::ops::commit::{Publication, publish_version};
use crate::ops::gc::{Options, Report, gc};
use crate::ops::rebuild::{IndexSource, rebuild};
use crate::ops::{Interrupt, OpsError, overlays};
use crate::repo::testing::{attributes, open, open_at, small};
use crate::repo::{RepoError, Repository};
use crate::seal::Secret;
use crate::target::memory::{HeldTarget, MemoryTarget};
use crate::target::{FlakyTarget, Patience, RetryTarget, Target};
use crate::words::clock::{Clock, ClockExt, SystemClock, TestClock};
use crate::words::ids::{BlockId, DraftId, Uid};
use crate::words::monitor::{Silent, Tally};
use crate::words::record::{ImageRef, Record, RecordKind};
use crate::words::stamp::Stamp;
use std::sync::Arc;
use std::time::Duration;

pub(in crate::ops) const BLOCK: usize = 4096;

pub(in crate::ops) struct Lab {
    pub(in crate::ops) memory: Arc<MemoryTarget>,
    /// By which way hosts come to it.
    way: Arc<dyn Target>,
    pub(in crate::ops) dir: tempfile::TempDir,
}

/// Of a hundred answers so many are flawed. Each costs some milliseconds of waiting.
const FLAWED_PERCENT: u8 = 2;

/// A host: a catalog of its own and a way to the target that can be held up.
pub(in crate::ops) struct Host {
    pub(in crate::ops) repo: Arc<Repository>,
    pub(in crate::ops) held: Arc<HeldTarget>,
}

impl Lab {
    pub(in crate::ops) fn new() -> Self {
        let memory = Arc::new(MemoryTarget::default());
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        Repository::create(&*memory, &[Secret::key_file(vec![7; 64])], &small(), &clock).unwrap();
        Self { way: Arc::clone(&memory) as _, memory, dir: tempfile::tempdir().unwrap() }
    }

    /// A target that loses, cuts and changes answers, and clients that ask again.
    pub(in crate::ops) fn flaky(seed: u64) -> Self {
        let lab = Self::new();
        let patience = Patience { usual: Duration::from_secs(60), first: Duration::from_secs(60) };
        let way = RetryTarget::new(FlakyTarget::new(Arc::clone(&lab.memory), seed, FLAWED_PERCENT), patience);
        Self { way: Arc::new(way), ..lab }
    }

    /// Opens a host's state, old or new, and learns what there is.
    pub(in crate::ops) fn host(&self, name: &str) -> Host {
        let host = self.sleepy(name);
        host.repo.refresh().unwrap();
        host
    }

    /// As [`Lab::host`], with a clock of the test.
    pub(in crate::ops) fn host_at(&self, name: &str, clock: &Arc<TestClock>) -> Host {
        let held = HeldTarget::new(Arc::clone(&self.way));
        let (state, clock) = (self.dir.path().join(name), Arc::clone(clock) as _);
        let repo = open_at(Arc::clone(&held) as _, &state, Arc::new(Tally::default()), clock).unwrap();
        repo.refresh().unwrap();
        Host { repo, held }
    }

    /// As it left the state: it has not looked at the target yet.
    pub(in crate::ops) fn sleepy(&self, name: &str) -> Host {
        let held = HeldTarget::new(Arc::clone(&self.way));
        let repo = open(Arc::clone(&held) as _, &self.dir.path().join(name), Arc::new(Tally::default())).unwrap();
        Host { repo, held }
    }

    /// One that holds data: those of maps are small. In which order they come nobody knows.
    pub(in crate::ops) fn largest_pack(&self) -> ObjectKey {
        let packs = self.memory.list("packs/").unwrap();
        packs.into_iter().max_by_key(|info| self.memory.get(&info.key).unwrap().len()).unwrap().key
    }

    pub(in crate::ops) fn packs_bytes(&self) -> usize {
        self.memory.bytes_below("packs/")
    }
}

/// Blocks whose contents follow from numbers: 0 is a hole, others do not compress.
pub(in crate::ops) fn image(blocks: &[u32]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(blocks.len() * BLOCK);
    for seed in blocks {
        let mut state = u64::from(*seed);
        bytes.extend((0..BLOCK).map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            if *seed == 0 { 0 } else { (state >> 33) as u8 }
        }));
    }
    bytes
}

pub(in crate::ops) fn numbers(range: std::ops::Range<u32>) -> Vec<u32> {
    range.collect()
}

impl Host {
    /// A finished backup: acknowledged when it is `Ok`.
    pub(in crate::ops) fn back_up(&self, name: &str, bytes: &[u8]) -> Result<Record, RepoError> {
        self.back_up_of(None, name, bytes)
    }

    /// What a writer makes who goes on after close: a version that replaces another, or stands for a draft.
    pub(in crate::ops) fn back_up_instead(
        &self,
        (supersedes, draft): (Uid, DraftId),
        name: &str,
        bytes: &[u8],
    ) -> Result<Record, RepoError> {
        let start = ImageRef::empty(self.repo.block_size());
        let image = DraftImage::new(Arc::clone(&self.repo), start, Some(start));
        image.write_at(0, bytes)?;
        image.truncate(bytes.len() as u64)?;
        let publication = Publication { supersedes, draft, ..Publication::new(attributes(name)) };
        publish_version(&self.repo, &image.settle()?, publication)
    }

    /// A backup that claims a moment.
    pub(in crate::ops) fn back_up_of(
        &self,
        created: Option<Stamp>,
        name: &str,
        bytes: &[u8],
    ) -> Result<Record, RepoError> {
        let start = ImageRef::empty(self.repo.block_size());
        let draft = DraftImage::new(Arc::clone(&self.repo), start, Some(start));
        draft.write_at(0, bytes)?;
        draft.truncate(bytes.len() as u64)?;
        let publication = Publication { created, relatives: vec![start], ..Publication::new(attributes(name)) };
        publish_version(&self.repo, &draft.settle()?, publication)
    }

    /// As an fsync does: what is written so far, in a record of its own; the one before goes when it is confirmed.
    pub(in crate::ops) fn keep_draft(
        &self,
        name: &str,
        bytes: &[u8],
        before: Option<&Record>,
    ) -> Result<Record, RepoError> {
        let repo = &self.repo;
        let start = ImageRef::empty(repo.block_size());
        let draft = DraftImage::new(Arc::clone(repo), start, Some(start));
        draft.write_at(0, bytes)?;
        draft.truncate(bytes.len() as u64)?;
        let settled = draft.settle()?;
        let now = repo.clock().now();
        let record = Record {
            uid: repo.clock().uid_at(now),
            kind: RecordKind::Draft,
            created: now,
            host: repo.host(),
            image: settled.image,
            base: Uid::NIL,
            supersedes: before.map_or(Uid::NIL, |before| before.uid),
            draft: before.map_or_else(|| repo.clock().draft_id(), |before| before.draft),
            start,
            broken: None,
            attributes: attributes(name),
            stats: settled.stats,
        };
        repo.publish(&record, &[start])?;
        if let Some(before) = before {
            repo.remove_record(RecordKind::Draft, before.uid)?;
        }
        Ok(record)
    }

    /// Makes an overlay of a version, and the pin that keeps what is below it.
    pub(in crate::ops) fn overlay(&self, uid: Uid) -> Result<Record, RepoError> {
        let version =
            self.repo.catalog().version_summary(uid)?.ok_or(RepoError::NoSuchVersion { spec: uid.to_string() })?;
        let directory = overlays::directory(&self.repo);
        std::fs::create_dir_all(&directory).unwrap();
        OverlayFile::open_or_create(&directory, uid, version.image.size_bytes).unwrap();
        overlays::pin_anew(&self.repo, &version)?;
        let pins = overlays::pins_of(&self.repo, uid)?;
        Ok(pins.into_iter().next_back().expect("it was published"))
    }

    /// Stores a block in a pack and a fragment of its own, as an unfinished backup does.
    pub(in crate::ops) fn store(&self, number: u32) {
        self.repo.store_block(&image(&[number]), BlockId::HOLE).unwrap();
        self.repo.flush_packs([]).unwrap();
    }

    pub(in crate::ops) fn read(&self, uid: Uid) -> Result<Vec<u8>, RepoError> {
        self.read_image(self.repo.version(uid)?.record.image)
    }

    pub(in crate::ops) fn read_image(&self, image: ImageRef) -> Result<Vec<u8>, RepoError> {
        let mut bytes = vec![0; image.size_bytes as usize];
        ImageReader::new(Arc::clone(&self.repo), image, "test").read_at(0, &mut bytes)?;
        Ok(bytes)
    }

    pub(in crate::ops) fn gc(&self) -> Result<Report, OpsError> {
        self.gc_with(&Options::default())
    }

    /// What unfinished backups stored goes, too.
    pub(in crate::ops) fn gc_all(&self) -> Result<Report, OpsError> {
        self.gc_with(&Options { unfinished_ms: 0, ..Options::default() })
    }

    pub(in crate::ops) fn gc_with(&self, options: &Options) -> Result<Report, OpsError> {
        gc(&self.repo, options, &Silent, &Interrupt::never())
    }

    pub(in crate::ops) fn rebuild(&self, source: IndexSource) {
        let rebuilt = rebuild(&self.repo, source, &Silent).unwrap();
        assert!(rebuilt.unreadable.is_empty(), "{:?}", rebuilt.unreadable);
    }
}
