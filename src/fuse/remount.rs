//! Changing the flags of a mount that exists.

use crate::fuse::mount::{self, MountError};
use crate::fuse::options::{Audience, FS_TYPE, MountOptions};
use crate::words::mount_table::MountEntry;
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
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

/// Does something that writes to the mount at `dir` (a resolved path), which has the flags of `options` and stays read-only for
/// everybody else all the time. The filesystem becomes writable, but every mount of it is also read-only for itself; only ours, in a
/// table of mounts that nobody else sees, is not. This process stays with that table.
///
/// # Errors
/// When the filesystem cannot be made writable, or not read-only again.
pub fn while_writable<T>(dir: &Path, options: &MountOptions, work: impl FnOnce() -> T) -> Result<T, MountError> {
    let failed = |errno: Errno| match errno {
        Errno::EPERM => MountError::NotRoot(dir.to_owned()),
        errno => {
            MountError::Io { what: "cannot get a table of mounts to change", dir: dir.to_owned(), source: errno.into() }
        }
    };
    unshare(CloneFlags::CLONE_NEWNS).map_err(failed)?;
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).map_err(failed)?;
    let mut writable = options.clone();
    writable.take("rw");
    set_flags(dir, &writable)?;
    let done = work();
    set_flags(dir, options)?;
    Ok(done)
}
