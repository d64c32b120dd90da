//! How often a target is asked: every call is a request, and a list one for each page.

use crate::ops::backup::{Backup, backup};
use crate::ops::base::ChangesFrom;
use crate::ops::{Interrupt, OpsError};
use crate::repo::{Repository, testing};
use crate::source::Recipe;
use crate::target::through::Through;
use crate::target::{Call, DirTarget, ObjectInfo, Operation, Page, RecordingTarget, Target, TargetError};
use crate::words::clock::{Clock, SystemClock};
use crate::words::monitor::Silent;
use crate::words::name::Name;
use std::path::Path;
use std::sync::Arc;

type Asked = Arc<RecordingTarget<DirTarget>>;

/// A repository whose target writes down what is asked of it.
fn recorded() -> (testing::TestRepository, Arc<Repository>, Asked) {
    let test = testing::create(&testing::small());
    let asked = Arc::new(RecordingTarget::new(DirTarget::open(test.dir.path().join("target"))));
    let target: Arc<dyn Target> = Arc::clone(&asked) as _;
    let repo = testing::open(target, &test.dir.path().join("other"), Arc::default()).unwrap();
    (test, repo, asked)
}

fn noise(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    SystemClock.random(&mut bytes);
    bytes
}

fn back_up(repo: &Arc<Repository>, source: &Path) {
    let job = Backup::new(Recipe::File { path: source.to_owned() }, Name::new("vm").unwrap());
    backup(repo, &job, &Silent, &Interrupt::never()).unwrap();
}

fn count(calls: &[Call], operation: Operation, prefix: &str) -> usize {
    calls.iter().filter(|call| call.operation == operation && call.key.starts_with(prefix)).count()
}

#[test]
fn a_backup_asks_for_what_it_stores_and_a_constant() {
    let (test, repo, asked) = recorded();
    let source = test.dir.path().join("source");
    std::fs::write(&source, noise(8 << 20)).unwrap();
    asked.take();
    back_up(&repo, &source);
    let calls = asked.take();
    // Packs of these tests have 256 KiB: one may be cut short at the end, and one holds the map.
    let packs = count(&calls, Operation::Put, "packs/");
    assert!(packs <= 8 * 4 + 3, "{packs} packs for 8 MiB");
    // Beside them: the index, the record, its check and its verdict, key versions, and nodes of the map that the check reads.
    assert!(calls.len() - packs <= 12, "{calls:?}");
    // The same again, and with one block changed.
    back_up(&repo, &source);
    let calls = asked.take();
    assert!(calls.len() <= 10 && count(&calls, Operation::Put, "packs/") == 0, "{calls:?}");
    assert!(calls.iter().all(|call| !call.key.starts_with("packs/")), "no pack is looked at: {calls:?}");
    let mut bytes = std::fs::read(&source).unwrap();
    bytes[5 << 20] ^= 1;
    std::fs::write(&source, bytes).unwrap();
    back_up(&repo, &source);
    let calls = asked.take();
    assert!(calls.len() <= 12 && count(&calls, Operation::Put, "packs/") <= 2, "{calls:?}");
}

#[test]
fn neighbours_are_read_with_one_request() {
    let (test, repo, asked) = recorded();
    let (source, bytes) = (test.dir.path().join("source"), noise(4 << 20));
    std::fs::write(&source, &bytes).unwrap();
    back_up(&repo, &source);
    let uid = repo.catalog().version_uids().unwrap()[0];
    drop(repo);
    let target: Arc<dyn Target> = Arc::clone(&asked) as _;
    let repo = testing::open(target, &test.dir.path().join("other"), Arc::default()).unwrap();
    let image = repo.version(uid).unwrap().record.image;
    asked.take();
    let mut read = vec![0; bytes.len()];
    crate::image::ImageReader::new(Arc::clone(&repo), image, "test").read_at(0, &mut read).unwrap();
    assert!(read == bytes);
    // A thousand blocks in 16 packs.
    let reads = count(&asked.take(), Operation::ReadAt, "packs/");
    assert!(reads <= 24, "{reads} requests");
}

/// Gives lists in pages of ten, and counts those.
struct Paged {
    inner: DirTarget,
    pages: std::sync::atomic::AtomicU64,
}

impl Through for Paged {
    fn within(&self) -> &dyn Target {
        &self.inner
    }
    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, TargetError> {
        Through::list_after(self, prefix, "")
    }
    fn is_paged(&self) -> bool {
        true
    }
    fn list_after(&self, prefix: &str, after: &str) -> Result<Vec<ObjectInfo>, TargetError> {
        let mut listed = self.inner.list(prefix)?;
        listed.retain(|info| info.key.as_str() > after);
        self.pages.fetch_add(1 + listed.len() as u64 / 10, std::sync::atomic::Ordering::Relaxed);
        Ok(listed)
    }
    fn list_page(&self, after: &str, wanted: usize) -> Result<Page, TargetError> {
        let mut objects = self.inner.list("")?;
        objects.retain(|info| info.key.as_str() > after);
        self.pages.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let is_all = objects.len() <= wanted.min(10);
        objects.truncate(wanted.min(10));
        let last = objects.last().map_or(after, |info| info.key.as_str()).to_owned();
        Ok(Page { objects, rest_after: (!is_all).then_some(last) })
    }
}

/// What is said to be unchanged is compared with a sample, of which each part of the map is a request.
#[test]
fn a_sample_asks_little_and_finds_what_differs() {
    let test = testing::create(&testing::small());
    let target = || Paged { inner: DirTarget::open(test.dir.path().join("target")), pages: Default::default() };
    let asked = Arc::new(RecordingTarget::new(target()));
    let open = || testing::open(Arc::clone(&asked) as _, &test.dir.path().join("other"), Arc::default()).unwrap();
    let (source, hints) = (test.dir.path().join("source"), test.dir.path().join("hints"));
    std::fs::write(&hints, "[]").unwrap();
    let as_hinted = |repo: &Arc<Repository>, name: &str| {
        let changes = ChangesFrom::Hints(hints.clone());
        let name = Name::new(name).unwrap();
        let job = Backup { changes, ..Backup::new(Recipe::File { path: source.clone() }, name) };
        backup(repo, &job, &Silent, &Interrupt::never()).map(|made| made.record.image)
    };
    // Eight leaves of a map: two of them holes, others with little, at their end or their beginning.
    let mut bytes = noise(32 << 20);
    bytes[4 << 20..12 << 20].fill(0);
    bytes[12 << 20..(16 << 20) - 4096].fill(0);
    bytes[(20 << 20) + 4096..24 << 20].fill(0);
    std::fs::write(&source, &bytes).unwrap();
    back_up(&open(), &source);
    for _ in 0..20 {
        // Nothing of the map is in memory.
        let repo = open();
        asked.take();
        as_hinted(&repo, "vm").unwrap();
        let calls = asked.take();
        // The root, and three leaves.
        assert!(count(&calls, Operation::ReadAt, "packs/") <= 4, "{calls:?}");
    }
    let repo = open();
    let image = repo.version(repo.catalog().newest(&Name::new("vm").unwrap()).unwrap().unwrap()).unwrap().record.image;
    // Another disk, which the repository does not have, and then one that it has.
    let other = noise(32 << 20);
    std::fs::write(&source, &other).unwrap();
    let differs = as_hinted(&repo, "vm");
    assert!(matches!(differs, Err(OpsError::Differs { .. })), "{differs:?}");
    let job = Backup::new(Recipe::File { path: source.clone() }, Name::new("other").unwrap());
    backup(&repo, &job, &Silent, &Interrupt::never()).unwrap();
    let differs = as_hinted(&repo, "vm");
    assert!(matches!(differs, Err(OpsError::Differs { .. })), "{differs:?}");
    // Half of what is no hole, blocks of which nothing is known.
    for block in bytes.chunks_mut(8192) {
        block[0] ^= 1;
    }
    std::fs::write(&source, &bytes).unwrap();
    let differs = as_hinted(&repo, "vm");
    assert!(matches!(differs, Err(OpsError::Differs { .. })), "{differs:?}");
    let newest = repo.catalog().newest(&Name::new("vm").unwrap()).unwrap().unwrap();
    assert_eq!(repo.version(newest).unwrap().record.image, image);
}

#[test]
fn what_is_asked_does_not_grow_with_the_number_of_versions() {
    let test = testing::create(&testing::small());
    let paged = Paged { inner: DirTarget::open(test.dir.path().join("target")), pages: Default::default() };
    let paged = Arc::new(paged);
    let clock =
        Arc::new(crate::words::clock::TestClock::new(crate::words::stamp::Stamp::from_millis(1_795_372_262_000), 1));
    let state = test.dir.path().join("other");
    let repo = testing::open_at(Arc::clone(&paged) as _, &state, Arc::default(), Arc::clone(&clock) as _).unwrap();
    let source = test.dir.path().join("source");
    let pages = || paged.pages.swap(0, std::sync::atomic::Ordering::Relaxed);
    let mut publishing = Vec::new();
    // A version each six hours: a look back of two days holds eight.
    for _ in 0..120 {
        clock.advance_ms(6 * 3_600_000);
        std::fs::write(&source, noise(5000)).unwrap();
        pages();
        back_up(&repo, &source);
        publishing.push(pages());
    }
    assert!(publishing[100..].iter().max() <= publishing[10..20].iter().max(), "{publishing:?}");
    // The first look at everything, and then those at what is new.
    let looks: Vec<u64> = (0..33)
        .map(|_| {
            repo.refresh().unwrap();
            pages()
        })
        .collect();
    assert!(looks[0] > 20 && looks[32] == looks[0], "{looks:?}");
    assert!(looks[1..32].iter().all(|look| *look < 8), "{looks:?}");
    assert_eq!(repo.catalog().version_uids().unwrap().len(), 120);
    // Another host's version is found, and one that was removed goes. That host's clock is a month behind, so a look at what is new
    // does not show its fragment; whoever needs it looks at everything.
    let other = testing::open(Arc::clone(&paged) as _, &test.dir.path().join("third"), Arc::default()).unwrap();
    other.refresh().unwrap();
    let first = other.catalog().version_uids().unwrap()[0];
    other.remove_version(first).unwrap();
    std::fs::write(&source, noise(5000)).unwrap();
    back_up(&other, &source);
    repo.refresh().unwrap();
    let known = repo.catalog().version_uids().unwrap();
    assert!(known.len() == 120 && !known.contains(&first));
    let image = repo.version(known[119]).unwrap().record.image;
    let mut read = vec![0; 5000];
    crate::image::ImageReader::new(Arc::clone(&repo), image, "test").read_at(0, &mut read).unwrap();
    assert!(read == std::fs::read(&source).unwrap());
}
