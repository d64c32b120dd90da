//! Parts of a source that could not be read, as they stand in the reason of the version made from it: so the next backup knows,
//! on any host, which parts of its base hold nothing.

use std::fmt;
use std::ops::Range;

/// The beginning by which the reason is known again.
const INTRODUCTION: &str = "the source could not be read at ";
/// What a scrub adds to a reason begins with this.
pub const DAMAGE: &str = "; damage: ";
/// How many parts are told one by one; beyond that neighbours are told as one. A reason is a line for people.
const PARTS_MAX: usize = 40;

/// Unreadable parts in order, in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BadSectors(Vec<Range<u64>>);

impl BadSectors {
    /// From parts in any order.
    pub fn new(mut parts: Vec<Range<u64>>) -> Self {
        parts.retain(|part| !part.is_empty());
        parts.sort_by_key(|part| part.start);
        let mut joined: Vec<Range<u64>> = Vec::with_capacity(parts.len());
        for part in parts {
            match joined.last_mut() {
                Some(last) if part.start <= last.end => last.end = last.end.max(part.end),
                _ => joined.push(part),
            }
        }
        Self(joined)
    }

    /// The parts.
    pub fn ranges(&self) -> &[Range<u64>] {
        &self.0
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes in all.
    pub fn bytes(&self) -> u64 {
        self.0.iter().map(|part| part.end - part.start).sum()
    }

    /// With the nearest neighbours joined until there are at most [`PARTS_MAX`].
    fn summary(&self) -> Self {
        let mut parts = self.0.clone();
        if parts.len() > PARTS_MAX {
            let mut gaps: Vec<(u64, usize)> =
                parts.windows(2).enumerate().map(|(at, pair)| (pair[1].start - pair[0].end, at)).collect();
            gaps.sort_unstable();
            let mut joined: Vec<usize> = gaps[..parts.len() - PARTS_MAX].iter().map(|(_, at)| *at).collect();
            joined.sort_unstable();
            for at in joined.into_iter().rev() {
                parts[at].end = parts[at + 1].end;
                parts.remove(at + 1);
            }
        }
        Self(parts)
    }

    /// What a reason says at its end; `None` when it does not say this.
    pub fn find(reason: &str) -> Option<Self> {
        Self::parse(&reason[reason.find(INTRODUCTION)?..])
    }

    /// What a reason says; `None` when it does not say this.
    pub fn parse(reason: &str) -> Option<Self> {
        // A scrub may have added what it found.
        let told = reason.strip_prefix(INTRODUCTION)?;
        let told = told.find(DAMAGE).map_or(told, |at| &told[..at]);
        let parts = told.split("; ").map(|part| {
            let (offset, rest) = part.strip_prefix("offset ")?.split_once(" (")?;
            let (start, len) = (offset.parse::<u64>().ok()?, rest.strip_suffix(" bytes)")?.parse::<u64>().ok()?);
            Some(start..start.checked_add(len)?)
        });
        parts.collect::<Option<Vec<_>>>().map(Self::new)
    }
}

impl BadSectors {
    /// Whether a reason says this and nothing else: no scrub has found damage beside it.
    pub fn is_all(reason: &str) -> bool {
        !reason.contains(DAMAGE) && Self::parse(reason).is_some()
    }
}

impl fmt::Display for BadSectors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(INTRODUCTION)?;
        for (number, part) in self.summary().0.iter().enumerate() {
            let comma = if number > 0 { "; " } else { "" };
            write!(f, "{comma}offset {} ({} bytes)", part.start, part.end - part.start)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_can_be_read_again() {
        let bad = BadSectors::new(vec![8192..8704, 0..512, 512..1024]);
        assert_eq!(bad.to_string(), "the source could not be read at offset 0 (1024 bytes); offset 8192 (512 bytes)");
        assert_eq!(BadSectors::parse(&bad.to_string()), Some(bad.clone()));
        let scrubbed = format!("{bad}; damage: 4096 bytes are lost");
        assert_eq!(BadSectors::parse(&scrubbed), Some(bad.clone()));
        assert!(BadSectors::is_all(&bad.to_string()) && !BadSectors::is_all(&scrubbed) && !BadSectors::is_all("no"));
        assert_eq!(BadSectors::find(&format!("backup of x has not finished: {bad}")), Some(bad.clone()));
        for other in ["", "cp was killed", "the source could not be read at offset x (1 bytes)"] {
            assert_eq!(BadSectors::parse(other), None, "{other}");
        }
    }

    #[test]
    fn many_are_told_as_few_that_cover_them() {
        let many: Vec<Range<u64>> = (0..1000u64).map(|i| i * i * 512..i * i * 512 + 512).collect();
        let told = BadSectors::parse(&BadSectors::new(many.clone()).to_string()).unwrap();
        assert_eq!(told.ranges().len(), PARTS_MAX);
        assert!(many.iter().all(|part| told.ranges().iter().any(|t| t.start <= part.start && part.end <= t.end)));
    }
}
