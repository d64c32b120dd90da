//! What a restore writes: a new file, a file that is replaced, or a block device.
//!
//! A file appears under its name only when it is whole. Until then it is called `NAME.backyfs-part`, and stays so when the
//! restore fails: `--continue` goes on with it. A file that is replaced stays as it was until then, too. A device is written
//! in place; one that is mounted or otherwise in use is refused whatever is asked for.

use crate::source::destination::{Consent, Destination, Holes, Start};
use crate::source::file::device_bytes;
use crate::source::{SourceError, page_cache};
use crate::words::attribute::FileAttributes;
use crate::words::zero::is_zero;
use nix::fcntl::{Flock, FlockArg};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// What an unfinished file is called: its name and this.
pub const PART_SUFFIX: &str = ".backyfs-part";
/// What is looked at at once where zeros are to stand.
const CLEAR_BYTES: usize = 1 << 20;
/// What will be done, before anything is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DestinationPlan {
    path: PathBuf,
    size_bytes: u64,
    how: How,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum How {
    /// Written to a part file, then renamed.
    Part { part: PathBuf, replaces: bool, start: Start },
    /// An existing file, compared block by block.
    InPlace,
    /// A block device.
    Device,
}

/// An open destination. Threads may write at different offsets.
#[derive(Debug)]
pub struct FileDestination {
    plan: DestinationPlan,
    file: Flock<File>,
    /// Whether all of it reads as zero where nothing was written.
    fresh: bool,
    /// Whether a part file has got its name.
    is_named: AtomicBool,
}

/// Decides how to restore to `path`. Changes nothing.
///
/// # Errors
/// When it exists without consent, is too small, or is nothing that can hold an image.
pub fn plan(path: &Path, size_bytes: u64, consent: Consent, start: Start) -> Result<DestinationPlan, SourceError> {
    let failed = |action, source| SourceError::Destination { what: path.display().to_string(), action, source };
    let kind =
        |problem: &str| SourceError::DestinationKind { what: path.display().to_string(), problem: problem.to_owned() };
    let exists = || SourceError::Exists { what: path.display().to_string() };
    let existing = match std::fs::metadata(path) {
        Ok(metadata) => Some(metadata.file_type()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(failed("looked at", error)),
    };
    // A link is followed: what it names is written, the link stays.
    let path = match existing {
        Some(_) => path.canonicalize().map_err(|error| failed("found", error))?,
        None if path.symlink_metadata().is_ok() => return Err(kind("it is a link that leads nowhere")),
        None => std::path::absolute(path).map_err(|error| failed("found", error))?,
    };
    let done = |how| Ok(DestinationPlan { path: path.clone(), size_bytes, how });
    let part = part_of(&path).ok_or_else(|| kind("it has no file name"))?;
    let part_exists = part.symlink_metadata().is_ok();
    match existing {
        Some(file_type) if file_type.is_block_device() && consent == Consent::None => Err(exists()),
        Some(file_type) if file_type.is_block_device() => done(How::Device),
        Some(file_type) if file_type.is_dir() => Err(kind("it is a directory; name the file to be made in it")),
        Some(file_type) if !file_type.is_file() => {
            Err(kind("it is neither a file nor a block device; use - to write to a pipe"))
        }
        Some(_) if consent == Consent::None => Err(exists()),
        Some(_) if start == Start::Resume && !part_exists => done(How::InPlace),
        _ if part_exists && consent == Consent::None && start == Start::Anew => {
            Err(SourceError::Unfinished { path: part })
        }
        _ => done(How::Part { part, replaces: existing.is_some(), start }),
    }
}

fn part_of(path: &Path) -> Option<PathBuf> {
    let mut name = path.file_name()?.to_owned();
    name.push(PART_SUFFIX);
    Some(path.with_file_name(name))
}

impl DestinationPlan {
    /// Opens it for writing. From here on things change.
    ///
    /// # Errors
    /// When it cannot be opened, is in use, or is too small.
    pub fn execute(self, holes: Holes) -> Result<FileDestination, SourceError> {
        let written = self.written_path().to_owned();
        let failed = |action| {
            let path = written.display().to_string();
            move |source| SourceError::Destination { what: path, action, source }
        };
        let mut options = OpenOptions::new();
        options.read(true).write(true).mode(0o600);
        match &self.how {
            How::Part { start: Start::Anew, part, .. } => {
                // What another restore is writing now would be finished by it under the name, with what this one wrote so far.
                if part.symlink_metadata().is_ok_and(|left| left.is_file()) {
                    lock(File::open(part).map_err(failed("opened"))?).map_err(failed(IN_USE))?;
                }
                match std::fs::remove_file(part) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("removed")(error)),
                    _ => options.create_new(true),
                };
            }
            How::Part { start: Start::Resume, .. } => drop(options.create(true).custom_flags(libc::O_NOFOLLOW)),
            How::InPlace => {}
            // Exclusive: the kernel refuses a device that is mounted or part of something (open(2), O_EXCL).
            How::Device => drop(options.custom_flags(libc::O_EXCL)),
        }
        let file = options.open(self.written_path()).map_err(|error| match (&self.how, error.kind()) {
            (How::Device, io::ErrorKind::ResourceBusy) => SourceError::InUse { what: self.path.display().to_string() },
            _ => failed("opened")(error),
        })?;
        let file = lock(file).map_err(failed(IN_USE))?;
        let mut fresh = false;
        if self.how == How::Device {
            let has_bytes = device_bytes(&file).map_err(failed("measured"))?;
            if has_bytes < self.size_bytes {
                return Err(SourceError::TooSmall {
                    what: self.path.display().to_string(),
                    has_bytes,
                    needed_bytes: self.size_bytes,
                });
            }
        } else {
            // Not every file system tells the blocks of what it holds.
            fresh = file.metadata().map_err(failed("measured"))?.len() == 0;
            file.set_len(self.size_bytes).map_err(failed("resized"))?;
            if holes == Holes::Allocate && self.size_bytes > 0 {
                allocate(&file, self.size_bytes).map_err(failed("given its space"))?;
            }
        }
        Ok(FileDestination { plan: self, file, fresh, is_named: AtomicBool::new(false) })
    }

    /// The path that is written to.
    fn written_path(&self) -> &Path {
        match &self.how {
            How::Part { part, .. } => part,
            How::InPlace | How::Device => &self.path,
        }
    }
}

impl FileDestination {
    /// Where unfinished work is to be found; `None` when it is the destination itself.
    pub fn part(&self) -> Option<&Path> {
        if let How::Part { part, .. } = &self.plan.how { Some(part) } else { None }
    }

    /// Writes zeros where anything else stands. Reading where nothing is allocated allocates nothing, as writing does.
    fn clear(&self, range: &Range<u64>) -> Result<(), SourceError> {
        let mut found = vec![0; CLEAR_BYTES];
        let mut at = range.start;
        while at < range.end {
            let part = usize::try_from(range.end - at).unwrap_or(usize::MAX).min(CLEAR_BYTES);
            let found = &mut found[..part];
            self.read(at, found)?;
            if !is_zero(found) {
                found.fill(0);
                self.write(at, found)?;
            }
            at += part as u64;
        }
        Ok(())
    }

    fn failed(&self, action: &'static str) -> impl Fn(io::Error) -> SourceError {
        let path = self.plan.written_path().display().to_string();
        move |source| SourceError::Destination { what: path.clone(), action, source }
    }
}

impl Destination for FileDestination {
    fn is_fresh(&self) -> bool {
        self.fresh
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<(), SourceError> {
        self.file.read_exact_at(buffer, offset).map_err(self.failed("read"))
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), SourceError> {
        self.file.write_all_at(data, offset).map_err(self.failed("written"))
    }

    fn zero(&self, range: &Range<u64>) -> Result<(), SourceError> {
        let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        let len = range.end.saturating_sub(range.start);
        if len == 0 || fallocate(&self.file, mode, range.start, len).is_ok() {
            return Ok(());
        }
        // A filesystem without holes, or a device that does not know zeros, as a thin volume.
        if self.plan.how == How::Device {
            discard(&self.file, range);
        }
        self.clear(range)
    }

    fn resize(&self, size_bytes: u64) -> Result<(), SourceError> {
        if self.plan.how != How::Device {
            return self.file.set_len(size_bytes).map_err(self.failed("resized"));
        }
        let has_bytes = device_bytes(&self.file).map_err(self.failed("measured"))?;
        if has_bytes < size_bytes {
            let what = self.plan.path.display().to_string();
            return Err(SourceError::TooSmall { what, has_bytes, needed_bytes: size_bytes });
        }
        Ok(())
    }

    fn start_writeback(&self) {
        // SAFETY: takes numbers only; it is a hint, and its failure shows at the final sync.
        unsafe { libc::sync_file_range(self.file.as_raw_fd(), 0, 0, libc::SYNC_FILE_RANGE_WRITE) };
    }

    fn finish(&self, attributes: &FileAttributes) -> Result<String, SourceError> {
        self.file.sync_all().map_err(self.failed("made durable"))?;
        page_cache::forget_all(&self.file);
        let path = self.plan.path.display().to_string();
        let How::Part { part, replaces, .. } = &self.plan.how else { return Ok(path) };
        if self.is_named.load(Ordering::Relaxed) {
            return Ok(path);
        }
        // Between its making and its lock somebody may have removed it and begun his own: that is not given the name.
        let (ours, there) = (self.file.metadata(), part.symlink_metadata());
        let same = ours.and_then(|ours| there.map(|there| (ours.dev(), ours.ino()) == (there.dev(), there.ino())));
        if !same.map_err(self.failed("looked at"))? {
            return Err(self.failed("renamed")(io::Error::other("another restore has begun anew")));
        }
        let replaced = std::fs::metadata(&self.plan.path).ok();
        let (mode, uid, gid) = match &replaced {
            Some(old) => (old.mode() & 0o7777, old.uid(), old.gid()),
            None => (attributes.mode & 0o7777, attributes.uid, attributes.gid),
        };
        // Only root may give files away; to others the file belongs anyway.
        if nix::unistd::geteuid().is_root() {
            std::os::unix::fs::fchown(&*self.file, Some(uid), Some(gid)).map_err(self.failed("given its owner"))?;
        }
        let permissions = std::fs::Permissions::from_mode(mode);
        self.file.set_permissions(permissions).map_err(self.failed("given its mode"))?;
        if *replaces {
            std::fs::rename(part, &self.plan.path).map_err(self.failed("renamed"))?;
        } else {
            rename_to_new(part, &self.plan.path).map_err(self.failed("renamed (what was written is kept)"))?;
        }
        self.is_named.store(true, Ordering::Relaxed);
        let directory = self.plan.path.parent().unwrap_or(Path::new("/"));
        File::open(directory).and_then(|dir| dir.sync_all()).map_err(self.failed("made durable"))?;
        Ok(path)
    }
}

const IN_USE: &str = "locked (does another restore write to it?)";

fn lock(file: File) -> io::Result<Flock<File>> {
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| errno.into())
}

/// Somebody may have made the file meanwhile: it is not overwritten.
fn rename_to_new(part: &Path, path: &Path) -> io::Result<()> {
    match renameat_with(CWD, part, CWD, path, RenameFlags::NOREPLACE) {
        // Not every filesystem knows the flag; a link does not replace either.
        Err(rustix::io::Errno::INVAL) => {
            std::fs::hard_link(part, path)?;
            std::fs::remove_file(part)
        }
        done => Ok(done?),
    }
}

mod ioctl {
    // linux/fs.h: a pair of offset and length.
    nix::ioctl_write_ptr_bad!(blk_discard, nix::request_code_none!(0x12, 119), [u64; 2]);
}

/// Tells a device that nobody needs what stands in a range. What it makes of that is its own affair.
fn discard(file: &File, range: &Range<u64>) {
    const SECTOR: u64 = 4096;
    let (start, end) = (range.start.next_multiple_of(SECTOR), range.end / SECTOR * SECTOR);
    if start < end {
        let part = [start, end - start];
        // SAFETY: the pair outlives the call, which reads it.
        let _ = unsafe { ioctl::blk_discard(file.as_raw_fd(), &raw const part) };
    }
}

fn fallocate(file: &File, mode: libc::c_int, offset: u64, len: u64) -> io::Result<()> {
    let number = |bytes: u64| libc::off_t::try_from(bytes).map_err(io::Error::other);
    // SAFETY: takes numbers only.
    match unsafe { libc::fallocate(file.as_raw_fd(), mode, number(offset)?, number(len)?) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn allocate(file: &File, len: u64) -> io::Result<()> {
    match fallocate(file, 0, 0, len) {
        // It cannot reserve; then it is written as it comes.
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(()),
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_existing_is_touched_without_consent() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        let new = |consent, start| plan(&path, 10, consent, start);
        assert!(matches!(new(Consent::None, Start::Anew).unwrap().how, How::Part { replaces: false, .. }));
        std::fs::write(part_of(&path).unwrap(), b"half").unwrap();
        assert!(matches!(new(Consent::None, Start::Anew), Err(SourceError::Unfinished { .. })));
        assert!(matches!(new(Consent::None, Start::Resume).unwrap().how, How::Part { start: Start::Resume, .. }));
        std::fs::write(&path, b"precious").unwrap();
        assert!(matches!(new(Consent::None, Start::Anew), Err(SourceError::Exists { .. })));
        assert!(matches!(new(Consent::None, Start::Resume), Err(SourceError::Exists { .. })));
        assert!(matches!(new(Consent::Force, Start::Anew).unwrap().how, How::Part { replaces: true, .. }));
        assert!(matches!(plan(dir.path(), 10, Consent::Force, Start::Anew), Err(SourceError::DestinationKind { .. })));
        assert!(matches!(
            plan(Path::new("/dev/null"), 10, Consent::Force, Start::Anew),
            Err(SourceError::DestinationKind { .. })
        ));
    }

    #[test]
    fn two_restores_to_one_file_do_not_mix() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        let begin = |start| plan(&path, 4096, Consent::Force, start).unwrap().execute(Holes::Keep);
        let first = begin(Start::Anew).unwrap();
        first.write(0, b"first").unwrap();
        for start in [Start::Anew, Start::Resume] {
            assert!(matches!(begin(start), Err(SourceError::Destination { .. })), "{start:?}");
        }
        // Removed by hand, the name is not given to what somebody else has begun.
        std::fs::remove_file(part_of(&path).unwrap()).unwrap();
        let second = begin(Start::Anew).unwrap();
        let attributes = crate::source::conformance::ATTRIBUTES;
        assert!(first.finish(&attributes).is_err() && !path.exists());
        second.write(0, b"second").unwrap();
        second.finish(&attributes).unwrap();
        assert_eq!(&std::fs::read(&path).unwrap()[..6], b"second");
    }

    #[test]
    fn zeros_are_written_only_where_something_else_stands() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        let file = plan(&path, 64 << 20, Consent::None, Start::Anew).unwrap().execute(Holes::Keep).unwrap();
        file.write(5_000_000, &[7; 3_000_000]).unwrap();
        file.clear(&(5_000_001..60_000_000)).unwrap();
        let mut found = vec![1; 64 << 20];
        file.read(0, &mut found).unwrap();
        assert!(found[5_000_000] == 7 && found.iter().filter(|byte| **byte != 0).count() == 1);
        file.file.sync_all().unwrap();
        assert!(file.file.metadata().unwrap().blocks() * 512 < 8 << 20, "holes stay holes");
    }

    #[test]
    fn a_file_is_replaced_only_when_it_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        std::fs::write(&path, b"precious").unwrap();
        let destination = plan(&path, 4096, Consent::Force, Start::Anew).unwrap().execute(Holes::Keep).unwrap();
        destination.write(0, b"new").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
        let file = FileAttributes {
            mode: 0o640,
            uid: 0,
            gid: 0,
            mtime: crate::words::attribute::Mtime { seconds: 0, nanos: 0 },
        };
        destination.finish(&file).unwrap();
        let now = std::fs::read(&path).unwrap();
        assert_eq!((now.len(), &now[..4]), (4096, &b"new\0"[..]));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
