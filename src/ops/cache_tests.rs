//! The cache on disk, seen by what is asked of the target.

use crate::image::{DraftImage, ImageReader};
use crate::repo::Repository;
use crate::repo::disk_cache::CacheSettings;
use crate::repo::testing::{create, open, open_cached, small};
use crate::target::{DirTarget, Operation, RecordingTarget, Target};
use crate::words::monitor::{Counter, Tally};
use crate::words::record::ImageRef;
use std::path::Path;
use std::sync::Arc;

const BLOCK: usize = 4096;

struct Cached {
    repo: Arc<Repository>,
    target: Arc<RecordingTarget<DirTarget>>,
    tally: Arc<Tally>,
}

/// A fresh process with a cache.
fn start(dir: &Path) -> Cached {
    let target = Arc::new(RecordingTarget::new(DirTarget::open(dir.join("target"))));
    let tally = Arc::new(Tally::default());
    let cache = CacheSettings { dir: dir.join("cache"), limit_bytes: 64 << 20 };
    let repo = open_cached(Arc::clone(&target) as _, &dir.join("reader"), Arc::clone(&tally), cache).unwrap();
    repo.refresh().unwrap();
    target.take();
    Cached { repo, target, tally }
}

impl Cached {
    /// Reads blocks and says how many requests for parts of packs that took.
    fn read(&self, image: ImageRef, blocks: &[u64]) -> usize {
        for block in blocks {
            // Each by a reader of its own: none reads in sequence, and nothing is read ahead.
            let reader = ImageReader::new(Arc::clone(&self.repo), image, "test");
            let mut bytes = vec![0; BLOCK];
            reader.read_at(block * BLOCK as u64, &mut bytes).unwrap();
            assert_eq!(bytes, content(*block));
        }
        self.repo.settle_cache();
        let asked = self.target.count(Operation::ReadAt);
        assert_eq!(self.target.take().len(), asked, "nothing else is asked");
        asked
    }
}

fn content(block: u64) -> Vec<u8> {
    (0..BLOCK as u64 / 8)
        .flat_map(|n| (block * 7919 + n * n).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes())
        .collect()
}

#[test]
fn only_what_is_touched_is_fetched_and_only_once() {
    let world = create(&small());
    let draft = DraftImage::new(Arc::clone(&world.repo), ImageRef::empty(world.repo.block_size()), None);
    // Two leaves of the map and a root.
    let blocks = 1500;
    for block in 0..blocks {
        draft.write_at(block * BLOCK as u64, &content(block)).unwrap();
    }
    let image = draft.settle().unwrap().image;
    let dir = world.dir.path();
    let first = start(dir);
    assert_eq!(first.read(image, &[7]), 3, "the root, a leaf and a block");
    assert_eq!(first.read(image, &[900, 7, 3]), 2, "two blocks more");
    assert_eq!((first.tally.get(Counter::DiskCacheHits), first.tally.get(Counter::DiskCacheMisses)), (0, 5));
    drop(first);
    let second = start(dir);
    assert_eq!(second.read(image, &[3, 7, 900]), 0, "a restart has lost nothing");
    assert_eq!((second.tally.get(Counter::DiskCacheHits), second.tally.get(Counter::DiskCacheMisses)), (5, 0));
    assert_eq!(second.read(image, &[1400]), 2, "another leaf and another block");
    // The target is away: what was read before is still there.
    std::fs::rename(dir.join("target/packs"), dir.join("away")).unwrap();
    drop(second);
    let third = start(dir);
    assert_eq!(third.read(image, &[1400, 3]), 0);
    let unread = third.repo.read_node(&image.root).unwrap().get(0);
    assert!(third.repo.read_node(&unread).is_ok());
}

#[test]
fn without_a_cache_everything_is_fetched_again() {
    let world = create(&small());
    let draft = DraftImage::new(Arc::clone(&world.repo), ImageRef::empty(world.repo.block_size()), None);
    draft.write_at(0, &content(0)).unwrap();
    let image = draft.settle().unwrap().image;
    for _ in 0..2 {
        let target = Arc::new(RecordingTarget::new(DirTarget::open(world.dir.path().join("target"))));
        let repo =
            open(Arc::clone(&target) as Arc<dyn Target>, &world.dir.path().join("plain"), Arc::default()).unwrap();
        repo.refresh().unwrap();
        target.take();
        ImageReader::new(Arc::clone(&repo), image, "test").read_at(0, &mut [0; BLOCK]).unwrap();
        assert_eq!(target.count(Operation::ReadAt), 2);
    }
}
