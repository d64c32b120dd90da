//! The one file that knows error numbers: what the filesystem answers to the kernel, as the manual pages of the system
//! calls name it (errno(3)).

use crate::catalog::CatalogError;
use crate::repo::RepoError;
use crate::target::TargetError;
use std::fmt;

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
    ENODATA,
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

impl From<std::io::Error> for Errno {
    fn from(error: std::io::Error) -> Self {
        error.raw_os_error().map_or(Self::EIO, Self::from_code)
    }
}

impl From<&RepoError> for Errno {
    fn from(error: &RepoError) -> Self {
        match error {
            RepoError::Target(error) => Self::from(&**error),
            RepoError::Catalog(error) => Self::from(&**error),
            RepoError::NoSuchVersion { .. } | RepoError::Ambiguous { .. } => Self::ENOENT,
            RepoError::NameCollision { .. } => Self::EEXIST,
            RepoError::Refused { .. } => Self::EPERM,
            RepoError::State { source, .. } => source.raw_os_error().map_or(Self::EIO, Self::from_code),
            _ => Self::EIO,
        }
    }
}

impl From<RepoError> for Errno {
    fn from(error: RepoError) -> Self {
        Self::from(&error)
    }
}

impl From<&TargetError> for Errno {
    fn from(error: &TargetError) -> Self {
        match error {
            TargetError::NoSpace { .. } => Self::ENOSPC,
            TargetError::Denied { source, .. } if source.raw_os_error() == Some(libc::EROFS) => Self::EROFS,
            TargetError::Denied { .. } => Self::EACCES,
            // A missing object is damage to whoever reads: the name they asked for does exist.
            _ => Self::EIO,
        }
    }
}

impl From<&CatalogError> for Errno {
    fn from(error: &CatalogError) -> Self {
        match error {
            CatalogError::NoSpace { .. } => Self::ENOSPC,
            _ => Self::EIO,
        }
    }
}

impl From<CatalogError> for Errno {
    fn from(error: CatalogError) -> Self {
        Self::from(&error)
    }
}

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

    #[test]
    fn names_and_numbers() {
        assert_eq!(Errno::ENOTEMPTY.to_string(), "ENOTEMPTY");
        assert_eq!(Errno::from_code(libc::EBUSY), Errno::EBUSY);
        assert_eq!(Errno::from_code(0), Errno::EIO);
        assert_eq!(Errno::from_code(9999).to_string(), "errno 9999");
        assert_eq!(Errno::from(std::io::Error::from_raw_os_error(libc::ENOSPC)), Errno::ENOSPC);
        assert_eq!(Errno::from(std::io::Error::other("x")), Errno::EIO);
    }
}
