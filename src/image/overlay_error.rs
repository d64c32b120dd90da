//! What can go wrong with an overlay.

use crate::words::ids::Uid;
use std::io;

/// A failure of the overlay itself, that is of the local disk or of what stands on it.
#[derive(Debug, thiserror::Error)]
pub enum OverlayError {
    /// The local disk is full. Nothing changed; the same call may succeed when there is room again.
    #[error("overlay of {uid}: the local disk has no room to {what}")]
    NoSpace {
        /// The version overlaid.
        uid: Uid,
        /// What was tried.
        what: &'static str,
    },
    /// The local disk failed.
    #[error("overlay of {uid}: cannot {what}: {source}")]
    Io {
        /// The version overlaid.
        uid: Uid,
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// An earlier sync failed. The kernel drops what it could not write and reports it once, so what was written since the last good
    /// sync may be lost: no later sync may claim otherwise. Reads go on; opening the overlay anew shows what is there.
    #[error(
        "overlay of {uid}: an earlier sync failed ({reason}); what was written since the one before it may be lost; \
         unmount and mount to go on from what is there"
    )]
    Lost {
        /// The version overlaid.
        uid: Uid,
        /// What failed then.
        reason: String,
    },
    /// The journal or the data file is not what this program wrote.
    #[error(
        "overlay of {uid} is damaged: {problem} at byte {offset} of {file}; the backup is not touched, and \
         `echo discard > by_version/{uid}/overlay` gives the overlay up"
    )]
    Damaged {
        /// The version overlaid.
        uid: Uid,
        /// Which file.
        file: String,
        /// Where.
        offset: u64,
        /// What.
        problem: &'static str,
    },
    /// Made for an image of another size.
    #[error(
        "overlay of {uid} is for an image of {found_bytes} bytes, the image has {expected_bytes}: `echo discard > by_version/{uid}/overlay` gives it up"
    )]
    OtherSize {
        /// The version overlaid.
        uid: Uid,
        /// Size of the image, as the caller says.
        expected_bytes: u64,
        /// Size in the overlay.
        found_bytes: u64,
    },
    /// Written by a newer program.
    #[error("overlay of {uid} has format {found}, this program reads up to {known}: use the newer program")]
    TooNew {
        /// The version overlaid.
        uid: Uid,
        /// Format of the file.
        found: u32,
        /// Newest format known.
        known: u32,
    },
    /// Images of this size cannot be overlaid.
    #[error("an image of {size_bytes} bytes is too large for an overlay (at most {max_bytes})")]
    TooLarge {
        /// Size of the image.
        size_bytes: u64,
        /// The limit.
        max_bytes: u64,
    },
    /// Open already, here or in another process.
    #[error("overlay of {uid} is in use: another mount or command has it open")]
    InUse {
        /// The version overlaid.
        uid: Uid,
    },
    /// Outside the image.
    #[error("overlay of {uid}: {len_bytes} bytes at {offset} reach past the end of the image at {size_bytes}")]
    OutOfRange {
        /// The version overlaid.
        uid: Uid,
        /// First byte.
        offset: u64,
        /// How many.
        len_bytes: u64,
        /// Size of the image.
        size_bytes: u64,
    },
}

impl OverlayError {
    /// An I/O error; a full disk gets its own variant.
    pub(super) fn io(uid: Uid, what: &'static str, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::NoSpace { uid, what },
            io::ErrorKind::WouldBlock => Self::InUse { uid },
            _ => Self::Io { uid, what, source },
        }
    }
}

/// A failure of a read or write that goes through the overlay.
#[derive(Debug, thiserror::Error)]
pub enum AccessError<E> {
    /// The overlay failed.
    #[error(transparent)]
    Overlay(#[from] OverlayError),
    /// The version below could not be read.
    #[error("{0}")]
    Base(E),
}
