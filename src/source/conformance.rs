//! What every source and every destination must do, whatever it is made of. Each kind runs these on a real one of it.

use crate::source::destination::{Consent, Holes, Manner, Start};
use crate::source::{Content, Destination, Source, SourceError, Volume};
use crate::words::attribute::{FileAttributes, Mtime};
use std::ops::ControlFlow;

/// What a version carries.
pub const ATTRIBUTES: FileAttributes =
    FileAttributes { mode: 0o640, uid: 0, gid: 0, mtime: Mtime { seconds: 1, nanos: 0 } };

/// A source that should hold exactly these bytes, compared with nothing.
pub fn reads_what_it_holds(source: &dyn Source, expected: &[u8]) {
    let size = expected.len() as u64;
    assert_eq!(source.size_bytes(), size, "{}", source.describe());
    // Extents follow each other, and a hole is zero.
    let mut at = 0;
    while at < size {
        let extent = source.extent_at(at).unwrap();
        assert_eq!(extent.range.start, at);
        assert!(extent.range.end > at && extent.range.end <= size, "{extent:?}");
        let part = &expected[at as usize..extent.range.end as usize];
        assert!(extent.content == Content::Data || part.iter().all(|byte| *byte == 0), "{extent:?} is no hole");
        assert_ne!(extent.content, Content::Unchanged, "nothing was compared");
        at = extent.range.end;
    }
    // Any part, also side by side.
    let parts: Vec<(usize, usize)> =
        [(0, 1), (0, expected.len()), (expected.len() / 3, 70_001), (expected.len() - 1, 1)]
            .into_iter()
            .map(|(from, len)| (from, len.min(expected.len() - from)))
            .collect();
    is_read_by(32, source, expected);
    std::thread::scope(|scope| {
        for (from, len) in &parts {
            scope.spawn(move || {
                let mut buffer = vec![0xee; *len];
                source.read_at(*from as u64, &mut buffer).unwrap();
                assert!(buffer == expected[*from..*from + *len], "{len} bytes at {from}");
            });
        }
    });
    // In pieces: all of it, in order.
    for piece_bytes in [4096, 1 << 20] {
        let mut read = Vec::new();
        let mut each = |piece: &[u8]| {
            assert_eq!(piece.len(), piece_bytes.min(expected.len() - read.len()));
            read.extend_from_slice(piece);
            ControlFlow::Continue(())
        };
        source.read_pieces(0, &mut vec![0xee; expected.len()], piece_bytes, &mut each).unwrap();
        assert!(read == expected, "in pieces of {piece_bytes}");
        // Who wants no more gets no more.
        let mut pieces = 0;
        let mut once = |_: &[u8]| {
            pieces += 1;
            ControlFlow::Break(())
        };
        source.read_pieces(0, &mut vec![0xee; expected.len()], piece_bytes, &mut once).unwrap();
        assert_eq!(pieces, 1);
    }
    // Nothing is made up behind the end.
    let behind = source.read_at(size.saturating_sub(1), &mut [0; 4097]);
    assert!(matches!(behind, Err(SourceError::Shrank { .. } | SourceError::Read { .. })), "{behind:?}");
    assert!(source.sector_bytes().is_power_of_two());
}

/// A source that is read by so many at once, all of whom begin together.
fn is_read_by(readers: usize, source: &dyn Source, expected: &[u8]) {
    let start = std::sync::Barrier::new(readers);
    std::thread::scope(|scope| {
        for reader in 0..readers {
            let (start, from) = (&start, expected.len() / readers * reader);
            scope.spawn(move || {
                let mut buffer = vec![0xee; (expected.len() - from).min(1 << 20)];
                start.wait();
                for _ in 0..3 {
                    source.read_at(from as u64, &mut buffer).unwrap();
                    assert!(buffer == expected[from..from + buffer.len()], "reader {reader}");
                }
            });
        }
    });
}

fn manner(size_bytes: u64, consent: Consent, start: Start) -> Manner {
    Manner { size_bytes, consent, start, holes: Holes::Keep }
}

/// A new thing of this size.
pub fn new_manner(size_bytes: u64) -> Manner {
    manner(size_bytes, Consent::None, Start::Anew)
}

/// What a new volume holds before anything is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum New {
    /// Zeros.
    Zeros,
    /// What its place held before.
    Anything,
}

/// What is restored: of whole extents, as LVM makes them.
const SIZE: usize = 12 << 20;

/// Two volumes of names that are not in use. Restores to the first in every manner; it holds the returned bytes afterwards. Of the
/// other an unfinished one is left.
pub fn restores_in_every_manner(volume: &dyn Volume, other: &dyn Volume, holds: New) -> Vec<u8> {
    let size = SIZE as u64;
    let mut expected = vec![0; SIZE];
    let fill = |destination: &dyn Destination, expected: &mut Vec<u8>, byte: u8| {
        for (at, len) in [(0, 4096), ((4 << 20) - 512, 1024), (SIZE - 512, 512)] {
            expected[at..at + len].fill(byte);
            destination.write(at as u64, &expected[at..at + len]).unwrap();
        }
    };
    // A new one reads as zero where nothing was written, and an unfinished one is not there.
    let new = volume.destination(&manner(size, Consent::None, Start::Anew)).unwrap();
    assert_eq!(new.is_fresh(), holds == New::Zeros);
    if holds == New::Anything {
        new.zero(&(0..size)).unwrap();
    }
    fill(&*new, &mut expected, 1);
    let mut middle = vec![1; 8192];
    new.read(1 << 20, &mut middle).unwrap();
    assert!(middle.iter().all(|byte| *byte == 0));
    drop(new);
    assert!(volume.destination(&manner(size, Consent::None, Start::Anew)).is_err(), "something unfinished is left");

    // Going on finds what was written, and finishes it.
    let again = volume.destination(&manner(size, Consent::None, Start::Resume)).unwrap();
    assert!(!again.is_fresh());
    let mut first = vec![0; 4096];
    again.read(0, &mut first).unwrap();
    assert!(first.iter().all(|byte| *byte == 1));
    again.write(2 << 20, &[2; 1 << 20]).unwrap();
    expected[2 << 20..3 << 20].fill(2);
    let zeroed = (2 << 20) + 4096..(2 << 20) + 300_032;
    again.zero(&(zeroed.start as u64..zeroed.end as u64)).unwrap();
    expected[zeroed].fill(0);
    again.finish(&ATTRIBUTES).unwrap();
    drop(again);

    // What exists is overwritten with consent only.
    for start in [Start::Anew, Start::Resume] {
        let refused = volume.destination(&manner(size, Consent::None, start)).err().unwrap();
        assert!(matches!(refused, SourceError::Exists { .. }), "{refused}");
    }
    let forced = volume.destination(&manner(size, Consent::Force, Start::Anew)).unwrap();
    if forced.is_fresh() {
        expected.fill(0);
    }
    fill(&*forced, &mut expected, 3);
    forced.finish(&ATTRIBUTES).unwrap();
    // What was finished can be written to and finished again.
    expected[..512].fill(9);
    forced.write(0, &expected[..512]).unwrap();
    forced.finish(&ATTRIBUTES).unwrap();
    drop(forced);
    grows_and_shrinks(other, holds);
    expected
}

/// Whoever writes without knowing how much it will be, as `cp` does, finds what was cut off to be zero when it comes back.
fn grows_and_shrinks(volume: &dyn Volume, holds: New) {
    let growing = volume.destination(&manner(0, Consent::None, Start::Anew)).unwrap();
    growing.resize(1 << 20).unwrap();
    growing.write(0, &[5; 1 << 20]).unwrap();
    growing.resize(100_352).unwrap();
    growing.resize(5 << 20).unwrap();
    if holds == New::Anything {
        growing.zero(&(100_352..5 << 20)).unwrap();
    }
    let mut found = vec![1; 5 << 20];
    growing.read(0, &mut found).unwrap();
    assert!(found[..100_352].iter().all(|byte| *byte == 5) && found[100_352..].iter().all(|byte| *byte == 0));
    drop(growing);
}

/// A block device that holds these bytes. Restores to it in place; it holds the returned bytes afterwards.
pub fn restores_in_place(volume: &dyn Volume, mut holds: Vec<u8>) -> Vec<u8> {
    let size = holds.len() as u64;
    for start in [Start::Anew, Start::Resume] {
        let refused = volume.destination(&manner(size, Consent::None, start)).err().unwrap();
        assert!(matches!(refused, SourceError::Exists { .. }), "{refused}");
    }
    let refused = volume.destination(&manner(size + 1, Consent::Force, Start::Anew)).err().unwrap();
    assert!(matches!(refused, SourceError::TooSmall { .. }), "{refused}");
    for (round, start) in [(1, Start::Anew), (2, Start::Resume)] {
        let device = volume.destination(&manner(size - 512, Consent::Force, start)).unwrap();
        assert!(!device.is_fresh(), "what it held shows through");
        let second = volume.destination(&manner(size, Consent::Force, start)).err().unwrap();
        assert!(matches!(second, SourceError::InUse { .. }), "two at once: {second}");
        let mut before = vec![0; 70_000];
        device.read(4097, &mut before).unwrap();
        assert!(before == holds[4097..74_097]);
        // At odd places, and over what was there.
        for (at, len) in [(0, 512), (1_000_001, 300_003), (holds.len() - 1024, 512)] {
            holds[at..at + len].fill(round);
            device.write(at as u64, &holds[at..at + len]).unwrap();
        }
        for zeroed in [1_100_000..1_100_001, 2_000_000..3_500_512, holds.len() - 600..holds.len() - 512] {
            device.zero(&(zeroed.start as u64..zeroed.end as u64)).unwrap();
            holds[zeroed].fill(0);
        }
        device.finish(&ATTRIBUTES).unwrap();
    }
    holds
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::file::FileVolume;
    use crate::source::page_cache;
    use crate::source::volume::Moment;
    use std::os::unix::fs::FileExt;

    const NOW: Moment<'static> = Moment::Now { name: "" };

    #[test]
    fn files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        let file = std::fs::File::create(&path).unwrap();
        file.set_len(3_000_001).unwrap();
        file.write_all_at(&[7; 100_000], 1_000_003).unwrap();
        let expected = std::fs::read(&path).unwrap();
        reads_what_it_holds(&*FileVolume::new(path).open(NOW).unwrap(), &expected);

        let restored = FileVolume::new(dir.path().join("restored"));
        let expected = restores_in_every_manner(&restored, &FileVolume::new(dir.path().join("other")), New::Zeros);
        reads_what_it_holds(&*restored.open(NOW).unwrap(), &expected);
    }

    /// A loop device, gone at the end.
    struct Loop(String);

    impl Loop {
        fn of(file: &std::path::Path, options: &[&str]) -> Self {
            let mut command = std::process::Command::new("losetup");
            let done = command.args(["--find", "--show"]).args(options).arg(file).output().unwrap();
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
            Self(String::from_utf8(done.stdout).unwrap().trim().to_owned())
        }

        fn volume(&self) -> FileVolume {
            FileVolume::new(self.0.clone().into())
        }
    }

    impl Drop for Loop {
        fn drop(&mut self) {
            let _ = std::process::Command::new("losetup").args(["--detach", &self.0]).status();
        }
    }

    #[test]
    fn block_devices() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("backing");
        for (options, size) in [(&[][..], (6 << 20) + 1536), (&["--sector-size", "4096"][..], 6 << 20)] {
            let mut held = vec![0xa5; size];
            held[3 << 20..4 << 20].fill(0);
            std::fs::write(&path, &held).unwrap();
            let device = Loop::of(&path, options);
            reads_what_it_holds(&*device.volume().open(NOW).unwrap(), &held);
            let sector = device.volume().open(NOW).unwrap().sector_bytes();
            assert_eq!(sector, if options.is_empty() { 512 } else { 4096 });
            let held = restores_in_place(&device.volume(), held);
            reads_what_it_holds(&*device.volume().open(NOW).unwrap(), &held);
        }
        // One that cannot be written is no destination, and is read.
        let held = std::fs::read(&path).unwrap();
        let device = Loop::of(&path, &["--read-only"]);
        reads_what_it_holds(&*device.volume().open(NOW).unwrap(), &held);
        // Some kernels tell when it is opened, others when it is written.
        let opened = device.volume().destination(&manner(1, Consent::Force, Start::Anew));
        let refused = opened.and_then(|opened| opened.write(0, &[1; 512])).err().unwrap();
        assert!(matches!(refused, SourceError::Destination { .. }), "{refused}");
    }

    #[test]
    fn reading_a_block_device_leaves_the_page_cache_as_it_was() {
        const SIZE: usize = 4 << 20;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("backing");
        std::fs::write(&path, vec![7; SIZE]).unwrap();
        let device = Loop::of(&path, &[]);
        // Somebody works with its second megabyte, and keeps it open: the last close of a device forgets everything.
        let worked_with = std::fs::File::open(&device.0).unwrap();
        page_cache::announce_random(&worked_with);
        page_cache::forget_all(&worked_with);
        worked_with.read_exact_at(&mut vec![0; 1 << 20], 1 << 20).unwrap();
        let all = 0..SIZE as u64;
        let before = page_cache::absent(&worked_with, &all).unwrap();
        let there: u64 = SIZE as u64 - before.iter().map(|range| range.end - range.start).sum::<u64>();
        assert!(there >= 1 << 20 && there < SIZE as u64, "{before:?}");
        let source = device.volume().open(NOW).unwrap();
        for (offset, len) in [(0, 1 << 20), (1 << 20, 2_000_001), ((1 << 20) + 2_000_001, (3 << 20) - 2_000_001)] {
            let mut buffer = vec![0; len];
            source.read_at(offset, &mut buffer).unwrap();
            assert!(buffer.iter().all(|byte| *byte == 7));
        }
        assert_eq!(page_cache::absent(&worked_with, &all), Some(before));
    }
}
