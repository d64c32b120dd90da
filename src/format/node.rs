//! Nodes of the block map. A node's bytes follow from its ids alone, so equal subtrees have equal ids and are stored once.

use crate::format::FormatError;
use crate::format::bytes::{Reader, Writer};
use crate::words::geometry::{FANOUT, MapDepth};
use crate::words::ids::BlockId;

const WHAT: &str = "map node";
const HEADER_LEN: usize = 8;
const FANOUT_LEN: usize = FANOUT as usize;

/// The longest encoded node.
pub const NODE_MAX_BYTES: usize = HEADER_LEN + FANOUT_LEN * BlockId::LEN;
const _: () = assert!(NODE_MAX_BYTES == 32_776);

/// One node: the ids of [`FANOUT`] blocks (level 0) or nodes of the level below.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MapNode {
    /// 0 for leaves.
    pub level: u8,
    /// Never ends with a hole.
    ids: Vec<BlockId>,
}

impl MapNode {
    /// A node of holes.
    pub const fn new(level: u8) -> Self {
        Self { level, ids: Vec::new() }
    }

    /// A node of these ids; the rest are holes.
    ///
    /// # Panics
    /// When there are more than [`FANOUT`].
    pub fn from_ids(level: u8, ids: Vec<BlockId>) -> Self {
        assert!(ids.len() <= FANOUT_LEN, "a node has at most {FANOUT} ids");
        let mut node = Self { level, ids };
        node.trim();
        node
    }

    /// The ids up to the last that is not a hole.
    pub fn ids(&self) -> &[BlockId] {
        &self.ids
    }

    /// The id at `index`; holes after the last id stored.
    pub fn get(&self, index: usize) -> BlockId {
        self.ids.get(index).copied().unwrap_or(BlockId::HOLE)
    }

    /// Changes one id.
    ///
    /// # Panics
    /// When `index` is not below [`FANOUT`].
    pub fn set(&mut self, index: usize, id: BlockId) {
        assert!(index < FANOUT_LEN, "a node has {FANOUT} ids, {index} is beyond");
        if let Some(old) = self.ids.get_mut(index) {
            *old = id;
            self.trim();
        } else if !id.is_hole() {
            self.ids.resize(index, BlockId::HOLE);
            self.ids.push(id);
        }
    }

    /// Whether it is all holes: then it is not stored, its parent says [`BlockId::HOLE`].
    pub fn is_all_hole(&self) -> bool {
        self.ids.is_empty()
    }

    fn trim(&mut self) {
        let len = self.ids.iter().rposition(|id| !id.is_hole()).map_or(0, |last| last + 1);
        self.ids.truncate(len);
    }

    /// Encodes it.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::with_capacity(HEADER_LEN + self.ids.len() * BlockId::LEN);
        writer.u8(self.level).zeros(3).len(self.ids.len());
        for id in &self.ids {
            writer.raw(id.as_bytes());
        }
        writer.finish()
    }

    /// Decodes one.
    ///
    /// # Errors
    /// When it is not exactly one node in its only encoding.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(WHAT, bytes);
        let level = reader.u8()?;
        if level > MapDepth::for_blocks(u64::MAX).root_level() {
            return Err(reader.field("level", level, "no map is that deep"));
        }
        reader.zeros(3)?;
        let count = reader.count(BlockId::LEN)?;
        if count > FANOUT_LEN {
            return Err(reader.field("count", count, "a node has at most 1024 ids"));
        }
        let (ids, rest) = reader.take(count * BlockId::LEN)?.as_chunks();
        debug_assert!(rest.is_empty());
        reader.end()?;
        let ids: Vec<_> = ids.iter().copied().map(BlockId::from_bytes).collect();
        match ids.last() {
            Some(last) if last.is_hole() => Err(reader.field("count", count, "the last id counted is a hole")),
            _ => Ok(Self { level, ids }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn holes_at_the_end_are_trimmed() {
        let id = BlockId::from_bytes([1; 32]);
        let mut node = MapNode::new(0);
        assert!(node.is_all_hole());
        node.set(1023, BlockId::HOLE);
        assert!(node.is_all_hole() && node.encode().len() == 8);
        node.set(3, id);
        node.set(1023, id);
        assert_eq!(node.encode().len(), NODE_MAX_BYTES);
        node.set(1023, BlockId::HOLE);
        assert_eq!((node.ids().len(), node.get(2), node.get(3), node.get(700)), (4, BlockId::HOLE, id, BlockId::HOLE));
        node.set(3, BlockId::HOLE);
        assert_eq!(node, MapNode::new(0));
    }

    proptest! {
        #[test]
        fn nodes_come_back(level in 0u8..7, ids in prop::collection::vec(0u8..4, 0..=1024)) {
            let ids = ids.into_iter().map(|b| BlockId::from_bytes([b; 32])).collect();
            let node = MapNode::from_ids(level, ids);
            prop_assert_eq!(MapNode::decode(&node.encode()), Ok(node));
        }
    }
}
