//! Getting many small objects. Whoever comes to a target that others filled reads each record, fragment and entry once; one after the
//! other that would take as long as the way there and back, times thousands. Where lists come in pages a request takes long,
//! so several are under way; a directory answers at once, and is asked in order.

use crate::format::frame::FrameKind;
use crate::format::layout::ObjectKey;
use crate::repo::learn::Learner;
use crate::repo::{Core, RepoError};
use crate::seal::SealError;
use crate::target::TargetError;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Objects held in memory at once.
pub(super) const BATCH: usize = 64;
/// Requests under way.
const AT_ONCE: usize = 8;

/// What became of one object: unreachable, not authentic, or its content.
pub(super) type Got = Result<Result<Vec<u8>, SealError>, TargetError>;

impl Core {
    /// Gets and opens objects (their names, and what they are sealed as), and answers in the same order.
    pub(super) fn gather(&self, kind: FrameKind, wanted: &[(ObjectKey, [u8; 32])]) -> Vec<Got> {
        let threads = if self.target.is_paged() { AT_ONCE.min(wanted.len()) } else { 1 };
        if threads <= 1 {
            return wanted.iter().map(|(key, object)| self.get_opened(kind, key, *object)).collect();
        }
        let next = AtomicUsize::new(0);
        let work = || {
            let mut got = Vec::new();
            while let Some((at, (key, object))) = {
                let at = next.fetch_add(1, Ordering::Relaxed);
                wanted.get(at).map(|one| (at, one))
            } {
                got.push((at, self.get_opened(kind, key, *object)));
            }
            got
        };
        let mut all: Vec<(usize, Got)> = std::thread::scope(|scope| {
            let helpers: Vec<_> =
                (1..threads).filter_map(|_| std::thread::Builder::new().spawn_scoped(scope, work).ok()).collect();
            let mut all = work();
            for helper in helpers {
                match helper.join() {
                    Ok(got) => all.extend(got),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            all
        });
        all.sort_unstable_by_key(|(at, _)| *at);
        all.into_iter().map(|(_, got)| got).collect()
    }
}

impl Learner<'_> {
    /// Gets objects that are new, and hands each over in the order of `new`; `None` for one that is gone or not authentic.
    ///
    /// # Errors
    /// When the target cannot be reached, and what `learn` says.
    pub(super) fn each<N: Copy>(
        &mut self,
        kind: FrameKind,
        new: &[(N, ObjectKey)],
        object: impl Fn(&N) -> [u8; 32],
        mut learn: impl FnMut(&mut Self, N, &ObjectKey, Option<Vec<u8>>) -> Result<(), RepoError>,
    ) -> Result<(), RepoError> {
        for batch in new.chunks(BATCH) {
            let wanted: Vec<_> = batch.iter().map(|(name, key)| (key.clone(), object(name))).collect();
            for ((name, key), got) in batch.iter().zip(self.core.gather(kind, &wanted)) {
                let plain = self.took(key, got)?;
                learn(self, *name, key, plain)?;
            }
        }
        Ok(())
    }

    /// Gets one.
    ///
    /// # Errors
    /// When the target cannot be reached.
    pub(super) fn fetch(
        &mut self,
        kind: FrameKind,
        key: &ObjectKey,
        object: [u8; 32],
    ) -> Result<Option<Vec<u8>>, RepoError> {
        let got = self.core.get_opened(kind, key, object);
        self.took(key, got)
    }

    /// Notes what cannot be read, so that everything else is learnt all the same.
    fn took(&mut self, key: &ObjectKey, got: Got) -> Result<Option<Vec<u8>>, RepoError> {
        match got {
            Ok(Ok(plain)) => Ok(Some(plain)),
            Ok(Err(error)) => {
                self.unreadable(key, error);
                Ok(None)
            }
            Err(TargetError::NotFound { .. }) => Ok(None),
            Err(error @ TargetError::Truncated { .. }) => {
                self.unreadable(key, error);
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }
}
