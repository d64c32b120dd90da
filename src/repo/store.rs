//! Storing one block or one map node: nothing, if it is zero, unchanged or known; else sealed into a pack.

use crate::format::node::MapNode;
use crate::repo::packer::PackNo;
use crate::repo::{Core, RepoError, Repository};
use crate::words::ids::BlockId;
use crate::words::monitor::Counter;
use crate::words::record::BlockKind;
use crate::words::zero::is_zero;
use std::cell::RefCell;

/// What became of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// It was all zero.
    Hole,
    /// It equals the base's block at the same place; the index was not asked.
    Unchanged,
    /// The repository held it already.
    Deduplicated,
    /// It was added to a pack.
    Stored {
        /// Bytes of its frame.
        sealed_bytes: u32,
    },
}

/// A block that has its place, or will have it once its pack is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    /// Its id.
    pub id: BlockId,
    /// What was done.
    pub placement: Placement,
    /// The pack that must become durable before the block may be relied on.
    pub pack: Option<PackNo>,
}

thread_local! {
    static FRAME: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Core {
    /// Stores a data block. `plain` is a whole block; `base` is the block at the same position of the version it is
    /// likely to equal, or [`BlockId::HOLE`].
    pub fn store_block(&self, plain: &[u8], base: BlockId) -> Result<Placed, RepoError> {
        let id = (!is_zero(plain)).then(|| self.sealer.data_id(plain));
        self.store_named(plain, id, base)
    }

    /// As [`Core::store_block`], of two blocks with their bases: naming two takes little longer than naming one.
    pub fn store_pair(&self, blocks: [(&[u8], BlockId); 2]) -> [Result<Placed, RepoError>; 2] {
        let [(first, _), (second, _)] = blocks;
        let ids = match (is_zero(first), is_zero(second)) {
            (true, true) => [None, None],
            (true, false) => [None, Some(self.sealer.data_id(second))],
            (false, true) => [Some(self.sealer.data_id(first)), None],
            (false, false) => self.sealer.data_id_pair([first, second]).map(Some),
        };
        [0, 1].map(|i| self.store_named(blocks[i].0, ids[i], blocks[i].1))
    }

    /// Stores a block that is zero (`None`) or has this id.
    fn store_named(&self, plain: &[u8], id: Option<BlockId>, base: BlockId) -> Result<Placed, RepoError> {
        let Some(id) = id else {
            self.monitor.count(Counter::BlocksHole, 1);
            return Ok(Placed { id: BlockId::HOLE, placement: Placement::Hole, pack: None });
        };
        if id == base && !self.catalog.is_damaged(&id)? {
            self.monitor.count(Counter::BlocksUnchanged, 1);
            return Ok(Placed { id, placement: Placement::Unchanged, pack: None });
        }
        self.store(BlockKind::Data, id, plain)
    }

    /// Stores a map node; an all-hole node costs nothing.
    pub fn store_node(&self, node: &MapNode) -> Result<Placed, RepoError> {
        if node.is_all_hole() {
            return Ok(Placed { id: BlockId::HOLE, placement: Placement::Hole, pack: None });
        }
        let plain = node.encode();
        self.store(BlockKind::Map, self.sealer.node_id(&plain), &plain)
    }

    fn store(&self, kind: BlockKind, id: BlockId, plain: &[u8]) -> Result<Placed, RepoError> {
        let known = |pack| Placed { id, placement: Placement::Deduplicated, pack };
        if let Some(no) = self.packer.pending_in(&id) {
            self.monitor.count(Counter::BlocksDeduplicated, 1);
            return Ok(known(Some(no)));
        }
        self.monitor.count(Counter::IndexLookups, 1);
        // Never deduplicate against copies that are known to be bad.
        if self.catalog.has_sound_location(&id)? {
            self.monitor.count(Counter::BlocksDeduplicated, 1);
            return Ok(known(None));
        }
        FRAME.with_borrow_mut(|frame| {
            frame.clear();
            let level = self.header.zstd_level;
            self.sealer.seal_block(kind, &id, plain, level, frame).map_err(RepoError::seal(format!("block {id}")))?;
            let plain_len = u32::try_from(plain.len()).expect("a block is at most 4 MiB");
            let (no, added) = self.packer.append(kind, id, frame, plain_len)?;
            if !added {
                return Ok(known(Some(no)));
            }
            self.monitor.count(Counter::BlocksStored, 1);
            self.monitor.count(Counter::BytesPlain, plain.len() as u64);
            self.monitor.count(Counter::BytesSealed, frame.len() as u64);
            let sealed_bytes = u32::try_from(frame.len()).expect("a frame is at most a few MiB");
            Ok(Placed { id, placement: Placement::Stored { sealed_bytes }, pack: Some(no) })
        })
    }
}

impl Repository {
    /// The id that a whole block has, stored or not.
    pub fn data_id(&self, plain: &[u8]) -> BlockId {
        self.core.sealer.data_id(plain)
    }

    /// Stores a map node.
    ///
    /// # Errors
    /// When the catalog or the target fails.
    pub fn store_node(&self, node: &MapNode) -> Result<Placed, RepoError> {
        self.core.store_node(node)
    }

    /// Stores a data block on this thread; the write path uses [`Repository::submit`] instead.
    ///
    /// # Errors
    /// When the catalog or the target fails.
    pub fn store_block(&self, plain: &[u8], base: BlockId) -> Result<Placed, RepoError> {
        self.core.store_block(plain, base)
    }

    /// Makes everything placed so far durable and indexed.
    ///
    /// # Errors
    /// When the target or the catalog fails, or one of `packs` could not be stored.
    pub fn flush_packs(&self, packs: impl IntoIterator<Item = PackNo>) -> Result<(), RepoError> {
        self.core.packer.flush()?;
        self.core.packer.check(packs)
    }

    /// Whether one of `packs` is known to have failed.
    ///
    /// # Errors
    /// Its failure.
    pub fn check_packs(&self, packs: impl IntoIterator<Item = PackNo>) -> Result<(), RepoError> {
        self.core.packer.check(packs)
    }
}
