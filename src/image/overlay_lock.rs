//! Locks over parts of an image, so that writers of one unit take turns and others go side by side.

use parking_lot::{Mutex, MutexGuard};
use std::ops::Range;

const STRIPES: u64 = 64;
/// Units that share a stripe: 256 KiB of image.
const STRIPE_UNITS: u64 = 64;

/// A fixed set of locks; units fall onto them in stripes of 256 KiB, round robin.
pub struct UnitLocks(Vec<Mutex<()>>);

impl UnitLocks {
    /// None held.
    pub fn new() -> Self {
        Self((0..STRIPES).map(|_| Mutex::new(())).collect())
    }

    /// Holds all stripes that `units` touch. Stripes are always taken in ascending order, so two callers cannot wait for each
    /// other in a circle; a caller must not hold one result while asking for the next.
    pub fn lock(&self, units: Range<u64>) -> Vec<MutexGuard<'_, ()>> {
        let stripes = units.start / STRIPE_UNITS..units.end.div_ceil(STRIPE_UNITS);
        let wanted = if stripes.end.saturating_sub(stripes.start) >= STRIPES {
            u64::MAX
        } else {
            stripes.fold(0u64, |mask, stripe| mask | 1 << (stripe % STRIPES))
        };
        (0..STRIPES).filter(|stripe| wanted >> stripe & 1 == 1).map(|stripe| self.0[stripe as usize].lock()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_holds_its_stripes_and_no_others() {
        let locks = UnitLocks::new();
        let held = locks.lock(63..65);
        assert_eq!(held.len(), 2);
        assert!(locks.0[0].try_lock().is_none() && locks.0[1].try_lock().is_none() && locks.0[2].try_lock().is_some());
        drop(held);
        assert_eq!(locks.lock(0..u64::MAX).len(), STRIPES as usize);
        assert!(locks.lock(5..5).len() <= 1);
    }
}
