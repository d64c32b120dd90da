//! What a draft says that it is a copy of, it is a copy of: copies from sources beside everything else, stored at any moment.

use crate::format::layout::{DRAFTS, PACKS};
use crate::fs::errno::Errno;
use crate::fs::incoming::PullInto;
use crate::fs::incoming::testing::{ME, Scene, noise, scene_of};
use crate::fs::seam::{Caller, Fallocate, Fh, SetAttr};
use crate::image::ImageReader;
use crate::ops::snapshots::Session;
use crate::repo::testing::{create, open, small};
use crate::source::{Content, Extent, Source, SourceError};
use crate::target::DirTarget;
use crate::target::through::Gate;
use crate::words::attribute::{FileAttributes, Mtime};
use crate::words::name::Name;
use crate::words::record::{ImageRef, Record};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::cell::Cell;
use std::sync::Arc;

const BLOCK: u64 = 4096;
const SIZE: u64 = 24 * BLOCK + 100;

/// A snapshot in memory.
struct Snapshot {
    name: &'static str,
    bytes: Vec<u8>,
}

impl Source for Snapshot {
    fn describe(&self) -> String {
        self.name.to_owned()
    }

    fn size_bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn attributes(&self) -> FileAttributes {
        FileAttributes { mode: 0o600, uid: 0, gid: 0, mtime: Mtime { seconds: 0, nanos: 0 } }
    }

    fn extent_at(&self, offset: u64) -> Result<Extent, SourceError> {
        Ok(Extent { range: offset..self.size_bytes(), content: Content::Data })
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), SourceError> {
        buffer.copy_from_slice(&self.bytes[offset as usize..][..buffer.len()]);
        Ok(())
    }

    fn snapshot_name(&self) -> Option<&str> {
        Some(self.name)
    }
}

/// A copy of a part of one of two sources. Half of it is written before what happens meanwhile, half in the middle of that.
#[derive(Debug, Clone)]
struct Part {
    of: usize,
    from: u64,
    to: u64,
    len: u64,
}

#[derive(Debug, Clone)]
enum Other {
    Store,
    /// And what happens when it puts an object of this prefix.
    StoreSlowly(&'static str, Vec<Other>),
    Write {
        at: u64,
        len: u64,
    },
    Punch {
        at: u64,
        len: u64,
    },
    Truncate {
        size: u64,
    },
    Copy(Part),
}

#[derive(Debug, Clone)]
enum Step {
    /// The next part of the source, and what happens in the middle of it.
    Next {
        len: u64,
        meanwhile: Vec<Other>,
    },
    Other(Other),
}

fn length() -> impl Strategy<Value = u64> {
    prop_oneof![4 => (1..8_u64).prop_map(|blocks| blocks * BLOCK), 1 => 1..9000_u64, 1 => Just(SIZE)]
}

fn part() -> impl Strategy<Value = Part> {
    let place = || prop_oneof![2 => Just(0), 1 => 0..SIZE];
    (0..2_usize, place(), place(), any::<bool>(), length()).prop_map(|(of, from, to, same, len)| {
        let to = if same { from } else { to };
        Part { of, from, to, len }
    })
}

fn change() -> impl Strategy<Value = Other> {
    prop_oneof![
        1 => (0..SIZE, 1..9000_u64).prop_map(|(at, len)| Other::Write { at, len }),
        1 => (0..SIZE, 1..9000_u64).prop_map(|(at, len)| Other::Punch { at, len }),
        1 => (0..2 * SIZE).prop_map(|size| Other::Truncate { size }),
        2 => part().prop_map(Other::Copy),
    ]
}

fn other() -> impl Strategy<Value = Other> {
    let slowly = (prop_oneof![Just(DRAFTS), Just(PACKS)], prop::collection::vec(change(), 0..3));
    prop_oneof![
        4 => Just(Other::Store),
        4 => slowly.prop_map(|(prefix, meanwhile)| Other::StoreSlowly(prefix, meanwhile)),
        4 => change(),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (length(), prop::collection::vec(other(), 0..4)).prop_map(|(len, meanwhile)| Step::Next { len, meanwhile }),
        1 => other().prop_map(Step::Other),
    ]
}

/// A draft, two snapshots, and how often a draft was stored in the middle of a part and knew a snapshot.
struct Copying<'a> {
    scene: &'a Scene,
    gate: &'a Gate,
    name: Name,
    sources: [Arc<Session>; 2],
    copier: (u64, Fh),
    stranger: (u64, Fh),
    cursor: Cell<u64>,
    named: Cell<u64>,
}

impl<'a> Copying<'a> {
    fn new((scene, gate): &'a (Scene, Arc<Gate>), name: &str) -> Self {
        let repo = &scene.world.repo;
        // Each is new to the repository.
        let mut bytes = noise(2 * SIZE as usize);
        bytes.chunks_mut(BLOCK as usize / 4).for_each(|part| part[..name.len()].copy_from_slice(name.as_bytes()));
        let (one, other) = bytes.split_at(SIZE as usize);
        let session =
            |name, bytes: &[u8]| Arc::new(Session::of(repo, Arc::new(Snapshot { name, bytes: bytes.to_vec() })));
        Self {
            scene,
            gate,
            sources: [session("one", one), session("other", other)],
            copier: scene.open(name, true),
            stranger: scene.open(name, false),
            name: Name::new(name).unwrap(),
            cursor: Cell::new(0),
            named: Cell::new(0),
        }
    }

    fn drafts(&self) -> Vec<Record> {
        let mut drafts = self.scene.world.repo.catalog().drafts().unwrap();
        drafts.retain(|draft| draft.attributes.name == self.name);
        drafts
    }

    /// Whether an image begins as the snapshot of this name.
    fn begins_as(&self, image: ImageRef, snapshot: &str, reached: u64) -> bool {
        let source = self.sources.iter().find(|session| session.snapshot_name() == Some(snapshot)).unwrap().source();
        let mut expected = vec![0; reached as usize];
        source.read_at(0, &mut expected).unwrap();
        let mut stored = vec![0; reached as usize];
        let reader = ImageReader::new(Arc::clone(&self.scene.world.repo), image, "a test");
        image.size_bytes >= reached && reader.read_at(0, &mut stored).is_ok() && stored == expected
    }

    /// Everything that is told is true.
    fn check(&self) -> u64 {
        let drafts = self.drafts();
        let mut reached = 0;
        for draft in &drafts {
            let snapshot = &draft.attributes.snapshot_name;
            if !snapshot.is_empty() {
                reached = draft.broken.as_ref().map_or(SIZE, |broken| broken.at);
                assert!(self.begins_as(draft.image, snapshot, reached), "{draft:?}");
            }
        }
        reached
    }

    fn copy(&self, fh: (u64, Fh), part: &Part, meanwhile: &[Other]) -> u64 {
        let session = &self.sources[part.of];
        let caller = Caller { pid: std::process::id(), ..ME };
        let into = PullInto { caller, number: fh.0, fh: fh.1, offset: part.to, from: part.from, session };
        let len = part.len.min(SIZE.saturating_sub(part.from));
        let mut bytes = vec![0; len as usize];
        session.source().read_at(part.from, &mut bytes).unwrap();
        let (begin, end) = bytes.split_at(bytes.len() / 2);
        let copied = self.scene.incoming.pull(&into, |image, _, _| {
            if image.size_bytes() < part.to + len {
                image.truncate(part.to + len)?;
            }
            image.write_at(part.to, begin)?;
            let (before, after) = meanwhile.split_at(meanwhile.len() / 2);
            before.iter().for_each(|other| self.run(other));
            image.write_at(part.to + begin.len() as u64, end)?;
            after.iter().for_each(|other| self.run(other));
            Ok(len)
        });
        copied.unwrap()
    }

    fn run(&self, other: &Other) {
        let (number, fh) = self.stranger;
        let incoming = &self.scene.incoming;
        match other {
            Other::Store => {
                incoming.make_all_durable().unwrap();
                self.named.set(self.named.get() + u64::from(self.check() > 0));
            }
            Other::StoreSlowly(prefix, changes) => {
                let store = || incoming.make_all_durable().unwrap();
                self.gate.meanwhile(prefix, store, || changes.iter().for_each(|change| self.run(change)));
                self.named.set(self.named.get() + u64::from(self.check() > 0));
            }
            Other::Write { at, len } => self.scene.write(self.stranger, *at, &vec![7; *len as usize]),
            Other::Punch { at, len } => incoming.fallocate(ME, number, fh, *at, *len, Fallocate::PunchHole).unwrap(),
            Other::Truncate { size } => {
                let change = SetAttr {
                    mode: None,
                    uid: None,
                    gid: None,
                    size: Some(*size),
                    atime: None,
                    mtime: None,
                    fh: Some(fh),
                };
                incoming.setattr(ME, number, &change).unwrap();
            }
            Other::Copy(part) => {
                self.copy(self.stranger, part, &[]);
            }
        }
    }

    fn next(&self, len: u64, meanwhile: &[Other]) {
        let at = self.cursor.get();
        let copied = self.copy(self.copier, &Part { of: 0, from: at, to: at, len }, meanwhile);
        self.cursor.set(at + copied);
    }

    /// Whoever closes last publishes it.
    fn end(&self) {
        self.scene.close(self.stranger);
        self.scene.close(self.copier);
        self.check();
        let repo = &self.scene.world.repo;
        let Some(uid) = repo.catalog().newest(&self.name).unwrap() else { return };
        let version = repo.version(uid).unwrap();
        let snapshot = &version.attributes.snapshot_name;
        assert!(snapshot.is_empty() || version.record.image.size_bytes == SIZE);
        assert!(snapshot.is_empty() || self.begins_as(version.record.image, snapshot, SIZE));
    }
}

fn world() -> (Scene, Arc<Gate>) {
    let mut world = create(&small());
    let gate = Gate::new(Arc::new(DirTarget::open(world.dir.path().join("target"))));
    world.repo = open(Arc::clone(&gate) as _, &world.dir.path().join("gated"), Arc::default()).unwrap();
    (scene_of(world), gate)
}

#[test]
fn what_is_stored_while_the_next_part_is_copied_knows_how_far_it_is() {
    let world = world();
    let copying = Copying::new(&world, "vm");
    copying.next(4 * BLOCK, &[Other::Store]);
    assert_eq!(copying.drafts()[0].attributes.snapshot_name, "", "of the first part nothing is sure");
    copying.next(4 * BLOCK, &[Other::Store]);
    assert_eq!(copying.check(), 4 * BLOCK);
    copying.next(4 * BLOCK, &[Other::Write { at: 0, len: 1 }, Other::Store]);
    assert_eq!(copying.drafts()[0].attributes.snapshot_name, "", "somebody else wrote");
    copying.next(SIZE, &[Other::Store]);
    assert_eq!(copying.drafts()[0].attributes.snapshot_name, "");
    copying.end();
    let repo = &world.0.world.repo;
    let version = |name: &Name| repo.version(repo.catalog().newest(name).unwrap().unwrap()).unwrap();
    assert_eq!(version(&copying.name).attributes.snapshot_name, "");
    let copying = Copying::new(&world, "whole");
    copying.next(4 * BLOCK, &[Other::Store]);
    copying.next(SIZE, &[Other::Store]);
    copying.end();
    assert_eq!(version(&copying.name).attributes.snapshot_name, "one");
}

#[test]
fn what_others_wrote_before_it_is_not_the_source() {
    let world = world();
    let copying = Copying::new(&world, "vm");
    copying.run(&Other::Write { at: 0, len: SIZE });
    copying.next(4 * BLOCK, &[]);
    // Who has closed it says nothing about the place any more.
    let (number, fh) = copying.copier;
    world.0.incoming.flush(Caller { pid: std::process::id(), ..ME }, number, fh).unwrap();
    copying.next(4 * BLOCK, &[Other::Store]);
    assert_eq!(copying.check(), 4 * BLOCK);
}

#[test]
fn what_is_copied_while_the_part_before_it_is_stored_is_not_told() {
    let world = world();
    for prefix in [PACKS, DRAFTS] {
        let copying = Copying::new(&world, if prefix == PACKS { "one" } else { "two" });
        copying.next(4 * BLOCK, &[]);
        let store = || world.0.incoming.make_all_durable().unwrap();
        assert!(world.1.meanwhile(prefix, store, || copying.next(4 * BLOCK, &[])));
        assert_eq!(copying.check(), 4 * BLOCK);
        copying.end();
        // Nor is what became the source again since.
        let copying = Copying::new(&world, if prefix == PACKS { "three" } else { "four" });
        copying.next(8 * BLOCK, &[]);
        let anew = || {
            copying.run(&Other::Write { at: 0, len: 9 });
            let part = Part { of: 0, from: 0, to: 0, len: 4 * BLOCK };
            for _ in 0..2 {
                copying.copy(copying.copier, &part, &[]);
            }
        };
        assert!(world.1.meanwhile(prefix, store, anew));
        copying.check();
        copying.end();
    }
}

#[test]
fn what_is_said_while_it_is_stored_is_stored_next() {
    let world = world();
    let copying = Copying::new(&world, "vm");
    let (scene, gate) = &world;
    copying.next(4 * BLOCK, &[]);
    let file = scene.incoming.by_number(copying.copier.0).unwrap();
    let store = || scene.incoming.make_all_durable().unwrap();
    let is_volatile = || file.state.lock().work.as_ref().unwrap().is_volatile();
    let say = || {
        assert!(is_volatile(), "it is not durable before it is stored");
        file.state.lock().work.as_mut().unwrap().said += 1;
    };
    assert!(gate.meanwhile(DRAFTS, store, say));
    assert!(is_volatile());
    store();
    assert!(!is_volatile());
}

#[test]
fn a_part_that_fails_leaves_what_was_before_it() {
    let world = world();
    let copying = Copying::new(&world, "vm");
    copying.next(4 * BLOCK, &[]);
    let (number, fh) = copying.copier;
    let at = 4 * BLOCK;
    let into = PullInto { caller: ME, number, fh, offset: at, from: at, session: &copying.sources[0] };
    let failed = world.0.incoming.pull(&into, |image, _, _| {
        image.write_at(at, b"a half")?;
        copying.run(&Other::Store);
        Err(Errno::EIO)
    });
    assert_eq!(failed, Err(Errno::EIO));
    assert_eq!(copying.check(), at);
}

#[test]
fn what_a_draft_says_of_its_source_is_true_whatever_happens_meanwhile() {
    let world = world();
    let (names, named) = (Cell::new(0), Cell::new(0));
    let mut runner =
        TestRunner::new(Config { cases: 400, failure_persistence: None, max_shrink_iters: 100, ..Config::default() });
    let outcome = runner.run(&prop::collection::vec(step(), 1..12), |steps| {
        names.set(names.get() + 1);
        let copying = Copying::new(&world, &format!("vm{}", names.get()));
        for step in &steps {
            match step {
                Step::Next { len, meanwhile } => copying.next(*len, meanwhile),
                Step::Other(other) => copying.run(other),
            }
        }
        copying.end();
        named.set(named.get() + copying.named.get());
        Ok(())
    });
    outcome.unwrap();
    assert!(named.get() > 50, "{} drafts knew a snapshot", named.get());
}
