//! The one file that knows error numbers: what the filesystem answers to the kernel, as the manual pages of the system
//! calls name it (errno(3)).

use crate::catalog::CatalogError;
use crate::image::overlay::{AccessError, OverlayError};
use crate::ops::OpsError;
use crate::ops::remove::{Refusal, RemoveError};
use crate::repo::RepoError;
use crate::source::SourceError;
use crate::target::TargetError;
use std::fmt;
use std::io;

/// An error number as a system call returns it. Always positive.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(i32);

/// Every constant, with the text a log line shows.
macro_rules! errnos {
    ($($(#[doc = $doc:literal])+ $name:ident),* $(,)?) => {
        impl Errno {
            $($(#[doc = $doc])+ pub const $name: Self = Self(libc::$name);)*

            /// `ENOENT` and so on; `None` for a number that has no constant here.
            pub const fn name(self) -> Option<&'static str> {
                $(if self.0 == libc::$name {
                    return Some(stringify!($name));
                })*
                None
            }
        }
    };
}

errnos! {
    /// Not permitted, whoever asks.
    EPERM,
    /// No such name.
    ENOENT,
    /// The read or write failed, or what was read is damaged.
    EIO,
    /// Seeking for data past the last of it.
    ENXIO,
    /// The handle is not open for this.
    EBADF,
    /// Try again.
    EAGAIN,
    /// Out of memory.
    ENOMEM,
    /// These permissions do not allow it.
    EACCES,
    /// In use.
    EBUSY,
    /// The name exists.
    EEXIST,
    /// Across filesystems.
    EXDEV,
    /// A part of the path is a file.
    ENOTDIR,
    /// A directory where a file is needed.
    EISDIR,
    /// A value that cannot be.
    EINVAL,
    /// The file does not know this ioctl.
    ENOTTY,
    /// Larger than a file can be.
    EFBIG,
    /// No space on the target, or past the end of a fixed size.
    ENOSPC,
    /// Nothing here can be written.
    EROFS,
    /// Too many links.
    EMLINK,
    /// The answer does not fit the buffer.
    ERANGE,
    /// The name is too long.
    ENAMETOOLONG,
    /// Not implemented at all: the kernel does not ask again.
    ENOSYS,
    /// The directory has entries.
    ENOTEMPTY,
    /// No such extended attribute.
    /// This operation is not supported here.
    EOPNOTSUPP,
    /// It took too long.
    ETIMEDOUT,
    /// The file has changed under the handle.
    ESTALE,
    /// Over a limit.
    EDQUOT,
    /// Given up.
    ECANCELED,
    /// Interrupted.
    EINTR,
}

impl Errno {
    /// From a number as the C library has it; anything not positive becomes [`Errno::EIO`].
    pub const fn from_code(code: i32) -> Self {
        if code > 0 { Self(code) } else { Self::EIO }
    }

    /// The number.
    pub const fn code(self) -> i32 {
        self.0
    }
}

/// An error of a call that has a number, unless it says no more than that something failed.
fn of_io(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_code)
}

impl From<&TargetError> for Errno {
    fn from(error: &TargetError) -> Self {
        match error {
            TargetError::NoSpace { .. } => Self::ENOSPC,
            TargetError::Denied { source, .. } if of_io(source) == Self::EROFS => Self::EROFS,
            TargetError::Denied { .. } => Self::EACCES,
            // An object that is missing is damage for whoever reads a file, not a missing file.
            _ => Self::EIO,
        }
    }
}

impl From<&CatalogError> for Errno {
    fn from(error: &CatalogError) -> Self {
        match error {
            CatalogError::NoSpace { .. } => Self::ENOSPC,
            CatalogError::Busy { .. } => Self::EBUSY,
            _ => Self::EIO,
        }
    }
}

impl From<&RepoError> for Errno {
    fn from(error: &RepoError) -> Self {
        match error {
            RepoError::Target(error) => (&**error).into(),
            RepoError::Catalog(error) => (&**error).into(),
            RepoError::NoSuchVersion { .. } | RepoError::Ambiguous { .. } => Self::ENOENT,
            RepoError::NameCollision { .. } | RepoError::AlreadyExists { .. } => Self::EEXIST,
            RepoError::State { source, .. } => of_io(source),
            RepoError::Protected { .. } => Self::EPERM,
            RepoError::InUse { .. } | RepoError::InUseElsewhere { .. } => Self::EBUSY,
            _ => Self::EIO,
        }
    }
}

impl From<&OverlayError> for Errno {
    fn from(error: &OverlayError) -> Self {
        match error {
            OverlayError::NoSpace { .. } | OverlayError::OutOfRange { .. } => Self::ENOSPC,
            OverlayError::TooLarge { .. } => Self::EFBIG,
            OverlayError::InUse { .. } => Self::EBUSY,
            _ => Self::EIO,
        }
    }
}

impl From<&AccessError<RepoError>> for Errno {
    fn from(error: &AccessError<RepoError>) -> Self {
        match error {
            AccessError::Overlay(error) => error.into(),
            AccessError::Base(error) => error.into(),
        }
    }
}

impl From<&RemoveError> for Errno {
    fn from(error: &RemoveError) -> Self {
        match error {
            RemoveError::Refused { refusal: Refusal::Protected | Refusal::Young { .. }, .. } => Self::EPERM,
            RemoveError::Refused { .. } => Self::EBUSY,
            RemoveError::Repo(error) => error.into(),
        }
    }
}

impl From<&SourceError> for Errno {
    fn from(error: &SourceError) -> Self {
        match error {
            SourceError::Open { source, .. }
            | SourceError::Read { source, .. }
            | SourceError::Snapshot { source, .. }
            | SourceError::Destination { source, .. } => of_io(source),
            SourceError::Exists { .. } | SourceError::Unfinished { .. } => Self::EEXIST,
            SourceError::TooSmall { .. } => Self::ENOSPC,
            SourceError::InUse { .. } => Self::EBUSY,
            SourceError::DestinationKind { .. } => Self::EPERM,
            SourceError::Kind { .. } | SourceError::Refused(_) | SourceError::Hints { .. } => Self::EINVAL,
            SourceError::Shrank { .. } | SourceError::Tool { .. } => Self::EIO,
        }
    }
}

impl From<&OpsError> for Errno {
    fn from(error: &OpsError) -> Self {
        match error {
            OpsError::Repo(error) => error.into(),
            OpsError::Source(error) => error.into(),
            OpsError::Destination { source, .. } => of_io(source),
            OpsError::Interrupted => Self::EINTR,
            _ => Self::EIO,
        }
    }
}

impl From<&io::Error> for Errno {
    fn from(error: &io::Error) -> Self {
        of_io(error)
    }
}

/// The same by value, for `?`.
macro_rules! by_value {
    ($($error:ty),*) => {
        $(impl From<$error> for Errno {
            fn from(error: $error) -> Self {
                (&error).into()
            }
        })*
    };
}

by_value!(
    TargetError,
    CatalogError,
    RepoError,
    OverlayError,
    AccessError<RepoError>,
    RemoveError,
    SourceError,
    OpsError,
    io::Error
);

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "errno {}", self.0),
        }
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Errno {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::ids::Uid;

    #[test]
    fn names_and_numbers() {
        assert_eq!(Errno::ENOTEMPTY.to_string(), "ENOTEMPTY");
        assert_eq!(Errno::from_code(libc::EBUSY), Errno::EBUSY);
        assert_eq!(Errno::from_code(0), Errno::EIO);
        assert_eq!(Errno::from_code(9999).to_string(), "errno 9999");
        assert_eq!(Errno::from(std::io::Error::from_raw_os_error(libc::ENOSPC)), Errno::ENOSPC);
        assert_eq!(Errno::from(std::io::Error::other("x")), Errno::EIO);
    }

    #[test]
    fn errors_of_the_layers_below() {
        let os = io::Error::from_raw_os_error;
        let denied = |code| {
            let (target, key) = ("dir:/t".to_owned(), "packs/x".to_owned());
            RepoError::from(TargetError::Denied { target, action: "put", key, source: os(code) })
        };
        let full = TargetError::NoSpace {
            target: "dir:/t".into(),
            action: "put",
            key: "packs/x".into(),
            source: os(libc::EDQUOT),
        };
        let uid = Uid::NIL;
        let refused = |refusal| RemoveError::Refused { uid, refusal };
        for (errno, expected) in [
            (Errno::from(RepoError::from(full)), Errno::ENOSPC),
            (Errno::from(denied(libc::EROFS)), Errno::EROFS),
            (Errno::from(denied(libc::EACCES)), Errno::EACCES),
            (Errno::from(RepoError::NoSuchVersion { spec: "x".into() }), Errno::ENOENT),
            (Errno::from(RepoError::NameCollision { name: "a".into(), other: "a/b".into() }), Errno::EEXIST),
            (Errno::from(RepoError::Stopped), Errno::EIO),
            (Errno::from(CatalogError::NoSpace { path: "/s".into() }), Errno::ENOSPC),
            (Errno::from(OverlayError::NoSpace { uid, what: "x" }), Errno::ENOSPC),
            (Errno::from(AccessError::<RepoError>::from(OverlayError::InUse { uid })), Errno::EBUSY),
            (Errno::from(refused(Refusal::Young { age_ms: 0, protected_ms: 6 })), Errno::EPERM),
            (Errno::from(refused(Refusal::Overlaid)), Errno::EBUSY),
        ] {
            assert_eq!(errno, expected);
        }
    }
}
