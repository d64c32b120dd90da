//! One version as a disk: what was backed up, and what was written over it on this host.
//!
//! The overlay begins at the first write: an empty overlay is made, a pin is published, and only then is the write
//! acknowledged (`ops::overlays` has the order). Locks: `starting`, then `overlay`; `uses` is held for a moment only and with no other.

use crate::catalog::VersionSummary;
use crate::fs::errno::Errno;
use crate::fs::seam::{Access, Answer, Fallocate, Seek};
use crate::fs::trees::failed;
use crate::image::ImageReader;
use crate::image::overlay::{AccessError, BaseReader, Extent, OverlayFile, UnitState};
use crate::ops::overlays;
use crate::ops::reading::{self, ReadingPin};
use crate::repo::lease::Lease;
use crate::repo::{RepoError, Repository};
use crate::words::attribute::Mtime;
use crate::words::ids::Uid;
use parking_lot::{Condvar, Mutex, RwLock};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long a discard or a deletion waits for handles whose close() the kernel has not told us of yet.
const LATE_RELEASE: Duration = Duration::from_secs(1);

/// Who has a version open for longer is protected from deletions by other hosts. Those who only look at it do not pay for that.
const PIN_AFTER: Duration = Duration::from_secs(10);

/// See the module.
pub struct Disk {
    repo: Arc<Repository>,
    version: VersionSummary,
    reader: ImageReader,
    overlay: RwLock<Option<OverlayFile>>,
    /// Why there is an overlay that cannot be opened: another mount has it, or it is damaged. `original` does not care.
    unusable: Option<Errno>,
    /// Whether the pin of the overlay is known to stand.
    is_pinned: AtomicBool,
    starting: Mutex<()>,
    uses: Mutex<Uses>,
    released: Condvar,
    /// Of readers who have had it open for a while.
    pin: Mutex<Option<ReadingPin>>,
}

#[derive(Debug, Default)]
struct Uses {
    readers: usize,
    writers: usize,
    gate: Gate,
    /// While anybody has it open: since when, and what tells other processes of this host.
    open: Option<(Instant, Option<Lease>)>,
}

/// Who may open the disk.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Gate {
    #[default]
    Open,
    /// Its overlay is being discarded: nobody may open it for writing.
    Discarding,
    /// The version is being deleted.
    Closed,
}

/// What a discard or a deletion waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quiet {
    NoWriters,
    NobodyAtAll,
}

/// Reads the version below the overlay.
struct Base<'a>(&'a ImageReader);

impl BaseReader for Base<'_> {
    type Error = RepoError;

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), RepoError> {
        self.0.read_at(offset, buffer)
    }
}

impl Disk {
    /// The disk of a version; its overlay is opened when there is one.
    pub(super) fn open(repo: &Arc<Repository>, version: VersionSummary) -> Self {
        let dir = overlays::directory(repo);
        let overlay = OverlayFile::exists(&dir, version.uid)
            .and_then(|exists| {
                let overlay = || OverlayFile::open_or_create(&dir, version.uid, version.image.size_bytes);
                exists.then(overlay).transpose()
            })
            .map_err(failed("overlay"));
        let (overlay, unusable) = match overlay {
            Ok(overlay) => (overlay, None),
            Err(error) => (None, Some(error)),
        };
        let reader = reader(repo, &version);
        Self {
            repo: Arc::clone(repo),
            version,
            reader,
            overlay: RwLock::new(overlay),
            unusable,
            is_pinned: AtomicBool::new(false),
            starting: Mutex::new(()),
            uses: Mutex::default(),
            released: Condvar::new(),
            pin: Mutex::default(),
        }
    }

    /// Whether `data` can be shown.
    pub(super) fn check_usable(&self) -> Answer<()> {
        self.unusable.map_or(Ok(()), Err)
    }

    /// Which version.
    pub fn uid(&self) -> Uid {
        self.version.uid
    }

    /// Bytes.
    pub fn size_bytes(&self) -> u64 {
        self.version.image.size_bytes
    }

    /// Bytes that were written over it.
    pub fn overlay_bytes(&self) -> u64 {
        self.overlay.read().as_ref().map_or(0, OverlayFile::stored_bytes)
    }

    /// Whether anything was ever written over it, as far as we can tell.
    pub fn is_overlaid(&self) -> bool {
        self.unusable.is_some() || self.last_write().is_some()
    }

    /// Whether there is an overlay, even if nothing was written to it.
    pub(super) fn holds_overlay(&self) -> bool {
        self.overlay.read().is_some()
    }

    /// When it was last written to.
    pub fn last_write(&self) -> Option<Mtime> {
        let overlay = self.overlay.read();
        let last = overlay.as_ref()?.last_write();
        last.unwrap_or_else(|error| {
            tracing::error!("{error}");
            None
        })
    }

    /// Whether somebody has it open for writing: then the kernel may hold written pages we know nothing of.
    pub fn has_writers(&self) -> bool {
        self.uses.lock().writers > 0
    }

    /// How many handles are open.
    pub fn handles(&self) -> usize {
        let uses = self.uses.lock();
        uses.readers + uses.writers
    }

    /// Counts a handle until the claim is dropped.
    pub(super) fn claim(self: &Arc<Self>, access: Access) -> Answer<Claim> {
        let mut uses = self.uses.lock();
        match uses.gate {
            Gate::Closed => return Err(Errno::ENOENT),
            Gate::Discarding if access.writes() => return Err(Errno::EBUSY),
            Gate::Open | Gate::Discarding => {}
        }
        if uses.open.is_none() {
            // Another process of this host may be deleting it.
            let lease = reading::lease(&self.repo, self.uid()).map_err(|_| Errno::ENOENT)?;
            uses.open = Some((Instant::now(), lease));
        }
        if access.writes() {
            uses.writers += 1;
        } else {
            uses.readers += 1;
        }
        Ok(Claim { disk: Arc::clone(self), access })
    }

    /// Pins the version when somebody has had it open for a while, and unpins it when nobody has: a collection of another host
    /// would take its blocks once it is deleted there. Called now and then, by a thread that may wait for the target.
    pub(super) fn keep_readable(&self) {
        let since = self.uses.lock().open.as_ref().map(|(since, _)| *since);
        let mut pin = self.pin.lock();
        match since {
            None => drop(pin.take()),
            Some(since) if pin.is_none() && since.elapsed() >= PIN_AFTER => {
                *pin = Some(ReadingPin::new(&self.repo, &self.version));
            }
            Some(_) => {}
        }
    }

    /// Fills `buffer` from `offset` as `data` shows it. `reader` is the handle's own, so that it is seen to read in order.
    pub(super) fn read_at(&self, reader: &ImageReader, offset: u64, buffer: &mut [u8]) -> Answer<()> {
        match self.overlay.read().as_ref() {
            Some(overlay) => overlay.read_at(offset, buffer, &Base(reader)).map_err(|error| match error {
                // The reader has logged it already, with version and offset.
                AccessError::Base(error) => error.into(),
                AccessError::Overlay(error) => failed("read of data")(error),
            }),
            None => reader.read_at(offset, buffer).map_err(Errno::from),
        }
    }

    /// Writes into the overlay. The whole range lies within the disk, or it is ENOSPC and nothing is written.
    pub(super) fn write_at(&self, offset: u64, bytes: &[u8]) -> Answer<()> {
        let len = bytes.len() as u64;
        self.check_end(offset, len)?;
        if bytes.is_empty() {
            return Ok(());
        }
        self.with_overlay(|overlay| {
            overlay.write_at(offset, bytes, &Base(&self.reader)).map_err(failed("write to data"))?;
            if overlay.wants_sync() {
                overlay.start_writeback();
            }
            Ok(())
        })
    }

    /// fallocate(2) on a disk of fixed size.
    pub(super) fn fallocate(&self, offset: u64, len: u64, how: Fallocate) -> Answer<()> {
        let size = self.size_bytes();
        match how {
            Fallocate::Allocate | Fallocate::ZeroRange => self.check_end(offset, len)?,
            Fallocate::AllocateKeepSize | Fallocate::PunchHole | Fallocate::ZeroRangeKeepSize => {}
        }
        if matches!(how, Fallocate::Allocate | Fallocate::AllocateKeepSize) {
            return Ok(());
        }
        let end = offset.saturating_add(len).min(size);
        if offset >= end {
            return Ok(());
        }
        self.with_overlay(|overlay| {
            overlay.punch(offset, end - offset, &Base(&self.reader)).map_err(failed("discard in data"))
        })
    }

    fn check_end(&self, offset: u64, len: u64) -> Answer<()> {
        let fits = offset.checked_add(len).is_some_and(|end| end <= self.size_bytes());
        if fits { Ok(()) } else { Err(Errno::ENOSPC) }
    }

    /// Makes what was written durable.
    pub(super) fn sync(&self) -> Answer<()> {
        let overlay = self.overlay.read();
        overlay.as_ref().map_or(Ok(()), |overlay| overlay.sync().map_err(failed("sync of data")))
    }

    /// Where the next data or hole of `data` is. While it is open for writing all of it is data.
    pub(super) fn seek(&self, reader: &ImageReader, offset: u64, seek: Seek) -> Answer<u64> {
        let size = self.size_bytes();
        if offset >= size {
            return Err(Errno::ENXIO);
        }
        if self.has_writers() {
            return Ok(if seek == Seek::Data { offset } else { size });
        }
        let overlay = self.overlay.read();
        let Some(overlay) = overlay.as_ref() else { return seek_base(reader, offset, seek) };
        for Extent { state, range } in overlay.extents(offset..size) {
            match (state, seek) {
                (UnitState::Data, Seek::Data) | (UnitState::Zero, Seek::Hole) => return Ok(range.start),
                (UnitState::Data, Seek::Hole) | (UnitState::Zero, Seek::Data) => {}
                (UnitState::Base, _) => match seek_base(reader, range.start, seek) {
                    Ok(at) if at < range.end => return Ok(at),
                    Ok(_) | Err(Errno::ENXIO) => {}
                    Err(error) => return Err(error),
                },
            }
        }
        if seek == Seek::Hole { Ok(size) } else { Err(Errno::ENXIO) }
    }

    /// Runs with the overlay, which is begun if there is none.
    fn with_overlay(&self, mut action: impl FnMut(&OverlayFile) -> Answer<()>) -> Answer<()> {
        loop {
            if self.is_pinned.load(Ordering::Acquire)
                && let Some(overlay) = self.overlay.read().as_ref()
            {
                return action(overlay);
            }
            self.begin()?;
        }
    }

    /// Makes the overlay and its pin. The target is waited for without holding up readers.
    fn begin(&self) -> Answer<()> {
        self.check_usable()?;
        let _starting = self.starting.lock();
        if self.uses.lock().gate != Gate::Open {
            return Err(Errno::EBUSY);
        }
        if self.overlay.read().is_some() {
            if !self.is_pinned.load(Ordering::Acquire) {
                overlays::pin(&self.repo, &self.version).map_err(failed("pin of the overlay's version"))?;
                self.is_pinned.store(true, Ordering::Release);
            }
            return Ok(());
        }
        let dir = overlays::directory(&self.repo);
        std::fs::create_dir_all(&dir).map_err(failed("overlay directory"))?;
        let overlay = OverlayFile::open_or_create(&dir, self.uid(), self.size_bytes()).map_err(failed("overlay"))?;
        if let Err(error) = overlays::pin_anew(&self.repo, &self.version) {
            if let Err(error) = overlay.discard() {
                tracing::warn!("an empty overlay stays: {error}");
            }
            return Err(failed("pin of the overlay's version")(error));
        }
        *self.overlay.write() = Some(overlay);
        self.is_pinned.store(true, Ordering::Release);
        Ok(())
    }

    /// Drops the overlay. EBUSY while somebody may write: `is_attached` says whether a device stands on it. `forget` drops what
    /// the kernel has cached of it, with no lock held.
    pub(super) fn discard(&self, is_attached: impl Fn() -> bool, forget: impl FnOnce() -> Answer<()>) -> Answer<()> {
        self.check_usable()?;
        self.close_gate(Gate::Discarding, Quiet::NoWriters, is_attached)?;
        let dropped = self.drop_overlay().and_then(|()| forget());
        self.uses.lock().gate = Gate::Open;
        dropped
    }

    fn drop_overlay(&self) -> Answer<()> {
        let _starting = self.starting.lock();
        if let Some(overlay) = self.overlay.write().take() {
            self.is_pinned.store(false, Ordering::Release);
            overlay.discard().map_err(failed("discard of the overlay"))?;
        }
        // The overlay is gone whatever becomes of the pin; one left behind is dropped at the next mount.
        if let Err(error) = overlays::unpin(&self.repo, self.uid()) {
            tracing::warn!("version {} stays pinned for now: {error}", self.uid());
        }
        Ok(())
    }

    /// Closes the disk to everyone while `remove` runs, and for ever if it succeeds. `remove` is told how many handles are open
    /// after the late ones have been waited for.
    pub(super) fn remove(&self, remove: impl FnOnce(usize) -> Answer<()>) -> Answer<()> {
        if self.close_gate(Gate::Closed, Quiet::NobodyAtAll, || false).is_err() {
            // Let the rules say why it cannot be removed: being open is one reason among several.
            return remove(self.handles().max(1)).and(Err(Errno::EBUSY));
        }
        let removed = remove(0);
        if removed.is_err() {
            self.uses.lock().gate = Gate::Open;
        }
        removed
    }

    fn close_gate(&self, gate: Gate, quiet: Quiet, is_attached: impl Fn() -> bool) -> Answer<()> {
        let deadline = Instant::now() + LATE_RELEASE;
        let mut uses = self.uses.lock();
        loop {
            let busy = uses.writers > 0 || quiet == Quiet::NobodyAtAll && uses.readers > 0;
            if uses.gate == Gate::Open && !busy {
                uses.gate = gate;
                drop(uses);
                // Asked after nobody can open it for writing any more.
                if !is_attached() {
                    return Ok(());
                }
                uses = self.uses.lock();
                uses.gate = Gate::Open;
            }
            let now = Instant::now();
            if now >= deadline {
                return Err(Errno::EBUSY);
            }
            self.released.wait_for(&mut uses, (deadline - now).min(Duration::from_millis(20)));
        }
    }
}

/// A reader of a version's image.
pub(super) fn reader(repo: &Arc<Repository>, version: &VersionSummary) -> ImageReader {
    let label = format!("version {} ({})", version.uid, version.attributes.name);
    ImageReader::new(Arc::clone(repo), version.image, label)
}

/// Where the next data or hole of an image is.
pub(super) fn seek_base(reader: &ImageReader, offset: u64, seek: Seek) -> Answer<u64> {
    if offset >= reader.size_bytes() {
        return Err(Errno::ENXIO);
    }
    match seek {
        Seek::Data => reader.next_data(offset).map_err(failed("seek"))?.ok_or(Errno::ENXIO),
        Seek::Hole => reader.next_hole(offset).map_err(failed("seek")),
    }
}

/// An open handle, as counted by its disk.
pub(super) struct Claim {
    disk: Arc<Disk>,
    access: Access,
}

impl Claim {
    /// The disk.
    pub(super) fn disk(&self) -> &Arc<Disk> {
        &self.disk
    }

    /// What the handle may do.
    pub(super) fn access(&self) -> Access {
        self.access
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut uses = self.disk.uses.lock();
        if self.access.writes() {
            uses.writers -= 1;
        } else {
            uses.readers -= 1;
        }
        if uses.readers + uses.writers == 0 {
            uses.open = None;
        }
        drop(uses);
        self.disk.released.notify_all();
    }
}
