//! Counting how long things took, in fixed buckets.
//!
//! What is counted sits in hot paths, so an observation is three relaxed additions: no lock, no allocation. A reader may see one
//! observation in a bucket and not yet in the sum, which for a measurement is as good as a moment earlier or later.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the buckets in microseconds: from a block in the page cache to a target that hardly answers. What takes longer
/// than the last is counted in one more.
pub const BOUNDS_MICROS: [u64; 16] = [
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000, 5_000_000, 15_000_000,
    60_000_000,
];

/// See the module.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BOUNDS_MICROS.len() + 1],
    sum_micros: AtomicU64,
}

/// What a histogram held at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Distribution {
    /// How many were not longer than each of [`BOUNDS_MICROS`].
    pub up_to: [u64; BOUNDS_MICROS.len()],
    /// How many in all.
    pub count: u64,
    /// How long all of them together took, in microseconds.
    pub sum_micros: u64,
}

impl Histogram {
    /// Counts one.
    pub fn observe(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_MICROS.partition_point(|bound| *bound < micros);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum_micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// What was counted so far.
    pub fn distribution(&self) -> Distribution {
        let mut count = 0;
        let sums = self.buckets.each_ref().map(|bucket| {
            count += bucket.load(Ordering::Relaxed);
            count
        });
        let mut up_to = [0; BOUNDS_MICROS.len()];
        up_to.copy_from_slice(&sums[..BOUNDS_MICROS.len()]);
        Distribution { up_to, count, sum_micros: self.sum_micros.load(Ordering::Relaxed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_observation_is_in_its_bucket_and_all_above() {
        let histogram = Histogram::default();
        for micros in [0, 50, 51, 1_000_000, 60_000_000, 60_000_001] {
            histogram.observe(Duration::from_micros(micros));
        }
        let Distribution { up_to, count, sum_micros } = histogram.distribution();
        assert_eq!((up_to[0], up_to[1], up_to[11], up_to[12], up_to[15], count), (2, 3, 3, 4, 5, 6));
        assert_eq!(sum_micros, 121_000_102);
        assert!(up_to.is_sorted() && BOUNDS_MICROS.is_sorted());
    }
}
