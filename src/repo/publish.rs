//! Publishing a record: put it, check everything it needs, confirm it. Only then may anything be acknowledged.

use crate::format::frame::FrameKind;
use crate::format::{layout, record};
use crate::repo::lease::Lease;
use crate::repo::reread::REREADS;
use crate::repo::{Core, RepoError, Repository, object_id};
use crate::target::TargetError;
use crate::words::ids::Uid;
use crate::words::monitor::Counter;
use crate::words::record::{ImageRef, Record, Verdict};

impl Repository {
    /// Publishes a record whose blocks are durable and indexed (see [`Repository::flush_packs`]).
    ///
    /// A writer publishes and then checks, a collector condemns and then looks; each writes before it reads. So whatever
    /// the interleaving, either the collector sees this record and keeps what it needs, or the check below sees the
    /// collector's batch and stores again what it took. `relatives` are images whose blocks are known to be good if their
    /// maps were checked under the same condemned list: subtrees shared with them need no second walk.
    ///
    /// # Errors
    /// When anything could not be stored or is lost, and when a collector withdrew the record. Then nothing is
    /// acknowledged, and the record is taken back as far as the target can be reached.
    pub fn publish(&self, record: &Record, relatives: &[ImageRef]) -> Result<(), RepoError> {
        let core = &self.core;
        // A key version that another host made since: from here on it is used here, too.
        core.learn_rings()?;
        let key = layout::record(record.kind, record.uid);
        let object = object_id(record.uid.as_bytes(), &[]);
        let sealed = core.sealer.seal_object(FrameKind::from(record.kind), object, &record::encode(record));
        // Tells finders on this host that the writer is alive.
        let alive = Lease::take(&self.publishing_dir(), &record.uid.to_string());
        let _alive = alive.inspect_err(|error| tracing::debug!("published without a lease: {error}")).ok();
        core.target.put(&key, &[&sealed])?;
        core.monitor.count(Counter::RecordsPut, 1);
        core.catalog.put_record(record, Verdict::Pending)?;
        let list = self.check_image(&record.image, relatives).inspect_err(|_| {
            // No `ok` was written: nobody relies on this record, nor ever will.
            core.take_back(record);
        })?;
        // From here on `ok` may be there, whatever the answer says, and others act on it: an older record of the same draft goes. So
        // what is not certain is left to finders, and a copy that failed may yet turn up, whole.
        core.confirm(record.uid)?;
        core.catalog.set_verdict(record.uid, Verdict::Confirmed)?;
        core.catalog.set_checked(&record.image.root, record.image.depth(), &list)?;
        Ok(())
    }
}

impl Core {
    /// GC rule 5: write `ok`, then look for `withdrawing`.
    fn confirm(&self, uid: Uid) -> Result<(), RepoError> {
        let ok = self.sealer.seal_object(FrameKind::Ok, object_id(uid.as_bytes(), &[]), &[]);
        self.target.put(&layout::ok(uid), &[&ok])?;
        let key = layout::withdrawing(uid);
        for _ in 0..=REREADS {
            match self.target.get(&key) {
                Err(TargetError::NotFound { .. }) => return Ok(()),
                // What does not say so may be the answer to another question: it is asked again.
                Ok(bytes) if !self.is_withdrawing(uid, &bytes) => {}
                Ok(_) => break,
                Err(error) => return Err(error.into()),
            }
        }
        Err(RepoError::Withdrawn { uid })
    }

    fn is_withdrawing(&self, uid: Uid, bytes: &[u8]) -> bool {
        self.open_object(FrameKind::Withdrawing, object_id(uid.as_bytes(), &[]), bytes).is_ok()
    }

    /// Removes a record that was not confirmed, and will never be: nobody was told that it is safe. `ok` may have been written
    /// although its answer was an error, and writes of both may still be on their way, so a tombstone goes first: with it they
    /// mean nothing whenever they arrive. Each step is tried whatever became of the one before: what is left is withdrawn by
    /// the next finder.
    fn take_back(&self, record: &Record) {
        let uid = record.uid;
        let steps = [
            self.put_tombstone(uid),
            self.target.delete(&layout::record(record.kind, uid)).map_err(RepoError::from),
            self.target.delete(&layout::ok(uid)).map_err(RepoError::from),
        ];
        let noted = self.catalog.remove_record(uid);
        if let Some(error) = steps.into_iter().find_map(Result::err) {
            tracing::warn!("an unfinished record {uid} stays on the target until it is collected: {error}");
        }
        if let Err(error) = noted {
            tracing::warn!("an unfinished record {uid} stays in the catalog until it is rebuilt: {error}");
        }
    }
}
