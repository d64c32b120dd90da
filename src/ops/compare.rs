//! Which blocks differ between two versions. Equal subtrees of their maps have equal ids and are not read: the cost follows
//! the difference.

use crate::ops::OpsError;
use crate::repo::Repository;
use crate::words::geometry::{FANOUT, node_span_blocks};
use crate::words::ids::BlockId;
use crate::words::record::ImageRef;
use serde::Serialize;

/// Bytes that differ. The fields are those of change hints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ChangedRange {
    /// From where.
    pub offset: u64,
    /// How many.
    pub length: u64,
    /// Whether the second version has contents there; otherwise it is a hole.
    pub exists: bool,
}

/// What differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The first version.
    pub from: String,
    /// The second version.
    pub to: String,
    /// Bytes of the first.
    pub from_size_bytes: u64,
    /// Bytes of the second.
    pub to_size_bytes: u64,
    /// Bytes in blocks that differ.
    pub changed_bytes: u64,
    /// In order, in whole blocks, cut at the end of the longer one.
    pub ranges: Vec<ChangedRange>,
}

/// A subtree of a map: the root of a tree lower than wanted stands for the first of its siblings.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Subtree {
    id: BlockId,
    level: u8,
}

impl Subtree {
    const HOLE: Self = Self { id: BlockId::HOLE, level: 0 };

    /// The child at `slot` of the node that stands at `level`.
    fn child(self, repo: &Repository, level: u8, slot: usize) -> Result<Self, OpsError> {
        if self.id.is_hole() {
            return Ok(Self::HOLE);
        }
        if self.level < level {
            return Ok(if slot == 0 { self } else { Self::HOLE });
        }
        Ok(Self { id: repo.read_node(&self.id)?.get(slot), level: level - 1 })
    }
}

/// Compares two images of one repository.
///
/// # Errors
/// When a map node cannot be read.
pub fn compare(repo: &Repository, from: &ImageRef, to: &ImageRef) -> Result<Vec<ChangedRange>, OpsError> {
    let root = |image: &ImageRef| Subtree { id: image.root, level: image.depth().root_level() };
    let level = root(from).level.max(root(to).level);
    let mut search = Search {
        repo,
        block: from.block_size.bytes_u64(),
        end: from.size_bytes.max(to.size_bytes),
        ranges: Vec::new(),
    };
    search.visit(root(from), root(to), level, 0)?;
    // Blocks past the shorter end are holes on that side: a change of size alone is in the sizes.
    Ok(search.ranges)
}

struct Search<'a> {
    repo: &'a Repository,
    block: u64,
    end: u64,
    ranges: Vec<ChangedRange>,
}

impl Search<'_> {
    fn visit(&mut self, from: Subtree, to: Subtree, level: u8, first: u64) -> Result<(), OpsError> {
        if from.id == to.id && (from.level == to.level || from.id.is_hole()) {
            return Ok(());
        }
        for slot in 0..FANOUT {
            let index = slot as usize;
            if level == 0 {
                let [old, new] = [from, to].map(|side| -> Result<BlockId, OpsError> {
                    Ok(if side.id.is_hole() { BlockId::HOLE } else { self.repo.read_node(&side.id)?.get(index) })
                });
                let (old, new) = (old?, new?);
                if old != new {
                    self.add(first + slot, !new.is_hole());
                }
            } else {
                let below = (from.child(self.repo, level, index)?, to.child(self.repo, level, index)?);
                let at = first.saturating_add(slot.saturating_mul(node_span_blocks(level - 1)));
                self.visit(below.0, below.1, level - 1, at)?;
            }
        }
        Ok(())
    }

    fn add(&mut self, index: u64, exists: bool) {
        let offset = index * self.block;
        let length = self.block.min(self.end.saturating_sub(offset));
        match self.ranges.last_mut() {
            Some(last) if last.offset + last.length == offset && last.exists == exists => last.length += length,
            _ => self.ranges.push(ChangedRange { offset, length, exists }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::DraftImage;
    use crate::repo::testing;
    use std::sync::Arc;

    #[test]
    fn images_of_any_two_sizes() {
        let test = testing::create(&testing::small());
        let make = |size: u64, writes: &[(u64, u8)]| {
            let draft = DraftImage::new(Arc::clone(&test.repo), ImageRef::empty(test.repo.block_size()), None);
            draft.truncate(size).unwrap();
            writes.iter().for_each(|(at, byte)| draft.write_at(*at, &[*byte]).unwrap());
            draft.settle().unwrap().image
        };
        let range = |offset, length, exists| ChangedRange { offset, length, exists };
        let small = make(100_000, &[(0, 1), (50_000, 2)]);
        // Three levels of map beside one.
        let large = make(5 << 30, &[(0, 1), (50_000, 3), (5 << 29, 4)]);
        let differ = [range(49_152, 4096, true), range(5 << 29, 4096, true)];
        assert_eq!(compare(&test.repo, &small, &large).unwrap(), differ);
        let back = [range(49_152, 4096, true), range(5 << 29, 4096, false)];
        assert_eq!(compare(&test.repo, &large, &small).unwrap(), back);
        assert_eq!(compare(&test.repo, &large, &large).unwrap(), []);
        assert_eq!(compare(&test.repo, &small, &make(7 << 40, &[(0, 1), (50_000, 2)])).unwrap(), []);
        let last = make(4097, &[(4096, 9)]);
        assert_eq!(compare(&test.repo, &make(4097, &[]), &last).unwrap(), [range(4096, 1, true)]);
    }
}
