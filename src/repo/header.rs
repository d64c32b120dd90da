//! The header is what makes a target a repository. Without it there may be nothing, or something that must not be lost.

use crate::format::layout::{self, Object};
use crate::repo::RepoError;
use crate::target::{Target, TargetError};

/// Whether what was not read may be lost or damaged, while the target is there: then its second copy is worth a question. A directory
/// without a header does not look like a repository, and says that it is away; one that is far away is not asked again, which would
/// take long.
pub fn may_be_lost(target: &dyn Target, error: &TargetError) -> bool {
    match error {
        TargetError::NotFound { .. } | TargetError::Io { .. } | TargetError::Truncated { .. } => true,
        TargetError::Unreachable { .. } => !target.is_paged(),
        _ => false,
    }
}

/// As [`may_be_lost`], of an object among others. An answer that is wrong each time may be about it alone; about the first that is asked for,
/// it says that this is no server of S3.
pub fn is_about_one(target: &dyn Target, error: &TargetError) -> bool {
    may_be_lost(target, error) || matches!(error, TargetError::Garbled { .. })
}

/// Whether the header that was not read has a second copy that is.
pub fn has_spare(target: &dyn Target, error: &TargetError) -> bool {
    may_be_lost(target, error) && target.get(&Object::SpareHeader.key()).is_ok()
}

/// Whether there is a repository that answers.
pub fn answers(target: &dyn Target) -> bool {
    target.get(&layout::header()).map_or_else(|error| has_spare(target, &error), |_| true)
}

/// Says what a target is that has no header: no repository, one that lost its header, or one that is not made yet.
pub fn without_header(target: &dyn Target) -> RepoError {
    // A directory without any of ours, as that of a disk which is not mounted, cannot be listed.
    let found = left(target).unwrap_or(None);
    found.unwrap_or_else(|| RepoError::NoRepository { target: target.describe() })
}

/// What is wrong when there is no header but something else; `None` when there is nothing.
///
/// # Errors
/// When the target cannot be listed.
pub fn left(target: &dyn Target) -> Result<Option<RepoError>, RepoError> {
    let first = |prefix| target.list(prefix).map(|found| found.first().map(|info| info.key.to_string()));
    for prefix in [layout::VERSIONS, layout::INDEX, layout::DRAFTS, layout::PACKS] {
        if let Some(object) = first(prefix)? {
            return Ok(Some(RepoError::NoHeader { target: target.describe(), object }));
        }
    }
    for prefix in [layout::KEYS, layout::SPARE] {
        if let Some(object) = first(prefix)? {
            return Ok(Some(RepoError::HalfMade { target: target.describe(), object }));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repo::Repository;
    use crate::repo::testing::{open, secret, small};
    use crate::target::memory::MemoryTarget;
    use crate::words::clock::{Clock, SystemClock};
    use crate::words::ids::PackId;
    use std::sync::{Arc, Barrier};

    fn create(target: &MemoryTarget) -> Result<(), RepoError> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        Repository::create(target, &[secret()], &small(), &clock).map(drop)
    }

    #[test]
    fn nothing_that_may_be_needed_is_replaced() {
        let target = MemoryTarget::default();
        create(&target).unwrap();
        let whole = target.save();
        assert!(matches!(create(&target), Err(RepoError::AlreadyExists { .. })));
        target.delete(&layout::header()).unwrap();
        target.delete(&layout::Object::SpareHeader.key()).unwrap();
        let (keys, pack) = (target.save(), layout::pack(PackId::from_bytes([7; 32])));
        assert!(matches!(create(&target), Err(RepoError::HalfMade { .. })));
        assert!(target.save() == keys);
        target.put(&pack, &[b"something"]).unwrap();
        let refused = create(&target).unwrap_err().to_string();
        assert!(refused.contains("backyfs repair") && refused.contains(pack.as_str()), "{refused}");
        let dir = tempfile::tempdir().unwrap();
        let target = Arc::new(target);
        let opened = open(Arc::clone(&target) as _, dir.path(), Arc::default());
        assert!(matches!(opened.err(), Some(RepoError::NoHeader { .. })));
        target.put_back(whole);
        open(target, dir.path(), Arc::default()).unwrap();
    }

    #[test]
    fn two_that_are_made_at_once_are_one_or_none() {
        let mut made = 0;
        for _ in 0..60 {
            let (target, start) = (Arc::new(MemoryTarget::default()), Barrier::new(3));
            let results = std::thread::scope(|scope| {
                let make = || {
                    start.wait();
                    create(&target)
                };
                [scope.spawn(make), scope.spawn(make), scope.spawn(make)].map(|thread| thread.join().unwrap())
            });
            let good = results.iter().filter(|result| result.is_ok()).count();
            assert!(good <= 1, "{results:?}");
            made += good;
            if good == 1 {
                let dir = tempfile::tempdir().unwrap();
                open(target, dir.path(), Arc::default()).unwrap();
            }
        }
        assert!(made > 0);
    }
}
