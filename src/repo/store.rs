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

/// What looking for a block by its id showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lookup {
    /// It needs no room.
    Placed(Placed),
    /// It was nowhere when it was looked for, and is to be stored.
    New(BlockId),
}

thread_local! {
    static FRAME: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Core {
    /// Stores a data block. `plain` is a whole block; `base` is the block at the same position of the version it is
    /// likely to equal, or [`BlockId::HOLE`].
    pub fn store_block(&self, plain: &[u8], base: BlockId) -> Result<Placed, RepoError> {
        self.store_named(plain, self.id_of(plain), base)
    }

    /// As [`Core::store_block`], of two blocks with their bases: naming two takes little longer than naming one.
    pub fn store_pair(&self, blocks: [(&[u8], BlockId); 2]) -> [Result<Placed, RepoError>; 2] {
        let ids = self.ids_of_pair(blocks.map(|(plain, _)| plain));
        [0, 1].map(|i| self.store_named(blocks[i].0, ids[i], blocks[i].1))
    }

    /// Names blocks, each with its base as in [`Core::store_block`], and looks for them. Nothing is stored.
    pub fn name_blocks(&self, blocks: &[(&[u8], BlockId)]) -> Result<Vec<Lookup>, RepoError> {
        let mut named = Vec::with_capacity(blocks.len());
        for pair in blocks.chunks(2) {
            let ids = match *pair {
                [(first, _), (second, _)] => self.ids_of_pair([first, second]),
                _ => [self.id_of(pair[0].0), None],
            };
            for ((_, base), id) in pair.iter().zip(ids) {
                named.push(self.look_for(id, *base)?);
            }
        }
        Ok(named)
    }

    /// Stores a data block that was not found when it was named.
    pub fn store_new(&self, plain: &[u8], id: BlockId) -> Result<Placed, RepoError> {
        match self.pending(id) {
            Some(placed) => Ok(placed),
            None => self.add(BlockKind::Data, id, plain),
        }
    }

    /// The id of a block; none if it is zero.
    fn id_of(&self, plain: &[u8]) -> Option<BlockId> {
        (!is_zero(plain)).then(|| self.sealer.data_id(plain))
    }

    /// The ids of two blocks, as [`Core::id_of`] gives them.
    fn ids_of_pair(&self, [first, second]: [&[u8]; 2]) -> [Option<BlockId>; 2] {
        match (is_zero(first), is_zero(second)) {
            (true, true) => [None, None],
            (true, false) => [None, Some(self.sealer.data_id(second))],
            (false, true) => [Some(self.sealer.data_id(first)), None],
            (false, false) => self.sealer.data_id_pair([first, second]).map(Some),
        }
    }

    /// Stores a block that is zero (`None`) or has this id.
    fn store_named(&self, plain: &[u8], id: Option<BlockId>, base: BlockId) -> Result<Placed, RepoError> {
        match self.look_for(id, base)? {
            Lookup::Placed(placed) => Ok(placed),
            Lookup::New(id) => self.add(BlockKind::Data, id, plain),
        }
    }

    /// What is to be done about a data block that is zero (`None`) or has this id.
    fn look_for(&self, id: Option<BlockId>, base: BlockId) -> Result<Lookup, RepoError> {
        let Some(id) = id else {
            self.monitor.count(Counter::BlocksHole, 1);
            return Ok(Lookup::Placed(Placed { id: BlockId::HOLE, placement: Placement::Hole, pack: None }));
        };
        if id == base && !self.catalog.is_damaged(&id)? {
            self.monitor.count(Counter::BlocksUnchanged, 1);
            return Ok(Lookup::Placed(Placed { id, placement: Placement::Unchanged, pack: None }));
        }
        self.find(id)
    }

    /// Stores a map node; an all-hole node costs nothing.
    pub fn store_node(&self, node: &MapNode) -> Result<Placed, RepoError> {
        if node.is_all_hole() {
            return Ok(Placed { id: BlockId::HOLE, placement: Placement::Hole, pack: None });
        }
        let plain = node.encode();
        match self.find(self.sealer.node_id(&plain))? {
            Lookup::Placed(placed) => Ok(placed),
            Lookup::New(id) => self.add(BlockKind::Map, id, &plain),
        }
    }

    /// Looks for a block in packs and in what is on its way into them.
    fn find(&self, id: BlockId) -> Result<Lookup, RepoError> {
        if let Some(placed) = self.pending(id) {
            return Ok(Lookup::Placed(placed));
        }
        self.monitor.count(Counter::IndexLookups, 1);
        // Never deduplicate against copies that are known to be bad.
        if self.catalog.has_sound_location(&id)? {
            self.monitor.count(Counter::BlocksDeduplicated, 1);
            return Ok(Lookup::Placed(known(id, None)));
        }
        Ok(Lookup::New(id))
    }

    fn pending(&self, id: BlockId) -> Option<Placed> {
        let no = self.packer.pending_in(&id)?;
        self.monitor.count(Counter::BlocksDeduplicated, 1);
        Some(known(id, Some(no)))
    }

    /// Adds a block to a pack, unless it is pending by now.
    fn add(&self, kind: BlockKind, id: BlockId, plain: &[u8]) -> Result<Placed, RepoError> {
        FRAME.with_borrow_mut(|frame| {
            frame.clear();
            let level = self.header.zstd_level;
            self.sealer.seal_block(kind, &id, plain, level, frame).map_err(RepoError::seal(format!("block {id}")))?;
            let plain_len = u32::try_from(plain.len()).expect("a block is at most 4 MiB");
            let (no, added) = self.packer.append(kind, id, frame, plain_len)?;
            if !added {
                return Ok(known(id, Some(no)));
            }
            self.monitor.count(Counter::BlocksStored, 1);
            self.monitor.count(Counter::BytesPlain, plain.len() as u64);
            self.monitor.count(Counter::BytesSealed, frame.len() as u64);
            let sealed_bytes = u32::try_from(frame.len()).expect("a frame is at most a few MiB");
            Ok(Placed { id, placement: Placement::Stored { sealed_bytes }, pack: Some(no) })
        })
    }
}

fn known(id: BlockId, pack: Option<PackNo>) -> Placed {
    Placed { id, placement: Placement::Deduplicated, pack }
}

impl Repository {
    /// Names whole blocks, each with the id at its position in the version it is likely to equal, and looks for them. Nothing
    /// is stored: what is new is for [`Repository::submit`].
    ///
    /// # Errors
    /// When the catalog fails.
    pub fn name_blocks(&self, blocks: &[(&[u8], BlockId)]) -> Result<Vec<Lookup>, RepoError> {
        self.core.name_blocks(blocks)
    }

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
