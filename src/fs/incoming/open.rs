//! Opening names: who reads, who begins a draft, who joins one.

use crate::fs::errno::Errno;
use crate::fs::incoming::file::{File, FileState, Handle, Work};
use crate::fs::incoming::{Closed, Incoming};
use crate::fs::nodes::Node;
use crate::fs::process::{self, Opener, ProcessId, TaskKind};
use crate::fs::seam::{Answer, Caller, Fh, OpenRequest};
use crate::image::{DraftImage, ImageReader};
use crate::ops::unchanged::asks_the_index;
use crate::repo::claims::ClaimedDraft;
use crate::words::attribute::{FileAttributes, Mtime, Validity};
use crate::words::ids::Uid;
use crate::words::name::Name;
use crate::words::record::{Broken, ImageRef, Record};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// A file that was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenedFile {
    /// Which.
    pub node: Node,
    /// Through which handle.
    pub fh: Fh,
}

impl Incoming {
    /// Makes a file, or opens the one that is there. `mode` is for a new name; one that has versions keeps its newest's.
    pub fn create(
        &self,
        caller: Caller,
        dir: &str,
        component: &str,
        mode: u32,
        request: &OpenRequest,
    ) -> Answer<OpenedFile> {
        let name = self.new_name(dir, component)?;
        let file = self.table.lock().file(&name);
        let node = Node::IncomingFile(file.number);
        if self.is_shown(&name)? {
            if request.exclusive {
                return Err(Errno::EEXIST);
            }
            return Ok(OpenedFile { node, fh: self.open_file(caller, &file, request)? });
        }
        let opener = process::opener(caller.pid);
        let mut state = file.state.lock();
        self.begin_empty(&mut state, Some((caller, mode)))?;
        let fh = self.add_handle(&mut state, opener.as_ref(), request, None);
        drop(state);
        self.watch_writer(opener.map(|opener| opener.process));
        Ok(OpenedFile { node, fh })
    }

    /// Opens a file of this tree.
    pub fn open(&self, caller: Caller, number: u64, request: &OpenRequest) -> Answer<Fh> {
        let file = self.by_number(number)?;
        self.open_file(caller, &file, request)
    }

    fn open_file(&self, caller: Caller, file: &Arc<File>, request: &OpenRequest) -> Answer<Fh> {
        let opener = process::opener(caller.pid);
        let process = opener.as_ref().map(|opener| opener.process);
        let truncates = request.truncate && request.access.writes();
        let mut state = if truncates { file.lock_when_closed() } else { file.state.lock() };
        if truncates {
            if let Some(holder) = state.active_writer(process) {
                let who = holder.opener.map_or_else(|| "another process".to_owned(), process::describe);
                tracing::warn!("{}: not truncated, because {who} is writing it", state.name);
                return Err(Errno::EBUSY);
            }
            self.begin_empty(&mut state, None)?;
        }
        // An error sticks to a draft until it is opened anew: nobody has it open for writing, so this is anew.
        if request.access.writes() && !state.has_write_handles() {
            self.drop_failed_work(&mut state);
            self.drop_stale_work(&mut state)?;
        }
        let version = self.shown_version(&state)?;
        let fh = self.add_handle(&mut state, opener.as_ref(), request, version);
        drop(state);
        if request.access.writes() {
            self.watch_writer(process);
        }
        Ok(fh)
    }

    /// What a handle shows that is opened now: nothing of its own while there is a draft, else the newest version.
    fn shown_version(&self, state: &FileState) -> Answer<Option<Arc<ImageReader>>> {
        if state.work.as_ref().is_some_and(Work::is_draft) {
            return Ok(None);
        }
        let (image, label) = if let Some(record) = self.repo.shown_draft(&state.name)?.filter(|_| state.work.is_none())
        {
            (record.image, format!("the draft of {}", state.name))
        } else if let Some(newest) = self.newest(&state.name)? {
            (newest.record.image, format!("version {} of {}", newest.record.uid, state.name))
        } else {
            return Ok(None);
        };
        Ok(Some(Arc::new(ImageReader::new(Arc::clone(&self.repo), image, label))))
    }

    fn add_handle(
        &self,
        state: &mut FileState,
        opener: Option<&Opener>,
        request: &OpenRequest,
        version: Option<Arc<ImageReader>>,
    ) -> Fh {
        let fh = Fh(self.next_fh.fetch_add(1, Ordering::Relaxed));
        let writes = request.access.writes();
        let handle = Handle {
            opener: opener.map(|opener| opener.process),
            kind: opener.map_or(TaskKind::Program, |opener| opener.kind),
            writes,
            append: request.append,
            pinned: !writes && version.is_some(),
            version,
            reached: 0,
            active: writes,
            last_writer: None,
        };
        state.handles.insert(fh, handle);
        fh
    }

    /// Begins a draft that is empty: CREATE and O_TRUNC. What it replaces in memory stays on the target until something of
    /// the new one is durable.
    pub(super) fn begin_empty(&self, state: &mut FileState, new: Option<(Caller, u32)>) -> Answer<()> {
        let newest = self.newest(&state.name)?;
        let taken = match &mut state.work {
            Some(work) => work.record.take().map(|record| (record, work.draft.clone())),
            None => self.repo.take_draft(&state.name)?,
        };
        let (record, draft) = match taken {
            Some((record, draft)) => (Some(record), draft),
            None => (None, self.repo.new_draft()?),
        };
        let now = self.repo.clock().now();
        let fallback = FileAttributes {
            mode: new.map_or(0o600, |(_, mode)| mode & 0o7777),
            uid: new.map_or(self.options.uid, |(caller, _)| caller.uid),
            gid: new.map_or(self.options.gid, |(caller, _)| caller.gid),
            mtime: Mtime::from(now),
        };
        let before = newest.as_ref().map(|version| version.attributes.file);
        let current = state.work.as_ref().map(|work| work.attributes).or(before);
        let attributes = FileAttributes { mtime: Mtime::from(now), ..current.unwrap_or(fallback) };
        // Position by position the new content will probably equal the draft that is replaced, else the newest version.
        let relative =
            record.as_ref().map(|record| record.image).or(newest.as_ref().map(|version| version.record.image));
        let start = ImageRef::empty(self.repo.block_size());
        let base = newest.map_or(Uid::NIL, |version| version.record.uid);
        state.work = Some(Work {
            draft,
            image: DraftImage::new(Arc::clone(&self.repo), start, relative.filter(|_| !asks_the_index(&self.repo))),
            start,
            base,
            relative,
            before: relative,
            clean_changes: 0,
            durable_changes: 0,
            said: 0,
            durable_said: 0,
            explicit: true,
            record,
            supersedes: Uid::NIL,
            attributes,
            mtime_set: false,
            broken: None,
            error: None,
            writers: std::collections::BTreeSet::new(),
            published: None,
            began: now,
            begun: 0,
            origin: None,
        });
        Ok(())
    }

    /// Makes sure that there is something to write to: the work at hand, the draft on the target, or the newest version.
    pub(super) fn begin_work<'a>(&self, state: &'a mut FileState) -> Answer<&'a mut Work> {
        if state.work.is_none() {
            if let Some((record, draft)) = self.repo.take_draft(&state.name)? {
                let work = self.work_on(&record, draft)?;
                state.work = Some(Work { record: Some(record), ..work });
            } else if let Some(newest) = self.newest(&state.name)? {
                state.work = Some(self.work_from(&newest)?);
            } else if let Some(record) = self.repo.shown_draft(&state.name)? {
                // Another host's, or another mount's: that one keeps its own.
                state.work = Some(self.work_on(&record, self.repo.new_draft()?)?);
            } else {
                self.begin_empty(state, None)?;
            }
        }
        state.work.as_mut().ok_or(Errno::EIO)
    }

    /// Work that goes on from a draft record.
    fn work_on(&self, record: &Record, draft: ClaimedDraft) -> Answer<Work> {
        let base = self.repo.catalog().version(record.base)?.map(|version| version.record.image);
        let image = DraftImage::new(Arc::clone(&self.repo), record.image, base.or(Some(record.image)));
        // It differs from its start by what the record holds: a count that is not the present one says so.
        let clean_changes = if record.image == record.start { 0 } else { u64::MAX };
        Ok(Work {
            draft,
            image,
            start: record.start,
            base: record.base,
            relative: Some(record.image),
            before: None,
            clean_changes,
            durable_changes: 0,
            said: 0,
            durable_said: 0,
            explicit: false,
            record: None,
            supersedes: Uid::NIL,
            attributes: record.attributes.file,
            mtime_set: true,
            broken: record.broken.clone(),
            error: None,
            writers: std::collections::BTreeSet::new(),
            published: None,
            began: record.created,
            begun: 0,
            origin: None,
        })
    }

    fn work_from(&self, version: &crate::catalog::Version) -> Answer<Work> {
        let record = &version.record;
        Ok(Work {
            draft: self.repo.new_draft()?,
            image: DraftImage::new(Arc::clone(&self.repo), record.image, Some(record.image)),
            start: record.image,
            base: record.uid,
            relative: Some(record.image),
            before: None,
            clean_changes: 0,
            durable_changes: 0,
            said: 0,
            durable_said: 0,
            explicit: false,
            record: None,
            supersedes: Uid::NIL,
            attributes: version.attributes.file,
            mtime_set: false,
            broken: incompleteness(version),
            error: None,
            writers: std::collections::BTreeSet::new(),
            published: None,
            began: self.repo.clock().now(),
            begun: 0,
            origin: None,
        })
    }

    /// Called with the first change since the work began or was published: decides whether this goes on from the version
    /// just published (same process, soon after, nobody has looked) or begins a new one. To go on, that version is marked
    /// incomplete, durably, before the first such write; the lock is held meanwhile, because no write may come before.
    pub(super) fn first_change(&self, state: &mut FileState, process: Option<ProcessId>) -> Answer<()> {
        let name = state.name.clone();
        let work = self.begin_work(state)?;
        if work.is_changed() || work.error.is_some() {
            return Ok(());
        }
        // Not while going on from one that was called so for just that.
        if !work.explicit && work.record.is_none() && work.supersedes.is_nil() {
            // What goes on from an incomplete version is incomplete; it may have been called so, or accepted, since.
            let base = self.repo.catalog().version(work.base)?;
            work.broken = base.and_then(|version| incompleteness(&version));
        }
        work.began = self.repo.clock().now();
        if work.record.is_none() {
            work.draft = self.repo.new_draft()?;
        }
        let Some(published) = work.published.take() else { return Ok(()) };
        let same = published.by.is_some() && published.by == process;
        if !same || published.at.elapsed() > super::SECOND_THOUGHTS || self.looked_at.lock().contains(&published.uid) {
            return Ok(());
        }
        let Some(version) = self.repo.catalog().version(published.uid)? else { return Ok(()) };
        if !version.attributes.tags.is_empty() || !version.attributes.validity.is_complete() {
            return Ok(());
        }
        let who = process.map_or_else(String::new, process::describe);
        let reason = format!("{who} went on writing {name} after closing it");
        self.repo.set_validity(published.uid, Validity::Incomplete(reason))?;
        work.supersedes = published.uid;
        work.draft = self.repo.new_draft()?;
        Ok(())
    }

    /// Work that failed goes back to what is durable, once nobody holds it.
    pub(super) fn drop_failed_work(&self, state: &mut FileState) {
        if state.work.as_ref().is_some_and(|work| work.error.is_some()) && state.writing == 0 {
            state.work = None;
        }
    }

    /// What was published and is not newest any more (another process has made or deleted a version) is nothing to begin
    /// from.
    pub(super) fn drop_stale_work(&self, state: &mut FileState) -> Answer<()> {
        let Some(work) = &state.work else { return Ok(()) };
        if work.is_draft() || state.has_write_handles() || state.writing > 0 || state.closing > 0 {
            return Ok(());
        }
        let base = work.base;
        if self.newest(&state.name)?.is_none_or(|newest| newest.record.uid != base) {
            self.drop_work(state);
        }
        Ok(())
    }

    /// Drops work without changes. Who opened the draft for reading goes on with what became of it.
    pub(super) fn drop_work(&self, state: &mut FileState) {
        let Some(work) = state.work.take() else { return };
        let label = format!("what became of the draft of {}", state.name);
        let shown = Arc::new(ImageReader::new(Arc::clone(&self.repo), work.start, label));
        for handle in state.handles.values_mut().filter(|handle| handle.version.is_none()) {
            (handle.version, handle.pinned) = (Some(Arc::clone(&shown)), true);
        }
    }

    fn watch_writer(&self, process: Option<ProcessId>) {
        let Some(process) = process else { return };
        let me = self.me.clone();
        self.watched.lock().entry(process).or_insert_with(|| {
            self.watch.watch(process, move |outcome| {
                if let Some(incoming) = me.upgrade() {
                    incoming.writer_ended(process, outcome);
                }
            })
        });
    }

    /// Notes what a process closed last.
    pub(super) fn note_closed(&self, process: Option<ProcessId>, file: &Arc<File>) {
        if let Some(process) = process {
            let state = file.state.lock();
            let published = state.work.as_ref().and_then(|work| work.published);
            let version = published.filter(|published| published.by == Some(process)).map(|published| published.uid);
            drop(state);
            self.last_closed.lock().insert(process, Closed { file: Arc::clone(file), at: Instant::now(), version });
        }
    }

    /// Checks a new name: its form, and that it needs no file where a directory is and no directory where a file is.
    pub(super) fn new_name(&self, dir: &str, component: &str) -> Answer<Name> {
        if component.len() > crate::words::name::COMPONENT_MAX_BYTES {
            return Err(Errno::ENAMETOOLONG);
        }
        let name = Name::new(&super::look::join(dir, component)).map_err(|_| Errno::EINVAL)?;
        self.check_collision(&name)?;
        Ok(name)
    }

    pub(super) fn check_collision(&self, name: &Name) -> Answer<()> {
        for (at, _) in name.as_str().match_indices('/') {
            let above = Name::new(&name.as_str()[..at]).map_err(|_| Errno::EINVAL)?;
            let hidden = self.repo.catalog().is_hidden(&above)?;
            if self.is_shown(&above)? || (hidden && !self.repo.catalog().versions_of(&above)?.is_empty()) {
                tracing::warn!("{name} cannot be made: {above} is a backup, not a directory");
                return Err(Errno::ENOTDIR);
            }
        }
        if self.is_dir(name.as_str())? {
            return Err(Errno::EISDIR);
        }
        Ok(())
    }
}

/// What goes on from an incomplete version is incomplete until it has gone over the place where that one ended.
fn incompleteness(version: &crate::catalog::Version) -> Option<Broken> {
    match &version.attributes.validity {
        Validity::Incomplete(reason) => Some(Broken { at: version.record.image.size_bytes, reason: reason.clone() }),
        _ => None,
    }
}

impl Work {
    /// A fresh identity for what comes after a publication. What broke it since its publication began still does.
    pub(super) fn renew(&mut self, draft: ClaimedDraft) {
        self.draft = draft;
        self.record = None;
        self.supersedes = Uid::NIL;
        self.explicit = false;
        self.durable_said = self.said;
        self.mtime_set = false;
        self.writers.clear();
    }
}
