//! Which bytes of a block have been written.

use std::ops::Range;

/// Disjoint ranges in ascending order; neighbours that touch are joined.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ranges(Vec<Range<usize>>);

impl Ranges {
    /// Adds a range.
    pub fn add(&mut self, range: Range<usize>) {
        if range.is_empty() {
            return;
        }
        let from = self.0.partition_point(|held| held.end < range.start);
        let to = self.0.partition_point(|held| held.start <= range.end);
        let joined = self.0[from..to].iter().fold(range, |a, b| a.start.min(b.start)..a.end.max(b.end));
        self.0.splice(from..to, [joined]);
    }

    /// Whether everything below `len` is covered.
    pub fn covers(&self, len: usize) -> bool {
        matches!(self.0.as_slice(), [only] if only.start == 0 && only.end >= len)
    }

    /// What is not covered below `len`, in order.
    pub fn gaps(&self, len: usize) -> impl Iterator<Item = Range<usize>> + '_ {
        let starts = std::iter::once(0).chain(self.0.iter().map(|held| held.end));
        let ends = self.0.iter().map(|held| held.start).chain(std::iter::once(len));
        starts.zip(ends).map(|(start, end)| start..end).filter(|gap| !gap.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn same_as_a_set_of_bytes(adds in proptest::collection::vec((0usize..60, 0usize..12), 0..20)) {
            let mut ranges = Ranges::default();
            let mut bytes = [false; 64];
            for (start, len) in adds {
                let end = (start + len).min(64);
                ranges.add(start..end);
                bytes[start.min(end)..end].fill(true);
            }
            let mut open = [true; 64];
            for gap in ranges.gaps(64) {
                open[gap].fill(false);
            }
            prop_assert_eq!(open, bytes);
            prop_assert_eq!(ranges.covers(64), bytes.iter().all(|b| *b));
        }
    }
}
