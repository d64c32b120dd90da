//! What becomes of a version when its writer fails after closing it: `cp` closes after a read error and exits 1, `dd` closes on
//! SIGINT and dies of it.

use crate::fs::incoming::{Closed, Incoming, SECOND_THOUGHTS};
use crate::fs::process::{Exit, ProcessId};
use crate::fs::process_watch::Outcome;
use crate::words::attribute::Validity;

impl Incoming {
    /// Called when a process that had something open for writing has ended.
    pub(super) fn writer_ended(&self, process: ProcessId, outcome: Outcome) {
        let closed = self.last_closed.lock().remove(&process);
        // The watch is put away by upkeep: it must not be dropped within its own callback.
        self.ended.lock().push(process);
        if let Outcome::Exited(exit) = outcome
            && !exit.is_success()
            && let Some(closed) = closed.filter(|closed| closed.at.elapsed() <= SECOND_THOUGHTS)
        {
            self.take_back(&closed, process, exit);
        }
        self.writer_is_gone(process);
    }

    fn take_back(&self, closed: &Closed, process: ProcessId, exit: Exit) {
        let file = &closed.file;
        let reason = format!("its writer, process {}, {exit} just after closing it", process.tgid);
        let mut state = file.state.lock();
        let name = state.name.clone();
        // Gone on from, it has been replaced by what the same process wrote after it.
        let published =
            closed.version.filter(|uid| self.repo.catalog().version(*uid).is_ok_and(|version| version.is_some()));
        if let Some(work) = &mut state.work {
            let inherits = !work.explicit && published == Some(work.base);
            let unpublished = published.is_none() && work.writers.contains(&process);
            if work.is_changed() && (inherits || unpublished) {
                // Kept under a temporary name, or gone on with by this or another process: not to be published.
                work.break_at(work.image.size_bytes(), reason.clone());
                work.said += 1;
            }
            work.published.take_if(|published| published.by == Some(process));
        }
        drop(state);
        match published {
            Some(uid) => match self.repo.set_validity(uid, Validity::Incomplete(reason.clone())) {
                Ok(()) => tracing::warn!(
                    "{name}: version {} is incomplete: {reason}; to accept it, write \"valid\" to its file `valid`",
                    uid
                ),
                Err(error) => tracing::error!(
                    "{name}: version {} is incomplete ({reason}), but that could not be noted: {error}",
                    uid
                ),
            },
            None => drop(self.commit(file, super::commit::Purpose::Durable)),
        }
    }
}
