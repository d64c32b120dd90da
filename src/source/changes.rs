//! Which parts of a source differ from an earlier moment: what hints and differences of snapshots have in common.

use crate::source::{Content, Extent};
use std::ops::Range;

/// Parts that changed, in order and without overlap. What lies between them did not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    ranges: Vec<Extent>,
}

impl Changes {
    /// From parts in any order, which may overlap or be empty. Where two overlap, data wins over a hole: what must be read can
    /// be found to be zero, but not the other way round.
    pub fn new(parts: impl IntoIterator<Item = Extent>) -> Self {
        let mut parts: Vec<Extent> = parts.into_iter().filter(|part| !part.range.is_empty()).collect();
        parts.sort_by_key(|part| (part.range.start, part.range.end));
        let mut changes = Self { ranges: Vec::with_capacity(parts.len()) };
        // First the data, then the holes in what the data leaves.
        let data = parts.iter().filter(|part| part.content != Content::Hole);
        let mut merged: Vec<Range<u64>> = Vec::new();
        for part in data {
            match merged.last_mut() {
                Some(last) if part.range.start <= last.end => last.end = last.end.max(part.range.end),
                _ => merged.push(part.range.clone()),
            }
        }
        let holes = parts.iter().filter(|part| part.content == Content::Hole).map(|part| part.range.clone());
        let mut data = merged.into_iter().peekable();
        let mut reached = 0;
        for hole in holes {
            let mut at = hole.start.max(reached);
            while let Some(next) = data.next_if(|next| next.start < hole.end) {
                if next.start > at {
                    changes.push(at..next.start, Content::Hole);
                }
                at = at.max(next.end);
                changes.push(next, Content::Data);
            }
            if at < hole.end {
                changes.push(at..hole.end, Content::Hole);
            }
            reached = reached.max(at).max(hole.end);
        }
        data.for_each(|next| changes.push(next, Content::Data));
        changes
    }

    fn push(&mut self, range: Range<u64>, content: Content) {
        match self.ranges.last_mut() {
            Some(last) if last.content == content && last.range.end == range.start => last.range.end = range.end,
            _ => self.ranges.push(Extent { range, content }),
        }
    }

    /// The parts.
    pub fn ranges(&self) -> &[Extent] {
        &self.ranges
    }

    /// The end of the last part; 0 when nothing changed.
    pub fn end(&self) -> u64 {
        self.ranges.last().map_or(0, |last| last.range.end)
    }

    /// What stands at `offset` and how far, but not past `end`; between the parts stands `between`.
    pub fn extent_at(&self, offset: u64, end: u64, between: Content) -> Extent {
        let next = self.ranges.partition_point(|part| part.range.end <= offset);
        match self.ranges.get(next) {
            Some(part) if part.range.start <= offset => {
                Extent { range: offset..part.range.end.min(end), content: part.content }
            }
            Some(part) => Extent { range: offset..part.range.start.min(end), content: between },
            None => Extent { range: offset..end, content: between },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn part(range: Range<u64>, exists: bool) -> Extent {
        Extent { range, content: if exists { Content::Data } else { Content::Hole } }
    }

    #[test]
    fn data_wins_over_holes_and_neighbours_join() {
        let changes = Changes::new([
            part(5..20, false),
            part(0..3, true),
            part(8..10, true),
            part(10..12, true),
            part(7..7, true),
        ]);
        assert_eq!(changes.ranges(), [part(0..3, true), part(5..8, false), part(8..12, true), part(12..20, false)]);
        assert_eq!(changes.extent_at(3, 30, Content::Unchanged), Extent { range: 3..5, content: Content::Unchanged });
        assert_eq!(changes.extent_at(9, 11, Content::Unchanged), part(9..11, true));
        assert_eq!(changes.extent_at(20, 30, Content::Hole), part(20..30, false));
        assert_eq!((changes.end(), Changes::default().end()), (20, 0));
    }

    proptest! {
        #[test]
        fn every_byte_is_what_the_strongest_part_says(parts in prop::collection::vec((0u64..60, 0u64..20, any::<bool>()), 0..12)) {
            let parts: Vec<Extent> = parts.into_iter().map(|(at, len, exists)| part(at..at + len, exists)).collect();
            let changes = Changes::new(parts.clone());
            for at in 0..90 {
                let over = |content| parts.iter().any(|part| part.content == content && part.range.contains(&at));
                let expected = match (over(Content::Data), over(Content::Hole)) {
                    (true, _) => Content::Data,
                    (_, true) => Content::Hole,
                    _ => Content::Unchanged,
                };
                let found = changes.extent_at(at, 90, Content::Unchanged);
                prop_assert_eq!(found.content, expected);
                prop_assert!(found.range.start == at && found.range.end > at);
            }
            prop_assert!(changes.ranges().windows(2).all(|pair| pair[0].range.end <= pair[1].range.start));
        }
    }
}
