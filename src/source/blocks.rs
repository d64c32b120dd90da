//! Extents in whole blocks: what a backup does with each block of an image.
//!
//! A block is only what *all* of it is: a hint that covers part of a block never decides about the rest of it. A block of which
//! parts differ is read as a whole from the source, which knows all of it.

use crate::source::{Content, Extent, Source, SourceError};
use crate::words::geometry::BlockSize;
use std::ops::Range;

/// The blocks of a source in order, as runs of one content. Runs begin on blocks and end on blocks, or at the end of the source.
pub struct Runs<'a> {
    source: &'a dyn Source,
    block: u64,
    /// Where the next extent begins.
    at: u64,
    end: u64,
    /// A run that may go on.
    open: Option<Extent>,
}

impl<'a> Runs<'a> {
    /// The blocks that begin in `range`, whose start lies on a block.
    pub fn new(source: &'a dyn Source, size: BlockSize, range: Range<u64>) -> Self {
        Self { source, block: size.bytes_u64(), at: range.start, end: range.end.min(source.size_bytes()), open: None }
    }

    /// The content of the block that begins at `at`, and where the next begins.
    fn next_blocks(&mut self) -> Result<Extent, SourceError> {
        let size = self.source.size_bytes();
        let start = self.at;
        let first = self.source.extent_at(start)?;
        let whole = if first.range.end >= size { self.end } else { first.range.end / self.block * self.block };
        if whole > start {
            self.at = whole.min(self.end);
            return Ok(Extent { range: start..self.at, content: first.content });
        }
        // The extent ends within this block: look at the others in it.
        let end = (start + self.block).min(size);
        let (mut at, mut content) = (first.range.end, first.content);
        while at < end && content != Content::Data {
            let next = self.source.extent_at(at)?;
            if next.content != content {
                content = Content::Data;
            }
            at = next.range.end;
        }
        self.at = end.min(self.end);
        Ok(Extent { range: start..self.at, content })
    }
}

impl Iterator for Runs<'_> {
    type Item = Result<Extent, SourceError>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.at < self.end {
            let run = match self.next_blocks() {
                Ok(run) => run,
                Err(error) => {
                    // Nothing can be said about what follows.
                    self.at = self.end;
                    self.open = None;
                    return Some(Err(error));
                }
            };
            match &mut self.open {
                Some(open) if open.content == run.content => open.range.end = run.range.end,
                open => {
                    if let Some(done) = open.replace(run) {
                        return Some(Ok(done));
                    }
                }
            }
        }
        self.open.take().map(Ok)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::changes::Changes;
    use crate::words::attribute::{FileAttributes, Mtime};
    use proptest::prelude::*;

    struct Told {
        changes: Changes,
        size: u64,
    }

    impl Source for Told {
        fn describe(&self) -> String {
            "told".into()
        }
        fn size_bytes(&self) -> u64 {
            self.size
        }
        fn attributes(&self) -> FileAttributes {
            FileAttributes { mode: 0, uid: 0, gid: 0, mtime: Mtime { seconds: 0, nanos: 0 } }
        }
        fn extent_at(&self, offset: u64) -> Result<Extent, SourceError> {
            Ok(self.changes.extent_at(offset, self.size, Content::Unchanged))
        }
        fn read_at(&self, _: u64, buffer: &mut [u8]) -> Result<(), SourceError> {
            buffer.fill(0);
            Ok(())
        }
    }

    const BLOCK: u64 = 4096;

    fn runs(told: &Told) -> Vec<Extent> {
        Runs::new(told, BlockSize::MIN, 0..told.size).map(Result::unwrap).collect()
    }

    #[test]
    fn a_part_of_a_block_makes_all_of_it_data() {
        let hole = |range| Extent { range, content: Content::Hole };
        let told = Told { changes: Changes::new([hole(0..4095), hole(8192..20_000)]), size: 20_000 };
        let run = |range, content| Extent { range, content };
        assert_eq!(
            runs(&told),
            [run(0..4096, Content::Data), run(4096..8192, Content::Unchanged), run(8192..20_000, Content::Hole)]
        );
        let none = Told { changes: Changes::default(), size: 1 << 40 };
        assert_eq!(runs(&none), [run(0..1 << 40, Content::Unchanged)]);
        assert_eq!(runs(&Told { changes: Changes::default(), size: 0 }), []);
    }

    proptest! {
        #[test]
        fn blocks_are_what_all_of_them_is(
            parts in prop::collection::vec((0u64..12 * BLOCK, 0u64..3 * BLOCK, any::<bool>()), 0..8),
            size in 1u64..14 * BLOCK,
        ) {
            let parts = parts.into_iter().map(|(at, len, exists)| Extent {
                range: at..(at + len).min(size).max(at),
                content: if exists { Content::Data } else { Content::Hole },
            });
            let told = Told { changes: Changes::new(parts), size };
            let mut reached = 0;
            let mut before = None;
            for run in runs(&told) {
                prop_assert_eq!(run.range.start, reached);
                prop_assert!(run.range.end % BLOCK == 0 || run.range.end == size);
                prop_assert_ne!(Some(run.content), before);
                (reached, before) = (run.range.end, Some(run.content));
                for block in (run.range.start..run.range.end).step_by(BLOCK as usize) {
                    let end = (block + BLOCK).min(size);
                    let contents: std::collections::BTreeSet<Content> = (block..end)
                        .step_by(1).map(|at| told.changes.extent_at(at, size, Content::Unchanged).content).collect();
                    let expected = if contents.len() == 1 { *contents.first().unwrap() } else { Content::Data };
                    prop_assert_eq!(run.content, expected, "block at {}", block);
                }
            }
            prop_assert_eq!(reached, size);
        }
    }
}
