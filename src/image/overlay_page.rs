//! One page of the overlay's bitmap: the states of 8192 units, that is of 32 MiB of the image.

use std::ops::Range;

/// Bytes of one unit, the smallest piece an overlay holds.
pub const UNIT_BYTES: u64 = 4096;
/// Units in one page.
pub const PAGE_UNITS: usize = 8192;
/// Words of one plane of a mixed page.
pub const PLANE_WORDS: usize = PAGE_UNITS / 64;

/// Where the content of a unit is. The numbers stand in the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UnitState {
    /// In the version below: nothing was written here.
    Base = 0,
    /// In the overlay's data file.
    Data = 1,
    /// Nowhere: it was discarded and reads zero.
    Zero = 2,
}

/// The states of one page's units. A page of one state costs no memory of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Page {
    /// All units share a state.
    Uniform(UnitState),
    /// A bit per unit in each of two planes.
    Mixed(Box<Planes>),
}

/// Two planes of bits; no unit has both set. The least significant bit of the first word is unit 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planes {
    /// Units in [`UnitState::Data`].
    pub data: [u64; PLANE_WORDS],
    /// Units in [`UnitState::Zero`].
    pub zero: [u64; PLANE_WORDS],
}

impl Planes {
    fn filled(state: UnitState) -> Box<Self> {
        let plane = |of| if state == of { [u64::MAX; PLANE_WORDS] } else { [0; PLANE_WORDS] };
        Box::new(Self { data: plane(UnitState::Data), zero: plane(UnitState::Zero) })
    }

    /// The state all units share, if they do.
    fn uniform(&self) -> Option<UnitState> {
        let all = |plane: &[u64; PLANE_WORDS], word: u64| plane.iter().all(|w| *w == word);
        if all(&self.data, u64::MAX) {
            Some(UnitState::Data)
        } else if all(&self.zero, u64::MAX) {
            Some(UnitState::Zero)
        } else if all(&self.data, 0) && all(&self.zero, 0) {
            Some(UnitState::Base)
        } else {
            None
        }
    }
}

impl Page {
    /// A page of planes, or the uniform page equal to it.
    pub fn from_planes(planes: Box<Planes>) -> Self {
        planes.uniform().map_or(Self::Mixed(planes), Self::Uniform)
    }

    /// State of one unit, and the end (exclusive) of the run of that state which begins there.
    pub fn run_at(&self, unit: usize) -> (UnitState, usize) {
        let planes = match self {
            Self::Uniform(state) => return (*state, PAGE_UNITS),
            Self::Mixed(planes) => planes,
        };
        let (word, bit) = (unit / 64, unit % 64);
        let is_set = |plane: &[u64; PLANE_WORDS]| plane[word] >> bit & 1 == 1;
        let state = if is_set(&planes.data) {
            UnitState::Data
        } else if is_set(&planes.zero) {
            UnitState::Zero
        } else {
            UnitState::Base
        };
        let differs = |index: usize| match state {
            UnitState::Data => !planes.data[index],
            UnitState::Zero => !planes.zero[index],
            UnitState::Base => planes.data[index] | planes.zero[index],
        };
        let first = differs(word) & (u64::MAX << bit);
        let end = if first != 0 {
            word * 64 + first.trailing_zeros() as usize
        } else {
            (word + 1..PLANE_WORDS)
                .find(|index| differs(*index) != 0)
                .map_or(PAGE_UNITS, |index| index * 64 + differs(index).trailing_zeros() as usize)
        };
        (state, end)
    }

    /// Gives `units` a state; returns by how many the number of units in [`UnitState::Data`] grew.
    pub fn set(&mut self, units: Range<usize>, state: UnitState) -> i64 {
        if let Self::Uniform(old) = *self {
            if old == state || units.is_empty() {
                return 0;
            }
            let share = |of: UnitState| if of == UnitState::Data { units.len() as i64 } else { 0 };
            let grown = share(state) - share(old);
            if units.len() == PAGE_UNITS {
                *self = Self::Uniform(state);
                return grown;
            }
            *self = Self::Mixed(Planes::filled(old));
        }
        let Self::Mixed(planes) = self else { unreachable!("a uniform page was turned into a mixed one above") };
        let mut grown = 0;
        let mut unit = units.start;
        while unit < units.end {
            let (word, bit) = (unit / 64, unit % 64);
            let count = (64 - bit).min(units.end - unit);
            let mask = (u64::MAX >> (64 - count)) << bit;
            grown -= i64::from((planes.data[word] & mask).count_ones());
            planes.data[word] &= !mask;
            planes.zero[word] &= !mask;
            match state {
                UnitState::Base => {}
                UnitState::Data => planes.data[word] |= mask,
                UnitState::Zero => planes.zero[word] |= mask,
            }
            unit += count;
        }
        if state == UnitState::Data {
            grown += units.len() as i64;
        }
        // Looking for uniformity costs up to 256 words, so only when the words at both ends agree that it is possible.
        let full = |plane: &[u64; PLANE_WORDS]| plane[0] == u64::MAX && plane[PLANE_WORDS - 1] == u64::MAX;
        if (full(&planes.data) || full(&planes.zero))
            && let Some(state) = planes.uniform()
        {
            *self = Self::Uniform(state);
        }
        grown
    }

    /// Units in [`UnitState::Data`].
    pub fn data_units(&self) -> u64 {
        match self {
            Self::Uniform(UnitState::Data) => PAGE_UNITS as u64,
            Self::Uniform(_) => 0,
            Self::Mixed(planes) => planes.data.iter().map(|word| u64::from(word.count_ones())).sum(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_state() -> impl Strategy<Value = UnitState> {
        prop_oneof![Just(UnitState::Base), Just(UnitState::Data), Just(UnitState::Zero)]
    }

    proptest! {
        #[test]
        fn a_page_is_an_array_of_states(steps in proptest::collection::vec((0..=PAGE_UNITS, 0..=PAGE_UNITS, any_state()), 1..20)) {
            let mut page = Page::Uniform(UnitState::Base);
            let mut model = vec![UnitState::Base; PAGE_UNITS];
            let mut data_units = 0;
            for (a, b, state) in steps {
                let units = a.min(b)..a.max(b);
                model[units.clone()].fill(state);
                data_units += page.set(units, state);
                let mut unit = 0;
                while unit < PAGE_UNITS {
                    let (state, end) = page.run_at(unit);
                    prop_assert!(end > unit && model[unit..end].iter().all(|s| *s == state));
                    prop_assert!(end == PAGE_UNITS || model[end] != state);
                    unit = end;
                }
                let counted = model.iter().filter(|s| **s == UnitState::Data).count() as i64;
                prop_assert_eq!(data_units, counted);
                prop_assert_eq!(page.data_units() as i64, counted);
            }
        }
    }
}
