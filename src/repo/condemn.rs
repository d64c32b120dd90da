//! Packs that go: condemned first, for ever, and deleted when everything that is still needed of them has been copied.

use crate::format::frame::FrameKind;
use crate::format::{condemned, layout};
use crate::repo::{RepoError, Repository, object_id};
use crate::words::clock::ClockExt;
use crate::words::ids::{BatchId, PackId};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Deletions under way at once: each is a round trip to the target and no work here.
const DELETIONS_AT_ONCE: usize = 8;

impl Repository {
    /// Condemns packs: from now on their copies count for nobody, on any host, whenever entries about them arrive. It cannot be
    /// taken back. Durable on return, and known here.
    ///
    /// # Errors
    /// When target or catalog fail. Then the packs may be condemned nevertheless.
    pub fn condemn(&self, packs: &[PackId]) -> Result<BatchId, RepoError> {
        let core = &self.core;
        let batch = core.clock.batch_id();
        let object = object_id(batch.as_bytes(), &[]);
        let sealed = core.sealer.seal_object(FrameKind::Condemned, object, &condemned::encode(packs));
        core.target.put(&layout::condemned(batch), &[&sealed])?;
        core.catalog.absorb_batch(batch, packs)?;
        Ok(batch)
    }

    /// Deletes packs from the target, several at once, for as long as `go_on` says so, and answers how many it deleted: the
    /// first so many. That they are condemned and hold nothing that is needed is for the caller to know.
    ///
    /// # Errors
    /// When the target fails. It can be repeated.
    pub fn delete_packs(&self, packs: &[PackId], go_on: &(dyn Fn() -> bool + Sync)) -> Result<usize, RepoError> {
        let mut deleted = 0;
        for chunk in packs.chunks(DELETIONS_AT_ONCE * 8) {
            if !go_on() {
                break;
            }
            let next = AtomicUsize::new(0);
            let delete = || -> Result<(), RepoError> {
                while let Some(pack) = chunk.get(next.fetch_add(1, Ordering::Relaxed)) {
                    self.core.target.delete(&layout::pack(*pack))?;
                }
                Ok(())
            };
            std::thread::scope(|scope| {
                let threads: Vec<_> = (0..DELETIONS_AT_ONCE.min(chunk.len())).map(|_| scope.spawn(delete)).collect();
                threads.into_iter().try_for_each(|thread| thread.join().unwrap_or(Err(RepoError::Stopped)))
            })?;
            deleted += chunk.len();
        }
        Ok(deleted)
    }
}
