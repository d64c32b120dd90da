//! Bandwidth limits that may change at any moment.
//!
//! A [`Throttle`] keeps a debt: what was moved and is not yet paid for by the time that passed. Whoever wants to move more waits
//! until the debt is gone, then moves and owes for it. So the average holds from the first byte on, whatever the size of the
//! pieces, and a new rate works on debts already made.

use crate::format::layout::ObjectKey;
use crate::target::{Coherence, ObjectInfo, Page, Put, Space, Target, TargetError};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Waits are cut into parts of this, so that a changed rate is noticed.
const SLICE: Duration = Duration::from_millis(200);
/// Debts that nobody waits for.
const TOLERANCE: Duration = Duration::from_millis(20);

/// One direction.
#[derive(Debug)]
pub struct Throttle(Mutex<State>);

#[derive(Debug)]
struct State {
    /// Bytes a second; `None` is no limit.
    rate: Option<u64>,
    debt_bytes: f64,
    at: Instant,
}

impl State {
    /// Lets time pay.
    fn settle(&mut self, now: Instant) {
        let paid = self.rate.map_or(f64::INFINITY, |rate| rate as f64 * (now - self.at).as_secs_f64());
        self.debt_bytes = (self.debt_bytes - paid).max(0.0);
        self.at = now;
    }
}

impl Default for Throttle {
    fn default() -> Self {
        Self(Mutex::new(State { rate: None, debt_bytes: 0.0, at: Instant::now() }))
    }
}

impl Throttle {
    /// Bytes a second; `None` when nothing is limited.
    pub fn rate(&self) -> Option<u64> {
        self.0.lock().rate
    }

    /// Changes the rate. Zero is taken for no limit.
    pub fn set(&self, rate: Option<u64>) {
        let mut state = self.0.lock();
        state.settle(Instant::now());
        state.rate = rate.filter(|rate| *rate > 0);
    }

    /// Books bytes and returns `None` when they may be moved now; otherwise says how long to wait before asking again.
    pub fn book(&self, bytes: u64) -> Option<Duration> {
        let mut state = self.0.lock();
        state.settle(Instant::now());
        let rate = state.rate?;
        // Sleeping is never exact: a little debt may stay, so that what was slept too long is made up for.
        let too_much = state.debt_bytes / rate as f64 - TOLERANCE.as_secs_f64();
        if too_much > 0.0 {
            return Some(Duration::from_secs_f64(too_much.min(SLICE.as_secs_f64())).max(Duration::from_millis(1)));
        }
        state.debt_bytes += bytes as f64;
        None
    }

    /// Books bytes as soon as they may be moved. Blocks.
    pub fn wait(&self, bytes: u64) {
        while let Some(delay) = self.book(bytes) {
            std::thread::sleep(delay);
        }
    }
}

/// Both directions.
#[derive(Debug, Default)]
pub struct Limits {
    /// Towards the target.
    pub upload: Throttle,
    /// From it.
    pub download: Throttle,
}

/// Keeps limits for a target that does not pace itself: an object is passed on as a whole and paid for before the next one, so
/// the rate holds over a few objects, not within one.
pub struct LimitedTarget<T> {
    inner: T,
    limits: Arc<Limits>,
}

impl<T: Target> LimitedTarget<T> {
    /// Wraps a target.
    pub fn new(inner: T, limits: Arc<Limits>) -> Self {
        Self { inner, limits }
    }

    fn up(&self, parts: &[&[u8]]) {
        self.limits.upload.wait(parts.iter().map(|part| part.len() as u64).sum());
    }
}

impl<T: Target> Target for LimitedTarget<T> {
    fn describe(&self) -> String {
        self.inner.describe()
    }
    fn coherence(&self) -> Coherence {
        self.inner.coherence()
    }
    fn prepare(&self) -> Result<(), TargetError> {
        self.inner.prepare()
    }
    fn put(&self, key: &ObjectKey, parts: &[&[u8]]) -> Result<(), TargetError> {
        self.up(parts);
        self.inner.put(key, parts)
    }
    fn put_new(&self, key: &ObjectKey, parts: &[&[u8]]) -> Result<Put, TargetError> {
        self.up(parts);
        self.inner.put_new(key, parts)
    }
    fn get(&self, key: &ObjectKey) -> Result<Vec<u8>, TargetError> {
        // How long it is shows afterwards; whoever comes next waits for it.
        self.limits.download.wait(0);
        let bytes = self.inner.get(key)?;
        self.limits.download.wait(bytes.len() as u64);
        Ok(bytes)
    }
    fn read_at(&self, key: &ObjectKey, offset: u64, buf: &mut [u8]) -> Result<(), TargetError> {
        self.limits.download.wait(buf.len() as u64);
        self.inner.read_at(key, offset, buf)
    }
    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, TargetError> {
        self.inner.list(prefix)
    }
    fn is_paged(&self) -> bool {
        self.inner.is_paged()
    }
    fn list_after(&self, prefix: &str, after: &str) -> Result<Vec<ObjectInfo>, TargetError> {
        self.inner.list_after(prefix, after)
    }
    fn list_page(&self, after: &str, wanted: usize) -> Result<Page, TargetError> {
        self.inner.list_page(after, wanted)
    }
    fn delete(&self, key: &ObjectKey) -> Result<(), TargetError> {
        self.inner.delete(key)
    }
    fn space(&self) -> Result<Space, TargetError> {
        self.inner.space()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::{DirTarget, conformance};

    #[test]
    fn without_limits_it_is_a_target() {
        let dir = tempfile::tempdir().unwrap();
        conformance::check(&LimitedTarget::new(DirTarget::open(dir.path().join("r")), Arc::default()));
    }

    #[test]
    fn a_directory_is_limited_too() {
        let dir = tempfile::tempdir().unwrap();
        let limits = Arc::<Limits>::default();
        let target = LimitedTarget::new(DirTarget::open(dir.path()), Arc::clone(&limits));
        target.prepare().unwrap();
        let (key, bytes) = (ObjectKey::new("index/a").unwrap(), vec![7; 100 << 10]);
        let timed = |work: &dyn Fn()| {
            let began = Instant::now();
            work();
            began.elapsed()
        };
        let twice = || (0..2).for_each(|_| target.put(&key, &[&bytes]).unwrap());
        limits.upload.set(Some(200 << 10));
        assert!(timed(&twice) >= Duration::from_millis(400));
        limits.upload.set(None);
        limits.download.set(Some(200 << 10));
        assert!(timed(&|| drop(target.get(&key).unwrap())) < Duration::from_secs(5));
        assert!(timed(&|| target.read_at(&key, 0, &mut vec![0; 100 << 10]).unwrap()) >= Duration::from_millis(400));
    }

    #[test]
    fn the_rate_holds_and_can_change_while_somebody_waits() {
        let throttle = Arc::new(Throttle::default());
        assert_eq!(throttle.book(1 << 40), None);
        throttle.set(Some(1 << 20));
        let began = Instant::now();
        for _ in 0..4 {
            throttle.wait(100 << 10);
        }
        // Three were paid for before the fourth could go.
        let took = began.elapsed();
        assert!(took >= Duration::from_millis(250), "{took:?}");
        let throttle = Arc::new(Throttle::default());
        throttle.set(Some(10));
        throttle.wait(1000);
        let waiter = std::thread::spawn({
            let throttle = Arc::clone(&throttle);
            move || throttle.wait(1)
        });
        std::thread::sleep(Duration::from_millis(50));
        assert!(!waiter.is_finished());
        let began = Instant::now();
        throttle.set(None);
        waiter.join().unwrap();
        assert!(began.elapsed() < Duration::from_secs(5));
        assert_eq!(throttle.rate(), None);
        throttle.set(Some(0));
        assert_eq!(throttle.rate(), None);
    }
}
