//! Making and opening repositories.

use crate::catalog::Catalog;
use crate::format::layout::{self, Object, ObjectKey};
use crate::repo::buffers::BufferPool;
use crate::repo::cache::BlockCache;
use crate::repo::claims::DraftClaims;
use crate::repo::disk_cache::{CacheSettings, DiskCache};
use crate::repo::fetch::ReadAhead;
use crate::repo::host;
use crate::repo::packer::{Packer, PackerParts};
use crate::repo::pipeline::Pipeline;
use crate::repo::read::Loads;
use crate::repo::{Core, MemoryPlan, RepoError, Repository, keep};
use crate::seal::recovery::RecoveryKey;
use crate::seal::{KeyError, Sealer, Secret, keys};
use crate::target::{Put, Target, TargetError};
use crate::words::clock::Clock;
use crate::words::monitor::Monitor;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What opening needs.
pub struct Settings {
    /// Where the objects are.
    pub target: Arc<dyn Target>,
    /// What opens a key slot.
    pub secret: Secret,
    /// Where local state is kept; each repository gets a directory of its own below.
    pub state_dir: PathBuf,
    /// Memory for caches and buffers, in bytes.
    pub memory_bytes: u64,
    /// A cache of the target on the local disk.
    pub cache: Option<CacheSettings>,
    /// Time and randomness.
    pub clock: Arc<dyn Clock>,
    /// Is told what happens.
    pub monitor: Arc<dyn Monitor>,
    /// Threads that hash, compress and seal; normally one a core.
    pub workers: usize,
    /// Threads that read from the target: as many as it can answer at once.
    pub readers: usize,
}

/// So many answers in a row that say the same are believed.
const AGREEING: u32 = 3;

/// How often an object is read at most until its answers agree.
const AGREEING_TRIES: u32 = 40;

/// What a repository is opened with, as it lies on the target.
struct Locks {
    header: Vec<u8>,
    slots: Vec<Vec<u8>>,
    rings: Vec<Vec<u8>>,
}

impl Locks {
    /// Reads them, each with `get`.
    fn read(target: &dyn Target, get: impl Fn(&ObjectKey) -> Result<Vec<u8>, TargetError>) -> Result<Self, RepoError> {
        let (mut slots, mut rings) = (Vec::new(), Vec::new());
        let header = get(&layout::header()).map_err(|error| match error {
            TargetError::NotFound { .. } => RepoError::NoRepository { target: target.describe() },
            error => error.into(),
        })?;
        for info in target.list(layout::KEYS)? {
            match layout::parse(&info.key) {
                Some(Object::Slot(_)) => slots.push(get(&info.key)?),
                Some(Object::Ring(_)) => rings.push(get(&info.key)?),
                _ => {}
            }
        }
        Ok(Self { header, slots, rings })
    }

    fn unlock(&self, secret: &Secret, clock: &Arc<dyn Clock>) -> Result<Sealer, KeyError> {
        keys::unlock(&self.header, &self.slots, &self.rings, secret, clock)
    }
}

/// Reads an object until the same bytes have come [`AGREEING`] times in a row, or, of a target that never agrees with itself, until
/// patience ends.
fn get_agreed(target: &dyn Target, key: &ObjectKey) -> Result<Vec<u8>, TargetError> {
    let mut bytes = target.get(key)?;
    let mut agreeing = 1;
    for _ in 0..AGREEING_TRIES {
        let again = target.get(key)?;
        agreeing = if again == bytes { agreeing + 1 } else { 1 };
        bytes = again;
        if agreeing == AGREEING {
            break;
        }
    }
    Ok(bytes)
}

/// Opens the keys. When that fails they are read more carefully: an answer may have been changed on its way.
fn unlock(target: &dyn Target, secret: &Secret, clock: &Arc<dyn Clock>) -> Result<(Locks, Sealer), RepoError> {
    let locks = Locks::read(target, |key| target.get(key))?;
    if let Ok(sealer) = locks.unlock(secret, clock) {
        return Ok((locks, sealer));
    }
    let locks = Locks::read(target, |key| get_agreed(target, key))?;
    let sealer = locks.unlock(secret, clock)?;
    Ok((locks, sealer))
}

/// Keeps what was read and opens, so that a repair can put it back.
fn keep(state_dir: &Path, header: &[u8], sealer: &Sealer, rings: Vec<Vec<u8>>) {
    let version = |ring: &Vec<u8>| Some(sealer.with_rings(std::slice::from_ref(ring)).ok()?.keyring().current());
    let rings: Vec<_> = rings.iter().filter_map(|ring| Some((Object::Ring(version(ring)?), ring.as_slice()))).collect();
    keep::keep(state_dir, &[&[(Object::Header, header)], rings.as_slice()].concat());
}

impl Repository {
    /// Makes a new repository at an empty target. The header is written last, by an operation that fails if one exists: two
    /// `init` at once leave one repository.
    ///
    /// # Errors
    /// [`RepoError::AlreadyExists`], [`RepoError::Foreign`], or when the target fails. Then nothing of it is a repository.
    pub fn create(
        target: &dyn Target,
        secrets: &[Secret],
        settings: &keys::Settings,
        clock: &Arc<dyn Clock>,
    ) -> Result<RecoveryKey, RepoError> {
        let exists = || RepoError::AlreadyExists { target: target.describe() };
        if target.get(&layout::header()).is_ok() {
            return Err(exists());
        }
        let made = keys::create(settings, secrets, clock)?;
        target.prepare()?;
        for (key, bytes) in &made.keys {
            target.put(key, &[bytes])?;
        }
        let (key, header) = &made.header;
        match target.put_new(key, &[header])? {
            Put::Created => Ok(made.recovery),
            Put::Exists => Err(exists()),
        }
    }

    /// Opens the repository at a target and its catalog, which is made if there is none. Does not read what other hosts
    /// wrote: see [`Repository::refresh`].
    ///
    /// # Errors
    /// When there is no repository, the secret opens no slot, the format is newer, or the state directory fails.
    pub fn open(settings: Settings) -> Result<Arc<Self>, RepoError> {
        let Settings { target, secret, state_dir, memory_bytes, cache, clock, monitor, workers, readers } = settings;
        let (Locks { header: header_bytes, rings, .. }, sealer) = unlock(&*target, &secret, &clock)?;
        let header = sealer.header().clone();
        let state_dir = state_dir.join(header.repo.to_string());
        keep(&state_dir, &header_bytes, &sealer, rings);
        let sealer = Arc::new(sealer);
        std::fs::create_dir_all(&state_dir)
            .map_err(|source| RepoError::State { path: state_dir.display().to_string(), source: Arc::new(source) })?;
        let catalog = Arc::new(Catalog::open(&state_dir.join("catalog"), &*clock)?);
        let state = |source| RepoError::State { path: state_dir.display().to_string(), source: Arc::new(source) };
        let host = host::identity(&state_dir, catalog.host_id()?).map_err(state)?;
        let claims = DraftClaims::open(&state_dir).map_err(state)?;
        let memory = MemoryPlan::divide(memory_bytes, cache.is_some());
        let disk_cache = cache.map(|cache| DiskCache::new(&cache, header.repo, &memory));
        let pack_bytes = usize::try_from(header.pack_size_bytes).unwrap_or(usize::MAX);
        let packer = Packer::start(PackerParts {
            target: Arc::clone(&target),
            sealer: Arc::clone(&sealer),
            catalog: Arc::clone(&catalog),
            clock: Arc::clone(&clock),
            monitor: Arc::clone(&monitor),
            pack_bytes,
            uploads_max: (memory.packs / pack_bytes.max(1)).saturating_sub(1).clamp(1, 4),
        });
        let block = header.block_size.bytes();
        let core = Arc::new(Core {
            header,
            host,
            target,
            sealer,
            catalog,
            clock,
            monitor,
            packer,
            blocks: BlockCache::new(memory.block_cache),
            nodes: BlockCache::new(memory.node_cache),
            loads: Loads::default(),
            said: parking_lot::Mutex::default(),
            disk_cache,
        });
        let threads = |source| RepoError::State { path: "threads".into(), source: Arc::new(source) };
        let depth = (memory.pipeline / 2 / block).clamp(2, 256);
        Ok(Arc::new(Self {
            pipeline: Pipeline::start(&core, workers, depth).map_err(threads)?,
            read_ahead: ReadAhead::start(&core, readers, readers.max(2)).map_err(threads)?,
            readers: readers.max(1),
            buffers: BufferPool::new(block, (memory.pipeline / block).clamp(4, 1024)),
            core,
            memory,
            claims,
            state_dir,
        }))
    }
}
