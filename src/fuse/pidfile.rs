//! One file per mountpoint that says which daemon serves it. The daemon holds a lock on it as long as it lives, so the
//! file never lies: locked means alive, whatever its content and however the daemon ended.

use crate::fs::process::{self, ProcessId};
use crate::words::hex::hex;
use nix::fcntl::{Flock, FlockArg};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Where pid files live: `/run/backyfs` for root, else `$XDG_RUNTIME_DIR/backyfs`. `None`: see [`run_dir_below`].
pub fn run_dir() -> Option<PathBuf> {
    if nix::unistd::geteuid().is_root() {
        return Some(PathBuf::from("/run/backyfs"));
    }
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|dir| dir.is_absolute());
    runtime.map(|dir| dir.join("backyfs"))
}

/// Where they live when the system has no place for what runs: in the state directory.
pub fn run_dir_below(state_dir: &Path) -> PathBuf {
    state_dir.join("run")
}

/// The pid file of one mountpoint.
#[derive(Debug, Clone)]
pub struct PidFile {
    path: PathBuf,
}

/// A pid file held by the daemon it names. Dropping it removes it.
#[derive(Debug)]
pub struct HeldPidFile {
    path: PathBuf,
    _lock: Flock<File>,
}

impl PidFile {
    /// For a mountpoint (a resolved path). Its name is a digest, because a path may be longer than a file name.
    pub fn new(run_dir: &Path, mountpoint: &Path) -> Self {
        let digest = Sha256::digest(mountpoint.as_os_str().as_bytes());
        Self { path: run_dir.join(format!("{}.pid", hex(&digest[..16]))) }
    }

    /// Makes this process the one that serves the mountpoint. `None` when another does.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn hold(&self, mountpoint: &Path) -> io::Result<Option<HeldPidFile>> {
        if let Some(dir) = self.path.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o755).create(dir)?;
        }
        loop {
            let file =
                File::options().read(true).write(true).create(true).truncate(false).mode(0o644).open(&self.path)?;
            let mut lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => lock,
                Err((_, nix::errno::Errno::EWOULDBLOCK)) => return Ok(None),
                Err((_, errno)) => return Err(errno.into()),
            };
            // The daemon before us may have removed the file between our open and our lock.
            let same = fs::metadata(&self.path).is_ok_and(|now| lock.metadata().is_ok_and(|m| m.ino() == now.ino()));
            if !same {
                continue;
            }
            let pid = std::process::id();
            let start_ticks = process::opener(pid).map_or(0, |daemon| daemon.process.start_ticks);
            lock.set_len(0)?;
            lock.rewind()?;
            lock.write_all(format!("{pid} {start_ticks} {}\n", mountpoint.display()).as_bytes())?;
            return Ok(Some(HeldPidFile { path: self.path.clone(), _lock: lock }));
        }
    }

    /// The daemon that serves the mountpoint now.
    pub fn daemon(&self) -> Option<ProcessId> {
        let mut file = File::open(&self.path).ok()?;
        let mut text = String::new();
        file.read_to_string(&mut text).ok()?;
        let mut words = text.split_ascii_whitespace();
        let process = ProcessId { tgid: words.next()?.parse().ok()?, start_ticks: words.next()?.parse().ok()? };
        let locked =
            matches!(Flock::lock(file, FlockArg::LockSharedNonblock), Err((_, nix::errno::Errno::EWOULDBLOCK)));
        (locked && process::is_running(process)).then_some(process)
    }
}

impl Drop for HeldPidFile {
    fn drop(&mut self) {
        // Removed while the lock is held: nobody else can have taken the file over.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn held_by_one_and_only_while_it_lives() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("a/run");
        let file = PidFile::new(&run, Path::new("/mnt/x y"));
        assert_eq!(file.daemon(), None);
        let held = file.hold(Path::new("/mnt/x y")).unwrap().unwrap();
        assert_eq!(file.daemon().unwrap().tgid, std::process::id());
        assert!(file.hold(Path::new("/mnt/x y")).unwrap().is_none());
        assert!(PidFile::new(&run, Path::new("/mnt/z")).hold(Path::new("/mnt/z")).unwrap().is_some());
        let text = fs::read_to_string(&held.path).unwrap();
        assert!(text.ends_with(" /mnt/x y\n"), "{text}");
        drop(held);
        assert_eq!(fs::read_dir(&run).unwrap().count(), 0);
        // A file left by a daemon that was killed: nobody holds the lock.
        fs::write(&file.path, "1 1 /mnt/x y\n").unwrap();
        assert_eq!(file.daemon(), None);
        assert!(file.hold(Path::new("/mnt/x y")).unwrap().is_some());
    }
}
