//! An open image.

use crate::source::rbd::cluster::{OpenPool, check, text};
use crate::source::rbd::sys;
use crate::source::{Content, Extent};
use crate::words::attribute::Mtime;
use librbd_sys as rbd;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::io;
use std::ops::Range;
use std::ptr;
use std::sync::Arc;

/// How an image is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode<'a> {
    /// To read its head, or a snapshot.
    Read {
        /// Which.
        snapshot: Option<&'a str>,
    },
    /// To write, and to make and remove snapshots.
    Write,
}

/// The cluster's number of a snapshot, which it never gives again: a name may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotId(u64);

fn moment(code: c_int, time: libc::timespec) -> Mtime {
    let nanos = u32::try_from(time.tv_nsec).unwrap_or(0).min(999_999_999);
    if code < 0 { Mtime { seconds: 0, nanos: 0 } } else { Mtime { seconds: time.tv_sec, nanos } }
}

/// See the module.
pub struct Image {
    handle: rbd::rbd_image_t,
    /// Closed after the image.
    _pool: Arc<OpenPool>,
}

// SAFETY: librbd image handles may be used by many threads at once (rbd/librbd.h).
unsafe impl Send for Image {}
// SAFETY: as above.
unsafe impl Sync for Image {}

impl Image {
    /// Opens it.
    ///
    /// # Errors
    /// ENOENT when there is no such image or snapshot.
    pub fn open(pool: &Arc<OpenPool>, name: &str, mode: Mode<'_>) -> io::Result<Self> {
        let name = text(name)?;
        let mut handle = ptr::null_mut();
        let code = match mode {
            Mode::Read { snapshot } => {
                let snapshot = snapshot.map(text).transpose()?;
                let snapshot = snapshot.as_ref().map_or(ptr::null(), |s| s.as_ptr());
                // SAFETY: the pool is open, the texts outlive the call, the handle is written on success.
                unsafe { rbd::rbd_open_read_only(pool.io(), name.as_ptr(), &raw mut handle, snapshot) }
            }
            // SAFETY: as above.
            Mode::Write => unsafe { rbd::rbd_open(pool.io(), name.as_ptr(), &raw mut handle, ptr::null()) },
        };
        check(i64::from(code))?;
        Ok(Self { handle, _pool: Arc::clone(pool) })
    }

    /// Makes one with the cluster's default features.
    ///
    /// # Errors
    /// EEXIST when there is one.
    pub fn create(pool: &Arc<OpenPool>, name: &str, size_bytes: u64) -> io::Result<()> {
        let (name, mut order) = (text(name)?, 0);
        // SAFETY: the pool is open, the text outlives the call, `order` is read and written.
        check(i64::from(unsafe { rbd::rbd_create(pool.io(), name.as_ptr(), size_bytes, &raw mut order) })).map(drop)
    }

    /// Removes one.
    ///
    /// # Errors
    /// When it is in use, or has snapshots.
    pub fn remove(pool: &Arc<OpenPool>, name: &str) -> io::Result<()> {
        let name = text(name)?;
        // SAFETY: the pool is open, the text outlives the call.
        check(i64::from(unsafe { rbd::rbd_remove(pool.io(), name.as_ptr()) })).map(drop)
    }

    /// Gives one another name.
    ///
    /// # Errors
    /// EEXIST when that is taken.
    pub fn rename(pool: &Arc<OpenPool>, from: &str, to: &str) -> io::Result<()> {
        let (from, to) = (text(from)?, text(to)?);
        // SAFETY: the pool is open, the texts outlive the call.
        check(i64::from(unsafe { rbd::rbd_rename(pool.io(), from.as_ptr(), to.as_ptr()) })).map(drop)
    }

    /// Bytes.
    ///
    /// # Errors
    /// When the cluster fails.
    pub fn size_bytes(&self) -> io::Result<u64> {
        let mut size = 0;
        // SAFETY: the image is open, and the size is written.
        check(i64::from(unsafe { rbd::rbd_get_size(self.handle, &raw mut size) }))?;
        Ok(size)
    }

    /// When it was last written to; the epoch where the cluster does not say.
    pub fn modified(&self) -> Mtime {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the image is open, and the time is written.
        let code = unsafe { sys::rbd_get_modify_timestamp(self.handle, &raw mut time) };
        moment(code, time)
    }

    /// When a snapshot was taken; the epoch where the cluster does not say.
    pub fn taken(&self, snapshot: SnapshotId) -> Mtime {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the image is open, and the time is written.
        let code = unsafe { sys::rbd_snap_get_timestamp(self.handle, snapshot.0, &raw mut time) };
        moment(code, time)
    }

    /// Changes its size.
    ///
    /// # Errors
    /// When the cluster fails.
    pub fn resize(&self, size_bytes: u64) -> io::Result<()> {
        // SAFETY: the image is open.
        check(i64::from(unsafe { rbd::rbd_resize(self.handle, size_bytes) })).map(drop)
    }

    /// Reads; fewer bytes at the end.
    ///
    /// # Errors
    /// When the cluster fails.
    pub fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        // SAFETY: the image is open, and the library writes no more than the buffer holds.
        let read = unsafe { rbd::rbd_read(self.handle, offset, buffer.len(), buffer.as_mut_ptr().cast::<c_char>()) };
        check(read as i64).map(|read| usize::try_from(read).unwrap_or(0))
    }

    /// Writes all of it.
    ///
    /// # Errors
    /// When the cluster fails, or the end is reached.
    pub fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        // SAFETY: the image is open, and the library reads no more than the data holds.
        let written = unsafe { rbd::rbd_write(self.handle, offset, data.len(), data.as_ptr().cast::<c_char>()) };
        match check(written as i64)? {
            written if usize::try_from(written).is_ok_and(|written| written == data.len()) => Ok(()),
            _ => Err(io::Error::from_raw_os_error(libc::ENOSPC)),
        }
    }

    /// Makes a range zero, exactly. (A discard leaves what is smaller than its granularity.)
    ///
    /// # Errors
    /// When the cluster fails.
    pub fn zero(&self, range: &Range<u64>) -> io::Result<()> {
        let len = usize::try_from(range.end - range.start).map_err(io::Error::other)?;
        // SAFETY: the image is open.
        check(unsafe { sys::rbd_write_zeroes(self.handle, range.start, len, 0, 0) } as i64).map(drop)
    }

    /// Makes what was written durable.
    ///
    /// # Errors
    /// When the cluster fails.
    pub fn flush(&self) -> io::Result<()> {
        // SAFETY: the image is open.
        check(i64::from(unsafe { rbd::rbd_flush(self.handle) })).map(drop)
    }

    /// Takes a snapshot.
    ///
    /// # Errors
    /// When the cluster fails.
    pub fn take_snapshot(&self, name: &str) -> io::Result<()> {
        let name = text(name)?;
        // SAFETY: the image is open, the text outlives the call.
        check(i64::from(unsafe { rbd::rbd_snap_create(self.handle, name.as_ptr()) })).map(drop)
    }

    /// Removes a snapshot.
    ///
    /// # Errors
    /// ENOENT when there is none; EBUSY when it is protected.
    pub fn remove_snapshot(&self, name: &str) -> io::Result<()> {
        let name = text(name)?;
        // SAFETY: the image is open, the text outlives the call.
        check(i64::from(unsafe { rbd::rbd_snap_remove(self.handle, name.as_ptr()) })).map(drop)
    }

    /// Its snapshots, as they were when it was opened or something was last asked of the cluster about them.
    ///
    /// # Errors
    /// When the cluster fails.
    pub fn snapshots(&self) -> io::Result<Vec<(SnapshotId, String)>> {
        let mut max: c_int = 64;
        loop {
            let capacity = usize::try_from(max).unwrap_or(0);
            let mut snapshots: Vec<rbd::rbd_snap_info_t> = vec![rbd::rbd_snap_info_t::default(); capacity + 1];
            // SAFETY: there is room for `max` of them, and one more that ends the list.
            let count = unsafe { rbd::rbd_snap_list(self.handle, snapshots.as_mut_ptr(), &raw mut max) };
            match check(i64::from(count)) {
                Err(error) if error.raw_os_error() == Some(libc::ERANGE) => {}
                count => {
                    let count = usize::try_from(count?).unwrap_or(0);
                    let named = snapshots[..count].iter().map(|snapshot| {
                        // SAFETY: the library has written a text for each of them.
                        let name = unsafe { CStr::from_ptr(snapshot.name) }.to_string_lossy().into_owned();
                        (SnapshotId(snapshot.id), name)
                    });
                    let named = named.collect();
                    // SAFETY: frees the texts of the list, which ends with an empty one, and not the list itself.
                    unsafe { rbd::rbd_snap_list_end(snapshots.as_mut_ptr()) };
                    return Ok(named);
                }
            }
        }
    }

    /// How many have it open for writing; this one counts.
    ///
    /// # Errors
    /// When the cluster fails.
    pub fn watchers(&self) -> io::Result<usize> {
        let mut count: libc::size_t = 64;
        let mut watchers: Vec<sys::Watcher> =
            (0..count).map(|_| sys::Watcher { addr: ptr::null_mut(), id: 0, cookie: 0 }).collect();
        // SAFETY: there is room for `count` of them.
        let code = unsafe { sys::rbd_watchers_list(self.handle, watchers.as_mut_ptr(), &raw mut count) };
        if check(i64::from(code)).is_err_and(|error| error.raw_os_error() == Some(libc::ERANGE)) {
            return Ok(count);
        }
        check(i64::from(code))?;
        // SAFETY: frees what the library has put into the first `count`.
        unsafe { sys::rbd_watchers_list_cleanup(watchers.as_mut_ptr(), count) };
        Ok(count)
    }

    /// What of a range differs from a snapshot, or is there at all when there is none to compare with.
    ///
    /// # Errors
    /// When the cluster fails, or the snapshot is gone.
    pub fn difference(&self, since: Option<&str>, range: Range<u64>) -> io::Result<Vec<Extent>> {
        unsafe extern "C" fn collect(offset: u64, len: libc::size_t, exists: c_int, found: *mut c_void) -> c_int {
            // SAFETY: the argument given below, which nobody else uses during the call.
            let found = unsafe { &mut *found.cast::<Vec<Extent>>() };
            let content = if exists == 0 { Content::Hole } else { Content::Data };
            found.push(Extent { range: offset..offset + len as u64, content });
            0
        }
        let since = since.map(text).transpose()?;
        let mut found: Vec<Extent> = Vec::new();
        let (include_parent, whole_object) = (1, 0);
        // SAFETY: the image is open, the text and the vector outlive the call, which calls back on this thread's behalf only.
        let code = unsafe {
            sys::rbd_diff_iterate2(
                self.handle,
                since.as_ref().map_or(ptr::null(), |since| since.as_ptr()),
                range.start,
                range.end - range.start,
                include_parent,
                whole_object,
                collect,
                (&raw mut found).cast::<c_void>(),
            )
        };
        check(i64::from(code))?;
        Ok(found)
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        // SAFETY: opened by this, and nobody uses it any more. What was to be durable was flushed before.
        unsafe { rbd::rbd_close(self.handle) };
    }
}
