//! What `stat` shows in the trees: sizes are true, times are the backup's, owner and mode are the version's.

use crate::catalog::VersionSummary;
use crate::fs::errno::Errno;
use crate::fs::nodes::{Node, StatusFile, VersionFile};
use crate::fs::seam::{Answer, FileAttr};
use crate::fs::trees::status::Purpose;
use crate::fs::trees::value::{self, Attribute};
use crate::fs::trees::{Trees, limits, versions};
use crate::words::attribute::Mtime;
use crate::words::ids::Uid;
use crate::words::stamp::Stamp;
use std::fmt::Write as _;
use std::time::Duration;

/// The size in which tools should read images; makes `cp` fast.
const IMAGE_BLKSIZE: u32 = 1 << 20;
const TEXT_BLKSIZE: u32 = 4096;

/// Of what does not change but for its mode and owner, which another process or host may change at any time; and of `data`, which
/// changes through this mount only, and the kernel knows what it has written.
const FACTS_TTL: Duration = Duration::from_secs(1);

/// How long the attributes of a node hold.
pub(super) fn ttl(node: &Node) -> Duration {
    match node {
        Node::VersionFile(_, file) => match file {
            VersionFile::Data | VersionFile::Original => FACTS_TTL,
            VersionFile::Created | VersionFile::Size | VersionFile::Stats => FACTS_TTL,
            _ => Duration::ZERO,
        },
        _ => Duration::ZERO,
    }
}

/// What differs between the files of a version.
struct FileShape {
    size: u64,
    held_bytes: u64,
    mtime: Mtime,
    mode: u32,
    blksize: u32,
}

/// The attribute behind a file, if it is an attribute file.
pub(super) fn attribute_of(file: VersionFile) -> Option<Attribute> {
    match file {
        VersionFile::Name => Some(Attribute::Name),
        VersionFile::SnapshotName => Some(Attribute::SnapshotName),
        VersionFile::Tags => Some(Attribute::Tags),
        VersionFile::Expire => Some(Attribute::Expire),
        VersionFile::Protected => Some(Attribute::Protected),
        VersionFile::Valid => Some(Attribute::Valid),
        _ => None,
    }
}

/// Who may do what with a file: derived from the mode of the version. Its owner may always change attributes; others may read
/// them if they may read the image.
fn mode_of(file: VersionFile, mode: u32) -> u32 {
    match file {
        VersionFile::Data => mode & 0o777,
        VersionFile::Original => mode & 0o555,
        VersionFile::Overlay => 0o600 | mode & 0o066,
        VersionFile::Created | VersionFile::Size | VersionFile::Stats => 0o400 | mode & 0o044,
        _ => 0o600 | mode & 0o044,
    }
}

/// Who may read the image may look into the directory of its version.
fn directory_mode(mode: u32) -> u32 {
    0o700 | mode & 0o044 | (mode & 0o044) >> 2
}

fn stats_text(version: &VersionSummary) -> String {
    let stats = &version.stats;
    let none_or = |uid: Uid| if uid.is_nil() { "none".to_owned() } else { uid.to_string() };
    let mut text = String::new();
    let block_bytes = version.image.block_size.bytes_u64();
    for (key, number) in [
        ("written_bytes", stats.written_bytes),
        ("unchanged_bytes", stats.unchanged_bytes),
        ("deduplicated_bytes", stats.deduplicated_bytes),
        ("zero_bytes", stats.zero_bytes),
        ("new_bytes", stats.new_bytes),
        ("stored_bytes", stats.stored_bytes),
        ("duration_ms", stats.duration_ms),
        ("block_size_bytes", block_bytes),
        ("allocated_bytes", held_bytes(version, 0)),
    ] {
        let _ = writeln!(text, "{key} {number}");
    }
    let _ = writeln!(text, "created {}", version.created.to_millis_text());
    let _ = writeln!(text, "host {}", version.host);
    let _ = writeln!(text, "base {}", none_or(version.base));
    let _ = writeln!(text, "supersedes {}", none_or(version.supersedes));
    text
}

/// Bytes of a version that are not holes, and of its overlay. Never more than its size: `cp` would take that for a mistake.
fn held_bytes(version: &VersionSummary, overlay_bytes: u64) -> u64 {
    let blocks = version.image.allocated_blocks.saturating_mul(version.image.block_size.bytes_u64());
    blocks.saturating_add(overlay_bytes).min(version.image.size_bytes)
}

impl Trees {
    /// The attributes of a node.
    pub fn attr(&self, node: &Node) -> Answer<FileAttr> {
        match node {
            Node::Versions | Node::Tags | Node::Status => self.directory(node, self.newest_below("")?),
            Node::NameDir(path) if path.is_empty() => self.directory(node, self.newest_below("")?),
            Node::NameDir(path) => self.directory(node, Some(self.newest_below(path)?.ok_or(Errno::ENOENT)?)),
            Node::TagDir(tag, path) => {
                let newest = self.newest_tagged(tag, path)?.ok_or(Errno::ENOENT)?;
                self.directory(node, Some(newest.created))
            }
            Node::Version(uid) => {
                let version = self.version(*uid)?;
                let file = version.attributes.file;
                let mut attr = self.directory(node, Some(version.created))?;
                (attr.perm, attr.uid, attr.gid) = (perm(directory_mode(file.mode)), file.uid, file.gid);
                Ok(attr)
            }
            Node::VersionFile(uid, file) => self.file(node, &self.version(*uid)?, *file),
            Node::NameLink(name, _) => {
                let version = self.resolve_link(node)?;
                self.link(node, &version, versions::link(version.uid, 1, name).len())
            }
            Node::TagLink(_, name, _) => {
                let version = self.resolve_link(node)?;
                self.link(node, &version, versions::link(version.uid, 2, name).len())
            }
            Node::StatusFile(file) => {
                let now = Mtime::from(self.repo.clock().now());
                let is_limit = limits::throttle(&self.options.limits, *file).is_some();
                let mode = match file {
                    _ if is_limit => 0o644,
                    // What goes wrong may tell more than who may only read should know.
                    StatusFile::Log => 0o400,
                    _ => 0o444,
                };
                let attr = self.plain(node, now, mode);
                let size = self.status_text(*file, Purpose::Look).len() as u64;
                Ok(FileAttr { size, blocks512: size.div_ceil(512), ..attr })
            }
            Node::Root
            | Node::IncomingDir(_)
            | Node::IncomingFile(_)
            | Node::Sources
            | Node::SourceDir(..)
            | Node::SourceFile(..) => Err(Errno::ENOENT),
        }
    }

    fn plain(&self, node: &Node, time: Mtime, mode: u32) -> FileAttr {
        FileAttr {
            ino: node.ino(),
            size: 0,
            blocks512: 0,
            atime: time,
            mtime: time,
            ctime: time,
            kind: node.kind(),
            perm: perm(mode),
            nlink: 1,
            uid: self.options.uid,
            gid: self.options.gid,
            blksize: TEXT_BLKSIZE,
        }
    }

    /// Links of directories are not counted: 1 says so (find and others go by it).
    fn directory(&self, node: &Node, newest: Option<Stamp>) -> Answer<FileAttr> {
        let time = Mtime::from(newest.unwrap_or(self.repo.header().created));
        Ok(self.plain(node, time, 0o755))
    }

    fn link(&self, node: &Node, version: &VersionSummary, target_len: usize) -> Answer<FileAttr> {
        let attr = self.plain(node, version.created.into(), 0o777);
        let file = version.attributes.file;
        Ok(FileAttr { size: target_len as u64, uid: file.uid, gid: file.gid, ..attr })
    }

    fn file(&self, node: &Node, version: &VersionSummary, file: VersionFile) -> Answer<FileAttr> {
        let owner = version.attributes.file;
        let shape = self.shape(version, file)?;
        Ok(FileAttr {
            size: shape.size,
            blocks512: shape.held_bytes.div_ceil(512),
            uid: owner.uid,
            gid: owner.gid,
            blksize: shape.blksize,
            ..self.plain(node, shape.mtime, shape.mode)
        })
    }

    fn shape(&self, version: &VersionSummary, file: VersionFile) -> Answer<FileShape> {
        let mode = mode_of(file, version.attributes.file.mode);
        let image = |held_bytes, mtime| {
            let (size, blksize) = (version.image.size_bytes, IMAGE_BLKSIZE);
            Ok(FileShape { size, held_bytes, mtime, mode, blksize })
        };
        let made = version.attributes.file.mtime;
        match file {
            VersionFile::Original => image(held_bytes(version, 0), made),
            VersionFile::Data => {
                let disk = self.disks.existing(version);
                let overlay_bytes = disk.as_ref().map_or(0, |disk| disk.overlay_bytes());
                let written = disk.and_then(|disk| disk.last_write());
                image(held_bytes(version, overlay_bytes), written.unwrap_or(made))
            }
            _ => {
                let size = self.file_text(version, file)?.len() as u64;
                let mtime = version.created.into();
                Ok(FileShape { size, held_bytes: size, mtime, mode, blksize: TEXT_BLKSIZE })
            }
        }
    }

    /// What a small file of a version holds.
    pub(super) fn file_text(&self, version: &VersionSummary, file: VersionFile) -> Answer<String> {
        if let Some(attribute) = attribute_of(file) {
            return Ok(value::render(attribute, &version.attributes));
        }
        match file {
            VersionFile::Created => Ok(format!("{}\n", version.created.to_seconds_text())),
            VersionFile::Size => Ok(format!("{}\n", version.image.size_bytes)),
            VersionFile::Stats => Ok(stats_text(version)),
            VersionFile::Overlay => {
                let disk = self.disks.existing(version);
                Ok(format!("{}\n", disk.map_or(0, |disk| disk.overlay_bytes())))
            }
            _ => Err(Errno::EINVAL),
        }
    }
}

fn perm(mode: u32) -> u16 {
    u16::try_from(mode & 0o7777).expect("twelve bits fit")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_follow_the_mode_of_the_version() {
        for (mode, data, original, tags, created, overlay, directory) in [
            (0o600, 0o600, 0o400, 0o600, 0o400, 0o600, 0o700),
            (0o644, 0o644, 0o444, 0o644, 0o444, 0o644, 0o755),
            (0o660, 0o660, 0o440, 0o640, 0o440, 0o660, 0o750),
            (0o4755, 0o755, 0o555, 0o644, 0o444, 0o644, 0o755),
            (0o000, 0o000, 0o000, 0o600, 0o400, 0o600, 0o700),
        ] {
            assert_eq!(mode_of(VersionFile::Data, mode), data);
            assert_eq!(mode_of(VersionFile::Original, mode), original);
            assert_eq!(mode_of(VersionFile::Tags, mode), tags);
            assert_eq!(mode_of(VersionFile::Created, mode), created);
            assert_eq!(mode_of(VersionFile::Overlay, mode), overlay);
            assert_eq!(directory_mode(mode), directory, "{mode:o}");
        }
    }
}
