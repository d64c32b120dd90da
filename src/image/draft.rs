//! An image being written: random, overlapping, sub-block writes, truncation, holes, read-back.
//!
//! Every block is in exactly one of three places, looked up in this order: *partial* (being written, in memory), *in flight*
//! (handed to the pipeline), or in the map. A block that was covered by writes goes to the pipeline at once; what its writer has named and
//! found to need no room (`named`), into the map. A write to a
//! block in flight starts again from a copy of it, and the sequence number makes the outcome of the older state void.
//!
//! While an image settles, writers wait: otherwise a block rewritten meanwhile would be neither old nor new in the result.
//!
//! Locks: `state` is never held while a job is handed to the pipeline, because its workers take `state` to report.

mod named;

use crate::image::ranges::Ranges;
use crate::image::reader::ImageReader;
use crate::image::tree::{MapTree, Want};
use crate::repo::buffers::PooledBuffer;
use crate::repo::packer::PackNo;
use crate::repo::pipeline::{BlockJob, BlockSink, Naming};
use crate::repo::store::{Placed, Placement};
use crate::repo::{RepoError, Repository};
use crate::words::geometry::{BlockSize, FANOUT};
use crate::words::ids::BlockId;
use crate::words::record::{ImageRef, Stats};
use parking_lot::{Condvar, Mutex, MutexGuard};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

/// The largest image: far above any disk, and far below where arithmetic with offsets could overflow.
pub const IMAGE_MAX_BYTES: u64 = 1 << 56;

/// See the module.
pub struct DraftImage {
    repo: Arc<Repository>,
    start: ImageRef,
    base: Option<ImageReader>,
    size: BlockSize,
    partial_max: usize,
    state: Mutex<State>,
    settled: Condvar,
}

struct State {
    size_bytes: u64,
    tree: MapTree,
    partial: BTreeMap<u64, Partial>,
    in_flight: BTreeMap<u64, InFlight>,
    packs: BTreeSet<PackNo>,
    sequence: u64,
    /// Raised by every change; what is durable is what it was at.
    changes: u64,
    error: Option<RepoError>,
    /// How many settles are waiting for the blocks written before them.
    draining: usize,
    stats: Stats,
}

struct Partial {
    buffer: PooledBuffer,
    written: Ranges,
    /// Whether the bytes not written hold what the block held before.
    whole: bool,
    touched: u64,
}

struct InFlight {
    block: Arc<PooledBuffer>,
    sequence: u64,
}

/// An image whose blocks and map are durable and indexed.
#[derive(Debug, Clone, Copy)]
pub struct Settled {
    /// The image.
    pub image: ImageRef,
    /// Counts of changes it contains; see [`DraftImage::changes`].
    pub changes: u64,
    /// What it has cost so far.
    pub stats: Stats,
}

impl DraftImage {
    /// Starts from `start`. `base` is the image it will probably resemble: equal blocks at equal places then cost no look
    /// at the index.
    pub fn new(repo: Arc<Repository>, start: ImageRef, base: Option<ImageRef>) -> Arc<Self> {
        let size = start.block_size;
        let partial_max = (repo.memory().pipeline / 4 / size.bytes()).max(2);
        let state = State {
            size_bytes: start.size_bytes,
            tree: MapTree::new(start.root, start.depth(), start.allocated_blocks),
            partial: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            packs: BTreeSet::new(),
            sequence: 0,
            changes: 0,
            error: None,
            draining: 0,
            stats: Stats::default(),
        };
        let base = base.map(|image| ImageReader::new(Arc::clone(&repo), image, "the base"));
        Arc::new(Self { repo, start, base, size, partial_max, state: Mutex::new(state), settled: Condvar::new() })
    }

    /// The images it takes blocks from by their ids alone: the one it began as, and the one it is compared with.
    pub fn inherits(&self) -> impl Iterator<Item = ImageRef> {
        let base = self.base.as_ref().map(|base| *base.image());
        std::iter::once(self.start).chain(base.filter(|base| *base != self.start))
    }

    /// Bytes.
    pub fn size_bytes(&self) -> u64 {
        self.state.lock().size_bytes
    }

    /// A number that grows with every change; equal numbers mean equal contents.
    pub fn changes(&self) -> u64 {
        self.state.lock().changes
    }

    /// Blocks held, as far as known now: what is being written counts.
    pub fn allocated_blocks(&self) -> u64 {
        let state = self.state.lock();
        state.tree.allocated_blocks() + (state.partial.len() + state.in_flight.len()) as u64
    }

    /// The error that sticks, if any.
    ///
    /// # Errors
    /// That error.
    pub fn health(&self) -> Result<(), RepoError> {
        let state = self.state.lock();
        state.health()?;
        self.repo.check_packs(state.packs.iter().copied())
    }

    /// Makes the draft fail from now on.
    pub fn poison(&self, error: RepoError) {
        self.state.lock().error.get_or_insert(error);
        self.settled.notify_all();
    }

    /// Writes bytes; the image grows to hold them.
    ///
    /// # Errors
    /// When the draft has failed, now or before.
    pub fn write_at(self: &Arc<Self>, offset: u64, data: &[u8]) -> Result<(), RepoError> {
        self.sticky(self.try_write_at(offset, data))
    }

    fn try_write_at(self: &Arc<Self>, offset: u64, data: &[u8]) -> Result<(), RepoError> {
        let mut jobs = Vec::new();
        let mut state = self.lock_for_change()?;
        let end = offset + data.len() as u64;
        if end > state.size_bytes {
            self.set_size(&mut state, end)?;
        }
        state.changes += 1;
        state.stats.written_bytes += data.len() as u64;
        for piece in self.size.pieces(offset, data.len()) {
            self.write_piece(&mut state, piece.index, piece.within, &data[piece.source], &mut jobs)?;
        }
        self.evict(&mut state, &mut jobs)?;
        drop(state);
        self.submit(jobs)
    }

    /// Makes a range zero, within the present size.
    ///
    /// # Errors
    /// When the draft has failed, now or before.
    pub fn punch(self: &Arc<Self>, offset: u64, len: u64) -> Result<(), RepoError> {
        let mut state = self.lock_for_change()?;
        let end = offset.saturating_add(len).min(state.size_bytes);
        if offset >= end {
            return Ok(());
        }
        state.changes += 1;
        let zeroed = self.zero(&mut state, offset..end);
        drop(state);
        self.sticky(zeroed)
    }

    /// Sets the size; what is cut off reads as zero when the image grows again.
    ///
    /// # Errors
    /// When the draft has failed, now or before.
    pub fn truncate(self: &Arc<Self>, size_bytes: u64) -> Result<(), RepoError> {
        let mut state = self.lock_for_change()?;
        if size_bytes == state.size_bytes {
            return Ok(());
        }
        state.changes += 1;
        let set = self.set_size(&mut state, size_bytes);
        drop(state);
        self.sticky(set)
    }

    /// Reads; bytes past the end are not touched. Returns how many were read.
    ///
    /// # Errors
    /// When a stored block cannot be read.
    pub fn read_at(self: &Arc<Self>, offset: u64, out: &mut [u8]) -> Result<usize, RepoError> {
        let mut state = self.state.lock();
        let len = usize::try_from(state.size_bytes.saturating_sub(offset)).unwrap_or(usize::MAX).min(out.len());
        for piece in self.size.pieces(offset, len) {
            let target = &mut out[piece.source];
            if state.partial.contains_key(&piece.index) {
                self.fill(&mut state, piece.index)?;
                target.copy_from_slice(&state.partial[&piece.index].buffer[piece.within]);
            } else if let Some(flying) = state.in_flight.get(&piece.index) {
                target.copy_from_slice(&flying.block[piece.within]);
            } else {
                let id = state.tree.get(&self.repo, piece.index)?;
                if id.is_hole() {
                    target.fill(0);
                } else {
                    target.copy_from_slice(&self.repo.read_block(&id)?[piece.within]);
                }
            }
        }
        Ok(len)
    }

    /// The first byte at or after `offset` in an allocated block, or being written; `None` when only holes follow.
    ///
    /// # Errors
    /// When a map node cannot be read.
    pub fn next_data(&self, offset: u64) -> Result<Option<u64>, RepoError> {
        let state = self.state.lock();
        let index = self.size.index_of(offset);
        let stored = state.tree.next(&self.repo, index, Want::Data)?;
        let partial = state.partial.range(index..).next().map(|(at, _)| *at);
        let flying = state.in_flight.range(index..).next().map(|(at, _)| *at);
        let first = [stored, partial, flying].into_iter().flatten().min();
        Ok(first.map(|at| (at * self.size.bytes_u64()).max(offset)).filter(|at| *at < state.size_bytes))
    }

    /// The first byte at or after `offset` in a hole; the end counts as one.
    ///
    /// # Errors
    /// When a map node cannot be read.
    pub fn next_hole(&self, offset: u64) -> Result<u64, RepoError> {
        let state = self.state.lock();
        let mut index = self.size.index_of(offset);
        while index < self.size.count(state.size_bytes) {
            if state.partial.contains_key(&index) || state.in_flight.contains_key(&index) {
                index += 1;
                continue;
            }
            match state.tree.next(&self.repo, index, Want::Hole)? {
                Some(at) if at == index => return Ok((index * self.size.bytes_u64()).max(offset)),
                Some(at) => index = at,
                None => break,
            }
        }
        Ok(state.size_bytes)
    }

    /// Takes a range over from a stored image without moving its data, where both ends lie on blocks; the image grows to
    /// hold it. Whole leaves are taken by their id. Returns how many bytes were taken, 0 when nothing lies on blocks.
    ///
    /// # Errors
    /// When the draft has failed, or a map node cannot be read.
    pub fn graft(self: &Arc<Self>, source: &ImageReader, from: u64, to: u64, len: u64) -> Result<u64, RepoError> {
        self.sticky(self.try_graft(source, from, to, len))
    }

    fn try_graft(self: &Arc<Self>, source: &ImageReader, from: u64, to: u64, len: u64) -> Result<u64, RepoError> {
        let block = self.size.bytes_u64();
        if source.image().block_size != self.size || !from.is_multiple_of(block) || !to.is_multiple_of(block) {
            return Ok(0);
        }
        // The last, partial block of the source may be taken too: bytes past its end are zero, as they must be here, if
        // this image ends there as well or has nothing behind it.
        let mut state = self.lock_for_change()?;
        let reaches_end = from + len >= source.size_bytes() && to + len >= state.size_bytes;
        let blocks = if reaches_end { len.div_ceil(block) } else { len / block };
        if blocks == 0 {
            return Ok(0);
        }
        let taken = (blocks * block).min(len);
        if to + taken > state.size_bytes {
            self.set_size(&mut state, to + taken)?;
        }
        state.changes += 1;
        state.stats.written_bytes += taken;
        state.stats.deduplicated_bytes += taken;
        let (first, last) = (to / block, to / block + blocks);
        self.forget(&mut state, first..last);
        let mut index = first;
        while index < last {
            let at = from / block + (index - first);
            if index % FANOUT == 0 && at.is_multiple_of(FANOUT) && index + FANOUT <= last {
                let leaf = source.leaf_id(at)?;
                state.tree.set_leaf(&self.repo, index, leaf)?;
                index += FANOUT;
            } else {
                let id = source.block_id(at)?;
                state.tree.set(&self.repo, index, id)?;
                index += 1;
            }
        }
        Ok(taken)
    }

    /// Makes everything written so far durable and indexed, and returns it as an image. Writers may go on meanwhile; what
    /// they write is not in it.
    ///
    /// # Errors
    /// When anything could not be stored. The error sticks: the image in memory refers to what was lost.
    pub fn settle(self: &Arc<Self>) -> Result<Settled, RepoError> {
        self.sticky(self.try_settle())
    }

    /// A change that failed half way leaves neither the old nor the new, and perhaps blocks that never reach the pipeline: from
    /// then on the draft fails, and nobody waits for those.
    fn sticky<T>(&self, outcome: Result<T, RepoError>) -> Result<T, RepoError> {
        outcome.inspect_err(|error| self.poison(error.clone()))
    }

    fn try_settle(self: &Arc<Self>) -> Result<Settled, RepoError> {
        self.state.lock().draining += 1;
        let drained = self.drain();
        self.state.lock().draining -= 1;
        self.settled.notify_all();
        let (settled, packs) = drained?;
        self.repo.flush_packs(packs.iter().copied())?;
        let mut state = self.state.lock();
        state.packs.retain(|pack| !packs.contains(pack));
        state.tree.forget_packs(&packs);
        Ok(settled)
    }

    /// Brings everything written into the map and the map into packs; returns what must become durable.
    fn drain(self: &Arc<Self>) -> Result<(Settled, BTreeSet<PackNo>), RepoError> {
        loop {
            let mut jobs = Vec::new();
            let mut state = self.state.lock();
            state.health()?;
            let some: Vec<u64> = state.partial.keys().copied().take(self.partial_max).collect();
            if some.is_empty() {
                break;
            }
            for index in some {
                jobs.push(self.launch(&mut state, index)?);
            }
            drop(state);
            self.submit(jobs)?;
        }
        let mut state = self.state.lock();
        while state.error.is_none() && !state.in_flight.is_empty() {
            self.settled.wait(&mut state);
        }
        state.health()?;
        let root = state.tree.store(&self.repo)?;
        let image = ImageRef {
            block_size: self.size,
            size_bytes: state.size_bytes,
            root,
            allocated_blocks: state.tree.allocated_blocks(),
        };
        let settled = Settled { image, changes: state.changes, stats: state.stats };
        let mut packs = state.packs.clone();
        packs.extend(state.tree.packs());
        Ok((settled, packs))
    }

    /// The state, for a change: not while an image settles, and not after an error.
    fn lock_for_change(&self) -> Result<MutexGuard<'_, State>, RepoError> {
        let mut state = self.state.lock();
        while state.draining > 0 && state.error.is_none() {
            self.settled.wait(&mut state);
        }
        state.health()?;
        Ok(state)
    }

    fn submit(&self, jobs: Vec<BlockJob>) -> Result<(), RepoError> {
        jobs.into_iter().try_for_each(|job| self.repo.submit(job))
    }

    fn write_piece(
        self: &Arc<Self>,
        state: &mut State,
        index: u64,
        within: Range<usize>,
        data: &[u8],
        jobs: &mut Vec<BlockJob>,
    ) -> Result<(), RepoError> {
        self.open_partial(state, index, within.len() == self.size.bytes())?;
        let touched = state.changes;
        let Some(partial) = state.partial.get_mut(&index) else { return Err(RepoError::Stopped) };
        partial.buffer[within.clone()].copy_from_slice(data);
        partial.written.add(within);
        partial.touched = touched;
        if partial.written.covers(self.size.bytes()) {
            jobs.push(self.launch(state, index)?);
        }
        Ok(())
    }

    /// Makes sure that a block is partial: from flight by copy, from a hole as zeros, from the map lazily.
    fn open_partial(&self, state: &mut State, index: u64, overwritten: bool) -> Result<(), RepoError> {
        if state.partial.contains_key(&index) {
            return Ok(());
        }
        let pool = self.repo.buffers();
        let (buffer, whole) = if overwritten {
            (pool.take(), true)
        } else if let Some(flying) = state.in_flight.get(&index) {
            let mut buffer = pool.take();
            buffer.copy_from_slice(&flying.block);
            (buffer, true)
        } else if state.tree.get(&self.repo, index)?.is_hole() {
            (pool.take_zeroed(), true)
        } else {
            (pool.take(), false)
        };
        let partial = Partial { buffer, written: Ranges::default(), whole, touched: state.changes };
        state.partial.insert(index, partial);
        Ok(())
    }

    /// Completes a partial block with what it held before.
    fn fill(&self, state: &mut State, index: u64) -> Result<(), RepoError> {
        let State { partial, tree, .. } = state;
        let Some(partial) = partial.get_mut(&index).filter(|partial| !partial.whole) else { return Ok(()) };
        let id = tree.get(&self.repo, index)?;
        let before = if id.is_hole() { None } else { Some(self.repo.read_block(&id)?) };
        for gap in partial.written.gaps(self.size.bytes()) {
            match &before {
                Some(block) => partial.buffer[gap.clone()].copy_from_slice(&block[gap]),
                None => partial.buffer[gap].fill(0),
            }
        }
        partial.whole = true;
        Ok(())
    }

    /// Turns a partial block into a job.
    fn launch(self: &Arc<Self>, state: &mut State, index: u64) -> Result<BlockJob, RepoError> {
        if !state.partial.get(&index).is_some_and(|partial| partial.written.covers(self.size.bytes())) {
            self.fill(state, index)?;
        }
        let Some(partial) = state.partial.remove(&index) else { return Err(RepoError::Stopped) };
        Ok(self.fly(state, index, partial.buffer, Naming::Compare(self.base_id(index))))
    }

    /// Puts a whole block in flight; the job is for [`DraftImage::submit`].
    fn fly(self: &Arc<Self>, state: &mut State, index: u64, block: PooledBuffer, naming: Naming) -> BlockJob {
        state.sequence += 1;
        let (block, sequence) = (Arc::new(block), state.sequence);
        state.in_flight.insert(index, InFlight { block: Arc::clone(&block), sequence });
        let sink: Arc<dyn BlockSink> = Arc::clone(self) as _;
        BlockJob { index, sequence, block, naming, sink }
    }

    /// What the base holds at a position, which is worth a comparison and no error.
    fn base_id(&self, index: u64) -> BlockId {
        self.base.as_ref().and_then(|base| base.block_id(index).ok()).unwrap_or(BlockId::HOLE)
    }

    /// Keeps the number of partial blocks bounded: those not touched for longest go first.
    fn evict(self: &Arc<Self>, state: &mut State, jobs: &mut Vec<BlockJob>) -> Result<(), RepoError> {
        while state.partial.len() > self.partial_max {
            let oldest = state.partial.iter().min_by_key(|(_, partial)| partial.touched).map(|(index, _)| *index);
            let Some(index) = oldest else { break };
            jobs.push(self.launch(state, index)?);
        }
        Ok(())
    }

    /// Drops what memory holds of whole blocks.
    fn forget(&self, state: &mut State, range: Range<u64>) {
        state.partial.retain(|index, _| !range.contains(index));
        state.in_flight.retain(|index, _| !range.contains(index));
        self.settled.notify_all();
    }

    /// Makes bytes zero: whole blocks become holes, the ends are written.
    fn zero(&self, state: &mut State, range: Range<u64>) -> Result<(), RepoError> {
        let block = self.size.bytes_u64();
        let (first, last) = (range.start.div_ceil(block), range.end / block);
        if first < last {
            self.forget(state, first..last);
            state.tree.clear(&self.repo, first..last)?;
        }
        let ends = if first <= last {
            [range.start..range.end.min(first * block), range.start.max(last * block)..range.end]
        } else {
            [range.clone(), 0..0]
        };
        for end in ends.into_iter().filter(|end| end.start < end.end) {
            let (index, start) = (end.start / block, (end.start % block) as usize);
            let within = start..start + (end.end - end.start) as usize;
            let empty = !state.partial.contains_key(&index)
                && !state.in_flight.contains_key(&index)
                && state.tree.get(&self.repo, index)?.is_hole();
            if !empty {
                self.open_partial(state, index, false)?;
                self.fill(state, index)?;
                if let Some(partial) = state.partial.get_mut(&index) {
                    partial.buffer[within.clone()].fill(0);
                    partial.written.add(within);
                }
            }
        }
        Ok(())
    }

    /// Changes the size and keeps the rule that bytes past the end, up to the end of the last block, are zero.
    fn set_size(&self, state: &mut State, size_bytes: u64) -> Result<(), RepoError> {
        let block = self.size.bytes_u64();
        if size_bytes < state.size_bytes {
            let end = state.size_bytes.div_ceil(block) * block;
            self.zero(state, size_bytes..end)?;
        }
        let blocks = self.size.count(size_bytes);
        if blocks != self.size.count(state.size_bytes) {
            state.tree.resize(&self.repo, blocks)?;
        }
        state.size_bytes = size_bytes;
        Ok(())
    }
}

impl State {
    fn health(&self) -> Result<(), RepoError> {
        self.error.clone().map_or(Ok(()), Err)
    }

    /// Puts a block that has its place into the map.
    fn place(&mut self, repo: &Repository, index: u64, placed: &Placed, size: BlockSize) -> Result<(), RepoError> {
        let bytes = size.bytes_u64();
        match placed.placement {
            Placement::Hole => self.stats.zero_bytes += bytes,
            Placement::Unchanged => self.stats.unchanged_bytes += bytes,
            Placement::Deduplicated => self.stats.deduplicated_bytes += bytes,
            Placement::Stored { sealed_bytes } => {
                self.stats.new_bytes += bytes;
                self.stats.stored_bytes += u64::from(sealed_bytes);
            }
        }
        self.packs.extend(placed.pack);
        self.tree.set(repo, index, placed.id)
    }
}

impl BlockSink for DraftImage {
    fn placed(&self, index: u64, sequence: u64, outcome: Result<Placed, RepoError>) {
        let mut state = self.state.lock();
        let current = state.in_flight.get(&index).is_some_and(|flying| flying.sequence == sequence);
        match outcome {
            // A write, a hole or a truncation came after: this state of the block is void.
            Ok(placed) if !current => state.packs.extend(placed.pack),
            Ok(placed) => match state.place(&self.repo, index, &placed, self.size) {
                Ok(()) => drop(state.in_flight.remove(&index)),
                Err(error) => drop(state.error.get_or_insert(error)),
            },
            Err(error) => drop(state.error.get_or_insert(error)),
        }
        drop(state);
        self.settled.notify_all();
    }
}
