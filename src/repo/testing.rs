//! Repositories in a temporary directory, for tests.

use crate::catalog::CatalogError;
use crate::format::frame::FrameKind;
use crate::format::layout::ObjectKey;
use crate::format::slot::Argon2Costs;
use crate::repo::disk_cache::CacheSettings;
use crate::repo::open::Settings;
use crate::repo::{RepoError, Repository};
use crate::seal::{Secret, keys};
use crate::target::{DirTarget, Target};
use crate::words::attribute::{Attributes, FileAttributes, Mtime};
use crate::words::clock::{Clock, SystemClock};
use crate::words::geometry::BlockSize;
use crate::words::monitor::Tally;
use crate::words::name::Name;
use std::path::Path;
use std::sync::Arc;

/// A repository whose target and state directory vanish with it.
pub struct TestRepository {
    /// Open.
    pub repo: Arc<Repository>,
    /// Counts what it does.
    pub tally: Arc<Tally>,
    /// Below it `target` and `state`.
    pub dir: tempfile::TempDir,
}

/// Attributes of a version of which nothing is said but its name.
pub fn attributes(name: &str) -> Attributes {
    let file = FileAttributes { mode: 0o600, uid: 0, gid: 0, mtime: Mtime { seconds: 0, nanos: 0 } };
    Attributes::new(Name::new(name).unwrap(), file)
}

/// What opens every repository made here.
pub fn secret() -> Secret {
    Secret::key_file(vec![7; 64])
}

/// Settings of small blocks and packs, so that little data makes many of both.
pub fn small() -> keys::Settings {
    keys::Settings {
        block_size: BlockSize::MIN,
        zstd_level: 1,
        pack_size_bytes: 256 << 10,
        argon2: Argon2Costs::default(),
    }
}

/// Makes a repository.
pub fn create(settings: &keys::Settings) -> TestRepository {
    let dir = tempfile::tempdir().expect("temporary directory");
    let target = dir.path().join("target");
    std::fs::create_dir(&target).expect("target directory");
    let target: Arc<dyn Target> = Arc::new(DirTarget::open(target));
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    Repository::create(&*target, &[secret()], settings, &clock).expect("new repository");
    let tally = Arc::new(Tally::default());
    let repo = open(target, &dir.path().join("state"), Arc::clone(&tally)).expect("open repository");
    TestRepository { repo, tally, dir }
}

impl Repository {
    /// Waits until the cache has taken what was read.
    pub fn settle_cache(&self) {
        if let Some(cache) = &self.core.disk_cache {
            cache.settle();
        }
    }
}

/// Puts a sealed object as any host might, without anybody learning of it.
pub fn put_sealed(repo: &Repository, kind: FrameKind, key: &ObjectKey, object: [u8; 32], plain: &[u8]) {
    let sealed = repo.core.sealer.seal_object(kind, object, plain);
    repo.target().put(key, &[&sealed]).expect("put");
}

/// Opens the repository at a target. One that was just dropped may be held by its last jobs for another moment.
pub fn open(target: Arc<dyn Target>, state: &Path, tally: Arc<Tally>) -> Result<Arc<Repository>, RepoError> {
    open_at(target, state, tally, Arc::new(SystemClock))
}

/// As [`open`], with a clock.
pub fn open_at(
    target: Arc<dyn Target>,
    state: &Path,
    tally: Arc<Tally>,
    clock: Arc<dyn Clock>,
) -> Result<Arc<Repository>, RepoError> {
    open_with(target, state, tally, clock, None)
}

/// As [`open`], with a cache on disk.
pub fn open_cached(
    target: Arc<dyn Target>,
    state: &Path,
    tally: Arc<Tally>,
    cache: CacheSettings,
) -> Result<Arc<Repository>, RepoError> {
    open_with(target, state, tally, Arc::new(SystemClock), Some(cache))
}

fn open_with(
    target: Arc<dyn Target>,
    state: &Path,
    tally: Arc<Tally>,
    clock: Arc<dyn Clock>,
    cache: Option<CacheSettings>,
) -> Result<Arc<Repository>, RepoError> {
    let once = || {
        Repository::open(Settings {
            target: Arc::clone(&target),
            secret: secret(),
            state_dir: state.to_owned(),
            memory_bytes: 64 << 20,
            cache: cache.clone(),
            clock: Arc::clone(&clock),
            monitor: Arc::clone(&tally) as _,
            workers: 2,
            readers: 2,
        })
    };
    for _ in 0..500 {
        match once() {
            Err(RepoError::Catalog(error)) if matches!(*error, CatalogError::Busy { .. }) => {
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            opened => return opened,
        }
    }
    once()
}

/// A small generator (xorshift*, Vigna 2016), so that a seed repeats a run.
pub struct Dice(pub u64);

impl Dice {
    /// A number smaller than `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % end.max(1)
    }

    /// So many bytes.
    pub fn bytes(&mut self, len: u64) -> Vec<u8> {
        (0..len).map(|_| self.below(256) as u8).collect()
    }
}
