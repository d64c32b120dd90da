//! Sends the filesystem's answers, one function for each kind of reply.

use crate::fs::seam::{Answer, Attr, DirSink, Entry, Ino, NodeKind, Room};
use crate::fuse::convert;
use fuser::{Generation, INodeNo, ReplyAttr, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyWrite};
use std::ffi::OsStr;

/// Inode numbers are never used for another file while mounted.
pub(super) const GENERATION: Generation = Generation(0);

pub(super) fn empty(reply: ReplyEmpty, answer: Answer<()>) {
    match answer {
        Ok(()) => reply.ok(),
        Err(errno) => reply.error(convert::errno(errno)),
    }
}

pub(super) fn entry(reply: ReplyEntry, answer: Answer<Entry>) {
    match answer {
        Ok(e) => reply.entry_with_ttls(&e.attr_ttl, &e.entry_ttl, &convert::attr(&e.attr), GENERATION),
        Err(errno) => reply.error(convert::errno(errno)),
    }
}

pub(super) fn attributes(reply: ReplyAttr, answer: Answer<Attr>) {
    match answer {
        Ok(a) => reply.attr(&a.ttl, &convert::attr(&a.attr)),
        Err(errno) => reply.error(convert::errno(errno)),
    }
}

pub(super) fn written(reply: ReplyWrite, answer: Answer<u64>) {
    match answer {
        Ok(len) => reply.written(u32::try_from(len).unwrap_or(u32::MAX)),
        Err(errno) => reply.error(convert::errno(errno)),
    }
}

/// Answers with what was read, never more than was asked for: the kernel takes that for a broken filesystem.
pub(super) fn data(reply: ReplyData, answer: Answer<()>, buffer: &[u8], len: usize) {
    match answer {
        Ok(()) => reply.data(&buffer[..buffer.len().min(len)]),
        Err(errno) => reply.error(convert::errno(errno)),
    }
}

/// A directory listing as far as the kernel's buffer takes it.
pub(super) struct Listing<'a>(pub(super) &'a mut ReplyDirectory);

impl DirSink for Listing<'_> {
    fn push(&mut self, ino: Ino, kind: NodeKind, name: &OsStr, next_offset: u64) -> Room {
        match self.0.add(INodeNo(ino.0), next_offset, convert::kind(kind), name) {
            true => Room::Full,
            false => Room::Taken,
        }
    }
}
