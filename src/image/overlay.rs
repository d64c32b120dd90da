//! The private, persistent writes over one version: a sparse file with the content of 4 KiB units and a journal of which
//! units it holds. It is local to one host and knows nothing of the repository; docs/format.md has the bytes.
//!
//! A unit is in one of three states. *Base*: read from the version below. *Data*: in the data file. *Zero*: discarded.
//! A unit leaves Base and never returns to it, until the whole overlay is discarded. States live in memory and change at once; they are
//! journaled at [`OverlayFile::sync`] only.
//!
//! # Why a crash shows nothing wrong
//!
//! What must hold: after a crash, each unit reads as it did at the last sync that returned 0 or at a moment since.
//!
//! * *A unit is journaled as Data only after its content is durable.* A writer writes the whole unit, then sets its state in memory.
//!   A sync copies the changed states, then calls fdatasync on the data file, then appends them: whatever the copy calls Data was
//!   written before the fdatasync. States changed after the copy wait for the next sync.
//! * *What is in the data file under a unit that is not Data is never read*: it may be the remains of a write that was not synced, or of a
//!   discard whose freeing of space was lost. Such a unit is written whole before it becomes Data.
//! * *A unit that is Data, in the journal too, is overwritten in place* and freed in place by a discard. A crash leaves the old
//!   content, the new, or zeros where it was discarded: all of them were its content since the last sync.
//! * *The journal loses at most its end*, which was not acknowledged (see `overlay_journal`). A rewritten journal goes the same way: copy of
//!   the states, fdatasync of the data, rename, fsync of the directory.
//! * *The overlay exists exactly when its journal does.* It is made last, after the data file is durable in its full length,
//!   and removed first. A data file without journal is the rest of a discarded overlay and is emptied.
//! * *After a kill* the page cache may hold more than the disk. So opening makes the journal and its name durable before
//!   they are believed, and the first sync after it always calls fsync on the data file.

pub use crate::image::overlay_error::{AccessError, OverlayError};
pub use crate::image::overlay_page::{UNIT_BYTES, UnitState};

use crate::image::overlay_bitmap::Bitmap;
use crate::image::overlay_disk::{Directory, LocalDisk, LocalFile};
use crate::image::overlay_format::Identity;
use crate::image::overlay_journal::{Journal, Names, Tuning};
use crate::image::overlay_lock::UnitLocks;
use crate::image::overlay_unfreed::Unfreed;
use crate::words::attribute::Mtime;
use crate::words::ids::Uid;
use parking_lot::Mutex;
use std::io;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// Largest image that can be overlaid: 1 PiB. (The filesystem below may set a lower limit for the sparse file: ext4 16 TiB.)
pub const MAX_SIZE_BYTES: u64 = 1 << 50;

/// The version below an overlay. It does not change.
pub trait BaseReader {
    /// What its reading fails with.
    type Error;
    /// Fills `buffer` from `offset`; never asked for bytes past the end of the image.
    ///
    /// # Errors
    /// When the bytes cannot be had; `buffer` may hold anything then.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), Self::Error>;
}

/// A run of bytes in one state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extent {
    /// Where the content is.
    pub state: UnitState,
    /// Bytes, cut to what was asked for.
    pub range: Range<u64>,
}

/// One open overlay. All methods may be called from several threads; writes to one unit take turns, a read beside a write of the
/// same bytes may see some old and some new, as on a disk.
pub struct OverlayFile {
    pub(super) identity: Identity,
    pub(super) disk: Arc<dyn LocalDisk>,
    pub(super) names: Names,
    pub(super) tuning: Tuning,
    pub(super) data: Box<dyn LocalFile>,
    pub(super) bitmap: Bitmap,
    pub(super) locks: UnitLocks,
    pub(super) journal: Mutex<Journal>,
    /// Bytes written or discarded since the last sync began. Added to only after content and state have been set.
    pub(super) unsynced_bytes: AtomicU64,
    /// Whether anything was ever written.
    pub(super) is_touched: AtomicBool,
    pub(super) unfreed: Unfreed,
    /// Why a sync failed for good.
    pub(super) lost: OnceLock<String>,
}

impl OverlayFile {
    /// Opens the overlay of `uid` in the directory `dir`, makes an empty one if there is none. It is held against every other
    /// opener until dropped.
    ///
    /// # Errors
    /// [`OverlayError::InUse`], [`OverlayError::OtherSize`], [`OverlayError::Damaged`], and errors of the local disk.
    pub fn open_or_create(dir: &Path, uid: Uid, size_bytes: u64) -> Result<Self, OverlayError> {
        Self::open_on(Arc::new(Directory::new(dir)), uid, size_bytes, Tuning::DEFAULT)
    }

    pub(super) fn open_on(
        disk: Arc<dyn LocalDisk>,
        uid: Uid,
        size_bytes: u64,
        tuning: Tuning,
    ) -> Result<Self, OverlayError> {
        if size_bytes > MAX_SIZE_BYTES {
            return Err(OverlayError::TooLarge { size_bytes, max_bytes: MAX_SIZE_BYTES });
        }
        let io = |what| move |source| OverlayError::io(uid, what, source);
        let (identity, names) = (Identity { uid, size_bytes }, Names::of(uid));
        let bitmap = Bitmap::new(size_bytes.div_ceil(UNIT_BYTES));
        let data = disk.open_locked(&names.data).map_err(io("open its data file"))?;
        let exists = disk.exists(&names.map).map_err(io("look for its journal"))?;
        // Makes durable what a killed process may have left undone, a removal or a rename of the journal, before anything
        // is built on it: above all before the data file of a removed overlay is emptied.
        disk.sync().map_err(io("sync its directory"))?;
        disk.remove(&names.new_map).map_err(io("remove an unfinished journal"))?;
        let (journal, mtime) = if exists {
            let file_len = data.len_bytes().map_err(io("open its data file"))?;
            if file_len != size_bytes.next_multiple_of(UNIT_BYTES) {
                let (file, problem) = (names.data.clone(), "not the length of the image");
                return Err(OverlayError::Damaged { uid, file, offset: file_len, problem });
            }
            let opened = Journal::open(&disk, &names, &identity, &bitmap)?;
            (opened.journal, opened.mtime)
        } else {
            let make = || {
                data.set_len(0)?;
                data.set_len(size_bytes.next_multiple_of(UNIT_BYTES))?;
                data.sync_all()?;
                disk.sync()?;
                Journal::create(&disk, &names, &identity)
            };
            (make().map_err(io("make its files"))?, None)
        };
        let overlay = Self {
            identity,
            disk,
            names,
            tuning,
            data,
            bitmap,
            locks: UnitLocks::new(),
            journal: Mutex::new(journal),
            unsynced_bytes: AtomicU64::new(u64::from(exists)),
            is_touched: AtomicBool::new(mtime.is_some()),
            unfreed: Unfreed::default(),
            lost: OnceLock::new(),
        };
        if let Some(mtime) = mtime {
            overlay.restore_mtime(mtime).map_err(io("restore its time"))?;
        }
        overlay.look_for_leftovers().map_err(io("read its size"))?;
        Ok(overlay)
    }

    /// Brings the time of the data file up to that of the journal, which power loss can put back.
    fn restore_mtime(&self, journaled: Mtime) -> io::Result<()> {
        if self.data.mtime()? < journaled { self.data.set_mtime(Some(journaled)) } else { Ok(()) }
    }

    /// Whether there is an overlay of `uid` in `dir`.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn exists(dir: &Path, uid: Uid) -> Result<bool, OverlayError> {
        let disk = Directory::new(dir);
        disk.exists(&Names::of(uid).map).map_err(|source| OverlayError::io(uid, "look for its journal", source))
    }

    /// The overlays in `dir`, open or not, by uid, with the bytes their files take on the local disk.
    ///
    /// # Errors
    /// When the directory cannot be read; an absent one has no overlays.
    pub fn list(dir: &Path) -> io::Result<Vec<(Uid, u64)>> {
        let entries = match std::fs::read_dir(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let name = entry?.file_name();
            let Some(uid) = name.to_str().and_then(Names::parse_map) else { continue };
            let names = Names::of(uid);
            // Either file may go away meanwhile: then it takes nothing.
            let taken = |name: &str| std::fs::metadata(dir.join(name)).map_or(0, |metadata| metadata.blocks() * 512);
            found.push((uid, taken(&names.map) + taken(&names.data)));
        }
        found.sort_unstable();
        Ok(found)
    }

    /// Removes the overlay of `uid`, whatever its condition; an absent one is fine. Durable on return.
    ///
    /// # Errors
    /// [`OverlayError::InUse`] while someone has it open; errors of the local disk.
    pub fn remove(dir: &Path, uid: Uid) -> Result<(), OverlayError> {
        let (disk, names) = (Directory::new(dir), Names::of(uid));
        let io = |source| OverlayError::io(uid, "remove its files", source);
        let held = disk.open_locked(&names.data).map_err(io)?;
        remove_files(&disk, &names).map_err(io)?;
        drop_aside(held);
        Ok(())
    }

    /// Drops everything that was written. Durable on return; after an error it may or may not be gone, but never partly.
    ///
    /// # Errors
    /// Errors of the local disk.
    pub fn discard(self) -> Result<(), OverlayError> {
        let io = |source| OverlayError::io(self.identity.uid, "remove its files", source);
        remove_files(&*self.disk, &self.names).map_err(io)?;
        drop_aside(self.data);
        Ok(())
    }

    /// The version overlaid.
    pub fn uid(&self) -> Uid {
        self.identity.uid
    }

    /// Bytes of the image.
    pub fn size_bytes(&self) -> u64 {
        self.identity.size_bytes
    }

    pub(super) fn units(&self) -> u64 {
        self.size_bytes().div_ceil(UNIT_BYTES)
    }

    /// Bytes held in the data file, in whole units.
    pub fn stored_bytes(&self) -> u64 {
        self.bitmap.data_units() * UNIT_BYTES
    }

    /// When `data` was last written or discarded; `None` when never. Survives unmount and crash with what was synced.
    ///
    /// # Errors
    /// Errors of the local disk.
    pub fn last_write(&self) -> Result<Option<Mtime>, OverlayError> {
        if !self.is_touched.load(Ordering::Acquire) {
            return Ok(None);
        }
        let io = |source| OverlayError::io(self.uid(), "read its time", source);
        self.data.mtime().map(Some).map_err(io)
    }

    /// The runs of equal state that make up a range of bytes, in order; the part past the end of the image is left out.
    /// Each run is read when the iterator reaches it.
    pub fn extents(&self, range: Range<u64>) -> impl Iterator<Item = Extent> {
        let range = range.start..range.end.min(self.size_bytes());
        let units = range.start / UNIT_BYTES..range.end.div_ceil(UNIT_BYTES);
        self.bitmap.runs(units).map(move |(state, run)| {
            let bytes = (run.start * UNIT_BYTES).max(range.start)..(run.end * UNIT_BYTES).min(range.end);
            Extent { state, range: bytes }
        })
    }

    /// The parts of a range that the overlay decides, in order: Data and Zero.
    pub fn present(&self, range: Range<u64>) -> impl Iterator<Item = Extent> {
        self.extents(range).filter(|extent| extent.state != UnitState::Base)
    }

    /// The first byte at or after `offset` that the overlay decides (Data or Zero).
    pub fn next_present(&self, offset: u64) -> Option<u64> {
        self.present(offset..self.size_bytes()).next().map(|extent| extent.range.start)
    }

    /// The first byte at or after `offset` that comes from the version below.
    pub fn next_absent(&self, offset: u64) -> Option<u64> {
        let is_base = |extent: &Extent| extent.state == UnitState::Base;
        self.extents(offset..self.size_bytes()).find(is_base).map(|extent| extent.range.start)
    }

    /// Fills `buffer` from `offset`.
    ///
    /// # Errors
    /// [`OverlayError::OutOfRange`] past the end of the image; errors of the local disk or of the version below.
    pub fn read_at<B: BaseReader + ?Sized>(
        &self,
        offset: u64,
        buffer: &mut [u8],
        base: &B,
    ) -> Result<(), AccessError<B::Error>> {
        let range = self.checked_range(offset, buffer.len() as u64)?;
        // No lock: a unit in Base may be read from below even if it is being written just now, that is its old content; one in
        // Data stays in the data file, where a discard turns it into zeros.
        for Extent { state, range } in self.extents(range) {
            let part = &mut buffer[(range.start - offset) as usize..(range.end - offset) as usize];
            match state {
                UnitState::Base => base.read_at(range.start, part).map_err(AccessError::Base)?,
                UnitState::Data => self
                    .data
                    .read_at(part, range.start)
                    .map_err(|source| OverlayError::io(self.uid(), "read its data", source))?,
                UnitState::Zero => part.fill(0),
            }
        }
        Ok(())
    }

    pub(super) fn checked_range(&self, offset: u64, len_bytes: u64) -> Result<Range<u64>, OverlayError> {
        let (uid, size_bytes) = (self.uid(), self.size_bytes());
        let end = offset.checked_add(len_bytes).filter(|end| *end <= size_bytes);
        end.map(|end| offset..end).ok_or(OverlayError::OutOfRange { uid, offset, len_bytes, size_bytes })
    }

    pub(super) fn check_nothing_lost(&self) -> Result<(), OverlayError> {
        let lost = |reason: &String| Err(OverlayError::Lost { uid: self.uid(), reason: reason.clone() });
        self.lost.get().map_or(Ok(()), lost)
    }
}

/// Removes an overlay's files, the journal first: without it the overlay does not exist.
fn remove_files(disk: &dyn LocalDisk, names: &Names) -> io::Result<()> {
    disk.remove(&names.map)?;
    disk.sync()?;
    disk.remove(&names.new_map)?;
    disk.remove(&names.data)?;
    disk.sync()
}

/// Closes a removed file in a thread of its own: only then the filesystem frees its space, which for a fragmented file takes it many
/// seconds. Nothing depends on when it ends, or on the thread's being there at all.
fn drop_aside(file: Box<dyn LocalFile>) {
    let close = std::thread::Builder::new().name("overlay-close".to_owned());
    if let Err(error) = close.spawn(move || drop(file)) {
        tracing::debug!(%error, "a removed overlay was closed without a thread");
    }
}
