//! What a restore writes to.

use crate::source::SourceError;
use crate::words::attribute::FileAttributes;
use crate::words::zero::is_zero;
use std::ops::Range;

/// The smallest hole worth leaving.
const HOLE_BYTES: usize = 16 << 10;

/// Whether something that exists may be overwritten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consent {
    /// No.
    None,
    /// Yes: `--force`.
    Force,
}

/// What to do with what an earlier restore left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Write everything.
    Anew,
    /// Compare, and write only what differs: `--continue`.
    Resume,
}

/// Whether holes of the image become holes of the destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holes {
    /// They take no space.
    Keep,
    /// Space is reserved for all of it.
    Allocate,
}

/// How a destination is made or opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Manner {
    /// Bytes of the image.
    pub size_bytes: u64,
    /// Whether something may be overwritten.
    pub consent: Consent,
    /// Anew, or going on.
    pub start: Start,
    /// What becomes of holes.
    pub holes: Holes,
}

/// An open destination. Threads may write at different offsets. Dropped without [`Destination::finish`] it is unfinished: under
/// its name nobody finds it, or what was there before.
pub trait Destination: Send + Sync {
    /// Whether it reads as zero where nothing was written.
    fn is_fresh(&self) -> bool;

    /// Reads what is there now.
    ///
    /// # Errors
    /// When it cannot be read.
    fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<(), SourceError>;

    /// Writes.
    ///
    /// # Errors
    /// When it cannot be written.
    fn write(&self, offset: u64, data: &[u8]) -> Result<(), SourceError>;

    /// Makes a range read as zero; where it can, the range takes no space then.
    ///
    /// # Errors
    /// When it cannot be written.
    fn zero(&self, range: &Range<u64>) -> Result<(), SourceError>;

    /// Changes its size; bytes that come to it are zero.
    ///
    /// # Errors
    /// When it cannot have that size.
    fn resize(&self, size_bytes: u64) -> Result<(), SourceError>;

    /// Lets whoever holds written bytes begin to store them, so that the end need not wait for all of it.
    fn start_writeback(&self) {}

    /// Makes everything durable and gives it its name. A new thing gets the owner and mode of the version where it has such, a
    /// replaced one keeps its own. Returns how it is called. It may be written to afterwards, and finished again.
    ///
    /// # Errors
    /// When that fails; what was written stays, to go on from.
    fn finish(&self, attributes: &FileAttributes) -> Result<String, SourceError>;

    /// Writes to a place that reads as zero: parts that are zero are left as holes.
    ///
    /// # Errors
    /// When it cannot be written.
    fn write_sparsely(&self, offset: u64, data: &[u8]) -> Result<(), SourceError> {
        let mut pieces = data.chunks(HOLE_BYTES).zip((offset..).step_by(HOLE_BYTES)).peekable();
        while let Some((piece, at)) = pieces.next() {
            if is_zero(piece) {
                continue;
            }
            // Neighbours are written together.
            let mut len = piece.len();
            while let Some((next, _)) = pieces.next_if(|(next, _)| !is_zero(next)) {
                len += next.len();
            }
            let from = usize::try_from(at - offset).unwrap_or(0);
            self.write(at, &data[from..from + len])?;
        }
        Ok(())
    }
}
