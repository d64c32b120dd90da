//! Whole blocks that are named by the thread that has just read them.

use crate::image::DraftImage;
use crate::repo::RepoError;
use crate::repo::buffers::PooledBuffer;
use crate::repo::pipeline::Naming;
use crate::repo::store::{Lookup, Placed};
use crate::words::ids::BlockId;
use std::sync::Arc;

/// What is to be done about a block.
enum Step {
    /// It needs no room.
    Place(Placed),
    /// It is handed to the pipeline, with its name.
    Fly(PooledBuffer, BlockId),
}

impl DraftImage {
    /// As [`DraftImage::write_at`], for many threads that each write what they have just read: whole blocks are named by the caller,
    /// while the processor's cache still holds them, and only those that are new are copied and handed to the pipeline.
    ///
    /// # Errors
    /// When the draft has failed, now or before.
    pub fn write_named(self: &Arc<Self>, offset: u64, data: &[u8]) -> Result<(), RepoError> {
        let block = self.size.bytes();
        let whole = if offset.is_multiple_of(block as u64) { data.len() / block * block } else { 0 };
        let (blocks, rest) = data.split_at(whole);
        if !blocks.is_empty() {
            self.sticky(self.try_write_named(offset, blocks))?;
        }
        if rest.is_empty() { Ok(()) } else { self.write_at(offset + whole as u64, rest) }
    }

    fn try_write_named(self: &Arc<Self>, offset: u64, data: &[u8]) -> Result<(), RepoError> {
        let first = self.size.index_of(offset);
        let blocks: Vec<_> = (first..)
            .zip(data.chunks_exact(self.size.bytes()))
            .map(|(index, plain)| (plain, self.base_id(index)))
            .collect();
        let found = self.repo.name_blocks(&blocks)?;
        // Copied before the lock is taken.
        let step = |(found, (plain, _)): (Lookup, &(&[u8], BlockId))| match found {
            Lookup::Placed(placed) => Step::Place(placed),
            Lookup::New(id) => Step::Fly(self.copied(plain), id),
        };
        let steps: Vec<_> = found.into_iter().zip(&blocks).map(step).collect();
        let mut jobs = Vec::new();
        let mut state = self.lock_for_change()?;
        let end = offset + data.len() as u64;
        if end > state.size_bytes {
            self.set_size(&mut state, end)?;
        }
        state.changes += 1;
        state.stats.written_bytes += data.len() as u64;
        for (index, step) in (first..).zip(steps) {
            state.partial.remove(&index);
            match step {
                Step::Fly(block, id) => jobs.push(self.fly(&mut state, index, block, Naming::Missed(id))),
                Step::Place(placed) => {
                    // Nobody settles now, so nobody waits for what this makes void.
                    state.in_flight.remove(&index);
                    state.place(&self.repo, index, &placed, self.size)?;
                }
            }
        }
        drop(state);
        self.submit(jobs)
    }

    fn copied(&self, plain: &[u8]) -> PooledBuffer {
        let mut buffer = self.repo.buffers().take();
        buffer.copy_from_slice(plain);
        buffer
    }
}
