//! Which block is where in the cache: in memory, made anew from the segments at each start.

use crate::repo::disk_cache::segment::{Contents, Place, Segment, ShortId};
use crate::words::ids::BlockId;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// See the module.
#[derive(Default)]
pub(super) struct Entries {
    places: HashMap<ShortId, (u32, Place)>,
    segments: BTreeMap<u32, Arc<Segment>>,
    /// Counts readings, to tell which segment was not read from for the longest time.
    readings: AtomicU64,
}

impl Entries {
    /// Where a block should be.
    pub(super) fn find(&self, id: &BlockId) -> Option<(Arc<Segment>, Place)> {
        let (number, place) = self.places.get(&id.into())?;
        let segment = self.segments.get(number)?;
        segment.last_used.store(self.readings.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        Some((Arc::clone(segment), *place))
    }

    /// Whether there is an entry for a block.
    pub(super) fn contains(&self, id: &BlockId) -> bool {
        self.places.contains_key(&id.into())
    }

    /// Drops an entry.
    pub(super) fn forget(&mut self, id: &BlockId) {
        self.places.remove(&id.into());
    }

    /// Adds a segment with what it holds. What stands in two is taken from the one added last.
    pub(super) fn add(&mut self, segment: Arc<Segment>, contents: &Contents) {
        let number = segment.number;
        self.places.extend(contents.frames.iter().map(|(id, place)| (*id, (number, *place))));
        // Never used is older than used in this run, and a lower number older than a higher one.
        self.readings.fetch_max(u64::from(number) + 1, Ordering::Relaxed);
        self.segments.insert(number, segment);
    }

    /// Adds a frame.
    pub(super) fn insert(&mut self, id: ShortId, segment: u32, place: Place) {
        self.places.insert(id, (segment, place));
    }

    /// The segment that was not read from for the longest time, other than `except`.
    pub(super) fn least_used(&self, except: Option<u32>) -> Option<Arc<Segment>> {
        let others = self.segments.values().filter(|segment| Some(segment.number) != except);
        others.min_by_key(|segment| segment.last_used.load(Ordering::Relaxed)).cloned()
    }

    /// Forgets a segment and what it holds.
    pub(super) fn remove(&mut self, number: u32) {
        self.segments.remove(&number);
        self.places.retain(|_, (segment, _)| *segment != number);
    }

    /// Frames known.
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// Bytes on disk.
    pub(super) fn held_bytes(&self) -> u64 {
        self.segments.values().map(|segment| segment.size_bytes()).sum()
    }

    /// The number of the next segment.
    pub(super) fn next_number(&self) -> u32 {
        self.segments.last_key_value().map_or(0, |(number, _)| number.wrapping_add(1))
    }
}
