//! The local files an overlay consists of, behind a seam where tests can cut the power.

use crate::words::attribute::Mtime;
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, Flock, FlockArg, fallocate};
use nix::sys::stat::futimens;
use nix::sys::time::TimeSpec;
use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

/// A directory of files.
pub trait LocalDisk: Send + Sync {
    /// Opens for reading and writing, creates when absent. The name may be lost in a crash until [`Self::sync`].
    fn open(&self, name: &str) -> io::Result<Box<dyn LocalFile>>;
    /// Like [`Self::open`], and holds the file against every other caller of this method, in any process, until it is dropped;
    /// [`io::ErrorKind::WouldBlock`] when another holds it.
    fn open_locked(&self, name: &str) -> io::Result<Box<dyn LocalFile>>;
    /// Whether a name exists.
    fn exists(&self, name: &str) -> io::Result<bool>;
    /// Replaces `to` by `from`, atomically; durable only after [`Self::sync`].
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a name; an absent one is fine. Durable only after [`Self::sync`].
    fn remove(&self, name: &str) -> io::Result<()>;
    /// All creations, renames and removals up to now are durable on return.
    fn sync(&self) -> io::Result<()>;
}

/// One file. Reads and writes may come from several threads.
pub trait LocalFile: Send + Sync {
    /// Fills `buffer`; the end of the file is an error.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes all of `bytes`. After an error any part of them may be there.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Frees the space of a range; it reads zero afterwards. After an error nothing is known of the range.
    fn punch(&self, range: Range<u64>) -> io::Result<()>;
    /// Sets the length; what is added reads zero.
    fn set_len(&self, len_bytes: u64) -> io::Result<()>;
    /// Length.
    fn len_bytes(&self) -> io::Result<u64>;
    /// Bytes the file takes on the disk.
    fn allocated_bytes(&self) -> io::Result<u64>;
    /// The first range at or after `offset` that takes space, if there is one.
    fn next_allocated(&self, offset: u64) -> io::Result<Option<Range<u64>>>;
    /// Content and length are durable on return.
    fn sync_data(&self) -> io::Result<()>;
    /// Content, length and times are durable on return.
    fn sync_all(&self) -> io::Result<()>;
    /// Begins to write a file's content to the disk and does not wait for it.
    fn start_writeback(&self) -> io::Result<()>;
    /// Time of the last change of content. Every successful write and punch advances it.
    fn mtime(&self) -> io::Result<Mtime>;
    /// Sets it; `None` means now.
    fn set_mtime(&self, mtime: Option<Mtime>) -> io::Result<()>;
}

/// A directory of the real filesystem.
pub struct Directory(PathBuf);

impl Directory {
    /// The directory at `path`, which exists.
    pub fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    fn open_file(&self, name: &str) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(self.0.join(name))
    }
}

impl LocalDisk for Directory {
    fn open(&self, name: &str) -> io::Result<Box<dyn LocalFile>> {
        Ok(Box::new(self.open_file(name)?))
    }

    fn open_locked(&self, name: &str) -> io::Result<Box<dyn LocalFile>> {
        loop {
            let file = Flock::lock(self.open_file(name)?, FlockArg::LockExclusiveNonblock)
                .map_err(|(_, errno)| io::Error::from(errno))?;
            // Between open and lock another holder may have removed the name: then this lock protects nothing.
            let held = file.metadata()?.ino();
            match std::fs::metadata(self.0.join(name)) {
                Ok(named) if named.ino() == held => return Ok(Box::new(file)),
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
    }

    fn exists(&self, name: &str) -> io::Result<bool> {
        self.0.join(name).try_exists()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.0.join(from), self.0.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        match std::fs::remove_file(self.0.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.0)?.sync_all()
    }
}

fn signed(value: u64) -> io::Result<i64> {
    i64::try_from(value).map_err(|_| io::ErrorKind::FileTooLarge.into())
}

impl LocalFile for File {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.read_exact_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn punch(&self, range: Range<u64>) -> io::Result<()> {
        let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        Ok(fallocate(self, flags, signed(range.start)?, signed(range.end - range.start)?)?)
    }

    fn set_len(&self, len_bytes: u64) -> io::Result<()> {
        File::set_len(self, len_bytes)
    }

    fn len_bytes(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn allocated_bytes(&self) -> io::Result<u64> {
        Ok(self.metadata()?.blocks() * 512)
    }

    fn next_allocated(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
        let seek = |offset: u64, whence| -> io::Result<Option<u64>> {
            // SAFETY: lseek takes no pointers and the descriptor is open as long as `self`. The file position it moves is
            // used by nothing else: all reads and writes name their offset.
            let found = unsafe { libc::lseek64(self.as_raw_fd(), signed(offset)?, whence) };
            match Errno::result(found) {
                Ok(found) => Ok(u64::try_from(found).ok()),
                Err(Errno::ENXIO) => Ok(None),
                Err(errno) => Err(errno.into()),
            }
        };
        let Some(start) = seek(offset, libc::SEEK_DATA)? else { return Ok(None) };
        Ok(seek(start, libc::SEEK_HOLE)?.map(|end| start..end))
    }

    fn sync_data(&self) -> io::Result<()> {
        File::sync_data(self)
    }

    fn sync_all(&self) -> io::Result<()> {
        File::sync_all(self)
    }

    fn start_writeback(&self) -> io::Result<()> {
        // SAFETY: sync_file_range takes no pointers and the descriptor is open as long as `self`.
        let result = unsafe { libc::sync_file_range(self.as_raw_fd(), 0, 0, libc::SYNC_FILE_RANGE_WRITE) };
        Ok(Errno::result(result).map(drop)?)
    }

    fn mtime(&self) -> io::Result<Mtime> {
        let metadata = self.metadata()?;
        Ok(Mtime { seconds: metadata.mtime(), nanos: u32::try_from(metadata.mtime_nsec()).unwrap_or(0) })
    }

    fn set_mtime(&self, mtime: Option<Mtime>) -> io::Result<()> {
        let time = mtime.map_or(TimeSpec::UTIME_NOW, |mtime| TimeSpec::new(mtime.seconds, i64::from(mtime.nanos)));
        Ok(futimens(self, &TimeSpec::UTIME_OMIT, &time)?)
    }
}

macro_rules! forward {
    ($($name:ident(&self $(, $arg:ident: $type:ty)*) -> $result:ty;)*) => {
        impl LocalFile for Flock<File> {
            $(fn $name(&self $(, $arg: $type)*) -> $result {
                LocalFile::$name(&**self $(, $arg)*)
            })*
        }
    };
}

forward! {
    read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
    write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    punch(&self, range: Range<u64>) -> io::Result<()>;
    set_len(&self, len_bytes: u64) -> io::Result<()>;
    len_bytes(&self) -> io::Result<u64>;
    allocated_bytes(&self) -> io::Result<u64>;
    next_allocated(&self, offset: u64) -> io::Result<Option<Range<u64>>>;
    sync_data(&self) -> io::Result<()>;
    sync_all(&self) -> io::Result<()>;
    start_writeback(&self) -> io::Result<()>;
    mtime(&self) -> io::Result<Mtime>;
    set_mtime(&self, mtime: Option<Mtime>) -> io::Result<()>;
}
