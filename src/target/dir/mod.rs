//! A directory of a mounted filesystem as a target: local disk, USB disk, NFS.
//!
//! An upload is written to `tmp/`, synced, renamed to its key, and the directory is synced: after a power loss the object is
//! there and whole, or not there. `tmp/` lies in the same directory tree, so a rename never crosses filesystems.
//!
//! NFS: the server must export with `sync` (the default of knfsd), or fsync promises nothing. Closed files are reopened by every
//! call, which gives close-to-open consistency of contents; a listing or a look-up may still come from the client's cache, so a
//! target shared by several hosts must be mounted with `actimeo=0,lookupcache=none`. A server that restarted or lost a handle
//! answers ESTALE; a call that gets it begins anew, once. NFS has no rename that does not replace; hard links stand in.

mod root;
mod shared;
mod step;
mod upload;

pub use step::{Gate, Step};

use crate::format::layout::{self, ObjectKey};
use crate::target::{Coherence, ObjectInfo, Put, Space, Target, TargetError};
use crate::words::clock::{Clock, SystemClock};
use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::stat::{Mode, SFlag, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};
use root::{Root, Trouble, split, sync_directory};
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use upload::{Existing, Upload, sweep};

/// What a filesystem may put into a fresh root directory.
const NOT_FOREIGN: [&str; 1] = ["lost+found"];

/// A directory as a target. Holds no descriptor between calls.
pub struct DirTarget {
    root: PathBuf,
    /// Makes the names of temporary files unique among all writers of all hosts.
    uploader: u64,
    uploads: AtomicU64,
    gate: Arc<dyn Gate>,
}

impl DirTarget {
    /// The target at an absolute path. Temporary files of dead writers are removed, where that is possible.
    pub fn open(root: impl Into<PathBuf>) -> Self {
        Self::open_gated(root, Arc::new(step::Open))
    }

    /// As [`DirTarget::open`], with a gate before each step.
    pub fn open_gated(root: impl Into<PathBuf>, gate: Arc<dyn Gate>) -> Self {
        let mut uploader = [0; 8];
        SystemClock.random(&mut uploader);
        let uploader = u64::from_le_bytes(uploader);
        let target = Self { root: root.into(), uploader, uploads: AtomicU64::new(0), gate };
        if let Ok(tmp) = Root::open(&target.root).and_then(|root| root.directory(layout::TMP)) {
            sweep(tmp);
        }
        target
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// Runs a call on the opened root, and once more when a handle went stale.
    fn call<T>(&self, mut call: impl FnMut(&Root) -> Result<T, Trouble>) -> Result<T, Trouble> {
        let mut once = || Root::open(&self.root).and_then(|root| call(&root));
        match once() {
            Err(Trouble::Errno(Errno::ESTALE)) => once(),
            done => done,
        }
    }

    fn upload(&self, key: &ObjectKey, parts: &[&[u8]], existing: Existing) -> Result<Put, TargetError> {
        let (directory, name) = split(key.as_str());
        let once = || {
            self.call(|root| {
                // Both directories before the first byte: an unmounted target is found at once.
                let (tmp, home) = (root.directory(layout::TMP)?, root.directory(directory)?);
                let unique = self.uploads.fetch_add(1, Ordering::Relaxed);
                let temporary = format!("{:016x}-{unique}", self.uploader);
                let mut upload = Upload::create(&tmp, &temporary, &*self.gate)?;
                upload.write(parts)?;
                upload.publish(&home, name, existing)
            })
        };
        match once() {
            Err(Trouble::UploadRemoved) => once(),
            done => done,
        }
        .map_err(|trouble| trouble.named(self.describe(), "writing", key))
    }

    fn prepare_root(&self) -> Result<(), Trouble> {
        if let Err(error) = std::fs::symlink_metadata(&self.root) {
            // Only the last component: a missing parent is a typing error or a disk that is not mounted.
            let parent = self.root.parent().filter(|_| error.kind() == std::io::ErrorKind::NotFound);
            let (parent, name) = parent.zip(self.root.file_name()).ok_or(error)?;
            let parent = Root::open(parent)?.directory(".")?;
            self.gate.pass(Step::MakeDirectory)?;
            tolerate(mkdirat(&parent, name, Mode::S_IRWXU), Errno::EEXIST)?;
            sync_directory(&parent)?;
        }
        let root = Root::open(&self.root)?;
        let directories = layout::directories();
        for (name, _) in entries(root.directory(".")?)? {
            if !(directories.contains(&name) || name == layout::HEADER || NOT_FOREIGN.contains(&name.as_str())) {
                return Err(Trouble::Occupied(name));
            }
        }
        for name in &directories {
            self.gate.pass(Step::MakeDirectory)?;
            tolerate(mkdirat(root.fd(), name.as_str(), Mode::S_IRWXU), Errno::EEXIST)?;
        }
        sync_directory(&root.directory(layout::PACKS)?)?;
        self.gate.pass(Step::SyncDirectory)?;
        Ok(sync_directory(&root.directory(".")?)?)
    }
}

impl Target for DirTarget {
    fn describe(&self) -> String {
        format!("dir:{}", self.root.display())
    }

    fn coherence(&self) -> Coherence {
        let looked = std::fs::read("/proc/self/mountinfo").and_then(|table| Ok((table, self.root.canonicalize()?)));
        match looked {
            Ok((table, dir)) => shared::coherence(&table, &dir),
            Err(error) => Coherence::Doubtful(format!("it is not known on which filesystem it lies: {error}")),
        }
    }

    fn prepare(&self) -> Result<(), TargetError> {
        self.prepare_root().map_err(|trouble| trouble.named_text(self.describe(), "preparing", "it"))
    }

    fn put(&self, key: &ObjectKey, parts: &[&[u8]]) -> Result<(), TargetError> {
        self.upload(key, parts, Existing::Replace).map(drop)
    }

    fn put_new(&self, key: &ObjectKey, parts: &[&[u8]]) -> Result<Put, TargetError> {
        self.upload(key, parts, Existing::Keep)
    }

    fn get(&self, key: &ObjectKey) -> Result<Vec<u8>, TargetError> {
        let read = |root: &Root| {
            let mut file = root.object(key.as_str())?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        self.call(read).map_err(|trouble| trouble.named(self.describe(), "reading", key))
    }

    fn read_at(&self, key: &ObjectKey, offset: u64, buf: &mut [u8]) -> Result<(), TargetError> {
        self.call(|root| read_exact_at(&root.object(key.as_str())?, offset, buf))
            .map_err(|trouble| trouble.named(self.describe(), "reading", key))
    }

    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, TargetError> {
        self.call(|root| {
            let mut found = Vec::new();
            // The root itself is there when nothing is mounted on it; what prepare made is not.
            root.directory(layout::TMP)?;
            let directory = prefix.rsplit_once('/').map_or("", |(directory, _)| directory);
            walk(root, directory, prefix, &mut found)?;
            found.sort_by(|a: &ObjectInfo, b| a.key.cmp(&b.key));
            Ok(found)
        })
        .map_err(|trouble| trouble.named_text(self.describe(), "listing", prefix))
    }

    fn delete(&self, key: &ObjectKey) -> Result<(), TargetError> {
        let (directory, name) = split(key.as_str());
        self.call(|root| {
            let home = root.directory(directory)?;
            self.gate.pass(Step::Unlink)?;
            match unlinkat(&home, name, UnlinkatFlags::NoRemoveDir) {
                Err(Errno::ENOENT) => match root.missing(key.as_str()) {
                    Trouble::Absent => {}
                    trouble => return Err(trouble),
                },
                done => done?,
            }
            self.gate.pass(Step::SyncDirectory)?;
            Ok(sync_directory(&home)?)
        })
        .map_err(|trouble| trouble.named(self.describe(), "deleting", key))
    }

    fn space(&self) -> Result<Space, TargetError> {
        // Of a directory that prepare made: an empty mountpoint would answer for the filesystem below it.
        self.call(|root| {
            let stat = nix::sys::statvfs::fstatvfs(root.directory(layout::TMP)?)?;
            let bytes = |blocks: u64| blocks.saturating_mul(stat.fragment_size());
            Ok(Space { total_bytes: bytes(stat.blocks()), free_bytes: bytes(stat.blocks_available()) })
        })
        .map_err(|trouble| trouble.named_text(self.describe(), "asking the size of", "it"))
    }
}

fn tolerate(result: Result<(), Errno>, expected: Errno) -> Result<(), Errno> {
    result.or_else(|errno| if errno == expected { Ok(()) } else { Err(errno) })
}

fn read_exact_at(file: &File, offset: u64, buf: &mut [u8]) -> Result<(), Trouble> {
    match file.read_exact_at(buf, offset) {
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            Err(Trouble::Short { offset, wanted_bytes: buf.len() as u64, size_bytes: file.metadata()?.len() })
        }
        done => Ok(done?),
    }
}

/// Names in a directory and what they are, without `.` and `..`.
fn entries(directory: OwnedFd) -> Result<Vec<(String, Option<Type>)>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::from_fd(directory)?.iter() {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name != "." && name != ".." {
            names.push((name, entry.file_type()));
        }
    }
    Ok(names)
}

/// Collects the objects below `directory` ("" for the root) whose keys start with `prefix`.
fn walk(root: &Root, directory: &str, prefix: &str, found: &mut Vec<ObjectInfo>) -> Result<(), Trouble> {
    let home = root.directory(if directory.is_empty() { "." } else { directory })?;
    for (name, kind) in entries(home.try_clone()?)? {
        let path = if directory.is_empty() { name.clone() } else { format!("{directory}/{name}") };
        let Ok(key) = ObjectKey::new(&path) else { continue };
        if !path.starts_with(prefix) || layout::TMP.trim_end_matches('/') == path || NOT_FOREIGN.contains(&&*path) {
            continue;
        }
        // Asking for each costs more than the listing, so only sizes that matter are asked for. Not every filesystem tells
        // the type in a listing; every one does when asked.
        let stat = match kind {
            Some(Type::Directory) => None,
            Some(Type::File) if !path.starts_with(layout::PACKS) => {
                found.push(ObjectInfo { key, size_bytes: None });
                continue;
            }
            _ => match fstatat(&home, name.as_str(), AtFlags::empty()) {
                Err(Errno::ENOENT) => continue, // Deleted since the directory was read.
                stat => Some(stat?),
            },
        };
        let is = |kind| stat.is_some_and(|s| SFlag::from_bits_truncate(s.st_mode) & SFlag::S_IFMT == kind);
        if stat.is_none() || is(SFlag::S_IFDIR) {
            walk(root, &path, prefix, found)?;
        } else if is(SFlag::S_IFREG) {
            let size_bytes = stat.and_then(|s| u64::try_from(s.st_size).ok());
            found.push(ObjectInfo { key, size_bytes });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
