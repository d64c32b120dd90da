//! Giving the local space under discarded units back to the local disk.
//!
//! ext4 takes about 0.1 ms for each fragment that a hole punch frees (measured on 6.18: 20 s for 160,000, and truncating the file is no faster).
//! So a discard changes states, which is quick, and punches at once only where little was stored; the rest is noted and freed step by
//! step, by whoever calls [`OverlayFile::free_some_space`], or by a write that finds the disk full. What is still noted when the
//! overlay is closed is found again when it is opened.

use crate::image::overlay::{OverlayFile, UNIT_BYTES, UnitState};
use std::io;
use std::ops::Range;

/// Most units that a discard frees on the spot, and a step at a time: 4 MiB.
const STEP_UNITS: u64 = 1024;

impl OverlayFile {
    /// Gives back the local space of units that are not Data and whose locks the caller holds. Failing to do so harms nothing, some
    /// filesystems cannot.
    pub(super) fn free_space(&self, units: Range<u64>) {
        if let Err(error) = self.data.punch(units.start * UNIT_BYTES..units.end * UNIT_BYTES) {
            tracing::debug!(uid = %self.uid(), %error, "local space of the overlay is not freed");
        }
    }

    /// Frees the space of units that became Zero just now, `freed` of which were Data; the caller holds their locks.
    pub(super) fn free_discarded(&self, units: Range<u64>, freed: u64) {
        // Next to much that is noted, even a discard of little might meet many fragments in its range.
        if freed > STEP_UNITS || self.has_space_to_free() {
            self.unfreed.add(units);
        } else if freed > 0 {
            self.free_space(units);
        }
        // The discard must show in the time, whether or not a hole was punched.
        if let Err(error) = self.data.set_mtime(None) {
            tracing::debug!(uid = %self.uid(), %error, "the time of the overlay stays");
        }
    }

    /// Notes what a crash left behind: remains of writes that were not synced and of discards whose space was not freed.
    pub(super) fn look_for_leftovers(&self) -> io::Result<()> {
        let held = self.stored_bytes();
        // The filesystem's own bookkeeping counts too; below this much the search is not worth it.
        if self.data.allocated_bytes()? > (held + held / 64).saturating_add(1 << 20) {
            self.unfreed.add(0..self.units());
        }
        Ok(())
    }

    /// Whether [`Self::free_some_space`] has something to do.
    pub fn has_space_to_free(&self) -> bool {
        self.unfreed.is_any()
    }

    /// Frees some of the space that discards have left, for at most about 0.1 s, and says whether there may be more. Meant for a
    /// background thread; writers at the same place wait meanwhile. It moves [`Self::last_write`], as a part of the discard.
    pub fn free_some_space(&self) -> bool {
        let _step = self.unfreed.begin_step();
        let Some(range) = self.unfreed.take() else { return false };
        let next = self.free_from(&range).unwrap_or_else(|error| {
            tracing::debug!(uid = %self.uid(), %error, "local space of the overlay is not freed");
            range.end
        });
        self.unfreed.add(next..range.end);
        self.has_space_to_free()
    }

    /// Frees what the first stored stretch of `range` holds of units that are not Data; returns where to go on.
    fn free_from(&self, range: &Range<u64>) -> io::Result<u64> {
        let mut at = range.start;
        let mut looked_at = 0;
        while at < range.end && looked_at < STEP_UNITS {
            let Some(stored) = self.data.next_allocated(at * UNIT_BYTES)? else { return Ok(range.end) };
            let first = (stored.start / UNIT_BYTES).max(at);
            let end = stored.end.div_ceil(UNIT_BYTES).min(range.end).min(first + STEP_UNITS);
            if first >= end {
                return Ok(range.end);
            }
            let held = self.locks.lock(first..end);
            let runs = self.bitmap.runs(first..end).filter(|(state, _)| *state != UnitState::Data);
            for (_, run) in runs {
                looked_at += run.end - run.start;
                self.free_space(run);
            }
            drop(held);
            looked_at += 1;
            at = end;
        }
        Ok(at)
    }
}
