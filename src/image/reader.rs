//! Reading an image of the repository: map, then hole or block; sequential readers get read-ahead.

use crate::image::tree::{Want, lookup, next_stored};
use crate::repo::{RepoError, Repository};
use crate::words::geometry::{FANOUT, node_span_blocks};
use crate::words::ids::BlockId;
use crate::words::record::ImageRef;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What is asked for ahead at once: enough that a request is worth it at a distant target.
const AHEAD_BATCH_BYTES: u64 = 4 << 20;

/// How much more is asked for ahead than was read in sequence.
const WINDOW_TIMES: u64 = 8;

/// One readable image. Many threads may read at once.
pub struct ImageReader {
    repo: Arc<Repository>,
    image: ImageRef,
    /// Says in messages which version this is.
    label: String,
    /// Where the last read ended: the next one that begins there is sequential.
    expected: AtomicU64,
    /// Bytes of the reads so far that followed each other.
    streak: AtomicU64,
    /// First block not yet asked for ahead.
    ahead: AtomicU64,
}

impl ImageReader {
    /// `label` names the version in messages about damage.
    pub fn new(repo: Arc<Repository>, image: ImageRef, label: impl Into<String>) -> Self {
        let [expected, streak, ahead] = [u64::MAX, 0, 0].map(AtomicU64::new);
        Self { repo, image, label: label.into(), expected, streak, ahead }
    }

    /// The image.
    pub fn image(&self) -> &ImageRef {
        &self.image
    }

    /// How it is called in messages.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Bytes.
    pub fn size_bytes(&self) -> u64 {
        self.image.size_bytes
    }

    /// The id of a block; beyond the end a hole.
    ///
    /// # Errors
    /// When a map node cannot be read.
    pub fn block_id(&self, index: u64) -> Result<BlockId, RepoError> {
        if index >= self.image.block_count() {
            return Ok(BlockId::HOLE);
        }
        lookup(&self.repo, self.image.root, self.image.depth().root_level(), index)
    }

    /// The id of the leaf that covers a block, for whole-leaf copies.
    ///
    /// # Errors
    /// When a map node cannot be read.
    pub fn leaf_id(&self, index: u64) -> Result<BlockId, RepoError> {
        let mut id = self.image.root;
        for level in (1..=self.image.depth().root_level()).rev() {
            if id.is_hole() {
                break;
            }
            id = self.repo.read_node(&id)?.get((index / node_span_blocks(level - 1) % FANOUT) as usize);
        }
        Ok(id)
    }

    /// Fills `out` from `offset`; the range must lie within the image.
    ///
    /// # Errors
    /// When a block is damaged (also logged with version and offset) or the target cannot be reached.
    pub fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<(), RepoError> {
        self.plan_ahead(offset, out.len());
        let (mut ids, mut wanted) = (Vec::new(), Vec::new());
        for piece in self.image.block_size.pieces(offset, out.len()) {
            let id = self.block_id(piece.index).map_err(|error| self.unreadable(piece.index, error))?;
            match id.is_hole() {
                true => out[piece.source].fill(0),
                false => {
                    ids.push(id);
                    wanted.push(piece);
                }
            }
        }
        let mut outcome = Ok(());
        self.repo.read_blocks(&ids, &mut |at, block| {
            let Some(piece) = wanted.get(at).filter(|_| outcome.is_ok()) else { return };
            match block {
                Ok(block) => out[piece.source.clone()].copy_from_slice(&block[piece.within.clone()]),
                Err(error) => outcome = Err(self.unreadable(piece.index, error)),
            }
        });
        outcome
    }

    /// Says where a block that cannot be read belongs.
    fn unreadable(&self, index: u64, error: RepoError) -> RepoError {
        let at = index * self.image.block_size.bytes_u64();
        tracing::error!("{} cannot be read at offset {at}: {error}", self.label);
        error
    }

    /// First byte at or after `offset` that is in an allocated block; `None` when only holes follow.
    ///
    /// # Errors
    /// When a map node cannot be read.
    pub fn next_data(&self, offset: u64) -> Result<Option<u64>, RepoError> {
        Ok(self.next(offset, Want::Data)?.filter(|at| *at < self.image.size_bytes))
    }

    /// First byte at or after `offset` that is in a hole; the end of the image counts as one.
    ///
    /// # Errors
    /// When a map node cannot be read.
    pub fn next_hole(&self, offset: u64) -> Result<u64, RepoError> {
        Ok(self.next(offset, Want::Hole)?.map_or(self.image.size_bytes, |at| at.min(self.image.size_bytes)))
    }

    fn next(&self, offset: u64, want: Want) -> Result<Option<u64>, RepoError> {
        let size = self.image.block_size;
        let (root, level) = (self.image.root, self.image.depth().root_level());
        let found = next_stored(&self.repo, root, level, 0, size.index_of(offset), want)?;
        Ok(found.map(|index| (index * size.bytes_u64()).max(offset)))
    }

    /// Asks for the blocks behind a sequential reader, a batch at a time. The window grows with what was read in sequence, so that a few
    /// reads near each other fetch little that nobody wants, and is bounded by the cache's share. Only positions not asked for
    /// before are visited, so the cost is one visit a block.
    fn plan_ahead(&self, offset: u64, len: usize) {
        let end = offset + len as u64;
        // Several requests of one reader may arrive in any order; a window of a few requests still is sequential.
        let expected = self.expected.swap(end, Ordering::Relaxed);
        if expected == u64::MAX || offset.abs_diff(expected) > 4 << 20 {
            self.ahead.store(0, Ordering::Relaxed);
            self.streak.store(0, Ordering::Relaxed);
            return;
        }
        let size = self.image.block_size;
        let read_bytes = self.streak.fetch_add(len as u64, Ordering::Relaxed) + len as u64;
        let window = (self.repo.memory().block_cache as u64 / 4 / size.bytes_u64()).clamp(1, 256);
        let window = window.min(read_bytes * WINDOW_TIMES / size.bytes_u64());
        if window == 0 {
            return;
        }
        let batch = (AHEAD_BATCH_BYTES / size.bytes_u64()).clamp(1, (window / 2).max(1));
        let first = size.index_of(end.saturating_sub(1)) + 1;
        let last = (first + window).min(self.image.block_count());
        let mut from = self.ahead.load(Ordering::Relaxed).max(first);
        while from < last {
            let to = (from + batch).min(self.image.block_count());
            if to > last {
                return;
            }
            let ids = (from..to).map(|index| self.block_id(index)).filter(|id| !matches!(id, Ok(id) if id.is_hole()));
            let Ok(ids) = ids.collect::<Result<Vec<_>, _>>() else { return };
            if !self.repo.read_ahead(ids) {
                return;
            }
            from = to;
            self.ahead.store(to, Ordering::Relaxed);
        }
    }
}
