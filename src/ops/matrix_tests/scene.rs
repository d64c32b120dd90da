//! A repository in which every kind of object stands, and stood and went, as two hosts left it.

use crate::format::layout::{self, Object, ObjectKey};
use crate::image::ImageReader;
use crate::ops::gc::tests::lab::{BLOCK, Host, Lab, image as image_of, numbers};
use crate::ops::migrate::migrate;
use crate::ops::scrub::tests::scrub_all;
use crate::ops::{Interrupt, overlays};
use crate::repo::Repository;
use crate::repo::testing::open;
use crate::seal::Secret;
use crate::target::Target;
use crate::target::memory::{MemoryTarget, Saved};
use crate::words::attribute::AttributeChange;
use crate::words::ids::{PackId, Uid};
use crate::words::monitor::Silent;
use crate::words::record::{BlockKind, ImageRef, Record, RecordKind};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;

/// A put: where, and what.
pub(super) type Put = (ObjectKey, Arc<Vec<u8>>);

/// Something that was acknowledged and not removed.
pub(super) struct Kept {
    pub(super) record: Record,
    pub(super) blocks: Vec<u32>,
}

/// Whose eyes something is seen with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Who {
    /// A host that knew everything before the damage.
    Knowing,
    /// One that sees the target for the first time.
    New,
    /// One whose state directory was put back to what it was long ago.
    Old,
}

pub(super) struct Scene {
    lab: Lab,
    pub(super) saved: Saved,
    pub(super) kept: Vec<Kept>,
    /// Every put there ever was, in order.
    pub(super) history: Vec<Put>,
    records: BTreeMap<Uid, RecordKind>,
    maps: BTreeSet<PackId>,
}

/// Blocks that no image can read: which image, and which block of it.
pub(super) type Unreadable = BTreeSet<(usize, usize)>;

impl Scene {
    pub(super) fn new() -> Self {
        let lab = Lab::new();
        let mut kept = Vec::new();
        let mut keep = |record: Record, blocks: &[u32]| {
            kept.push(Kept { record: record.clone(), blocks: blocks.to_vec() });
            record
        };
        let back_up = |host: &Host, name: &str, blocks: &[u32]| host.back_up(name, &image_of(blocks)).unwrap();

        // What goes before the rest comes, and what stays from then on.
        let (one, two) = (lab.host("one"), lab.host("two"));
        let gone = back_up(&one, "gone", &numbers(1..30));
        let early = keep(back_up(&one, "early", &numbers(20..40)), &numbers(20..40));
        for n in 0..9 {
            let blocks = numbers(1000 + 3 * n..1002 + 3 * n);
            keep(back_up(&two, "many", &blocks), &blocks);
        }
        let draft = one.keep_draft("draft", &image_of(&numbers(50..60)), None).unwrap();
        let elsewhere = numbers(60..70);
        keep(two.keep_draft("elsewhere", &image_of(&elsewhere), None).unwrap(), &elsewhere);
        one.repo.refresh().unwrap();
        let stale = one.overlay(gone.uid).unwrap();
        one.repo.change_attributes(early.uid, &[AttributeChange::AddTag("kept".into())]).unwrap();
        one.repo.change_attributes(early.uid, &[AttributeChange::AddTag("too".into())]).unwrap();
        one.repo.change_attributes(gone.uid, &[AttributeChange::AddTag("gone".into())]).unwrap();
        let slot = one.repo.add_slot(&Secret::key_file(vec![8; 64])).unwrap();
        one.repo.add_slot(&Secret::key_file(vec![9; 64])).unwrap();
        one.repo.remove_slot(slot).unwrap();
        let blocks = damage_and_heal(&lab, &one, "healed", 200);
        keep(one.repo.resolve("healed").unwrap().record, &blocks);
        drop(one);
        copy_tree(&lab.dir.path().join("one"), &lab.dir.path().join("old"));

        // Everything is sealed anew, so that each object has older bytes, and then collected.
        let one = lab.host("one");
        one.repo.rekey().unwrap();
        migrate(&one.repo, &Silent, &Interrupt::never()).unwrap();
        crate::image::overlay::OverlayFile::remove(&overlays::directory(&one.repo), gone.uid).unwrap();
        one.repo.remove_record(RecordKind::Pin, stale.uid).unwrap();
        one.repo.remove_version(gone.uid).unwrap();
        let report = one.gc_all().unwrap();
        assert!(report.obstacles.is_empty() && report.merged_fragments > 0, "{report:?}");
        scrub_all(&one.repo);
        let more = back_up(&one, "gone", &numbers(800..810));
        one.repo.remove_version(more.uid).unwrap();
        one.gc_all().unwrap();

        two.repo.refresh().unwrap();
        let blocks = numbers(50..66);
        keep(one.keep_draft("draft", &image_of(&blocks), Some(&draft)).unwrap(), &blocks);
        let base = keep(back_up(&two, "base", &numbers(100..124)), &numbers(100..124));
        keep(back_up(&one, "base", &numbers(110..130)), &numbers(110..130));
        // Two leaves below an inner node.
        let wide: Vec<u32> = (0..1100).map(|at| if at % 90 == 0 { 300 + at } else { 0 }).collect();
        keep(back_up(&one, "wide", &wide), &wide);
        keep(two.overlay(base.uid).unwrap(), &numbers(100..124));
        // Nothing but its pin keeps it.
        let overlaid = back_up(&one, "overlaid", &numbers(70..90));
        keep(one.overlay(overlaid.uid).unwrap(), &numbers(70..90));
        one.repo.remove_version(overlaid.uid).unwrap();
        for (name, host) in [("left", "three"), ("behind", "four")] {
            let left = back_up(&lab.host(host), name, &numbers(90..95));
            lab.memory.delete(&layout::ok(left.uid)).unwrap();
            lab.host(&format!("after {host}")).repo.withdraw(&left).unwrap();
        }
        for (name, first) in [("damaged", 400), ("bad", 500)] {
            let blocks = damage_and_heal(&lab, &one, name, first);
            let record = one.repo.resolve(name).unwrap().record;
            keep(record, &blocks);
        }
        // Something for a collection to do, and to copy.
        let last = back_up(&one, "last", &[numbers(600..620), numbers(120..130)].concat());
        keep(back_up(&one, "last", &numbers(610..625)), &numbers(610..625));
        one.repo.remove_version(last.uid).unwrap();
        one.repo.refresh_everything().unwrap();

        let packs = one.repo.catalog().packs().unwrap().into_iter();
        let maps = packs.filter(|pack| pack.kind == BlockKind::Map).map(|pack| pack.pack).collect();
        let history = lab.memory.history("");
        let records = history.iter().filter_map(|(key, _)| layout::parse_record(key));
        let records = records.map(|(kind, uid)| (uid, kind)).collect();
        let scene = Self { saved: lab.memory.save(), lab, kept, history, records, maps };
        drop((one, two));
        let case = Case::new(&scene);
        for who in [Who::Knowing, Who::New, Who::Old] {
            let host = case.host(who).unwrap();
            host.refresh().unwrap();
            assert_eq!(scene.unreadable(&host, "before anything is damaged"), Unreadable::new(), "{who:?}");
        }
        scene
    }

    /// What a record was, also one that is gone.
    pub(super) fn kind_of(&self, uid: Uid) -> Option<RecordKind> {
        self.records.get(&uid).copied()
    }

    pub(super) fn is_map(&self, pack: PackId) -> bool {
        self.maps.contains(&pack)
    }

    /// Objects in the order in which they came, those that went among them.
    pub(super) fn objects(&self, is_wanted: impl Fn(&Self, Object) -> bool) -> Vec<ObjectKey> {
        let mut seen = BTreeSet::new();
        let keys = self.history.iter().map(|(key, _)| key);
        let keys = keys.filter(|key| layout::parse(key).is_some_and(|object| is_wanted(self, object)));
        keys.filter(|key| seen.insert((*key).clone())).cloned().collect()
    }

    /// Reads everything that was acknowledged. Whatever can be read is right.
    pub(super) fn unreadable(&self, repo: &Arc<Repository>, what: &str) -> Unreadable {
        let mut bad = Unreadable::new();
        for (number, kept) in self.kept.iter().enumerate() {
            let image = kept.record.image;
            for at in unreadable(repo, image, &kept.blocks, &format!("{what}: {}", kept.record.attributes.name)) {
                bad.insert((number, at));
            }
        }
        bad
    }
}

/// The blocks of an image that cannot be read. Those that can must be these.
pub(super) fn unreadable(repo: &Arc<Repository>, image: ImageRef, blocks: &[u32], what: &str) -> Vec<usize> {
    let reader = ImageReader::new(Arc::clone(repo), image, "matrix");
    let mut bad = Vec::new();
    for (at, number) in blocks.iter().enumerate().filter(|(at, number)| **number > 0 || at % 100 == 1) {
        let mut bytes = vec![1; BLOCK];
        match reader.read_at((at * BLOCK) as u64, &mut bytes) {
            Ok(()) => assert!(bytes == image_of(&[*number]), "{what}: block {at} is read, and wrong"),
            Err(_) => bad.push(at),
        }
    }
    bad
}

/// A version one of whose blocks was damaged, reported and stored again: the bad copy and its report stay.
fn damage_and_heal(lab: &Lab, host: &Host, name: &str, first: u32) -> Vec<u32> {
    let blocks = numbers(first..first + 12);
    let before: BTreeSet<ObjectKey> = packs(lab).into_keys().collect();
    host.back_up(name, &image_of(&blocks)).unwrap();
    let new = packs(lab).into_iter().filter(|(key, _)| !before.contains(key));
    let (largest, _) = new.max_by_key(|(_, size)| *size).expect("it stored something");
    lab.memory.damage(&largest, |bytes| bytes[300] ^= 4);
    let news = scrub_all(&host.repo).damaged_packs.into_iter().filter(|pack| pack.is_news);
    assert_eq!(news.count(), 1, "{name}");
    host.back_up(name, &image_of(&blocks)).unwrap();
    scrub_all(&host.repo);
    blocks
}

fn packs(lab: &Lab) -> BTreeMap<ObjectKey, u64> {
    let listed = lab.memory.list(layout::PACKS).unwrap().into_iter();
    listed.map(|info| (info.key, info.size_bytes.unwrap_or(0))).collect()
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() { copy_tree(&path, &to) } else { assert!(fs::copy(path, to).is_ok()) }
    }
}

/// The scene once more, to be damaged.
pub(super) struct Case<'a> {
    scene: &'a Scene,
    pub(super) memory: Arc<MemoryTarget>,
    pub(super) dir: tempfile::TempDir,
    hosts: std::cell::Cell<u32>,
}

impl<'a> Case<'a> {
    pub(super) fn new(scene: &'a Scene) -> Self {
        let memory = Arc::new(MemoryTarget::default());
        memory.prepare().unwrap();
        memory.put_back(scene.saved.clone());
        // Many hosts are opened, each of which syncs its catalog.
        let memory_of_the_machine = Path::new("/dev/shm");
        let dir = match memory_of_the_machine.is_dir() {
            true => tempfile::tempdir_in(memory_of_the_machine).unwrap(),
            false => tempfile::tempdir().unwrap(),
        };
        Self { scene, memory, dir, hosts: std::cell::Cell::new(0) }
    }

    /// Where the state of the next host is, as it was before the damage.
    pub(super) fn state(&self, who: Who) -> std::path::PathBuf {
        self.hosts.set(self.hosts.get() + 1);
        let state = self.dir.path().join(format!("{who:?}{}", self.hosts.get()));
        let lab = self.scene.lab.dir.path();
        match who {
            Who::Knowing => copy_tree(&lab.join("one"), &state),
            Who::Old => copy_tree(&lab.join("old"), &state),
            Who::New => {}
        }
        state
    }

    /// Opens a host, which has not looked at the target yet.
    pub(super) fn host(&self, who: Who) -> Result<Arc<Repository>, crate::repo::RepoError> {
        open(Arc::clone(&self.memory) as _, &self.state(who), Arc::default())
    }
}
