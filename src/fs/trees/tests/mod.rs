//! The trees without a mount: a real repository in a temporary directory, called directly.

mod browse;
mod change;
mod data;
mod limits;
mod many;

use crate::fs::errno::Errno;
use crate::fs::nodes::{Node, VersionFile};
use crate::fs::seam::{Access, Answer, Caller, Fh, Ino, KernelCache, OpenRequest, Opened, WriteOrigin, WriteRequest};
use crate::fs::trees::{Trees, TreesOptions};
use crate::image::DraftImage;
use crate::repo::testing::{TestRepository, create, small};
use crate::words::attribute::{Attributes, FileAttributes, Mtime};
use crate::words::clock::ClockExt;
use crate::words::ids::{DraftId, HostId, Uid};
use crate::words::name::Name;
use crate::words::record::{ImageRef, Record, RecordKind, Stats};
use crate::words::stamp::Stamp;
use parking_lot::Mutex;
use std::ffi::OsStr;
use std::sync::Arc;

/// 2026-11-22T18:31:02Z.
const AT: i64 = 1_795_372_262_000;

/// Nothing is mounted; remembers what was to be forgotten.
#[derive(Default)]
struct FakeKernel(Mutex<Vec<Ino>>);

impl KernelCache for FakeKernel {
    fn drop_pages(&self, ino: Ino) -> Answer<()> {
        self.0.lock().push(ino);
        Ok(())
    }
    fn drop_attributes(&self, _: Ino) {}
    fn drop_name(&self, _: Ino, _: &OsStr) {}
}

struct World {
    kernel: Arc<FakeKernel>,
    trees: Trees,
    test: TestRepository,
}

fn options(min_age_days: u32) -> TreesOptions {
    let protect_younger = std::time::Duration::from_secs(u64::from(min_age_days) * 86_400);
    TreesOptions { protect_younger, ..TreesOptions::default() }
}

fn world() -> World {
    world_with(0)
}

fn world_with(min_age_days: u32) -> World {
    let (test, kernel) = (create(&small()), Arc::new(FakeKernel::default()));
    let (repo, cache) = (Arc::clone(&test.repo), Arc::clone(&kernel));
    let trees = Trees::new(repo, options(min_age_days), cache, Box::new(|| Ok(Vec::new())));
    World { kernel, trees, test }
}

fn caller() -> Caller {
    Caller { uid: 0, gid: 0, pid: std::process::id() }
}

fn read_only() -> OpenRequest {
    let access = Access::Read;
    OpenRequest { access, append: false, truncate: false, exclusive: false, direct: false, sync: false, exec: false }
}

fn write_only() -> OpenRequest {
    OpenRequest { access: Access::Write, ..read_only() }
}

/// As a shell does for `>`.
fn shell() -> OpenRequest {
    OpenRequest { truncate: true, ..write_only() }
}

/// As a shell does for `>>`.
fn shell_append() -> OpenRequest {
    OpenRequest { append: true, ..write_only() }
}

fn record(uid: Uid, name: &str, created: Stamp, image: ImageRef) -> Record {
    let mtime = Mtime { seconds: 1_000_000_000, nanos: 5 };
    let file = FileAttributes { mode: 0o640, uid: 12, gid: 34, mtime };
    let attributes = Attributes::new(Name::new(name).unwrap(), file);
    Record {
        uid,
        kind: RecordKind::Version,
        created,
        host: HostId::NIL,
        image,
        base: Uid::NIL,
        supersedes: Uid::NIL,
        draft: DraftId::NIL,
        start: image,
        broken: None,
        attributes,
        stats: Stats::default(),
    }
}

impl World {
    /// Backs bytes up under a name, at so many milliseconds after [`AT`].
    fn back_up(&self, name: &str, millis: i64, bytes: &[u8]) -> Uid {
        let repo = &self.test.repo;
        let empty = ImageRef::empty(repo.block_size());
        let draft = DraftImage::new(Arc::clone(repo), empty, None);
        draft.write_at(0, bytes).unwrap();
        let image = draft.settle().unwrap().image;
        let created = Stamp::from_millis(AT + millis);
        let record = record(repo.clock().uid_at(created), name, created, image);
        repo.publish(&record, &[]).unwrap();
        record.uid
    }

    /// What lies at a path.
    fn at(&self, path: &str) -> Answer<Node> {
        let mut parts = path.split('/');
        let mut node = match parts.next() {
            Some("by_version") => Node::Versions,
            Some("by_name") => Node::NameDir(String::new()),
            Some("by_tag") => Node::Tags,
            _ => Node::Status,
        };
        for part in parts {
            node = self.trees.lookup(caller(), &node, part)?;
            // Whatever is found has attributes and is listed by its directory.
            self.trees.attr(&node)?;
        }
        Ok(node)
    }

    fn ls(&self, path: &str) -> Vec<String> {
        let listed = self.trees.list(&self.at(path).unwrap()).unwrap();
        for (name, node) in &listed {
            let found = self.trees.lookup(caller(), &self.at(path).unwrap(), name.to_str().unwrap());
            assert_eq!(found.as_ref(), Ok(node), "{path}/{name:?}");
        }
        listed.into_iter().map(|(name, _)| name.into_string().unwrap()).collect()
    }

    fn file(&self, uid: Uid, file: VersionFile) -> Node {
        Node::VersionFile(uid, file)
    }

    fn open(&self, node: &Node, request: &OpenRequest) -> Answer<Opened> {
        self.trees.open(caller(), node, request)
    }

    /// Reads a whole file as `cat` does, and checks its size.
    fn cat(&self, node: &Node) -> Answer<Vec<u8>> {
        let opened = self.open(node, &read_only())?;
        let mut whole = Vec::new();
        loop {
            let mut part = Vec::new();
            self.trees.read(node, opened.fh, whole.len() as u64, 10_000, &mut part)?;
            if part.is_empty() {
                break;
            }
            whole.extend(part);
        }
        self.trees.release(node, opened.fh);
        assert_eq!(self.trees.attr(node).unwrap().size, whole.len() as u64, "{node:?}");
        Ok(whole)
    }

    fn text(&self, uid: Uid, file: VersionFile) -> String {
        String::from_utf8(self.cat(&self.file(uid, file)).unwrap()).unwrap()
    }

    fn write(&self, node: &Node, fh: Fh, offset: u64, data: &[u8]) -> Answer<usize> {
        let (ino, origin, append) = (node.ino(), WriteOrigin::Call, false);
        self.trees.write(node, &WriteRequest { ino, fh, offset, data, origin, append, caller: caller() })
    }

    /// Opens, writes some pieces one after the other, closes; the error of the first piece that fails.
    fn echo(&self, uid: Uid, file: VersionFile, request: &OpenRequest, pieces: &[&str]) -> Answer<()> {
        let node = self.file(uid, file);
        let opened = self.open(&node, request)?;
        let mut offset = 0;
        let written = pieces.iter().try_for_each(|piece| {
            let taken = self.write(&node, opened.fh, offset, piece.as_bytes())?;
            offset += taken as u64;
            Ok(())
        });
        self.trees.flush(caller(), &node, opened.fh).unwrap();
        self.trees.release(&node, opened.fh);
        written
    }

    fn rmdir(&self, uid: Uid) -> Answer<()> {
        self.trees.rmdir(caller(), &Node::Versions, &uid.to_string())
    }
}

/// The same for every test: a version that does not exist.
#[test]
fn nothing_is_nowhere() {
    let w = world();
    for path in [
        "by_version/x",
        "by_version/00000000-0000-0000-0000-000000000000",
        "by_name/x",
        "by_tag/x",
        "status/x",
        "by_name/2026-11-22T18:31:02Z",
        "by_name/latest",
    ] {
        assert_eq!(w.at(path), Err(Errno::ENOENT), "{path}");
    }
    assert_eq!(w.at(&format!("by_name/{}", "x".repeat(256))), Err(Errno::ENAMETOOLONG));
    for path in ["by_version", "by_name", "by_tag"] {
        assert!(w.ls(path).is_empty());
    }
    assert_eq!(w.ls("status").len(), crate::fs::nodes::StatusFile::ALL.len());
}
