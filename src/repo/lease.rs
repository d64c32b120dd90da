//! Leases within one host: files in the state directory, locked for as long as a process does something. A lock dies with its
//! process, so there is nothing to clean up and no clock to trust. They are a courtesy: nothing is lost without them.
//!
//! Open file description locks (fcntl(2)), because whether one is held can be asked without taking it: who only asks is in nobody's
//! way.

use crate::repo::{RepoError, Repository};
use crate::words::ids::Uid;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// A holder that leaves has the file to itself for a moment, to remove it. Whoever comes just then tries again so often.
const TRIES: u32 = 20;
const BETWEEN_TRIES: Duration = Duration::from_millis(5);

/// Held until dropped.
#[derive(Debug)]
pub struct Lease {
    path: PathBuf,
    file: File,
}

/// How it is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hold {
    /// With others.
    Shared,
    /// Alone.
    Alone,
}

impl Hold {
    /// The whole file.
    fn lock(self) -> libc::flock {
        let kind = if self == Self::Shared { libc::F_RDLCK } else { libc::F_WRLCK };
        libc::flock { l_type: kind as i16, l_whence: libc::SEEK_SET as i16, l_start: 0, l_len: 0, l_pid: 0 }
    }

    /// Locks, or changes how it is locked; `false` when others are in the way.
    fn take(self, file: &File) -> io::Result<bool> {
        match fcntl(file, FcntlArg::F_OFD_SETLK(&self.lock())) {
            Ok(_) => Ok(true),
            Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl Lease {
    /// Takes a lease that any number may hold.
    ///
    /// # Errors
    /// When somebody holds it alone, or the state directory fails.
    pub fn take(dir: &Path, name: &str) -> Result<Self, RepoError> {
        Self::acquire(dir, name, Hold::Shared).map_err(state(dir))
    }

    /// Takes it if nobody has it.
    ///
    /// # Errors
    /// When the state directory fails.
    pub fn take_alone(dir: &Path, name: &str) -> Result<Option<Self>, RepoError> {
        match Self::acquire(dir, name, Hold::Alone) {
            Ok(lease) => Ok(Some(lease)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(state(dir)(error)),
        }
    }

    /// Whether anybody holds it.
    ///
    /// # Errors
    /// When the state directory fails.
    pub fn is_held(dir: &Path, name: &str) -> Result<bool, RepoError> {
        Self::is_locked(&dir.join(name)).map_err(state(dir))
    }

    /// The names of all that are held.
    ///
    /// # Errors
    /// When the state directory fails.
    pub fn held(dir: &Path) -> Result<Vec<String>, RepoError> {
        let entries = match fs::read_dir(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(state(dir))?,
        };
        let mut held = Vec::new();
        for entry in entries {
            let entry = entry.map_err(state(dir))?;
            if Self::is_locked(&entry.path()).map_err(state(dir))? {
                held.extend(entry.file_name().into_string());
            }
        }
        held.sort_unstable();
        Ok(held)
    }

    fn is_locked(path: &Path) -> io::Result<bool> {
        let file = match File::options().read(true).write(true).open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            file => file?,
        };
        let mut lock = Hold::Alone.lock();
        fcntl(&file, FcntlArg::F_OFD_GETLK(&mut lock))?;
        Ok(i32::from(lock.l_type) != libc::F_UNLCK)
    }

    fn acquire(dir: &Path, name: &str, hold: Hold) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        let path = dir.join(name);
        for _ in 0..TRIES {
            let file = File::options().read(true).write(true).create(true).truncate(false).open(&path)?;
            if !hold.take(&file)? {
                std::thread::sleep(BETWEEN_TRIES);
                continue;
            }
            // The last holder may have removed the file between our opening and locking it: then this lock tells nobody
            // anything.
            if is_at(&file, &path) {
                return Ok(Self { path, file });
            }
        }
        Err(io::ErrorKind::WouldBlock.into())
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|there| file.metadata().is_ok_and(|ours| there.ino() == ours.ino()))
}

impl Drop for Lease {
    fn drop(&mut self) {
        // Whoever can hold it alone is the last, and may remove it. Closing the file ends the lock in any case.
        if Hold::Alone.take(&self.file).unwrap_or(false) && is_at(&self.file, &self.path) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn state(dir: &Path) -> impl FnOnce(io::Error) -> RepoError {
    let path = dir.display().to_string();
    move |source| RepoError::State { path, source: Arc::new(source) }
}

impl Repository {
    /// Leases of records that are being published by processes of this host, by uid.
    pub(super) fn publishing_dir(&self) -> PathBuf {
        self.state_dir().join("publishing")
    }

    /// Leases of versions that processes of this host read, by uid.
    fn readers_dir(&self) -> PathBuf {
        self.state_dir().join("readers")
    }

    /// Says, until dropped, that something is being read on this host: a version, or a pin that stands for it. It is not deleted
    /// meanwhile.
    ///
    /// # Errors
    /// [`RepoError::InUse`] when it is being deleted; when the state directory fails.
    pub fn lease_reading(&self, uid: Uid) -> Result<Lease, RepoError> {
        let dir = self.readers_dir();
        Lease::acquire(&dir, &uid.to_string(), Hold::Shared).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => RepoError::InUse { uid },
            _ => state(&dir)(error),
        })
    }

    /// Whether something is being read on this host.
    ///
    /// # Errors
    /// When the state directory fails.
    pub fn is_being_read(&self, uid: Uid) -> Result<bool, RepoError> {
        Lease::is_held(&self.readers_dir(), &uid.to_string())
    }

    /// The versions that are being read on this host.
    ///
    /// # Errors
    /// When the state directory or the catalog fails.
    pub fn versions_being_read(&self) -> Result<Vec<Uid>, RepoError> {
        let mut read = Vec::new();
        for uid in Lease::held(&self.readers_dir())?.iter().filter_map(|name| name.parse::<Uid>().ok()) {
            // Pins of readers have leases, too.
            if self.catalog().version_summary(uid)?.is_some() {
                read.push(uid);
            }
        }
        Ok(read)
    }

    /// For a deletion: nobody begins to read the version until this is dropped. `None` when somebody on this host reads it.
    ///
    /// # Errors
    /// When the state directory fails.
    pub fn lease_deletion(&self, uid: Uid) -> Result<Option<Lease>, RepoError> {
        Lease::take_alone(&self.readers_dir(), &uid.to_string())
    }

    /// For a collection: `None` when another one runs on this host.
    ///
    /// # Errors
    /// When the state directory fails.
    pub fn lease_collection(&self) -> Result<Option<Lease>, RepoError> {
        Lease::take_alone(self.state_dir(), "collection")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_share_and_keep_the_one_who_wants_it_alone_out() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (Lease::take(dir.path(), "a").unwrap(), Lease::take(dir.path(), "a").unwrap());
        assert!(Lease::is_held(dir.path(), "a").unwrap() && !Lease::is_held(dir.path(), "b").unwrap());
        assert_eq!(Lease::held(dir.path()).unwrap(), ["a"]);
        drop(first);
        assert!(Lease::take_alone(dir.path(), "a").unwrap().is_none());
        drop(second);
        let alone = Lease::take_alone(dir.path(), "a").unwrap().expect("nobody has it");
        assert!(Lease::take(dir.path(), "a").is_err());
        drop(alone);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        assert!(Lease::held(&dir.path().join("none")).unwrap().is_empty());
    }

    #[test]
    fn nobody_is_turned_away_by_those_who_ask_and_those_who_leave() {
        let dir = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..200).for_each(|_| drop(Lease::take(dir.path(), "a").unwrap())));
                scope.spawn(|| {
                    for _ in 0..200 {
                        Lease::is_held(dir.path(), "a").unwrap();
                    }
                });
            }
        });
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
