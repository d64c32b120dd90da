//! How the library tells what it does: it never prints, it reports here.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// What can be counted. The unit is in the name; without one it is a number of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Counter {
    BytesRead,
    BytesWritten,
    BytesStored,
    /// Of blocks and map nodes that were stored, before they were compressed.
    BytesPlain,
    /// Of the same, compressed and sealed.
    BytesSealed,
    BlocksHole,
    BlocksUnchanged,
    BlocksDeduplicated,
    BlocksStored,
    IndexLookups,
    PacksPut,
    FragmentsPut,
    RecordsPut,
    TargetReads,
    CacheHits,
    CacheMisses,
    DiskCacheHits,
    DiskCacheMisses,
    Damage,
}

impl Counter {
    /// Every counter.
    pub const ALL: [Self; 19] = [
        Self::BytesRead,
        Self::BytesWritten,
        Self::BytesStored,
        Self::BytesPlain,
        Self::BytesSealed,
        Self::BlocksHole,
        Self::BlocksUnchanged,
        Self::BlocksDeduplicated,
        Self::BlocksStored,
        Self::IndexLookups,
        Self::PacksPut,
        Self::FragmentsPut,
        Self::RecordsPut,
        Self::TargetReads,
        Self::CacheHits,
        Self::CacheMisses,
        Self::DiskCacheHits,
        Self::DiskCacheMisses,
        Self::Damage,
    ];
}

/// Receives counts and progress. Implementations must be cheap and never block.
pub trait Monitor: Send + Sync {
    /// Adds to a counter.
    fn count(&self, counter: Counter, amount: u64);
    /// A job has done `done` of `total` units (bytes, unless the job says otherwise).
    fn progress(&self, done: u64, total: u64) {
        let _ = (done, total);
    }
    /// Something a person should read now, for example damage that was met and survived.
    fn warn(&self, text: &str) {
        let _ = text;
    }
}

/// Ignores everything.
#[derive(Debug, Default, Clone, Copy)]
pub struct Silent;

impl Monitor for Silent {
    fn count(&self, _: Counter, _: u64) {}
}

/// Sums counters, for tests and for whoever shows them. Counting is one relaxed addition.
#[derive(Debug, Default)]
pub struct Tally {
    sums: [AtomicU64; Counter::ALL.len()],
    warned: AtomicU64,
    warnings: Mutex<Vec<String>>,
}

/// Warnings of which the text is kept.
const WARNINGS_MAX: usize = 100;

impl Tally {
    /// The sum so far.
    pub fn get(&self, counter: Counter) -> u64 {
        self.sums[counter as usize].load(Ordering::Relaxed)
    }

    /// Every sum so far, in the order of the counters.
    pub fn all(&self) -> Vec<(Counter, u64)> {
        Counter::ALL.into_iter().map(|counter| (counter, self.get(counter))).collect()
    }

    /// The first warnings.
    pub fn warnings(&self) -> Vec<String> {
        self.warnings.lock().map(|w| w.clone()).unwrap_or_default()
    }

    /// How many warnings there were.
    pub fn warned(&self) -> u64 {
        self.warned.load(Ordering::Relaxed)
    }
}

impl Monitor for Tally {
    fn count(&self, counter: Counter, amount: u64) {
        self.sums[counter as usize].fetch_add(amount, Ordering::Relaxed);
    }

    fn warn(&self, text: &str) {
        self.warned.fetch_add(1, Ordering::Relaxed);
        if let Ok(mut warnings) = self.warnings.lock()
            && warnings.len() < WARNINGS_MAX
        {
            warnings.push(text.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_has_a_place_of_its_own() {
        let tally = Tally::default();
        for (at, counter) in Counter::ALL.into_iter().enumerate() {
            assert_eq!(counter as usize, at, "{counter:?}");
            tally.count(counter, at as u64 + 1);
        }
        assert!(tally.all().iter().enumerate().all(|(at, (_, sum))| *sum == at as u64 + 1));
        (0..WARNINGS_MAX + 5).for_each(|_| tally.warn("again"));
        assert_eq!((tally.warnings().len() as u64, tally.warned()), (100, 105));
    }
}
