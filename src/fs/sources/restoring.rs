//! A volume being restored by writing to its file.
//!
//! It is there under its name when the process that opened it closes it with something written. A writer that dies or fails leaves
//! it unfinished, as a restore that was interrupted does.

use crate::control::jobs::Job;
use crate::fs::errno::Errno;
use crate::fs::process::{Closer, ProcessId};
use crate::fs::seam::Answer;
use crate::ops::OpsError;
use crate::source::destination::{Consent, Holes, Manner, Start};
use crate::source::write_behind::WriteBehind;
use crate::source::{Destination, Recipe, SourceError};
use crate::words::attribute::FileAttributes;
use parking_lot::Mutex;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

/// See the module.
pub(super) struct Restoring {
    key: (String, String),
    destination: WriteBehind,
    /// How large it is so far. Whoever makes it grow holds this until what comes to it is zero.
    size: Mutex<u64>,
    /// The first error: everything fails with it from then on.
    error: Mutex<Option<Errno>>,
    attributes: Mutex<FileAttributes>,
    opener: Option<ProcessId>,
    /// Tells others on this host how far it is.
    job: Option<Job>,
    /// How far writes have reached.
    reached: AtomicU64,
}

impl Restoring {
    /// Begins anew. What an earlier one left unfinished is thrown away.
    pub(super) fn begin(
        recipe: &Recipe,
        key: (String, String),
        attributes: FileAttributes,
        opener: Option<ProcessId>,
        consent: Consent,
        job: Option<Job>,
    ) -> Result<Self, SourceError> {
        let manner = |consent| Manner { size_bytes: 0, consent, start: Start::Anew, holes: Holes::Keep };
        let volume = recipe.volume()?;
        let destination = match volume.destination(&manner(consent)) {
            Err(SourceError::Unfinished { .. }) => volume.destination(&manner(Consent::Force))?,
            made => made?,
        };
        let destination = WriteBehind::new(destination).map_err(|source| SourceError::Destination {
            what: volume.describe(),
            action: "opened",
            source,
        })?;
        let (size, error) = (Mutex::new(0), Mutex::default());
        let (attributes, reached) = (Mutex::new(attributes), AtomicU64::new(0));
        Ok(Self { key, destination, size, error, attributes, opener, job, reached })
    }

    pub(super) fn key(&self) -> &(String, String) {
        &self.key
    }

    pub(super) fn size_bytes(&self) -> u64 {
        *self.size.lock()
    }

    pub(super) fn attributes(&self) -> FileAttributes {
        *self.attributes.lock()
    }

    pub(super) fn change_attributes(&self, change: impl FnOnce(&mut FileAttributes)) {
        change(&mut self.attributes.lock());
    }

    /// For who writes to it by threads of his own.
    pub(super) fn destination(&self) -> Answer<&dyn Destination> {
        self.destination.directly().map_err(|error| self.fail(&error.into()))
    }

    /// Tells that everything up to `end` was written, of `total` bytes; 0 when nobody knows how many there will be.
    pub(super) fn tell(&self, end: u64, total: u64) {
        let reached = self.reached.fetch_max(end, Ordering::Relaxed).max(end);
        if let Some(job) = &self.job {
            job.progress(reached, total);
        }
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
        self.grow(&mut self.size.lock(), size, size)
    }

    /// Makes it large enough for a range that is about to be written in full.
    pub(super) fn reach(&self, range: &Range<u64>) -> Answer<()> {
        let mut now = self.size.lock();
        if range.end > *now { self.grow(&mut now, range.end, range.start) } else { Ok(()) }
    }

    /// To its writer it was empty when it was opened, so it skips what is zero: what an image or a device held there before must
    /// not show through. Zeroed up to `zero_to`, before the size says that it is there, so nobody's writes are met.
    fn grow(&self, now: &mut u64, size: u64, zero_to: u64) -> Answer<()> {
        self.check()?;
        self.guard(self.destination.resize(size))?;
        if !self.destination.is_fresh() && *now < zero_to {
            self.guard(self.destination.zero(&(*now..zero_to)))?;
        }
        *now = size;
        Ok(())
    }

    pub(super) fn write(&self, offset: u64, data: &[u8]) -> Answer<usize> {
        self.check()?;
        self.reach(&(offset..offset.checked_add(data.len() as u64).ok_or(Errno::EFBIG)?))?;
        // Where something was written before, zeros must be written, too.
        self.guard(self.destination.write(offset, data))?;
        self.tell(offset + data.len() as u64, 0);
        Ok(data.len())
    }

    pub(super) fn zero(&self, offset: u64, end: u64) -> Answer<()> {
        self.check()?;
        self.guard(self.destination.zero(&(offset..end.min(self.size_bytes()).max(offset))))
    }

    pub(super) fn read(&self, offset: u64, len: usize, buffer: &mut Vec<u8>) -> Answer<()> {
        let left = usize::try_from(self.size_bytes().saturating_sub(offset)).unwrap_or(usize::MAX);
        buffer.resize(len.min(left), 0);
        self.guard(self.destination.read(offset, buffer))
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
        // Who closes hears of what he has written, whether it finishes or not.
        self.destination()?;
        if self.size_bytes() == 0 || !closer.is_none_or(is_opener) {
            return Ok(());
        }
        let attributes = self.attributes();
        let called = self.destination.finish(&attributes).map_err(|error| self.fail(&error.into()))?;
        tracing::info!("restored {called}");
        Ok(())
    }
}
