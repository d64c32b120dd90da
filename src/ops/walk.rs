//! Walking the map of a stored image, in order and damage by damage.

use crate::ops::error::is_damage;
use crate::repo::{RepoError, Repository};
use crate::words::geometry::{FANOUT, node_span_blocks};
use crate::words::ids::BlockId;
use crate::words::record::ImageRef;
use std::ops::Range;

/// What is met. Holes are what lies between.
#[derive(Debug)]
pub enum Found {
    /// A block with contents.
    Block {
        /// Its position.
        index: u64,
        /// Its id.
        id: BlockId,
    },
    /// Blocks of which nothing is known, because a node of the map cannot be read.
    Lost {
        /// Their positions.
        blocks: Range<u64>,
        /// Why.
        error: RepoError,
    },
}

/// Visits every block of an image that is not a hole, in order. Memory does not grow with the image.
///
/// # Errors
/// What `visit` returns, and errors of the repository that are not damage.
pub fn walk<E: From<RepoError>>(
    repo: &Repository,
    image: &ImageRef,
    visit: &mut impl FnMut(Found) -> Result<(), E>,
) -> Result<(), E> {
    walk_range(repo, image, 0..image.block_count(), visit)
}

/// The same for a range of blocks.
///
/// # Errors
/// As [`walk`].
pub fn walk_range<E: From<RepoError>>(
    repo: &Repository,
    image: &ImageRef,
    blocks: Range<u64>,
    visit: &mut impl FnMut(Found) -> Result<(), E>,
) -> Result<(), E> {
    let blocks = blocks.start..blocks.end.min(image.block_count());
    subtree(repo, image.root, image.depth().root_level(), 0, &blocks, visit)
}

fn subtree<E: From<RepoError>>(
    repo: &Repository,
    id: BlockId,
    level: u8,
    first: u64,
    blocks: &Range<u64>,
    visit: &mut impl FnMut(Found) -> Result<(), E>,
) -> Result<(), E> {
    if id.is_hole() || first >= blocks.end || first.saturating_add(node_span_blocks(level)) <= blocks.start {
        return Ok(());
    }
    let node = match repo.read_node(&id) {
        Ok(node) => node,
        Err(error) if is_damage(&error) => {
            let last = first.saturating_add(node_span_blocks(level)).min(blocks.end);
            return visit(Found::Lost { blocks: first.max(blocks.start)..last, error });
        }
        Err(error) => return Err(error.into()),
    };
    let step = if level == 0 { 1 } else { node_span_blocks(level - 1) };
    for slot in 0..FANOUT {
        let (child, at) = (node.get(slot as usize), first.saturating_add(slot.saturating_mul(step)));
        if at >= blocks.end {
            break;
        }
        if level > 0 {
            subtree(repo, child, level - 1, at, blocks, visit)?;
        } else if !child.is_hole() && at >= blocks.start {
            visit(Found::Block { index: at, id: child })?;
        }
    }
    Ok(())
}
