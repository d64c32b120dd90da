//! Unmounting from outside the daemon.

use crate::fs::process_watch;
use crate::fuse::mount::{self, Detach, Liveness, MountError};
use crate::fuse::pidfile::PidFile;
use std::path::Path;
use std::thread;
use std::time::Duration;

/// A mount that was just used may stay busy for a moment: descriptors are closed and loop devices let go a little later.
const BUSY_TRIES: u32 = 5;
const BUSY_PAUSE: Duration = Duration::from_millis(100);

/// Unmounts `dir` and waits until its daemon has made everything durable and ended. Cleans up, too, where the daemon is
/// dead, and waits for one that is still finishing after umount(8).
///
/// # Errors
/// [`MountError::Busy`] names who uses it; [`MountError::StillRunning`] after `patience`; [`MountError::NotMounted`] when
/// there is neither a mount nor a daemon.
pub fn umount(dir: &Path, run_dir: &Path, patience: Duration) -> Result<(), MountError> {
    let dir = mount::resolve(dir)?;
    let daemon = PidFile::new(run_dir, &dir).daemon();
    match mount::find(&dir)? {
        Some((_, Liveness::Stale)) => mount::detach(&dir, Detach::Lazily)?,
        Some((_, Liveness::Alive)) => detach_patiently(&dir)?,
        None if daemon.is_none() => return Err(MountError::NotMounted(dir)),
        None => {}
    }
    match daemon {
        Some(process) if !process_watch::wait_until_gone(process, patience) => {
            Err(MountError::StillRunning { dir, pid: process.tgid })
        }
        _ => Ok(()),
    }
}

fn detach_patiently(dir: &Path) -> Result<(), MountError> {
    for _ in 1..BUSY_TRIES {
        match mount::detach(dir, Detach::WhenIdle) {
            Err(MountError::Busy { .. }) => thread::sleep(BUSY_PAUSE),
            result => return result,
        }
    }
    mount::detach(dir, Detach::WhenIdle)
}
