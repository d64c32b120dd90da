//! What collections keep of map nodes, so that a node that was walked once need not be read from the target again.
//!
//! Of an inner node all children are kept. Of a leaf only the first eight bytes of each id: whoever asks whether a block is
//! reachable may be told so by mistake (one in 2^64), which keeps what could have gone, never the other way round. A leaf takes 8 KiB
//! here and 32 KiB on the target. Nodes are named by their contents, so what is kept can be out of use but never wrong.

use crate::catalog::error::CatalogError;
use crate::catalog::store::Fault;
use crate::catalog::{Catalog, key};
use crate::format::node::MapNode;
use crate::words::ids::BlockId;
use std::collections::BTreeSet;
use std::ops::Bound;

/// The children of a map node, each once, without holes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MirroredNode {
    /// Of a leaf: the first eight bytes of each block id.
    Leaf(Vec<u64>),
    /// Nodes of the level below.
    Inner {
        /// That level.
        level: u8,
        /// Them.
        children: Vec<BlockId>,
    },
}

/// The first eight bytes of an id.
pub fn short_id(id: &BlockId) -> u64 {
    let (first, _) = id.as_bytes().split_first_chunk().expect("an id has 32 bytes");
    u64::from_be_bytes(*first)
}

impl From<&MapNode> for MirroredNode {
    fn from(node: &MapNode) -> Self {
        let children = node.ids().iter().filter(|id| !id.is_hole());
        match node.level {
            0 => Self::Leaf(children.map(short_id).collect::<BTreeSet<_>>().into_iter().collect()),
            level => {
                let children = children.copied().collect::<BTreeSet<_>>().into_iter().collect();
                Self::Inner { level: level - 1, children }
            }
        }
    }
}

impl MirroredNode {
    fn encode(&self) -> Vec<u8> {
        match self {
            Self::Leaf(ids) => [0].into_iter().chain(ids.iter().flat_map(|id| id.to_be_bytes())).collect(),
            Self::Inner { level, children } => {
                [level + 1].into_iter().chain(children.iter().flat_map(|id| *id.as_bytes())).collect()
            }
        }
    }

    fn decode(row: &[u8]) -> Result<Self, Fault> {
        let corrupt = || Fault::Corrupt("a row of mirror has the wrong length".to_owned());
        let (level, body) = row.split_first().ok_or_else(corrupt)?;
        match level.checked_sub(1) {
            None => {
                let (ids, rest) = body.as_chunks::<8>();
                if rest.is_empty() {
                    Ok(Self::Leaf(ids.iter().map(|id| u64::from_be_bytes(*id)).collect()))
                } else {
                    Err(corrupt())
                }
            }
            Some(level) => {
                let (ids, rest) = body.as_chunks::<{ BlockId::LEN }>();
                let children = ids.iter().map(|id| BlockId::from_bytes(*id)).collect();
                if rest.is_empty() { Ok(Self::Inner { level, children }) } else { Err(corrupt()) }
            }
        }
    }
}

/// Rows looked at in one transaction.
const ROWS_PER_LOOK: usize = 10_000;

impl Catalog {
    /// What is kept of each of these nodes.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn mirrored(&self, ids: &[BlockId]) -> Result<Vec<Option<MirroredNode>>, CatalogError> {
        self.store.read(|tables, txn| {
            ids.iter().map(|id| tables.mirror.get(txn, id.as_bytes())?.map(MirroredNode::decode).transpose()).collect()
        })
    }

    /// Keeps nodes.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn mirror(&self, nodes: &[(BlockId, MirroredNode)]) -> Result<(), CatalogError> {
        if nodes.is_empty() {
            return Ok(());
        }
        self.store.write(|tables, txn| {
            nodes.iter().try_for_each(|(id, node)| Ok(tables.mirror.put(txn, id.as_bytes(), &node.encode())?))
        })
    }

    /// How many nodes are kept.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn mirrored_count(&self) -> Result<u64, CatalogError> {
        self.store.read(|tables, txn| Ok(tables.mirror.len(txn)?))
    }

    /// The next nodes that are kept, in order of id, behind this one.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn mirrored_behind(&self, id: &BlockId) -> Result<Vec<BlockId>, CatalogError> {
        self.store.read(|tables, txn| {
            let range: (Bound<&[u8]>, Bound<&[u8]>) = (Bound::Excluded(id.as_bytes()), Bound::Unbounded);
            let rows = tables.mirror.range(txn, &range)?.take(ROWS_PER_LOOK);
            rows.map(|row| Ok(BlockId::from_bytes(key::array(row?.0, 0, "mirror")?))).collect()
        })
    }

    /// Forgets nodes.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn forget_mirrored(&self, nodes: &[BlockId]) -> Result<(), CatalogError> {
        if nodes.is_empty() {
            return Ok(());
        }
        self.store.write(|tables, txn| {
            for id in nodes {
                tables.mirror.delete(txn, id.as_bytes())?;
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::clock::SystemClock;

    fn id(n: u8) -> BlockId {
        BlockId::from_bytes([n; 32])
    }

    #[test]
    fn nodes_come_back_and_go_when_out_of_use() {
        let dir = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(dir.path(), &SystemClock).unwrap();
        let leaf = MirroredNode::from(&MapNode::from_ids(0, vec![id(7), BlockId::HOLE, id(5), id(7)]));
        assert_eq!(leaf, MirroredNode::Leaf(vec![short_id(&id(5)), short_id(&id(7))]));
        let inner = MirroredNode::from(&MapNode::from_ids(3, vec![id(9), BlockId::HOLE, id(9), id(8)]));
        assert_eq!(inner, MirroredNode::Inner { level: 2, children: vec![id(8), id(9)] });
        catalog.mirror(&[(id(1), leaf.clone()), (id(2), inner.clone()), (id(3), leaf.clone())]).unwrap();
        assert_eq!(catalog.mirrored(&[id(2), id(4), id(1)]).unwrap(), [Some(inner), None, Some(leaf.clone())]);
        assert_eq!(catalog.mirrored_behind(&BlockId::HOLE).unwrap(), [id(1), id(2), id(3)]);
        assert_eq!(catalog.mirrored_behind(&id(2)).unwrap(), [id(3)]);
        catalog.forget_mirrored(&[id(1), id(2)]).unwrap();
        assert_eq!(catalog.mirrored(&[id(1), id(2), id(3)]).unwrap(), [None, None, Some(leaf)]);
        assert_eq!(catalog.mirrored_count().unwrap(), 1);
    }
}
