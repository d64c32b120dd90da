//! Attaching to the kernel and detaching from it: mount(2) and umount2(2) where we may, fusermount3(1) where we may not.
//!
//! fuser's own mounting is not used: it drops the subtype, and some of its ways to unmount are wrong.

use crate::fuse::holders::Holders;
use crate::fuse::mountinfo;
use crate::fuse::options::{FS_TYPE, MountOptions};
use crate::words::mount_table::MountEntry;
use nix::errno::Errno;
use nix::mount::{MntFlags, mount, umount2};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use nix::unistd::{getgid, getuid};
use std::fs;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What goes wrong with mounts. Each names the mountpoint.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum MountError {
    #[error("{dir} does not exist", dir = .0.display())]
    Missing(PathBuf),
    #[error("{dir} is not a directory", dir = .0.display())]
    NotADirectory(PathBuf),
    #[error("{dir} is not empty: mounting would hide what is in it", dir = .0.display())]
    NotEmpty(PathBuf),
    #[error("backyfs is mounted at {dir} already", dir = .0.display())]
    AlreadyMounted(PathBuf),
    #[error("backyfs is not mounted at {dir}", dir = .0.display())]
    NotMounted(PathBuf),
    #[error("{dir} is unmounted, but its daemon (pid {pid}) still works on what was written: run `backyfs umount` again to go on waiting", dir = .dir.display())]
    StillRunning { dir: PathBuf, pid: u32 },
    #[error("{dir} is in use{holders}", dir = .dir.display())]
    Busy { dir: PathBuf, holders: Holders },
    #[error("{dir} is not unmounted: what was written cannot be stored ({source}; the log says more). Try again when the target answers, or give it up with `umount -f {dir}`", dir = .dir.display())]
    NotStored { dir: PathBuf, source: io::Error },
    #[error("only root may remount {dir}", dir = .0.display())]
    NotRoot(PathBuf),
    #[error("/dev/fuse cannot be opened (is the fuse module loaded?)")]
    NoFuse(#[source] io::Error),
    #[error("the kernel refused to mount {dir}", dir = .dir.display())]
    Refused { dir: PathBuf, source: io::Error },
    #[error("fusermount3 failed on {dir}: {message}", dir = .dir.display())]
    Helper { dir: PathBuf, message: String },
    #[error("{what} {dir}", dir = .dir.display())]
    Io { what: &'static str, dir: PathBuf, source: io::Error },
}

/// How insistently to unmount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detach {
    /// Only when nobody uses it.
    WhenIdle,
    /// Takes it out of the tree at once; who uses it keeps it until done.
    Lazily,
}

/// An absolute path with every link in it followed, found without touching what is mounted at its end: that may not answer.
///
/// # Errors
/// When the directory it lies in does not exist.
pub fn resolve(dir: &Path) -> Result<PathBuf, MountError> {
    let failed = |source| MountError::Io { what: "cannot find", dir: dir.to_owned(), source };
    let absolute = std::path::absolute(dir).map_err(failed)?;
    let is_link = fs::symlink_metadata(&absolute).is_ok_and(|metadata| metadata.is_symlink());
    match (absolute.parent(), absolute.file_name()) {
        (Some(parent), Some(name)) if !is_link => {
            let parent = parent.canonicalize();
            parent.map(|parent| parent.join(name)).map_err(|_| MountError::Missing(dir.to_owned()))
        }
        // The root, a link, or a path that ends in `..`.
        _ => absolute.canonicalize().map_err(|_| MountError::Missing(dir.to_owned())),
    }
}

/// Whether the mount at a path answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Liveness {
    Alive,
    /// Its daemon is gone: "Transport endpoint is not connected".
    Stale,
}

/// The backyfs mount at `dir` (a resolved path), if there is one.
///
/// # Errors
/// When the mount table cannot be read.
pub fn find(dir: &Path) -> Result<Option<(MountEntry, Liveness)>, MountError> {
    Ok(entry(dir)?.map(|entry| (entry, liveness(dir))))
}

/// As [`find`], without asking whether it answers.
///
/// # Errors
/// When the mount table cannot be read.
pub fn entry(dir: &Path) -> Result<Option<MountEntry>, MountError> {
    let failed = |source| MountError::Io { what: "cannot read the mount table for", dir: dir.to_owned(), source };
    Ok(mountinfo::mount_at(dir).map_err(failed)?.filter(|entry| entry.fs_type == FS_TYPE))
}

fn liveness(dir: &Path) -> Liveness {
    let gone = |error: &io::Error| matches!(error.raw_os_error(), Some(libc::ENOTCONN | libc::ECONNABORTED));
    match fs::metadata(dir) {
        Err(error) if gone(&error) => Liveness::Stale,
        _ => Liveness::Alive,
    }
}

/// Makes sure that something may be mounted at `dir` (a resolved path): cleans up after a daemon that died, refuses a live
/// mount and a directory that holds something.
///
/// # Errors
/// Why not.
pub fn prepare(dir: &Path) -> Result<(), MountError> {
    // Several may be stacked.
    while let Some((_, liveness)) = find(dir)? {
        if liveness == Liveness::Alive {
            return Err(MountError::AlreadyMounted(dir.to_owned()));
        }
        tracing::info!("{} was left by a daemon that died: unmounting it", dir.display());
        detach(dir, Detach::Lazily)?;
    }
    let failed = |source| MountError::Io { what: "cannot look into", dir: dir.to_owned(), source };
    match fs::read_dir(dir) {
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(Ok(_)) => Err(MountError::NotEmpty(dir.to_owned())),
            Some(Err(error)) => Err(failed(error)),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(MountError::Missing(dir.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Err(MountError::NotADirectory(dir.to_owned())),
        Err(error) => Err(failed(error)),
    }
}

/// Mounts at `dir` and returns the device to serve it through. Nothing answers until somebody does.
///
/// # Errors
/// When the kernel or fusermount3 refuses.
pub(super) fn attach(dir: &Path, options: &MountOptions) -> Result<OwnedFd, MountError> {
    let device = match fs::OpenOptions::new().read(true).write(true).open("/dev/fuse") {
        Ok(device) => device,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return attach_by_helper(dir, options),
        Err(error) => return Err(MountError::NoFuse(error)),
    };
    let data = options.kernel_data(device.as_raw_fd(), getuid().as_raw(), getgid().as_raw());
    match mount(Some(options.source.as_str()), dir, Some(FS_TYPE), options.flags(), Some(data.as_str())) {
        Ok(()) => Ok(device.into()),
        Err(Errno::EPERM) => attach_by_helper(dir, options),
        Err(errno) => Err(MountError::Refused { dir: dir.to_owned(), source: errno.into() }),
    }
}

/// fusermount3 mounts and hands the device back through a socket, here its standard input.
fn attach_by_helper(dir: &Path, options: &MountOptions) -> Result<OwnedFd, MountError> {
    let failed = |source| MountError::Io { what: "cannot run fusermount3 for", dir: dir.to_owned(), source };
    let (ours, theirs) = UnixStream::pair().map_err(failed)?;
    let mut command = Command::new("fusermount3");
    command.arg("-o").arg(options.helper_list()).arg("--").arg(dir);
    command.env("_FUSE_COMMFD", "0").stdin(OwnedFd::from(theirs)).stdout(Stdio::null()).stderr(Stdio::piped());
    let child = command.spawn().map_err(failed)?;
    // Our copy of its end is closed with the command, so that its death ends the wait.
    drop(command);
    let device = receive_descriptor(&ours);
    let output = child.wait_with_output().map_err(failed)?;
    match device {
        Some(device) if output.status.success() => Ok(device),
        _ => Err(helper_error(dir, &output.stderr)),
    }
}

fn helper_error(dir: &Path, stderr: &[u8]) -> MountError {
    let text = String::from_utf8_lossy(stderr);
    let message = text.trim().trim_start_matches("fusermount3:").trim().to_owned();
    MountError::Helper { dir: dir.to_owned(), message }
}

fn receive_descriptor(socket: &UnixStream) -> Option<OwnedFd> {
    let mut byte = [0];
    let mut parts = [IoSliceMut::new(&mut byte)];
    let mut space = nix::cmsg_space!(RawFd);
    let received = loop {
        match recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC) {
            Err(Errno::EINTR) => {}
            result => break result.ok()?,
        }
    };
    let fd = received.cmsgs().ok()?.find_map(|message| match message {
        ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
        _ => None,
    })?;
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
    Some(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Unmounts what is mounted at `dir` (a resolved path).
///
/// # Errors
/// [`MountError::Busy`] names who uses it, as far as /proc tells.
pub fn detach(dir: &Path, how: Detach) -> Result<(), MountError> {
    let lazy = if how == Detach::Lazily { MntFlags::MNT_DETACH } else { MntFlags::empty() };
    match umount2(dir, lazy | MntFlags::UMOUNT_NOFOLLOW) {
        Ok(()) => Ok(()),
        Err(Errno::EPERM) => detach_by_helper(dir, how),
        Err(Errno::EBUSY) => Err(busy(dir)),
        Err(Errno::EINVAL | Errno::ENOENT) => Err(MountError::NotMounted(dir.to_owned())),
        Err(errno) => Err(MountError::Io { what: "cannot unmount", dir: dir.to_owned(), source: errno.into() }),
    }
}

pub(super) fn busy(dir: &Path) -> MountError {
    MountError::Busy { dir: dir.to_owned(), holders: Holders::of(dir) }
}

fn detach_by_helper(dir: &Path, how: Detach) -> Result<(), MountError> {
    let flags = if how == Detach::Lazily { "-uz" } else { "-u" };
    let output = Command::new("fusermount3").arg(flags).arg("--").arg(dir).stdin(Stdio::null()).output();
    let output =
        output.map_err(|source| MountError::Io { what: "cannot run fusermount3 for", dir: dir.to_owned(), source })?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    if text.contains("busy") { Err(busy(dir)) } else { Err(helper_error(dir, &output.stderr)) }
}

/// Lets sequential readers of the page cache read far ahead, where we may say so: `/sys/class/bdi/<device>`.
pub(super) fn widen_read_ahead(dir: &Path, read_ahead_kib: u32) {
    let Ok(Some(entry)) = mountinfo::mount_at(dir) else { return };
    let path = format!("/sys/class/bdi/{}/read_ahead_kb", entry.device);
    if let Err(error) = fs::write(&path, read_ahead_kib.to_string()) {
        tracing::debug!("{path}: {error}; reading ahead stays at the kernel's default");
    }
}
