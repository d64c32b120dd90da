//! Hosts that back up, keep drafts, go on after close, make overlays, remove, collect, change keys, repair, stall, die, forget and
//! rebuild, in an order that follows from a seed; old writes arrive once more at any time. Whatever was acknowledged reads back, byte
//! for byte, always.
//!
//! `BACKYFS_TEST_SEED=N` runs one seed, `BACKYFS_TEST_ROUNDS=N` so many seeds of those that follow from it.

use super::lab::{Host, Lab, image};
use crate::format::layout::{self, Object};
use crate::image::overlay::OverlayFile;
use crate::ops::gc::{Options, Sharing};
use crate::ops::migrate::migrate;
use crate::ops::rebuild::IndexSource;
use crate::ops::repair::repair;
use crate::ops::{Interrupt, overlays};
use crate::target::Crash;
use crate::words::clock::{Clock, SystemClock, TestClock};
use crate::words::ids::{DraftId, Uid};
use crate::words::monitor::Silent;
use crate::words::record::{Record, RecordKind, Verdict, Why};
use crate::words::stamp::Stamp;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

const HOSTS: usize = 4;
const STEPS: u64 = 56;

/// What a host does that may be held up, or die, at any of its calls.
#[derive(Debug, Clone)]
enum Work {
    Collect,
    BackUp(Vec<u8>),
    /// Goes on after close: this version is replaced.
    GoOn(Uid, Vec<u8>),
    /// fsync: of a new draft, or of one that has this record.
    Sync(Option<Record>, Vec<u8>),
    /// close.
    Publish(Record, Vec<u8>),
    Overlay(Uid),
    Rekey,
    Repair,
}

/// What was acknowledged when it ended.
enum Ended {
    Version(Record, Vec<u8>),
    Draft(Record, Vec<u8>),
    Pin(Record),
    Nothing,
}

/// A host that stands still somewhere.
struct Held {
    at: usize,
    host: Arc<Host>,
    finished: Arc<AtomicBool>,
    thread: JoinHandle<Ended>,
}

/// A draft whose last fsync was acknowledged.
struct Draft {
    /// The host that writes it; none when that forgot.
    at: Option<usize>,
    record: Record,
    bytes: Vec<u8>,
    /// What was written since and not acknowledged: it may stand in its place.
    tried: Vec<Vec<u8>>,
}

/// An overlay, and what is below it.
struct Overlay {
    at: Option<usize>,
    pin: Record,
    bytes: Vec<u8>,
}

struct Run {
    lab: Lab,
    random: TestClock,
    /// What was acknowledged and not removed.
    kept: BTreeMap<Uid, Vec<u8>>,
    drafts: BTreeMap<DraftId, Draft>,
    overlays: Vec<Overlay>,
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

    /// The clock of the last host is a day ahead: to it, whoever publishes just now is long dead.
    fn host(&mut self, at: usize) -> Arc<Host> {
        if self.hosts[at].is_none() {
            let (name, seed) = (format!("host{at}"), self.below(u64::MAX));
            let tomorrow = || TestClock::new(SystemClock.now().plus_millis(25 * 3_600_000), seed);
            let host =
                if at + 1 == HOSTS { self.lab.host_at(&name, &Arc::new(tomorrow())) } else { self.lab.host(&name) };
            self.hosts[at] = Some(Arc::new(host));
        }
        Arc::clone(self.hosts[at].as_ref().expect("it was just opened"))
    }

    /// Few contents, so that hosts store and remove the same blocks all the time.
    fn content(&self) -> Vec<u8> {
        let start = 1 + self.below(6) as u32 * 8;
        let blocks: Vec<u32> = (start..start + 1 + self.below(40) as u32).collect();
        image(&blocks)
    }

    fn any_version(&self) -> Option<Uid> {
        self.kept.keys().nth(self.below(self.kept.len() as u64) as usize).copied()
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
        match self.below(24) {
            0..9 => {
                let work = self.work(at);
                self.act(at, work);
            }
            9..12 => self.act(at, Work::Collect),
            12..16 => self.remove(at),
            16 => self.die(at),
            17 => self.forget(at),
            18 => {
                // A catalog that is lost, and one that is not.
                if self.below(2) == 0 {
                    self.forget(at);
                }
                let source = if self.below(2) == 0 { IndexSource::Packs } else { IndexSource::Fragments };
                self.log.push(format!("host {at} rebuilds from {source:?}"));
                let host = self.host(at);
                let _ = crate::ops::rebuild::rebuild(&host.repo, source, &Silent);
            }
            19 | 20 => self.repeat(),
            21 => self.let_go(at),
            _ => self.act(at, Work::BackUp(self.content())),
        }
    }

    /// Something that a host can do now.
    fn work(&self, at: usize) -> Work {
        let content = self.content();
        let own = self.drafts.values().find(|draft| draft.at == Some(at)).map(|draft| draft.record.clone());
        match (self.below(9), own, self.any_version()) {
            (0 | 1, own, _) => Work::Sync(own, content),
            (2, Some(own), _) => Work::Publish(own, content),
            (3 | 4, _, Some(uid)) => Work::Overlay(uid),
            (5, _, Some(uid)) => Work::GoOn(uid, content),
            (6, _, _) => Work::Rekey,
            (7, _, _) => Work::Repair,
            _ => Work::BackUp(content),
        }
    }

    fn options() -> Options {
        Options { dry_run: false, dead_percent: 20, unfinished_ms: 0, sharing: Sharing::Unknown }
    }

    /// Whether it is said that it worked. Obstacles are allowed: somebody else may be in the middle of something.
    fn do_it(host: &Host, work: Work) -> Ended {
        match work {
            Work::Collect => drop(host.gc_with(&Self::options())),
            Work::BackUp(bytes) => {
                return host.back_up("vm", &bytes).map_or(Ended::Nothing, |record| Ended::Version(record, bytes));
            }
            Work::GoOn(uid, bytes) => {
                let made = host.back_up_instead((uid, DraftId::NIL), "vm", &bytes);
                return made.map_or(Ended::Nothing, |record| Ended::Version(record, bytes));
            }
            Work::Sync(before, bytes) => {
                let made = host.keep_draft("draft", &bytes, before.as_ref());
                return made.map_or(Ended::Nothing, |record| Ended::Draft(record, bytes));
            }
            Work::Publish(draft, bytes) => {
                let made = host.back_up_instead((Uid::NIL, draft.draft), "vm", &bytes);
                let made = made.and_then(|made| host.repo.remove_record(RecordKind::Draft, draft.uid).map(|()| made));
                return made.map_or(Ended::Nothing, |record| Ended::Version(record, bytes));
            }
            Work::Overlay(uid) => return host.overlay(uid).map_or(Ended::Nothing, Ended::Pin),
            Work::Rekey => {
                let _ = host.repo.rekey().map(|_| migrate(&host.repo, &Silent, &Interrupt::never()));
            }
            Work::Repair => drop(repair(&host.repo, false, &Silent, &Interrupt::never())),
        }
        Ended::Nothing
    }

    /// What may stand in the place of a draft from now on.
    fn note(&mut self, work: &Work) {
        if let Work::Sync(Some(record), bytes) | Work::Publish(record, bytes) = work
            && let Some(draft) = self.drafts.get_mut(&record.draft)
        {
            draft.tried.push(bytes.clone());
        }
    }

    /// Work that may be held up at any of its calls.
    fn act(&mut self, at: usize, work: Work) {
        let host = self.host(at);
        let hold = (self.below(3) == 0).then(|| self.below(60));
        self.log.push(format!("host {at}: {}, held at {hold:?}", told(&work)));
        self.note(&work);
        if let Some(calls) = hold {
            host.held.hold_after(calls);
        }
        let finished = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let (host, finished) = (Arc::clone(&host), Arc::clone(&finished));
            move || {
                let ended = Self::do_it(&host, work);
                finished.store(true, Ordering::SeqCst);
                ended
            }
        });
        let held = Held { at, host, finished, thread };
        if hold.is_some() && held.host.held.wait_until_held(|| held.finished.load(Ordering::SeqCst)) {
            self.held.insert(at, held);
        } else {
            self.finish(held);
        }
    }

    fn finish(&mut self, held: Held) {
        held.host.held.release();
        let ended = held.thread.join().expect("no panic in a host");
        self.acknowledge(held.at, &held.host, ended);
    }

    fn acknowledge(&mut self, at: usize, host: &Host, ended: Ended) {
        match ended {
            Ended::Version(record, bytes) => {
                self.log.push(format!("acknowledged {}", record.uid));
                self.kept.insert(record.uid, bytes);
                self.drafts.remove(&record.draft);
                if self.kept.remove(&record.supersedes).is_some() {
                    self.log.push(format!("in place of {}", record.supersedes));
                    let _ = host.repo.remove_version_because(record.supersedes, Why::Superseded);
                }
            }
            Ended::Draft(record, bytes) => {
                self.log.push(format!("acknowledged draft {} {}", record.draft, record.uid));
                let draft = Draft { at: Some(at), record, bytes, tried: Vec::new() };
                self.drafts.insert(draft.record.draft, draft);
            }
            Ended::Pin(pin) => {
                self.log.push(format!("pinned {} by {}", pin.base, pin.uid));
                // Of a version that may be gone by now: then its bytes are those it was made of.
                let bytes = host.read_image(pin.image).unwrap_or_else(|error| panic!("pin {}: {error}", pin.uid));
                self.overlays.push(Overlay { at: Some(at), pin, bytes });
            }
            Ended::Nothing => {}
        }
    }

    fn remove(&mut self, at: usize) {
        let host = self.host(at);
        host.repo.refresh().unwrap();
        let Some(uid) = self.any_version() else { return };
        self.log.push(format!("host {at} removes {uid}"));
        self.kept.remove(&uid);
        host.repo.remove_version(uid).unwrap();
    }

    /// Discards an overlay, or a draft, its own or by force.
    fn let_go(&mut self, at: usize) {
        let host = self.host(at);
        if let Some(number) = self.overlays.iter().position(|overlay| overlay.at == Some(at)) {
            let version = self.overlays[number].pin.base;
            self.log.push(format!("host {at} discards the overlay of {version}"));
            self.overlays.retain(|overlay| overlay.at != Some(at) || overlay.pin.base != version);
            let _ = OverlayFile::remove(&overlays::directory(&host.repo), version);
            let _ = overlays::unpin(&host.repo, version);
            return;
        }
        let idle = self.drafts.iter().find(|(_, draft)| draft.at.is_none_or(|at| !self.held.contains_key(&at)));
        let Some((id, uid)) = idle.map(|(id, draft)| (*id, draft.record.uid)) else { return };
        self.log.push(format!("host {at} discards draft {id}"));
        self.drafts.remove(&id);
        let _ = host.repo.remove_record(RecordKind::Draft, uid);
    }

    /// A repair that meets a draft which came back, where its host has not seen it go, confirms it again. It does as it is told then.
    fn discard_again(&self, host: &Host, obstacles: &[String]) -> bool {
        let drafts = host.repo.catalog().drafts().unwrap();
        let is_gone = |uid: Uid| self.drafts.values().all(|known| known.record.uid != uid);
        let is_named = |uid: Uid| obstacles.iter().any(|text| text.contains(&format!("`backyfs rm --force {uid}`")));
        let gone: Vec<Uid> =
            drafts.iter().map(|draft| draft.uid).filter(|uid| is_gone(*uid) && is_named(*uid)).collect();
        gone.iter().for_each(|uid| host.repo.remove_record(RecordKind::Draft, *uid).unwrap());
        !gone.is_empty()
    }

    /// In the middle of something; its state directory stays.
    fn die(&mut self, at: usize) {
        let host = self.host(at);
        let (calls, crash) = (self.below(60), if self.below(2) == 0 { Crash::Before } else { Crash::After });
        let work = if self.below(2) == 0 { Work::Collect } else { self.work(at) };
        self.log.push(format!("host {at} dies {crash:?} call {calls}: {}", told(&work)));
        self.note(&work);
        host.held.die_after(calls, crash);
        let ended = Self::do_it(&host, work);
        if !matches!(ended, Ended::Pin(_)) {
            self.acknowledge(at, &host, ended);
        }
        self.hosts[at] = None;
    }

    /// The state directory is lost.
    fn forget(&mut self, at: usize) {
        self.log.push(format!("host {at} forgets everything"));
        self.hosts[at] = None;
        let _ = std::fs::remove_dir_all(self.lab.dir.path().join(format!("host{at}")));
        self.drafts.values_mut().filter(|draft| draft.at == Some(at)).for_each(|draft| draft.at = None);
        self.overlays.iter_mut().filter(|overlay| overlay.at == Some(at)).for_each(|overlay| overlay.at = None);
    }

    /// Something that was written long ago arrives once more. Not the confirmations of drafts and pins: these leave no tombstone, and
    /// one that came back whole, after what stood in its place is gone, too, would be in the way of collections until it is discarded.
    fn repeat(&mut self) {
        for _ in 0..1 + self.below(5) {
            let history = self.lab.memory.history("");
            let put = history[self.below(history.len() as u64) as usize].clone();
            let is_of_version = |uid| history.iter().any(|(key, _)| *key == layout::record(RecordKind::Version, uid));
            if matches!(layout::parse(&put.0), Some(Object::Ok(uid)) if !is_of_version(uid)) {
                continue;
            }
            self.log.push(format!("{} arrives again", put.0));
            self.lab.memory.repeat(put);
        }
    }

    fn verify(&self, host: &Host) {
        for (uid, bytes) in &self.kept {
            let read = host.read(*uid).unwrap_or_else(|error| panic!("{uid}: {error}"));
            assert!(read == *bytes, "{uid} has other bytes");
        }
        let read = |image| host.read_image(image);
        for (id, draft) in &self.drafts {
            let confirmed = |kind| host.repo.catalog().records(kind).unwrap().into_iter();
            let records = confirmed(RecordKind::Draft).chain(confirmed(RecordKind::Version));
            let mut standing =
                records.filter(|(record, verdict)| record.draft == *id && *verdict == Verdict::Confirmed);
            let is_right = |bytes: &Vec<u8>| *bytes == draft.bytes || draft.tried.contains(bytes);
            let stands = standing.any(|(record, _)| read(record.image).is_ok_and(|bytes| is_right(&bytes)));
            assert!(stands, "draft {id} is gone");
        }
        for Overlay { pin, bytes, .. } in &self.overlays {
            let read = read(pin.image).unwrap_or_else(|error| panic!("below the overlay of {}: {error}", pin.base));
            assert!(read == *bytes, "other bytes are below the overlay of {}", pin.base);
        }
    }
}

fn told(work: &Work) -> String {
    match work {
        Work::Collect => "collects".into(),
        Work::BackUp(_) => "backs up".into(),
        Work::GoOn(uid, _) => format!("goes on after {uid}"),
        Work::Sync(None, _) => "begins a draft".into(),
        Work::Sync(Some(record), _) => format!("goes on with draft {}", record.draft),
        Work::Publish(record, _) => format!("publishes draft {}", record.draft),
        Work::Overlay(uid) => format!("makes an overlay of {uid}"),
        Work::Rekey => "makes a new key and migrates".into(),
        Work::Repair => "repairs".into(),
    }
}

fn run(seed: u64) {
    let hosts = (0..HOSTS).map(|_| None).collect();
    let random = TestClock::new(Stamp::from_millis(0), seed);
    let (kept, drafts, held, overlays) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new(), Vec::new());
    // Every third time the way to the target is bad, too.
    let lab = if seed.is_multiple_of(3) { Lab::flaky(seed) } else { Lab::new() };
    let mut run = Run { lab, random, kept, drafts, overlays, hosts, held, log: Vec::new() };
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
        if run.discard_again(&last, &report.obstacles) {
            report = last.gc_with(&Run::options()).unwrap();
        }
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
            SystemClock.random(&mut seed);
            let first = u64::from(u32::from_le_bytes(seed));
            println!("seeds from {first} on");
            (first..first + rounds.unwrap_or(12)).for_each(run);
        }
    }
}
