//! Recycled memory. The first touch of fresh pages is slow (on virtual machines as slow as 0.4 GB/s), and a fixed
//! stock is what keeps the daemon within its memory: every large buffer of the write path comes from here.

use parking_lot::Mutex;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

/// Pages of every machine begin on a multiple of this.
const PAGE_BYTES: usize = 4096;

/// A stock of equal buffers. Taking never fails and never waits: above the stock a buffer is allocated and freed again.
#[derive(Debug)]
pub struct BufferPool {
    idle: Mutex<Vec<Box<[u8]>>>,
    buffer_len: usize,
    keep: usize,
}

impl BufferPool {
    /// Buffers of `buffer_len` bytes, of which up to `keep` are kept while idle.
    pub fn new(buffer_len: usize, keep: usize) -> Arc<Self> {
        Arc::new(Self { idle: Mutex::new(Vec::new()), buffer_len, keep })
    }

    /// Takes a buffer with arbitrary contents.
    pub fn take(self: &Arc<Self>) -> PooledBuffer {
        let bytes = self.idle.lock().pop().unwrap_or_else(|| vec![0; self.buffer_len].into_boxed_slice());
        PooledBuffer { bytes, pool: Arc::clone(self) }
    }

    /// Takes a buffer full of zeros.
    pub fn take_zeroed(self: &Arc<Self>) -> PooledBuffer {
        let recycled = self.idle.lock().pop();
        let bytes = match recycled {
            Some(mut bytes) => {
                bytes.fill(0);
                bytes
            }
            None => vec![0; self.buffer_len].into_boxed_slice(),
        };
        PooledBuffer { bytes, pool: Arc::clone(self) }
    }
}

/// A buffer that goes back to its pool when dropped.
#[derive(Debug)]
pub struct PooledBuffer {
    bytes: Box<[u8]>,
    pool: Arc<BufferPool>,
}

impl Deref for PooledBuffer {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl DerefMut for PooledBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

impl Drop for PooledBuffer {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        let mut idle = self.pool.idle.lock();
        if idle.len() < self.pool.keep {
            idle.push(bytes);
        }
    }
}

/// Where a pack grows: bytes that begin on a page, so that a target can write them without copying (O_DIRECT).
///
/// One that outgrows its capacity still holds everything, but may lose the alignment, which no one relies on.
#[derive(Debug)]
pub struct PackBuffer {
    bytes: Vec<u8>,
    /// Where the page begins.
    start: usize,
}

impl PackBuffer {
    /// An empty one with room for `capacity` bytes.
    pub fn new(capacity: usize) -> Self {
        let mut bytes: Vec<u8> = Vec::with_capacity(capacity + PAGE_BYTES);
        let start = bytes.as_ptr().align_offset(PAGE_BYTES).min(PAGE_BYTES);
        bytes.resize(start, 0);
        Self { bytes, start }
    }

    /// Forgets the contents and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.truncate(self.start);
    }

    /// Appends.
    pub fn append(&mut self, more: &[u8]) {
        self.bytes.extend_from_slice(more);
    }
}

impl Deref for PackBuffer {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_come_back_and_can_be_had_zeroed() {
        let pool = BufferPool::new(16, 1);
        let mut first = pool.take();
        first.fill(7);
        drop((first, pool.take()));
        assert_eq!(pool.idle.lock().len(), 1);
        assert_eq!(&*pool.take_zeroed(), &[0; 16]);
    }

    #[test]
    fn packs_begin_on_a_page_and_grow_past_their_capacity() {
        let mut buffer = PackBuffer::new(10_000);
        for _ in 0..2 {
            buffer.append(&[1; 6000]);
            buffer.append(&[2; 4000]);
            assert_eq!((buffer.len(), buffer[5999], buffer[6000]), (10_000, 1, 2));
            assert_eq!(buffer.as_ptr().align_offset(PAGE_BYTES), 0);
            buffer.clear();
            assert!(buffer.is_empty());
        }
        buffer.append(&[3; 50_000]);
        assert_eq!(buffer.to_vec(), [3; 50_000]);
    }
}
