//! Opening files of the trees, and what is done through handles.

use crate::fs::errno::Errno;
use crate::fs::nodes::{Node, VersionFile};
use crate::fs::seam::{Access, Answer, Caller, Fallocate, Fh, OpenRequest, Opened, Seek, WriteOrigin, WriteRequest};
use crate::fs::trees::handle::{ImageHandle, Manner, TreeHandle, View};
use crate::fs::trees::limits::LimitHandle;
use crate::fs::trees::status::Purpose;
use crate::fs::trees::value_handle::ValueHandle;
use crate::fs::trees::{Trees, disk, limits};
use crate::image::ImageReader;
use crate::words::ids::Uid;
use parking_lot::RwLock;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Every open handle by its number.
#[derive(Default)]
pub(super) struct Handles {
    open: RwLock<HashMap<Fh, Arc<TreeHandle>>>,
    next: AtomicU64,
}

impl Handles {
    fn insert(&self, handle: TreeHandle) -> Fh {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let fh = if handle.is_slow() { Fh::slow(number) } else { Fh(number) };
        self.open.write().insert(fh, Arc::new(handle));
        fh
    }

    pub(super) fn get(&self, fh: Fh) -> Answer<Arc<TreeHandle>> {
        self.open.read().get(&fh).cloned().ok_or(Errno::EBADF)
    }
}

impl Trees {
    /// open(2).
    ///
    /// # Errors
    /// EPERM for O_TRUNC on `data`, EACCES for writing to what cannot be written, EBUSY while the overlay is being discarded or
    /// another mount has it.
    pub fn open(&self, _caller: Caller, node: &Node, request: &OpenRequest) -> Answer<Opened> {
        let handle = match node {
            Node::VersionFile(uid, VersionFile::Data) => self.open_image(*uid, View::Data, request)?,
            Node::VersionFile(uid, VersionFile::Original) => self.open_image(*uid, View::Original, request)?,
            Node::VersionFile(uid, file) => self.open_small(*uid, *file, request)?,
            Node::StatusFile(file) if request.access.writes() || request.truncate => {
                let limits = &self.options.limits;
                limits::throttle(limits, *file).ok_or(Errno::EACCES)?;
                let current = self.status_text(*file, Purpose::Open).to_string();
                TreeHandle::Limit(LimitHandle::new(Arc::clone(limits), *file, request, current))
            }
            Node::StatusFile(file) => TreeHandle::Text(self.status_text(*file, Purpose::Open).as_bytes().to_vec()),
            Node::NameLink(..) | Node::TagLink(..) => return Err(Errno::EINVAL),
            _ => return Err(Errno::EISDIR),
        };
        let Manner { caching, writes, close } = handle.manner(request.access);
        Ok(Opened { fh: self.handles.insert(handle), caching, writes, close })
    }

    fn open_image(&self, uid: Uid, view: View, request: &OpenRequest) -> Answer<TreeHandle> {
        if request.access.writes() && view == View::Original {
            return Err(Errno::EACCES);
        }
        if request.truncate {
            return Err(Errno::EPERM);
        }
        let version = self.version(uid)?;
        let disk = self.disks.of(&version);
        if view == View::Data {
            disk.check_usable()?;
        }
        let claim = disk.claim(request.access)?;
        Ok(TreeHandle::Image(ImageHandle::new(view, claim, disk::reader(&self.repo, &version))))
    }

    fn open_small(&self, uid: Uid, file: VersionFile, request: &OpenRequest) -> Answer<TreeHandle> {
        let text = self.file_text(&self.version(uid)?, file)?;
        if request.access == Access::Read && !request.truncate {
            return Ok(TreeHandle::Text(text.into_bytes()));
        }
        if matches!(file, VersionFile::Created | VersionFile::Size | VersionFile::Stats) {
            return Err(Errno::EACCES);
        }
        Ok(TreeHandle::Value(ValueHandle::new(uid, file, request, text)))
    }

    /// Appends at most `len` bytes from `offset` to `buffer`, which comes empty; fewer only at the end.
    ///
    /// # Errors
    /// EIO on damage, which is logged with version, offset and object.
    pub fn read(&self, _node: &Node, fh: Fh, offset: u64, len: usize, buffer: &mut Vec<u8>) -> Answer<()> {
        self.handles.get(fh)?.read(offset, len, buffer)
    }

    /// Writes, and answers how much.
    ///
    /// # Errors
    /// ENOSPC past the end of `data`, EINVAL for what is no value, EBUSY for a discard that cannot be.
    pub fn write(&self, node: &Node, request: &WriteRequest<'_>) -> Answer<usize> {
        if request.origin == WriteOrigin::PageCache {
            return self.write_back(node, request.offset, request.data);
        }
        let handle = self.handles.get(request.fh)?;
        match &*handle {
            TreeHandle::Value(value) => value.write(self, request.offset, request.data),
            TreeHandle::Limit(limit) => limit.write(request.offset, request.data),
            TreeHandle::Image(_) | TreeHandle::Text(_) => handle.write_image(request.offset, request.data),
        }
    }

    /// Dirty pages of a mapping of `data`, whose handle the kernel does not know any more.
    fn write_back(&self, node: &Node, offset: u64, data: &[u8]) -> Answer<usize> {
        let Node::VersionFile(uid, VersionFile::Data) = node else { return Err(Errno::EBADF) };
        let disk = self.disks.of(&self.version(*uid)?);
        // The kernel writes whole pages; what lies past the end is not part of the file.
        let left = usize::try_from(disk.size_bytes().saturating_sub(offset)).unwrap_or(usize::MAX);
        disk.write_at(offset, &data[..data.len().min(left)])?;
        Ok(data.len())
    }

    /// A close(): what was written is durable when it answers.
    ///
    /// # Errors
    /// Of the local disk.
    pub fn flush(&self, _caller: Caller, _node: &Node, fh: Fh) -> Answer<()> {
        self.handles.get(fh)?.sync()
    }

    /// fsync(2), fdatasync(2).
    ///
    /// # Errors
    /// Of the local disk.
    pub fn fsync(&self, _caller: Caller, _node: &Node, fh: Fh) -> Answer<()> {
        self.handles.get(fh)?.sync()
    }

    /// The last close().
    pub fn release(&self, _node: &Node, fh: Fh) {
        // Dropped after the lock.
        let handle = self.handles.open.write().remove(&fh);
        drop(handle);
    }

    /// fallocate(2): discards in `data` are kept, anything past its end is ENOSPC.
    ///
    /// # Errors
    /// EOPNOTSUPP for files other than images.
    pub fn fallocate(
        &self,
        _caller: Caller,
        _node: &Node,
        fh: Fh,
        offset: u64,
        len: u64,
        how: Fallocate,
    ) -> Answer<()> {
        self.handles.get(fh)?.fallocate(offset, len, how)
    }

    /// lseek(2) among data and holes. `data` is all data while it is open for writing.
    ///
    /// # Errors
    /// ENXIO when there is none.
    pub fn lseek(&self, _node: &Node, fh: Fh, offset: u64, seek: Seek) -> Answer<u64> {
        self.handles.get(fh)?.lseek(offset, seek)
    }

    /// What a server-side copy takes its blocks from; `None` when the bytes must go through the kernel.
    ///
    /// # Errors
    /// EBADF when the handle is not known.
    pub fn reader_for_copy(&self, _node: &Node, fh: Fh) -> Answer<Option<Arc<ImageReader>>> {
        Ok(self.handles.get(fh)?.reader_for_copy())
    }

    /// Whether `data` of a version shows, or may show, other than what was backed up: it was written to, or is open for it.
    ///
    /// # Errors
    /// ENOENT when there is no such version.
    pub fn is_overlaid(&self, uid: Uid) -> Answer<bool> {
        let disk = self.disks.existing(&self.version(uid)?);
        Ok(disk.is_some_and(|disk| disk.is_overlaid() || disk.has_writers()))
    }
}
