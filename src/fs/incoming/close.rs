//! close(), fsync() and the end of handles.

use crate::fs::incoming::Incoming;
use crate::fs::incoming::commit::Purpose;
use crate::fs::incoming::file::{File, FileState, Work};
use crate::fs::process::{self, ProcessId, TaskKind};
use crate::fs::seam::{Answer, Caller, Fh};
use parking_lot::MutexGuard;
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
        let FileState { handles, work, .. } = &mut *state;
        let others = handles.iter().any(|(other, handle)| *other != fh && handle.reached > 0);
        let at_work = handles.iter().any(|(other, handle)| *other != fh && handle.active && handle.reached > 0);
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
                // A handle that nothing was written through says nothing about the place, if another can.
                let reached = if handle.reached == 0 && others { work.image.size_bytes() } else { handle.reached };
                let reason = format!("{who} {how} while writing it");
                tracing::warn!("{name}: incomplete, because {reason}; continue or repeat the copy, or remove it");
                work.break_at(reached, reason);
                // What is durable already must say so as well.
                work.said += 1;
            }
            return self.commit_closing(&file, state, Purpose::Durable);
        }
        // A kernel thread (a loop device, knfsd) closes whenever it likes: that finishes nothing.
        let kernel = task.as_ref().is_some_and(|task| task.kind == TaskKind::Kernel);
        // Nor does one writer finish what another is still at: the last of them does.
        let purpose = if is_opener && !kernel && !at_work { Purpose::Publish(process) } else { Purpose::Durable };
        if is_opener {
            handle.active = false;
        }
        self.commit_closing(&file, state, purpose)?;
        if is_opener {
            self.note_closed(process, &file);
        }
        Ok(())
    }

    /// Commits for a close: until it is answered nobody replaces what it stores.
    fn commit_closing(&self, file: &Arc<File>, mut state: MutexGuard<'_, FileState>, purpose: Purpose) -> Answer<()> {
        state.closing += 1;
        drop(state);
        let outcome = self.commit(file, purpose);
        file.state.lock().closing -= 1;
        file.quiet.notify_all();
        outcome
    }

    /// fsync(): everything written is durable.
    pub fn fsync(&self, number: u64, fh: Fh) -> Answer<()> {
        let file = self.by_number(number)?;
        // By any handle: sync(1) opens for reading only.
        if !file.state.lock().handles.contains_key(&fh) {
            return Ok(());
        }
        self.commit(&file, Purpose::Durable)
    }

    /// The last close of a handle: the last one that could write finishes the draft.
    pub fn release(&self, number: u64, fh: Fh) {
        let Ok(file) = self.by_number(number) else { return };
        let mut state = file.state.lock();
        let Some(handle) = state.handles.remove(&fh) else { return };
        let last = handle.writes && !state.has_write_handles();
        let open = state.work.as_ref().is_some_and(|work| work.is_changed() && work.error.is_none());
        if last && open {
            // Who closed last is unknown here. Kernel threads close whenever they like: their drafts publish by rename only.
            let purpose = match handle.kind {
                TaskKind::Kernel => Purpose::Durable,
                TaskKind::Program => Purpose::Publish(handle.opener),
            };
            // The error was logged and sticks; nobody waits for this answer.
            let _ = self.commit_closing(&file, state, purpose);
            self.note_closed(handle.opener, &file);
        } else {
            drop(state);
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
            self.drop_work(&mut state);
        }
        if state.detached && state.handles.is_empty() {
            drop(state);
            self.table.lock().drop_file(file);
        }
    }
}
