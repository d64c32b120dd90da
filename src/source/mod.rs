//! What is backed up, and what is restored to: files and devices, images of other programs, volumes that take snapshots.
//!
//! A [`Volume`] is a place that can be opened again and again; opened, it is a [`Source`] that stands still as well as it can.
//! Whatever knows what has changed since an earlier moment (a snapshot's difference, hints from a file) says so by extents of
//! [`Content::Unchanged`]; the engine that reads (`ops::pull`) asks nothing else of it. A [`Destination`] is the other direction.

pub mod bad_sectors;
pub mod blocks;
pub mod changes;
pub mod collection;
#[cfg(test)]
pub mod conformance;
pub mod destination;
pub mod error;
pub mod file;
pub mod file_destination;
pub mod hinted;
pub mod hints;
pub mod lvm;
mod nbd;
mod page_cache;
mod qemu;
pub mod rbd;
pub mod recipe;
pub mod volume;
pub mod write_behind;

use crate::source::changes::Changes;
use crate::words::attribute::FileAttributes;
use std::ops::{ControlFlow, Range};

pub use collection::Collection;
pub use destination::Destination;
pub use error::SourceError;
pub use recipe::Recipe;
pub use volume::Volume;

/// What stands in a part of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Content {
    /// It may be anything and must be read.
    Data,
    /// Zeros, known without reading.
    Hole,
    /// What the base holds there, as far as whoever tracks changes knows.
    Unchanged,
}

/// A part of a source and what stands there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extent {
    /// Bytes, never none.
    pub range: Range<u64>,
    /// What is there.
    pub content: Content,
}

/// Takes a piece of what is read, and tells whether more is wanted.
pub type EachPiece<'a> = dyn FnMut(&[u8]) -> ControlFlow<()> + 'a;

/// Hands over what was read at once.
fn hand_over(read: &[u8], piece_bytes: usize, each: &mut EachPiece<'_>) {
    // Whoever broke it off knows.
    let _ = read.chunks(piece_bytes).try_for_each(each);
}

/// An open source. Many threads may read at once.
pub trait Source: Send + Sync {
    /// How it is called in messages.
    fn describe(&self) -> String;

    /// Bytes, as they were when it was opened.
    fn size_bytes(&self) -> u64;

    /// Mode, owner and time that a version of it carries.
    fn attributes(&self) -> FileAttributes;

    /// What stands at `offset`, which lies before the end, and how far that reaches at least. The extent begins at `offset`
    /// and ends at or before the end of the source; what follows may be of the same content.
    ///
    /// # Errors
    /// When whoever knows cannot be asked. A source that knows nothing answers [`Content::Data`].
    fn extent_at(&self, offset: u64) -> Result<Extent, SourceError>;

    /// Fills `buffer` from `offset`; the range lies within the source. What the machine had in its page cache is there
    /// afterwards, and nothing else, as far as the kernel tells who may ask.
    ///
    /// # Errors
    /// [`SourceError::Read`] with an offset at or before which everything could be read, [`SourceError::Shrank`] when it ends
    /// before it should. The buffer holds anything then.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), SourceError>;

    /// Reads `buffer.len()` bytes from `offset` as [`Source::read_at`] does, and hands them over in order, in pieces of `piece_bytes`
    /// (the last may be shorter), each as soon as it is there: what is read quickly still is in the processor's cache then. `buffer`
    /// is room to read into; what it holds afterwards may be anything. After a `Break` no more is handed over, and that is no error.
    ///
    /// # Errors
    /// As [`Source::read_at`]. What was handed over before counts.
    fn read_pieces(
        &self,
        offset: u64,
        buffer: &mut [u8],
        piece_bytes: usize,
        each: &mut EachPiece<'_>,
    ) -> Result<(), SourceError> {
        self.read_at(offset, buffer)?;
        hand_over(buffer, piece_bytes, each);
        Ok(())
    }

    /// The smallest part that can be unreadable by itself, in bytes.
    fn sector_bytes(&self) -> u32 {
        4096
    }

    /// Whether it was changed since it was opened, as far as it can tell. A snapshot never is.
    fn has_changed(&self) -> bool {
        false
    }

    /// Whether it still stands: asked when reading fails, because a snapshot may have run full, which looks like a bad disk and is
    /// none; and after reading, because a snapshot that somebody removed may read as anything.
    ///
    /// # Errors
    /// What became of it.
    fn check(&self) -> Result<(), SourceError> {
        Ok(())
    }

    /// The snapshot it shows, when that is one of our own making that the next backup can be compared with.
    fn snapshot_name(&self) -> Option<&str> {
        None
    }

    /// What is different from a snapshot of the same volume; `None` when it cannot be told, for example because that snapshot
    /// is gone. Parts behind the end of that snapshot are told as well: what is left out there is a hole.
    ///
    /// # Errors
    /// When whoever knows fails.
    fn changes_since(&self, _snapshot: &str) -> Result<Option<Changes>, SourceError> {
        Ok(None)
    }
}
