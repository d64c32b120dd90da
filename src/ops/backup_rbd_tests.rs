//! Backups of images of a real cluster, round after round, against plain copies of what was written. `CEPH_CONF` names the
//! cluster's configuration file, and it has a pool `rbd`.
//!
//! A difference that leaves something out makes backups that are wrong from then on and look right, and the ones of clusters have been
//! wrong before. So whatever an image can go through between two backups is done to it here: writes and zeros across objects,
//! growing and shrinking, also both, snapshots of others and going back to them, clones and their flattening.

use super::*;
use crate::repo::testing::{self, Dice, TestRepository};
use crate::source::Destination;
use crate::source::destination::{Consent, Holes, Manner, Start};
use crate::source::rbd::RbdImage;
use crate::words::monitor::{Counter, Tally};
use std::collections::BTreeMap;
use std::process::Command;

const MIB: u64 = 1 << 20;

/// Runs the tool of the cluster.
fn rbd(arguments: &[&str]) -> String {
    assert!(std::env::var_os("CEPH_CONF").is_some(), "CEPH_CONF names no cluster; tests/lab/ceph makes one");
    let done = Command::new("rbd").args(arguments).output().unwrap();
    assert!(done.status.success(), "rbd {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

/// An image, what it holds, and the backups of it.
struct Scene {
    test: TestRepository,
    job: Backup,
    dice: Dice,
    spec: String,
    content: Vec<u8>,
    /// Snapshots of others, and what they hold.
    theirs: BTreeMap<String, Vec<u8>>,
    is_clone: bool,
    said: Vec<String>,
}

impl Scene {
    fn new(name: &str, create: &[&str], size: u64) -> Self {
        let given = std::env::var("BACKYFS_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or_else(|| u64::from(std::process::id()) * 2_654_435_761 + size) | 1;
        println!("BACKYFS_TEST_SEED={seed}");
        let spec = format!("rbd/{name}-{}", std::process::id());
        rbd(&[&["create", "--size", &format!("{size}B"), &spec], create].concat());
        Self::of(spec, seed, vec![0; size as usize])
    }

    fn of(spec: String, seed: u64, content: Vec<u8>) -> Self {
        let job = Backup::new(Recipe::Rbd(RbdImage::parse(&spec).unwrap()), Name::new("vm").unwrap());
        let test = testing::create(&testing::small());
        let theirs = BTreeMap::new();
        Self { test, job, dice: Dice(seed), spec, content, theirs, is_clone: false, said: Vec::new() }
    }

    fn size(&self) -> u64 {
        self.content.len() as u64
    }

    /// The image, to be written as its machine would.
    fn disk(&self) -> Box<dyn Destination> {
        let manner =
            Manner { size_bytes: self.size(), consent: Consent::Force, start: Start::Anew, holes: Holes::Keep };
        self.job.source.volume().unwrap().destination(&manner).unwrap()
    }

    fn any_range(&mut self, len: u64) -> Range<u64> {
        let from = self.dice.below(self.size());
        from..(from + 1 + self.dice.below(len)).min(self.size())
    }

    fn write(&mut self) {
        let range = self.any_range(200_000);
        let bytes = self.dice.bytes(range.end - range.start);
        self.said.push(format!("write {range:?}"));
        let disk = self.disk();
        disk.write(range.start, &bytes).unwrap();
        disk.finish(&crate::source::conformance::ATTRIBUTES).unwrap();
        self.content[range.start as usize..range.end as usize].copy_from_slice(&bytes);
    }

    fn zero(&mut self) {
        let range = self.any_range(9 * MIB);
        self.said.push(format!("zero {range:?}"));
        let disk = self.disk();
        disk.zero(&range).unwrap();
        disk.finish(&crate::source::conformance::ATTRIBUTES).unwrap();
        self.content[range.start as usize..range.end as usize].fill(0);
    }

    fn resize(&mut self, size: u64) {
        // The tool refuses to change nothing.
        if size == self.size() {
            return;
        }
        self.said.push(format!("resize {} -> {size}", self.size()));
        rbd(&["resize", "--no-progress", "--allow-shrink", "--size", &format!("{size}B"), &self.spec]);
        self.content.resize(size as usize, 0);
    }

    fn snapshot(&mut self) {
        if self.theirs.len() < 3 {
            let name = format!("theirs-{}", self.dice.below(1 << 40));
            self.said.push(format!("snapshot {name}"));
            rbd(&["snap", "create", "--no-progress", &format!("{}@{name}", self.spec)]);
            self.theirs.insert(name, self.content.clone());
            return;
        }
        let (name, content) = self.theirs.pop_first().unwrap();
        let named = format!("{}@{name}", self.spec);
        if self.dice.below(2) == 0 {
            self.said.push(format!("back to {name}"));
            rbd(&["snap", "rollback", "--no-progress", &named]);
            self.content = content;
        }
        self.said.push(format!("remove {name}"));
        rbd(&["snap", "rm", "--no-progress", &named]);
    }

    fn change(&mut self) {
        match self.dice.below(12) {
            0..5 => self.write(),
            5 | 6 => self.zero(),
            7 => self.resize(self.size() + 1 + self.dice.0 % (5 * MIB)),
            8 => self.resize(self.size().saturating_sub(self.dice.0 % (6 * MIB)).max(MIB)),
            9 => {
                // What is cut off and comes back is zero.
                let size = self.size();
                self.resize((size / 2).max(MIB));
                self.resize(size);
            }
            10 => self.snapshot(),
            _ if self.is_clone && self.dice.below(4) == 0 => {
                self.said.push("flatten".into());
                rbd(&["flatten", "--no-progress", &self.spec]);
                self.is_clone = false;
            }
            _ => self.write(),
        }
    }

    /// Backs up, and returns how many bytes were read beside the sample.
    fn back_up(&self) -> u64 {
        let tally = Tally::default();
        let said = &self.said;
        let made = backup(&self.test.repo, &self.job, &tally, &Interrupt::never())
            .unwrap_or_else(|error| panic!("{error}; {said:?}"));
        let reader = crate::image::ImageReader::new(Arc::clone(&self.test.repo), made.record.image, "test");
        let mut found = vec![0; made.record.image.size_bytes as usize];
        reader.read_at(0, &mut found).unwrap();
        let wrong = found.iter().zip(&self.content).position(|(a, b)| a != b);
        assert_eq!((wrong, found.len()), (None, self.content.len()), "{said:?}");
        tally.get(Counter::BytesRead)
    }

    /// Ours is kept alone beside theirs.
    fn check_snapshots(&self) {
        let rows: serde_json::Value =
            serde_json::from_str(&rbd(&["snap", "ls", "--format", "json", &self.spec])).unwrap();
        let names: Vec<&str> = rows.as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap()).collect();
        let (ours, theirs): (BTreeSet<&str>, BTreeSet<&str>) =
            names.iter().partition(|name| name.starts_with("backyfs-"));
        assert_eq!((ours.len(), theirs), (1, self.theirs.keys().map(String::as_str).collect()), "{:?}", self.said);
    }

    fn rounds(&mut self) {
        let rounds = std::env::var("BACKYFS_TEST_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(12);
        self.back_up();
        for round in 0..rounds {
            self.said.push(format!("round {round}:"));
            for _ in 0..self.dice.below(5) {
                self.change();
            }
            self.back_up();
            // Nothing but the sample is read when nothing was written.
            if round % 10 == 9 {
                assert_eq!(self.back_up(), 0, "{:?}", self.said);
            }
        }
        self.check_snapshots();
    }

    fn end(self) {
        rbd(&["snap", "purge", "--no-progress", &self.spec]);
        rbd(&["rm", "--no-progress", &self.spec]);
    }
}

#[test]
fn any_life_of_an_rbd_image_makes_true_versions() {
    let mut scene = Scene::new("life", &[], 21 * MIB + 512);
    scene.rounds();
    scene.end();
}

/// Without a map of its objects, and with objects that lie over several.
#[test]
fn any_life_of_a_striped_rbd_image_makes_true_versions() {
    let options =
        ["--image-feature", "layering,striping", "--object-size", "1M", "--stripe-unit", "64K", "--stripe-count", "3"];
    let mut scene = Scene::new("striped", &options, 9 * MIB + 77);
    scene.rounds();
    scene.end();
}

/// What a clone has of its parent stands in no object of its own.
#[test]
fn any_life_of_an_rbd_clone_makes_true_versions() {
    let mut parent = Scene::new("parent", &[], 20 * MIB);
    for _ in 0..12 {
        parent.write();
    }
    let (from, clone) = (format!("{}@golden", parent.spec), parent.spec.replace("parent", "clone"));
    rbd(&["snap", "create", "--no-progress", &from]);
    rbd(&["clone", "--rbd-default-clone-format", "2", &from, &clone]);
    let mut scene = Scene::of(clone, parent.dice.0 | 1, parent.content.clone());
    scene.is_clone = true;
    // The parent goes on, and the clone is what its snapshot was.
    parent.write();
    scene.rounds();
    scene.end();
    rbd(&["snap", "rm", "--no-progress", &from]);
    parent.end();
}
