//! Changing the flags of a mount that exists.

use crate::fuse::mount::{self, MountError};
use crate::fuse::options::{Audience, FS_TYPE, MountOptions};
use crate::words::mount_table::MountEntry;
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use std::path::Path;

/// Whether other users may use a mount. That is decided when it is made.
pub fn audience(entry: &MountEntry) -> Audience {
    match entry.options.iter().any(|option| option == "allow_other") {
        true => Audience::Everyone,
        false => Audience::Owner,
    }
}

/// Gives the mount at `dir` (a resolved path) the flags of `options`: read-only or not, and the like.
///
/// # Errors
/// [`MountError::Busy`] when it is to become read-only and somebody writes.
pub fn set_flags(dir: &Path, options: &MountOptions) -> Result<(), MountError> {
    let none: Option<&str> = None;
    match mount(none, dir, Some(FS_TYPE), options.flags() | MsFlags::MS_REMOUNT, none) {
        Ok(()) => Ok(()),
        Err(Errno::EBUSY) => Err(mount::busy(dir)),
        Err(Errno::EPERM) => Err(MountError::NotRoot(dir.to_owned())),
        Err(errno) => Err(MountError::Refused { dir: dir.to_owned(), source: errno.into() }),
    }
}
