//! Attribute files and deletion.

use super::{AT, caller, read_only, shell, shell_append, world, world_with, write_only};
use crate::fs::errno::Errno;
use crate::fs::nodes::{Node, VersionFile};
use crate::fs::seam::{Access, Caller, OpenRequest, SetAttr};
use crate::words::name::Name;
use crate::words::record::RecordKind;
use std::time::{Duration, Instant};

#[test]
fn writes_of_a_handle_add_up() {
    let w = world();
    let uid = w.back_up("vm", 0, b"one");
    w.echo(uid, VersionFile::Tags, &shell(), &["a\n", "b\n"]).unwrap();
    assert_eq!(w.text(uid, VersionFile::Tags), "a\nb\n");
    w.echo(uid, VersionFile::Tags, &shell_append(), &["c", "d\n"]).unwrap();
    assert_eq!(w.text(uid, VersionFile::Tags), "a\nb\ncd\n", "append adds");
    w.echo(uid, VersionFile::Tags, &shell(), &[]).unwrap();
    assert_eq!(w.text(uid, VersionFile::Tags), "a\nb\ncd\n", "truncation alone does nothing");
    w.echo(uid, VersionFile::Tags, &write_only(), &["x"]).unwrap();
    assert_eq!(w.text(uid, VersionFile::Tags), "b\ncd\nx\n", "a position of the current value");
    w.echo(uid, VersionFile::Tags, &shell(), &["\n"]).unwrap();
    assert_eq!(w.text(uid, VersionFile::Tags), "", "a lone newline clears");
    w.echo(uid, VersionFile::SnapshotName, &shell(), &["before\n"]).unwrap();
    w.echo(uid, VersionFile::SnapshotName, &shell_append(), &[" the upgrade\n"]).unwrap();
    assert_eq!(w.text(uid, VersionFile::SnapshotName), "before the upgrade\n");
    w.echo(uid, VersionFile::Expire, &shell(), &["2030-01-02\n"]).unwrap();
    assert_eq!(w.text(uid, VersionFile::Expire), "2030-01-02T00:00:00Z\n");
    w.echo(uid, VersionFile::Protected, &shell(), &["1\n"]).unwrap();
    assert!(w.trees.version(uid).unwrap().attributes.protected);
}

#[test]
fn a_handle_reads_what_it_would_write() {
    let w = world();
    let uid = w.back_up("vm", 0, b"one");
    w.echo(uid, VersionFile::Tags, &shell(), &["golden\n"]).unwrap();
    let node = w.file(uid, VersionFile::Tags);
    let opened = w.open(&node, &OpenRequest { access: Access::ReadWrite, ..read_only() }).unwrap();
    assert!(opened.fh.is_slow());
    w.write(&node, opened.fh, 6, b"s\n").unwrap();
    let mut buffer = Vec::new();
    w.trees.read(&node, opened.fh, 0, 100, &mut buffer).unwrap();
    assert_eq!(buffer, b"goldens\n");
    let cut = SetAttr { size: Some(0), fh: Some(opened.fh), ..SetAttr::default() };
    w.trees.setattr(caller(), &node, &cut).unwrap();
    assert_eq!(w.text(uid, VersionFile::Tags), "goldens\n", "ftruncate alone does nothing");
    w.write(&node, opened.fh, 0, b"x\n").unwrap();
    assert_eq!(w.text(uid, VersionFile::Tags), "x\n");
}

#[test]
fn a_bad_value_changes_nothing() {
    let w = world();
    let uid = w.back_up("vm", 0, b"one");
    w.echo(uid, VersionFile::Expire, &shell(), &["2030-01-02\n"]).unwrap();
    for (file, pieces) in [
        (VersionFile::Expire, &["soon\n"][..]),
        (VersionFile::Expire, &["2031-01-01\n", "2031-01-02\n"]),
        (VersionFile::Tags, &["a/b\n"]),
        (VersionFile::Protected, &["maybe\n"]),
        (VersionFile::Valid, &["perfect\n"]),
        (VersionFile::Name, &["a//b\n"]),
        (VersionFile::Overlay, &["drop\n"]),
    ] {
        assert_eq!(w.echo(uid, file, &shell(), pieces), Err(Errno::EINVAL), "{file:?}");
    }
    assert_eq!(w.text(uid, VersionFile::Expire), "2031-01-01T00:00:00Z\n", "the good write before the bad one stands");
    assert_eq!(w.text(uid, VersionFile::Tags), "");
    // After a bad write the handle goes on as if it had not been.
    let node = w.file(uid, VersionFile::Tags);
    let opened = w.open(&node, &shell()).unwrap();
    assert_eq!(w.write(&node, opened.fh, 0, b"a/b\n"), Err(Errno::EINVAL));
    assert_eq!(w.write(&node, opened.fh, 0, b"ok\n"), Ok(3));
    assert_eq!(w.text(uid, VersionFile::Tags), "ok\n");
    assert_eq!(w.write(&node, opened.fh, 1 << 30, b"x"), Err(Errno::EFBIG));
}

#[test]
fn a_version_can_be_renamed_but_not_into_another() {
    let w = world();
    let uid = w.back_up("a", 0, b"one");
    let dir = w.back_up("dir/b", 0, b"two");
    w.echo(uid, VersionFile::Name, &shell(), &["new/name\n"]).unwrap();
    assert_eq!(w.text(uid, VersionFile::Name), "new/name\n");
    assert_eq!(w.ls("by_name"), ["dir", "new"]);
    assert_eq!(w.echo(uid, VersionFile::Name, &shell(), &["dir\n"]), Err(Errno::EEXIST));
    assert_eq!(w.echo(uid, VersionFile::Name, &shell(), &["dir/b/c\n"]), Err(Errno::ENOTDIR));
    w.echo(uid, VersionFile::Name, &shell(), &["dir/b\n"]).unwrap();
    let versions = w.test.repo.catalog().versions_of(&Name::new("dir/b").unwrap()).unwrap();
    assert_eq!(versions.len(), 2, "another version of the same name: {dir}");
}

#[test]
fn accepting_an_incomplete_version() {
    let w = world();
    let uid = w.back_up("vm", 0, b"one");
    w.echo(uid, VersionFile::Valid, &shell(), &["incomplete: cp was killed\n"]).unwrap();
    assert_eq!(w.at("by_name/vm/latest"), Err(Errno::ENOENT));
    w.echo(uid, VersionFile::Valid, &shell(), &["valid\n"]).unwrap();
    assert!(w.at("by_name/vm/latest").is_ok());
}

#[test]
fn mode_and_owner_are_set_through_data() {
    let w = world();
    let uid = w.back_up("vm", 0, b"one");
    let change = SetAttr { mode: Some(0o600), gid: Some(7), ..SetAttr::default() };
    w.trees.setattr(caller(), &w.file(uid, VersionFile::Data), &change).unwrap();
    let attr = w.trees.attr(&w.file(uid, VersionFile::Original)).unwrap();
    assert_eq!((attr.perm, attr.uid, attr.gid), (0o400, 12, 7));
    assert_eq!(w.trees.setattr(caller(), &w.file(uid, VersionFile::Tags), &change), Err(Errno::EPERM));
    assert_eq!(w.trees.setattr(caller(), &Node::Version(uid), &change), Err(Errno::EPERM));
}

#[test]
fn rmdir_deletes_what_the_rules_allow() {
    let w = world();
    let uid = w.back_up("vm", 0, &[1; 9000]);
    w.echo(uid, VersionFile::Protected, &shell(), &["1\n"]).unwrap();
    assert_eq!(w.rmdir(uid), Err(Errno::EPERM));
    w.echo(uid, VersionFile::Protected, &shell(), &["0\n"]).unwrap();

    let data = w.file(uid, VersionFile::Data);
    let opened = w.open(&data, &read_only()).unwrap();
    assert_eq!(w.rmdir(uid), Err(Errno::EBUSY));
    w.trees.release(&data, opened.fh);

    let opened = w.open(&data, &write_only()).unwrap();
    w.write(&data, opened.fh, 0, b"x").unwrap();
    w.trees.release(&data, opened.fh);
    assert_eq!(w.rmdir(uid), Err(Errno::EBUSY), "overlaid");
    w.echo(uid, VersionFile::Overlay, &shell(), &["discard\n"]).unwrap();

    w.rmdir(uid).unwrap();
    assert_eq!(w.rmdir(uid), Err(Errno::ENOENT));
    assert!(w.ls("by_version").is_empty() && w.ls("by_name").is_empty());
    assert!(w.test.repo.catalog().records(RecordKind::Pin).unwrap().is_empty());
}

#[test]
fn a_young_version_stays() {
    let w = world_with(6);
    let now = w.test.repo.clock().now().millis();
    let young = w.back_up("vm", now - AT - 5 * 86_400_000, b"one");
    let old = w.back_up("vm", now - AT - 6 * 86_400_000, b"two");
    assert_eq!(w.rmdir(young), Err(Errno::EPERM));
    assert_eq!(w.rmdir(old), Ok(()));
}

#[test]
fn a_handle_that_is_just_being_closed_is_waited_for() {
    let w = world();
    let uid = w.back_up("vm", 0, &[1; 9000]);
    let data = w.file(uid, VersionFile::Data);
    let opened = w.open(&data, &write_only()).unwrap();
    w.write(&data, opened.fh, 0, b"x").unwrap();
    let began = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(150));
            w.trees.release(&data, opened.fh);
        });
        w.echo(uid, VersionFile::Overlay, &shell(), &["discard\n"]).unwrap();
    });
    assert!(began.elapsed() < Duration::from_millis(900));
    let opened = w.open(&data, &read_only()).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(150));
            w.trees.release(&data, opened.fh);
        });
        w.rmdir(uid).unwrap();
    });
}

#[test]
fn who_tried_to_unlink_cannot_rmdir() {
    let w = world();
    let uid = w.back_up("vm", 0, b"one");
    let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
    let other = Caller { pid: child.id(), ..caller() };
    for file in ["tags", "data"] {
        assert_eq!(w.trees.unlink(other, &Node::Version(uid), file), Err(Errno::EPERM));
    }
    assert_eq!(w.trees.rmdir(other, &Node::Versions, &uid.to_string()), Err(Errno::ENOTEMPTY));
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(w.trees.unlink(caller(), &Node::NameDir("vm".into()), "latest"), Err(Errno::EPERM));
    assert_eq!(w.trees.rmdir(caller(), &Node::NameDir(String::new()), "vm"), Err(Errno::EPERM));
    assert_eq!(w.rmdir(uid), Ok(()), "another process may");
}
