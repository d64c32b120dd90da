//! The check between publishing a record and acknowledging it (GC rule 4): every block and map node of the image has a copy
//! in a pack that is not condemned; what has none is copied out or the check fails.

use crate::format::node::MapNode;
use crate::repo::learn::Learner;
use crate::repo::{RepoError, Repository};
use crate::words::geometry::FANOUT;
use crate::words::ids::{BlockId, CondemnedFingerprint};
use crate::words::record::{BlockKind, ImageRef};
use std::collections::HashMap;
use std::sync::Arc;

/// One position in two trees of the same shape: the one being checked, and relatives that are known to be good.
struct Walk<'a> {
    repo: &'a Repository,
    list: CondemnedFingerprint,
    stored: u64,
    /// Blocks and nodes of which no copy can be read; `None` while one such ends the walk.
    lost: Option<u64>,
    /// Nodes found good in this pass, so that shared subtrees are walked once.
    seen: HashMap<BlockId, ()>,
}

impl Repository {
    /// Checks an image and returns the condemned list under which it is good.
    ///
    /// # Errors
    /// When a block is lost, or target or catalog fail.
    pub fn check_image(&self, image: &ImageRef, relatives: &[ImageRef]) -> Result<CondemnedFingerprint, RepoError> {
        self.check_or_count(image, relatives, None).map(|(list, _)| list)
    }

    /// As [`Repository::check_image`], for a record that was confirmed once and may have lost blocks since: everything that can be
    /// read has a copy in a pack that is not condemned when this returns. Answers how many blocks and map nodes cannot.
    ///
    /// # Errors
    /// When target or catalog fail.
    pub fn check_what_is_left(&self, image: &ImageRef) -> Result<u64, RepoError> {
        self.check_or_count(image, &[], Some(0)).map(|(_, lost)| lost.unwrap_or(0))
    }

    fn check_or_count(
        &self,
        image: &ImageRef,
        relatives: &[ImageRef],
        lost: Option<u64>,
    ) -> Result<(CondemnedFingerprint, Option<u64>), RepoError> {
        loop {
            // First the index, then the whole list: a location learnt from the index and condemned since must be seen.
            self.learn_index()?;
            let index = self.core.catalog.index_changes()?;
            let list = self.learn_condemned()?;
            let mut walk = Walk { repo: self, list, stored: 0, lost, seen: HashMap::new() };
            if !walk.is_known_good(image)? {
                let depth = image.depth();
                let good: Vec<BlockId> = relatives
                    .iter()
                    .filter_map(|relative| {
                        walk.is_known_good(relative).map(|good| good.then_some(relative)).transpose()
                    })
                    .collect::<Result<Vec<_>, _>>()?
                    .into_iter()
                    .filter_map(|relative| walk.align(relative, depth.root_level()).transpose())
                    .collect::<Result<_, _>>()?;
                walk.node(image.root, depth.root_level(), &good)?;
            }
            if walk.stored == 0 {
                // Repeat until a pass stored nothing and no index entry arrived after the list was read: other processes learn into
                // the same catalog while this one walks (GC rule 13). An entry that did arrive is as good as the others when
                // the list, read again, is still the same.
                if self.core.catalog.index_changes()? == index || self.learn_condemned()? == list {
                    return Ok((list, walk.lost));
                }
                continue;
            }
            self.flush_packs([])?;
        }
    }

    /// Reads batches of the condemned list that are new, and returns what the list now is.
    ///
    /// # Errors
    /// When the target or the catalog fails. A batch that cannot be read is an error: an incomplete list must not pass
    /// for the whole.
    pub fn learn_condemned(&self) -> Result<CondemnedFingerprint, RepoError> {
        let core = &self.core;
        let mut learner = Learner::new(core, &core.catalog);
        learner.condemned()?;
        if let Some(sign) = learner.rolled_back {
            self.rebuild_after(&sign)?;
        }
        Ok(core.catalog.fingerprint()?)
    }
}

impl Walk<'_> {
    fn is_known_good(&self, image: &ImageRef) -> Result<bool, RepoError> {
        Ok(image.root.is_hole() || self.repo.core.catalog.is_checked(&image.root, image.depth(), &self.list)?)
    }

    /// The node of `image` that stands at `level` over block 0, so that trees of different height can be walked side by
    /// side. A lower tree than wanted has none.
    fn align(&self, image: &ImageRef, level: u8) -> Result<Option<BlockId>, RepoError> {
        let mut id = image.root;
        let mut at = image.depth().root_level();
        while at > level && !id.is_hole() {
            id = self.repo.read_node(&id)?.get(0);
            at -= 1;
        }
        Ok((at == level && !id.is_hole()).then_some(id))
    }

    fn node(&mut self, id: BlockId, level: u8, relatives: &[BlockId]) -> Result<(), RepoError> {
        if id.is_hole() || relatives.contains(&id) || self.seen.contains_key(&id) {
            return Ok(());
        }
        if !self.located(BlockKind::Map, &id)? {
            return Ok(());
        }
        let node = self.repo.read_node(&id)?;
        let others: Vec<Arc<MapNode>> =
            relatives.iter().map(|other| self.repo.read_node(other)).collect::<Result<_, _>>()?;
        let mut children = Vec::with_capacity(others.len());
        for i in 0..FANOUT as usize {
            let child = node.get(i);
            if child.is_hole() || others.iter().any(|other| other.get(i) == child) {
                continue;
            }
            if level == 0 {
                self.located(BlockKind::Data, &child)?;
            } else {
                children.clear();
                children.extend(others.iter().map(|other| other.get(i)).filter(|id| !id.is_hole()));
                self.node(child, level - 1, &children)?;
            }
        }
        self.seen.insert(id, ());
        Ok(())
    }

    /// Makes sure that a block has a copy in a pack that is not condemned. Says whether there is one: where losses are counted, one
    /// that cannot be read is no error.
    fn located(&mut self, kind: BlockKind, id: &BlockId) -> Result<bool, RepoError> {
        let core = &self.repo.core;
        let is_located = core.catalog.has_location(id)?;
        // What is below a node must be looked at, so that must be readable, too, or the rest is lost with it.
        if is_located && (kind == BlockKind::Data || self.lost.is_none()) {
            return Ok(true);
        }
        // All its copies are condemned: they may still be readable, or the block may be in the cache.
        let placed = match kind {
            BlockKind::Data => core.read_block(id).and_then(|block| core.store_block(&block, BlockId::HOLE)).map(drop),
            BlockKind::Map if is_located => core.read_node(id).map(drop),
            BlockKind::Map => core.read_node(id).and_then(|node| core.store_node(&node)).map(drop),
        };
        match (placed, &mut self.lost) {
            (Err(RepoError::Damaged { .. } | RepoError::Format { .. } | RepoError::Seal { .. }), Some(lost)) => {
                *lost += 1;
                Ok(false)
            }
            (placed, _) => {
                placed?;
                self.stored += u64::from(!is_located);
                Ok(true)
            }
        }
    }
}
