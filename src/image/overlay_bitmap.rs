//! The states of all units of an image in memory: pages of states, made only where something was written.

use crate::image::overlay_page::{PAGE_UNITS, Page, UnitState};
use parking_lot::{Mutex, RwLock};
use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Pages in one group. A group is allocated when one of its pages is first touched.
const GROUP_PAGES: usize = 1024;

/// A page and whether it changed since it was last taken for the journal.
struct Slot {
    page: Page,
    dirty: bool,
}

/// All pages of one image. Every method may be called from any thread; each page is changed and read atomically.
///
/// Memory: 24 bytes per 32 GiB of image, 32 KiB per 32 GiB with anything set, 2 KiB per 32 MiB of mixed states. A 1 TiB image
/// discarded as a whole takes 1 MiB, one written at every second unit 64 MiB.
pub struct Bitmap {
    units: u64,
    groups: Vec<OnceLock<Box<[RwLock<Slot>]>>>,
    /// Pages to journal. A page may stand here twice; that costs a record, nothing else.
    dirty: Mutex<Vec<u32>>,
    data_units: AtomicU64,
}

impl Bitmap {
    /// All units in [`UnitState::Base`].
    pub fn new(units: u64) -> Self {
        let pages = units.div_ceil(PAGE_UNITS as u64);
        let groups = (0..pages.div_ceil(GROUP_PAGES as u64)).map(|_| OnceLock::new()).collect();
        Self { units, groups, dirty: Mutex::new(Vec::new()), data_units: AtomicU64::new(0) }
    }

    /// Number of pages; the last may be partial, its units past the end stay in [`UnitState::Base`].
    pub fn page_count(&self) -> u32 {
        u32::try_from(self.units.div_ceil(PAGE_UNITS as u64))
            .expect("the size limit of an overlay keeps pages in 32 bits")
    }

    /// Units in [`UnitState::Data`].
    pub fn data_units(&self) -> u64 {
        self.data_units.load(Ordering::Relaxed)
    }

    fn slot(&self, page: u64) -> &RwLock<Slot> {
        let fresh = || {
            let slot = || RwLock::new(Slot { page: Page::Uniform(UnitState::Base), dirty: false });
            (0..GROUP_PAGES).map(|_| slot()).collect()
        };
        &self.groups[page as usize / GROUP_PAGES].get_or_init(fresh)[page as usize % GROUP_PAGES]
    }

    /// Gives `units` a state and notes the changed pages for the journal. Returns by how many the units in
    /// [`UnitState::Data`] grew.
    pub fn set(&self, units: Range<u64>, state: UnitState) -> i64 {
        let mut total = 0;
        let mut unit = units.start;
        while unit < units.end {
            let page = unit / PAGE_UNITS as u64;
            let first = unit % PAGE_UNITS as u64;
            let count = (PAGE_UNITS as u64 - first).min(units.end - unit);
            let mut slot = self.slot(page).write();
            let grown = slot.page.set(first as usize..(first + count) as usize, state);
            total += grown;
            self.data_units.fetch_add(grown as u64, Ordering::Relaxed);
            let newly_dirty = !std::mem::replace(&mut slot.dirty, true);
            drop(slot);
            if newly_dirty {
                self.dirty.lock().push(page as u32);
            }
            unit += count;
        }
        total
    }

    /// State of `unit`, and the end (exclusive, at most `limit`) of the run of that state which begins there.
    pub fn run_at(&self, unit: u64, limit: u64) -> (UnitState, u64) {
        let limit = limit.min(self.units);
        let mut found = None;
        let mut at = unit;
        while at < limit {
            let page = at / PAGE_UNITS as u64;
            let (state, end) = match self.groups[page as usize / GROUP_PAGES].get() {
                None => {
                    let group_units = (GROUP_PAGES * PAGE_UNITS) as u64;
                    (UnitState::Base, (at / group_units + 1) * group_units)
                }
                Some(group) => {
                    let first = at % PAGE_UNITS as u64;
                    let (state, end) = group[page as usize % GROUP_PAGES].read().page.run_at(first as usize);
                    (state, at - first + end as u64)
                }
            };
            if *found.get_or_insert(state) != state {
                break;
            }
            at = end.min(limit);
            if end % PAGE_UNITS as u64 != 0 {
                break;
            }
        }
        (found.unwrap_or(UnitState::Base), at)
    }

    /// The runs that make up `units`, in order. Each run is read when the iterator reaches it.
    pub fn runs(&self, units: Range<u64>) -> impl Iterator<Item = (UnitState, Range<u64>)> {
        let mut at = units.start;
        std::iter::from_fn(move || {
            (at < units.end).then(|| {
                let (state, end) = self.run_at(at, units.end);
                let run = at..end;
                at = end;
                (state, run)
            })
        })
    }

    /// Takes the list of pages changed since the last call. A change from now on puts its page on the list again.
    pub fn take_dirty(&self) -> Vec<u32> {
        let mut pages = std::mem::take(&mut *self.dirty.lock());
        pages.sort_unstable();
        pages.dedup();
        for page in &pages {
            self.slot(u64::from(*page)).write().dirty = false;
        }
        pages
    }

    /// Puts pages back on the list, after the journal failed to take them.
    pub fn put_back_dirty(&self, pages: &[u32]) {
        for page in pages {
            if !std::mem::replace(&mut self.slot(u64::from(*page)).write().dirty, true) {
                self.dirty.lock().push(*page);
            }
        }
    }

    /// A copy of one page.
    pub fn page(&self, page: u32) -> Page {
        match self.groups[page as usize / GROUP_PAGES].get() {
            None => Page::Uniform(UnitState::Base),
            Some(group) => group[page as usize % GROUP_PAGES].read().page.clone(),
        }
    }

    /// Pages in which anything may be set, in order.
    pub fn touched_pages(&self) -> Vec<u32> {
        let in_made_group = |page: &u32| self.groups[*page as usize / GROUP_PAGES].get().is_some();
        let is_touched = |page: &u32| self.page(*page) != Page::Uniform(UnitState::Base);
        (0..self.page_count()).filter(in_made_group).filter(is_touched).collect()
    }

    /// Whether a page may be put at a place: it exists and sets nothing past the end of the image.
    pub fn fits(&self, number: u32, page: &Page) -> bool {
        if number >= self.page_count() {
            return false;
        }
        let units = self.units - u64::from(number) * PAGE_UNITS as u64;
        let end = units.min(PAGE_UNITS as u64) as usize;
        end == PAGE_UNITS || page.run_at(end) == (UnitState::Base, PAGE_UNITS)
    }

    /// Puts a page read from the journal in its place; it is not noted as changed. The caller has asked [`Self::fits`].
    pub fn restore(&self, number: u32, page: Page) {
        let mut slot = self.slot(u64::from(number)).write();
        let grown = page.data_units().wrapping_sub(slot.page.data_units());
        self.data_units.fetch_add(grown, Ordering::Relaxed);
        slot.page = page;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_join_across_pages_and_groups() {
        let units = (GROUP_PAGES * PAGE_UNITS) as u64 * 3 + 5;
        let bitmap = Bitmap::new(units);
        assert_eq!(bitmap.run_at(0, u64::MAX), (UnitState::Base, units));
        let middle = PAGE_UNITS as u64 - 1..(GROUP_PAGES * PAGE_UNITS) as u64 + 2;
        bitmap.set(middle.clone(), UnitState::Zero);
        bitmap.set(units - 1..units, UnitState::Data);
        let runs: Vec<_> = bitmap.runs(0..units).collect();
        let expected = [
            (UnitState::Base, 0..middle.start),
            (UnitState::Zero, middle.clone()),
            (UnitState::Base, middle.end..units - 1),
            (UnitState::Data, units - 1..units),
        ];
        assert_eq!(runs, expected);
        assert_eq!(bitmap.data_units(), 1);
        assert_eq!(bitmap.take_dirty().len(), GROUP_PAGES + 2);
        assert!(bitmap.take_dirty().is_empty());
        bitmap.put_back_dirty(&[3]);
        assert_eq!(bitmap.take_dirty(), [3]);
    }

    #[test]
    fn a_page_from_outside_must_lie_in_the_image() {
        let bitmap = Bitmap::new(PAGE_UNITS as u64 + 10);
        let mut page = Page::Uniform(UnitState::Base);
        page.set(0..10, UnitState::Data);
        assert!(bitmap.fits(1, &page) && !bitmap.fits(2, &page));
        assert!(!bitmap.fits(1, &Page::Uniform(UnitState::Zero)) && bitmap.fits(0, &Page::Uniform(UnitState::Zero)));
        bitmap.restore(1, page);
        assert_eq!(bitmap.data_units(), 10);
        assert_eq!(bitmap.touched_pages(), [1]);
        assert!(bitmap.take_dirty().is_empty());
    }
}
