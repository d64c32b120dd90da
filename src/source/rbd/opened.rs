//! A snapshot of an image, open to be read.

use crate::source::changes::Changes;
use crate::source::rbd::cluster::OpenPool;
use crate::source::rbd::image::{Image, Mode, SnapshotId};
use crate::source::{Content, Extent, Source, SourceError};
use crate::words::attribute::FileAttributes;
use parking_lot::Mutex;
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// What is asked of the cluster at once about where data is.
const WINDOW_BYTES: u64 = 4 << 30;

/// See the module.
pub struct RbdSource {
    pub(super) what: String,
    pub(super) image: Image,
    pub(super) size_bytes: u64,
    pub(super) attributes: FileAttributes,
    /// The snapshot, if it is one of ours.
    pub(super) snapshot: Option<String>,
    /// Which image, to open it once more.
    pub(super) pool: Arc<OpenPool>,
    pub(super) name: String,
    /// The snapshot that is read, whoever made it.
    pub(super) shown: (SnapshotId, String),
    /// Where data is in the part that was asked about last.
    pub(super) window: Mutex<(Range<u64>, Changes)>,
}

impl RbdSource {
    fn failed(&self, offset: u64) -> impl FnOnce(io::Error) -> SourceError {
        let what = self.what.clone();
        move |source| SourceError::Read { what, offset, source }
    }
}

impl Source for RbdSource {
    fn describe(&self) -> String {
        self.what.clone()
    }

    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn attributes(&self) -> FileAttributes {
        self.attributes
    }

    fn extent_at(&self, offset: u64) -> Result<Extent, SourceError> {
        let mut window = self.window.lock();
        if !window.0.contains(&offset) {
            let start = offset / WINDOW_BYTES * WINDOW_BYTES;
            let range = start..(start + WINDOW_BYTES).min(self.size_bytes);
            let found = self.image.difference(None, range.clone()).map_err(self.failed(offset))?;
            *window = (range, Changes::new(found));
        }
        Ok(window.1.extent_at(offset, window.0.end, Content::Hole))
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), SourceError> {
        let mut done = 0;
        while done < buffer.len() {
            let at = offset + done as u64;
            match self.image.read(at, &mut buffer[done..]).map_err(self.failed(at))? {
                0 => return Err(SourceError::Shrank { what: self.what.clone(), offset: at }),
                count => done += count,
            }
        }
        Ok(())
    }

    /// A snapshot that is removed while it is read becomes zeros, or what the image holds now, and no read of it fails. As numbers
    /// are not given twice, one that is there at the end was there all the time. The open image hears nothing of changes: it
    /// is opened once more.
    fn check(&self) -> Result<(), SourceError> {
        let (id, name) = &self.shown;
        let failed = |source| {
            let (what, action) = (self.what.clone(), format!("reading snapshot {name}"));
            SourceError::Snapshot { what, action, source }
        };
        let now = Image::open(&self.pool, &self.name, Mode::Read { snapshot: None }).map_err(failed)?;
        match now.snapshots().map_err(failed)?.iter().any(|(there, _)| there == id) {
            true => Ok(()),
            false => Err(failed(io::Error::other("somebody removed it meanwhile, and what was read may be anything"))),
        }
    }

    fn snapshot_name(&self) -> Option<&str> {
        self.snapshot.as_deref()
    }

    fn changes_since(&self, snapshot: &str) -> Result<Option<Changes>, SourceError> {
        if !self.image.snapshots().map_err(self.failed(0))?.iter().any(|(_, name)| name == snapshot) {
            return Ok(None);
        }
        match self.image.difference(Some(snapshot), 0..self.size_bytes) {
            Ok(found) => Ok(Some(Changes::new(found))),
            // Removed meanwhile by another host.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(self.failed(0)(error)),
        }
    }
}
