//! Writing to and discarding from an overlay.

use crate::image::overlay::{AccessError, BaseReader, OverlayError, OverlayFile, UNIT_BYTES, UnitState};
use std::io;
use std::ops::Range;
use std::sync::atomic::Ordering;

type Unit = [u8; UNIT_BYTES as usize];
static ZEROS: Unit = [0; UNIT_BYTES as usize];

/// A write on its way.
struct Request<'a> {
    offset: u64,
    bytes: &'a [u8],
    units: Range<u64>,
    /// Whole units for those covered in part, as far as they may have to be stored whole.
    edges: Vec<Edge>,
}

/// A unit that a write covers in part.
struct Edge {
    unit: u64,
    /// Its content in the version below; zeros if the unit was not in Base any more.
    below: Box<Unit>,
}

impl Request<'_> {
    fn end(&self) -> u64 {
        self.offset + self.bytes.len() as u64
    }

    /// The part of the write that falls into a range of bytes.
    fn within(&self, range: Range<u64>) -> (u64, &[u8]) {
        let (from, to) = (range.start.max(self.offset), range.end.min(self.end()));
        (from, &self.bytes[(from - self.offset) as usize..(to - self.offset) as usize])
    }
}

fn bytes_of(units: Range<u64>) -> Range<u64> {
    units.start * UNIT_BYTES..units.end * UNIT_BYTES
}

impl OverlayFile {
    /// Writes `bytes` at `offset`. Units covered in part are filled up from the version below.
    ///
    /// # Errors
    /// [`OverlayError::OutOfRange`] past the end of the image; [`OverlayError::NoSpace`] when the local disk is full, with all content as
    /// it was, provided the filesystem overwrites in place and no crash came between a discard of these units and its sync; errors of the version below, likewise; other errors of the local disk, after which units that were in the overlay before may
    /// hold old or new bytes.
    pub fn write_at<B: BaseReader + ?Sized>(
        &self,
        offset: u64,
        bytes: &[u8],
        base: &B,
    ) -> Result<(), AccessError<B::Error>> {
        let range = self.checked_range(offset, bytes.len() as u64)?;
        self.check_nothing_lost()?;
        if bytes.is_empty() {
            return Ok(());
        }
        let units = range.start / UNIT_BYTES..range.end.div_ceil(UNIT_BYTES);
        // Read before the lock, so that a slow version below delays no other writer. It may be out of date under the lock
        // only in one way: the unit has left Base. It never goes back.
        let edges = self.edges(&range, base)?;
        let request = Request { offset, bytes, units, edges };
        loop {
            match self.try_write(&request) {
                // Space of earlier discards may be had for the asking.
                Err(OverlayError::NoSpace { .. }) if self.has_space_to_free() => drop(self.free_some_space()),
                result => return Ok(result?),
            }
        }
    }

    fn try_write(&self, request: &Request<'_>) -> Result<(), OverlayError> {
        let held = self.locks.lock(request.units.clone());
        self.store(request).map_err(|source| {
            // Visible bytes may have changed before it failed: the next sync has to cover them.
            self.unsynced_bytes.fetch_add(1, Ordering::AcqRel);
            OverlayError::io(self.uid(), "write its data", source)
        })?;
        self.bitmap.set(request.units.clone(), UnitState::Data);
        drop(held);
        self.note_change(request.bytes.len() as u64);
        Ok(())
    }

    fn note_change(&self, len_bytes: u64) {
        self.is_touched.store(true, Ordering::Release);
        self.unsynced_bytes.fetch_add(len_bytes, Ordering::AcqRel);
    }

    /// The first and last unit of a write, if it covers them in part.
    fn edges<B: BaseReader + ?Sized>(&self, range: &Range<u64>, base: &B) -> Result<Vec<Edge>, AccessError<B::Error>> {
        let mut edges = Vec::new();
        let (first, last) = (range.start / UNIT_BYTES, (range.end - 1) / UNIT_BYTES);
        for unit in [first, last] {
            let bytes = bytes_of(unit..unit + 1);
            let is_whole = range.start <= bytes.start && bytes.end <= range.end;
            if is_whole || edges.last().is_some_and(|edge: &Edge| edge.unit == unit) {
                continue;
            }
            let mut below = Box::new(ZEROS);
            // The rest of a short last unit is zero; what the write covers need not be read.
            let image_end = bytes.end.min(self.size_bytes());
            let is_covered = range.start <= bytes.start && image_end <= range.end;
            if !is_covered && self.bitmap.run_at(unit, unit + 1).0 == UnitState::Base {
                let part = &mut below[..(image_end - bytes.start) as usize];
                base.read_at(bytes.start, part).map_err(AccessError::Base)?;
            }
            edges.push(Edge { unit, below });
        }
        Ok(edges)
    }

    /// Puts the bytes into the data file. Units that are not Data yet come first: only they take new space, so a full disk is
    /// met before any visible byte has changed, and what was written of them is invisible and given back.
    fn store(&self, request: &Request<'_>) -> io::Result<()> {
        let is_data = |state| state == UnitState::Data;
        let result = self
            .bitmap
            .runs(request.units.clone())
            .filter(|(state, _)| !is_data(*state))
            .try_for_each(|(state, run)| self.store_fresh(request, state, run))
            .and_then(|()| {
                let mut data = self.bitmap.runs(request.units.clone()).filter(|(state, _)| is_data(*state));
                data.try_for_each(|(_, run)| {
                    let (at, bytes) = request.within(bytes_of(run));
                    self.data.write_at(bytes, at)
                })
            });
        if result.is_err() {
            let fresh = self.bitmap.runs(request.units.clone()).filter(|(state, _)| !is_data(*state));
            fresh.for_each(|(_, run)| self.free_space(run));
        }
        result
    }

    /// Writes a run of units that are not Data, each of them whole.
    fn store_fresh(&self, request: &Request<'_>, state: UnitState, run: Range<u64>) -> io::Result<()> {
        let mut whole = run.clone();
        for edge in request.edges.iter().filter(|edge| run.contains(&edge.unit)) {
            let bytes = bytes_of(edge.unit..edge.unit + 1);
            let mut content = if state == UnitState::Zero { Box::new(ZEROS) } else { edge.below.clone() };
            let (at, part) = request.within(bytes.clone());
            let from = (at - bytes.start) as usize;
            content[from..from + part.len()].copy_from_slice(part);
            self.data.write_at(&content[..], bytes.start)?;
            if edge.unit == whole.start {
                whole.start += 1;
            } else {
                whole.end -= 1;
            }
        }
        if whole.is_empty() {
            return Ok(());
        }
        let (at, part) = request.within(bytes_of(whole));
        self.data.write_at(part, at)
    }

    /// Discards a range: it reads zero afterwards. Whole units in it give their local space back, at once or, when much was stored
    /// there, through [`Self::free_some_space`]. Costs microseconds per GiB and one journal entry, however long the range.
    ///
    /// # Errors
    /// As for [`Self::write_at`]: a unit covered in part is written to.
    pub fn punch<B: BaseReader + ?Sized>(
        &self,
        offset: u64,
        len_bytes: u64,
        base: &B,
    ) -> Result<(), AccessError<B::Error>> {
        let range = self.checked_range(offset, len_bytes)?;
        self.check_nothing_lost()?;
        let first_whole = range.start.div_ceil(UNIT_BYTES);
        // The last unit of the image may be short; up to the end of the image is all of it.
        let end_whole = if range.end == self.size_bytes() { self.units() } else { range.end / UNIT_BYTES };
        if first_whole > end_whole || range.is_empty() {
            return self.zero_part(range, base);
        }
        let whole = first_whole..end_whole;
        self.zero_part(range.start..range.end.min(bytes_of(whole.clone()).start), base)?;
        self.zero_part(range.end.min(bytes_of(whole.clone()).end)..range.end, base)?;
        if whole.is_empty() {
            return Ok(());
        }
        let held = self.locks.lock(whole.clone());
        // State first: once a unit is Zero nobody reads the file under it, and when its space comes back does not matter.
        let grown = self.bitmap.set(whole.clone(), UnitState::Zero);
        self.free_discarded(whole, grown.unsigned_abs());
        drop(held);
        self.note_change(range.end - range.start);
        Ok(())
    }

    /// Zeros less than a unit.
    fn zero_part<B: BaseReader + ?Sized>(&self, range: Range<u64>, base: &B) -> Result<(), AccessError<B::Error>> {
        let unit = range.start / UNIT_BYTES;
        if range.is_empty() || self.bitmap.run_at(unit, unit + 1).0 == UnitState::Zero {
            return Ok(());
        }
        self.write_at(range.start, &ZEROS[..(range.end - range.start) as usize], base)
    }
}
