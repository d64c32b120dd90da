//! A volume being restored by writing to its file.
//!
//! It is there under its name when the process that opened it closes it with something written. A writer that dies or fails leaves
//! it unfinished, as a restore that was interrupted does.

use crate::fs::errno::Errno;
use crate::fs::process::{Closer, ProcessId};
use crate::fs::seam::Answer;
use crate::ops::OpsError;
use crate::source::destination::{Consent, Holes, Manner, Start};
use crate::source::{Destination, Recipe, SourceError};
use crate::words::attribute::FileAttributes;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// See the module.
pub(super) struct Restoring {
    key: (String, String),
    destination: Box<dyn Destination>,
    size: AtomicU64,
    /// The first error: everything fails with it from then on.
    error: Mutex<Option<Errno>>,
    attributes: Mutex<FileAttributes>,
    opener: Option<ProcessId>,
}

impl Restoring {
    /// Begins anew; whether something may be overwritten was asked before.
    pub(super) fn begin(
        recipe: &Recipe,
        key: (String, String),
        attributes: FileAttributes,
        opener: Option<ProcessId>,
    ) -> Result<Self, SourceError> {
        let manner = Manner { size_bytes: 0, consent: Consent::Force, start: Start::Anew, holes: Holes::Keep };
        let destination = recipe.volume()?.destination(&manner)?;
        let (size, error) = (AtomicU64::new(0), Mutex::default());
        Ok(Self { key, destination, size, error, attributes: Mutex::new(attributes), opener })
    }

    pub(super) fn key(&self) -> &(String, String) {
        &self.key
    }

    pub(super) fn size_bytes(&self) -> u64 {
        self.size.load(Ordering::Relaxed)
    }

    pub(super) fn attributes(&self) -> FileAttributes {
        *self.attributes.lock()
    }

    pub(super) fn change_attributes(&self, change: impl FnOnce(&mut FileAttributes)) {
        change(&mut self.attributes.lock());
    }

    pub(super) fn destination(&self) -> &dyn Destination {
        &*self.destination
    }

    /// The error that sticks.
    pub(super) fn check(&self) -> Answer<()> {
        self.error.lock().map_or(Ok(()), Err)
    }

    /// Lets an error stick and names it.
    pub(super) fn fail(&self, error: &OpsError) -> Errno {
        let (source, path) = &self.key;
        tracing::error!("restoring sources/{source}/{path}: {error}");
        *self.error.lock().get_or_insert_with(|| Errno::from(error))
    }

    fn guard(&self, done: Result<(), SourceError>) -> Answer<()> {
        done.map_err(|error| self.fail(&error.into()))
    }

    pub(super) fn resize(&self, size: u64) -> Answer<()> {
        self.check()?;
        self.guard(self.destination.resize(size))?;
        self.size.store(size, Ordering::Relaxed);
        Ok(())
    }

    /// Makes it at least this large.
    pub(super) fn reach(&self, end: u64) -> Answer<()> {
        if end > self.size_bytes() { self.resize(end) } else { Ok(()) }
    }

    pub(super) fn write(&self, offset: u64, data: &[u8]) -> Answer<usize> {
        self.check()?;
        self.reach(offset.checked_add(data.len() as u64).ok_or(Errno::EFBIG)?)?;
        // Where something was written before, zeros must be written, too.
        self.guard(self.destination.write(offset, data))?;
        Ok(data.len())
    }

    pub(super) fn zero(&self, offset: u64, end: u64) -> Answer<()> {
        self.check()?;
        self.guard(self.destination.zero(&(offset..end.min(self.size_bytes()).max(offset))))
    }

    pub(super) fn read(&self, offset: u64, len: usize, buffer: &mut Vec<u8>) -> Answer<()> {
        let left = usize::try_from(self.size_bytes().saturating_sub(offset)).unwrap_or(usize::MAX);
        buffer.resize(len.min(left), 0);
        self.destination.read(offset, buffer).map_err(|error| Errno::from(&error))
    }

    /// A close(). A shell closes a copy of its descriptor before anything was written; that finishes nothing.
    pub(super) fn closed(&self, closer: Option<&Closer>) -> Answer<()> {
        self.check()?;
        let (source, path) = &self.key;
        let is_opener = |closer: &Closer| self.opener.is_none_or(|opener| closer.is_of(opener));
        if let Some((closer, how)) = closer.and_then(|closer| Some((closer, closer.ending.failure()?))) {
            if is_opener(closer) {
                tracing::warn!("sources/{source}/{path} is not whole: {closer} {how} while writing it");
                self.error.lock().get_or_insert(Errno::EIO);
            }
            return Ok(());
        }
        if self.size_bytes() == 0 || !closer.is_none_or(is_opener) {
            return Ok(());
        }
        let attributes = self.attributes();
        let called = self.destination.finish(&attributes).map_err(|error| self.fail(&error.into()))?;
        tracing::info!("restored {called}");
        Ok(())
    }
}
