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
    let end = image.block_count();
    subtree(repo, image.root, image.depth().root_level(), 0, end, visit)
}

fn subtree<E: From<RepoError>>(
    repo: &Repository,
    id: BlockId,
    level: u8,
    first: u64,
    end: u64,
    visit: &mut impl FnMut(Found) -> Result<(), E>,
) -> Result<(), E> {
    if id.is_hole() || first >= end {
        return Ok(());
    }
    let node = match repo.read_node(&id) {
        Ok(node) => node,
        Err(error) if is_damage(&error) => {
            let last = first.saturating_add(node_span_blocks(level)).min(end);
            return visit(Found::Lost { blocks: first..last, error });
        }
        Err(error) => return Err(error.into()),
    };
    let step = if level == 0 { 1 } else { node_span_blocks(level - 1) };
    for slot in 0..FANOUT {
        let (child, at) = (node.get(slot as usize), first.saturating_add(slot.saturating_mul(step)));
        if at >= end {
            break;
        }
        if level > 0 {
            subtree(repo, child, level - 1, at, end, visit)?;
        } else if !child.is_hole() {
            visit(Found::Block { index: at, id: child })?;
        }
    }
    Ok(())
}
