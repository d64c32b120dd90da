//! Whatever happens to its files, the cache gives back what was put in, or nothing.

use super::*;
use crate::format::slot::Argon2Costs;
use crate::seal::{Sealer, Secret, keys};
use crate::words::clock::{Clock, SystemClock};
use crate::words::geometry::BlockSize;
use crate::words::record::BlockKind;
use std::os::unix::fs::FileExt;

const LIMIT_BYTES: u64 = 64 << 20;

struct World {
    dir: tempfile::TempDir,
    sealer: Sealer,
}

impl World {
    fn new() -> Self {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let settings = keys::Settings {
            block_size: BlockSize::MIN,
            zstd_level: 1,
            pack_size_bytes: 1 << 20,
            argon2: Argon2Costs::default(),
        };
        let secret = Secret::key_file(vec![7; 64]);
        let made = keys::create(&settings, std::slice::from_ref(&secret), &clock).unwrap();
        let of = |prefix: &'static str| {
            made.keys.iter().filter(move |(key, _)| key.as_str().starts_with(prefix)).map(|(_, bytes)| bytes.clone())
        };
        let slots: Vec<_> = of("keys/slot").collect();
        let rings: Vec<_> = of("keys/ring").collect();
        let sealer = keys::unlock(&made.header.1, &slots, &rings, &secret, &clock).unwrap();
        Self { dir: tempfile::tempdir().unwrap(), sealer }
    }

    fn cache(&self, limit_bytes: u64) -> DiskCache {
        let settings = CacheSettings { dir: self.dir.path().to_owned(), limit_bytes };
        DiskCache::new(&settings, self.sealer.repo(), &MemoryPlan::divide(64 << 20, true))
    }

    /// Block `n` of these many random bytes, and its frame.
    fn block(&self, n: u64, len: usize) -> (BlockId, Vec<u8>) {
        let mut plain = vec![0; len];
        SystemClock.random(&mut plain);
        plain[..8].copy_from_slice(&n.to_le_bytes());
        let (id, mut frame) = (self.sealer.data_id(&plain), Vec::new());
        self.sealer.seal_block(BlockKind::Data, &id, &plain, 1, &mut frame).unwrap();
        (id, frame)
    }

    fn opens(&self, cache: &DiskCache, id: &BlockId) -> bool {
        let mut frame = Vec::new();
        cache.get(id, &mut frame) && self.sealer.open_block(BlockKind::Data, id, &frame).is_ok()
    }

    fn files(&self) -> Vec<PathBuf> {
        segment_files(&self.dir.path().join(self.sealer.repo().to_string())).into_iter().map(|(_, path)| path).collect()
    }
}

fn fill(world: &World, cache: &DiskCache, blocks: u64, len: usize) -> Vec<(BlockId, Vec<u8>)> {
    let made: Vec<_> = (0..blocks).map(|n| world.block(n, len)).collect();
    for (id, frame) in &made {
        cache.keep(id, frame);
        cache.settle();
    }
    made
}

#[test]
fn what_was_kept_is_there_after_a_restart_and_after_a_crash() {
    let world = World::new();
    let cache = world.cache(LIMIT_BYTES);
    let blocks = fill(&world, &cache, 30, 200_000);
    assert!(blocks.iter().all(|(id, frame)| {
        let mut found = Vec::new();
        cache.get(id, &mut found) && found == *frame
    }));
    assert!(!world.opens(&cache, &world.block(99, 4096).0));
    drop(cache);
    let finished = world.files();
    assert!(finished.len() >= 5, "{finished:?}");
    let cache = world.cache(LIMIT_BYTES);
    assert!(blocks.iter().all(|(id, _)| world.opens(&cache, id)));
    drop(cache);
    // As a crash leaves them: without tables, and with half a frame at the end.
    for path in finished {
        let file = fs::File::options().write(true).open(&path).unwrap();
        let size = file.metadata().unwrap().len();
        file.set_len(size - 30).unwrap();
    }
    let cache = world.cache(LIMIT_BYTES);
    assert!(blocks.iter().all(|(id, _)| world.opens(&cache, id)));
}

#[test]
fn every_damaged_byte_costs_a_block_and_nothing_more() {
    let world = World::new();
    let cache = world.cache(LIMIT_BYTES);
    let blocks = fill(&world, &cache, 4, 300);
    drop(cache);
    let [path] = &world.files()[..] else { panic!("one segment") };
    let whole = fs::read(path).unwrap();
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x41;
        fs::write(path, &bytes).unwrap();
        let cache = world.cache(LIMIT_BYTES);
        let opened = blocks.iter().filter(|(id, _)| world.opens(&cache, id)).count();
        // In the header of the segment all are lost; in a table that does not check out, none.
        let least = if (at as u64) < segment::HEADER_LEN { 0 } else { 3 };
        assert!(opened >= least, "byte {at}: {opened}");
        drop(cache);
    }
    for len in 0..whole.len() {
        fs::write(path, &whole[..len]).unwrap();
        let cache = world.cache(LIMIT_BYTES);
        for (id, _) in &blocks {
            world.opens(&cache, id);
        }
    }
}

#[test]
fn it_stays_within_its_limit_and_keeps_what_is_read() {
    let world = World::new();
    let cache = world.cache(8 << 20);
    let first = fill(&world, &cache, 4, 250_000);
    for round in 0..20 {
        fill(&world, &cache, 4, 250_000);
        assert!(first.iter().all(|(id, _)| world.opens(&cache, id)), "round {round}");
    }
    let settings = CacheSettings { dir: world.dir.path().to_owned(), limit_bytes: 0 };
    let (bytes, files) = DiskCache::usage(&settings, world.sealer.repo());
    assert!(bytes <= 8 << 20 && bytes > 6 << 20 && files <= 9, "{bytes} bytes in {files} files");
    drop(cache);
    let cache = world.cache(4 << 20);
    assert!(!world.opens(&cache, &world.block(0, 100).0));
    assert!(DiskCache::usage(&settings, world.sealer.repo()).0 <= 4 << 20);
}

#[test]
fn one_process_writes_the_others_read_and_take_over() {
    let world = World::new();
    let writer = world.cache(LIMIT_BYTES);
    let blocks = fill(&world, &writer, 5, 1000);
    let reader = world.cache(LIMIT_BYTES);
    assert!(blocks.iter().all(|(id, _)| world.opens(&reader, id)));
    let (id, frame) = world.block(77, 1000);
    reader.keep(&id, &frame);
    reader.settle();
    assert!(!world.opens(&reader, &id), "it may not write");
    drop(writer);
    let next = world.cache(LIMIT_BYTES);
    next.keep(&id, &frame);
    next.settle();
    assert!(world.opens(&next, &id) && blocks.iter().all(|(id, _)| world.opens(&next, id)));
}

#[test]
fn a_directory_that_cannot_be_used_costs_nothing_but_the_cache() {
    let world = World::new();
    let file = world.dir.path().join("file");
    fs::File::create(&file).unwrap().write_all_at(b"x", 0).unwrap();
    let settings = CacheSettings { dir: file, limit_bytes: LIMIT_BYTES };
    let cache = DiskCache::new(&settings, world.sealer.repo(), &MemoryPlan::divide(64 << 20, true));
    let (id, frame) = world.block(1, 1000);
    cache.keep(&id, &frame);
    cache.settle();
    assert!(!world.opens(&cache, &id));
}
