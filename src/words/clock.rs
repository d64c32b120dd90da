//! The one door to time and randomness, so that tests can hold both.

use crate::words::ids::{BatchId, DamageId, DraftId, EntryId, FragmentId, HostId, RepoId, SlotId, Uid};
use crate::words::stamp::Stamp;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Where time and random bytes come from.
pub trait Clock: Send + Sync {
    /// Wall-clock time.
    fn now(&self) -> Stamp;
    /// Fills `bytes` with random bytes fit for keys and nonces.
    fn random(&self, bytes: &mut [u8]);
}

/// Makes identifiers out of a clock.
pub trait ClockExt: Clock {
    /// A UUIDv7 of `at` (RFC 9562 section 5.7).
    fn uuid_v7(&self, at: Stamp) -> uuid::Uuid {
        let mut random = [0; 10];
        self.random(&mut random);
        uuid::Builder::from_unix_timestamp_millis(u64::try_from(at.millis()).unwrap_or(0), &random).into_uuid()
    }
    /// A UUIDv7 of now.
    fn uuid(&self) -> uuid::Uuid {
        self.uuid_v7(self.now())
    }
    /// A fresh record uid whose time is `at`.
    fn uid_at(&self, at: Stamp) -> Uid {
        Uid::from_uuid(self.uuid_v7(at))
    }
    /// A fresh record uid.
    fn uid(&self) -> Uid {
        Uid::from_uuid(self.uuid())
    }
    /// A fresh draft id.
    fn draft_id(&self) -> DraftId {
        DraftId::from_uuid(self.uuid())
    }
    /// A fresh attribute entry id.
    fn entry_id(&self) -> EntryId {
        EntryId::from_uuid(self.uuid())
    }
    /// A fresh fragment id.
    fn fragment_id(&self) -> FragmentId {
        FragmentId::from_uuid(self.uuid())
    }
    /// A fresh batch id.
    fn batch_id(&self) -> BatchId {
        BatchId::from_uuid(self.uuid())
    }
    /// A fresh id of a damage report.
    fn damage_id(&self) -> DamageId {
        DamageId::from_uuid(self.uuid())
    }
    /// A fresh slot id.
    fn slot_id(&self) -> SlotId {
        SlotId::from_uuid(self.uuid())
    }
    /// A fresh host id.
    fn host_id(&self) -> HostId {
        HostId::from_uuid(self.uuid())
    }
    /// A fresh repository id.
    fn repo_id(&self) -> RepoId {
        RepoId::from_uuid(self.uuid())
    }
}

impl<C: Clock + ?Sized> ClockExt for C {}

/// The machine's clock and the kernel's random numbers.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "this is the door")]
    fn now(&self) -> Stamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Stamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    #[allow(clippy::disallowed_methods, reason = "this is the door")]
    fn random(&self, bytes: &mut [u8]) {
        getrandom::fill(bytes).expect("the kernel's random generator does not fail after boot");
    }
}

/// A clock for tests: time moves only when told to, "random" bytes follow from a seed.
#[derive(Debug)]
pub struct TestClock {
    now_ms: AtomicU64,
    state: AtomicU64,
}

impl TestClock {
    /// Starts at `start`, deterministic in `seed`.
    pub fn new(start: Stamp, seed: u64) -> Self {
        Self { now_ms: AtomicU64::new(u64::try_from(start.millis()).unwrap_or(0)), state: AtomicU64::new(seed) }
    }

    /// Moves time forward.
    pub fn advance_ms(&self, ms: u64) {
        self.now_ms.fetch_add(ms, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Stamp {
        Stamp::from_millis(i64::try_from(self.now_ms.load(Ordering::SeqCst)).unwrap_or(i64::MAX))
    }

    fn random(&self, bytes: &mut [u8]) {
        // SplitMix64 (Steele, Lea, Flood 2014): every call takes fresh states, so threads never share output.
        for chunk in bytes.chunks_mut(8) {
            let mut z =
                self.state.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::SeqCst).wrapping_add(0x9e37_79b9_7f4a_7c15);
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            let word = (z ^ (z >> 31)).to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }
}
