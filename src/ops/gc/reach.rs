//! Everything that records refer to. A map node that was met once is not entered again, whoever refers to it, and one that an
//! earlier collection read comes from the catalog: the cost on the target follows nodes that are new.

use crate::catalog::{MirroredNode, Root};
use crate::ops::error::is_damage;
use crate::ops::{Interrupt, OpsError};
use crate::repo::{RepoError, Repository};
use crate::words::ids::BlockId;
use std::collections::{BTreeMap, HashSet};
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
    seen: HashSet<BlockId>,
    kept: u64,
}

impl<'a> Reach<'a> {
    /// Nothing is reached yet.
    ///
    /// # Errors
    /// When the catalog fails.
    pub fn new(repo: &'a Repository, interrupt: &'a Interrupt) -> Result<Self, OpsError> {
        let kept = repo.catalog().mirrored_count().map_err(RepoError::from)?;
        Ok(Self { repo, interrupt, seen: HashSet::new(), kept })
    }

    /// Visits what is below these roots and was not visited before. Answers the nodes that cannot be read; what is below them
    /// was left out.
    ///
    /// # Errors
    /// When the target cannot be reached, the catalog fails, or the work is to stop.
    pub fn walk(&mut self, roots: &[Root], visitor: &mut dyn Visitor) -> Result<Vec<Unreadable>, OpsError> {
        let mut waiting: BTreeMap<u8, Vec<BlockId>> = BTreeMap::new();
        let mut unreadable = Vec::new();
        for (root, level) in roots {
            if !root.is_hole() && self.seen.insert(*root) {
                waiting.entry(*level).or_default().push(*root);
            }
        }
        while let Some((level, nodes)) = waiting.pop_last() {
            for chunk in nodes.chunks(NODES_AT_ONCE) {
                self.interrupt.check()?;
                for (id, node) in chunk.iter().zip(self.load(chunk)?) {
                    match node {
                        Err(error) if is_damage(&error) => unreadable.push(Unreadable { id: *id, error }),
                        Err(error) => return Err(error.into()),
                        Ok(node) => {
                            visitor.node(id)?;
                            match node {
                                MirroredNode::Leaf(blocks) => visitor.blocks(&blocks),
                                MirroredNode::Inner { level: below, children } if below < level => {
                                    let new = children.into_iter().filter(|child| self.seen.insert(*child));
                                    waiting.entry(below).or_default().extend(new);
                                }
                                // Levels descend, or a forged node could send us in circles.
                                MirroredNode::Inner { .. } => {}
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
    /// When the catalog fails.
    pub fn forget_others(&self) -> Result<(), OpsError> {
        Ok(self.repo.catalog().retain_mirrored(&self.seen).map_err(RepoError::from)?)
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
