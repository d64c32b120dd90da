//! Unfinished objects: a temporary file on its way to its name.

use crate::target::Put;
use crate::target::dir::root::{Trouble, sync_directory};
use crate::target::dir::step::{Gate, Step};
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, FcntlArg, OFlag, fcntl, openat, renameat};
use nix::sys::stat::{Mode, fstatat};
use nix::unistd::{UnlinkatFlags, linkat, unlinkat};
use rustix::fs::{RenameFlags, renameat_with};
use std::fs::File;
use std::io::{self, IoSlice, Write};
use std::os::fd::{AsRawFd, OwnedFd};

/// Bytes handed to the kernel in one call, after which it is told to begin writing them out.
const WRITE_BYTES: usize = 4 << 20;
/// Slices in one call (IOV_MAX).
const WRITE_SLICES: usize = 1024;
/// What the kernel asks of the address, offset and length of a write that goes round the page cache: the sector size, which is
/// at most a page on what is sold today. Where it is more the write is refused and goes through the cache.
const DIRECT_ALIGNMENT: usize = 4096;
/// Below this a write round the page cache gains nothing.
const DIRECT_MIN_BYTES: usize = 1 << 20;

/// What becomes of an object that has the name already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Existing {
    Replace,
    Keep,
}

/// A temporary file. Dropping it before it is published removes it.
///
/// It holds an exclusive flock(2) while its writer lives, which is how [`sweep`] tells it from a dead one's.
pub(super) struct Upload<'a> {
    directory: &'a OwnedFd,
    name: &'a str,
    file: File,
    gate: &'a dyn Gate,
    published: bool,
}

impl<'a> Upload<'a> {
    /// Makes it. `name` must be unique in the directory.
    pub(super) fn create(directory: &'a OwnedFd, name: &'a str, gate: &'a dyn Gate) -> Result<Self, Trouble> {
        gate.pass(Step::Create)?;
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
        let file = File::from(openat(directory, name, flags, Mode::S_IRUSR | Mode::S_IWUSR)?);
        // Where locks are unknown (NFS without lockd) it goes without: sweep then leaves the file alone.
        let _ = file.try_lock();
        Ok(Self { directory, name, file, gate, published: false })
    }

    /// Writes the parts one after the other and makes them durable. What begins with a long part in page-aligned memory, as
    /// packs do, goes round the page cache: copying into it costs as much as compressing, and displaces what others use.
    pub(super) fn write(&mut self, parts: &[&[u8]]) -> Result<(), Trouble> {
        let direct = match parts.first() {
            Some(first) => self.write_direct(first)?,
            None => 0,
        };
        let left = parts.iter().enumerate().map(|(index, part)| if index == 0 { &part[direct..] } else { part });
        let mut pieces = left.flat_map(|part| part.chunks(WRITE_BYTES)).peekable();
        let mut offset = direct as i64;
        while pieces.peek().is_some() {
            let (mut batch, mut len) = (Vec::new(), 0);
            while let Some(piece) = pieces.next_if(|p| batch.len() < WRITE_SLICES && len + p.len() <= WRITE_BYTES) {
                len += piece.len();
                batch.push(IoSlice::new(piece));
            }
            self.gate.pass(Step::Write)?;
            self.write_all(&mut batch)?;
            if pieces.peek().is_some() {
                self.start_writeback(offset, len);
            }
            offset += len as i64;
        }
        self.gate.pass(Step::SyncData)?;
        nix::unistd::fdatasync(&self.file)?;
        Ok(())
    }

    /// Writes as much of the start of the file as can go round the page cache, and returns how much that was.
    fn write_direct(&mut self, bytes: &[u8]) -> Result<usize, Trouble> {
        let aligned = bytes.len() - bytes.len() % DIRECT_ALIGNMENT;
        if aligned < DIRECT_MIN_BYTES
            || bytes.as_ptr().align_offset(DIRECT_ALIGNMENT) != 0
            || self.set_direct(true).is_err()
        {
            return Ok(0);
        }
        let mut done = 0;
        while done < aligned {
            self.gate.pass(Step::Write)?;
            let end = aligned.min(done + WRITE_BYTES);
            match self.file.write(&bytes[done..end]) {
                Ok(0) => return Err(Trouble::from(io::Error::from(io::ErrorKind::WriteZero))),
                Ok(written) => done += written,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // This filesystem cannot, or wants another alignment: after a short write, too.
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => break,
                Err(error) => return Err(error.into()),
            }
        }
        self.set_direct(false)?;
        Ok(done)
    }

    /// Lets what is written from now on go round the page cache, or through it again.
    fn set_direct(&self, on: bool) -> Result<(), Errno> {
        let mut flags = OFlag::from_bits_retain(fcntl(&self.file, FcntlArg::F_GETFL)?);
        flags.set(OFlag::O_DIRECT, on);
        fcntl(&self.file, FcntlArg::F_SETFL(flags)).map(drop)
    }

    fn write_all(&mut self, mut slices: &mut [IoSlice<'_>]) -> io::Result<()> {
        while !slices.is_empty() {
            match self.file.write_vectored(slices) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => IoSlice::advance_slices(&mut slices, written),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The disk works while the next part is copied; fdatasync then finds less to do. A hint: its failure shows at fdatasync.
    fn start_writeback(&self, offset: i64, len: usize) {
        // SAFETY: takes no pointers; the descriptor is open for as long as self.file lives.
        unsafe { libc::sync_file_range(self.file.as_raw_fd(), offset, len as i64, libc::SYNC_FILE_RANGE_WRITE) };
    }

    /// Gives it its name and makes whichever object has that durable.
    pub(super) fn publish(mut self, directory: &OwnedFd, name: &str, existing: Existing) -> Result<Put, Trouble> {
        self.gate.pass(Step::Rename)?;
        let renamed = match existing {
            Existing::Replace => renameat(self.directory, self.name, directory, name),
            // nix has it for glibc alone.
            Existing::Keep => renameat_with(self.directory, self.name, directory, name, RenameFlags::NOREPLACE)
                .map_err(|error| Errno::from_raw(error.raw_os_error())),
        };
        let put = match (renamed, existing) {
            (Ok(()), _) => {
                self.published = true;
                Put::Created
            }
            (Err(Errno::ENOENT), _) => return Err(Trouble::UploadRemoved),
            (Err(Errno::EEXIST), Existing::Keep) => Put::Exists,
            // NFS and others know no RENAME_NOREPLACE; link(2) does not replace either.
            (Err(Errno::EINVAL | Errno::ENOSYS | Errno::ENOTSUP), Existing::Keep) => self.link(directory, name)?,
            (Err(errno), _) => return Err(errno.into()),
        };
        self.gate.pass(Step::SyncDirectory)?;
        sync_directory(directory)?;
        Ok(put)
    }

    /// Links it to its name; dropping self removes the temporary one.
    pub(super) fn link(&self, directory: &OwnedFd, name: &str) -> Result<Put, Trouble> {
        match linkat(self.directory, self.name, directory, name, AtFlags::empty()) {
            Ok(()) => Ok(Put::Created),
            // An answer lost on the network makes the client ask again and find its own link (link(2), NFS).
            Err(Errno::EEXIST) => {
                let own = fstatat(self.directory, self.name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
                let there = fstatat(directory, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
                Ok(if own.st_ino == there.st_ino { Put::Created } else { Put::Exists })
            }
            Err(Errno::ENOENT) => Err(Trouble::UploadRemoved),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl Drop for Upload<'_> {
    fn drop(&mut self) {
        if !self.published && self.gate.pass(Step::Discard).is_ok() {
            // A leftover is removed by the next sweep.
            let _ = unlinkat(self.directory, self.name, UnlinkatFlags::NoRemoveDir);
        }
    }
}

/// Removes the temporary files of writers that are gone: those nobody has locked.
///
/// Removing one is safe at any time, even that of a living writer (of a host whose locks are not seen here, or in the instant
/// between creating and locking): its rename then finds nothing and the upload fails or is repeated; it can never publish a
/// part. So nothing here needs to be certain, and failing to remove is no error.
pub(super) fn sweep(directory: OwnedFd) {
    let Ok(mut listing) = Dir::from_fd(directory) else { return };
    let names: Vec<_> = listing.iter().flatten().map(|entry| entry.file_name().to_owned()).collect();
    for name in names {
        let flags = OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let Ok(fd) = openat(&listing, name.as_c_str(), flags, Mode::empty()) else { continue };
        if File::from(fd).try_lock().is_ok() {
            let _ = unlinkat(&listing, name.as_c_str(), UnlinkatFlags::NoRemoveDir);
        }
    }
}
