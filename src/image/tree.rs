//! The block map of an image being written: the Merkle tree of its start, of which only touched nodes are in memory.
//!
//! Untouched subtrees are known by id. When too many leaves have been touched, those are stored early and become ids again,
//! so memory does not grow with the image. Nodes are canonical (an all-hole subtree is [`BlockId::HOLE`], trailing holes
//! are trimmed), so equal images have equal roots.

use crate::format::node::MapNode;
use crate::repo::packer::PackNo;
use crate::repo::{RepoError, Repository};
use crate::words::geometry::{FANOUT, MapDepth, node_span_blocks};
use crate::words::ids::BlockId;
use std::collections::BTreeSet;
use std::ops::Range;

/// Touched leaves kept in memory before they are stored: 512 leaves of 32 KiB are 16 MiB.
const LEAVES_MAX: usize = 512;
const FAN: usize = FANOUT as usize;

/// See the module.
pub struct MapTree {
    root: Child,
    depth: MapDepth,
    allocated: u64,
    leaves: usize,
    tick: u64,
    packs: BTreeSet<PackNo>,
}

enum Child {
    /// A hole, or a subtree that is stored.
    Known(BlockId),
    Leaf(Box<Leaf>),
    Inner(Box<[Child]>),
}

struct Leaf {
    ids: Box<[BlockId]>,
    used: u64,
}

impl MapTree {
    /// Starts from a stored map.
    pub fn new(root: BlockId, depth: MapDepth, allocated_blocks: u64) -> Self {
        let packs = BTreeSet::new();
        Self { root: Child::Known(root), depth, allocated: allocated_blocks, leaves: 0, tick: 0, packs }
    }

    /// Blocks that are not holes.
    pub fn allocated_blocks(&self) -> u64 {
        self.allocated
    }

    /// The id at a position; a position outside the tree is a hole.
    pub fn get(&self, repo: &Repository, index: u64) -> Result<BlockId, RepoError> {
        if index >= node_span_blocks(self.depth.root_level()) {
            return Ok(BlockId::HOLE);
        }
        let mut child = &self.root;
        let mut level = self.depth.root_level();
        loop {
            match child {
                Child::Known(id) => return lookup(repo, *id, level, index),
                Child::Leaf(leaf) => return Ok(leaf.ids[slot(index, 0)]),
                Child::Inner(children) => child = &children[slot(index, level)],
            }
            level -= 1;
        }
    }

    /// Puts an id at a position inside the tree.
    pub fn set(&mut self, repo: &Repository, index: u64, id: BlockId) -> Result<(), RepoError> {
        debug_assert!(index < node_span_blocks(self.depth.root_level()), "resize comes first");
        self.tick += 1;
        let Self { root, depth, allocated, leaves, tick, .. } = self;
        let mut child = root;
        let mut level = depth.root_level();
        loop {
            *leaves += usize::from(expand(repo, child, level)? == Expanded::Leaf);
            match child {
                Child::Leaf(leaf) => {
                    leaf.used = *tick;
                    let before = std::mem::replace(&mut leaf.ids[slot(index, 0)], id);
                    *allocated = *allocated + u64::from(!id.is_hole()) - u64::from(!before.is_hole());
                    break;
                }
                Child::Inner(children) => child = &mut children[slot(index, level)],
                Child::Known(_) => unreachable!("it was expanded just now"),
            }
            level -= 1;
        }
        if self.leaves > LEAVES_MAX { self.spill(repo) } else { Ok(()) }
    }

    /// Replaces the whole leaf that covers `index` by a stored one (or a hole).
    pub fn set_leaf(&mut self, repo: &Repository, index: u64, id: BlockId) -> Result<(), RepoError> {
        let first = index / FANOUT * FANOUT;
        self.clear(repo, first..first + FANOUT)?;
        if id.is_hole() {
            return Ok(());
        }
        self.allocated += repo.read_node(&id)?.ids().iter().filter(|id| !id.is_hole()).count() as u64;
        let mut child = &mut self.root;
        for level in (1..=self.depth.root_level()).rev() {
            expand(repo, child, level)?;
            let Child::Inner(children) = child else { unreachable!("inner levels expand to inner nodes") };
            child = &mut children[slot(first, level)];
        }
        self.leaves -= usize::from(matches!(child, Child::Leaf(_)));
        *child = Child::Known(id);
        Ok(())
    }

    /// Makes a range of blocks holes; whole subtrees go without being read, except to count them.
    pub fn clear(&mut self, repo: &Repository, range: Range<u64>) -> Result<(), RepoError> {
        let end = range.end.min(node_span_blocks(self.depth.root_level()));
        if range.start >= end {
            return Ok(());
        }
        let mut change = Change { repo, allocated: &mut self.allocated, leaves: &mut self.leaves };
        change.clear(&mut self.root, self.depth.root_level(), 0, &(range.start..end))?;
        if self.leaves > LEAVES_MAX { self.spill(repo) } else { Ok(()) }
    }

    /// Gives the tree the height for a number of blocks; what lies beyond becomes a hole.
    pub fn resize(&mut self, repo: &Repository, blocks: u64) -> Result<(), RepoError> {
        self.clear(repo, blocks..u64::MAX)?;
        let wanted = MapDepth::for_blocks(blocks);
        while self.depth < wanted {
            let below = std::mem::replace(&mut self.root, Child::Known(BlockId::HOLE));
            self.root = match below {
                Child::Known(BlockId::HOLE) => Child::Known(BlockId::HOLE),
                below => {
                    let mut children = empty_children();
                    children[0] = below;
                    Child::Inner(children)
                }
            };
            self.depth = MapDepth::for_blocks(node_span_blocks(self.depth.root_level()).saturating_add(1));
        }
        while self.depth > wanted {
            let level = self.depth.root_level();
            if !matches!(self.root, Child::Known(BlockId::HOLE)) {
                expand(repo, &mut self.root, level)?;
                if let Child::Inner(children) = &mut self.root {
                    self.root = std::mem::replace(&mut children[0], Child::Known(BlockId::HOLE));
                }
            }
            self.depth = MapDepth::for_blocks(node_span_blocks(level - 1));
        }
        Ok(())
    }

    /// The first position at or after `index` that is not a hole (`Data`) or is one (`Hole`); `None` when there is none in
    /// the tree.
    pub fn next(&self, repo: &Repository, index: u64, want: Want) -> Result<Option<u64>, RepoError> {
        next_in(repo, &self.root, self.depth.root_level(), 0, index, want)
    }

    /// Stores every touched node and returns the root's id. The tree goes on being usable.
    pub fn store(&mut self, repo: &Repository) -> Result<BlockId, RepoError> {
        let mut packs = std::mem::take(&mut self.packs);
        let stored = store_child(repo, &mut self.root, self.depth.root_level(), &mut packs, u64::MAX);
        self.packs = packs;
        stored?;
        self.leaves = 0;
        match &self.root {
            Child::Known(id) => Ok(*id),
            _ => unreachable!("everything was stored"),
        }
    }

    /// The packs that nodes stored so far went into.
    pub fn packs(&self) -> &BTreeSet<PackNo> {
        &self.packs
    }

    /// Forgets packs that are durable now.
    pub fn forget_packs(&mut self, durable: &BTreeSet<PackNo>) {
        self.packs.retain(|pack| !durable.contains(pack));
    }

    /// Stores the leaves that were not used for longest.
    fn spill(&mut self, repo: &Repository) -> Result<(), RepoError> {
        let mut ticks = Vec::with_capacity(self.leaves);
        collect_ticks(&self.root, &mut ticks);
        ticks.sort_unstable();
        let Some(&before) = ticks.get(ticks.len() / 2) else { return Ok(()) };
        let mut packs = std::mem::take(&mut self.packs);
        let stored = store_child(repo, &mut self.root, self.depth.root_level(), &mut packs, before);
        self.packs = packs;
        ticks.clear();
        collect_ticks(&self.root, &mut ticks);
        self.leaves = ticks.len();
        stored
    }
}

/// What to look for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// A block that is not a hole.
    Data,
    /// A hole.
    Hole,
}

#[derive(PartialEq, Eq)]
enum Expanded {
    Leaf,
    Other,
}

/// Position within its node, at `level`, of the child that covers block `index`.
fn slot(index: u64, level: u8) -> usize {
    let span = if level == 0 { 1 } else { node_span_blocks(level - 1) };
    (index / span % FANOUT) as usize
}

fn empty_children() -> Box<[Child]> {
    std::iter::repeat_with(|| Child::Known(BlockId::HOLE)).take(FAN).collect()
}

/// Follows stored nodes down to a block.
pub(super) fn lookup(repo: &Repository, root: BlockId, level: u8, index: u64) -> Result<BlockId, RepoError> {
    let mut id = root;
    for level in (0..=level).rev() {
        if id.is_hole() {
            break;
        }
        id = repo.read_node(&id)?.get(slot(index, level));
    }
    Ok(id)
}

/// Brings a stored node into memory.
fn expand(repo: &Repository, child: &mut Child, level: u8) -> Result<Expanded, RepoError> {
    let Child::Known(id) = child else { return Ok(Expanded::Other) };
    let node = if id.is_hole() { None } else { Some(repo.read_node(id)?) };
    let get = |i| node.as_ref().map_or(BlockId::HOLE, |node| node.get(i));
    if level > 0 {
        *child = Child::Inner((0..FAN).map(|i| Child::Known(get(i))).collect());
        return Ok(Expanded::Other);
    }
    *child = Child::Leaf(Box::new(Leaf { ids: (0..FAN).map(get).collect(), used: 0 }));
    Ok(Expanded::Leaf)
}

struct Change<'a> {
    repo: &'a Repository,
    allocated: &'a mut u64,
    leaves: &'a mut usize,
}

impl Change<'_> {
    fn clear(&mut self, child: &mut Child, level: u8, first: u64, range: &Range<u64>) -> Result<(), RepoError> {
        let span = node_span_blocks(level);
        let end = first.saturating_add(span);
        if end <= range.start || first >= range.end || matches!(child, Child::Known(BlockId::HOLE)) {
            return Ok(());
        }
        if range.start <= first && end <= range.end {
            self.drop_subtree(child, level)?;
            *child = Child::Known(BlockId::HOLE);
            return Ok(());
        }
        *self.leaves += usize::from(expand(self.repo, child, level)? == Expanded::Leaf);
        match child {
            Child::Leaf(leaf) => {
                let from = range.start.saturating_sub(first) as usize;
                let to = (range.end.min(end) - first) as usize;
                for id in &mut leaf.ids[from..to] {
                    *self.allocated -= u64::from(!std::mem::replace(id, BlockId::HOLE).is_hole());
                }
                Ok(())
            }
            Child::Inner(children) => {
                let step = node_span_blocks(level - 1);
                children
                    .iter_mut()
                    .zip(0u64..)
                    .try_for_each(|(child, i)| self.clear(child, level - 1, first.saturating_add(i * step), range))
            }
            Child::Known(_) => unreachable!("it was expanded just now"),
        }
    }

    /// Counts what goes.
    fn drop_subtree(&mut self, child: &Child, level: u8) -> Result<(), RepoError> {
        match child {
            Child::Known(id) if id.is_hole() => {}
            Child::Known(id) => {
                let node = self.repo.read_node(id)?;
                if level == 0 {
                    *self.allocated -= node.ids().iter().filter(|id| !id.is_hole()).count() as u64;
                } else {
                    node.ids().iter().try_for_each(|id| self.drop_subtree(&Child::Known(*id), level - 1))?;
                }
            }
            Child::Leaf(leaf) => {
                *self.leaves -= 1;
                *self.allocated -= leaf.ids.iter().filter(|id| !id.is_hole()).count() as u64;
            }
            Child::Inner(children) => {
                children.iter().try_for_each(|child| self.drop_subtree(child, level - 1))?;
            }
        }
        Ok(())
    }
}

fn collect_ticks(child: &Child, ticks: &mut Vec<u64>) {
    match child {
        Child::Known(_) => {}
        Child::Leaf(leaf) => ticks.push(leaf.used),
        Child::Inner(children) => children.iter().for_each(|child| collect_ticks(child, ticks)),
    }
}

/// Stores touched nodes whose leaves were all used before `before`; such a subtree becomes an id.
fn store_child(
    repo: &Repository,
    child: &mut Child,
    level: u8,
    packs: &mut BTreeSet<PackNo>,
    before: u64,
) -> Result<(), RepoError> {
    let ids: Vec<BlockId> = match child {
        Child::Known(_) => return Ok(()),
        Child::Leaf(leaf) if leaf.used >= before => return Ok(()),
        Child::Leaf(leaf) => leaf.ids.to_vec(),
        Child::Inner(children) => {
            for child in children.iter_mut() {
                store_child(repo, child, level - 1, packs, before)?;
            }
            let known = children.iter().map(|child| if let Child::Known(id) = child { Some(*id) } else { None });
            match known.collect::<Option<Vec<_>>>() {
                Some(ids) => ids,
                None => return Ok(()),
            }
        }
    };
    let placed = repo.store_node(&MapNode::from_ids(level, ids))?;
    packs.extend(placed.pack);
    *child = Child::Known(placed.id);
    Ok(())
}

/// Searches a subtree for the first position at or after `index`.
fn next_in(
    repo: &Repository,
    child: &Child,
    level: u8,
    first: u64,
    index: u64,
    want: Want,
) -> Result<Option<u64>, RepoError> {
    let span = node_span_blocks(level);
    if first.saturating_add(span) <= index {
        return Ok(None);
    }
    let hit = |id: &BlockId| id.is_hole() == (want == Want::Hole);
    match child {
        Child::Known(id) => next_stored(repo, *id, level, first, index, want),
        Child::Leaf(leaf) => {
            let from = index.saturating_sub(first);
            Ok(leaf.ids[from as usize..].iter().position(hit).map(|at| first + from + at as u64))
        }
        Child::Inner(children) => {
            let step = node_span_blocks(level - 1);
            let from = index.saturating_sub(first) / step;
            for (child, i) in children[from as usize..].iter().zip(from..) {
                let found = next_in(repo, child, level - 1, first + i * step, index, want)?;
                if found.is_some() {
                    return Ok(found);
                }
            }
            Ok(None)
        }
    }
}

/// The same in a subtree that is stored.
pub(super) fn next_stored(
    repo: &Repository,
    id: BlockId,
    level: u8,
    first: u64,
    index: u64,
    want: Want,
) -> Result<Option<u64>, RepoError> {
    let span = node_span_blocks(level);
    if first.saturating_add(span) <= index {
        return Ok(None);
    }
    if id.is_hole() {
        return Ok((want == Want::Hole).then_some(index.max(first)));
    }
    let node = repo.read_node(&id)?;
    let step = if level == 0 { 1 } else { node_span_blocks(level - 1) };
    let from = index.saturating_sub(first) / step;
    for i in from..FANOUT {
        let child = node.get(i as usize);
        let found = if level == 0 {
            (child.is_hole() == (want == Want::Hole)).then_some(first + i)
        } else {
            next_stored(repo, child, level - 1, first + i * step, index, want)?
        };
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}
