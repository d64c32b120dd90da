//! Why a source cannot be read, or a destination not be written.

use std::io;
use std::path::PathBuf;

/// Each names the thing and, where there is one, the way out.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum SourceError {
    #[error("{what} cannot be opened: {source}")]
    Open { what: String, source: io::Error },
    #[error("{what} cannot be backed up: {problem}")]
    Kind { what: String, problem: String },
    #[error("{what} cannot be read at offset {offset}: {source}")]
    Read { what: String, offset: u64, source: io::Error },
    #[error("{what} ended at offset {offset} while it was being read")]
    Shrank { what: String, offset: u64 },
    #[error("{what}: {action} failed: {source}")]
    Snapshot { what: String, action: String, source: io::Error },
    #[error("{0}")]
    Refused(String),
    #[error("{program} failed: {said}")]
    Tool { program: String, said: String },
    #[error("hints from {file}: {problem}")]
    Hints { file: String, problem: String },
    #[error("{what} exists: use --force to overwrite it")]
    Exists { what: String },
    #[error("{path} is left from a restore that did not finish: use --continue to go on, or --force to begin anew", path = .path.display())]
    Unfinished { path: PathBuf },
    #[error("{what} has {has_bytes} bytes, too few for an image of {needed_bytes} bytes")]
    TooSmall { what: String, has_bytes: u64, needed_bytes: u64 },
    #[error("{what} cannot be restored to: {problem}")]
    DestinationKind { what: String, problem: String },
    #[error("{what} is in use: unmount it, or end what has it open")]
    InUse { what: String },
    #[error("{what} cannot be {action}: {source}")]
    Destination { what: String, action: &'static str, source: io::Error },
}

/// What kind of failure it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceFailure {
    /// Asked for something that cannot be, or that needs consent.
    Refused,
    /// The source cannot be read.
    Reading,
    /// The destination cannot be written.
    Writing,
}

impl SourceError {
    /// Its kind.
    pub fn failure(&self) -> SourceFailure {
        match self {
            Self::Open { .. } | Self::Read { .. } | Self::Shrank { .. } | Self::Snapshot { .. } | Self::Tool { .. } => {
                SourceFailure::Reading
            }
            Self::Destination { .. } => SourceFailure::Writing,
            _ => SourceFailure::Refused,
        }
    }

    /// Whether only some sectors cannot be read, as far as the number of the error tells: the kernel reports bad media as
    /// EIO, EREMOTEIO, ENODATA, EILSEQ or EBADMSG (errno-base.h, blk_errors in block/blk-core.c). A device that is gone, a
    /// connection that is lost, a file that ended are none.
    pub fn is_bad_medium(&self) -> bool {
        const MEDIUM: [i32; 5] = [libc::EIO, libc::EREMOTEIO, libc::ENODATA, libc::EILSEQ, libc::EBADMSG];
        matches!(self, Self::Read { source, .. } if source.raw_os_error().is_some_and(|code| MEDIUM.contains(&code)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_sectors_are_told_from_a_device_that_is_gone() {
        let read = |code| SourceError::Read { what: "x".into(), offset: 0, source: io::Error::from_raw_os_error(code) };
        assert!(read(libc::EIO).is_bad_medium() && read(libc::ENODATA).is_bad_medium());
        assert!(!read(libc::ENODEV).is_bad_medium() && !read(libc::ENOTCONN).is_bad_medium());
        assert!(!SourceError::Shrank { what: "x".into(), offset: 0 }.is_bad_medium());
    }
}
