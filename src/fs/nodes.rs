//! What stands behind an inode number, and which number a thing has.
//!
//! Numbers of the read-only trees follow from what the thing is, so they stay the same for ever. Files below `incoming/`
//! are numbered when first seen and keep their number over a rename, as a file does.

use crate::fs::seam::{Ino, NodeKind};
use crate::words::ids::Uid;
use crate::words::name::Name;
use parking_lot::RwLock;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

/// One place in the mounted tree. Paths of directories are relative to their tree and empty at its root.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names say it; the comments say the rest")]
pub enum Node {
    Root,
    /// A directory below `incoming/`.
    IncomingDir(String),
    /// A name below `incoming/`. The number is fixed when the name is first seen; see `fs::incoming`.
    IncomingFile(u64),
    /// `by_version/`.
    Versions,
    /// `by_version/<uid>/`.
    Version(Uid),
    /// A file in it.
    VersionFile(Uid, VersionFile),
    /// A directory below `by_name/`: a name, the directories above it, or both at once.
    NameDir(String),
    /// `by_name/<name>/<created>` or `latest`.
    NameLink(Name, String),
    /// `by_tag/`.
    Tags,
    /// `by_tag/<tag>/<path>`.
    TagDir(String, String),
    /// `by_tag/<tag>/<name>/<created>`.
    TagLink(String, Name, String),
    /// `sources/`.
    Sources,
    /// A configured source, or a directory in it.
    SourceDir(String, String),
    /// A volume of a source.
    SourceFile(String, String),
    /// `status/`.
    Status,
    /// A file in it.
    StatusFile(StatusFile),
}

/// The files of a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names say it")]
pub enum VersionFile {
    Data,
    Original,
    Name,
    SnapshotName,
    Tags,
    Expire,
    Protected,
    Valid,
    Created,
    Size,
    Stats,
    Overlay,
}

impl VersionFile {
    /// Every file, in the order they are listed.
    pub const ALL: [Self; 12] = [
        Self::Data,
        Self::Original,
        Self::Name,
        Self::SnapshotName,
        Self::Tags,
        Self::Expire,
        Self::Protected,
        Self::Valid,
        Self::Created,
        Self::Size,
        Self::Stats,
        Self::Overlay,
    ];

    /// Its name in the directory.
    pub const fn file_name(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::Original => "original",
            Self::Name => "name",
            Self::SnapshotName => "snapshot_name",
            Self::Tags => "tags",
            Self::Expire => "expire",
            Self::Protected => "protected",
            Self::Valid => "valid",
            Self::Created => "created",
            Self::Size => "size",
            Self::Stats => "stats",
            Self::Overlay => "overlay",
        }
    }

    /// The file of a name.
    pub fn from_file_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|file| file.file_name() == name)
    }
}

/// The files of `status/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names say it")]
pub enum StatusFile {
    Metrics,
    Report,
    Progress,
    Log,
    Drafts,
    Overlays,
    Config,
    Counters,
    Scrub,
    Due,
    Sla,
    Prune,
    UploadLimit,
    DownloadLimit,
}

impl StatusFile {
    /// Every file.
    pub const ALL: [Self; 14] = [
        Self::Metrics,
        Self::Report,
        Self::Progress,
        Self::Log,
        Self::Drafts,
        Self::Overlays,
        Self::Config,
        Self::Counters,
        Self::Scrub,
        Self::Due,
        Self::Sla,
        Self::Prune,
        Self::UploadLimit,
        Self::DownloadLimit,
    ];

    /// Its name in the directory.
    pub const fn file_name(self) -> &'static str {
        match self {
            Self::Metrics => "metrics",
            Self::Report => "report.html",
            Self::Progress => "progress",
            Self::Log => "log",
            Self::Drafts => "drafts",
            Self::Overlays => "overlays",
            Self::Config => "config",
            Self::Counters => "counters",
            Self::Scrub => "scrub",
            Self::Due => "due",
            Self::Sla => "sla",
            Self::Prune => "prune",
            Self::UploadLimit => "upload-limit",
            Self::DownloadLimit => "download-limit",
        }
    }
}

impl Node {
    /// What kind of thing it is.
    pub const fn kind(&self) -> NodeKind {
        match self {
            Self::IncomingFile(_) | Self::VersionFile(..) | Self::SourceFile(..) | Self::StatusFile(_) => {
                NodeKind::File
            }
            Self::NameLink(..) | Self::TagLink(..) => NodeKind::Symlink,
            _ => NodeKind::Directory,
        }
    }

    /// Its inode number.
    pub fn ino(&self) -> Ino {
        match self {
            Self::Root => Ino::ROOT,
            // The upper half of the numbers belongs to incoming files.
            Self::IncomingFile(number) => Ino(1 << 63 | number),
            _ => {
                let digest = Sha256::digest(format!("{self:?}").as_bytes());
                let mut bytes = [0; 8];
                bytes.copy_from_slice(&digest[..8]);
                // Not 0, which means "none", and not the root's 1.
                Ino((u64::from_le_bytes(bytes) >> 1).max(2))
            }
        }
    }
}

/// The nodes the kernel holds references to.
pub struct Nodes {
    held: RwLock<HashMap<Ino, Held>>,
}

struct Held {
    node: Node,
    lookups: AtomicU64,
}

impl Default for Nodes {
    fn default() -> Self {
        let root = Held { node: Node::Root, lookups: AtomicU64::new(1) };
        Self { held: RwLock::new(HashMap::from([(Ino::ROOT, root)])) }
    }
}

impl Nodes {
    /// Counts one lookup of a node.
    pub fn remember(&self, node: &Node) -> Ino {
        let ino = node.ino();
        if let Some(held) = self.held.read().get(&ino) {
            held.lookups.fetch_add(1, Ordering::Relaxed);
            return ino;
        }
        let mut all = self.held.write();
        let held = all.entry(ino).or_insert_with(|| Held { node: node.clone(), lookups: AtomicU64::new(0) });
        held.lookups.fetch_add(1, Ordering::Relaxed);
        ino
    }

    /// What stands behind a number.
    pub fn get(&self, ino: Ino) -> Option<Node> {
        self.held.read().get(&ino).map(|held| held.node.clone())
    }

    /// Takes lookups back.
    pub fn forget(&self, ino: Ino, lookups: u64) {
        if ino == Ino::ROOT {
            return;
        }
        let mut all = self.held.write();
        if let Some(held) = all.get(&ino) {
            let before = held.lookups.fetch_sub(lookups, Ordering::Relaxed);
            if before <= lookups {
                all.remove(&ino);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_stable_and_nodes_live_as_long_as_the_kernel_holds_them() {
        let node = Node::VersionFile(Uid::NIL, VersionFile::Data);
        let nodes = Nodes::default();
        let ino = nodes.remember(&node);
        assert_eq!(nodes.remember(&node), ino);
        assert_ne!(ino, Node::VersionFile(Uid::NIL, VersionFile::Original).ino());
        nodes.forget(ino, 1);
        assert_eq!(nodes.get(ino), Some(node));
        nodes.forget(ino, 1);
        assert_eq!((nodes.get(ino), nodes.get(Ino::ROOT)), (None, Some(Node::Root)));
    }

    #[test]
    fn every_file_has_a_name_of_its_own() {
        for file in VersionFile::ALL {
            assert_eq!(VersionFile::from_file_name(file.file_name()), Some(file));
        }
    }
}
