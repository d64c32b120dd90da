//! A source of which somebody else knows what has changed since a base.

use crate::source::changes::Changes;
use crate::source::{Content, EachPiece, Extent, Source, SourceError};
use crate::words::attribute::FileAttributes;
use std::ops::Range;
use std::sync::Arc;

/// See the module. What the changes leave out is unchanged up to the end of the base; behind that the source knows for itself.
pub struct Hinted {
    inner: Arc<dyn Source>,
    changes: Changes,
    base_bytes: u64,
}

impl Hinted {
    /// `base_bytes` is the size of the base the changes begin from. `distrusted` are parts that the base has wrong or not at
    /// all: they are read again whatever the changes say.
    pub fn new(
        inner: Arc<dyn Source>,
        changes: &Changes,
        base_bytes: u64,
        distrusted: impl IntoIterator<Item = Range<u64>>,
    ) -> Self {
        let size = inner.size_bytes();
        let mut parts: Vec<Extent> = changes.ranges().to_vec();
        let read_again =
            |range: Range<u64>| Extent { range: range.start.min(size)..range.end.min(size), content: Content::Data };
        parts.extend(distrusted.into_iter().map(read_again));
        if base_bytes != size && size > 0 {
            // The end of an image that grew or shrank lies within a block that is not what it was.
            let last = base_bytes.min(size).saturating_sub(1);
            parts.push(Extent { range: last..last + 1, content: Content::Data });
            parts.push(Extent { range: size - 1..size, content: Content::Data });
        }
        Self { inner, changes: Changes::new(parts), base_bytes }
    }
}

impl Source for Hinted {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    fn size_bytes(&self) -> u64 {
        self.inner.size_bytes()
    }

    fn attributes(&self) -> FileAttributes {
        self.inner.attributes()
    }

    fn extent_at(&self, offset: u64) -> Result<Extent, SourceError> {
        let size = self.size_bytes();
        let known = self.base_bytes.min(size);
        if offset < known {
            return Ok(self.changes.extent_at(offset, known, Content::Unchanged));
        }
        // Behind the base: hints say what is a hole, or the source does.
        let told = self.changes.extent_at(offset, size, Content::Unchanged);
        if told.content != Content::Unchanged {
            return Ok(told);
        }
        let own = self.inner.extent_at(offset)?;
        Ok(Extent { range: offset..own.range.end.min(told.range.end), content: own.content })
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), SourceError> {
        self.inner.read_at(offset, buffer)
    }

    fn read_pieces(
        &self,
        offset: u64,
        buffer: &mut [u8],
        piece_bytes: usize,
        each: &mut EachPiece<'_>,
    ) -> Result<(), SourceError> {
        self.inner.read_pieces(offset, buffer, piece_bytes, each)
    }

    fn sector_bytes(&self) -> u32 {
        self.inner.sector_bytes()
    }

    fn has_changed(&self) -> bool {
        self.inner.has_changed()
    }

    fn check(&self) -> Result<(), SourceError> {
        self.inner.check()
    }

    fn snapshot_name(&self) -> Option<&str> {
        self.inner.snapshot_name()
    }

    fn changes_since(&self, snapshot: &str) -> Result<Option<Changes>, SourceError> {
        self.inner.changes_since(snapshot)
    }
}
