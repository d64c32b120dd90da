//! What a backup reads: a file or a block device.

use crate::ops::{OpsError, page_cache};
use crate::words::attribute::{FileAttributes, Mtime};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

mod ioctl {
    nix::ioctl_read!(blk_get_size_64, 0x12, 114, u64);
}

/// Bytes of a block device (BLKGETSIZE64).
///
/// # Errors
/// When it is none.
pub fn device_bytes(device: &File) -> io::Result<u64> {
    let mut bytes = 0;
    // SAFETY: the ioctl writes one u64, and `bytes` is one.
    unsafe { ioctl::blk_get_size_64(device.as_raw_fd(), &raw mut bytes) }?;
    Ok(bytes)
}

/// An open source.
#[derive(Debug)]
pub struct Source {
    path: PathBuf,
    file: File,
    size_bytes: u64,
    attributes: FileAttributes,
    is_device: bool,
}

impl Source {
    /// Opens a file or a block device.
    ///
    /// # Errors
    /// When it is neither, or cannot be opened.
    pub fn open(path: &Path) -> Result<Self, OpsError> {
        let failed = |source| OpsError::Source { path: path.to_owned(), source };
        let kind = |problem| OpsError::SourceKind { path: path.to_owned(), problem };
        // Before opening: the open of a fifo would wait for a writer.
        let is_device = match std::fs::metadata(path).map_err(failed)?.file_type() {
            file_type if file_type.is_file() => false,
            file_type if file_type.is_block_device() => true,
            file_type if file_type.is_dir() => return Err(kind("it is a directory; back up a file or a block device")),
            _ => return Err(kind("it is neither a file nor a block device")),
        };
        let file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        let size_bytes = if is_device { device_bytes(&file).map_err(failed)? } else { metadata.len() };
        page_cache::announce_sequential(&file);
        let mtime = Mtime {
            seconds: metadata.mtime(),
            nanos: u32::try_from(metadata.mtime_nsec()).unwrap_or(0).min(999_999_999),
        };
        let attributes =
            FileAttributes { mode: metadata.mode() & 0o7777, uid: metadata.uid(), gid: metadata.gid(), mtime };
        Ok(Self { path: path.to_owned(), file, size_bytes, attributes, is_device })
    }

    /// Bytes.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Mode, owner and time.
    pub fn attributes(&self) -> FileAttributes {
        self.attributes
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether a file was changed since it was opened, as far as its size and time tell. A device has neither.
    pub fn has_changed(&self) -> bool {
        let same = |now: &std::fs::Metadata| {
            let then = self.attributes.mtime;
            now.len() == self.size_bytes && now.mtime() == then.seconds && now.mtime_nsec() == i64::from(then.nanos)
        };
        !self.is_device && !self.file.metadata().is_ok_and(|now| same(&now))
    }

    /// Fills `buffer` from `offset`.
    ///
    /// # Errors
    /// The first offset that cannot be read, or the end that came too early.
    pub fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<(), OpsError> {
        let mut done = 0;
        while done < buffer.len() {
            let at = offset + done as u64;
            match self.file.read_at(&mut buffer[done..], at) {
                Ok(0) => return Err(OpsError::SourceShrank { path: self.path.clone(), offset: at }),
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(OpsError::SourceRead { path: self.path.clone(), offset: at, source }),
            }
        }
        Ok(())
    }

    /// The next part at or after `offset` that may hold data, at most `len_max` long and cut at multiples of `len_max`;
    /// `None` when only a hole follows.
    pub fn next_chunk(&self, offset: u64, len_max: u64) -> Option<Range<u64>> {
        if offset >= self.size_bytes {
            return None;
        }
        let start = match self.seek(offset, libc::SEEK_DATA) {
            Ok(start) => start.max(offset),
            Err(error) if error.raw_os_error() == Some(libc::ENXIO) => return None,
            // Devices and some filesystems do not say: everything may be data.
            Err(_) => offset,
        };
        if start >= self.size_bytes {
            return None;
        }
        let end = (start / len_max + 1).saturating_mul(len_max).min(self.size_bytes);
        let hole = self.seek(start, libc::SEEK_HOLE).unwrap_or(end);
        Some(start..hole.clamp(start + 1, end))
    }

    fn seek(&self, offset: u64, whence: libc::c_int) -> io::Result<u64> {
        let offset = libc::off_t::try_from(offset).map_err(io::Error::other)?;
        // SAFETY: takes numbers only; reads are positional, so moving the descriptor's offset disturbs nobody.
        let found = unsafe { libc::lseek(self.file.as_raw_fd(), offset, whence) };
        u64::try_from(found).map_err(|_| io::Error::last_os_error())
    }

    /// Parts of a range that the page cache does not hold now.
    pub fn absent_pages(&self, range: &Range<u64>) -> Vec<Range<u64>> {
        let start = range.start & !0xffff;
        page_cache::absent(&self.file, &(start..range.end))
    }

    /// Lets the page cache forget.
    pub fn forget_pages(&self, ranges: &[Range<u64>]) {
        page_cache::forget(&self.file, ranges);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_cover_the_data_and_leave_holes_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sparse");
        let file = File::create(&path).unwrap();
        file.set_len(10 << 20).unwrap();
        file.write_all_at(&[1; 5000], 3 << 20).unwrap();
        file.write_all_at(&[2; 1], (10 << 20) - 1).unwrap();
        let source = Source::open(&path).unwrap();
        let mut covered = vec![false; 10 << 20];
        let mut at = 0;
        while let Some(chunk) = source.next_chunk(at, 1 << 20) {
            assert!(chunk.end - chunk.start <= 1 << 20 && chunk.start >= at);
            covered[chunk.start as usize..chunk.end as usize].fill(true);
            at = chunk.end;
        }
        assert!(covered[3 << 20..(3 << 20) + 5000].iter().all(|c| *c) && covered[(10 << 20) - 1]);
        assert_eq!(source.next_chunk(10 << 20, 1 << 20), None);
        assert!(!source.has_changed());
        file.set_len(5).unwrap();
        assert!(source.has_changed());
        assert!(matches!(source.read(0, &mut [0; 9]), Err(OpsError::SourceShrank { offset: 5, .. })));
    }

    #[test]
    fn what_is_no_disk_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(Source::open(dir.path()), Err(OpsError::SourceKind { .. })));
        assert!(matches!(Source::open(Path::new("/dev/null")), Err(OpsError::SourceKind { .. })));
        assert!(matches!(Source::open(&dir.path().join("none")), Err(OpsError::Source { .. })));
    }
}
