//! What becomes of a source that fails in the middle of a chunk.

use crate::image::{DraftImage, ImageReader};
use crate::ops::pull::{OnBadSectors, Pull, Stopped, Unchanged};
use crate::ops::{Interrupt, OpsError};
use crate::repo::testing::{Dice, TestRepository, create, small};
use crate::source::bad_sectors::BadSectors;
use crate::source::{Content, EachPiece, Extent, Source, SourceError};
use crate::words::attribute::{FileAttributes, Mtime};
use crate::words::monitor::Silent;
use crate::words::record::ImageRef;
use std::io;
use std::ops::Range;
use std::sync::Arc;

const SECTOR: u64 = 4096;
const SIZE: u64 = (9 << 20) + 3 * SECTOR;

/// Hands over piece by piece, as what stands in the page cache is read, until it comes upon what cannot be read.
struct Worn {
    bytes: Vec<u8>,
    bad: Range<u64>,
    /// Instead of failing there.
    panics: bool,
}

impl Source for Worn {
    fn describe(&self) -> String {
        "worn".into()
    }

    fn size_bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn attributes(&self) -> FileAttributes {
        FileAttributes { mode: 0o600, uid: 0, gid: 0, mtime: Mtime { seconds: 0, nanos: 0 } }
    }

    fn extent_at(&self, offset: u64) -> Result<Extent, SourceError> {
        Ok(Extent { range: offset..self.size_bytes(), content: Content::Data })
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), SourceError> {
        let end = offset + buffer.len() as u64;
        if offset < self.bad.end && self.bad.start < end {
            assert!(!self.panics, "it panics there");
            // Some of it may have been read.
            buffer.fill(0xdd);
            let source = io::Error::from_raw_os_error(libc::EIO);
            return Err(SourceError::Read { what: self.describe(), offset, source });
        }
        buffer.copy_from_slice(&self.bytes[offset as usize..end as usize]);
        Ok(())
    }

    fn read_pieces(
        &self,
        offset: u64,
        buffer: &mut [u8],
        piece_bytes: usize,
        each: &mut EachPiece<'_>,
    ) -> Result<(), SourceError> {
        for (piece, at) in buffer.chunks_mut(piece_bytes).zip((offset..).step_by(piece_bytes)) {
            self.read_at(at, piece)?;
            if each(piece).is_break() {
                break;
            }
        }
        Ok(())
    }
}

fn pull(world: &TestRepository, source: &Worn) -> (Arc<DraftImage>, Result<BadSectors, OpsError>) {
    let image = DraftImage::new(Arc::clone(&world.repo), ImageRef::empty(world.repo.block_size()), None);
    let pull = Pull {
        repo: &world.repo,
        source,
        image: &image,
        unchanged: Unchanged::Stands,
        on_bad: OnBadSectors::Tolerate,
        monitor: &Silent,
        interrupt: &Interrupt::never(),
    };
    let pulled = pull.run(0..SIZE, &mut |_| Ok(())).map_err(|Stopped { error, .. }| error);
    (image, pulled)
}

#[test]
fn what_was_handed_over_before_a_bad_sector_stands_and_the_rest_is_read_around_it() {
    let bytes = Dice(3).bytes(SIZE);
    // In the first piece of a chunk, in a later one, in two of them, at the end.
    for bad in [0..SECTOR, 5 << 20..(5 << 20) + 2 * SECTOR, (6 << 20) - SECTOR..(6 << 20) + SECTOR, SIZE - SECTOR..SIZE]
    {
        let world = create(&small());
        let (image, pulled) = pull(&world, &Worn { bytes: bytes.clone(), bad: bad.clone(), panics: false });
        assert_eq!(pulled.unwrap().ranges(), std::slice::from_ref(&bad));
        let settled = image.settle().unwrap();
        let mut expected = bytes.clone();
        expected[bad.start as usize..bad.end as usize].fill(0);
        let mut read = vec![1; SIZE as usize];
        ImageReader::new(Arc::clone(&world.repo), settled.image, "test").read_at(0, &mut read).unwrap();
        assert!(read == expected, "{bad:?}");
    }
}

#[test]
fn a_reader_that_panics_ends_the_pull() {
    let world = create(&small());
    let bad = 5 << 20..(5 << 20) + SECTOR;
    let (_, pulled) = pull(&world, &Worn { bytes: vec![1; SIZE as usize], bad, panics: true });
    assert!(pulled.is_err());
}
