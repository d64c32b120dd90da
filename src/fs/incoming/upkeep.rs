//! What runs beside the requests: drafts are made durable now and then, old ones expire, memory of finished writers goes.

use crate::fs::incoming::Incoming;
use crate::fs::incoming::commit::Purpose;
use crate::fs::seam::Answer;
use crate::ops::{Interrupt, scrub};
use crate::repo::drafts::DraftOwner;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// Between two looks.
const TICK: Duration = Duration::from_secs(1);
/// A draft that grows is made durable this often, so that a crash costs little of a long copy.
const DURABLE_EVERY: Duration = Duration::from_secs(20);
/// Damage that was met while reading is reported this often.
const REPORT_EVERY: Duration = Duration::from_secs(10);
/// Drafts are looked through for expired ones this often.
const EXPIRE_EVERY: Duration = Duration::from_secs(3600);

impl Incoming {
    /// Starts the upkeep; it ends with the tree.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start_upkeep(self: &Arc<Self>) -> std::io::Result<()> {
        self.start_labelling()?;
        self.start_holding()?;
        let me = Arc::downgrade(self);
        std::thread::Builder::new().name("upkeep".into()).spawn(move || keep_up(&me)).map(drop)
    }

    /// Makes every draft durable: before the daemon ends. Drafts whose writers are gone are as finished as they will be, and
    /// were dealt with when they closed.
    pub fn drain(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        // The errors were logged and stick to the drafts.
        let stored = self.make_all_durable();
        self.let_go(stored.is_ok());
        // Those whose writers are still there are labelled by whoever mounts next.
        self.label_ready();
    }

    /// Stores what every draft holds.
    ///
    /// # Errors
    /// The last, when some could not be stored: the others were nevertheless. It was logged, and sticks to its draft.
    pub fn make_all_durable(&self) -> Answer<()> {
        let mut outcome = Ok(());
        // The table is not held meanwhile: a commit takes long, and putting away takes it again.
        let files = self.table.lock().files();
        for file in files {
            let volatile = file
                .state
                .lock()
                .work
                .as_ref()
                .is_some_and(|work| work.error.is_none() && work.is_changed() && work.is_volatile());
            if volatile {
                outcome = self.commit(&file, Purpose::Durable).and(outcome);
            }
        }
        outcome
    }

    fn put_all_away(&self) {
        self.forget_old_closes();
        let files = self.table.lock().files();
        for file in files {
            self.put_away(&file);
        }
        let ended = std::mem::take(&mut *self.ended.lock());
        if !ended.is_empty() {
            let gone: Vec<_> = ended.iter().filter_map(|process| self.watched.lock().remove(process)).collect();
            drop(gone);
        }
    }

    /// Tells the other hosts of damage that readers met, and marks the versions that have it. On a thread of its own, because that
    /// walks over maps; drafts must not wait for it.
    fn report_damage(&self) {
        static BUSY: AtomicBool = AtomicBool::new(false);
        let noted = self.repo.catalog().bad_copies();
        let is_news = noted.is_ok_and(|noted| noted.iter().any(|copy| !copy.is_reported));
        if !is_news || BUSY.swap(true, Ordering::Relaxed) {
            return;
        }
        let (repo, busy) = (Arc::clone(&self.repo), Busy(&BUSY));
        let started = std::thread::Builder::new().name("report-damage".into()).spawn(move || {
            let _busy = busy;
            match scrub::publish_noted(&repo, &Interrupt::never()) {
                Ok(_) => {
                    tracing::warn!("damage was found by reading: the versions that have it are marked; scrub the rest");
                }
                Err(error) => tracing::warn!("damage that was found could not be reported yet: {error}"),
            }
        });
        if let Err(error) = started {
            tracing::warn!("damage that was found could not be reported yet: {error}");
        }
    }

    /// Removes drafts that were never published and are older than allowed. One that is open is in use, however old; so may be
    /// any of another host, whose clock says nothing about ours: those stay until somebody removes them.
    fn expire_drafts(&self) {
        let before =
            self.repo.clock().now().millis() - i64::try_from(self.options.draft_expire.as_millis()).unwrap_or(i64::MAX);
        let drafts = match self.repo.catalog().drafts() {
            Ok(drafts) => drafts,
            Err(error) => return tracing::warn!("old drafts could not be looked for: {error}"),
        };
        for record in drafts.into_iter().filter(|record| record.created.millis() < before) {
            let name = &record.attributes.name;
            let open = self.table.lock().peek(name).is_some_and(|file| file.state.lock().work.is_some());
            if open || !matches!(self.repo.owner_of_draft(&record), Ok(DraftOwner::Ours)) {
                continue;
            }
            tracing::warn!("{name}: a draft of {} bytes from {} has expired", record.image.size_bytes, record.created);
            if let Err(error) = self.repo.discard_draft(&record, DraftOwner::Ours) {
                tracing::warn!("{name}: its expired draft could not be removed: {error}");
            }
        }
    }
}

/// Clears a flag when it goes.
struct Busy(&'static AtomicBool);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

fn keep_up(me: &Weak<Incoming>) {
    let (mut durable, mut noted, mut expired) = (Instant::now(), Instant::now(), None::<Instant>);
    loop {
        std::thread::sleep(TICK);
        let Some(incoming) = me.upgrade() else { return };
        if incoming.stopping.load(Ordering::Relaxed) {
            return;
        }
        incoming.put_all_away();
        if durable.elapsed() >= DURABLE_EVERY {
            let _ = incoming.make_all_durable();
            durable = Instant::now();
        }
        if noted.elapsed() >= REPORT_EVERY {
            incoming.report_damage();
            noted = Instant::now();
        }
        if expired.is_none_or(|at| at.elapsed() >= EXPIRE_EVERY) {
            incoming.expire_drafts();
            expired = Some(Instant::now());
        }
    }
}
