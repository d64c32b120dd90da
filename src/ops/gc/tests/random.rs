//! Hosts that back up, remove, collect, stall, die, forget and rebuild, in an order that follows from a seed; old writes arrive once
//! more at any time. Whatever was acknowledged reads back, byte for byte, always.
//!
//! `BACKYFS_TEST_SEED=N` runs one seed, `BACKYFS_TEST_ROUNDS=N` so many seeds of those that follow from it.

use super::lab::{Host, Lab, image};
use crate::ops::gc::{Options, Sharing};
use crate::ops::rebuild::IndexSource;
use crate::target::Crash;
use crate::words::clock::{Clock, TestClock};
use crate::words::ids::Uid;
use crate::words::stamp::Stamp;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

const HOSTS: usize = 4;
const STEPS: u64 = 40;

/// What a host that was held up tells when it ends.
enum Ended {
    Backup(Option<(Uid, Vec<u8>)>),
    Collection,
}

/// A host that stands still somewhere.
struct Held {
    host: Arc<Host>,
    finished: Arc<AtomicBool>,
    thread: JoinHandle<Ended>,
}

struct Run {
    lab: Lab,
    random: TestClock,
    /// What was acknowledged and not removed.
    kept: BTreeMap<Uid, Vec<u8>>,
    hosts: Vec<Option<Arc<Host>>>,
    held: BTreeMap<usize, Held>,
    log: Vec<String>,
}

impl Run {
    fn below(&self, end: u64) -> u64 {
        let mut bytes = [0; 8];
        self.random.random(&mut bytes);
        u64::from_le_bytes(bytes) % end.max(1)
    }

    fn host(&mut self, at: usize) -> Arc<Host> {
        let lab = &self.lab;
        Arc::clone(self.hosts[at].get_or_insert_with(|| Arc::new(lab.host(&format!("host{at}")))))
    }

    /// Few contents, so that hosts store and remove the same blocks all the time.
    fn content(&self) -> Vec<u8> {
        let start = 1 + self.below(6) as u32 * 8;
        let blocks: Vec<u32> = (start..start + 1 + self.below(40) as u32).collect();
        image(&blocks)
    }

    fn step(&mut self) {
        let at = self.below(HOSTS as u64) as usize;
        if let Some(held) = self.held.remove(&at) {
            // It may be long until a host goes on.
            if self.below(3) > 0 {
                self.held.insert(at, held);
            } else {
                self.log.push(format!("host {at} goes on"));
                self.finish(held);
            }
            return;
        }
        match self.below(20) {
            0..8 => self.act(at, self.below(2) == 0),
            8..12 => self.remove(at),
            12 => self.die(at),
            13 => self.forget(at),
            14 => {
                let source = if self.below(2) == 0 { IndexSource::Packs } else { IndexSource::Fragments };
                self.log.push(format!("host {at} rebuilds from {source:?}"));
                let host = self.host(at);
                let _ = crate::ops::rebuild::rebuild(&host.repo, source, &crate::words::monitor::Silent);
            }
            15 | 16 => self.repeat(),
            _ => self.act(at, true),
        }
    }

    fn options() -> Options {
        Options { dry_run: false, dead_percent: 20, unfinished_ms: 0, sharing: Sharing::Unknown }
    }

    /// A backup or a collection, which may be held up at any of its calls.
    fn act(&mut self, at: usize, collects: bool) {
        let host = self.host(at);
        let content = self.content();
        let what = if collects { "collects" } else { "backs up" };
        let hold = (self.below(3) == 0).then(|| self.below(60));
        self.log.push(format!("host {at} {what}, held at {hold:?}"));
        if let Some(calls) = hold {
            host.held.hold_after(calls);
        }
        let finished = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let (host, finished) = (Arc::clone(&host), Arc::clone(&finished));
            move || {
                let ended = if collects {
                    // Obstacles are allowed: somebody else may be in the middle of something.
                    let _ = host.gc_with(&Self::options());
                    Ended::Collection
                } else {
                    let made = host.back_up("vm", &content);
                    Ended::Backup(made.ok().map(|record| (record.uid, content)))
                };
                finished.store(true, Ordering::SeqCst);
                ended
            }
        });
        let held = Held { host, finished, thread };
        if hold.is_some() && held.host.held.wait_until_held(|| held.finished.load(Ordering::SeqCst)) {
            self.held.insert(at, held);
        } else {
            self.finish(held);
        }
    }

    fn finish(&mut self, held: Held) {
        held.host.held.release();
        if let Ended::Backup(Some((uid, bytes))) = held.thread.join().expect("no panic in a host") {
            self.log.push(format!("acknowledged {uid}"));
            self.kept.insert(uid, bytes);
        }
    }

    fn remove(&mut self, at: usize) {
        let host = self.host(at);
        host.repo.refresh().unwrap();
        let number = self.below(self.kept.len() as u64) as usize;
        let Some(uid) = self.kept.keys().nth(number).copied() else { return };
        self.log.push(format!("host {at} removes {uid}"));
        self.kept.remove(&uid);
        host.repo.remove_version(uid).unwrap();
    }

    /// In the middle of something; its state directory stays.
    fn die(&mut self, at: usize) {
        let host = self.host(at);
        let (calls, crash) = (self.below(60), if self.below(2) == 0 { Crash::Before } else { Crash::After });
        self.log.push(format!("host {at} dies {crash:?} call {calls}"));
        host.held.die_after(calls, crash);
        if self.below(2) == 0 {
            let _ = host.gc_with(&Self::options());
        } else {
            let content = self.content();
            if let Ok(record) = host.back_up("vm", &content) {
                self.log.push(format!("acknowledged {}", record.uid));
                self.kept.insert(record.uid, content);
            }
        }
        self.hosts[at] = None;
    }

    /// The state directory is lost.
    fn forget(&mut self, at: usize) {
        self.log.push(format!("host {at} forgets everything"));
        self.hosts[at] = None;
        let _ = std::fs::remove_dir_all(self.lab.dir.path().join(format!("host{at}")));
    }

    /// Something that was written long ago arrives once more.
    fn repeat(&mut self) {
        for _ in 0..1 + self.below(5) {
            let history = self.lab.memory.history("");
            let put = history[self.below(history.len() as u64) as usize].clone();
            self.log.push(format!("{} arrives again", put.0));
            self.lab.memory.repeat(put);
        }
    }

    fn verify(&self, host: &Host) {
        for (uid, bytes) in &self.kept {
            let read = host.read(*uid).unwrap_or_else(|error| panic!("{uid}: {error}"));
            assert!(read == *bytes, "{uid} has other bytes");
        }
    }
}

fn run(seed: u64) {
    let hosts = (0..HOSTS).map(|_| None).collect();
    let random = TestClock::new(Stamp::from_millis(0), seed);
    let (kept, held) = (BTreeMap::new(), BTreeMap::new());
    // Every third time the way to the target is bad, too.
    let lab = if seed.is_multiple_of(3) { Lab::flaky(seed) } else { Lab::new() };
    let mut run = Run { lab, random, kept, hosts, held, log: Vec::new() };
    let went = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        for step in 0..STEPS {
            run.step();
            if step % 8 == 7 {
                run.verify(&run.lab.host(&format!("fresh{step}")));
            }
        }
        for at in 0..HOSTS {
            if let Some(held) = run.held.remove(&at) {
                run.log.push(format!("host {at} goes on at the end"));
                run.finish(held);
            }
        }
        for at in 0..HOSTS {
            let host = run.host(at);
            host.repo.refresh().unwrap();
            run.verify(&host);
        }
        // Afterwards nothing is in anybody's way, and nothing is left that nobody needs.
        let last = run.lab.host("last");
        let mut report = last.gc_with(&Run::options()).unwrap();
        assert!(report.obstacles.is_empty(), "{report:?}");
        run.verify(&last);
        run.verify(&run.lab.host("checker"));
        report = last.gc_with(&Options { dead_percent: 1, ..Run::options() }).unwrap();
        assert!(report.obstacles.is_empty(), "{report:?}");
        run.verify(&run.lab.host("checker2"));
    }));
    // A host that stands still would be waited for.
    run.held.values().for_each(|held| held.host.held.kill());
    if let Err(panic) = went {
        eprintln!("BACKYFS_TEST_SEED={seed}\n{}", run.log.join("\n"));
        std::panic::resume_unwind(panic);
    }
}

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn whatever_was_acknowledged_reads_back() {
    let rounds = from_environment("BACKYFS_TEST_ROUNDS");
    match from_environment("BACKYFS_TEST_SEED") {
        Some(seed) => (seed..seed + rounds.unwrap_or(1)).for_each(run),
        None => {
            let mut seed = [0; 4];
            crate::words::clock::SystemClock.random(&mut seed);
            let first = u64::from(u32::from_le_bytes(seed));
            println!("seeds from {first} on");
            (first..first + rounds.unwrap_or(12)).for_each(run);
        }
    }
}
