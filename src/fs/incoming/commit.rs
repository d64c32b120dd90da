//! Making a draft durable, and publishing it.

use crate::fs::errno::Errno;
use crate::fs::incoming::file::{File, FileState, Published, Reached, Work};
use crate::fs::incoming::{Incoming, SECOND_THOUGHTS};
use crate::fs::process::ProcessId;
use crate::fs::seam::Answer;
use crate::image::{DraftImage, Settled};
use crate::ops::commit::{Publication, publish_version};
use crate::ops::unchanged::{asks_the_index, tell_unchanged};
use crate::repo::RepoError;
use crate::words::attribute::{Attributes, Validity};
use crate::words::clock::ClockExt;
use crate::words::ids::Uid;
use crate::words::name::Name;
use crate::words::record::{Broken, Record, RecordKind, Why};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Instant;

/// What a commit is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Everything written so far survives a power loss; the draft stays a draft.
    Durable,
    /// The draft is finished, if it is whole and its name is not temporary. By this process, if known.
    Publish(Option<ProcessId>),
}

/// What was known of a draft just before it was settled: all of that is stored, and perhaps more.
struct Stored {
    unfinished: Option<Broken>,
    reached: Option<Reached>,
}

impl Incoming {
    /// Commits a file within the configured time: a close() that waits for a dead target could not even be killed.
    pub(super) fn commit(&self, file: &Arc<File>, purpose: Purpose) -> Answer<()> {
        let Some(me) = self.me.upgrade() else { return Err(Errno::EIO) };
        let Some(image) = file.state.lock().work.as_ref().map(|work| Arc::clone(&work.image)) else { return Ok(()) };
        let (done, wait) = mpsc::sync_channel(1);
        let (work, content) = (Arc::clone(file), Arc::clone(&image));
        let run = move || {
            let _ = done.send(me.commit_now(&work, &content, purpose));
        };
        std::thread::Builder::new().name("commit".into()).spawn(run).map_err(|_| Errno::EAGAIN)?;
        match wait.recv_timeout(self.options.commit_timeout) {
            Ok(outcome) => outcome,
            Err(_) => {
                let mut state = file.state.lock();
                tracing::error!("{}: not durable after {:?}, given up", state.name, self.options.commit_timeout);
                if let Some(work) = state.work_of(&image) {
                    Work::fail(work, Errno::EIO);
                }
                image.poison(RepoError::Stopped);
                Err(Errno::EIO)
            }
        }
    }

    /// Commits an image, if it still is what the file holds: meanwhile the file may have been truncated on opening.
    fn commit_now(&self, file: &Arc<File>, image: &Arc<DraftImage>, purpose: Purpose) -> Answer<()> {
        let _one_by_one = file.commit.lock();
        let mut state = file.state.lock();
        let unfinished = state.unfinished();
        let publish = matches!(purpose, Purpose::Publish(_)) && self.is_publishable(&state);
        let detached = state.detached;
        let Some(work) = state.work_of(image) else { return Ok(()) };
        if let Some(error) = work.error {
            return Err(error);
        }
        // What was unlinked or replaced goes with its last handle.
        if detached
            || !work.is_changed()
            || !(publish || work.is_volatile() || work.record_misleads(unfinished.as_ref()))
        {
            return Ok(());
        }
        let stored = Stored { unfinished, reached: work.reached() };
        drop(state);
        let settled = image.settle().map_err(|error| self.failed(file, image, &error))?;
        // A broken or temporary draft, or one that is empty, is kept as a draft; an empty one not even that.
        let by = if let Purpose::Publish(by) = purpose { by } else { None };
        let outcome = match publish && settled.image.size_bytes > 0 {
            true => self.publish(file, image, &settled, by, stored),
            false => self.make_durable(file, image, &settled, stored),
        };
        outcome.map_err(|error| self.failed(file, image, &error))
    }

    fn is_publishable(&self, state: &FileState) -> bool {
        let whole = state.work.as_ref().is_some_and(|work| work.broken.is_none());
        whole && !self.is_temporary(&state.name) && !state.detached
    }

    /// Lets an error stick and names it.
    fn failed(&self, file: &File, image: &Arc<DraftImage>, error: &RepoError) -> Errno {
        let errno = Errno::from(error);
        let mut state = file.state.lock();
        tracing::error!("{}: could not be stored: {error}", state.name);
        if let Some(work) = state.work_of(image) {
            Work::fail(work, errno);
        }
        image.poison(error.clone());
        errno
    }

    fn publish(
        &self,
        file: &Arc<File>,
        image: &Arc<DraftImage>,
        settled: &Settled,
        by: Option<ProcessId>,
        stored: Stored,
    ) -> Result<(), RepoError> {
        let mut state = file.state.lock();
        let name = state.name.clone();
        if !self.is_publishable(&state) {
            // A writer died while it was stored.
            drop(state);
            return self.make_durable(file, image, settled, stored);
        }
        let Some(work) = state.work_of(image) else { return Ok(()) };
        if work.error.is_some() {
            return Err(RepoError::Stopped);
        }
        // The version it equals may have been deleted since.
        if !work.explicit && settled.image == work.start && self.repo.catalog().version(work.base)?.is_some() {
            drop(state);
            return self.unchanged(file, image, settled);
        }
        let now = self.repo.clock().now();
        let publication = Publication {
            attributes: attributes(&name, work, published_snapshot(work, settled)),
            base: work.base,
            supersedes: work.supersedes,
            draft: work.draft.id(),
            created: None,
            duration_ms: u64::try_from(now.millis() - work.began.millis()).unwrap_or(0),
            relatives: work.relative.into_iter().collect(),
        };
        let compared_with = work.before.filter(|_| asks_the_index(&self.repo));
        let (record, supersedes, draft) = (work.record.clone(), work.supersedes, work.draft.clone());
        let writers: BTreeSet<ProcessId> = work.writers.iter().copied().chain(by).collect();
        drop(state);
        let next = self.repo.new_draft()?;
        let mut settled = *settled;
        if let Some(base) = compared_with {
            tell_unchanged(&self.repo, &base, &mut settled);
        }
        let version = publish_version(&self.repo, &settled, publication)?;
        self.repo.catalog().unhide_name(&name)?;
        self.await_labels(&name, version.uid, now, writers)?;
        tracing::info!("{name}: version {} of {} bytes", version.uid, version.image.size_bytes);
        let mut origin = None;
        let mut state = file.state.lock();
        if let Some(work) = state.work_of(image) {
            origin = work.origin.take();
            work.renew(next);
            work.start = settled.image;
            work.relative = Some(settled.image);
            work.before = None;
            work.base = version.uid;
            (work.clean_changes, work.durable_changes) = (settled.changes, settled.changes);
            work.published = Some(Published { uid: version.uid, by, at: Instant::now() });
        } else if let Some(other) = &mut state.work {
            // What began meanwhile is another draft than the one that this version stands for.
            other.record.take_if(|taken| record.as_ref().is_some_and(|record| record.uid == taken.uid));
            if other.draft.id() == draft.id() {
                other.draft = next;
            }
        }
        drop(state);
        // The version stands for these now. Should their removal fail, the next start finds them superseded.
        if let Some(record) = record {
            self.tidy(self.repo.remove_record(RecordKind::Draft, record.uid), "an old draft");
        }
        // Its snapshot is the version's now; the one of the version before goes, and so does that of a draft.
        drop(origin);
        if !supersedes.is_nil() {
            self.tidy(self.repo.remove_version_because(supersedes, Why::Superseded), "a version that was gone on from");
        }
        Ok(())
    }

    /// Writers go on while an image is settled, so the record says the worse of before and now: whoever goes on from there must not
    /// leave out what was not stored.
    fn make_durable(
        &self,
        file: &Arc<File>,
        image: &Arc<DraftImage>,
        settled: &Settled,
        before: Stored,
    ) -> Result<(), RepoError> {
        let mut state = file.state.lock();
        let unfinished = match (before.unfinished, state.unfinished()) {
            (Some(then), Some(now)) => Some(Broken { at: then.at.min(now.at), ..now }),
            // Who has died since had closed it before.
            (None, now) if state.work.as_ref().is_some_and(|work| work.broken.is_some()) => now,
            // Whoever came since has nothing in it.
            (None, now) => now.map(|now| Broken { at: 0, ..now }),
            (then, None) => then,
        };
        let name = state.name.clone();
        let Some(work) = state.work_of(image) else { return Ok(()) };
        if work.error.is_some() {
            return Err(RepoError::Stopped);
        }
        if !work.explicit && settled.image == work.start && work.broken.is_none() {
            drop(state);
            return self.unchanged(file, image, settled);
        }
        if settled.image.size_bytes == 0 && work.record.is_none() {
            return Ok(());
        }
        let now = self.repo.clock().now();
        let older = work.record.clone();
        let whole = settled.image.size_bytes;
        let (snapshot, reached) =
            draft_snapshot(work, before.reached).map_or((String::new(), whole), |(name, at)| (name, at.min(whole)));
        let record = Record {
            uid: self.repo.clock().uid_at(now),
            kind: RecordKind::Draft,
            created: now,
            host: self.repo.host(),
            image: settled.image,
            base: work.base,
            supersedes: older.as_ref().map_or(Uid::NIL, |record| record.uid),
            draft: work.draft.id(),
            start: work.start,
            broken: unfinished.map(|broken| Broken { at: broken.at.min(reached), ..broken }),
            attributes: attributes(&name, work, snapshot),
            stats: settled.stats,
        };
        let relatives: Vec<_> = work.relative.into_iter().chain(older.as_ref().map(|record| record.image)).collect();
        let said = work.said;
        drop(state);
        self.repo.publish(&record, &relatives)?;
        let mut state = file.state.lock();
        let renamed = state.name != name;
        if let Some(work) = state.work_of(image) {
            // What was said meanwhile is not in the record, nor is a name that came.
            (work.durable_changes, work.durable_said) = (settled.changes, said);
            work.said += u64::from(renamed);
            work.relative = Some(settled.image);
            work.record = Some(record);
        } else if let Some(other) = state.work.as_mut().filter(|other| other.draft.id() == record.draft) {
            // What began meanwhile replaces this record too.
            other.record = Some(record);
        }
        drop(state);
        if let Some(older) = older {
            self.tidy(self.repo.remove_record(RecordKind::Draft, older.uid), "an older record of a draft");
        }
        Ok(())
    }

    /// The content turned out to be what it was: no version, no draft.
    fn unchanged(&self, file: &Arc<File>, image: &Arc<DraftImage>, settled: &Settled) -> Result<(), RepoError> {
        let taken_back = file.state.lock().work_of(image).map_or(Uid::NIL, |work| work.supersedes);
        if !taken_back.is_nil() {
            // It was marked incomplete because its writer went on; it did so without changing anything. While the work still
            // says that it replaces that version, nobody takes the mark for a reason to call what comes next incomplete.
            self.repo.set_validity(taken_back, Validity::Valid)?;
        }
        let mut record = None;
        if let Some(work) = file.state.lock().work_of(image) {
            (work.clean_changes, work.durable_changes) = (settled.changes, settled.changes);
            record = work.record.take();
            work.supersedes = Uid::NIL;
        }
        if let Some(record) = record {
            self.repo.remove_record(RecordKind::Draft, record.uid)?;
        }
        Ok(())
    }

    fn tidy(&self, result: Result<(), RepoError>, what: &str) {
        if let Err(error) = result {
            tracing::warn!("{what} could not be removed, it will be at the next start: {error}");
        }
    }

    /// Forgets closes too old to be taken back.
    pub(super) fn forget_old_closes(&self) {
        self.last_closed.lock().retain(|_, closed| closed.at.elapsed() <= SECOND_THOUGHTS);
    }
}

/// The snapshot that a version is all of.
fn published_snapshot(work: &Work, settled: &Settled) -> String {
    let whole = work.copied_from(settled.changes).filter(|origin| origin.is_whole(&settled.image));
    whole.and_then(|origin| origin.session.snapshot_name()).unwrap_or_default().to_owned()
}

/// The snapshot that a draft is the beginning of, and how far; nobody may take what lies behind for a copy of it.
fn draft_snapshot(work: &Work, reached: Option<Reached>) -> Option<(String, u64)> {
    let (origin, at) = work.still_reached(reached?)?;
    Some((origin.session.snapshot_name()?.to_owned(), at))
}

pub(super) fn attributes(name: &Name, work: &Work, snapshot_name: String) -> Attributes {
    Attributes {
        name: name.clone(),
        snapshot_name,
        tags: BTreeSet::new(),
        expire: None,
        protected: false,
        validity: Validity::Valid,
        file: work.attributes,
    }
}
