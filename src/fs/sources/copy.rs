//! Copies inside the mount: from a source into `incoming/`, and from a version to a source.

use crate::fs::errno::Errno;
use crate::fs::incoming::{Incoming, PullInto};
use crate::fs::seam::{Answer, COPY_MAX_BYTES, Caller, CopyRange};
use crate::fs::sources::told::told;
use crate::fs::sources::{Handle, Sources};
use crate::image::{DraftImage, ImageReader};
use crate::ops::base::{self, Base, ChangesFrom, Plan};
use crate::ops::pull::{OnBadSectors, Pull, Unchanged};
use crate::ops::restore::{RangeOf, restore_range};
use crate::ops::snapshots::Session;
use crate::ops::{Interrupt, OpsError};
use crate::repo::Repository;
use crate::source::blocks::Runs;
use crate::source::{Content, Source};
use crate::words::name::Name;
use crate::words::record::Record;
use parking_lot::Mutex;
use std::ops::Range;
use std::sync::{Arc, Weak};

/// What one call copies when bytes move: long enough to be fast, short enough to be interrupted.
const STEP_BYTES: u64 = 256 << 20;
/// What one call copies of a source where it does not lie on blocks.
const ODD_BYTES: u64 = 4 << 20;

/// A source that is read.
pub(super) struct Reading {
    /// How it is copied to the draft it was copied to last. It has the source open, and so goes before the session: a snapshot that is
    /// open cannot be removed.
    pub(super) trail: Mutex<Option<Arc<Trail>>>,
    pub(super) session: Arc<Session>,
}

/// How a source is copied to a draft: what of it the draft before, or the newest version, has already.
pub(super) struct Trail {
    image: Weak<DraftImage>,
    parts: Vec<Part>,
}

/// A range of the source, and what it is compared with.
struct Part {
    range: Range<u64>,
    plan: Plan,
    /// What stands unchanged there.
    unchanged: Option<ImageReader>,
}

impl Trail {
    /// Finds out what has changed. `left` is the draft that was there before this copy began: an interrupted copy of the same
    /// source is gone on with, by what has changed since.
    fn find(
        repo: &Arc<Repository>,
        reading: &Reading,
        image: &Arc<DraftImage>,
        name: &Name,
        left: Option<&Record>,
    ) -> Result<Self, OpsError> {
        let session = &reading.session;
        let size = session.source().size_bytes();
        let block = repo.block_size().bytes_u64();
        let mut parts = Vec::new();
        let mut begun = 0;
        if let Some(base) = left.and_then(Base::of_draft) {
            let reached = base.reached.min(size) / block * block;
            if let Some(plan) = base::plan_known(session, &base, 0..reached, repo)? {
                parts.push(Part::new(repo, 0..reached, plan));
                begun = reached;
            }
        }
        let base = Base::find(repo, name, None)?;
        let plan = base::plan(session, base.as_ref(), &ChangesFrom::Source, &**repo.monitor(), repo)?;
        parts.push(Part::new(repo, begun..size, plan));
        Ok(Self { image: Arc::downgrade(image), parts })
    }

    fn part(&self, offset: u64) -> Option<&Part> {
        self.parts.iter().find(|part| part.range.contains(&offset))
    }
}

impl Part {
    fn new(repo: &Arc<Repository>, range: Range<u64>, plan: Plan) -> Self {
        let unchanged =
            plan.is_incremental.then(|| ImageReader::new(Arc::clone(repo), plan.start, "what is copied from"));
        Self { range, plan, unchanged }
    }

    /// What one call copies: more where nothing moves.
    fn step(&self, repo: &Repository, offset: u64, len: u64) -> Result<u64, OpsError> {
        let block = repo.block_size().bytes_u64();
        let end = (offset + len.min(COPY_MAX_BYTES / block * block)).min(self.range.end);
        match Runs::new(&*self.plan.source, repo.block_size(), offset..end).next().transpose()? {
            Some(run) if run.content != Content::Data => Ok((run.range.end - offset).max(STEP_BYTES).min(end - offset)),
            _ => Ok(STEP_BYTES.min(end - offset)),
        }
    }
}

impl Sources {
    /// copy_file_range from a source into `incoming/`. Answers how much was copied.
    ///
    /// # Errors
    /// Those of the source and of the repository; the draft fails with them.
    pub fn copy_to_incoming(&self, incoming: &Incoming, caller: Caller, range: &CopyRange, number: u64) -> Answer<u64> {
        let Handle::Reading(reading) = self.handle(range.fh_in)? else { return Err(Errno::EBADF) };
        let source = Arc::clone(reading.session.source());
        let (from, to) = (range.offset_in, range.offset_out);
        let len = range.len.min(source.size_bytes().saturating_sub(from));
        if len == 0 {
            return Ok(0);
        }
        let block = self.repo.block_size().bytes_u64();
        let on_blocks = from == to && from.is_multiple_of(block) && (len >= block || from + len == source.size_bytes());
        let into = PullInto { caller, number, fh: range.fh_out, offset: to, from, session: &reading.session };
        incoming.pull(&into, |image, name, left| {
            let copied = match on_blocks {
                true => self.pull(&reading, image, name, left, from, len),
                false => copy_odd(&*source, image, from, to, len.min(ODD_BYTES)),
            };
            copied.map_err(|error| told("copying to", "incoming", name.as_str(), &error))
        })
    }

    fn pull(
        &self,
        reading: &Reading,
        image: &Arc<DraftImage>,
        name: &Name,
        left: Option<&Record>,
        from: u64,
        len: u64,
    ) -> Result<u64, OpsError> {
        let known = reading.trail.lock().clone();
        let is_of = |trail: &Arc<Trail>| trail.image.upgrade().is_some_and(|other| Arc::ptr_eq(&other, image));
        let trail = match known.filter(is_of) {
            Some(trail) => trail,
            None => {
                let left = left.filter(|_| image.size_bytes() == 0);
                let trail = Arc::new(Trail::find(&self.repo, reading, image, name, left)?);
                *reading.trail.lock() = Some(Arc::clone(&trail));
                trail
            }
        };
        let Some(part) = trail.part(from) else { return Ok(0) };
        let size = reading.session.source().size_bytes();
        let block = self.repo.block_size().bytes_u64();
        let mut step = part.step(&self.repo, from, len)?;
        if from + step != size {
            step = step / block * block;
        }
        if image.size_bytes() < from + step {
            image.truncate(from + step)?;
        }
        let interrupt = Interrupt::never();
        let pull = Pull {
            repo: &self.repo,
            source: &*part.plan.source,
            image,
            unchanged: part.unchanged.as_ref().map_or(Unchanged::Stands, Unchanged::TakenFrom),
            on_bad: OnBadSectors::Tolerate,
            monitor: &**self.repo.monitor(),
            interrupt: &interrupt,
        };
        match pull.run(from..from + step, &mut |_| Ok(())) {
            Ok(bad) if bad.is_empty() => Ok(step),
            // A copy ends at the first byte it cannot read, as any copy does; `backup` goes on behind it.
            Ok(bad) => Err(OpsError::refused(bad.to_string())),
            Err(stopped) => Err(stopped.error),
        }
    }

    /// copy_file_range from a stored image to a source. `None` when it must go through the kernel.
    ///
    /// # Errors
    /// Those of the repository and of the destination; they stick.
    pub fn copy_from_version(&self, reader: &ImageReader, range: &CopyRange) -> Answer<Option<u64>> {
        let restoring = self.restoring_of(range.fh_out)?;
        restoring.check()?;
        let image = *reader.image();
        let block = image.block_size.bytes_u64();
        let from = range.offset_in;
        let mut len = range.len.min(STEP_BYTES).min(image.size_bytes.saturating_sub(from));
        if from + len != image.size_bytes {
            len = len / block * block;
        }
        if from != range.offset_out || !from.is_multiple_of(block) || len == 0 {
            return Ok(if from >= image.size_bytes { Some(0) } else { None });
        }
        restoring.reach(&(from..from + len))?;
        let what = RangeOf { image, label: reader.label(), range: from..from + len };
        let threads = std::thread::available_parallelism().map_or(2, usize::from);
        restore_range(&self.repo, &what, restoring.destination()?, threads, &**self.repo.monitor())
            .map_err(|error| restoring.fail(&error))?;
        restoring.tell(from + len, image.size_bytes);
        Ok(Some(len))
    }
}

/// Copies what does not lie on blocks, byte by byte.
fn copy_odd(source: &dyn Source, image: &Arc<DraftImage>, from: u64, to: u64, len: u64) -> Result<u64, OpsError> {
    let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
    source.read_at(from, &mut bytes)?;
    source.check()?;
    image.write_at(to, &bytes)?;
    Ok(len)
}
