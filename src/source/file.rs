//! A file or a block device.

use crate::source::destination::{Destination, Manner};
use crate::source::file_destination;
use crate::source::volume::{Moment, Volume};
use crate::source::{Content, EachPiece, Extent, Source, SourceError, hand_over, page_cache};
use crate::words::attribute::{FileAttributes, Mtime};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

mod ioctl {
    nix::ioctl_read!(blk_get_size_64, 0x12, 114, u64);
    nix::ioctl_read_bad!(blk_sector_size, 0x1268, libc::c_int);
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

/// Bytes of a logical sector of a block device (BLKSSZGET); 512 when it does not say.
pub fn sector_bytes(device: &File) -> u32 {
    let mut bytes = 0;
    // SAFETY: the ioctl writes one int, and `bytes` is one.
    let asked = unsafe { ioctl::blk_sector_size(device.as_raw_fd(), &raw mut bytes) };
    u32::try_from(bytes).ok().filter(|bytes| asked.is_ok() && bytes.is_power_of_two()).unwrap_or(512)
}

/// What the page cache reads at least, and devices want of addresses at most.
const PAGE_BYTES: usize = 4096;

/// A file or block device by its path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileVolume {
    path: PathBuf,
}

impl FileVolume {
    /// An absolute path; nothing is looked at yet.
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }
}

impl Volume for FileVolume {
    fn describe(&self) -> String {
        self.path.display().to_string()
    }

    fn open(&self, _: Moment<'_>) -> Result<Arc<dyn Source>, SourceError> {
        Ok(Arc::new(FileSource::open(&self.path)?))
    }

    fn destination(&self, manner: &Manner) -> Result<Box<dyn Destination>, SourceError> {
        let plan = file_destination::plan(&self.path, manner.size_bytes, manner.consent, manner.start)?;
        Ok(Box::new(plan.execute(manner.holes)?))
    }
}

/// What a look at something tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Looked {
    /// Bytes.
    pub size_bytes: u64,
    /// Mode, owner and time.
    pub attributes: FileAttributes,
    /// Which of the two.
    pub kind: FileKind,
}

/// A file or a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum FileKind {
    Regular,
    Device,
}

/// Mode, owner and time of a file.
pub(super) fn attributes_of(metadata: &std::fs::Metadata) -> FileAttributes {
    let mtime =
        Mtime { seconds: metadata.mtime(), nanos: u32::try_from(metadata.mtime_nsec()).unwrap_or(0).min(999_999_999) };
    FileAttributes { mode: metadata.mode() & 0o7777, uid: metadata.uid(), gid: metadata.gid(), mtime }
}

/// An open file or block device.
#[derive(Debug)]
pub struct FileSource {
    path: PathBuf,
    file: File,
    size_bytes: u64,
    sector_bytes: u32,
    attributes: FileAttributes,
    is_device: bool,
}

impl FileSource {
    /// Opens a file or a block device.
    ///
    /// # Errors
    /// When it is neither, or cannot be opened.
    pub fn open(path: &Path) -> Result<Self, SourceError> {
        let Looked { kind, .. } = Self::look(path)?;
        let failed = |source| SourceError::Open { what: path.display().to_string(), source };
        let file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        let is_device = kind == FileKind::Device;
        let (size_bytes, sector_bytes) = match kind {
            FileKind::Device => (device_bytes(&file).map_err(failed)?, sector_bytes(&file)),
            FileKind::Regular => (metadata.len(), 4096),
        };
        // Several threads read large parts side by side: what the kernel would read ahead somebody reads already.
        page_cache::announce_random(&file);
        let attributes = attributes_of(&metadata);
        Ok(Self { path: path.to_owned(), file, size_bytes, sector_bytes, attributes, is_device })
    }

    /// Looks at a path without reading it. Before it is opened: the open of a fifo would wait for a writer.
    ///
    /// # Errors
    /// When it is neither a file nor a block device.
    pub fn look(path: &Path) -> Result<Looked, SourceError> {
        let failed = |source| SourceError::Open { what: path.display().to_string(), source };
        let kind = |problem: &str| SourceError::Kind { what: path.display().to_string(), problem: problem.to_owned() };
        let metadata = std::fs::metadata(path).map_err(failed)?;
        let attributes = attributes_of(&metadata);
        match metadata.file_type() {
            file_type if file_type.is_file() => {
                Ok(Looked { size_bytes: metadata.len(), attributes, kind: FileKind::Regular })
            }
            file_type if file_type.is_block_device() => {
                let size_bytes = File::open(path).and_then(|device| device_bytes(&device)).map_err(failed)?;
                Ok(Looked { size_bytes, attributes, kind: FileKind::Device })
            }
            file_type if file_type.is_dir() => Err(kind("it is a directory; back up a file or a block device")),
            _ => Err(kind("it is neither a file nor a block device")),
        }
    }

    fn seek(&self, offset: u64, whence: libc::c_int) -> io::Result<u64> {
        let offset = libc::off_t::try_from(offset).map_err(io::Error::other)?;
        // SAFETY: takes numbers only; reads are positional, so moving the descriptor's offset disturbs nobody.
        let found = unsafe { libc::lseek(self.file.as_raw_fd(), offset, whence) };
        u64::try_from(found).map_err(|_| io::Error::last_os_error())
    }

    /// Pages of a range of which the page cache holds nothing; `None` when the kernel does not say.
    fn absent(&self, offset: u64, len: usize) -> Option<Vec<Range<u64>>> {
        page_cache::absent(&self.file, &(offset & !0xffff..offset + len as u64))
    }

    fn read_all(&self, offset: u64, buffer: &mut [u8]) -> Result<(), SourceError> {
        let mut done = 0;
        while done < buffer.len() {
            let at = offset + done as u64;
            match self.file.read_at(&mut buffer[done..], at) {
                Ok(0) => return Err(SourceError::Shrank { what: self.describe(), offset: at }),
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(SourceError::Read { what: self.describe(), offset: at, source }),
            }
        }
        Ok(())
    }

    /// Reads, and leaves the page cache without the pages that it did not hold before.
    fn read_and_forget(&self, offset: u64, buffer: &mut [u8], absent: &[Range<u64>]) -> Result<(), SourceError> {
        let read = self.read_all(offset, buffer);
        page_cache::forget(&self.file, absent);
        match read {
            // What is longer is taken apart anyway, and each read of a bad place takes a disk seconds.
            Err(error) if error.is_bad_medium() && self.is_device && buffer.len() <= PAGE_BYTES => {
                self.read_direct(offset, buffer).map_err(|_| error)
            }
            read => read,
        }
    }

    /// Reads past the page cache, which reads whole pages, and of a page with one bad sector nothing. For whole sectors only.
    fn read_direct(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let file = File::options().read(true).custom_flags(libc::O_DIRECT).open(&self.path)?;
        let (now, then) = (file.metadata()?, self.file.metadata()?);
        if now.rdev() != then.rdev() {
            return Err(io::Error::other("the path leads to another device now"));
        }
        let mut room = vec![0; buffer.len() + PAGE_BYTES];
        let start = room.as_ptr().align_offset(PAGE_BYTES);
        let aligned = &mut room[start..start + buffer.len()];
        file.read_exact_at(aligned, offset)?;
        buffer.copy_from_slice(aligned);
        Ok(())
    }
}

impl Source for FileSource {
    fn describe(&self) -> String {
        self.path.display().to_string()
    }

    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn attributes(&self) -> FileAttributes {
        self.attributes
    }

    fn sector_bytes(&self) -> u32 {
        self.sector_bytes
    }

    /// A device has neither size nor time that change with it, and tells nothing.
    fn has_changed(&self) -> bool {
        let same = |now: &std::fs::Metadata| {
            let then = self.attributes.mtime;
            now.len() == self.size_bytes && now.mtime() == then.seconds && now.mtime_nsec() == i64::from(then.nanos)
        };
        !self.is_device && !self.file.metadata().is_ok_and(|now| same(&now))
    }

    fn extent_at(&self, offset: u64) -> Result<Extent, SourceError> {
        let rest = offset..self.size_bytes;
        let extent = |end: u64, content| Ok(Extent { range: offset..end.clamp(offset + 1, self.size_bytes), content });
        match self.seek(offset, libc::SEEK_DATA) {
            Ok(start) if start > offset => extent(start, Content::Hole),
            Ok(_) => extent(self.seek(offset, libc::SEEK_HOLE).unwrap_or(self.size_bytes), Content::Data),
            Err(error) if error.raw_os_error() == Some(libc::ENXIO) => {
                // Only a hole follows; or the file is shorter by now, which the read of it tells.
                let ends = self.is_device || self.file.metadata().is_ok_and(|now| now.len() >= self.size_bytes);
                Ok(Extent { range: rest, content: if ends { Content::Hole } else { Content::Data } })
            }
            // Devices and some filesystems do not say: everything may be data.
            Err(_) => Ok(Extent { range: rest, content: Content::Data }),
        }
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), SourceError> {
        self.read_and_forget(offset, buffer, &self.absent(offset, buffer.len()).unwrap_or_default())
    }

    /// What the page cache holds is read piece by piece into the same memory. A disk is asked for all of it at once.
    fn read_pieces(
        &self,
        offset: u64,
        buffer: &mut [u8],
        piece_bytes: usize,
        each: &mut EachPiece<'_>,
    ) -> Result<(), SourceError> {
        let absent = self.absent(offset, buffer.len());
        if absent.as_ref().is_none_or(|absent| !absent.is_empty()) {
            self.read_and_forget(offset, buffer, &absent.unwrap_or_default())?;
            hand_over(buffer, piece_bytes, each);
            return Ok(());
        }
        let mut at = offset;
        let end = offset + buffer.len() as u64;
        while at < end {
            let len = piece_bytes.min((end - at) as usize);
            self.read_all(at, &mut buffer[..len])?;
            if each(&buffer[..len]).is_break() {
                break;
            }
            at += len as u64;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ops::ControlFlow;

    #[test]
    fn extents_tell_data_from_holes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sparse");
        let file = File::create(&path).unwrap();
        file.set_len(10 << 20).unwrap();
        file.write_all_at(&[1; 5000], 3 << 20).unwrap();
        file.write_all_at(&[2; 1], (10 << 20) - 1).unwrap();
        let source = FileSource::open(&path).unwrap();
        let mut data = vec![false; 10 << 20];
        let mut at = 0;
        while at < 10 << 20 {
            let extent = source.extent_at(at).unwrap();
            assert!(extent.range.start == at && extent.range.end > at && extent.range.end <= 10 << 20);
            data[at as usize..extent.range.end as usize].fill(extent.content == Content::Data);
            at = extent.range.end;
        }
        assert!(data[3 << 20..(3 << 20) + 5000].iter().all(|c| *c) && data[(10 << 20) - 1]);
        assert!(!data[0] && !data[6 << 20]);
        assert!(!source.has_changed());
        file.set_len(5).unwrap();
        assert!(source.has_changed());
        assert!(matches!(source.read_at(0, &mut [0; 9]), Err(SourceError::Shrank { offset: 5, .. })));
        assert_eq!(source.extent_at(5).unwrap().content, Content::Data);
    }

    #[test]
    fn optional_reading_leaves_the_page_cache_as_it_was() {
        // tmpfs has nothing but the page cache: a file on disk is needed.
        let path = tempfile::Builder::new().tempfile_in(env!("CARGO_MANIFEST_DIR")).unwrap().into_temp_path();
        std::fs::write(&path, vec![7; 4 << 20]).unwrap();
        let file = File::open(&path).unwrap();
        file.sync_all().unwrap();
        page_cache::forget_all(&file);
        let all = 0..4u64 << 20;
        if page_cache::absent(&file, &all) != Some(vec![all.clone()]) {
            eprintln!("not tested: this filesystem keeps its pages");
            return;
        }
        page_cache::announce_random(&file);
        file.read_exact_at(&mut [0; 65536], 1 << 20).unwrap();
        let before = page_cache::absent(&file, &all).unwrap();
        assert_eq!(before.len(), 2, "what stood in the middle is there: {before:?}");
        let source = FileSource::open(&path).unwrap();
        // Parts that do not begin on a page, and more than one megabyte at once.
        for (offset, len) in [(0, 1 << 20), (1 << 20, 2_000_001), ((1 << 20) + 2_000_001, (3 << 20) - 2_000_001)] {
            let mut buffer = vec![0; len];
            source.read_at(offset, &mut buffer).unwrap();
            assert!(buffer.iter().all(|byte| *byte == 7));
        }
        assert_eq!(page_cache::absent(&file, &all), Some(before.clone()));
        // In pieces, too: what was absent, what was there, and what is both.
        for (offset, len) in [(0, 1 << 20), (1 << 20, 65536), (0, 4 << 20)] {
            let mut read = 0;
            let mut each = |piece: &[u8]| {
                assert!(piece.iter().all(|byte| *byte == 7));
                read += piece.len();
                ControlFlow::Continue(())
            };
            source.read_pieces(offset, &mut vec![0; len], 16384, &mut each).unwrap();
            assert_eq!(read, len);
        }
        assert_eq!(page_cache::absent(&file, &all), Some(before));
    }

    #[test]
    fn what_is_no_disk_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(FileSource::open(dir.path()), Err(SourceError::Kind { .. })));
        assert!(matches!(FileSource::open(Path::new("/dev/null")), Err(SourceError::Kind { .. })));
        assert!(matches!(FileSource::open(&dir.path().join("none")), Err(SourceError::Open { .. })));
    }
}
