//! Backups of files, with and without knowledge of what changed.

use super::*;
use crate::ops::gc::{Options, gc};
use crate::repo::testing::{self, Dice, TestRepository};
use crate::words::monitor::{Counter, Silent, Tally};
use crate::words::record::BlockKind;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};

const BLOCK: u64 = 4096;

/// Raises a flag when part of the source has been read.
struct StopEarly(&'static AtomicBool);

impl Monitor for StopEarly {
    fn count(&self, _: Counter, _: u64) {}

    fn progress(&self, done: u64, total: u64) {
        self.0.store(done > total / 8, Ordering::Relaxed);
    }
}

fn noise(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    crate::words::clock::Clock::random(&crate::words::clock::SystemClock, &mut bytes);
    bytes
}

struct Scene {
    test: TestRepository,
    job: Backup,
    disk: File,
}

/// A repository and a disk with these bytes.
fn scene(content: &[u8]) -> Scene {
    let test = testing::create(&testing::small());
    let path = test.dir.path().join("disk");
    std::fs::write(&path, content).unwrap();
    let disk = File::options().read(true).write(true).open(&path).unwrap();
    let job = Backup::new(Recipe::File { path }, Name::new("vm").unwrap());
    Scene { test, job, disk }
}

impl Scene {
    fn run(&self) -> Result<BackedUp, OpsError> {
        backup(&self.test.repo, &self.job, &Silent, &Interrupt::never())
    }

    fn hint(&mut self, hints: &str) {
        let path = self.test.dir.path().join("hints");
        std::fs::write(&path, hints).unwrap();
        self.job.changes = ChangesFrom::Hints(path);
    }

    /// Backs up with hints, and says how many bytes were read of the source beside the sample.
    fn run_counted(&self) -> Result<(Record, u64), OpsError> {
        let tally = Tally::default();
        let made = backup(&self.test.repo, &self.job, &tally, &Interrupt::never())?;
        Ok((made.record, tally.get(Counter::BytesRead)))
    }

    fn content(&self, record: &Record) -> Vec<u8> {
        let reader = crate::image::ImageReader::new(Arc::clone(&self.test.repo), record.image, "test");
        let mut bytes = vec![0; record.image.size_bytes as usize];
        reader.read_at(0, &mut bytes).unwrap();
        bytes
    }

    fn assert_whole(&self, record: &Record) {
        let mut expected = vec![0; self.disk.metadata().unwrap().len() as usize];
        self.disk.read_exact_at(&mut expected, 0).unwrap();
        let found = self.content(record);
        assert_eq!(found.len(), expected.len());
        let wrong = found.iter().zip(&expected).position(|(a, b)| a != b);
        assert_eq!(wrong, None, "first wrong byte");
    }
}

/// Deletes the base on another host, and collects there, as soon as this host says that it needs it.
struct LosesBase {
    repo: Arc<Repository>,
    other: Arc<Repository>,
    base: Uid,
    is_done: AtomicBool,
}

impl Monitor for LosesBase {
    fn count(&self, _: Counter, _: u64) {}

    fn progress(&self, _: u64, _: u64) {
        if self.is_done.swap(true, Ordering::Relaxed) {
            return;
        }
        for _ in 0..400 {
            if !crate::ops::overlays::own_pins(&self.repo).unwrap().is_empty() {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        self.other.refresh().unwrap();
        self.other.remove_version(self.base).unwrap();
        let report = gc(&self.other, &Options::default(), &Silent, &Interrupt::never()).unwrap();
        assert_eq!(report.obstacles, Vec::<String>::new());
    }
}

#[test]
fn a_base_that_is_deleted_elsewhere_stays_until_the_backup_is_done() {
    let mut scene = scene(&noise(4 << 20));
    let base = scene.run().unwrap().record.uid;
    scene.hint(r#"[{"offset": 0, "length": 4096, "exists": true}]"#);
    scene.disk.write_all_at(&noise(4096), 0).unwrap();
    let repo = Arc::clone(&scene.test.repo);
    let target = Arc::new(crate::target::DirTarget::open(scene.test.dir.path().join("target")));
    let other = testing::open(target, &scene.test.dir.path().join("other"), Arc::default()).unwrap();
    let monitor = LosesBase { repo: Arc::clone(&repo), other, base, is_done: AtomicBool::new(false) };
    let made = backup(&repo, &scene.job, &monitor, &Interrupt::never()).unwrap();
    assert!(monitor.is_done.load(Ordering::Relaxed));
    scene.assert_whole(&made.record);
    assert_eq!(crate::ops::overlays::own_pins(&repo).unwrap(), []);
}

#[test]
fn an_interrupted_backup_publishes_nothing_and_repeated_stores_nothing_twice() {
    static STOP: AtomicBool = AtomicBool::new(false);
    let scene = scene(&noise(48 << 20));
    let stopped = backup(&scene.test.repo, &scene.job, &StopEarly(&STOP), &Interrupt::new(&STOP));
    assert!(matches!(stopped, Err(OpsError::Interrupted)));
    assert_eq!(scene.test.repo.catalog().version_uids().unwrap(), []);
    let stored = scene.test.tally.get(Counter::BlocksStored);
    assert!(stored >= 1000, "{stored}");
    scene.assert_whole(&scene.run().unwrap().record);
    let map_nodes = 40;
    assert!(scene.test.tally.get(Counter::BlocksStored) <= (48 << 20) / BLOCK + map_nodes);
    assert_eq!(scene.test.repo.catalog().drafts().unwrap(), []);

    // Unchanged, and again with a hole where there was data: nothing is looked up, nothing but nodes of the map stored.
    let (lookups, stored) = (scene.test.tally.get(Counter::IndexLookups), scene.test.tally.get(Counter::BlocksStored));
    scene.disk.write_all_at(&[0; BLOCK as usize], 1 << 20).unwrap();
    let record = scene.run().unwrap().record;
    assert!(scene.test.tally.get(Counter::IndexLookups) - lookups <= map_nodes);
    assert!(scene.test.tally.get(Counter::BlocksStored) - stored <= 2);
    assert_eq!(record.image.allocated_blocks, (48 << 20) / BLOCK - 1);
    assert!(!record.base.is_nil());
}

#[test]
fn an_interrupted_backup_goes_on_where_it_stopped() {
    static STOP: AtomicBool = AtomicBool::new(false);
    let mut scene = scene(&noise((48 << 20) + 1234));
    let stopped = backup(&scene.test.repo, &scene.job, &StopEarly(&STOP), &Interrupt::new(&STOP));
    assert!(matches!(stopped, Err(OpsError::Interrupted)));
    let draft = scene.test.repo.catalog().draft_of(&scene.job.name).unwrap().unwrap();
    let reached = draft.broken.unwrap().at;
    assert!(reached >= 4 << 20, "{reached}");
    scene.job.begin = Begin::Continue;
    let (record, read) = scene.run_counted().unwrap();
    scene.assert_whole(&record);
    assert_eq!(read, (48 << 20) + 1234 - reached);
    assert_eq!(scene.test.repo.catalog().drafts().unwrap(), []);

    // Of a source that has changed since, nothing is mixed.
    STOP.store(false, Ordering::Relaxed);
    scene.disk.write_all_at(&noise(48 << 20), 0).unwrap();
    let stopped = backup(&scene.test.repo, &scene.job, &StopEarly(&STOP), &Interrupt::new(&STOP));
    assert!(matches!(stopped, Err(OpsError::Interrupted)));
    scene.disk.write_all_at(b"changed", 0).unwrap();
    let (record, read) = scene.run_counted().unwrap();
    assert_eq!(read, (48 << 20) + 1234);
    scene.assert_whole(&record);
}

/// The note of how far it got may say "all of it", when it was killed between the last read and the publication.
#[test]
fn an_interrupted_backup_that_had_read_everything_keeps_its_last_block() {
    static STOP: AtomicBool = AtomicBool::new(false);
    let mut scene = scene(&noise((48 << 20) + 1234));
    let stopped = backup(&scene.test.repo, &scene.job, &StopEarly(&STOP), &Interrupt::new(&STOP));
    assert!(matches!(stopped, Err(OpsError::Interrupted)));
    let repo = Arc::clone(&scene.test.repo);
    let left = repo.catalog().draft_of(&scene.job.name).unwrap().unwrap();
    // The same draft, had it got to the end.
    let image = DraftImage::new(Arc::clone(&repo), left.image, None);
    let mut content = vec![0; (48 << 20) + 1234];
    scene.disk.read_exact_at(&mut content, 0).unwrap();
    image.write_at(0, &content).unwrap();
    let settled = image.settle().unwrap();
    let mut unfinished = Unfinished {
        draft: repo.claim_draft(left.draft).unwrap().unwrap(),
        name: left.attributes.name.clone(),
        source: scene.job.source.volume().unwrap().describe(),
        snapshot_name: String::new(),
        file: left.attributes.file,
        base: left.base,
        start: left.start,
        record: Some(left),
    };
    unfinished.save(&repo, &settled, content.len() as u64, "go on with --continue", None).unwrap();
    drop(unfinished);
    scene.job.begin = Begin::Continue;
    let (record, read) = scene.run_counted().unwrap();
    assert_eq!(read, 1234);
    scene.assert_whole(&record);
}

#[test]
fn only_what_is_hinted_is_read() {
    let mut scene = scene(&noise(1 << 20));
    scene.run().unwrap();
    // Not on blocks, and at the end.
    scene.disk.write_all_at(b"new", 5000).unwrap();
    scene.disk.write_all_at(b"end", (1 << 20) - 3).unwrap();
    scene.hint(r#"[{"offset":5000,"length":3,"exists":"true"},{"offset":1048573,"length":3,"exists":true}]"#);
    let (record, read) = scene.run_counted().unwrap();
    assert_eq!(read, 2 * BLOCK);
    scene.assert_whole(&record);

    // Nothing at all: nothing is read, and nothing stored but a record.
    scene.hint("[]");
    let stored = scene.test.tally.get(Counter::BlocksStored);
    let (again, read) = scene.run_counted().unwrap();
    assert_eq!((read, scene.test.tally.get(Counter::BlocksStored)), (0, stored));
    assert_eq!(again.image, record.image);
    assert_ne!(again.uid, record.uid);
}

#[test]
fn a_hole_in_part_of_a_block_leaves_the_rest_of_it() {
    let mut scene = scene(&noise(1 << 20));
    scene.run().unwrap();
    scene.disk.write_all_at(&vec![0; 3 * BLOCK as usize], BLOCK + 100).unwrap();
    scene.hint(r#"[{"offset":4196,"length":12288,"exists":false}]"#);
    let (record, read) = scene.run_counted().unwrap();
    assert_eq!(read, 2 * BLOCK, "the two blocks at the ends of the hole");
    scene.assert_whole(&record);
}

#[test]
fn grown_and_shrunk() {
    let mut scene = scene(&noise(100_001));
    scene.run().unwrap();
    scene.hint("[]");
    for size in [100_002, 150_000, 150_000 + 7 * BLOCK, 40_960, 40_961, 12_288, 1, 20_000, 0, 300] {
        let before = scene.disk.metadata().unwrap().len();
        scene.disk.set_len(size).unwrap();
        if size > before {
            scene.disk.write_all_at(b"tail", size - 4.min(size)).unwrap();
        }
        let (record, read) = scene.run_counted().unwrap();
        assert!(read <= size.saturating_sub(before) + 2 * BLOCK, "{read} bytes read for {before} -> {size}");
        scene.assert_whole(&record);
    }
}

#[test]
fn what_is_said_to_be_unchanged_is_compared() {
    let mut scene = scene(&noise(16 * BLOCK as usize));
    let first = scene.run().unwrap().record;
    scene.disk.write_all_at(b"unhinted", 7 * BLOCK + 5).unwrap();
    scene.hint(r#"[{"offset":0,"length":1,"exists":true}]"#);
    let differs = scene.run();
    assert!(matches!(differs, Err(OpsError::Differs { offset, .. }) if offset == 7 * BLOCK), "{differs:?}");
    // The base stays, and counts.
    assert_eq!(scene.test.repo.catalog().version_uids().unwrap(), [first.uid]);
    assert!(scene.test.repo.version(first.uid).unwrap().attributes.validity.is_complete());
    // Fewer than the sample wants.
    scene.hint(r#"[{"offset":0,"length":61440,"exists":true}]"#);
    scene.assert_whole(&scene.run().unwrap().record);
    let whole = format!(r#"[{{"offset":0,"length":{},"exists":true}}]"#, 16 * BLOCK);
    scene.hint(&whole);
    scene.assert_whole(&scene.run().unwrap().record);
}

/// Fewer untouched blocks than a sample has, down to none: each of them is compared.
#[test]
fn few_untouched_blocks_are_all_compared() {
    const BLOCKS: u64 = 6;
    for untouched in 0..5 {
        let mut scene = scene(&noise(BLOCKS as usize * BLOCK as usize - 100));
        scene.run().unwrap();
        // Two hints that overlap, the last of them up to the end.
        let hints = |from: u64| {
            let (end, middle) = (BLOCKS * BLOCK - 100, from + BLOCK / 2);
            let first = format!("{{\"offset\":{from},\"length\":{BLOCK},\"exists\":true}}");
            format!("[{first},{{\"offset\":{middle},\"length\":{},\"exists\":\"true\"}}]", end - middle)
        };
        scene.disk.write_all_at(b"told", untouched * BLOCK).unwrap();
        scene.hint(&hints(untouched * BLOCK));
        scene.assert_whole(&scene.run().unwrap().record);
        for index in 0..untouched {
            scene.disk.write_all_at(b"untold", index * BLOCK + 7).unwrap();
            let differs = scene.run();
            assert!(matches!(differs, Err(OpsError::Differs { offset, .. }) if offset == index * BLOCK), "{differs:?}");
            // Read in full it is right, and the base of the next.
            let hints = std::mem::replace(&mut scene.job.changes, ChangesFrom::Nobody);
            scene.assert_whole(&scene.run().unwrap().record);
            scene.job.changes = hints;
        }
    }
}

#[test]
fn hints_past_the_end_and_hints_without_a_base() {
    let mut scene = scene(&noise(100_000));
    scene.hint(r#"[{"offset":99999,"length":2,"exists":true}]"#);
    assert!(matches!(scene.run(), Err(OpsError::Source(crate::source::SourceError::Hints { .. }))));
    // Nothing to be relative to: all of it is read.
    scene.hint("[]");
    scene.assert_whole(&scene.run().unwrap().record);
}

#[test]
fn an_older_version_can_be_the_base() {
    let mut scene = scene(&noise(20 * BLOCK as usize));
    let first = scene.run().unwrap().record;
    scene.disk.write_all_at(b"second", 0).unwrap();
    scene.run().unwrap();
    scene.disk.write_all_at(b"third!", BLOCK).unwrap();
    scene.job.from = Some(first.uid);
    scene.hint(r#"[{"offset":0,"length":6000,"exists":true}]"#);
    let (record, read) = scene.run_counted().unwrap();
    assert_eq!((record.base, read), (first.uid, 2 * BLOCK));
    scene.assert_whole(&record);
}

#[test]
fn bad_blocks_of_the_base_are_read_again() {
    let mut scene = scene(&noise(100 * BLOCK as usize + 77));
    let repo = Arc::clone(&scene.test.repo);
    let first = scene.run().unwrap().record;
    let reader = crate::image::ImageReader::new(Arc::clone(&repo), first.image, "test");
    // Two are bad on the target, the last of them partial; the rest is used.
    let bad: BTreeSet<_> = [40, 100].map(|index| reader.block_id(index).unwrap()).into();
    for index in [40, 100] {
        let block = reader.block_id(index).unwrap();
        let pack = repo.catalog().locations(&block).unwrap()[0].pack;
        repo.settle_damage(pack, BlockKind::Data, Some("flipped"), &bad).unwrap();
    }
    repo.set_validity(first.uid, Validity::Invalid("two blocks are bad".into())).unwrap();
    scene.hint("[]");
    let (record, read) = scene.run_counted().unwrap();
    assert_eq!(read, BLOCK + 77);
    assert!(record.stats.new_bytes > 0, "they are stored again");
    scene.assert_whole(&record);

    // What could not be read when the base was made is read again, too; of a copy that broke nothing is relied on.
    let bad = BadSectors::new(std::iter::once(5 * BLOCK..5 * BLOCK + 512).collect());
    repo.set_validity(record.uid, Validity::Incomplete(bad.to_string())).unwrap();
    let (record, read) = scene.run_counted().unwrap();
    assert!((BLOCK..=2 * BLOCK + 77).contains(&read), "{read}");
    repo.set_validity(record.uid, Validity::Incomplete("cp was killed".into())).unwrap();
    let (record, read) = scene.run_counted().unwrap();
    assert_eq!(read, 100 * BLOCK + 77);
    scene.assert_whole(&record);
}

/// Hundreds of incremental backups in a row against plain copies of the disk: whatever is patched, punched or cut off, and however
/// its hints are put, every version is what the disk was.
#[test]
fn any_patches_holes_and_sizes_make_true_versions() {
    const ROUNDS: usize = 300;
    let given = std::env::var("BACKYFS_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| u64::from_le_bytes(noise(8).try_into().unwrap())) | 1;
    println!("BACKYFS_TEST_SEED={seed}");
    let mut dice = Dice(seed);
    let mut disk = dice.bytes(150_000);
    let mut scene = scene(&disk);
    scene.run().unwrap();
    let mut made = Vec::new();
    for round in 0..ROUNDS {
        let mut hints: Vec<String> = Vec::new();
        let mut hint = |from: u64, len: u64, exists: bool, dice: &mut Dice| {
            let exists = if dice.below(2) == 0 { format!("{exists}") } else { format!("\"{exists}\"") };
            hints.push(format!("{{\"offset\":{from},\"length\":{len},\"exists\":{exists}}}"));
        };
        // The size first: hints speak of the disk as it is now.
        if dice.below(4) == 0 {
            let size = match dice.below(3) {
                0 => dice.below(40) * BLOCK,
                1 => dice.below(160_000),
                _ => (disk.len() as u64 + dice.below(9000)).saturating_sub(4500),
            };
            let before = disk.len() as u64;
            disk.resize(size as usize, 0);
            // A disk may grow by anything; nobody needs to hint at it.
            if size > before && dice.below(2) == 0 {
                let bytes = dice.bytes(size - before);
                disk[before as usize..].copy_from_slice(&bytes);
            }
        }
        let size = disk.len() as u64;
        for _ in 0..dice.below(6) {
            let from = dice.below(size.max(1)).min(size);
            let len = match dice.below(3) {
                0 => dice.below(600),
                1 => BLOCK * dice.below(4),
                _ => dice.below(30_000),
            };
            let end = (from + len).min(size);
            if dice.below(3) == 0 {
                disk[from as usize..end as usize].fill(0);
                hint(from, end - from, false, &mut dice);
            } else {
                let bytes = dice.bytes(end - from);
                disk[from as usize..end as usize].copy_from_slice(&bytes);
                // Told exactly, in two overlapping parts, or with more around it; after a hole it was punched into.
                let middle = from + dice.below(end - from + 1);
                match dice.below(3) {
                    0 => hint(from, end - from, true, &mut dice),
                    1 => {
                        hint(
                            middle.saturating_sub(10).max(from),
                            end - middle.saturating_sub(10).max(from),
                            true,
                            &mut dice,
                        );
                        hint(from, middle - from, true, &mut dice);
                    }
                    _ => {
                        let wide = from.saturating_sub(dice.below(5000));
                        hint(wide, (end + dice.below(5000)).min(size) - wide, true, &mut dice);
                    }
                }
            }
        }
        scene.disk.set_len(size).unwrap();
        scene.disk.write_all_at(&disk, 0).unwrap();
        scene.hint(&format!("[{}]", hints.join(",")));
        let record = scene.run().unwrap_or_else(|error| panic!("seed {seed}, round {round}: {error}")).record;
        let wrong = scene.content(&record).iter().zip(&disk).position(|(a, b)| a != b);
        assert_eq!((wrong, record.image.size_bytes), (None, size), "seed {seed}, round {round}, hints {hints:?}");
        made.push((record, disk.clone()));
    }
    for (record, disk) in made {
        assert!(scene.content(&record) == disk, "seed {seed}: version {} has changed", record.uid);
    }
}
