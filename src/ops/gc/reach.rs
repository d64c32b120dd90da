//! Everything that records refer to. A map node that was met once is not entered again, whoever refers to it, and one that an
//! earlier collection read comes from the catalog: the cost on the target follows nodes that are new.

use crate::catalog::{MirroredNode, Root};
use crate::ops::error::is_damage;
use crate::ops::visited::Visited;
use crate::ops::{Interrupt, OpsError};
use crate::repo::{RepoError, Repository};
use crate::words::ids::BlockId;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Nodes looked at together.
const NODES_AT_ONCE: usize = 64;
/// Nodes read from the target at once.
const READS_AT_ONCE: usize = 8;
/// Nodes kept in the catalog: up to 8 KiB each, 4 GiB in all, which stands for 128 TiB of blocks of 256 KiB that are all different.
/// Nodes beyond that are read from the target by every collection.
const NODES_KEPT_MAX: u64 = 1 << 19;

/// Is shown what can be reached.
pub trait Visitor {
    /// A map node, before what is below it.
    ///
    /// # Errors
    /// Whatever it fails with ends the walk.
    fn node(&mut self, id: &BlockId) -> Result<(), OpsError>;
    /// The data blocks of a leaf, by the first eight bytes of their ids.
    fn blocks(&mut self, ids: &[u64]);
}

/// Looks at nothing.
pub struct Nobody;

impl Visitor for Nobody {
    fn node(&mut self, _: &BlockId) -> Result<(), OpsError> {
        Ok(())
    }

    fn blocks(&mut self, _: &[u64]) {}
}

/// A map node that cannot be read: what is below it is not known.
#[derive(Debug)]
pub struct Unreadable {
    /// The node.
    pub id: BlockId,
    /// Why.
    pub error: RepoError,
}

/// A walk over the maps of many records.
pub struct Reach<'a> {
    repo: &'a Repository,
    interrupt: &'a Interrupt,
    seen: Visited,
    kept: u64,
}

impl<'a> Reach<'a> {
    /// Nothing is reached yet.
    ///
    /// # Errors
    /// When the catalog fails.
    pub fn new(repo: &'a Repository, interrupt: &'a Interrupt) -> Result<Self, OpsError> {
        let kept = repo.catalog().mirrored_count().map_err(RepoError::from)?;
        Ok(Self { repo, interrupt, seen: Visited::new(repo), kept })
    }

    /// Visits what is below these roots and was not visited before. Answers the nodes that cannot be read; what is below them
    /// was left out.
    ///
    /// # Errors
    /// When the target cannot be reached, the catalog or the state directory fails, or the work is to stop.
    pub fn walk(&mut self, roots: &[Root], visitor: &mut dyn Visitor) -> Result<Vec<Unreadable>, OpsError> {
        let mut waiting = Waiting::default();
        let mut unreadable = Vec::new();
        for (root, level) in roots {
            if !root.is_hole() && self.seen.insert(*root)? {
                waiting.add(*level, *root);
            }
        }
        while let Some(nodes) = waiting.take() {
            self.interrupt.check()?;
            for (id, node) in nodes.iter().zip(self.load(&nodes)?) {
                let node = match node {
                    Err(error) if is_damage(&error) => {
                        unreadable.push(Unreadable { id: *id, error });
                        continue;
                    }
                    node => node?,
                };
                visitor.node(id)?;
                match node {
                    MirroredNode::Leaf(blocks) => visitor.blocks(&blocks),
                    // Whatever level somebody named it under: each is entered once, so nothing goes in circles.
                    MirroredNode::Inner { level: below, children } => {
                        for child in children {
                            if self.seen.insert(child)? {
                                waiting.add(below, child);
                            }
                        }
                    }
                }
            }
        }
        Ok(unreadable)
    }

    /// Lets the catalog forget nodes that nothing refers to any more.
    ///
    /// # Errors
    /// When the catalog or the state directory fails, or the work is to stop.
    pub fn forget_others(&self) -> Result<(), OpsError> {
        let catalog = self.repo.catalog();
        let mut from = BlockId::HOLE;
        loop {
            self.interrupt.check()?;
            let mirrored = catalog.mirrored_behind(&from).map_err(RepoError::from)?;
            let Some(last) = mirrored.last() else { return Ok(()) };
            from = *last;
            let mut unused = Vec::new();
            for id in mirrored {
                if !self.seen.contains(&id)? {
                    unused.push(id);
                }
            }
            catalog.forget_mirrored(&unused).map_err(RepoError::from)?;
        }
    }

    fn load(&mut self, ids: &[BlockId]) -> Result<Vec<Result<MirroredNode, RepoError>>, OpsError> {
        let catalog = self.repo.catalog();
        let mirrored = catalog.mirrored(ids).map_err(RepoError::from)?;
        let absent: Vec<BlockId> =
            ids.iter().zip(&mirrored).filter(|(_, node)| node.is_none()).map(|(id, _)| *id).collect();
        let mut read = read_all(self.repo, &absent);
        let new: Vec<(BlockId, MirroredNode)> =
            absent.iter().zip(&read).filter_map(|(id, node)| Some((*id, node.as_ref().ok()?.clone()))).collect();
        if self.kept < NODES_KEPT_MAX {
            catalog.mirror(&new).map_err(RepoError::from)?;
            self.kept += new.len() as u64;
        }
        let mut read = read.drain(..);
        Ok(mirrored
            .into_iter()
            .map(|node| node.map_or_else(|| read.next().unwrap_or(Err(RepoError::Stopped)), Ok))
            .collect())
    }
}

/// Nodes that were met and not entered, by level. Beside the roots these are few, because leaves go first: of each level no more
/// than the children of [`NODES_AT_ONCE`] nodes.
#[derive(Default)]
struct Waiting(BTreeMap<u8, Vec<BlockId>>);

impl Waiting {
    fn add(&mut self, level: u8, id: BlockId) {
        self.0.entry(level).or_default().push(id);
    }

    /// Nodes of one level: the lowest of which there are enough to be looked at together, else the highest, which brings more.
    fn take(&mut self) -> Option<Vec<BlockId>> {
        self.0.retain(|_, nodes| !nodes.is_empty());
        let enough = self.0.iter().find(|(_, nodes)| nodes.len() >= NODES_AT_ONCE).map(|(level, _)| *level);
        let level = enough.or_else(|| self.0.keys().next_back().copied())?;
        let nodes = self.0.get_mut(&level)?;
        Some(nodes.split_off(nodes.len().saturating_sub(NODES_AT_ONCE)))
    }
}

/// Reads nodes, several at once, and answers in the order asked.
fn read_all(repo: &Repository, ids: &[BlockId]) -> Vec<Result<MirroredNode, RepoError>> {
    let read = |id: &BlockId| repo.read_node(id).map(|node| MirroredNode::from(&*node));
    if ids.len() < 2 {
        return ids.iter().map(read).collect();
    }
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(id) = ids.get(at) else { return done };
            done.push((at, read(id)));
        }
    };
    let mut answers: Vec<Option<Result<MirroredNode, RepoError>>> = ids.iter().map(|_| None).collect();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..READS_AT_ONCE.min(ids.len())).map(|_| scope.spawn(work)).collect();
        for (at, node) in threads.into_iter().flat_map(|thread| thread.join().unwrap_or_default()) {
            answers[at] = Some(node);
        }
    });
    answers.into_iter().map(|answer| answer.unwrap_or(Err(RepoError::Stopped))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaves_go_first_when_there_are_enough() {
        let id = |level: u8, number: usize| {
            let mut bytes = [level; BlockId::LEN];
            bytes[..8].copy_from_slice(&number.to_le_bytes());
            BlockId::from_bytes(bytes)
        };
        let mut waiting = Waiting::default();
        let roots = 3 * NODES_AT_ONCE;
        (0..roots).for_each(|root| waiting.add(3, id(3, root)));
        let (mut number, mut entered) = (roots, [0_usize; 4]);
        while let Some(nodes) = waiting.take() {
            let level = nodes[0].as_bytes()[8];
            assert!(nodes.len() <= NODES_AT_ONCE && nodes.iter().all(|node| node.as_bytes()[8] == level));
            entered[usize::from(level)] += nodes.len();
            for _ in 0..if level == 0 { 0 } else { 5 * nodes.len() } {
                waiting.add(level - 1, id(level - 1, number));
                number += 1;
            }
            // Of each level below the roots no more than what one look brings, and what was too little before.
            for (level, nodes) in waiting.0.iter().filter(|(level, _)| **level < 3) {
                assert!(nodes.len() < 6 * NODES_AT_ONCE, "{} of level {level}", nodes.len());
            }
        }
        assert_eq!(entered, [125 * roots, 25 * roots, 5 * roots, roots]);
    }
}
