//! Whole blocks that are named by the thread that has just read them.

use crate::image::DraftImage;
use crate::repo::RepoError;
use crate::repo::buffers::PooledBuffer;
use crate::repo::pipeline::Known;
use crate::repo::store::Named;
use std::sync::Arc;

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
        let named = self.repo.name_blocks(&blocks)?;
        let copy = |(named, plain): (&Named, &[u8])| matches!(named, Named::New(_)).then(|| self.copied(plain));
        let copies: Vec<_> = named.iter().zip(blocks.iter().map(|(plain, _)| *plain)).map(copy).collect();
        let mut jobs = Vec::new();
        let mut state = self.lock_for_change()?;
        let end = offset + data.len() as u64;
        if end > state.size_bytes {
            self.set_size(&mut state, end)?;
        }
        state.changes += 1;
        state.stats.written_bytes += data.len() as u64;
        for (index, (named, copy)) in (first..).zip(named.into_iter().zip(copies)) {
            state.partial.remove(&index);
            match (named, copy) {
                (Named::New(id), Some(block)) => jobs.push(self.fly(&mut state, index, block, Known::Name(id))),
                (Named::New(_), None) => return Err(RepoError::Stopped),
                (Named::Known(placed), _) => {
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
