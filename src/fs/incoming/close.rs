//! close(), fsync() and the end of handles.

use crate::fs::incoming::Incoming;
use crate::fs::incoming::commit::Purpose;
use crate::fs::incoming::file::{File, Work};
use crate::fs::process::{self, ProcessId, TaskKind};
use crate::fs::seam::{Answer, Caller, Fh};
use crate::words::record::Broken;
use std::sync::Arc;

impl Incoming {
    /// A close() of one descriptor.
    ///
    /// From the opener's process it finishes the draft; from any other it makes it durable. From a task that is dying of a
    /// signal or with a non-zero code it finishes nothing, if that process wrote or opened the file: the draft is broken
    /// where it got to.
    pub fn flush(&self, caller: Caller, number: u64, fh: Fh) -> Answer<()> {
        let file = self.by_number(number)?;
        let task = process::closer(caller.pid);
        let mut state = file.state.lock();
        let name = state.name.clone();
        let crate::fs::incoming::file::FileState { handles, work, .. } = &mut *state;
        let Some(handle) = handles.get_mut(&fh).filter(|handle| handle.writes) else { return Ok(()) };
        if let Some(error) = work.as_ref().and_then(|work| work.error) {
            return Err(error);
        }
        let is_closer = |process: &ProcessId| task.as_ref().is_some_and(|task| task.is_of(*process));
        let is_opener = handle.opener.as_ref().is_some_and(is_closer);
        let failure = task.as_ref().and_then(|task| task.ending.failure());
        let wrote = work.as_ref().is_some_and(|work| work.writers.iter().any(is_closer));
        let process = handle.opener.filter(|_| is_opener);
        if let (Some(how), true) = (failure, is_opener || wrote) {
            handle.active = false;
            let who = task.as_ref().map_or_else(|| "its writer".to_owned(), ToString::to_string);
            if let Some(work) = work.as_mut().filter(|work| work.is_changed()) {
                let reason = format!("{who} {how} while writing it");
                tracing::warn!("{name}: incomplete, because {reason}; continue or repeat the copy, or remove it");
                work.broken = Some(Broken { at: handle.reached, reason });
                // What is durable already must say so as well.
                work.durable_changes = u64::MAX;
            }
            drop(state);
            return self.commit(&file, Purpose::Durable);
        }
        // A kernel thread (a loop device, knfsd) closes whenever it likes: that finishes nothing.
        let kernel = task.as_ref().is_some_and(|task| task.kind == TaskKind::Kernel);
        let purpose = if is_opener && !kernel { Purpose::Publish(process) } else { Purpose::Durable };
        if is_opener {
            handle.active = false;
        }
        drop(state);
        self.commit(&file, purpose)?;
        if is_opener {
            self.note_closed(process, &file);
        }
        Ok(())
    }

    /// fsync(): everything written is durable.
    pub fn fsync(&self, number: u64, fh: Fh) -> Answer<()> {
        let file = self.by_number(number)?;
        let state = file.state.lock();
        if !state.handles.get(&fh).is_some_and(|handle| handle.writes) {
            return Ok(());
        }
        drop(state);
        self.commit(&file, Purpose::Durable)
    }

    /// The last close of a handle: the last one that could write finishes the draft.
    pub fn release(&self, number: u64, fh: Fh) {
        let Ok(file) = self.by_number(number) else { return };
        let mut state = file.state.lock();
        let Some(handle) = state.handles.remove(&fh) else { return };
        let last = handle.writes && !state.has_write_handles();
        let open = state.work.as_ref().is_some_and(|work| work.is_changed() && work.error.is_none());
        drop(state);
        if last && open {
            // Who closed last is unknown here. Kernel threads close whenever they like: their drafts publish by rename only.
            let purpose = match handle.kind {
                TaskKind::Kernel => Purpose::Durable,
                TaskKind::Program => Purpose::Publish(handle.opener),
            };
            // The error was logged and sticks; nobody waits for this answer.
            let _ = self.commit(&file, purpose);
            self.note_closed(handle.opener, &file);
        }
        self.put_away(&file);
    }

    /// Forgets work that nobody holds and that holds nothing.
    pub(super) fn put_away(&self, file: &Arc<File>) {
        let mut state = file.state.lock();
        if state.has_write_handles() || state.writing > 0 {
            return;
        }
        self.drop_failed_work(&mut state);
        let idle =
            |work: &Work| !work.is_draft() && work.published.is_none_or(|p| p.at.elapsed() > super::SECOND_THOUGHTS);
        if state.work.as_ref().is_some_and(idle) {
            state.work = None;
        }
        if state.detached && state.handles.is_empty() {
            drop(state);
            self.table.lock().drop_file(file);
        }
    }
}
