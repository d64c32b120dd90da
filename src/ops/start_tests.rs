//! What it costs to begin: opening a repository that this host knows, at a target whose lists come in pages of a thousand.

use crate::format::frame::FrameKind;
use crate::format::layout;
use crate::format::{attribute, record};
use crate::ops::Interrupt;
use crate::ops::backup::{Backup, backup};
use crate::ops::hosts_tests::noise;
use crate::repo::testing::{attributes, open, put_sealed, small};
use crate::repo::{Repository, object_id};
use crate::source::Recipe;
use crate::target::memory::{MemoryTarget, PAGE_MAX};
use crate::target::{Call, Operation, RecordingTarget, Target};
use crate::words::attribute::{AttributeChange, AttributeEntry};
use crate::words::clock::{Clock, ClockExt, SystemClock};
use crate::words::geometry::BlockSize;
use crate::words::ids::{DraftId, Uid};
use crate::words::monitor::{Silent, Tally};
use crate::words::name::Name;
use crate::words::record::{ImageRef, Record, RecordKind, Stats};
use std::path::Path;
use std::sync::Arc;

struct World {
    asked: Arc<RecordingTarget<Arc<MemoryTarget>>>,
    dir: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let memory = Arc::new(MemoryTarget::default());
        memory.set_paged();
        let asked = Arc::new(RecordingTarget::new(memory));
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        Repository::create(&*asked, &[crate::repo::testing::secret()], &small(), &clock).unwrap();
        Self { asked, dir: tempfile::tempdir().unwrap() }
    }

    /// As a command opens it, or a mount.
    fn open(&self, state: &str) -> Arc<Repository> {
        let target: Arc<dyn Target> = Arc::clone(&self.asked) as _;
        let repo = open(target, &self.dir.path().join(state), Arc::new(Tally::default())).unwrap();
        repo.refresh().unwrap();
        repo
    }

    /// Requests since the last time: one for each call, and one for each further page.
    fn requests(&self) -> (u64, Vec<Call>) {
        let calls = self.asked.take();
        let pages = |call: &Call| match call.operation {
            Operation::List => call.amount.div_ceil(PAGE_MAX as u64).max(1),
            _ => 1,
        };
        (calls.iter().map(pages).sum(), calls)
    }
}

fn back_up(repo: &Arc<Repository>, source: &Path) {
    let job = Backup::new(Recipe::File { path: source.to_owned() }, Name::new("vm").unwrap());
    backup(repo, &job, &Silent, &Interrupt::never()).unwrap();
}

/// A version as any host may put it, without anybody learning of it.
fn put_version(repo: &Repository, number: i64) -> Uid {
    let created = repo.clock().now().plus_millis((number - 20_000) * 3_600_000);
    let uid = repo.clock().uid_at(created);
    let image = ImageRef::empty(BlockSize::MIN);
    let version = Record {
        uid,
        kind: RecordKind::Version,
        created,
        host: repo.host(),
        image,
        base: Uid::NIL,
        supersedes: Uid::NIL,
        draft: DraftId::NIL,
        start: image,
        broken: None,
        attributes: attributes("many"),
        stats: Stats::default(),
    };
    let object = object_id(uid.as_bytes(), &[]);
    let key = layout::record(RecordKind::Version, uid);
    put_sealed(repo, FrameKind::from(RecordKind::Version), &key, object, &record::encode(&version));
    put_sealed(repo, FrameKind::Ok, &layout::ok(uid), object, &[]);
    uid
}

fn put_tag(repo: &Repository, version: Uid, number: u64) {
    let entry = AttributeEntry {
        version,
        entry: repo.clock().entry_id(),
        lamport: number + 1,
        host: repo.host(),
        at: repo.clock().now(),
        change: AttributeChange::AddTag(format!("t{number}")),
    };
    let object = object_id(version.as_bytes(), entry.entry.as_bytes());
    put_sealed(
        repo,
        FrameKind::Attribute,
        &layout::attribute(version, entry.entry),
        object,
        &attribute::encode(&entry),
    );
}

#[test]
fn an_unchanged_backup_by_command_asks_ten_times() {
    let world = World::new();
    let source = world.dir.path().join("source");
    // Some leaves of the map.
    std::fs::write(&source, noise(1, 20 << 20)).unwrap();
    back_up(&world.open("state"), &source);
    for _ in 0..3 {
        world.requests();
        back_up(&world.open("state"), &source);
        let (requests, calls) = world.requests();
        assert!(requests <= 10, "{requests}: {calls:#?}");
        let stats = world.open("state").resolve("vm").unwrap().record.stats;
        assert_eq!((stats.unchanged_bytes, stats.deduplicated_bytes), (20 << 20, 0));
    }
    // A slot that was removed opens nothing, although it was noted.
    let repo = world.open("state");
    let slot = repo.slots_of(&crate::repo::testing::secret()).unwrap()[0];
    repo.add_slot(&crate::seal::Secret::key_file(vec![8; 64])).unwrap();
    repo.remove_slot(slot).unwrap();
    drop(repo);
    let target: Arc<dyn Target> = Arc::clone(&world.asked) as _;
    assert!(open(target, &world.dir.path().join("state"), Arc::new(Tally::default())).is_err());
}

#[test]
fn a_start_with_ten_thousand_versions_asks_as_often_as_one_with_few() {
    let world = World::new();
    let repo = world.open("state");
    let few: Vec<Uid> = (0..10).map(|number| put_version(&repo, number)).collect();
    drop(repo);
    drop(world.open("state"));
    world.requests();
    drop(world.open("state"));
    let (with_few, calls) = world.requests();
    assert!(with_few <= 5, "{with_few}: {calls:#?}");
    let repo = world.open("state");
    for number in 10..10_000 {
        put_version(&repo, number);
    }
    repo.refresh().unwrap();
    drop(repo);
    // One start in 32 looks at everything: that costs a page for each thousand.
    let starts: Vec<u64> = (0..33)
        .map(|_| {
            world.requests();
            assert_eq!(world.open("state").catalog().version_uids().unwrap().len(), 10_000);
            world.requests().0
        })
        .collect();
    let mut sorted = starts.clone();
    sorted.sort_unstable();
    assert!(sorted[30] <= with_few + 1 && sorted[32] <= with_few + 11, "{starts:?}");
    // Changes of attributes cost a page for each thousand, every time.
    let repo = world.open("state");
    (0..3000).for_each(|number| put_tag(&repo, few[number as usize % 10], number));
    repo.refresh().unwrap();
    drop(repo);
    world.requests();
    drop(world.open("state"));
    let (requests, calls) = world.requests();
    assert!(requests <= with_few + 6, "{requests}: {calls:#?}");
    // A host that knows nothing reads each record once, and nothing else of it.
    drop(world.open("other"));
    let (requests, _) = world.requests();
    assert!(requests <= 10_000 + 3000 + 60, "{requests}");
}
