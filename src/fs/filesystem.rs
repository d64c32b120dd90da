//! The mounted tree: routes every request to the tree it belongs to. Numbers become nodes here, nodes become entries.

use crate::control::Settings;
use crate::control::log_tail::LogTail;
use crate::fs::errno::Errno;
use crate::fs::follow::Follower;
use crate::fs::incoming::{GraftSource, Incoming, IncomingOptions};
use crate::fs::meters::Meters;
use crate::fs::nodes::{Node, Nodes, StatusFile, VersionFile};
use crate::fs::promises;
use crate::fs::seam::{
    Access, Answer, Attr, Caching, Caller, CloseNotice, CopyRange, DirSink, Entry, Fallocate, Fh, FileAttr, Ino,
    KernelCache, OpenRequest, Opened, Operations, RenameMode, Room, Seek, SetAttr, Statfs, SyncScope, WriteRequest,
    Writes,
};
use crate::fs::seen::Seen;
use crate::fs::sources::{Sources, SourcesOptions};
use crate::fs::trees::{Trees, TreesOptions};
use crate::fs::watched::Watched;
use crate::image::ImageReader;
use crate::ops::snapshots;
use crate::repo::Repository;
use crate::target::Requests;
use crate::words::attribute::Mtime;
use crate::words::monitor::Tally;
use parking_lot::RwLock;
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What one copy_file_range takes at most: large enough to be fast, small enough to be interrupted.
const COPY_STEP_BYTES: u64 = 1 << 30;

/// What can be set.
#[derive(Debug, Clone)]
pub struct FsOptions {
    /// For `incoming/`.
    pub incoming: IncomingOptions,
    /// For the other trees.
    pub trees: TreesOptions,
    /// For `sources/`.
    pub sources: SourcesOptions,
    /// The settings in force, for `status/config`, and what of them can change.
    pub settings: Settings,
    /// How often it learns what other hosts did.
    pub refresh_interval: Option<Duration>,
    /// Counts what happens, for `status/counters` and `status/metrics`.
    pub tally: Arc<Tally>,
    /// The last lines of the log, for `status/log`.
    pub log: Arc<LogTail>,
}

/// See the module.
pub struct FileSystem {
    repo: Arc<Repository>,
    nodes: Nodes,
    incoming: Arc<Incoming>,
    trees: Arc<Trees>,
    sources: Sources,
    listings: RwLock<HashMap<Fh, Arc<Listing>>>,
    next_fh: AtomicU64,
    meters: Arc<Meters>,
    seen: Arc<Seen>,
    uid: u32,
    gid: u32,
    /// Ends with it.
    _follower: Follower,
}

/// What a directory held when it was opened.
struct Listing {
    entries: Vec<(OsString, Node)>,
}

impl FileSystem {
    /// The tree of a repository.
    ///
    /// # Errors
    /// When threads cannot be started or overlays cannot be read.
    pub fn new(repo: Arc<Repository>, options: FsOptions, kernel: Arc<dyn KernelCache>) -> std::io::Result<Arc<Self>> {
        let (uid, gid) = (options.incoming.uid, options.incoming.gid);
        let (policy, protect_younger) = (Arc::clone(&options.incoming.policy), options.trees.protect_younger);
        let incoming = Incoming::new(Arc::clone(&repo), options.incoming)?;
        incoming.start_upkeep()?;
        let drafts = Arc::clone(&incoming);
        let trees = Trees::new(Arc::clone(&repo), options.trees, kernel, Box::new(move || drafts.drafts()));
        let (settings, tally) = (options.settings, options.tally);
        let (meters, seen) = (Arc::<Meters>::default(), Arc::<Seen>::default());
        let watched = Watched {
            repo: Arc::clone(&repo),
            incoming: Arc::clone(&incoming),
            policy: Arc::clone(&policy),
            settings: settings.clone(),
            tally: Arc::clone(&tally),
            meters: Arc::clone(&meters),
            log: options.log,
            seen: Arc::clone(&seen),
            started: repo.clock().now(),
        };
        watched.serve(&trees);
        let requests = Arc::clone(&settings.requests);
        trees.set_status(StatusFile::Config, Box::new(move || settings.describe()));
        trees.set_status(StatusFile::Counters, Box::new(move || counters(&tally, &requests)));
        promises::serve(&trees, &repo, &policy, protect_younger);
        if trees.tidy().is_err() {
            tracing::warn!("pins that no overlay needs any more were not removed; the next mount tries again");
        }
        let trees = Arc::new(trees);
        trees.start_upkeep()?;
        let sources = Sources::new(Arc::clone(&repo), options.sources);
        // What a crash left of snapshots goes without anybody waiting for it: a cluster may be out of reach.
        let tidied = Arc::clone(&repo);
        std::thread::Builder::new().name("tidy".into()).spawn(move || snapshots::tidy(&tidied))?;
        let follower = Follower::start(&repo, &seen, options.refresh_interval)?;
        Ok(Arc::new(Self {
            repo,
            nodes: Nodes::default(),
            incoming,
            trees,
            sources,
            listings: RwLock::default(),
            next_fh: AtomicU64::new(1),
            meters,
            seen,
            uid,
            gid,
            _follower: follower,
        }))
    }

    fn node(&self, ino: Ino) -> Answer<Node> {
        self.nodes.get(ino).ok_or(Errno::ESTALE)
    }

    fn entry(&self, node: &Node) -> Answer<Entry> {
        let attr = self.attr_of(node, None)?;
        self.nodes.remember(node);
        let (entry_ttl, attr_ttl) = self.ttls(node);
        Ok(Entry { attr, entry_ttl, attr_ttl })
    }

    fn attr_of(&self, node: &Node, fh: Option<Fh>) -> Answer<FileAttr> {
        match node {
            Node::Root => Ok(self.root_attr()),
            Node::IncomingDir(_) | Node::IncomingFile(_) => self.incoming.attr(node, fh),
            Node::Sources | Node::SourceDir(..) | Node::SourceFile(..) => self.sources.attr(node),
            _ => self.trees.attr(node),
        }
    }

    fn ttls(&self, node: &Node) -> (Duration, Duration) {
        match node {
            Node::Root | Node::IncomingDir(_) | Node::IncomingFile(_) => (Duration::ZERO, Duration::ZERO),
            Node::Sources | Node::SourceDir(..) | Node::SourceFile(..) => (Duration::ZERO, Duration::ZERO),
            _ => self.trees.ttls(node),
        }
    }

    /// `sources/` is there when something is configured.
    fn root_entries(&self) -> impl Iterator<Item = (&'static str, Node)> {
        root_entries().filter(|(_, node)| *node != Node::Sources || !self.sources.is_empty())
    }

    fn root_attr(&self) -> FileAttr {
        let time = Mtime::from(self.repo.header().created);
        FileAttr::directory(Ino::ROOT, time, 0o755, self.uid, self.gid)
    }

    fn list(&self, node: &Node) -> Answer<Vec<(OsString, Node)>> {
        match node {
            Node::Root => Ok(self.root_entries().map(|(name, node)| (name.into(), node)).collect()),
            Node::Sources | Node::SourceDir(..) => self.sources.list(node),
            Node::IncomingDir(path) => {
                Ok(self.incoming.list(path)?.into_iter().map(|(name, node)| (name.into(), node)).collect())
            }
            _ => self.trees.list(node),
        }
    }

    /// The directory below `incoming/` that a number stands for; anything else cannot be written to.
    fn incoming_dir(&self, ino: Ino) -> Answer<String> {
        match self.node(ino)? {
            Node::IncomingDir(path) => Ok(path),
            Node::IncomingFile(_) => Err(Errno::ENOTDIR),
            _ => Err(Errno::EPERM),
        }
    }

    /// The stored image that the source of a copy shows.
    fn reader_for_copy(&self, range: &CopyRange) -> Answer<Option<Arc<ImageReader>>> {
        match self.node(range.ino_in)? {
            Node::IncomingFile(source) => self.incoming.reader_for_copy(source, range.fh_in),
            node => self.trees.reader_for_copy(&node, range.fh_in),
        }
    }

    fn opened(fh: Fh, request: &OpenRequest) -> Opened {
        // Write handles need every FLUSH; readers of incoming/ need none.
        let close = if request.access == Access::Read { CloseNotice::Silent } else { CloseNotice::Flush };
        Opened { fh, caching: Caching::Direct, writes: Writes::Parallel, close }
    }
}

/// One counter a line.
fn counters(tally: &Tally, requests: &Requests) -> String {
    let counted = tally.all().into_iter().map(|(counter, sum)| format!("{counter:?} {sum}\n"));
    counted.chain(requests.all().into_iter().map(|(name, sum)| format!("{name} {sum}\n"))).collect()
}

fn root_entries() -> impl Iterator<Item = (&'static str, Node)> {
    [
        ("incoming", Node::IncomingDir(String::new())),
        ("by_version", Node::Versions),
        ("by_name", Node::NameDir(String::new())),
        ("by_tag", Node::Tags),
        ("sources", Node::Sources),
        ("status", Node::Status),
    ]
    .into_iter()
}

/// Names of backups are UTF-8; no other name exists here or can be made.
fn text(name: &OsStr) -> Answer<&str> {
    name.to_str().ok_or(Errno::EINVAL)
}

impl Operations for FileSystem {
    fn may_wait(&self, ino: Ino) -> bool {
        self.node(ino).is_ok_and(|node| self.sources.may_wait(&node))
    }

    fn lookup(&self, caller: Caller, parent: Ino, name: &OsStr) -> Answer<Entry> {
        let name = name.to_str().ok_or(Errno::ENOENT)?;
        let node = match self.node(parent)? {
            Node::Root => {
                self.root_entries().find(|(entry, _)| *entry == name).map(|(_, node)| node).ok_or(Errno::ENOENT)?
            }
            Node::IncomingDir(path) => self.incoming.lookup(&path, name)?,
            Node::IncomingFile(_) | Node::SourceFile(..) => return Err(Errno::ENOTDIR),
            parent @ (Node::Sources | Node::SourceDir(..)) => self.sources.lookup(&parent, name)?,
            parent => self.trees.lookup(caller, &parent, name)?,
        };
        self.entry(&node)
    }

    fn forget(&self, ino: Ino, lookups: u64) {
        self.nodes.forget(ino, lookups);
    }

    fn getattr(&self, _caller: Caller, ino: Ino, fh: Option<Fh>) -> Answer<Attr> {
        let node = self.node(ino)?;
        Ok(Attr { attr: self.attr_of(&node, fh)?, ttl: self.ttls(&node).1 })
    }

    fn setattr(&self, caller: Caller, ino: Ino, change: SetAttr) -> Answer<Attr> {
        let node = self.node(ino)?;
        match &node {
            Node::Root => return Err(Errno::EPERM),
            Node::IncomingFile(number) => self.incoming.setattr(caller, *number, &change)?,
            Node::IncomingDir(path) => self.incoming.setattr_dir(path, &change)?,
            Node::Sources | Node::SourceDir(..) | Node::SourceFile(..) => self.sources.setattr(&node, &change)?,
            _ => self.trees.setattr(caller, &node, &change)?,
        }
        self.getattr(caller, ino, change.fh)
    }

    fn readlink(&self, ino: Ino) -> Answer<OsString> {
        self.trees.readlink(&self.node(ino)?)
    }

    fn mkdir(&self, caller: Caller, parent: Ino, name: &OsStr, mode: u32) -> Answer<Entry> {
        let node = self.incoming.mkdir(caller, &self.incoming_dir(parent)?, text(name)?, mode)?;
        self.entry(&node)
    }

    fn mknod(&self, caller: Caller, parent: Ino, name: &OsStr, mode: u32) -> Answer<Entry> {
        let node = self.incoming.mknod(caller, &self.incoming_dir(parent)?, text(name)?, mode)?;
        self.entry(&node)
    }

    fn unlink(&self, caller: Caller, parent: Ino, name: &OsStr) -> Answer<()> {
        match self.node(parent)? {
            Node::IncomingDir(path) => self.incoming.unlink(&path, text(name)?),
            Node::Root | Node::Sources | Node::SourceDir(..) => Err(Errno::EPERM),
            parent => self.trees.unlink(caller, &parent, text(name)?),
        }
    }

    fn rmdir(&self, caller: Caller, parent: Ino, name: &OsStr) -> Answer<()> {
        match self.node(parent)? {
            Node::IncomingDir(path) => self.incoming.rmdir(&path, text(name)?),
            Node::Root | Node::Sources | Node::SourceDir(..) => Err(Errno::EPERM),
            parent => self.trees.rmdir(caller, &parent, text(name)?),
        }
    }

    fn rename(&self, caller: Caller, from: (Ino, &OsStr), to: (Ino, &OsStr), mode: RenameMode) -> Answer<()> {
        let (source, target) = (self.incoming_dir(from.0)?, self.incoming_dir(to.0)?);
        self.incoming.rename(caller, (&source, text(from.1)?), (&target, text(to.1)?), mode)
    }

    fn link(&self, caller: Caller, ino: Ino, parent: Ino, name: &OsStr) -> Answer<Entry> {
        let dir = self.incoming_dir(parent)?;
        let source = self.node(ino)?;
        let Node::VersionFile(uid, VersionFile::Data | VersionFile::Original) = source else {
            return Err(Errno::EPERM);
        };
        // What was written over `data` is not in the map: a link would silently leave it out.
        if matches!(source, Node::VersionFile(_, VersionFile::Data)) && self.trees.is_overlaid(uid)? {
            return Err(Errno::EBUSY);
        }
        let version = self.repo.version(uid)?;
        let reader = ImageReader::new(Arc::clone(&self.repo), version.record.image, format!("version {uid}"));
        let node = self.incoming.link(caller, &dir, text(name)?, &reader, version.attributes.file)?;
        self.entry(&node)
    }

    fn create(
        &self,
        caller: Caller,
        parent: Ino,
        name: &OsStr,
        mode: u32,
        request: OpenRequest,
    ) -> Answer<(Entry, Opened)> {
        if let dir @ Node::SourceDir(..) = self.node(parent)? {
            let (node, opened) = self.sources.create(caller, &dir, text(name)?, mode, &request)?;
            return Ok((self.entry(&node)?, opened));
        }
        let dir = self.incoming_dir(parent)?;
        let opened = self.incoming.create(caller, &dir, text(name)?, mode, &request)?;
        Ok((self.entry(&opened.node)?, Self::opened(opened.fh, &request)))
    }

    fn open(&self, caller: Caller, ino: Ino, request: OpenRequest) -> Answer<Opened> {
        match self.node(ino)? {
            Node::IncomingFile(number) => Ok(Self::opened(self.incoming.open(caller, number, &request)?, &request)),
            node @ (Node::Sources | Node::SourceDir(..) | Node::SourceFile(..)) => {
                self.sources.open(caller, &node, &request)
            }
            node => {
                if let Node::VersionFile(uid, VersionFile::Data | VersionFile::Original) = node {
                    self.incoming.note_opened(uid);
                }
                self.trees.open(caller, &node, &request)
            }
        }
    }

    fn read(&self, ino: Ino, fh: Fh, offset: u64, len: usize, buffer: &mut Vec<u8>) -> Answer<()> {
        match self.node(ino)? {
            Node::IncomingFile(number) => self.incoming.read(number, fh, offset, len, buffer),
            Node::SourceFile(..) => self.sources.read(fh, offset, len, buffer),
            node => self.trees.read(&node, fh, offset, len, buffer),
        }
    }

    fn write(&self, request: WriteRequest<'_>) -> Answer<usize> {
        match self.node(request.ino)? {
            Node::IncomingFile(number) => self.incoming.write(number, &request),
            Node::SourceFile(..) => self.sources.write(&request),
            node => self.trees.write(&node, &request),
        }
    }

    fn flush(&self, caller: Caller, ino: Ino, fh: Fh, _lock_owner: u64) -> Answer<()> {
        match self.node(ino)? {
            Node::IncomingFile(number) => self.incoming.flush(caller, number, fh),
            Node::SourceFile(..) => self.sources.flush(caller, fh),
            node => self.trees.flush(caller, &node, fh),
        }
    }

    fn release(&self, ino: Ino, fh: Fh) {
        match self.node(ino) {
            Ok(Node::IncomingFile(number)) => self.incoming.release(number, fh),
            Ok(Node::SourceFile(..)) => self.sources.release(fh),
            Ok(node) => self.trees.release(&node, fh),
            Err(_) => tracing::debug!("release of a handle of an unknown inode {}", ino.0),
        }
    }

    fn fsync(&self, caller: Caller, ino: Ino, fh: Fh, _scope: SyncScope) -> Answer<()> {
        match self.node(ino)? {
            Node::IncomingFile(number) => self.incoming.fsync(number, fh),
            Node::SourceFile(..) => self.sources.fsync(fh),
            node => self.trees.fsync(caller, &node, fh),
        }
    }

    fn opendir(&self, _caller: Caller, ino: Ino) -> Answer<(Fh, Caching)> {
        let node = self.node(ino)?;
        let mut entries = vec![(OsString::from("."), node.clone()), (OsString::from(".."), Node::Root)];
        entries.extend(self.list(&node)?);
        let fh = Fh(self.next_fh.fetch_add(1, Ordering::Relaxed));
        self.listings.write().insert(fh, Arc::new(Listing { entries }));
        Ok((fh, Caching::Plain))
    }

    fn readdir(&self, _ino: Ino, fh: Fh, offset: u64, sink: &mut dyn DirSink) -> Answer<()> {
        let listing = self.listings.read().get(&fh).cloned().ok_or(Errno::EBADF)?;
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(listing.entries.len());
        for ((name, node), next) in listing.entries[from..].iter().zip(offset + 1..) {
            if sink.push(node.ino(), node.kind(), name, next) == Room::Full {
                break;
            }
        }
        Ok(())
    }

    fn releasedir(&self, _ino: Ino, fh: Fh) {
        self.listings.write().remove(&fh);
    }

    fn statfs(&self) -> Answer<Statfs> {
        const UNIT: u64 = 4096;
        let space = self.repo.space()?;
        self.seen.note(space);
        let (blocks, free) = (space.total_bytes / UNIT, space.free_bytes / UNIT);
        Ok(Statfs {
            block_size: UNIT as u32,
            blocks,
            blocks_free: free,
            blocks_available: free,
            files: 0,
            files_free: 0,
            name_max: crate::words::name::COMPONENT_MAX_BYTES as u32,
        })
    }

    fn fallocate(&self, caller: Caller, ino: Ino, fh: Fh, offset: u64, len: u64, how: Fallocate) -> Answer<()> {
        match self.node(ino)? {
            Node::IncomingFile(number) => self.incoming.fallocate(caller, number, fh, offset, len, how),
            Node::SourceFile(..) => self.sources.fallocate(fh, offset, len, how),
            node => self.trees.fallocate(caller, &node, fh, offset, len, how),
        }
    }

    fn lseek(&self, ino: Ino, fh: Fh, offset: u64, seek: Seek) -> Answer<u64> {
        match self.node(ino)? {
            Node::IncomingFile(number) => self.incoming.lseek(number, fh, offset, seek),
            Node::SourceFile(..) => self.sources.lseek(fh, offset, seek),
            node => self.trees.lseek(&node, fh, offset, seek),
        }
    }

    fn copy_file_range(&self, caller: Caller, range: CopyRange) -> Answer<u64> {
        let number = match (self.node(range.ino_in)?, self.node(range.ino_out)?) {
            (Node::SourceFile(..), Node::IncomingFile(number)) => {
                return self.sources.copy_to_incoming(&self.incoming, caller, &range, number);
            }
            (Node::SourceFile(..), _) => return Err(Errno::EOPNOTSUPP),
            (_, Node::SourceFile(..)) => {
                let Some(reader) = self.reader_for_copy(&range)? else { return Err(Errno::EOPNOTSUPP) };
                return self.sources.copy_from_version(&reader, &range)?.ok_or(Errno::EOPNOTSUPP);
            }
            (_, Node::IncomingFile(number)) => number,
            _ => return Err(Errno::EOPNOTSUPP),
        };
        let len = range.len.min(COPY_STEP_BYTES);
        let reader = self.reader_for_copy(&range)?;
        // What has no stored image behind it is copied by the kernel, with reads and writes.
        let Some(reader) = reader else { return Err(Errno::EOPNOTSUPP) };
        let source = GraftSource { reader: &reader, offset: range.offset_in };
        self.incoming.graft(caller, number, range.fh_out, &source, range.offset_out, len)
    }

    fn meters(&self) -> Option<&Meters> {
        Some(&self.meters)
    }

    /// fsync(2) of the root makes all that was written here durable: there is no other way to ask for it before an unmount.
    fn fsyncdir(&self, ino: Ino, _fh: Fh) -> Answer<()> {
        if ino == Ino::ROOT { self.incoming.make_all_durable() } else { Ok(()) }
    }

    fn drain(&self) {
        self.incoming.drain();
        self.trees.drain();
    }
}
