//! `data` and `original`.

use super::{World, caller, options, read_only, shell, world, write_only};
use crate::fs::errno::Errno;
use crate::fs::nodes::{Node, VersionFile};
use crate::fs::seam::{Access, Fallocate, OpenRequest, Seek, SetAttr, WriteOrigin, WriteRequest};
use crate::fs::trees::Trees;
use crate::image::overlay::OverlayFile;
use crate::ops::overlays;
use crate::repo::testing::open;
use crate::target::DirTarget;
use crate::words::ids::Uid;
use crate::words::record::RecordKind;
use std::sync::Arc;

fn read_write() -> OpenRequest {
    OpenRequest { access: Access::ReadWrite, ..read_only() }
}

fn bytes(len: u32) -> Vec<u8> {
    (0..len).map(|n| (n / 7 % 251) as u8 + 1).collect()
}

fn pins(w: &World) -> usize {
    w.test.repo.catalog().records(RecordKind::Pin).unwrap().len()
}

/// Writes through a handle of its own.
fn scribble(w: &World, uid: Uid, offset: u64, data: &[u8]) {
    let node = w.file(uid, VersionFile::Data);
    let opened = w.open(&node, &write_only()).unwrap();
    assert_eq!(w.write(&node, opened.fh, offset, data), Ok(data.len()));
    w.trees.flush(caller(), &node, opened.fh).unwrap();
    w.trees.release(&node, opened.fh);
}

/// The process ends and another begins.
fn restart(w: World) -> World {
    let World { kernel, trees, test } = w;
    drop(trees);
    let crate::repo::testing::TestRepository { repo, tally, dir } = test;
    drop(repo);
    let target = Arc::new(DirTarget::open(dir.path().join("target")));
    let repo = open(target, &dir.path().join("state"), Arc::clone(&tally)).unwrap();
    let cache = Arc::clone(&kernel);
    let trees = Trees::new(Arc::clone(&repo), options(0), cache, Box::new(|| Ok(Vec::new())));
    World { kernel, trees, test: crate::repo::testing::TestRepository { repo, tally, dir } }
}

#[test]
fn writes_go_to_an_overlay_that_stays_until_discarded() {
    let w = world();
    let before = bytes(100_000);
    let uid = w.back_up("vm", 0, &before);
    let (data, original) = (w.file(uid, VersionFile::Data), w.file(uid, VersionFile::Original));
    let opened = w.open(&data, &read_write()).unwrap();
    assert_eq!((pins(&w), overlays::exists(&w.test.repo, uid)), (0, false), "opening begins nothing");
    assert_eq!(w.write(&data, opened.fh, 0, b""), Ok(0));
    assert_eq!(pins(&w), 0);
    w.write(&data, opened.fh, 5_000, b"scribble").unwrap();
    assert_eq!(pins(&w), 1, "the version is pinned before the first write is acknowledged");
    w.trees.fsync(caller(), &data, opened.fh).unwrap();
    let mut after = before.clone();
    after[5_000..5_008].copy_from_slice(b"scribble");
    assert_eq!((w.cat(&data).unwrap(), w.cat(&original).unwrap()), (after.clone(), before.clone()));
    assert_eq!(w.text(uid, VersionFile::Overlay), "4096\n");
    w.trees.release(&data, opened.fh);

    let w = restart(w);
    assert_eq!((w.cat(&data).unwrap(), w.cat(&original).unwrap()), (after, before.clone()));
    assert_ne!(w.trees.attr(&data).unwrap().mtime, w.trees.attr(&original).unwrap().mtime);
    scribble(&w, uid, 0, b"more");
    assert_eq!(pins(&w), 1, "the pin of before stands");

    let opened = w.open(&data, &write_only()).unwrap();
    assert_eq!(w.echo(uid, VersionFile::Overlay, &shell(), &["discard\n"]), Err(Errno::EBUSY));
    w.trees.release(&data, opened.fh);
    let reader = w.open(&data, &read_only()).unwrap();
    w.echo(uid, VersionFile::Overlay, &shell(), &["discard\n"]).unwrap();
    assert_eq!(*w.kernel.0.lock(), [data.ino()], "the kernel's pages are dropped");
    let mut buffer = Vec::new();
    w.trees.read(&data, reader.fh, 0, 4, &mut buffer).unwrap();
    assert_eq!(buffer, before[..4]);
    assert_eq!((w.cat(&data).unwrap(), pins(&w)), (before, 0));
    assert_eq!(w.text(uid, VersionFile::Overlay), "0\n");
    assert_eq!(w.trees.attr(&data).unwrap().mtime, w.trees.attr(&original).unwrap().mtime);
    scribble(&w, uid, 0, b"again");
    assert_eq!(pins(&w), 1);
}

#[test]
fn an_overlay_that_another_mount_has_is_no_obstacle_to_reading_the_original() {
    let w = world();
    let uid = w.back_up("vm", 0, &bytes(10_000));
    let (data, original) = (w.file(uid, VersionFile::Data), w.file(uid, VersionFile::Original));
    let dir = overlays::directory(&w.test.repo);
    std::fs::create_dir_all(&dir).unwrap();
    let elsewhere = OverlayFile::open_or_create(&dir, uid, 10_000).unwrap();
    assert_eq!(w.cat(&original).unwrap(), bytes(10_000));
    assert_eq!(w.trees.attr(&data).unwrap().size, 10_000);
    assert_eq!(w.open(&data, &read_only()).unwrap_err(), Errno::EBUSY);
    assert_eq!(w.trees.is_overlaid(uid), Ok(true));
    assert_eq!(w.echo(uid, VersionFile::Overlay, &shell(), &["discard\n"]), Err(Errno::EBUSY));
    drop(elsewhere);
    assert_eq!(w.cat(&data).unwrap(), bytes(10_000));
}

#[test]
fn the_size_is_fixed() {
    let w = world();
    let uid = w.back_up("vm", 0, &bytes(10_000));
    let data = w.file(uid, VersionFile::Data);
    assert_eq!(w.open(&data, &shell()).unwrap_err(), Errno::EPERM);
    let opened = w.open(&data, &read_write()).unwrap();
    for (offset, len) in [(10_000, 1), (9_999, 2), (1 << 40, 1), (u64::MAX, 1)] {
        assert_eq!(w.write(&data, opened.fh, offset, &[0; 2][..len]), Err(Errno::ENOSPC), "{offset}");
    }
    let size = |size, fh| SetAttr { size: Some(size), fh, ..SetAttr::default() };
    for fh in [None, Some(opened.fh)] {
        assert_eq!(w.trees.setattr(caller(), &data, &size(10_000, fh)), Ok(()));
        assert_eq!(w.trees.setattr(caller(), &data, &size(9_999, fh)), Err(Errno::EPERM));
    }
    assert_eq!(w.trees.setattr(caller(), &w.file(uid, VersionFile::Original), &size(1, None)), Err(Errno::EPERM));
    let fallocate = |offset, len, how| w.trees.fallocate(caller(), &data, opened.fh, offset, len, how);
    assert_eq!(fallocate(0, 10_000, Fallocate::Allocate), Ok(()));
    assert_eq!(fallocate(0, 10_001, Fallocate::Allocate), Err(Errno::ENOSPC));
    assert_eq!(fallocate(9_000, 5_000, Fallocate::ZeroRange), Err(Errno::ENOSPC));
    assert_eq!(fallocate(20_000, 5_000, Fallocate::PunchHole), Ok(()));
    assert_eq!((pins(&w), w.test.repo.catalog().records(RecordKind::Pin).unwrap().len()), (0, 0));
    assert_eq!(fallocate(8_000, u64::MAX - 8_000, Fallocate::PunchHole), Ok(()));
    let mut expected = bytes(10_000);
    expected[8_000..].fill(0);
    assert_eq!(w.cat(&data).unwrap(), expected);
    let original = w.file(uid, VersionFile::Original);
    let reader = w.open(&original, &read_only()).unwrap();
    assert_eq!(w.write(&original, reader.fh, 0, b"x"), Err(Errno::EBADF));
}

#[test]
fn data_and_holes() {
    let w = world();
    let mut image = vec![0; 64 << 10];
    image[16 << 10..32 << 10].fill(7);
    let uid = w.back_up("vm", 0, &image);
    let (data, original) = (w.file(uid, VersionFile::Data), w.file(uid, VersionFile::Original));
    let blocks = |node: &Node| w.trees.attr(node).unwrap().blocks512;
    assert_eq!((blocks(&data), blocks(&original)), (32, 32));
    scribble(&w, uid, 50 << 10, b"x");
    let writer = w.open(&data, &write_only()).unwrap();
    w.trees.fallocate(caller(), &data, writer.fh, 24 << 10, 4 << 10, Fallocate::PunchHole).unwrap();
    assert_eq!((blocks(&data), blocks(&original)), (40, 32));
    let seek = |node: &Node, offset: u64, seek| {
        let opened = w.open(node, &read_only()).unwrap();
        let found = w.trees.lseek(node, opened.fh, offset, seek);
        w.trees.release(node, opened.fh);
        found
    };
    let kib = |n: u64| Ok(n << 10);
    assert_eq!(seek(&data, 5, Seek::Data), Ok(5), "open for writing: all data");
    assert_eq!(seek(&data, 5, Seek::Hole), kib(64));
    assert_eq!(w.trees.reader_for_copy(&data, writer.fh).unwrap().map(|_| ()), None);
    w.trees.release(&data, writer.fh);

    assert_eq!(seek(&original, 0, Seek::Data), kib(16));
    assert_eq!(seek(&original, 16 << 10, Seek::Hole), kib(32));
    assert_eq!(seek(&original, 32 << 10, Seek::Data), Err(Errno::ENXIO));
    assert_eq!(seek(&original, 64 << 10, Seek::Hole), Err(Errno::ENXIO));
    for (offset, kind, expected) in [
        (0, Seek::Data, kib(16)),
        (0, Seek::Hole, kib(0)),
        (16, Seek::Hole, kib(24)),
        (24, Seek::Data, kib(28)),
        (28, Seek::Hole, kib(32)),
        (32, Seek::Data, kib(48)),
        (48, Seek::Hole, kib(52)),
        (52, Seek::Data, Err(Errno::ENXIO)),
        (63, Seek::Hole, kib(63)),
    ] {
        assert_eq!(seek(&data, offset << 10, kind), expected, "{offset} {kind:?}");
    }
}

#[test]
fn pages_of_a_mapping_arrive_without_a_handle() {
    let w = world();
    let uid = w.back_up("vm", 0, &bytes(6_000));
    let data = w.file(uid, VersionFile::Data);
    let opened = w.open(&data, &read_write()).unwrap();
    let page = WriteRequest {
        ino: data.ino(),
        fh: crate::fs::seam::Fh(999),
        offset: 4096,
        data: &[9; 4096],
        origin: WriteOrigin::PageCache,
        append: false,
        caller: crate::fs::seam::Caller { pid: 0, ..caller() },
    };
    assert_eq!(w.trees.write(&data, &page), Ok(4096), "the whole page is taken, the part past the end dropped");
    w.trees.release(&data, opened.fh);
    let mut expected = bytes(6_000);
    expected[4096..].fill(9);
    assert_eq!(w.cat(&data).unwrap(), expected);
}

#[test]
fn a_version_deleted_elsewhere_stays_while_it_is_overlaid() {
    let w = world();
    let uid = w.back_up("vm", 0, &bytes(50_000));
    scribble(&w, uid, 0, b"mine");
    // As another host does it, which knows nothing of the overlay.
    w.test.repo.remove_version(uid).unwrap();
    let w = restart(w);
    assert_eq!(w.ls("by_version"), [uid.to_string()]);
    assert!(w.ls("by_name").is_empty());
    let mut expected = bytes(50_000);
    expected[..4].copy_from_slice(b"mine");
    assert_eq!(w.cat(&w.file(uid, VersionFile::Data)).unwrap(), expected);
    assert_eq!(w.cat(&w.file(uid, VersionFile::Original)).unwrap(), bytes(50_000));
    assert_eq!(w.text(uid, VersionFile::Created), "2026-11-22T18:31:02Z\n");
    let overlays = w.cat(&Node::StatusFile(crate::fs::nodes::StatusFile::Overlays)).unwrap();
    assert!(String::from_utf8(overlays).unwrap().contains("deleted by another host"));
    assert_eq!(w.rmdir(uid), Err(Errno::EBUSY));
    scribble(&w, uid, 100, b"still writable");
    w.echo(uid, VersionFile::Overlay, &shell(), &["discard\n"]).unwrap();
    assert_eq!((w.ls("by_version").len(), pins(&w)), (0, 0));
}

#[test]
fn pins_left_by_a_crash_are_removed() {
    let w = world();
    let uid = w.back_up("vm", 0, &bytes(5_000));
    let kept = w.back_up("vm2", 0, &bytes(5_000));
    scribble(&w, kept, 0, b"x");
    overlays::pin(&w.test.repo, &w.trees.version(uid).unwrap()).unwrap();
    assert_eq!(pins(&w), 2);
    w.trees.tidy().unwrap();
    assert_eq!(overlays::own_pins(&w.test.repo).unwrap().len(), 1);
    assert_eq!(overlays::pins_of(&w.test.repo, kept).unwrap().len(), 1);
}

#[test]
fn a_pin_that_was_there_before_an_overlay_does_not_count_as_its_own() {
    let w = world();
    let uid = w.back_up("vm", 0, &bytes(5_000));
    overlays::pin(&w.test.repo, &w.trees.version(uid).unwrap()).unwrap();
    let stale = overlays::pins_of(&w.test.repo, uid).unwrap().remove(0);
    scribble(&w, uid, 0, b"x");
    // Somebody had found it without an overlay, and removes it only now.
    w.test.repo.remove_record(stale.kind, stale.uid).unwrap();
    assert_eq!(overlays::pins_of(&w.test.repo, uid).unwrap().len(), 1);
}

#[test]
fn damage_is_an_error_of_the_touched_block_only() {
    let w = world();
    // Noise, so that each block is a frame of its own size.
    let mut seed = 1u64;
    let mut noise = vec![0; 40 << 10];
    noise.fill_with(|| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 56) as u8
    });
    let uid = w.back_up("vm", 0, &noise);
    let w = restart(w);
    let packs = w.test.dir.path().join("target/packs");
    let files = std::fs::read_dir(packs).unwrap().flat_map(|dir| std::fs::read_dir(dir.unwrap().path()).unwrap());
    let largest = files.map(|file| file.unwrap().path()).max_by_key(|path| path.metadata().unwrap().len()).unwrap();
    let mut pack = std::fs::read(&largest).unwrap();
    let middle = pack.len() / 2;
    pack[middle] ^= 0x10;
    std::fs::write(&largest, pack).unwrap();

    for file in [VersionFile::Original, VersionFile::Data] {
        let node = w.file(uid, file);
        let opened = w.open(&node, &read_only()).unwrap();
        let mut bad = Vec::new();
        for block in 0..10u64 {
            let mut buffer = Vec::new();
            match w.trees.read(&node, opened.fh, block * 4096, 4096, &mut buffer) {
                Ok(()) => assert_eq!(buffer, noise[block as usize * 4096..][..4096]),
                Err(error) => bad.push((block, error)),
            }
        }
        assert_eq!(bad.len(), 1, "{bad:?}");
        assert_eq!(bad[0].1, Errno::EIO);
    }
}
