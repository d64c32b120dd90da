//! Unmounting from outside the daemon.
//!
//! ```text
//! in use? -> store what was written, while it can still be told -> unmount -> wait for the daemon to end
//! ```
//!
//! A mount whose target does not take what was written stays where it is: once it is gone, nobody could be told.

use crate::fs::process::{self, ProcessId};
use crate::fs::process_watch;
use crate::fuse::mount::{self, Detach, Liveness, MountError};
use crate::fuse::pidfile::PidFile;
use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};
use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// A mount that was just used may stay busy for a moment: descriptors are closed and loop devices let go a little later.
const BUSY_TRIES: u32 = 5;
const BUSY_PAUSE: Duration = Duration::from_millis(100);
/// After this somebody who waits is told what for.
const SILENCE: Duration = Duration::from_secs(5);
/// How long a daemon that is given up may take to end by itself.
const LAST_CHANCE: Duration = Duration::from_secs(5);

/// How insistently to unmount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Insistence {
    /// When nobody uses it and everything is stored.
    Polite,
    /// Out of sight at once; those who use it go on, and nothing is waited for.
    Lazy,
    /// Whoever uses it is cut off; what is not stored is given up.
    Forced,
}

/// Unmounts `dir` and waits until its daemon has made everything durable and ended. Cleans up, too, where the daemon is
/// dead, and waits for one that is still finishing after umount(2). `say` is told what takes long.
///
/// # Errors
/// [`MountError::Busy`] names who uses it; [`MountError::NotStored`] when the target does not take what was written;
/// [`MountError::StillRunning`] after `patience`; [`MountError::NotMounted`] when there is neither a mount nor a daemon.
pub fn umount(
    dir: &Path,
    run_dir: &Path,
    how: Insistence,
    patience: Duration,
    say: &dyn Fn(&str),
) -> Result<(), MountError> {
    let dir = mount::resolve(dir)?;
    let daemon = PidFile::new(run_dir, &dir).daemon();
    let mounted =
        if how == Insistence::Forced { mount::entry(&dir)?.map(|_| Liveness::Alive) } else { liveness(&dir)? };
    match (mounted, how) {
        (None, _) if daemon.is_none() => return Err(MountError::NotMounted(dir)),
        (None, _) => {}
        (Some(Liveness::Stale), _) => mount::detach(&dir, Detach::Lazily)?,
        (Some(Liveness::Alive), Insistence::Lazy) => return mount::detach(&dir, Detach::Lazily),
        (Some(Liveness::Alive), Insistence::Forced) => cut_off(&dir)?,
        (Some(Liveness::Alive), Insistence::Polite) => {
            check_idle(&dir)?;
            store(&dir, patience, say)?;
            patiently(|| mount::detach(&dir, Detach::WhenIdle))?;
        }
    }
    match daemon {
        None => Ok(()),
        Some(process) if how == Insistence::Forced => end(&dir, process, say),
        Some(process) => await_end(&dir, process, patience, say),
    }
}

fn liveness(dir: &Path) -> Result<Option<Liveness>, MountError> {
    Ok(mount::find(dir)?.map(|(_, liveness)| liveness))
}

fn patiently(mut attempt: impl FnMut() -> Result<(), MountError>) -> Result<(), MountError> {
    for _ in 1..BUSY_TRIES {
        match attempt() {
            Err(MountError::Busy { .. }) => thread::sleep(BUSY_PAUSE),
            result => return result,
        }
    }
    attempt()
}

/// Asks the kernel whether somebody uses the mount, by marking it as expired, which looking at it undoes. Root alone may; for others
/// the attempt to unmount tells.
fn check_idle(dir: &Path) -> Result<(), MountError> {
    patiently(|| match umount2(dir, MntFlags::MNT_EXPIRE | MntFlags::UMOUNT_NOFOLLOW) {
        Err(Errno::EBUSY) => Err(mount::busy(dir)),
        _ => Ok(()),
    })
}

/// fsync(2) of the root of the mount, in a process of its own: whoever waits in the kernel for a daemon cannot even be killed.
fn store(dir: &Path, patience: Duration, say: &dyn Fn(&str)) -> Result<(), MountError> {
    let failed = |source| MountError::Io { what: "cannot look at", dir: dir.to_owned(), source };
    let path = CString::new(dir.as_os_str().as_bytes()).map_err(|error| failed(error.into()))?;
    // SAFETY: the child calls nothing but open(2), fsync(2) and _exit(2), whatever locks other threads held.
    let child = match unsafe { fork() }.map_err(|errno| failed(errno.into()))? {
        ForkResult::Parent { child } => child,
        ForkResult::Child => {
            // SAFETY: the path ends with a zero byte, and everything ends with the process.
            unsafe {
                let fd = libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC);
                let done = if fd < 0 { fd } else { libc::fsync(fd) };
                libc::_exit(if done == 0 { 0 } else { *libc::__errno_location() })
            }
        }
    };
    match wait_for(child, dir, patience, say) {
        Some(WaitStatus::Exited(_, 0)) => Ok(()),
        // Not ours to look at, or gone by itself.
        Some(WaitStatus::Exited(
            _,
            libc::EACCES | libc::EPERM | libc::ENOENT | libc::ENOTCONN | libc::ECONNABORTED,
        )) => Ok(()),
        Some(WaitStatus::Exited(_, code)) => {
            Err(MountError::NotStored { dir: dir.to_owned(), source: io::Error::from_raw_os_error(code) })
        }
        _ => Err(MountError::NotStored { dir: dir.to_owned(), source: io::ErrorKind::TimedOut.into() }),
    }
}

/// How the child ended; `None` when it has not in time, or somebody else asked.
fn wait_for(child: Pid, dir: &Path, patience: Duration, say: &dyn Fn(&str)) -> Option<WaitStatus> {
    let (start, mut pause, mut told) = (Instant::now(), Duration::from_millis(1), false);
    loop {
        match waitpid(child, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => {}
            ended => return ended.ok(),
        }
        if start.elapsed() >= patience {
            // It ends when it is answered.
            let _ = kill(child, Signal::SIGKILL);
            return None;
        }
        if start.elapsed() >= SILENCE && !told {
            told = true;
            say(&format!(
                "waiting until the target has taken what was written to {dir}; `umount -f {dir}` gives that up",
                dir = dir.display()
            ));
        }
        thread::sleep(pause);
        pause = (pause * 2).min(BUSY_PAUSE);
    }
}

fn await_end(dir: &Path, process: ProcessId, patience: Duration, say: &dyn Fn(&str)) -> Result<(), MountError> {
    if process_watch::wait_until_gone(process, SILENCE.min(patience)) {
        return Ok(());
    }
    say(&format!(
        "{dir} is unmounted; waiting for its daemon (pid {pid}) to finish",
        dir = dir.display(),
        pid = process.tgid
    ));
    match process_watch::wait_until_gone(process, patience.saturating_sub(SILENCE)) {
        true => Ok(()),
        false => Err(MountError::StillRunning { dir: dir.to_owned(), pid: process.tgid }),
    }
}

/// Fails everything that is asked of the mount, and takes it out of the tree.
fn cut_off(dir: &Path) -> Result<(), MountError> {
    match umount2(dir, MntFlags::MNT_FORCE | MntFlags::UMOUNT_NOFOLLOW) {
        Ok(()) => Ok(()),
        _ => match mount::detach(dir, Detach::Lazily) {
            // Forced, the connection is cut in any case, and the daemon may have taken the mount away by now.
            Err(MountError::NotMounted(_)) => Ok(()),
            detached => detached,
        },
    }
}

/// A daemon that does not end by itself is killed: it waits for a target that does not answer.
fn end(dir: &Path, process: ProcessId, say: &dyn Fn(&str)) -> Result<(), MountError> {
    if process_watch::wait_until_gone(process, LAST_CHANCE) {
        return Ok(());
    }
    let pid = Pid::from_raw(i32::try_from(process.tgid).unwrap_or(i32::MAX));
    if process::is_running(process) && kill(pid, Signal::SIGKILL).is_ok() {
        say(&format!("the daemon of {} was killed: what the target had not taken is lost", dir.display()));
    }
    match process_watch::wait_until_gone(process, LAST_CHANCE) {
        true => Ok(()),
        false => Err(MountError::StillRunning { dir: dir.to_owned(), pid: process.tgid }),
    }
}
