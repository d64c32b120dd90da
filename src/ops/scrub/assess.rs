//! How versions stand, given what is known of every copy of every block: a walk over their maps that reads no data.
//!
//! Subtrees that many versions share are walked once. Those with damage are walked for each version, since each is told where in
//! it the damage is; damage is rare.

use crate::catalog::Standing;
use crate::ops::error::is_damage;
use crate::ops::scrub::pace::Pacer;
use crate::ops::scrub::report::{LostRange, RANGES_MAX};
use crate::ops::{Interrupt, OpsError};
use crate::repo::{RepoError, Repository};
use crate::words::geometry::{FANOUT, node_span_blocks};
use crate::words::ids::{BlockId, PackId};
use crate::words::record::ImageRef;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;

/// What a map node is counted as, sealed.
pub const NODE_BYTES: u64 = 32 << 10;

/// How an image stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Assessment {
    /// Blocks and map nodes that no scrub of this host has read yet.
    pub unseen: u64,
    /// Bytes that cannot be read.
    pub lost_bytes: u64,
    /// Where they are: of each the first reason. At most [`RANGES_MAX`], unless more were asked for.
    pub ranges: Vec<LostRange>,
}

/// Looks at one image after the other.
pub struct Assessor<'a> {
    repo: &'a Repository,
    interrupt: Interrupt,
    /// Undamaged subtrees, and how much of each is unseen. Kept by the first half of their ids: of a million nodes two share it by
    /// chance once in 10^26.
    clean: HashMap<[u8; 16], u64>,
    gone: BTreeSet<PackId>,
    /// Ranges that may be told beyond [`RANGES_MAX`] of each image.
    spare_ranges: usize,
    pacer: Option<&'a Pacer>,
}

struct Place {
    level: u8,
    first: u64,
}

impl<'a> Assessor<'a> {
    /// For images of one repository.
    pub fn new(repo: &'a Repository, interrupt: Interrupt) -> Self {
        let (clean, gone) = (HashMap::new(), BTreeSet::new());
        Self { repo, interrupt, clean, gone, spare_ranges: 0, pacer: None }
    }

    /// Tells so many ranges more than [`RANGES_MAX`] of each image.
    #[must_use]
    pub fn with_more_ranges(self, spare_ranges: usize) -> Self {
        Self { spare_ranges, ..self }
    }

    /// Reads maps no faster than this.
    #[must_use]
    pub fn at_pace(self, pacer: &'a Pacer) -> Self {
        Self { pacer: Some(pacer), ..self }
    }

    /// As if these packs were not there.
    #[must_use]
    pub fn without(self, gone: BTreeSet<PackId>) -> Self {
        Self { gone, ..self }
    }

    /// Looks at an image.
    ///
    /// # Errors
    /// When target or catalog fail, or it was interrupted. Damage is in the answer.
    pub fn assess(&mut self, image: &ImageRef) -> Result<Assessment, OpsError> {
        let mut found = Assessment::default();
        if !image.root.is_hole() {
            let standing = self.standings(&[image.root])?.remove(0);
            let root = Place { level: image.depth().root_level(), first: 0 };
            found.unseen = self.node(image, image.root, standing, &root, &mut found)?;
        }
        self.spare_ranges -= found.ranges.len().saturating_sub(RANGES_MAX);
        Ok(found)
    }

    fn ranges_max(&self) -> usize {
        RANGES_MAX.saturating_add(self.spare_ranges)
    }

    fn standings(&self, ids: &[BlockId]) -> Result<Vec<Standing>, RepoError> {
        Ok(self.repo.catalog().standings(ids, &self.gone)?)
    }

    /// Looks at the node `id` and all below it; answers how much of it is unseen.
    fn node(
        &mut self,
        image: &ImageRef,
        id: BlockId,
        standing: Standing,
        place: &Place,
        found: &mut Assessment,
    ) -> Result<u64, OpsError> {
        self.interrupt.check()?;
        let span = place.first..place.first.saturating_add(node_span_blocks(place.level));
        if let Standing::Lost(reason) = standing {
            found.lose(image, span, &format!("map node {id}: {reason}"), self.ranges_max());
            return Ok(0);
        }
        let short = *id.as_bytes().first_chunk().expect("an id has 32 bytes");
        if let Some(unseen) = self.clean.get(&short) {
            return Ok(*unseen);
        }
        if self.pacer.is_some_and(|pacer| pacer.pass(NODE_BYTES).is_break()) {
            return Err(OpsError::Interrupted);
        }
        let node = match self.repo.read_node(&id) {
            Ok(node) => node,
            Err(error) if !is_damage(&error) => return Err(error.into()),
            Err(error) => {
                found.lose(image, span, &error.to_string(), self.ranges_max());
                return Ok(0);
            }
        };
        let lost_before = found.lost_bytes;
        // Reading the node has shown that it is good.
        let mut unseen = 0;
        let step = if place.level == 0 { 1 } else { node_span_blocks(place.level - 1) };
        let children: BTreeMap<u64, BlockId> =
            (0..FANOUT).zip(node.ids().iter().copied()).filter(|(_, child)| !child.is_hole()).collect();
        let ids: Vec<BlockId> = children.values().copied().collect();
        let standings = self.standings(&ids)?;
        for ((slot, child), standing) in children.into_iter().zip(standings) {
            let first = place.first.saturating_add(slot.saturating_mul(step));
            if first >= image.block_count() {
                break;
            }
            unseen += match place.level {
                0 => self.block(image, &child, standing, first, found)?,
                level => self.node(image, child, standing, &Place { level: level - 1, first }, found)?,
            };
        }
        if found.lost_bytes == lost_before {
            self.clean.insert(short, unseen);
        }
        Ok(unseen)
    }

    fn block(
        &self,
        image: &ImageRef,
        id: &BlockId,
        standing: Standing,
        index: u64,
        found: &mut Assessment,
    ) -> Result<u64, OpsError> {
        let reason = match standing {
            Standing::Seen => return Ok(0),
            Standing::Unseen => return Ok(1),
            Standing::Lost(reason) => reason,
            // A collector may have deleted that pack, and is about to store the block elsewhere if it did not.
            Standing::Condemned => match self.repo.read_block(id) {
                Ok(_) => return Ok(1),
                Err(error) if is_damage(&error) => error.to_string(),
                Err(error) => return Err(error.into()),
            },
        };
        found.lose(image, index..index + 1, &format!("block {id}: {reason}"), self.ranges_max());
        Ok(0)
    }
}

impl Assessment {
    fn lose(&mut self, image: &ImageRef, blocks: Range<u64>, reason: &str, ranges_max: usize) {
        let block = image.block_size.bytes_u64();
        let offset = blocks.start.saturating_mul(block);
        let length = blocks.end.saturating_mul(block).min(image.size_bytes).saturating_sub(offset);
        self.lost_bytes += length;
        let has_room = self.ranges.len() < ranges_max;
        match self.ranges.last_mut() {
            // Each block has a reason of its own; where they are matters more.
            Some(last) if last.offset + last.length == offset => last.length += length,
            _ if has_room => self.ranges.push(LostRange { offset, length, reason: reason.to_owned() }),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::geometry::BlockSize;

    #[test]
    fn neighbours_are_one_range_and_none_is_left_out() {
        let (block_size, root) = (BlockSize::MIN, BlockId::from_bytes([1; 32]));
        let image = ImageRef { block_size, size_bytes: 4096 * 10_000 - 5, root, allocated_blocks: 10_000 };
        let lost = |step: u64, most: usize| {
            let mut found = Assessment::default();
            for index in (0..10_000).step_by(usize::try_from(step).unwrap()) {
                found.lose(&image, index..index + 1, &format!("block {index}"), most);
            }
            found
        };
        let all = lost(1, RANGES_MAX);
        assert_eq!((all.lost_bytes, all.ranges.len()), (image.size_bytes, 1));
        assert_eq!((all.ranges[0].offset, all.ranges[0].length), (0, image.size_bytes));
        assert_eq!(lost(3, usize::MAX).ranges.len(), 3334);
        let some = lost(3, RANGES_MAX);
        assert_eq!((some.ranges.len(), some.lost_bytes), (RANGES_MAX, 3334 * 4096 - 5));
    }
}
