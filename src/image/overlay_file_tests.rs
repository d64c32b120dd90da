//! The overlay in real files: damage, discards, sharing, leftovers, threads.

use crate::image::overlay::{AccessError, OverlayError, OverlayFile, UNIT_BYTES, UnitState};
use crate::image::overlay_journal::Names;
use crate::image::overlay_simulation::Dice;
use crate::image::overlay_tests::{BrokenBase, Pattern, UID, pattern_at};
use crate::words::ids::Uid;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

fn open(dir: &Path, size_bytes: u64) -> OverlayFile {
    OverlayFile::open_or_create(dir, UID, size_bytes).unwrap()
}

#[test]
fn a_cut_journal_loses_its_end_and_a_broken_one_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let names = Names::of(UID);
    let journal = dir.path().join(&names.map);
    let mut ends = Vec::new();
    let overlay = open(dir.path(), 1 << 20);
    ends.push(std::fs::metadata(&journal).unwrap().len() as usize);
    for unit in 0..3u64 {
        overlay.write_at(unit * 8192, &[unit as u8; 4096], &Pattern).unwrap();
        overlay.sync().unwrap();
        ends.push(std::fs::metadata(&journal).unwrap().len() as usize);
    }
    drop(overlay);
    let bytes = std::fs::read(&journal).unwrap();
    assert_eq!(ends.last(), Some(&bytes.len()));
    for cut in 0..=bytes.len() {
        std::fs::write(&journal, &bytes[..cut]).unwrap();
        let opened = OverlayFile::open_or_create(dir.path(), UID, 1 << 20);
        if cut < ends[0] {
            assert!(matches!(opened, Err(OverlayError::Damaged { .. })), "cut at {cut}");
            continue;
        }
        let whole_batches = ends.iter().filter(|end| **end <= cut).count() as u64 - 1;
        assert_eq!(opened.unwrap().stored_bytes(), whole_batches * UNIT_BYTES, "cut at {cut}");
        assert_eq!(std::fs::metadata(&journal).unwrap().len() as usize, ends[whole_batches as usize]);
    }
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        std::fs::write(&journal, &flipped).unwrap();
        match OverlayFile::open_or_create(dir.path(), UID, 1 << 20) {
            // Damage of the last batch cannot be told from its never having been finished.
            Ok(overlay) => assert!(bit / 8 >= ends[2] && overlay.stored_bytes() == 2 * UNIT_BYTES, "bit {bit}"),
            Err(error) => assert!(bit / 8 < ends[2] && matches!(error, OverlayError::Damaged { .. }), "{bit} {error}"),
        }
    }
    OverlayFile::remove(dir.path(), UID).unwrap();
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_terabyte_is_discarded_at_once_and_gives_its_space_back() {
    let dir = tempfile::tempdir().unwrap();
    let size = 1u64 << 40;
    let overlay = open(dir.path(), size);
    assert_eq!(overlay.next_present(0), None);
    for index in 0..64u64 {
        overlay.write_at(index * (size / 64) + 12288, &[9; 65536], &Pattern).unwrap();
    }
    overlay.sync().unwrap();
    let taken = || std::fs::metadata(dir.path().join(Names::of(UID).data)).unwrap().blocks() * 512;
    assert!(taken() >= 64 * 65536);
    assert_eq!(overlay.stored_bytes(), 64 * 65536);
    overlay.punch(0, size, &BrokenBase).unwrap();
    overlay.sync().unwrap();
    assert!(taken() < 65536, "{} bytes still taken", taken());
    overlay.write_at(0, &vec![1; 16 << 20], &BrokenBase).unwrap();
    overlay.punch(4096, (16 << 20) - 8192, &BrokenBase).unwrap();
    assert!(overlay.has_space_to_free() && taken() >= 16 << 20);
    while overlay.free_some_space() {}
    assert!(taken() < 65536, "{} bytes still taken", taken());
    assert_eq!(overlay.stored_bytes(), 8192);
    overlay.punch(0, 16 << 20, &BrokenBase).unwrap();
    overlay.sync().unwrap();
    assert!(std::fs::metadata(dir.path().join(Names::of(UID).map)).unwrap().len() < 16384);
    overlay.write_at(size - 100, &[7; 100], &BrokenBase).unwrap();
    overlay.sync().unwrap();
    drop(overlay);
    let overlay = open(dir.path(), size);
    let extents: Vec<_> = overlay.extents(0..size).map(|e| (e.state, e.range)).collect();
    assert_eq!(extents, [(UnitState::Zero, 0..size - 4096), (UnitState::Data, size - 4096..size)]);
    assert_eq!((overlay.next_present(5), overlay.next_absent(5)), (Some(5), None));
    let mut buffer = [1; 4096];
    overlay.read_at(size / 2, &mut buffer, &BrokenBase).unwrap();
    assert_eq!(buffer, [0; 4096]);
}

#[test]
fn only_one_holds_an_overlay_and_only_its_own_image_fits() {
    let dir = tempfile::tempdir().unwrap();
    let other = Uid::from_bytes([0x22; 16]);
    assert!(!OverlayFile::exists(dir.path(), UID).unwrap());
    let overlay = open(dir.path(), 5000);
    assert!(matches!(OverlayFile::open_or_create(dir.path(), UID, 5000), Err(OverlayError::InUse { .. })));
    assert!(matches!(OverlayFile::remove(dir.path(), UID), Err(OverlayError::InUse { .. })));
    let second = OverlayFile::open_or_create(dir.path(), other, 0).unwrap();
    assert!(OverlayFile::exists(dir.path(), UID).unwrap());
    overlay.write_at(0, &[1; 5000], &BrokenBase).unwrap();
    let listed = OverlayFile::list(dir.path()).unwrap();
    assert_eq!(listed.iter().map(|(uid, _)| *uid).collect::<Vec<_>>(), [UID, other]);
    for (offset, len) in [(4999, 2), (5001, 0), (u64::MAX, 2)] {
        let read = overlay.read_at(offset, &mut vec![0; len], &Pattern);
        assert!(matches!(read, Err(AccessError::Overlay(OverlayError::OutOfRange { .. }))));
    }
    drop(overlay);
    let error = OverlayFile::open_or_create(dir.path(), UID, 6000).err().unwrap();
    assert!(matches!(error, OverlayError::OtherSize { expected_bytes: 6000, found_bytes: 5000, .. }), "{error}");
    open(dir.path(), 5000).discard().unwrap();
    second.discard().unwrap();
    assert!(OverlayFile::list(dir.path()).unwrap().is_empty());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    assert!(OverlayFile::list(&dir.path().join("absent")).unwrap().is_empty());
}

#[test]
fn a_base_that_cannot_be_read_fails_the_write_that_needs_it() {
    let dir = tempfile::tempdir().unwrap();
    let overlay = open(dir.path(), 1 << 20);
    assert!(matches!(overlay.write_at(10, &[1; 10], &BrokenBase), Err(AccessError::Base(_))));
    assert!(matches!(overlay.punch(10, 10, &BrokenBase), Err(AccessError::Base(_))));
    assert_eq!(overlay.next_present(0), None);
    overlay.write_at(4096, &[1; 4096], &BrokenBase).unwrap();
    overlay.write_at(5000, &[2; 10], &BrokenBase).unwrap();
    let present: Vec<_> = overlay.present(4100..5000).map(|extent| (extent.state, extent.range)).collect();
    assert_eq!(present, [(UnitState::Data, 4100..5000)]);
    assert_eq!((overlay.next_present(0), overlay.next_absent(4096)), (Some(4096), Some(8192)));
}

#[test]
fn leftovers_of_unsynced_writes_are_freed_and_never_seen() {
    let dir = tempfile::tempdir().unwrap();
    let overlay = open(dir.path(), 64 << 20);
    overlay.write_at(0, &[1; 4096], &Pattern).unwrap();
    overlay.sync().unwrap();
    let written = overlay.last_write().unwrap();
    drop(overlay);
    let data = std::fs::OpenOptions::new().write(true).open(dir.path().join(Names::of(UID).data)).unwrap();
    data.write_all_at(&vec![0xff; 8 << 20], 4096).unwrap();
    data.sync_all().unwrap();
    let overlay = open(dir.path(), 64 << 20);
    assert!(overlay.last_write().unwrap() > written);
    while overlay.free_some_space() {}
    assert!(data.metadata().unwrap().blocks() * 512 < 1 << 20);
    let mut buffer = [0; 8192];
    overlay.read_at(0, &mut buffer, &Pattern).unwrap();
    assert!(buffer[..4096].iter().all(|byte| *byte == 1) && buffer[4096] == pattern_at(4096));
}

/// Each thread owns every fourth 3000-byte slot, so neighbours share units; another thread syncs all the while.
#[test]
fn writers_of_neighbouring_bytes_do_not_lose_each_others() {
    const SLOT: usize = 3000;
    const SLOTS: usize = 600;
    let dir = tempfile::tempdir().unwrap();
    let overlay = open(dir.path(), (SLOT * SLOTS) as u64);
    std::thread::scope(|scope| {
        for thread in 0..4usize {
            let overlay = &overlay;
            scope.spawn(move || {
                for slot in (thread..SLOTS).step_by(4) {
                    let bytes = vec![(slot % 251) as u8; SLOT];
                    if slot % 3 == 0 {
                        overlay.punch((slot * SLOT) as u64, SLOT as u64, &Pattern).unwrap();
                    } else {
                        overlay.write_at((slot * SLOT) as u64, &bytes, &Pattern).unwrap();
                    }
                }
            });
        }
        scope.spawn(|| (0..20).for_each(|_| overlay.sync().unwrap()));
    });
    overlay.sync().unwrap();
    drop(overlay);
    let overlay = open(dir.path(), (SLOT * SLOTS) as u64);
    let mut found = vec![0xee; SLOT * SLOTS];
    overlay.read_at(0, &mut found, &BrokenBase).unwrap();
    for (slot, bytes) in found.chunks(SLOT).enumerate() {
        let expected = if slot % 3 == 0 { 0 } else { (slot % 251) as u8 };
        assert!(bytes.iter().all(|byte| *byte == expected), "slot {slot}");
    }
}

/// Run by hand: `cargo test --release -- --ignored --nocapture speed_of_the_overlay`.
#[test]
#[ignore = "prints speeds of this machine"]
fn speed_of_the_overlay() {
    let dir = tempfile::tempdir().unwrap();
    let overlay = open(dir.path(), 1 << 40);
    let report = |what: &str, bytes: u64, calls: u64, begun: std::time::Instant| {
        let seconds = begun.elapsed().as_secs_f64();
        println!("{what}: {:.0} MB/s, {:.0} calls/s", bytes as f64 / seconds / 1e6, calls as f64 / seconds);
    };
    let dice = Dice::new(1);
    let offsets: Vec<u64> = (0..200_000).map(|_| dice.below(1 << 19) as u64 * UNIT_BYTES).collect();
    for what in ["4 KiB random, first", "4 KiB random, again"] {
        let begun = std::time::Instant::now();
        offsets.iter().for_each(|offset| overlay.write_at(*offset, &[1; 4096], &Pattern).unwrap());
        report(what, offsets.len() as u64 * 4096, offsets.len() as u64, begun);
    }
    let begun = std::time::Instant::now();
    std::thread::scope(|scope| {
        for half in offsets.chunks(offsets.len() / 2) {
            let overlay = &overlay;
            scope.spawn(move || half.iter().for_each(|at| overlay.write_at(*at, &[2; 4096], &Pattern).unwrap()));
        }
    });
    report("4 KiB random, two threads", offsets.len() as u64 * 4096, offsets.len() as u64, begun);
    let mut unit = [0; 4096];
    let begun = std::time::Instant::now();
    offsets.iter().for_each(|offset| overlay.read_at(*offset, &mut unit, &Pattern).unwrap());
    report("4 KiB random reads", offsets.len() as u64 * 4096, offsets.len() as u64, begun);
    let begun = std::time::Instant::now();
    overlay.sync().unwrap();
    report("sync of all this", offsets.len() as u64 * 4096, 1, begun);
    let megabyte = vec![3; 1 << 20];
    for what in ["1 MiB sequential, first", "1 MiB sequential, again"] {
        let begun = std::time::Instant::now();
        (0..2048u64).for_each(|index| overlay.write_at((1 << 33) + (index << 20), &megabyte, &Pattern).unwrap());
        report(what, 2048 << 20, 2048, begun);
    }
    let mut megabyte = megabyte;
    let begun = std::time::Instant::now();
    (0..2048u64).for_each(|index| overlay.read_at((1 << 33) + (index << 20), &mut megabyte, &Pattern).unwrap());
    report("1 MiB sequential reads", 2048 << 20, 2048, begun);
    overlay.sync().unwrap();
    let begun = std::time::Instant::now();
    for index in 0..200u64 {
        overlay.write_at(index << 24, &unit, &Pattern).unwrap();
        overlay.sync().unwrap();
    }
    report("4 KiB write and sync", 200 * 4096, 200, begun);
    let begun = std::time::Instant::now();
    overlay.punch(0, 1 << 40, &Pattern).unwrap();
    println!("discard of 1 TiB, fragmented: {:?}", begun.elapsed());
    let (begun, mut longest) = (std::time::Instant::now(), std::time::Duration::ZERO);
    while overlay.has_space_to_free() {
        let step = std::time::Instant::now();
        overlay.free_some_space();
        longest = longest.max(step.elapsed());
    }
    println!("freeing its space: {:?}, at most {longest:?} at a time", begun.elapsed());
    let begun = std::time::Instant::now();
    overlay.punch(0, 1 << 40, &Pattern).unwrap();
    overlay.sync().unwrap();
    println!("discard and sync of 1 TiB, empty: {:?}", begun.elapsed());
}
