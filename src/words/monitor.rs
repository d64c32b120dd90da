//! How the library tells what it does: it never prints, it reports here.

use std::collections::BTreeMap;
use std::sync::Mutex;

/// What can be counted. The unit is in the name; without one it is a number of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Counter {
    BytesRead,
    BytesWritten,
    BytesStored,
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

/// Sums counters; for tests and for statistics of one job.
#[derive(Debug, Default)]
pub struct Tally {
    sums: Mutex<BTreeMap<Counter, u64>>,
    warnings: Mutex<Vec<String>>,
}

impl Tally {
    /// The sum so far.
    pub fn get(&self, counter: Counter) -> u64 {
        self.sums.lock().map(|sums| sums.get(&counter).copied().unwrap_or(0)).unwrap_or(0)
    }

    /// Every sum so far, in the order of the counters.
    pub fn all(&self) -> Vec<(Counter, u64)> {
        self.sums.lock().map(|sums| sums.iter().map(|(counter, sum)| (*counter, *sum)).collect()).unwrap_or_default()
    }

    /// Warnings so far.
    pub fn warnings(&self) -> Vec<String> {
        self.warnings.lock().map(|w| w.clone()).unwrap_or_default()
    }
}

impl Monitor for Tally {
    fn count(&self, counter: Counter, amount: u64) {
        if let Ok(mut sums) = self.sums.lock() {
            *sums.entry(counter).or_default() += amount;
        }
    }

    fn warn(&self, text: &str) {
        if let Ok(mut warnings) = self.warnings.lock() {
            warnings.push(text.to_owned());
        }
    }
}
