//! Trying again: transient errors of a target are waited out, within a limit.
//!
//! Every method of [`Target`] may be repeated: puts replace an object by itself, deletes remove what may be gone already. Only
//! [`Target::put_new`] needs thought: when an attempt failed without a clear answer and the next one finds the object there, it
//! may be ours; then it is read, and what says exactly the same is taken for ours (two callers that would write the same bytes
//! need not be told apart).
//!
//! Keys that a target has accepted and refuses now are waited for in the same way: whoever renews them (cron, a metadata service, a
//! person) needs a moment, and the target under it reads them anew with every attempt. Keys that were never accepted are an error at once.
//!
//! Delays double from [`DELAY_FIRST`] to [`DELAY_MAX`], and each is cut by a random part of up to a half, so that those who were
//! thrown out together do not come back together.

use crate::format::layout::ObjectKey;
use crate::target::{Coherence, ObjectInfo, Page, Put, Space, Target, TargetError};
use crate::words::clock::{Clock, SystemClock};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Before the second attempt.
const DELAY_FIRST: Duration = Duration::from_millis(100);
/// Between later ones.
const DELAY_MAX: Duration = Duration::from_secs(20);
/// Answers that do not fit are asked for this often: what is wrong every time is not going to be right.
const GARBLED_MAX: u32 = 5;

/// How long to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// With a target that has answered before.
    pub usual: Duration,
    /// With one that never has: it is more likely misspelt than down.
    pub first: Duration,
}

impl Patience {
    /// The usual time, and at most a quarter of a minute for the first answer.
    pub fn new(usual: Duration) -> Self {
        Self { usual, first: usual.min(Duration::from_secs(15)) }
    }
}

/// Passes everything on, again and again if need be.
pub struct RetryTarget<T> {
    inner: T,
    patience: Patience,
    clock: Arc<dyn Clock>,
    has_answered: AtomicBool,
    /// Whether it has ever accepted who asks.
    has_accepted: AtomicBool,
}

impl<T: Target> RetryTarget<T> {
    /// Wraps a target.
    pub fn new(inner: T, patience: Patience) -> Self {
        Self {
            inner,
            patience,
            clock: Arc::new(SystemClock),
            has_answered: AtomicBool::new(false),
            has_accepted: AtomicBool::new(false),
        }
    }

    /// As [`RetryTarget::new`], with random parts of delays that a test can repeat.
    pub fn with_clock(self, clock: Arc<dyn Clock>) -> Self {
        Self { clock, ..self }
    }

    /// The wrapped target.
    pub fn inner(&self) -> &T {
        &self.inner
    }

    fn delay(&self, attempt: u32) -> Duration {
        let whole = DELAY_FIRST.saturating_mul(1 << attempt.min(16)).min(DELAY_MAX);
        let mut random = [0; 1];
        self.clock.random(&mut random);
        whole - whole.mul_f64(f64::from(random[0]) / 512.0)
    }

    /// Calls until there is an answer, an error that stays, or no time left. The call is told whether it is a repetition.
    fn call<R>(&self, mut call: impl FnMut(bool) -> Result<R, TargetError>) -> Result<R, TargetError> {
        let began = Instant::now();
        let (mut attempt, mut garbled) = (0, 0);
        loop {
            let error = match call(attempt > 0) {
                Err(error) if error.is_transient() => error,
                Err(error @ TargetError::Refused { .. }) if self.has_accepted.load(Ordering::Relaxed) => error,
                answer => {
                    self.has_answered.store(true, Ordering::Relaxed);
                    if matches!(answer, Ok(_) | Err(TargetError::NotFound { .. })) {
                        self.has_accepted.store(true, Ordering::Relaxed);
                    }
                    return answer;
                }
            };
            if matches!(error, TargetError::Garbled { .. }) {
                self.has_answered.store(true, Ordering::Relaxed);
                garbled += 1;
            }
            let patience = &self.patience;
            let limit = if self.has_answered.load(Ordering::Relaxed) { patience.usual } else { patience.first };
            let delay = self.delay(attempt);
            if garbled >= GARBLED_MAX || began.elapsed() + delay > limit {
                return Err(error);
            }
            match attempt {
                0..3 => tracing::debug!("{error}; trying again in {delay:?}"),
                3 => tracing::warn!("{error}; trying again for up to {limit:?}"),
                _ => tracing::info!("{error}; trying again in {delay:?}"),
            }
            attempt += 1;
            std::thread::sleep(delay);
        }
    }
}

impl<T: Target> Target for RetryTarget<T> {
    fn describe(&self) -> String {
        self.inner.describe()
    }
    fn coherence(&self) -> Coherence {
        self.inner.coherence()
    }
    fn prepare(&self) -> Result<(), TargetError> {
        self.call(|_| self.inner.prepare())
    }
    fn put(&self, key: &ObjectKey, parts: &[&[u8]]) -> Result<(), TargetError> {
        self.call(|_| self.inner.put(key, parts))
    }
    fn put_new(&self, key: &ObjectKey, parts: &[&[u8]]) -> Result<Put, TargetError> {
        self.call(|repeated| match self.inner.put_new(key, parts)? {
            Put::Exists if repeated && self.inner.get(key)? == parts.concat() => Ok(Put::Created),
            put => Ok(put),
        })
    }
    fn get(&self, key: &ObjectKey) -> Result<Vec<u8>, TargetError> {
        self.call(|_| self.inner.get(key))
    }
    fn read_at(&self, key: &ObjectKey, offset: u64, buf: &mut [u8]) -> Result<(), TargetError> {
        self.call(|_| self.inner.read_at(key, offset, buf))
    }
    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, TargetError> {
        self.call(|_| self.inner.list(prefix))
    }
    fn is_paged(&self) -> bool {
        self.inner.is_paged()
    }
    fn list_after(&self, prefix: &str, after: &str) -> Result<Vec<ObjectInfo>, TargetError> {
        self.call(|_| self.inner.list_after(prefix, after))
    }
    fn list_page(&self, after: &str, wanted: usize) -> Result<Page, TargetError> {
        self.call(|_| self.inner.list_page(after, wanted))
    }
    fn delete(&self, key: &ObjectKey) -> Result<(), TargetError> {
        self.call(|_| self.inner.delete(key))
    }
    fn space(&self) -> Result<Space, TargetError> {
        self.call(|_| self.inner.space())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::through::Through;
    use crate::target::{DirTarget, Fault, FaultTarget, conformance};
    use std::sync::atomic::AtomicUsize;

    fn key(text: &str) -> ObjectKey {
        ObjectKey::new(text).unwrap()
    }

    fn patience(usual_ms: u64) -> Patience {
        Patience { usual: Duration::from_millis(usual_ms), first: Duration::from_millis(usual_ms) }
    }

    #[test]
    fn it_is_a_target() {
        let dir = tempfile::tempdir().unwrap();
        // A directory that was never prepared counts as unreachable, which is waited for: briefly here.
        conformance::check(&RetryTarget::new(DirTarget::open(dir.path().join("r")), patience(1)));
    }

    #[test]
    fn what_passes_is_waited_out_and_what_stays_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let target = RetryTarget::new(FaultTarget::new(DirTarget::open(dir.path())), patience(20_000));
        target.prepare().unwrap();
        let faults = Arc::clone(target.inner().faults());
        faults.fail_once(0, Fault::Vanished);
        target.put(&key("ok/a"), &[b"a"]).unwrap();
        assert_eq!(faults.effects(), 2);
        faults.fail_once(2, Fault::NoSpace);
        let began = Instant::now();
        assert!(matches!(target.put(&key("ok/b"), &[b"b"]), Err(TargetError::NoSpace { .. })));
        assert!(matches!(target.get(&key("ok/none")), Err(TargetError::NotFound { .. })));
        assert!(began.elapsed() < Duration::from_secs(5) && faults.effects() == 3);
        // Back after a while.
        faults.switch(Some(Fault::Vanished));
        let later = Arc::clone(&faults);
        let back = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(700));
            later.switch(None);
        });
        target.put(&key("ok/b"), &[b"b"]).unwrap();
        back.join().unwrap();
        assert_eq!(target.get(&key("ok/b")).unwrap(), b"b");
    }

    #[test]
    fn it_ends_in_time_and_sooner_with_a_target_that_never_answered() {
        let dir = tempfile::tempdir().unwrap();
        let times = Patience { usual: Duration::from_secs(3600), first: Duration::from_millis(300) };
        let never = RetryTarget::new(DirTarget::open(dir.path().join("none")), times);
        let began = Instant::now();
        assert!(matches!(never.list("ok/"), Err(TargetError::Unreachable { .. })));
        assert!(began.elapsed() < Duration::from_secs(5));
        let known = RetryTarget::new(FaultTarget::new(DirTarget::open(dir.path())), patience(300));
        known.prepare().unwrap();
        known.inner().faults().switch(Some(Fault::Vanished));
        let began = Instant::now();
        assert!(known.put(&key("ok/a"), &[b"a"]).is_err());
        assert!(began.elapsed() >= Duration::from_millis(100) && began.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn keys_that_were_good_are_waited_for_and_others_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let refusing = Refusing { inner: DirTarget::open(dir.path()), refusals: AtomicUsize::new(1) };
        let target = RetryTarget::new(refusing, patience(20_000));
        let began = Instant::now();
        assert!(matches!(target.prepare(), Err(TargetError::Refused { .. })), "a command says so at once");
        assert!(began.elapsed() < Duration::from_secs(5));
        target.prepare().unwrap();
        // A writer waits, as long as it may.
        target.inner().refusals.store(3, Ordering::Relaxed);
        target.put(&key("ok/a"), &[b"a"]).unwrap();
        assert_eq!(
            (target.get(&key("ok/a")).unwrap(), target.inner().refusals.load(Ordering::Relaxed)),
            (b"a".to_vec(), 0)
        );
        let hasty = RetryTarget { patience: patience(400), ..target };
        hasty.inner().refusals.store(usize::MAX, Ordering::Relaxed);
        let began = Instant::now();
        assert!(matches!(hasty.put(&key("ok/b"), &[b"b"]), Err(TargetError::Refused { .. })));
        assert!(began.elapsed() >= Duration::from_millis(100) && began.elapsed() < Duration::from_secs(5));
    }

    struct Refusing {
        inner: DirTarget,
        refusals: AtomicUsize,
    }

    impl Refusing {
        fn ask<R>(&self, ask: impl FnOnce(&DirTarget) -> Result<R, TargetError>) -> Result<R, TargetError> {
            let refuses = self.refusals.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
            if refuses.is_ok() {
                let source = std::io::Error::other("the credentials have expired");
                return Err(TargetError::Refused {
                    target: String::new(),
                    action: "asking",
                    key: String::new(),
                    source,
                });
            }
            ask(&self.inner)
        }
    }

    impl Target for Refusing {
        fn describe(&self) -> String {
            self.inner.describe()
        }
        fn prepare(&self) -> Result<(), TargetError> {
            self.ask(Target::prepare)
        }
        fn put(&self, key: &ObjectKey, parts: &[&[u8]]) -> Result<(), TargetError> {
            self.ask(|inner| inner.put(key, parts))
        }
        fn put_new(&self, key: &ObjectKey, parts: &[&[u8]]) -> Result<Put, TargetError> {
            self.ask(|inner| inner.put_new(key, parts))
        }
        fn get(&self, key: &ObjectKey) -> Result<Vec<u8>, TargetError> {
            self.ask(|inner| inner.get(key))
        }
        fn read_at(&self, key: &ObjectKey, offset: u64, buf: &mut [u8]) -> Result<(), TargetError> {
            self.ask(|inner| inner.read_at(key, offset, buf))
        }
        fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, TargetError> {
            self.ask(|inner| inner.list(prefix))
        }
        fn delete(&self, key: &ObjectKey) -> Result<(), TargetError> {
            self.ask(|inner| inner.delete(key))
        }
        fn space(&self) -> Result<Space, TargetError> {
            self.inner.space()
        }
    }

    /// A put that took effect but reported failure.
    #[test]
    fn a_new_object_is_ours_although_its_answer_was_lost() {
        let dir = tempfile::tempdir().unwrap();
        let lost = LostAnswer { inner: DirTarget::open(dir.path()), once: AtomicBool::new(true) };
        let target = RetryTarget::new(lost, patience(20_000));
        target.prepare().unwrap();
        assert_eq!(target.put_new(&key("ok/a"), &[b"mine"]).unwrap(), Put::Created);
        assert_eq!(target.put_new(&key("ok/a"), &[b"mine"]).unwrap(), Put::Exists);
        // Somebody else's is not.
        target.put(&key("ok/b"), &[b"theirs"]).unwrap();
        target.inner().once.store(true, Ordering::Relaxed);
        assert_eq!(target.put_new(&key("ok/b"), &[b"mine"]).unwrap(), Put::Exists);
    }

    struct LostAnswer {
        inner: DirTarget,
        once: AtomicBool,
    }

    impl Through for LostAnswer {
        fn within(&self) -> &dyn Target {
            &self.inner
        }
        fn put_new(&self, key: &ObjectKey, parts: &[&[u8]]) -> Result<Put, TargetError> {
            let put = self.inner.put_new(key, parts)?;
            if self.once.swap(false, Ordering::Relaxed) {
                let problem = "lost".to_owned();
                return Err(TargetError::Garbled {
                    target: String::new(),
                    action: "writing",
                    key: String::new(),
                    problem,
                });
            }
            Ok(put)
        }
    }
}
