//! A distant target on a bad day, deterministic in a seed: answers that are lost, cut, changed or about something else.
//!
//! Never more than [`STREAK_MAX`] flawed answers come in a row, so whoever tries again a little more often than that must always
//! succeed, and never with wrong bytes.

use crate::format::layout::ObjectKey;
use crate::target::{Coherence, ObjectInfo, Page, Put, Space, Target, TargetError};
use crate::words::clock::{Clock, TestClock};
use crate::words::stamp::Stamp;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::io;

/// Flawed answers in a row.
const STREAK_MAX: u32 = 2;

/// What is wrong with an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Flaw {
    /// The target never heard of it: 503, a connection refused, a timeout.
    Unheard,
    /// It was done, and the answer said no.
    Lost,
    /// The answer ended early.
    Cut,
    /// A bit of the answer is wrong, and nothing shows it.
    Wrong,
    /// Another answer of the same length came, one that was given before.
    Repeated,
}

impl Flaw {
    const ALL: [Self; 5] = [Self::Unheard, Self::Lost, Self::Cut, Self::Wrong, Self::Repeated];
}

/// Wraps a target.
pub struct FlakyTarget<T> {
    inner: T,
    random: TestClock,
    /// Of a hundred answers so many are flawed.
    percent: u8,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    streak: u32,
    met: BTreeMap<Flaw, u64>,
    /// The last good bytes of each length.
    given: BTreeMap<usize, Vec<u8>>,
}

impl<T: Target> FlakyTarget<T> {
    /// Wraps a target. The same seed and the same calls give the same flaws.
    pub fn new(inner: T, seed: u64, percent: u8) -> Self {
        let random = TestClock::new(Stamp::from_millis(0), seed);
        Self { inner, random, percent, state: Mutex::default() }
    }

    /// How often each flaw was met.
    pub fn met(&self) -> BTreeMap<Flaw, u64> {
        self.state.lock().met.clone()
    }

    fn draw(&self, flaws: &[Flaw]) -> Option<Flaw> {
        let mut state = self.state.lock();
        let mut random = [0; 4];
        self.random.random(&mut random);
        if random[0] % 100 >= self.percent || state.streak >= STREAK_MAX {
            state.streak = 0;
            return None;
        }
        state.streak += 1;
        let flaw = flaws[usize::from(random[1]) % flaws.len()];
        *state.met.entry(flaw).or_default() += 1;
        Some(flaw)
    }

    fn unreachable(&self, action: &'static str, key: &str) -> TargetError {
        let source = io::Error::other("a bad day");
        TargetError::Unreachable { target: self.inner.describe(), action, key: key.to_owned(), source }
    }

    /// A call whose answer holds no bytes of an object.
    fn plain<R>(
        &self,
        action: &'static str,
        key: &str,
        call: impl FnOnce() -> Result<R, TargetError>,
    ) -> Result<R, TargetError> {
        match self.draw(&[Flaw::Unheard, Flaw::Lost]) {
            None => call(),
            Some(Flaw::Unheard) => Err(self.unreachable(action, key)),
            Some(_) => call().and_then(|_| Err(self.unreachable(action, key))),
        }
    }

    /// Spoils bytes that came.
    fn spoil(&self, key: &str, bytes: &mut [u8]) -> Result<(), TargetError> {
        let flaw = self.draw(&Flaw::ALL);
        let before = self.state.lock().given.get(&bytes.len()).cloned();
        match flaw {
            None => {
                self.state.lock().given.insert(bytes.len(), bytes.to_vec());
                Ok(())
            }
            Some(Flaw::Unheard | Flaw::Lost) => Err(self.unreachable("reading", key)),
            Some(Flaw::Cut) => {
                let (target, problem) = (self.inner.describe(), "it ended early".to_owned());
                Err(TargetError::Garbled { target, action: "reading", key: key.to_owned(), problem })
            }
            Some(Flaw::Repeated) if before.is_some() => {
                bytes.copy_from_slice(&before.unwrap_or_default());
                Ok(())
            }
            Some(Flaw::Wrong | Flaw::Repeated) => {
                if let Some(byte) = bytes.get_mut(bytes.len() / 3) {
                    *byte ^= 0x10;
                }
                Ok(())
            }
        }
    }
}

impl<T: Target> Target for FlakyTarget<T> {
    fn describe(&self) -> String {
        self.inner.describe()
    }
    fn coherence(&self) -> Coherence {
        self.inner.coherence()
    }
    fn prepare(&self) -> Result<(), TargetError> {
        self.plain("preparing", "it", || self.inner.prepare())
    }
    fn put(&self, key: &ObjectKey, parts: &[&[u8]]) -> Result<(), TargetError> {
        self.plain("writing", key.as_str(), || self.inner.put(key, parts))
    }
    fn put_new(&self, key: &ObjectKey, parts: &[&[u8]]) -> Result<Put, TargetError> {
        self.plain("writing", key.as_str(), || self.inner.put_new(key, parts))
    }
    fn get(&self, key: &ObjectKey) -> Result<Vec<u8>, TargetError> {
        let mut bytes = self.inner.get(key)?;
        self.spoil(key.as_str(), &mut bytes).map(|()| bytes)
    }
    fn read_at(&self, key: &ObjectKey, offset: u64, buf: &mut [u8]) -> Result<(), TargetError> {
        self.inner.read_at(key, offset, buf)?;
        self.spoil(key.as_str(), buf)
    }
    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, TargetError> {
        self.plain("listing", prefix, || self.inner.list(prefix))
    }
    fn is_paged(&self) -> bool {
        self.inner.is_paged()
    }
    fn list_after(&self, prefix: &str, after: &str) -> Result<Vec<ObjectInfo>, TargetError> {
        self.plain("listing", prefix, || self.inner.list_after(prefix, after))
    }
    fn list_page(&self, after: &str, wanted: usize) -> Result<Page, TargetError> {
        self.plain("listing", after, || self.inner.list_page(after, wanted))
    }
    fn delete(&self, key: &ObjectKey) -> Result<(), TargetError> {
        self.plain("deleting", key.as_str(), || self.inner.delete(key))
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
    fn on_a_good_day_it_is_a_target() {
        let dir = tempfile::tempdir().unwrap();
        conformance::check(&FlakyTarget::new(DirTarget::open(dir.path().join("r")), 1, 0));
    }

    #[test]
    fn the_same_seed_gives_the_same_day() {
        let day = |seed| {
            let dir = tempfile::tempdir().unwrap();
            DirTarget::open(dir.path()).prepare().unwrap();
            let target = FlakyTarget::new(DirTarget::open(dir.path()), seed, 40);
            let key = ObjectKey::new("ok/a").unwrap();
            let went: Vec<bool> = (0..100).map(|n| target.put(&key, &[&[n; 9]]).is_ok()).collect();
            let read: Vec<Option<Vec<u8>>> = (0..100).map(|_| target.get(&key).ok()).collect();
            (went, read, target.met())
        };
        assert_eq!(day(7), day(7));
        assert_ne!(day(7).0, day(8).0);
        assert_eq!(day(7).2.len(), Flaw::ALL.len(), "every flaw is met");
    }
}
