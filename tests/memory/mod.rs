//! A small filesystem in memory behind the seam, which notes down what it was asked. Names steer it:
//! `kept*` is cached from open to open, `plain*` while open, `sleepy*` takes long to fsync, `panic*` fails on a programming
//! error, `control` takes commands on a slow handle, `.events` shows the notes, `sink` keeps its first MiB only,
//! a directory with `dozing` in it takes long to fsync, and one with `refused` fails to.

#![allow(clippy::unwrap_used, reason = "it serves tests only")]

use backyfs::fs::errno::Errno;
use backyfs::fs::process;
use backyfs::fs::seam::*;
use backyfs::words::attribute::Mtime;
use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

const MIB: usize = 1 << 20;
const EVENTS: &str = ".events";

type Entries = Vec<(Ino, NodeKind, OsString)>;

struct Node {
    attr: FileAttr,
    name: OsString,
    data: Vec<u8>,
    children: BTreeMap<OsString, Ino>,
}

/// The filesystem.
pub struct Memory {
    nodes: RwLock<HashMap<Ino, Node>>,
    directories: Mutex<HashMap<Fh, Entries>>,
    next: AtomicU64,
    events: Mutex<String>,
    cache: Arc<dyn KernelCache>,
    /// Written by `drain`.
    marker: PathBuf,
}

fn attr(ino: Ino, kind: NodeKind, perm: u32, caller: Caller) -> FileAttr {
    let now = Mtime { seconds: 1_700_000_000, nanos: 5 };
    FileAttr {
        ino,
        size: 0,
        blocks512: 0,
        atime: now,
        mtime: now,
        ctime: now,
        kind,
        perm: u16::try_from(perm & 0o7777).unwrap(),
        nlink: 1,
        uid: caller.uid,
        gid: caller.gid,
        blksize: 1 << 20,
    }
}

impl Memory {
    pub fn new(cache: Arc<dyn KernelCache>, marker: PathBuf) -> Self {
        let owner = Caller { uid: nix::unistd::getuid().as_raw(), gid: nix::unistd::getgid().as_raw(), pid: 0 };
        let root = Node {
            attr: attr(Ino::ROOT, NodeKind::Directory, 0o755, owner),
            name: "/".into(),
            data: Vec::new(),
            children: BTreeMap::new(),
        };
        let memory = Self {
            nodes: RwLock::new(HashMap::from([(Ino::ROOT, root)])),
            directories: Mutex::default(),
            next: AtomicU64::new(2),
            events: Mutex::default(),
            cache,
            marker,
        };
        memory.add(owner, Ino::ROOT, OsStr::new(EVENTS), NodeKind::File, 0o644).unwrap();
        memory
    }

    fn note(&self, text: impl AsRef<str>) {
        let mut events = self.events.lock().unwrap();
        events.push_str(text.as_ref());
        events.push('\n');
    }

    fn with<T>(&self, ino: Ino, f: impl FnOnce(&mut Node) -> Answer<T>) -> Answer<T> {
        f(self.nodes.write().unwrap().get_mut(&ino).ok_or(Errno::ESTALE)?)
    }

    fn name(&self, ino: Ino) -> String {
        self.nodes.read().unwrap().get(&ino).map_or(String::new(), |n| n.name.to_string_lossy().into_owned())
    }

    fn entry(attr: FileAttr) -> Entry {
        Entry { attr, entry_ttl: Duration::ZERO, attr_ttl: Duration::ZERO }
    }

    fn add(&self, caller: Caller, parent: Ino, name: &OsStr, kind: NodeKind, mode: u32) -> Answer<Entry> {
        let ino = Ino(self.next.fetch_add(1, Ordering::SeqCst));
        let attr = attr(ino, kind, mode, caller);
        let mut nodes = self.nodes.write().unwrap();
        let parent = nodes.get_mut(&parent).ok_or(Errno::ENOENT)?;
        if parent.children.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        parent.children.insert(name.to_owned(), ino);
        nodes.insert(ino, Node { attr, name: name.to_owned(), data: Vec::new(), children: BTreeMap::new() });
        Ok(Self::entry(attr))
    }

    fn remove(&self, parent: Ino, name: &OsStr) -> Answer<()> {
        let mut nodes = self.nodes.write().unwrap();
        let ino = *nodes.get(&parent).and_then(|p| p.children.get(name)).ok_or(Errno::ENOENT)?;
        if !nodes[&ino].children.is_empty() {
            return Err(Errno::ENOTEMPTY);
        }
        nodes.get_mut(&parent).unwrap().children.remove(name);
        Ok(())
    }

    fn opened(&self, ino: Ino, request: OpenRequest) -> Opened {
        let name = self.name(ino);
        let number = self.next.fetch_add(1, Ordering::SeqCst);
        let caching = match () {
            () if name.starts_with("kept") => Caching::Keep,
            () if name.starts_with("plain") => Caching::Plain,
            () => Caching::Direct,
        };
        let close = if request.access.writes() { CloseNotice::Flush } else { CloseNotice::Silent };
        let fh = if name == "control" { Fh::slow(number) } else { Fh(number) };
        Opened { fh, caching, writes: Writes::Parallel, close }
    }

    /// `drop NAME`, or `swap NAME BYTE`: changes what a file holds behind the kernel's back.
    fn command(&self, line: &str) -> Answer<()> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let find = |name: &str| self.nodes.read().unwrap()[&Ino::ROOT].children.get(OsStr::new(name)).copied();
        match words[..] {
            ["drop", name] => self.cache.drop_pages(find(name).ok_or(Errno::ENOENT)?),
            ["swap", name, byte] => self.with(find(name).ok_or(Errno::ENOENT)?, |node| {
                node.data.fill(byte.as_bytes()[0]);
                Ok(())
            }),
            _ => Err(Errno::EINVAL),
        }
    }
}

fn resize(node: &mut Node, size: u64) {
    node.attr.size = size;
    node.attr.blocks512 = size.div_ceil(512);
    if node.name != "sink" {
        node.data.resize(usize::try_from(size).unwrap(), 0);
    }
}

impl Operations for Memory {
    fn lookup(&self, _: Caller, parent: Ino, name: &OsStr) -> Answer<Entry> {
        let nodes = self.nodes.read().unwrap();
        let ino = nodes.get(&parent).and_then(|p| p.children.get(name)).ok_or(Errno::ENOENT)?;
        Ok(Self::entry(nodes[ino].attr))
    }

    fn forget(&self, _: Ino, _: u64) {}

    fn getattr(&self, _: Caller, ino: Ino, _: Option<Fh>) -> Answer<Attr> {
        self.with(ino, |node| Ok(Attr { attr: node.attr, ttl: Duration::ZERO }))
    }

    fn setattr(&self, caller: Caller, ino: Ino, change: SetAttr) -> Answer<Attr> {
        if let Some(size) = change.size {
            self.note(format!("size {} {size} handle={}", self.name(ino), change.fh.is_some()));
        }
        self.with(ino, |node| {
            if let Some(size) = change.size {
                resize(node, size);
            }
            node.attr.perm = change.mode.map_or(node.attr.perm, |mode| u16::try_from(mode).unwrap());
            if let Some(SetTime::Set(mtime)) = change.mtime {
                node.attr.mtime = mtime;
            }
            Ok(())
        })?;
        self.getattr(caller, ino, None)
    }

    fn readlink(&self, _: Ino) -> Answer<OsString> {
        Err(Errno::EINVAL)
    }

    fn mkdir(&self, caller: Caller, parent: Ino, name: &OsStr, mode: u32) -> Answer<Entry> {
        self.add(caller, parent, name, NodeKind::Directory, mode)
    }

    fn mknod(&self, caller: Caller, parent: Ino, name: &OsStr, mode: u32) -> Answer<Entry> {
        self.add(caller, parent, name, NodeKind::File, mode)
    }

    fn unlink(&self, _: Caller, parent: Ino, name: &OsStr) -> Answer<()> {
        self.remove(parent, name)
    }

    fn rmdir(&self, _: Caller, parent: Ino, name: &OsStr) -> Answer<()> {
        self.remove(parent, name)
    }

    fn rename(&self, _: Caller, from: (Ino, &OsStr), to: (Ino, &OsStr), mode: RenameMode) -> Answer<()> {
        self.note(format!("rename {mode:?}"));
        let mut nodes = self.nodes.write().unwrap();
        let source = *nodes.get(&from.0).and_then(|p| p.children.get(from.1)).ok_or(Errno::ENOENT)?;
        let target = nodes.get(&to.0).ok_or(Errno::ENOENT)?.children.get(to.1).copied();
        match (mode, target) {
            (RenameMode::NoReplace, Some(_)) => return Err(Errno::EEXIST),
            (RenameMode::Exchange, None) => return Err(Errno::ENOENT),
            (RenameMode::Exchange, Some(target)) => {
                nodes.get_mut(&from.0).unwrap().children.insert(from.1.to_owned(), target);
            }
            _ => {
                nodes.get_mut(&from.0).unwrap().children.remove(from.1);
            }
        }
        nodes.get_mut(&to.0).unwrap().children.insert(to.1.to_owned(), source);
        Ok(())
    }

    fn link(&self, _: Caller, _: Ino, _: Ino, _: &OsStr) -> Answer<Entry> {
        Err(Errno::EPERM)
    }

    fn create(
        &self,
        caller: Caller,
        parent: Ino,
        name: &OsStr,
        mode: u32,
        request: OpenRequest,
    ) -> Answer<(Entry, Opened)> {
        let entry = match self.add(caller, parent, name, NodeKind::File, mode) {
            Err(Errno::EEXIST) if !request.exclusive => self.lookup(caller, parent, name)?,
            added => added?,
        };
        Ok((entry, self.opened(entry.attr.ino, request)))
    }

    fn open(&self, _: Caller, ino: Ino, request: OpenRequest) -> Answer<Opened> {
        if request.truncate {
            self.note(format!("open {} truncate", self.name(ino)));
            self.with(ino, |node| {
                resize(node, 0);
                Ok(())
            })?;
        }
        Ok(self.opened(ino, request))
    }

    fn read(&self, ino: Ino, _: Fh, offset: u64, len: usize, buffer: &mut Vec<u8>) -> Answer<()> {
        let nodes = self.nodes.read().unwrap();
        let node = nodes.get(&ino).ok_or(Errno::ESTALE)?;
        let name = node.name.to_str().unwrap();
        assert!(!name.starts_with("panic"), "on purpose");
        let events;
        let all: &[u8] = match name {
            EVENTS => {
                events = self.events.lock().unwrap().clone();
                events.as_bytes()
            }
            "sink" => {
                if offset < node.attr.size {
                    buffer.extend_from_slice(&node.data[..len.min(node.data.len())]);
                }
                return Ok(());
            }
            _ => &node.data,
        };
        let start = all.len().min(usize::try_from(offset).unwrap());
        buffer.extend_from_slice(&all[start..all.len().min(start + len)]);
        Ok(())
    }

    fn write(&self, request: WriteRequest<'_>) -> Answer<usize> {
        let name = self.name(request.ino);
        let len = request.data.len();
        if name == "control" {
            return self.command(std::str::from_utf8(request.data).unwrap()).map(|()| len);
        }
        if name != "sink" {
            self.note(format!("write {name} {len} {:?} append={}", request.origin, request.append));
        }
        self.with(request.ino, |node| {
            let end = request.offset + len as u64;
            if name == "sink" {
                node.data.resize(MIB, 0);
                node.data[..len].copy_from_slice(request.data);
                node.attr.size = node.attr.size.max(end);
                return Ok(len);
            }
            if end > node.attr.size {
                resize(node, end);
            }
            let start = usize::try_from(request.offset).unwrap();
            node.data[start..start + len].copy_from_slice(request.data);
            Ok(len)
        })
    }

    fn flush(&self, caller: Caller, ino: Ino, _: Fh, _: u64) -> Answer<()> {
        let task = process::closer(caller.pid).unwrap();
        self.note(format!("flush {} by {}: {:?}", self.name(ino), task.name, task.ending));
        Ok(())
    }

    fn release(&self, ino: Ino, _: Fh) {
        self.note(format!("release {}", self.name(ino)));
    }

    fn fsync(&self, _: Caller, ino: Ino, _: Fh, scope: SyncScope) -> Answer<()> {
        if self.name(ino).starts_with("sleepy") {
            std::thread::sleep(Duration::from_secs(1));
        }
        self.note(format!("fsync {} {scope:?}", self.name(ino)));
        Ok(())
    }

    fn fsyncdir(&self, ino: Ino, _: Fh) -> Answer<()> {
        let has = |name: &str| self.nodes.read().unwrap()[&ino].children.contains_key(OsStr::new(name));
        if has("dozing") {
            std::thread::sleep(Duration::from_secs(1));
        }
        self.note(format!("fsyncdir {}", self.name(ino)));
        if has("refused") { Err(Errno::EIO) } else { Ok(()) }
    }

    fn opendir(&self, _: Caller, ino: Ino) -> Answer<(Fh, Caching)> {
        let nodes = self.nodes.read().unwrap();
        let node = nodes.get(&ino).ok_or(Errno::ESTALE)?;
        let dots = [(ino, NodeKind::Directory, ".".into()), (ino, NodeKind::Directory, "..".into())];
        let children = node.children.iter().map(|(name, ino)| (*ino, nodes[ino].attr.kind, name.clone()));
        let fh = Fh(self.next.fetch_add(1, Ordering::SeqCst));
        self.directories.lock().unwrap().insert(fh, dots.into_iter().chain(children).collect());
        Ok((fh, Caching::Direct))
    }

    fn readdir(&self, _: Ino, fh: Fh, offset: u64, sink: &mut dyn DirSink) -> Answer<()> {
        let directories = self.directories.lock().unwrap();
        let entries = directories.get(&fh).ok_or(Errno::EBADF)?;
        for (index, (ino, kind, name)) in entries.iter().enumerate().skip(usize::try_from(offset).unwrap()) {
            if sink.push(*ino, *kind, name, index as u64 + 1) == Room::Full {
                break;
            }
        }
        Ok(())
    }

    fn releasedir(&self, _: Ino, fh: Fh) {
        self.directories.lock().unwrap().remove(&fh);
    }

    fn statfs(&self) -> Answer<Statfs> {
        Ok(Statfs {
            block_size: 4096,
            blocks: 1000,
            blocks_free: 500,
            blocks_available: 400,
            files: 7,
            files_free: 3,
            name_max: 255,
        })
    }

    fn fallocate(&self, _: Caller, ino: Ino, _: Fh, offset: u64, len: u64, how: Fallocate) -> Answer<()> {
        self.note(format!("fallocate {how:?} {offset} {len}"));
        self.with(ino, |node| {
            if matches!(how, Fallocate::Allocate | Fallocate::ZeroRange) && offset + len > node.attr.size {
                resize(node, offset + len);
            }
            if matches!(how, Fallocate::PunchHole | Fallocate::ZeroRange | Fallocate::ZeroRangeKeepSize) {
                let end = usize::try_from(offset + len).unwrap().min(node.data.len());
                let start = usize::try_from(offset).unwrap().min(end);
                node.data[start..end].fill(0);
            }
            Ok(())
        })
    }

    fn lseek(&self, ino: Ino, _: Fh, offset: u64, seek: Seek) -> Answer<u64> {
        self.with(ino, |node| {
            let start = usize::try_from(offset).unwrap();
            let rest = node.data.get(start..).filter(|rest| !rest.is_empty()).ok_or(Errno::ENXIO)?;
            let wanted = |byte: &u8| (*byte != 0) == (seek == Seek::Data);
            match (rest.iter().position(wanted), seek) {
                (Some(at), _) => Ok(offset + at as u64),
                (None, Seek::Hole) => Ok(node.data.len() as u64),
                (None, Seek::Data) => Err(Errno::ENXIO),
            }
        })
    }

    fn copy_file_range(&self, _: Caller, range: CopyRange) -> Answer<u64> {
        // A part at a time, as the real one does.
        let len = range.len.min(MIB as u64);
        self.note(format!("copy {} of {}", len, range.len));
        let mut bytes = Vec::new();
        self.read(range.ino_in, range.fh_in, range.offset_in, usize::try_from(len).unwrap(), &mut bytes)?;
        self.with(range.ino_out, |node| {
            let end = range.offset_out + bytes.len() as u64;
            if end > node.attr.size {
                resize(node, end);
            }
            let start = usize::try_from(range.offset_out).unwrap();
            node.data[start..start + bytes.len()].copy_from_slice(&bytes);
            Ok(bytes.len() as u64)
        })
    }

    fn drain(&self) {
        std::fs::write(&self.marker, "drained").unwrap();
    }
}
