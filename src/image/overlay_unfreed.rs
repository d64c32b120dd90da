//! What of an overlay's local space waits to be given back.

use parking_lot::{Mutex, MutexGuard};
use std::ops::Range;

/// Where space may wait to be freed: one range of units that covers it all. Every unit is looked at again before it is freed, so
/// covering more than needed costs a little time and nothing else.
#[derive(Default)]
pub struct Unfreed {
    range: Mutex<Option<Range<u64>>>,
    /// Held during a step, so that who waits for space waits for the step under way as well.
    step: Mutex<()>,
}

impl Unfreed {
    /// Notes units.
    pub fn add(&self, units: Range<u64>) {
        if units.is_empty() {
            return;
        }
        let mut range = self.range.lock();
        *range = Some(range.as_ref().map_or(units.clone(), |old| old.start.min(units.start)..old.end.max(units.end)));
    }

    /// Whether anything is noted.
    pub fn is_any(&self) -> bool {
        self.range.lock().is_some()
    }

    /// What is noted; nothing is afterwards.
    pub fn take(&self) -> Option<Range<u64>> {
        self.range.lock().take()
    }

    /// Waits for the step under way, if there is one, and begins another, which lasts as long as the guard.
    pub fn begin_step(&self) -> MutexGuard<'_, ()> {
        self.step.lock()
    }
}
