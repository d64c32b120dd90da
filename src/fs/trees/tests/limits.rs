//! Bandwidth limits as files.

use super::{caller, read_only, shell, shell_append, world};
use crate::fs::errno::Errno;
use crate::fs::nodes::{Node, StatusFile};
use crate::fs::seam::{Access, OpenRequest, SetAttr};

#[test]
fn a_limit_is_what_was_written_last() {
    let w = world();
    let node = Node::StatusFile(StatusFile::UploadLimit);
    let echo = |request: &OpenRequest, text: &str| {
        let opened = w.open(&node, request)?;
        let written = w.write(&node, opened.fh, 0, text.as_bytes());
        w.trees.release(&node, opened.fh);
        written
    };
    assert_eq!(w.cat(&node).unwrap(), b"none\n");
    for request in [shell(), shell_append()] {
        echo(&request, "10M\n").unwrap();
        assert_eq!(w.cat(&node).unwrap(), b"10485760\n");
        assert_eq!(w.trees.options.limits.upload.rate(), Some(10 << 20));
        for bad in ["fast\n", "12\n", "1M\n2M\n", "\n", "\u{ff}"] {
            assert_eq!(echo(&request, bad), Err(Errno::EINVAL), "{bad:?}");
        }
        assert_eq!(w.cat(&node).unwrap(), b"10485760\n", "a bad value changes nothing");
        echo(&request, "none").unwrap();
        assert_eq!(w.cat(&node).unwrap(), b"none\n");
    }
    assert_eq!(echo(&shell(), &"1".repeat(65)), Err(Errno::EFBIG));
    assert_eq!(w.trees.options.limits.download.rate(), None);
}

#[test]
fn a_shell_truncates_first_and_nothing_else_in_status_can_be_written() {
    let w = world();
    let node = Node::StatusFile(StatusFile::DownloadLimit);
    w.trees.options.limits.download.set(Some(5000));
    w.trees.setattr(caller(), &node, &SetAttr { size: Some(0), ..SetAttr::default() }).unwrap();
    let both = OpenRequest { access: Access::ReadWrite, ..read_only() };
    let opened = w.open(&node, &both).unwrap();
    let cut = SetAttr { size: Some(0), fh: Some(opened.fh), ..SetAttr::default() };
    w.trees.setattr(caller(), &node, &cut).unwrap();
    assert_eq!(w.cat(&node).unwrap(), b"5000\n", "truncation alone does nothing");
    w.write(&node, opened.fh, 0, b"6000\n").unwrap();
    let mut text = Vec::new();
    w.trees.read(&node, opened.fh, 0, 100, &mut text).unwrap();
    assert_eq!(text, b"6000\n");
    assert_eq!(w.trees.attr(&node).unwrap().perm, 0o644);
    let counters = Node::StatusFile(StatusFile::Counters);
    assert_eq!(w.open(&counters, &shell()).map(drop), Err(Errno::EACCES));
    let cut = SetAttr { size: Some(0), ..SetAttr::default() };
    assert_eq!(w.trees.setattr(caller(), &counters, &cut), Err(Errno::EPERM));
}
