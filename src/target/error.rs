//! What can go wrong at a target. *Gone* is not *unreachable*: one is an answer, the other is none.

use crate::format::layout::ObjectKey;
use nix::errno::Errno;
use std::io;

/// A failed call of a target. `action` and `key` say what was tried on what; `key` may be a prefix or empty.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// The target answers and has no such object.
    #[error("{target}: there is no object {key}")]
    NotFound {
        /// The target.
        target: String,
        /// The object.
        key: ObjectKey,
    },
    /// The target does not answer: unmounted, unplugged, network down. Nothing is known of the object.
    #[error("{target} cannot be reached ({action} {key}): {source}{}", hint(target))]
    Unreachable {
        /// The target.
        target: String,
        /// What was tried.
        action: &'static str,
        /// On what.
        key: String,
        /// Why it failed.
        source: io::Error,
    },
    /// The target, or the quota on it, is full.
    #[error("{target} is full ({action} {key}): {source}")]
    NoSpace {
        /// The target.
        target: String,
        /// What was tried.
        action: &'static str,
        /// On what.
        key: String,
        /// Why it failed.
        source: io::Error,
    },
    /// The target may not be read or written: permissions, or mounted read-only.
    #[error("{target} refuses {action} {key}: {source}")]
    Denied {
        /// The target.
        target: String,
        /// What was tried.
        action: &'static str,
        /// On what.
        key: String,
        /// Why it failed.
        source: io::Error,
    },
    /// The target does not accept who asks: keys that have expired or are not known, or a clock that is off. Nothing is known of the
    /// object. Somebody renews the keys, or sets the clock, and the same call succeeds.
    #[error("{target} refuses {action} {key}: {source}")]
    Refused {
        /// The target.
        target: String,
        /// What was tried.
        action: &'static str,
        /// On what.
        key: String,
        /// Why it failed.
        source: io::Error,
    },
    /// The object is shorter than whoever wrote it said.
    #[error("{target}: {key} has {size_bytes} bytes, {wanted_bytes} at offset {offset} were wanted")]
    Truncated {
        /// The target.
        target: String,
        /// The object.
        key: ObjectKey,
        /// Where the read began.
        offset: u64,
        /// How much was wanted.
        wanted_bytes: u64,
        /// Bytes the object has.
        size_bytes: u64,
    },
    /// The target answered, and the answer does not fit what was asked: cut short, of another length, about something else.
    #[error("{target}: {action} {key}: the answer is wrong: {problem}")]
    Garbled {
        /// The target.
        target: String,
        /// What was tried.
        action: &'static str,
        /// On what.
        key: String,
        /// What is wrong with the answer.
        problem: String,
    },
    /// The target cannot be used as it is set up; somebody has to change something. Nothing is known of any object.
    #[error("{target} cannot be used: {problem}")]
    Setup {
        /// The target.
        target: String,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// Something that is no repository lies where one was to be made.
    #[error("{target} is not empty: it holds {found:?}, which is not part of a repository")]
    Occupied {
        /// The target.
        target: String,
        /// One thing that lies there.
        found: String,
    },
    /// Anything else, for example a failing disk.
    #[error("{target}: {action} {key}: {source}")]
    Io {
        /// The target.
        target: String,
        /// What was tried.
        action: &'static str,
        /// On what.
        key: String,
        /// Why it failed.
        source: io::Error,
    },
}

fn hint(target: &str) -> &'static str {
    if target.starts_with("dir:") { "; is it mounted?" } else { "" }
}

impl TargetError {
    /// Whether the same call may succeed a little later without anybody doing anything.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Garbled { .. })
    }

    /// Sorts an error number of the system into a variant.
    pub(super) fn from_errno(target: String, action: &'static str, key: &str, errno: Errno) -> Self {
        let (key, source) = (key.to_owned(), io::Error::from(errno));
        match errno {
            Errno::ENOSPC | Errno::EDQUOT => Self::NoSpace { target, action, key, source },
            Errno::EROFS | Errno::EACCES | Errno::EPERM => Self::Denied { target, action, key, source },
            // ENOTCONN: a FUSE server died. ESTALE: the NFS server forgot the file even after reopening it. The rest: the
            // device or the network is gone.
            Errno::ENOTCONN
            | Errno::ESTALE
            | Errno::ENODEV
            | Errno::ENXIO
            | Errno::ESHUTDOWN
            | Errno::ENETDOWN
            | Errno::ENETUNREACH
            | Errno::EHOSTDOWN
            | Errno::EHOSTUNREACH
            | Errno::ECONNRESET
            | Errno::ECONNABORTED
            | Errno::ECONNREFUSED
            | Errno::ETIMEDOUT => Self::Unreachable { target, action, key, source },
            _ => Self::Io { target, action, key, source },
        }
    }
}
