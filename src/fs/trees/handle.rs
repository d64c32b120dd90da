//! Open files of the trees.

use crate::fs::errno::Errno;
use crate::fs::seam::{Access, Answer, Caching, CloseNotice, Fallocate, Seek, Writes};
use crate::fs::trees::disk::{Claim, Disk, seek_base};
use crate::fs::trees::limits::LimitHandle;
use crate::fs::trees::value_handle::{ValueHandle, slice_into};
use crate::image::ImageReader;
use std::sync::Arc;

/// An open file. Dropping it is its release.
pub(super) enum TreeHandle {
    /// `original` or `data`.
    Image(ImageHandle),
    /// An attribute file or `overlay`, open for writing.
    Value(ValueHandle),
    /// A bandwidth limit open for writing.
    Limit(LimitHandle),
    /// Any small file open for reading: its content as it was at the open.
    Text(Vec<u8>),
}

/// What an image handle shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum View {
    /// As backed up.
    Original,
    /// With what was written over it.
    Data,
}

/// How the kernel is to treat a handle.
pub(super) struct Manner {
    pub(super) caching: Caching,
    pub(super) writes: Writes,
    pub(super) close: CloseNotice,
}

/// An open image.
pub(super) struct ImageHandle {
    view: View,
    claim: Claim,
    reader: Arc<ImageReader>,
}

impl ImageHandle {
    pub(super) fn new(view: View, claim: Claim, reader: ImageReader) -> Self {
        Self { view, claim, reader: Arc::new(reader) }
    }

    fn read(&self, offset: u64, len: usize, buffer: &mut Vec<u8>) -> Answer<()> {
        let left = self.reader.size_bytes().saturating_sub(offset);
        let len = usize::try_from(left).unwrap_or(usize::MAX).min(len);
        buffer.resize(len, 0);
        if len == 0 {
            return Ok(());
        }
        match self.view {
            View::Original => Ok(self.reader.read_at(offset, buffer)?),
            View::Data => self.claim.disk().read_at(&self.reader, offset, buffer),
        }
    }

    fn writable(&self) -> Answer<&Disk> {
        let writes = self.view == View::Data && self.claim.access().writes();
        if writes { Ok(self.claim.disk()) } else { Err(Errno::EBADF) }
    }

    fn sync(&self) -> Answer<()> {
        match self.view {
            View::Original => Ok(()),
            View::Data => self.claim.disk().sync(),
        }
    }

    fn seek(&self, offset: u64, seek: Seek) -> Answer<u64> {
        match self.view {
            View::Original => seek_base(&self.reader, offset, seek),
            View::Data => self.claim.disk().seek(&self.reader, offset, seek),
        }
    }

    fn reader_for_copy(&self) -> Option<Arc<ImageReader>> {
        let disk = self.claim.disk();
        let is_stored = self.view == View::Original || !disk.is_overlaid() && !disk.has_writers();
        is_stored.then(|| Arc::clone(&self.reader))
    }
}

impl TreeHandle {
    pub(super) fn read(&self, offset: u64, len: usize, buffer: &mut Vec<u8>) -> Answer<()> {
        match self {
            Self::Image(image) => image.read(offset, len, buffer),
            Self::Value(value) => value.read(offset, len, buffer),
            Self::Limit(limit) => limit.read(offset, len, buffer),
            Self::Text(text) => {
                slice_into(text, offset, len, buffer);
                Ok(())
            }
        }
    }

    /// Makes durable. What an attribute file took is durable already.
    pub(super) fn sync(&self) -> Answer<()> {
        match self {
            Self::Image(image) => image.sync(),
            Self::Value(_) | Self::Limit(_) | Self::Text(_) => Ok(()),
        }
    }

    pub(super) fn fallocate(&self, offset: u64, len: u64, how: Fallocate) -> Answer<()> {
        match self {
            Self::Image(image) => image.writable()?.fallocate(offset, len, how),
            Self::Value(_) | Self::Limit(_) | Self::Text(_) => Err(Errno::EOPNOTSUPP),
        }
    }

    /// lseek(2) among data and holes; a small file is all data.
    pub(super) fn lseek(&self, offset: u64, seek: Seek) -> Answer<u64> {
        let size = match self {
            Self::Image(image) => return image.seek(offset, seek),
            Self::Value(value) => value.len(),
            Self::Limit(limit) => limit.len(),
            Self::Text(text) => text.len() as u64,
        };
        match seek {
            _ if offset >= size => Err(Errno::ENXIO),
            Seek::Data => Ok(offset),
            Seek::Hole => Ok(size),
        }
    }

    /// The stored image that the file shows; `None` when it shows something else, or may do so for all we know: while `data`
    /// is open for writing the kernel may hold pages written through a mapping, which only a read through the kernel shows.
    pub(super) fn reader_for_copy(&self) -> Option<Arc<ImageReader>> {
        match self {
            Self::Image(image) => image.reader_for_copy(),
            Self::Value(_) | Self::Limit(_) | Self::Text(_) => None,
        }
    }

    /// Writes into an image, and answers how much.
    pub(super) fn write_image(&self, offset: u64, data: &[u8]) -> Answer<usize> {
        match self {
            Self::Image(image) => image.writable()?.write_at(offset, data).map(|()| data.len()),
            Self::Value(_) | Self::Limit(_) | Self::Text(_) => Err(Errno::EBADF),
        }
    }

    /// Pages of images stay from one open to the next: they change through this mount only, and a discard drops them. Reads of
    /// small files all come here, so that their size need not be known.
    pub(super) fn manner(&self, access: Access) -> Manner {
        let close = if access.writes() { CloseNotice::Flush } else { CloseNotice::Silent };
        match self {
            Self::Image(_) => Manner { caching: Caching::Keep, writes: Writes::Parallel, close },
            Self::Value(_) | Self::Limit(_) | Self::Text(_) => {
                Manner { caching: Caching::Direct, writes: Writes::Serial, close }
            }
        }
    }

    /// Whether calls may take long: changes of attributes wait for the target, a discard for the kernel.
    pub(super) fn is_slow(&self) -> bool {
        matches!(self, Self::Value(_))
    }
}
