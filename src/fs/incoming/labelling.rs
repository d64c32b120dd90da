//! Automatic tags of what was copied here: given when the writer is gone, or after a minute (`ops::automatic` has the rules).
//!
//! A thread of its own gives them, because that waits for the target. It is nudged when a writer has ended, after what its end means
//! for the version was settled: a version that its writer takes back gets no tags.

use crate::fs::incoming::Incoming;
use crate::fs::process::{self, ProcessId};
use crate::ops::automatic::{self, Note, PATIENCE_MS};
use crate::repo::RepoError;
use crate::words::ids::Uid;
use crate::words::name::Name;
use crate::words::stamp::Stamp;
use parking_lot::{Condvar, Mutex};
use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// A version that could not be labelled is tried again after this.
const RETRY: Duration = Duration::from_secs(30);
/// Of writers that were found to have ended: news of how may still be under way.
const LATE_NEWS: Duration = Duration::from_secs(2);
/// Between two looks at those that wait for their minute to pass.
const TICK: Duration = Duration::from_secs(1);

/// Versions that wait for their labels.
#[derive(Default)]
pub(super) struct Unlabelled {
    waiting: Mutex<Vec<Waiting>>,
    nudge: Condvar,
}

struct Waiting {
    note: Note,
    name: Name,
    /// Who wrote it and has not ended.
    writers: BTreeSet<ProcessId>,
    /// Nobody is waited for any longer then.
    deadline: Instant,
    /// Not before then, after a failure.
    not_before: Instant,
}

impl Waiting {
    fn new(note: Note, name: Name, writers: BTreeSet<ProcessId>, patience: Duration) -> Self {
        let now = Instant::now();
        Self { note, name, writers, deadline: now + patience, not_before: now }
    }
}

impl Incoming {
    /// Notes a version before its writer is told of it. `writers` are those who may still say that they failed; of none is known: a
    /// minute is waited.
    pub(super) fn await_labels(
        &self,
        name: &Name,
        uid: Uid,
        at: Stamp,
        writers: BTreeSet<ProcessId>,
    ) -> Result<(), RepoError> {
        let note = Note::new(uid, at);
        if !automatic::note(&self.repo, &self.options.policy, name, note)? {
            return Ok(());
        }
        let patience = Duration::from_millis(PATIENCE_MS.unsigned_abs());
        self.unlabelled.waiting.lock().push(Waiting::new(note, name.clone(), writers, patience));
        self.unlabelled.nudge.notify_all();
        Ok(())
    }

    /// A writer has ended, and what that means for its version was settled.
    pub(super) fn writer_is_gone(&self, process: ProcessId) {
        self.strike_out(process, Duration::ZERO);
    }

    /// Strikes out writers whose end nobody told us of. Looking at a process that is in execve(2) waits for it, and that may wait
    /// for the answer to a close(): so this is done here, and never where a close is answered.
    fn look_for_writers(&self) {
        let writers: BTreeSet<ProcessId> =
            self.unlabelled.waiting.lock().iter().flat_map(|version| version.writers.iter().copied()).collect();
        for writer in writers.into_iter().filter(|writer| !process::is_running(*writer)) {
            self.strike_out(writer, LATE_NEWS);
        }
    }

    fn strike_out(&self, process: ProcessId, patience: Duration) {
        let mut waiting = self.unlabelled.waiting.lock();
        let mut ready = false;
        for version in waiting.iter_mut() {
            if version.writers.remove(&process) && version.writers.is_empty() {
                version.deadline = Instant::now() + patience;
                ready = true;
            }
        }
        drop(waiting);
        if ready {
            self.unlabelled.nudge.notify_all();
        }
    }

    /// Starts the thread, if any name can have schedules; it ends with the tree.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub(super) fn start_labelling(self: &Arc<Self>) -> std::io::Result<()> {
        if !self.options.policy.tags_anything() {
            return Ok(());
        }
        let me = Arc::downgrade(self);
        std::thread::Builder::new().name("labels".into()).spawn(move || run(&me)).map(drop)
    }

    /// What daemons before this one left waiting.
    fn take_up_notes(&self) -> Result<(), RepoError> {
        let now = self.repo.clock().now();
        for note in automatic::notes(&self.repo)? {
            let Some(version) = self.repo.catalog().version_summary(note.uid)? else {
                // Gone meanwhile: only the note is left.
                automatic::label(&self.repo, &self.options.policy, note)?;
                continue;
            };
            let left_ms = PATIENCE_MS - (now.millis() - note.at.millis()).clamp(0, PATIENCE_MS);
            let patience = Duration::from_millis(left_ms.unsigned_abs());
            let mut waiting = self.unlabelled.waiting.lock();
            if !waiting.iter().any(|known| known.note.uid == note.uid) {
                waiting.push(Waiting::new(note, version.attributes.name, BTreeSet::new(), patience));
            }
        }
        Ok(())
    }

    /// Labels what is ready. A version waits for those of its name before it, which decide what is due.
    pub(super) fn label_ready(&self) {
        let now = Instant::now();
        loop {
            let mut waiting = self.unlabelled.waiting.lock();
            waiting.sort_by_key(|version| version.note.uid);
            let is_first = |at: usize| waiting[..at].iter().all(|before| before.name != waiting[at].name);
            let is_ready = |at: &usize| waiting[*at].deadline <= now && waiting[*at].not_before <= now && is_first(*at);
            let Some(at) = (0..waiting.len()).find(is_ready) else { return };
            let note = waiting[at].note;
            drop(waiting);
            let labelled = automatic::label(&self.repo, &self.options.policy, note);
            let mut waiting = self.unlabelled.waiting.lock();
            let Some(at) = waiting.iter().position(|version| version.note.uid == note.uid) else { continue };
            match labelled {
                Ok(labels) => {
                    let done = waiting.swap_remove(at);
                    if !labels.tags.is_empty() {
                        let tags: Vec<String> = labels.tags.into_iter().collect();
                        let expire = labels.expire.map_or_else(|| "never".to_owned(), Stamp::to_seconds_text);
                        tracing::info!("{}: version {} is {}, expires {expire}", done.name, note.uid, tags.join(", "));
                    }
                }
                Err(error) => {
                    waiting[at].not_before = Instant::now() + RETRY;
                    tracing::warn!("{}: version {} could not be tagged yet: {error}", waiting[at].name, note.uid);
                }
            }
        }
    }
}

fn run(me: &Weak<Incoming>) {
    if let Some(incoming) = me.upgrade()
        && let Err(error) = incoming.take_up_notes()
    {
        tracing::warn!("versions that wait for their tags could not be looked for; the next mount will: {error}");
    }
    loop {
        let Some(incoming) = me.upgrade() else { return };
        if incoming.stopping.load(Ordering::Relaxed) {
            return;
        }
        incoming.look_for_writers();
        incoming.label_ready();
        let mut waiting = incoming.unlabelled.waiting.lock();
        let now = Instant::now();
        if !waiting.iter().any(|version| version.deadline <= now && version.not_before <= now) {
            incoming.unlabelled.nudge.wait_for(&mut waiting, TICK);
        }
    }
}
