//! Arithmetic of blocks and map nodes: sizes, positions, and how a byte range falls into blocks.

use std::fmt;
use std::ops::Range;

/// Bytes of one block: a power of two, 4 KiB to 4 MiB, fixed for a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockSize(u32);

/// A block size that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("block size {0}: it must be a power of two from 4096 to 4194304 bytes")]
pub struct BlockSizeError(pub u64);

impl BlockSize {
    /// The smallest.
    pub const MIN: Self = Self(4 << 10);
    /// The largest.
    pub const MAX: Self = Self(4 << 20);
    /// What `init` takes when nothing else is said; measured in docs/decisions/0001-block-zstd-pack.md.
    pub const DEFAULT: Self = Self(256 << 10);

    /// Checks a number of bytes.
    ///
    /// # Errors
    /// When it is not a power of two in range.
    pub fn new(bytes: u64) -> Result<Self, BlockSizeError> {
        let valid = bytes.is_power_of_two() && (u64::from(Self::MIN.0)..=u64::from(Self::MAX.0)).contains(&bytes);
        u32::try_from(bytes).ok().filter(|_| valid).map(Self).ok_or(BlockSizeError(bytes))
    }

    /// In bytes.
    pub const fn bytes(self) -> usize {
        self.0 as usize
    }

    /// In bytes, for arithmetic with offsets.
    pub const fn bytes_u64(self) -> u64 {
        self.0 as u64
    }

    /// How many blocks an image of `size_bytes` has; the last may be partial.
    pub const fn count(self, size_bytes: u64) -> u64 {
        size_bytes.div_ceil(self.0 as u64)
    }

    /// The block that holds the byte at `offset`.
    pub const fn index_of(self, offset: u64) -> u64 {
        offset / self.0 as u64
    }

    /// Cuts `len` bytes at `offset` into pieces that each lie in one block, in order.
    pub fn pieces(self, offset: u64, len: usize) -> impl Iterator<Item = Piece> {
        let block = self.bytes_u64();
        let mut at = 0usize;
        std::iter::from_fn(move || {
            (at < len).then(|| {
                let position = offset + at as u64;
                let start = (position % block) as usize;
                let taken = (len - at).min(block as usize - start);
                let piece = Piece { index: position / block, within: start..start + taken, source: at..at + taken };
                at += taken;
                piece
            })
        })
    }
}

impl fmt::Display for BlockSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0)
    }
}

/// A part of a byte range that lies in one block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Which block.
    pub index: u64,
    /// Where in the block.
    pub within: Range<usize>,
    /// Where in the caller's buffer.
    pub source: Range<usize>,
}

/// Ids in one map node.
pub const FANOUT: u64 = 1024;

/// Shape of the block map of an image with `blocks` blocks: how many levels of nodes stand above the blocks.
/// At least 1. A node at level `l` (leaves are level 0) covers `FANOUT^(l+1)` blocks; the root is at level
/// `depth - 1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct MapDepth(u8);

impl MapDepth {
    /// Depth for a number of blocks.
    pub fn for_blocks(blocks: u64) -> Self {
        let mut depth = 1;
        let mut covered = FANOUT;
        while covered < blocks {
            covered = covered.saturating_mul(FANOUT);
            depth += 1;
        }
        Self(depth)
    }

    /// Number of levels, at least 1.
    pub const fn levels(self) -> u8 {
        self.0
    }

    /// Level of the root: `levels - 1`.
    pub const fn root_level(self) -> u8 {
        self.0 - 1
    }
}

/// How many blocks a node at `level` covers (saturating).
pub const fn node_span_blocks(level: u8) -> u64 {
    FANOUT.saturating_pow(level as u32 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_the_range_once() {
        let size = BlockSize::MIN;
        let pieces: Vec<_> = size.pieces(4000, 5000).collect();
        assert_eq!(pieces.len(), 3);
        assert_eq!(pieces[0], Piece { index: 0, within: 4000..4096, source: 0..96 });
        assert_eq!(pieces[1], Piece { index: 1, within: 0..4096, source: 96..4192 });
        assert_eq!(pieces[2], Piece { index: 2, within: 0..808, source: 4192..5000 });
        assert_eq!(size.pieces(7, 0).count(), 0);
    }

    #[test]
    fn depth_grows_by_powers_of_the_fanout() {
        assert_eq!(MapDepth::for_blocks(0).levels(), 1);
        assert_eq!(MapDepth::for_blocks(1024).levels(), 1);
        assert_eq!(MapDepth::for_blocks(1025).levels(), 2);
        assert_eq!(MapDepth::for_blocks(1024 * 1024).levels(), 2);
        assert_eq!(MapDepth::for_blocks(u64::MAX).levels(), 7);
    }

    #[test]
    fn only_powers_of_two_in_range_are_block_sizes() {
        assert!(BlockSize::new(4096).is_ok() && BlockSize::new(4 << 20).is_ok());
        for bad in [0, 1, 2048, 4097, 8 << 20, u64::MAX] {
            assert_eq!(BlockSize::new(bad), Err(BlockSizeError(bad)));
        }
    }
}
