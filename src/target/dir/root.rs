//! The root directory for the length of one call.
//!
//! Every call opens the root once and reaches everything else relative to that descriptor. So all of a call happens on one
//! filesystem: a target that is unmounted, or mounted, in the middle of it can not make an existing object look absent. No
//! descriptor outlives its call, so the target can be unmounted between any two.

use crate::format::layout;
use crate::target::TargetError;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, fstatat};
use nix::unistd;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;

/// Why a call failed, before target and object are named.
#[derive(Debug)]
pub(super) enum Trouble {
    /// A system call failed.
    Errno(Errno),
    /// The object is not there, and the target is.
    Absent,
    /// A directory that `prepare` made is not there.
    NoDirectory(String),
    /// The object ends early.
    Short { offset: u64, wanted_bytes: u64, size_bytes: u64 },
    /// Something else lies here.
    Occupied(String),
    /// The temporary file was removed by someone during the upload.
    UploadRemoved,
}

impl From<Errno> for Trouble {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

impl From<std::io::Error> for Trouble {
    fn from(error: std::io::Error) -> Self {
        Self::Errno(error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))
    }
}

impl Trouble {
    /// Names what was tried.
    pub(super) fn named(self, target: String, action: &'static str, key: &layout::ObjectKey) -> TargetError {
        match self {
            Self::Absent => TargetError::NotFound { target, key: key.clone() },
            Self::Short { offset, wanted_bytes, size_bytes } => {
                TargetError::Truncated { target, key: key.clone(), offset, wanted_bytes, size_bytes }
            }
            other => other.named_text(target, action, key.as_str()),
        }
    }

    /// Names what was tried on something that is no object.
    pub(super) fn named_text(self, target: String, action: &'static str, key: &str) -> TargetError {
        let text = key.to_owned();
        match self {
            Self::Errno(errno) => TargetError::from_errno(target, action, key, errno),
            Self::Occupied(found) => TargetError::Occupied { target, found },
            Self::NoDirectory(name) => {
                let source = std::io::Error::other(format!("the directory {name} is missing"));
                TargetError::Unreachable { target, action, key: text, source }
            }
            Self::UploadRemoved => {
                let source = std::io::Error::other("its temporary file was removed by someone, twice");
                TargetError::Io { target, action, key: text, source }
            }
            Self::Absent | Self::Short { .. } => TargetError::from_errno(target, action, key, Errno::ENOENT),
        }
    }
}

/// Where a key lies: the directory ("." for the root) and the name in it.
pub(super) fn split(key: &str) -> (&str, &str) {
    key.rsplit_once('/').unwrap_or((".", key))
}

/// The opened root directory.
pub(super) struct Root(OwnedFd);

impl Root {
    /// Opens it.
    pub(super) fn open(path: &Path) -> Result<Self, Trouble> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        match nix::fcntl::open(path, flags, Mode::empty()) {
            Ok(fd) => Ok(Self(fd)),
            Err(Errno::ENOENT | Errno::ENOTDIR) => Err(Trouble::NoDirectory(path.display().to_string())),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Its descriptor.
    pub(super) fn fd(&self) -> &OwnedFd {
        &self.0
    }

    /// Opens a directory below it, "." for itself.
    pub(super) fn directory(&self, name: &str) -> Result<OwnedFd, Trouble> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        match openat(&self.0, name, flags, Mode::empty()) {
            Ok(fd) => Ok(fd),
            Err(Errno::ENOENT | Errno::ENOTDIR) => Err(Trouble::NoDirectory(name.to_owned())),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Opens an object for reading.
    pub(super) fn object(&self, key: &str) -> Result<File, Trouble> {
        match openat(&self.0, key, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()) {
            Ok(fd) => Ok(File::from(fd)),
            Err(Errno::ENOENT | Errno::ENOTDIR) => Err(self.missing(key)),
            Err(errno) => Err(errno.into()),
        }
    }

    /// What it means that `key` is not below this root: an answer when a repository is here (its header is, or, while one is being
    /// made, the directory of the key is), otherwise the mountpoint of something that is not mounted.
    pub(super) fn missing(&self, key: &str) -> Trouble {
        let (directory, _) = split(key);
        let is_there = |name| match fstatat(&self.0, name, AtFlags::empty()) {
            Ok(_) => Ok(true),
            Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(false),
            Err(errno) => Err(errno),
        };
        match is_there(layout::HEADER).and_then(|header| Ok(header || is_there(directory)?)) {
            Ok(true) => Trouble::Absent,
            Ok(false) => Trouble::NoDirectory(directory.to_owned()),
            Err(errno) => errno.into(),
        }
    }
}

/// Makes the names in a directory durable. Filesystems that know no fsync of directories (some FUSE and SMB ones answer EINVAL)
/// are asked to write out everything instead.
pub(super) fn sync_directory(directory: &OwnedFd) -> Result<(), Errno> {
    match unistd::fsync(directory) {
        Err(Errno::EINVAL | Errno::ENOTSUP) => unistd::syncfs(directory),
        done => done,
    }
}
