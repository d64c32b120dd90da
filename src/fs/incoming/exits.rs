//! What becomes of a version when its writer fails after closing it: `cp` closes after a read error and exits 1, `dd` closes on
//! SIGINT and dies of it.

use crate::fs::incoming::{Incoming, SECOND_THOUGHTS};
use crate::fs::process::{Exit, ProcessId};
use crate::fs::process_watch::Outcome;
use crate::words::attribute::Validity;
use crate::words::record::Broken;

impl Incoming {
    /// Called when a process that had something open for writing has ended.
    pub(super) fn writer_ended(&self, process: ProcessId, outcome: Outcome) {
        let closed = self.last_closed.lock().remove(&process);
        // The watch is put away by upkeep: it must not be dropped within its own callback.
        self.ended.lock().push(process);
        let Outcome::Exited(exit) = outcome else { return };
        if exit.is_success() {
            return;
        }
        let Some(closed) = closed.filter(|closed| closed.at.elapsed() <= SECOND_THOUGHTS) else { return };
        self.take_back(&closed.file, process, exit);
    }

    fn take_back(&self, file: &std::sync::Arc<super::file::File>, process: ProcessId, exit: Exit) {
        let reason = format!("its writer, process {}, {exit} just after closing it", process.tgid);
        let mut state = file.state.lock();
        let name = state.name.clone();
        let Some(work) = &mut state.work else { return };
        let published = work.published.filter(|published| published.by == Some(process));
        if published.is_none() && work.is_changed() && work.writers.contains(&process) {
            // Kept under a temporary name, or going on: not published yet, and not to be.
            work.broken = Some(Broken { at: work.image.size_bytes(), reason: reason.clone() });
            work.durable_changes = u64::MAX;
        }
        work.published = work.published.filter(|published| published.by != Some(process));
        drop(state);
        match published {
            Some(published) => match self.repo.set_validity(published.uid, Validity::Incomplete(reason.clone())) {
                Ok(()) => tracing::warn!(
                    "{name}: version {} is incomplete: {reason}; to accept it, write \"valid\" to its file `valid`",
                    published.uid
                ),
                Err(error) => tracing::error!(
                    "{name}: version {} is incomplete ({reason}), but that could not be noted: {error}",
                    published.uid
                ),
            },
            None => drop(self.commit(file, super::commit::Purpose::Durable)),
        }
    }
}
