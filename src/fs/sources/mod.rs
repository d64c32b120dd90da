//! `sources/`: configured volumes as files.
//!
//! Opening one for reading takes its snapshot, if it has such; the last close drops it. A copy into `incoming/` inside the mount
//! comes here as copy_file_range and is done by the daemon ([`copy`]): in parallel, and only what has changed. When the mount may
//! restore, a file that is made here is a volume ([`restoring`]).
//!
//! Directories are for the owner of the mount alone: the modes of files say nothing of the directories above them elsewhere.

mod copy;
mod open;
mod patience;
mod restoring;
mod told;

use crate::control::sources_file::RestoreToSources;
use crate::control::sources_file::Sources as Configured;
use crate::fs::errno::Errno;
use crate::fs::nodes::Node;
use crate::fs::seam::{Answer, FileAttr, NodeKind};
use crate::fs::sources::copy::Reading;
use crate::fs::sources::patience::Patience;
use crate::fs::sources::restoring::Restoring;
use crate::repo::Repository;
use crate::source::Collection;
use crate::source::collection::ItemKind;
use crate::words::attribute::{FileAttributes, Mtime};
use parking_lot::{Mutex, RwLock};
use std::collections::HashMap;
use std::ffi::OsString;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crate::fs::seam::Fh;

/// Makes `cp` read and write in pieces of 1 MiB.
const BLKSIZE: u32 = 1 << 20;

/// What can be set.
#[derive(Debug, Clone)]
pub struct SourcesOptions {
    /// What stands here.
    pub configured: Configured,
    /// Whether it may be written.
    pub restore: RestoreToSources,
    /// Owner of the directories.
    pub uid: u32,
    /// Group of the directories.
    pub gid: u32,
}

/// The tree. See the module.
pub struct Sources {
    repo: Arc<Repository>,
    options: SourcesOptions,
    patience: Patience,
    handles: RwLock<HashMap<Fh, Handle>>,
    /// What is being made, by source and path: nobody else finds it before it is whole. Nothing is there yet while it is being
    /// opened: that may take as long as a cluster takes to answer, and nobody holds this meanwhile, as every lookup needs it.
    restoring: Mutex<HashMap<Key, Option<Arc<Restoring>>>>,
    next_fh: AtomicU64,
}

/// A source, and a path in it.
type Key = (String, String);

#[derive(Clone)]
enum Handle {
    Reading(Arc<Reading>),
    Restoring(Arc<Restoring>),
}

impl Sources {
    /// The tree of what is configured.
    pub fn new(repo: Arc<Repository>, options: SourcesOptions) -> Self {
        let (handles, restoring) = (RwLock::default(), Mutex::default());
        Self { repo, options, patience: Patience::default(), handles, restoring, next_fh: AtomicU64::new(1) }
    }

    /// Whether there is anything to show.
    pub fn is_empty(&self) -> bool {
        self.options.configured.is_empty()
    }

    /// What is being made there, if something is and it has been opened.
    fn being_made(&self, source: &str, path: &str) -> Option<Arc<Restoring>> {
        self.restoring.lock().get(&(source.to_owned(), path.to_owned())).cloned().flatten()
    }

    fn collection(&self, source: &str) -> Answer<&Collection> {
        self.options.configured.get(source).ok_or(Errno::ENOENT)
    }

    /// Whether a look at a node asks a machine that may not answer.
    pub fn may_wait(&self, node: &Node) -> bool {
        match node {
            Node::SourceDir(source, _) | Node::SourceFile(source, _) => {
                self.collection(source).is_ok_and(Collection::may_hang)
            }
            _ => false,
        }
    }

    /// Finds a name in a directory.
    pub fn lookup(&self, parent: &Node, component: &str) -> Answer<Node> {
        match parent {
            Node::Sources => {
                self.collection(component)?;
                Ok(Node::SourceDir(component.to_owned(), String::new()))
            }
            Node::SourceDir(source, dir) => {
                let path = join(dir, component);
                if self.being_made(source, &path).is_some() {
                    return Ok(Node::SourceFile(source.clone(), path));
                }
                let collection = self.collection(source)?.clone();
                let at = path.clone();
                let found = self.patience.ask(source, collection.may_hang(), move || Ok(collection.find(&at)?))?;
                match found {
                    Some(ItemKind::Directory) => Ok(Node::SourceDir(source.clone(), path)),
                    Some(ItemKind::Volume) => Ok(Node::SourceFile(source.clone(), path)),
                    None => Err(Errno::ENOENT),
                }
            }
            _ => Err(Errno::ENOTDIR),
        }
    }

    /// What a directory holds, in order of names.
    pub fn list(&self, dir: &Node) -> Answer<Vec<(OsString, Node)>> {
        match dir {
            Node::Sources => {
                let names = self.options.configured.keys();
                Ok(names.map(|name| (name.into(), Node::SourceDir(name.clone(), String::new()))).collect())
            }
            Node::SourceDir(source, dir) => {
                let collection = self.collection(source)?.clone();
                let at = dir.clone();
                let mut found = self.patience.ask(source, collection.may_hang(), move || Ok(collection.list(&at)?))?;
                found.sort();
                let node = |(name, kind): (String, ItemKind)| {
                    let path = join(dir, &name);
                    let node = match kind {
                        ItemKind::Directory => Node::SourceDir(source.clone(), path),
                        ItemKind::Volume => Node::SourceFile(source.clone(), path),
                    };
                    (name.into(), node)
                };
                Ok(found.into_iter().map(node).collect())
            }
            _ => Err(Errno::ENOTDIR),
        }
    }

    /// stat of a node of this tree.
    pub fn attr(&self, node: &Node) -> Answer<FileAttr> {
        let (uid, gid) = (self.options.uid, self.options.gid);
        match node {
            Node::Sources | Node::SourceDir(..) => {
                let time = Mtime::from(self.repo.clock().now());
                let perm = if self.options.restore == RestoreToSources::No { 0o500 } else { 0o700 };
                Ok(FileAttr::directory(node.ino(), time, perm, uid, gid))
            }
            Node::SourceFile(source, path) => {
                if let Some(restoring) = self.being_made(source, path) {
                    return Ok(self.file_attr(node, restoring.size_bytes(), &restoring.attributes()));
                }
                let collection = self.collection(source)?.clone();
                let at = path.clone();
                let looked = self.patience.ask(source, collection.may_hang(), move || Ok(collection.look(&at)?))?;
                Ok(self.file_attr(node, looked.size_bytes, &looked.attributes))
            }
            _ => Err(Errno::EIO),
        }
    }

    fn file_attr(&self, node: &Node, size: u64, attributes: &FileAttributes) -> FileAttr {
        let may_write = if self.options.restore == RestoreToSources::No { 0o444 } else { 0o666 };
        FileAttr {
            ino: node.ino(),
            size,
            // As full as a file can be: cp takes one that is not for sparse, and reads and writes it through the kernel.
            blocks512: size.div_ceil(512),
            atime: attributes.mtime,
            mtime: attributes.mtime,
            ctime: attributes.mtime,
            kind: NodeKind::File,
            perm: (attributes.mode & may_write) as u16,
            nlink: 1,
            uid: attributes.uid,
            gid: attributes.gid,
            blksize: BLKSIZE,
        }
    }
}

fn join(dir: &str, component: &str) -> String {
    if dir.is_empty() { component.to_owned() } else { format!("{dir}/{component}") }
}
