//! Making and opening repositories.

use crate::catalog::Catalog;
use crate::format::layout;
use crate::repo::buffers::BufferPool;
use crate::repo::cache::BlockCache;
use crate::repo::claims::DraftClaims;
use crate::repo::disk_cache::{CacheSettings, DiskCache};
use crate::repo::fetch::ReadAhead;
use crate::repo::packer::{Packer, PackerParts};
use crate::repo::pipeline::Pipeline;
use crate::repo::read::Loads;
use crate::repo::unlock::unlock;
use crate::repo::{Core, MemoryPlan, RepoError, Repository, header, host};
use crate::seal::recovery::RecoveryKey;
use crate::seal::{Secret, keys};
use crate::target::{Put, Target};
use crate::words::clock::{Clock, ClockExt};
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

/// What to say when a state directory turns out to be a copy.
fn renamed(state_dir: &Path, identity: &host::Identity) -> String {
    let before = identity.before.last().map(ToString::to_string).unwrap_or_default();
    format!(
        "{} was copied or moved, or its machine was cloned: it is a host of its own from now on, {}. Unfinished drafts stay with host \
         {before}; if that one is gone for good, `backyfs adopt` takes them over",
        state_dir.display(),
        identity.id
    )
}

impl Repository {
    /// Makes a new repository at an empty target. The key ring is written first and the header last but for its second copy, both by an
    /// operation that fails if they exist: of two `init` at once one goes on, and a ring that opens what is stored is never replaced.
    ///
    /// # Errors
    /// [`RepoError::AlreadyExists`], [`RepoError::NoHeader`] and [`RepoError::HalfMade`] when there is something already, or when the
    /// target fails. Then nothing of it is a repository.
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
        if let Some(error) = header::left(target)? {
            return Err(error);
        }
        for (key, bytes) in &made.keys {
            if target.put_new(key, &[bytes])? == Put::Exists {
                let half = || RepoError::HalfMade { target: target.describe(), object: key.to_string() };
                return Err(if target.get(&layout::header()).is_ok() { exists() } else { half() });
            }
        }
        let (key, header) = &made.header;
        if target.put_new(key, &[header])? == Put::Exists {
            return Err(exists());
        }
        let (key, header) = &made.spare_header;
        // The repository exists, and its recovery key is shown but once.
        if let Err(error) = target.put(key, &[header]) {
            tracing::warn!("the header has no second copy until `backyfs repair` makes one: {error}");
        }
        Ok(made.recovery)
    }

    /// Opens the repository at a target and its catalog, which is made if there is none. Does not read what other hosts
    /// wrote: see [`Repository::refresh`].
    ///
    /// # Errors
    /// When there is no repository, the secret opens no slot, the format is newer, or the state directory fails.
    pub fn open(settings: Settings) -> Result<Arc<Self>, RepoError> {
        let Settings { target, secret, state_dir, memory_bytes, cache, clock, monitor, workers, readers } = settings;
        let sealer = unlock(&*target, &secret, &state_dir, &clock, &*monitor)?;
        let header = sealer.header().clone();
        let state_dir = state_dir.join(header.repo.to_string());
        let sealer = Arc::new(sealer);
        std::fs::create_dir_all(&state_dir)
            .map_err(|source| RepoError::State { path: state_dir.display().to_string(), source: Arc::new(source) })?;
        let catalog = Arc::new(Catalog::open(&state_dir.join("catalog"), &*clock)?);
        let state = |source| RepoError::State { path: state_dir.display().to_string(), source: Arc::new(source) };
        let identity = host::identity(&state_dir, catalog.host_id()?, || clock.host_id()).map_err(state)?;
        if identity.is_renamed {
            monitor.warn(&renamed(&state_dir, &identity));
        }
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
            host: identity.id,
            hosts_before: identity.before,
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
