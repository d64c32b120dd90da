//! Listing, looking up, links, attributes.

use super::{AT, read_only, world};
use crate::fs::errno::Errno;
use crate::fs::nodes::{Node, StatusFile, VersionFile};
use crate::fs::seam::{Access, NodeKind, OpenRequest};
use crate::words::attribute::{AttributeChange, Mtime, Validity};
use crate::words::stamp::Stamp;
use std::collections::BTreeSet;

#[test]
fn versions_by_name_with_links_that_lead_back() {
    let w = world();
    let first = w.back_up("host1/disks/vm 1", 0, b"one");
    let same_second = w.back_up("host1/disks/vm 1", 7, b"two");
    let later = w.back_up("host1/disks/vm 1", 5_000, b"three");
    let other = w.back_up("Ünï·çødé-名前", 60_000, b"four");

    assert_eq!(w.ls("by_version"), [first, same_second, later, other].map(|uid| uid.to_string()));
    assert_eq!(w.ls("by_name"), ["host1", "Ünï·çødé-名前"]);
    assert_eq!(w.ls("by_name/host1"), ["disks"]);
    let links = ["2026-11-22T18:31:02Z", "2026-11-22T18:31:02.007Z", "2026-11-22T18:31:07Z", "latest"];
    assert_eq!(w.ls("by_name/host1/disks/vm 1"), links);
    for (link, uid) in links.into_iter().zip([first, same_second, later, later]) {
        let node = w.at(&format!("by_name/host1/disks/vm 1/{link}")).unwrap();
        let target = w.trees.readlink(&node).unwrap();
        assert_eq!(target, *format!("../../../../by_version/{uid}"), "{link}");
        let attr = w.trees.attr(&node).unwrap();
        assert_eq!((attr.kind, attr.size), (NodeKind::Symlink, target.len() as u64));
        assert_eq!(attr.mtime, Mtime::from(w.trees.version(uid).unwrap().created));
    }
    for gone in ["2026-11-22T18:31:02.000Z", "2026-11-22T18:31:03Z", "2026-11-22T18:31:07.000Z", "x"] {
        assert_eq!(w.at(&format!("by_name/host1/disks/vm 1/{gone}")), Err(Errno::ENOENT), "{gone}");
    }
    // Directories carry the time of the newest version in them.
    let time = |path: &str| w.trees.attr(&w.at(path).unwrap()).unwrap().mtime.seconds;
    assert_eq!(time("by_name/host1"), AT / 1000 + 5);
    assert_eq!(time("by_name"), AT / 1000 + 60);
    assert_eq!(time(&format!("by_version/{first}")), AT / 1000);
}

#[test]
fn latest_is_the_newest_complete_one() {
    let w = world();
    let good = w.back_up("vm", 0, b"one");
    let bad = w.back_up("vm", 1000, b"two");
    w.test.repo.set_validity(bad, Validity::Incomplete("cp was killed".into())).unwrap();
    let latest = || w.trees.readlink(&w.at("by_name/vm/latest").unwrap()).unwrap();
    assert_eq!(latest(), *format!("../../by_version/{good}"));
    assert_eq!(w.ls("by_name/vm").len(), 3, "incomplete versions are shown");
    assert_eq!(w.text(bad, VersionFile::Valid), "incomplete: cp was killed\n");
    w.test.repo.set_validity(good, Validity::Incomplete("too".into())).unwrap();
    assert_eq!(w.at("by_name/vm/latest"), Err(Errno::ENOENT));
    w.test.repo.set_validity(bad, Validity::Invalid("a block is damaged".into())).unwrap();
    assert_eq!(latest(), *format!("../../by_version/{bad}"), "damaged, but complete");
}

#[test]
fn a_name_that_is_a_directory_too_hides_nothing() {
    let w = world();
    let names = ["a", "a/latest", "a/latest~", "a/2026-11-22T18:31:02Z", "a/b", "latest", "2026-01-01T00:00:00Z"];
    let uids = names.map(|name| w.back_up(name, 0, name.as_bytes()));
    assert_eq!(w.ls("by_name"), ["2026-01-01T00:00:00Z", "a", "latest"]);
    let moment = "2026-11-22T18:31:02Z";
    let shown = [moment, "latest", "2026-11-22T18:31:02Z~", "b", "latest~", "latest~~"];
    assert_eq!(w.ls("by_name/a"), shown);
    for (path, uid) in [
        ("by_name/a/latest", uids[0]),
        ("by_name/a/latest~/latest", uids[1]),
        ("by_name/a/latest~~/latest", uids[2]),
        ("by_name/a/2026-11-22T18:31:02Z~/latest", uids[3]),
        ("by_name/a/b/2026-11-22T18:31:02Z", uids[4]),
        ("by_name/latest/latest", uids[5]),
        ("by_name/2026-01-01T00:00:00Z/2026-11-22T18:31:02Z", uids[6]),
    ] {
        let target = w.trees.readlink(&w.at(path).unwrap()).unwrap().into_string().unwrap();
        let up = path.matches('/').count();
        assert_eq!(target, format!("{}by_version/{uid}", "../".repeat(up)), "{path}");
    }
}

#[test]
fn tags_lead_to_the_versions_that_carry_them() {
    let w = world();
    let old = w.back_up("host/vm", 0, b"one");
    let new = w.back_up("host/vm", 1, b"two");
    let other = w.back_up("other", 2, b"three");
    let tags = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<BTreeSet<_>>();
    w.test.repo.set_tags(new, &tags(&["golden", "b"])).unwrap();
    w.test.repo.set_tags(other, &tags(&["golden"])).unwrap();
    assert_eq!(w.ls("by_tag"), ["b", "golden"]);
    assert_eq!(w.ls("by_tag/golden"), ["host", "other"]);
    assert_eq!(w.ls("by_tag/golden/host/vm"), ["2026-11-22T18:31:02.001Z"], "called as in by_name");
    let link = w.at("by_tag/golden/host/vm/2026-11-22T18:31:02.001Z").unwrap();
    assert_eq!(w.trees.readlink(&link).unwrap(), *format!("../../../../by_version/{new}"));
    for path in ["by_tag/b/other", "by_tag/golden/host/vm/2026-11-22T18:31:02Z", "by_tag/golden/hos", "by_tag/x"] {
        assert_eq!(w.at(path), Err(Errno::ENOENT), "{path}");
    }
    w.test.repo.set_tags(new, &tags(&[])).unwrap();
    assert_eq!(w.trees.readlink(&link), Err(Errno::ENOENT));
    assert_eq!((w.ls("by_tag"), w.ls("by_tag/golden")), (vec!["golden".into()], vec!["other".into()]));
    assert!(w.text(old, VersionFile::Tags).is_empty());
}

#[test]
fn files_of_a_version() {
    let w = world();
    let bytes: Vec<u8> = (0..20_000u32).flat_map(u32::to_le_bytes).collect();
    let uid = w.back_up("vm", 7, &bytes);
    assert_eq!(w.ls(&format!("by_version/{uid}")).len(), VersionFile::ALL.len());
    assert_eq!(w.cat(&w.file(uid, VersionFile::Original)).unwrap(), bytes);
    assert_eq!(w.cat(&w.file(uid, VersionFile::Data)).unwrap(), bytes);
    for (file, text) in [
        (VersionFile::Name, "vm\n"),
        (VersionFile::SnapshotName, "\n"),
        (VersionFile::Tags, ""),
        (VersionFile::Expire, "\n"),
        (VersionFile::Protected, "0\n"),
        (VersionFile::Valid, "valid\n"),
        (VersionFile::Created, "2026-11-22T18:31:02Z\n"),
        (VersionFile::Size, "80000\n"),
        (VersionFile::Overlay, "0\n"),
    ] {
        assert_eq!(w.text(uid, file), text, "{file:?}");
    }
    assert!(w.text(uid, VersionFile::Stats).contains("allocated_bytes 80000\n"));
    let attr = w.trees.attr(&w.file(uid, VersionFile::Original)).unwrap();
    assert_eq!((attr.perm, attr.uid, attr.gid, attr.mtime.nanos), (0o440, 12, 34, 5));
    assert_eq!(attr.blocks512, 80_000u64.div_ceil(512), "never more than the size");
    for file in [VersionFile::Original, VersionFile::Created, VersionFile::Size, VersionFile::Stats] {
        let request = OpenRequest { access: Access::ReadWrite, ..read_only() };
        assert_eq!(w.open(&w.file(uid, file), &request).unwrap_err(), Errno::EACCES, "{file:?}");
    }
    assert_eq!(w.open(&Node::Version(uid), &read_only()).unwrap_err(), Errno::EISDIR);
    assert_eq!(w.trees.attr(&w.file(crate::words::ids::Uid::NIL, VersionFile::Data)), Err(Errno::ENOENT));
}

#[test]
fn status_files() {
    let w = world();
    w.trees.set_status(StatusFile::Counters, Box::new(|| "blocks_stored 3\n".into()));
    assert_eq!(w.cat(&Node::StatusFile(StatusFile::Counters)).unwrap(), b"blocks_stored 3\n");
    for file in [StatusFile::Config, StatusFile::Drafts, StatusFile::Overlays] {
        assert!(w.cat(&Node::StatusFile(file)).unwrap().is_empty());
    }
    let uid = w.back_up("vm", 0, &[1; 9000]);
    let data = w.file(uid, VersionFile::Data);
    let opened = w.open(&data, &OpenRequest { access: Access::ReadWrite, ..read_only() }).unwrap();
    w.write(&data, opened.fh, 0, b"x").unwrap();
    let text = String::from_utf8(w.cat(&Node::StatusFile(StatusFile::Overlays)).unwrap()).unwrap();
    assert!(text.starts_with(&format!("{uid} 4096 20")) && text.ends_with(" vm\n"), "{text}");
}

#[test]
fn what_another_process_changes_is_seen_at_once() {
    let w = world();
    let uid = w.back_up("vm", 0, b"one");
    let change = AttributeChange::Expire(Some(Stamp::from_millis(AT)));
    w.test.repo.change_attributes(uid, &[change]).unwrap();
    assert_eq!(w.text(uid, VersionFile::Expire), "2026-11-22T18:31:02Z\n");
    w.test.repo.remove_version(uid).unwrap();
    assert!(w.ls("by_version").is_empty() && w.ls("by_name").is_empty());
    assert_eq!(w.trees.attr(&Node::NameDir("vm".into())), Err(Errno::ENOENT));
}
