//! What `incoming/` shows: names, sizes, times.

use crate::fs::errno::Errno;
use crate::fs::incoming::Incoming;
use crate::fs::incoming::file::{File, FileState};
use crate::fs::nodes::Node;
use crate::fs::seam::{Answer, Fh, FileAttr, NodeKind};
use crate::repo::drafts::DraftOwner;
use crate::words::attribute::{FileAttributes, Mtime};
use crate::words::name::Name;
use crate::words::record::ImageRef;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A draft, for `status/drafts`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DraftSummary {
    /// Its name.
    pub name: String,
    /// Bytes so far.
    pub size_bytes: u64,
    /// Why it is not whole, or who writes it.
    pub state: String,
    /// Whether it failed, or its writer did.
    pub is_broken: bool,
}

/// The size tools should use; makes `cp` write in pieces of 1 MiB.
const BLKSIZE: u32 = 1 << 20;

impl Incoming {
    /// Finds a name in a directory.
    pub fn lookup(&self, dir: &str, component: &str) -> Answer<Node> {
        let path = join(dir, component);
        if let Ok(name) = Name::new(&path)
            && self.is_shown(&name)?
        {
            return Ok(Node::IncomingFile(self.table.lock().file(&name).number));
        }
        if self.is_dir(&path)? { Ok(Node::IncomingDir(path)) } else { Err(Errno::ENOENT) }
    }

    /// What a directory holds, in order of names.
    pub fn list(&self, dir: &str) -> Answer<Vec<(String, Node)>> {
        let mut found: BTreeMap<String, bool> = BTreeMap::new();
        let mut candidates = Vec::new();
        let at = (!dir.is_empty()).then_some(dir);
        for child in self.repo.catalog().children(at)? {
            if child.is_dir {
                found.entry(child.component.clone()).or_insert(false);
            }
            if child.is_name {
                candidates.push(join(dir, &child.component));
            }
        }
        let mut others: Vec<String> = self.repo.catalog().draft_names()?.into_iter().map(|n| n.to_string()).collect();
        let table = self.table.lock();
        others.extend(table.below(dir).into_iter().map(|(name, _)| name));
        let dirs = table.dirs_below(dir);
        drop(table);
        let prefix = if dir.is_empty() { String::new() } else { format!("{dir}/") };
        for path in others {
            let Some(rest) = path.strip_prefix(&prefix) else { continue };
            match rest.split_once('/') {
                // A directory is there because of a file below it, if that is shown.
                Some((component, _)) => {
                    if self.is_shown(&Name::new(&path).map_err(|_| Errno::EIO)?)? {
                        found.entry(component.to_owned()).or_insert(false);
                    }
                }
                None => candidates.push(path),
            }
        }
        for path in dirs {
            if let Some(rest) = path.strip_prefix(&prefix) {
                let component = rest.split_once('/').map_or(rest, |(first, _)| first);
                found.entry(component.to_owned()).or_insert(false);
            }
        }
        for path in candidates {
            let Ok(name) = Name::new(&path) else { continue };
            if self.is_shown(&name)? {
                found.insert(name.last().to_owned(), true);
            }
        }
        let mut table = self.table.lock();
        Ok(found
            .into_iter()
            .filter_map(|(component, is_file)| {
                let path = join(dir, &component);
                let node = match is_file {
                    true => Node::IncomingFile(table.file(&Name::new(&path).ok()?).number),
                    false => Node::IncomingDir(path),
                };
                Some((component, node))
            })
            .collect())
    }

    /// stat of a node of this tree.
    pub fn attr(&self, node: &Node, fh: Option<Fh>) -> Answer<FileAttr> {
        match node {
            Node::IncomingFile(number) => self.file_attr(&*self.by_number(*number)?, fh),
            Node::IncomingDir(path) => self.dir_attr(path),
            _ => Err(Errno::EIO),
        }
    }

    /// Every draft.
    pub fn drafts(&self) -> Answer<Vec<DraftSummary>> {
        // One for each name here; each record of somebody else by itself.
        let (mut drafts, mut others) = (BTreeMap::new(), Vec::new());
        for record in self.repo.catalog().drafts()? {
            let state = match &record.broken {
                Some(broken) => format!("incomplete at {}: {}", broken.at, broken.reason),
                None => "durable, not published".to_owned(),
            };
            let name = record.attributes.name.to_string();
            let (size_bytes, is_broken) = (record.image.size_bytes, record.broken.is_some());
            let whose = match self.repo.owner_of_draft(&record)? {
                DraftOwner::Ours => {
                    drafts.insert(name.clone(), DraftSummary { name, size_bytes, state, is_broken });
                    continue;
                }
                DraftOwner::OtherProcess => "of another mount of this host".to_owned(),
                DraftOwner::OtherHost(host) => format!("of host {host}, stored {}", record.created),
            };
            let state = format!("{state} ({whose}; {})", record.uid);
            others.push(DraftSummary { name, size_bytes, state, is_broken });
        }
        let files = self.table.lock().files();
        for file in files {
            let state = file.state.lock();
            let Some(work) = state.work.as_ref().filter(|work| work.is_draft() && !state.detached) else { continue };
            let text = match (&work.error, &work.broken, state.active_writer(None)) {
                (Some(error), ..) => format!("failed: {error}"),
                (None, Some(broken), _) => format!("incomplete at {}: {}", broken.at, broken.reason),
                (None, None, Some(handle)) => match handle.opener {
                    Some(process) => format!("being written by {}", crate::fs::process::describe(process)),
                    None => "being written".to_owned(),
                },
                (None, None, None) => "not published".to_owned(),
            };
            let name = state.name.to_string();
            let size_bytes = work.image.size_bytes();
            let is_broken = work.error.is_some() || work.broken.is_some();
            drafts.insert(name.clone(), DraftSummary { name, size_bytes, state: text, is_broken });
        }
        others.extend(drafts.into_values());
        others.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(others)
    }

    pub(super) fn by_number(&self, number: u64) -> Answer<Arc<File>> {
        self.table.lock().by_number(number).ok_or(Errno::ESTALE)
    }

    /// Whether a name is shown: it has a draft of this mount, or it has anything at all and is not hidden.
    pub(super) fn is_shown(&self, name: &Name) -> Answer<bool> {
        let file = self.table.lock().peek(name);
        if file.is_some_and(|file| file.state.lock().work.as_ref().is_some_and(super::file::Work::is_draft)) {
            return Ok(true);
        }
        let catalog = self.repo.catalog();
        Ok(self.repo.own_draft(name)?.is_some() || (!catalog.is_hidden(name)? && self.is_known(name)?))
    }

    /// Whether a name has versions, or a draft of whoever.
    pub(super) fn is_known(&self, name: &Name) -> Answer<bool> {
        let catalog = self.repo.catalog();
        Ok(catalog.name_exists(name)? || !catalog.drafts_of(name)?.is_empty())
    }

    /// Whether a path is a directory: made, or above something shown.
    pub(super) fn is_dir(&self, path: &str) -> Answer<bool> {
        let table = self.table.lock();
        if path.is_empty() || table.dirs.contains_key(path) || !table.dirs_below(path).is_empty() {
            return Ok(true);
        }
        drop(table);
        Ok(!self.list(path)?.is_empty())
    }

    fn dir_attr(&self, path: &str) -> Answer<FileAttr> {
        let made = self.table.lock().dirs.get(path).copied();
        let node = Node::IncomingDir(path.to_owned());
        let time = Mtime::from(self.repo.clock().now());
        let perm = made.map_or(0o755, |dir| (dir.mode & 0o7777) as u16);
        let (uid, gid) = made.map_or((self.options.uid, self.options.gid), |dir| (dir.uid, dir.gid));
        Ok(FileAttr::directory(node.ino(), time, perm, uid, gid))
    }

    fn file_attr(&self, file: &File, fh: Option<Fh>) -> Answer<FileAttr> {
        let state = file.state.lock();
        let handle = fh.and_then(|fh| state.handles.get(&fh));
        if let Some(work) = state.work.as_ref().filter(|work| work.is_draft())
            && !handle.is_some_and(|handle| handle.pinned && handle.version.is_some())
        {
            let block = self.repo.block_size().bytes_u64();
            let (size, blocks) = (work.image.size_bytes(), work.image.allocated_blocks());
            return Ok(attr_of(file, size, blocks * block, &work.attributes));
        }
        if let Some(image) = handle.and_then(|handle| handle.version.as_ref()).map(|version| *version.image()) {
            let attributes = self.newest_attributes(&state)?;
            return Ok(attr_of_image(file, &image, &attributes));
        }
        if let Some(record) = self.repo.shown_draft(&state.name)?.filter(|_| state.work.is_none()) {
            return Ok(attr_of_image(file, &record.image, &record.attributes.file));
        }
        match self.newest(&state.name)? {
            Some(version) => Ok(attr_of_image(file, &version.record.image, &version.attributes.file)),
            None => match &state.work {
                Some(work) => Ok(attr_of(file, work.image.size_bytes(), 0, &work.attributes)),
                None => Err(Errno::ENOENT),
            },
        }
    }

    fn newest_attributes(&self, state: &FileState) -> Answer<FileAttributes> {
        let newest = self.newest(&state.name)?.map(|version| version.attributes.file);
        let time = Mtime::from(self.repo.clock().now());
        let work = || state.work.as_ref().map(|work| work.attributes);
        Ok(newest.or_else(work).unwrap_or(FileAttributes { mode: 0o600, uid: 0, gid: 0, mtime: time }))
    }

    /// The newest version of a name, whatever its validity.
    pub(super) fn newest(&self, name: &Name) -> Answer<Option<crate::catalog::Version>> {
        let catalog = self.repo.catalog();
        match catalog.versions_of(name)?.last() {
            Some((_, uid)) => Ok(catalog.version(*uid)?),
            None => Ok(None),
        }
    }
}

fn attr_of_image(file: &File, image: &ImageRef, attributes: &FileAttributes) -> FileAttr {
    attr_of(file, image.size_bytes, image.allocated_blocks * image.block_size.bytes_u64(), attributes)
}

fn attr_of(file: &File, size: u64, held_bytes: u64, attributes: &FileAttributes) -> FileAttr {
    FileAttr {
        ino: Node::IncomingFile(file.number).ino(),
        size,
        // Never more than the size: the last block may be partial.
        blocks512: held_bytes.min(size).div_ceil(512),
        atime: attributes.mtime,
        mtime: attributes.mtime,
        ctime: attributes.mtime,
        kind: NodeKind::File,
        perm: (attributes.mode & 0o7777) as u16,
        nlink: 1,
        uid: attributes.uid,
        gid: attributes.gid,
        blksize: BLKSIZE,
    }
}

/// A path below a directory; `""` is the root.
pub(super) fn join(dir: &str, component: &str) -> String {
    if dir.is_empty() { component.to_owned() } else { format!("{dir}/{component}") }
}
