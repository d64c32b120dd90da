//! The repository: joins seal, target and catalog, and is the home of the ordering rules.
//!
//! Order of a commit: packs durable, then an index fragment durable, then the record durable, then checked against the
//! condemned list, then confirmed, then acknowledged. The catalog follows; it is an index, never the only copy of anything
//! acknowledged.

pub mod attributes;
pub mod buffers;
pub mod cache;
pub mod check;
pub mod claims;
pub mod condemn;
pub mod copy_out;
pub mod damage;
pub mod disk_cache;
pub mod drafts;
pub mod error;
pub mod examine;
pub mod fetch;
mod fragments;
mod gather;
pub mod header;
mod host;
pub mod keep;
pub mod learn;
pub mod lease;
mod look;
pub mod lost;
pub mod merge;
pub mod migrate;
pub mod objects;
pub mod open;
pub mod packer;
pub mod packs;
mod pages;
mod paging;
pub mod pipeline;
pub mod publish;
pub mod putback;
pub mod queues;
pub mod read;
pub mod rebuild;
pub mod remove;
mod reread;
pub mod resolve;
pub mod rings;
mod rollback;
pub mod slots;
pub mod store;
#[cfg(test)]
pub mod testing;
pub mod unlock;
pub mod withdraw;

use crate::catalog::Catalog;
use crate::format::node::MapNode;
use crate::format::repository::RepositoryHeader;
use crate::repo::buffers::BufferPool;
use crate::repo::cache::BlockCache;
use crate::repo::claims::DraftClaims;
use crate::repo::disk_cache::DiskCache;
use crate::repo::fetch::ReadAhead;
use crate::repo::packer::Packer;
use crate::repo::pipeline::Pipeline;
use crate::seal::Sealer;
use crate::target::{Coherence, Target};
use crate::words::clock::Clock;
use crate::words::geometry::BlockSize;
use crate::words::ids::{HostId, RepoId};
use crate::words::monitor::Monitor;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use error::RepoError;

/// An open repository. Everything takes `&self`; clones of the `Arc` are handed to whoever needs it.
pub struct Repository {
    core: Arc<Core>,
    pipeline: Pipeline,
    read_ahead: ReadAhead,
    /// Threads that suit the target for reading.
    readers: usize,
    /// Recycled memory of one block each, for the write path.
    buffers: Arc<BufferPool>,
    memory: MemoryPlan,
    state_dir: PathBuf,
    claims: Arc<DraftClaims>,
}

/// What the background threads share with the repository.
pub struct Core {
    header: RepositoryHeader,
    host: HostId,
    /// What the state directory was a copy of.
    hosts_before: Vec<HostId>,
    target: Arc<dyn Target>,
    sealer: Arc<Sealer>,
    catalog: Arc<Catalog>,
    clock: Arc<dyn Clock>,
    monitor: Arc<dyn Monitor>,
    packer: Packer,
    blocks: BlockCache<Vec<u8>>,
    nodes: BlockCache<MapNode>,
    loads: read::Loads,
    /// What was said to be unreadable on the target.
    said: parking_lot::Mutex<std::collections::HashSet<String>>,
    /// Between the target and what is decoded, if there is one.
    disk_cache: Option<DiskCache>,
}

/// How the one memory budget is divided. All in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryPlan {
    /// Decoded blocks kept for readers.
    pub block_cache: usize,
    /// Decoded map nodes.
    pub node_cache: usize,
    /// Blocks on their way through the pipeline, and partly written ones.
    pub pipeline: usize,
    /// Packs being filled or waiting for the target.
    pub packs: usize,
    /// Where blocks are in the cache on disk.
    pub cache_entries: usize,
    /// Frames on their way into it.
    pub cache_queue: usize,
}

impl MemoryPlan {
    /// The least budget that works.
    pub const MIN_BYTES: u64 = 64 << 20;
    /// The budget when nothing is said.
    pub const DEFAULT_BYTES: u64 = 256 << 20;

    /// Divides a budget (at least [`Self::MIN_BYTES`] is taken). A cache on disk gets its share from that in memory.
    pub fn divide(budget_bytes: u64, with_disk_cache: bool) -> Self {
        let budget = usize::try_from(budget_bytes.max(Self::MIN_BYTES)).unwrap_or(usize::MAX);
        let (cache_entries, cache_queue) = if with_disk_cache { (budget / 16, budget / 32) } else { (0, 0) };
        Self {
            block_cache: budget / 4 - cache_entries - cache_queue,
            node_cache: budget / 8,
            pipeline: budget / 4,
            packs: budget * 3 / 8,
            cache_entries,
            cache_queue,
        }
    }
}

impl Repository {
    /// Bytes per block.
    pub fn block_size(&self) -> BlockSize {
        self.core.header.block_size
    }

    /// Its identity.
    pub fn id(&self) -> RepoId {
        self.core.header.repo
    }

    /// What stands in its header.
    pub fn header(&self) -> &RepositoryHeader {
        &self.core.header
    }

    /// This host, as records name it.
    pub fn host(&self) -> HostId {
        self.core.host
    }

    /// The hosts whose state directory this one began as a copy of. They may be alive.
    pub fn hosts_before(&self) -> &[HostId] {
        &self.core.hosts_before
    }

    /// The local index.
    pub fn catalog(&self) -> &Catalog {
        &self.core.catalog
    }

    /// Where the objects are.
    pub fn target(&self) -> &Arc<dyn Target> {
        &self.core.target
    }

    /// Whether hosts that share the target see what the others wrote: a collection asks before it trusts a list.
    pub fn coherence(&self) -> Coherence {
        self.core.target.coherence()
    }

    /// Time and randomness.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.core.clock
    }

    /// Who is told what happens.
    pub fn monitor(&self) -> &Arc<dyn Monitor> {
        &self.core.monitor
    }

    /// Recycled block buffers.
    pub fn buffers(&self) -> &Arc<BufferPool> {
        &self.buffers
    }

    /// The division of memory.
    pub fn memory(&self) -> &MemoryPlan {
        &self.memory
    }

    /// The directory of this repository's local state: catalog and overlays.
    pub fn state_dir(&self) -> &Path {
        &self.state_dir
    }
}

/// The 32-byte id field of an object's frame: up to two 16-byte identifiers, padded with zeros.
pub(crate) fn object_id(first: &[u8; 16], second: &[u8]) -> [u8; 32] {
    let mut id = [0; 32];
    id[..16].copy_from_slice(first);
    id[16..16 + second.len()].copy_from_slice(second);
    id
}
