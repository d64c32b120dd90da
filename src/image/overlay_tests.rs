//! The overlay against a plain array of bytes, on a disk that loses power and on the real one.

use crate::image::overlay::{AccessError, BaseReader, OverlayError, OverlayFile, UNIT_BYTES};
use crate::image::overlay_journal::Tuning;
use crate::image::overlay_simulation::{Dice, SimulatedDisk};
use crate::words::ids::Uid;
use proptest::prelude::*;
use std::sync::Arc;

pub(super) const UID: Uid = Uid::from_bytes([0x11; 16]);
const SECTOR: usize = 512;
const SIZE: usize = 20 * UNIT_BYTES as usize + 700;
/// So small that batches are split and the journal is rewritten often.
const TINY: Tuning = Tuning { batch_bytes: 1, slack_bytes: 20 };

/// A base with a byte that says where it is.
pub(super) struct Pattern;

pub(super) fn pattern_at(offset: u64) -> u8 {
    (offset / 97 % 250) as u8 + 1
}

impl BaseReader for Pattern {
    type Error = String;
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), String> {
        buffer.iter_mut().zip(offset..).for_each(|(byte, at)| *byte = pattern_at(at));
        Ok(())
    }
}

pub(super) struct BrokenBase;

impl BaseReader for BrokenBase {
    type Error = String;
    fn read_at(&self, offset: u64, _: &mut [u8]) -> Result<(), String> {
        Err(format!("unreadable at {offset}"))
    }
}

/// What the image may contain: now, and in each sector after a crash.
struct Model {
    now: Vec<u8>,
    possible: Vec<Vec<Vec<u8>>>,
}

impl Model {
    fn new() -> Self {
        let mut model = Self { now: (0..SIZE as u64).map(pattern_at).collect(), possible: Vec::new() };
        model.settle();
        model
    }

    /// Only what is now can be found after a crash.
    fn settle(&mut self) {
        self.possible = self.now.chunks(SECTOR).map(|sector| vec![sector.to_vec()]).collect();
    }

    fn write(&mut self, at: usize, bytes: &[u8]) {
        self.now[at..at + bytes.len()].copy_from_slice(bytes);
        self.allow(at, bytes.len());
    }

    /// Records the sectors of a range as possible.
    fn allow(&mut self, at: usize, len: usize) {
        for index in at / SECTOR..(at + len).div_ceil(SECTOR) {
            let sector = &self.now[index * SECTOR..((index + 1) * SECTOR).min(SIZE)];
            self.possible[index].push(sector.to_vec());
        }
    }

    /// Takes what was found after a crash, if it was possible.
    fn find(&mut self, found: &[u8]) {
        for (index, (sector, possible)) in found.chunks(SECTOR).zip(&self.possible).enumerate() {
            assert!(possible.iter().any(|p| p == sector), "sector {index} was never like this: {:?}", &sector[..8]);
        }
        self.now = found.to_vec();
    }
}

#[derive(Debug, Clone)]
enum Op {
    Write { at: usize, len: usize, tag: u8 },
    Punch { at: usize, len: usize },
    Sync,
    Reopen,
    Kill { effects: u64 },
    LosePower { effects: u64, seed: u64 },
    Full(bool),
    Free,
    Discard,
}

fn any_op() -> impl Strategy<Value = Op> {
    let at = prop_oneof![0..SIZE, (0..20usize).prop_map(|unit| unit * UNIT_BYTES as usize), Just(SIZE - 700)];
    let len = prop_oneof![1..6000usize, (1..6usize).prop_map(|units| units * UNIT_BYTES as usize), Just(SIZE)];
    let place = (at, len).prop_map(|(at, len)| (at, len.min(SIZE - at)));
    prop_oneof![
        6 => (place.clone(), any::<u8>()).prop_map(|((at, len), tag)| Op::Write { at, len, tag }),
        3 => place.prop_map(|(at, len)| Op::Punch { at, len }),
        3 => Just(Op::Sync),
        1 => Just(Op::Reopen),
        1 => (0..12u64).prop_map(|effects| Op::Kill { effects }),
        2 => (0..12u64, any::<u64>()).prop_map(|(effects, seed)| Op::LosePower { effects, seed }),
        1 => any::<bool>().prop_map(Op::Full),
        1 => Just(Op::Free),
        1 => Just(Op::Discard),
    ]
}

/// An overlay on a simulated disk beside its model.
struct Bench {
    disk: SimulatedDisk,
    overlay: Option<OverlayFile>,
    model: Model,
    /// Whether it was opened again: then the file may have holes where the journal says Data, and overwriting them takes space.
    is_reopened: bool,
}

impl Bench {
    fn new() -> Self {
        let mut bench = Self { disk: SimulatedDisk::default(), overlay: None, model: Model::new(), is_reopened: false };
        bench.open();
        bench
    }

    fn try_open(&self) -> Result<OverlayFile, OverlayError> {
        OverlayFile::open_on(Arc::new(self.disk.clone()), UID, SIZE as u64, TINY)
    }

    fn open(&mut self) {
        self.overlay = Some(self.try_open().unwrap());
    }

    fn overlay(&self) -> &OverlayFile {
        self.overlay.as_ref().unwrap()
    }

    fn read(&self) -> Vec<u8> {
        let mut found = vec![0xee; SIZE];
        self.overlay().read_at(0, &mut found, &Pattern).unwrap();
        found
    }

    /// Opens after a crash, and cuts that short too, to try crashes of the opening itself.
    fn recover(&mut self, dice: Option<&Dice>) {
        self.is_reopened = true;
        for effects in 0..3 {
            self.disk.die_after(effects);
            drop(self.try_open());
            self.crash(dice);
        }
        self.open();
        let found = self.read();
        self.model.find(&found);
        if dice.is_some() {
            // Nothing but what is durable is left, and opening must not have weakened that.
            self.model.settle();
        }
    }

    fn crash(&mut self, dice: Option<&Dice>) {
        self.overlay = None;
        match dice {
            Some(dice) => self.disk.lose_power(dice),
            None => self.disk.revive(),
        }
    }

    fn run(&mut self, op: &Op) {
        match *op {
            Op::Write { at, len, tag } => self.write(at, &vec![tag; len]),
            Op::Punch { at, len } => self.punch(at, len),
            Op::Sync => match self.overlay().sync() {
                Ok(()) => self.model.settle(),
                Err(OverlayError::NoSpace { .. }) => {}
                Err(error) => assert!(self.disk.is_dead(), "{error}"),
            },
            Op::Reopen => {
                self.overlay = None;
                self.is_reopened = true;
                self.disk.set_full(false);
                self.open_or_die();
                if self.overlay.is_some() {
                    let found = self.read();
                    self.model.find(&found);
                }
            }
            Op::Kill { effects } => self.disk.die_after(effects),
            Op::LosePower { effects, .. } => self.disk.die_after(effects),
            Op::Full(full) => self.disk.set_full(full),
            Op::Free => drop(self.overlay().free_some_space()),
            Op::Discard => match self.overlay.take().unwrap().discard() {
                Ok(()) => {
                    self.model = Model::new();
                    self.disk.set_full(false);
                    if !self.disk.is_dead() {
                        self.open_or_die();
                    }
                }
                Err(_) => {
                    let whole = self.model.now.len();
                    let before = std::mem::replace(&mut self.model.now, (0..SIZE as u64).map(pattern_at).collect());
                    self.model.allow(0, whole);
                    self.model.now = before;
                }
            },
        }
    }

    fn open_or_die(&mut self) {
        match self.try_open() {
            Ok(overlay) => self.overlay = Some(overlay),
            Err(error) => assert!(self.disk.is_dead(), "{error}"),
        }
    }

    fn write(&mut self, at: usize, bytes: &[u8]) {
        let result = self.overlay().write_at(at as u64, bytes, &Pattern);
        self.after(result, at, bytes);
    }

    fn punch(&mut self, at: usize, len: usize) {
        let result = self.overlay().punch(at as u64, len as u64, &Pattern);
        self.after(result, at, &vec![0; len]);
    }

    fn after(&mut self, result: Result<(), AccessError<String>>, at: usize, bytes: &[u8]) {
        match result {
            Ok(()) => self.model.write(at, bytes),
            // A punch zeroes its edges by writes, one of which may have gone well: of each sector the old or the new is there.
            Err(error) => {
                let old = self.model.now.clone();
                self.model.write(at, bytes);
                self.model.now = old;
                let AccessError::Overlay(error) = error else { panic!("{error}") };
                assert!(matches!(error, OverlayError::NoSpace { .. }) || self.disk.is_dead(), "{error}");
                let found = self.read();
                let is_write = bytes.iter().any(|byte| *byte != 0);
                if is_write && !self.is_reopened && matches!(error, OverlayError::NoSpace { .. }) {
                    assert!(found == self.model.now, "a write that found the disk full changed something");
                }
                self.model.find(&found);
            }
        }
    }

    /// Runs all operations; whenever the disk has died on the way, crashes the way the fatal operation said.
    fn run_all(&mut self, ops: &[Op]) {
        let mut dice = None;
        for op in ops {
            match op {
                Op::LosePower { seed, .. } => dice = Some(Dice::new(*seed)),
                Op::Kill { .. } => dice = None,
                _ => {}
            }
            self.run(op);
            if self.disk.is_dead() || self.overlay.is_none() {
                self.disk.set_full(false);
                self.crash(dice.as_ref());
                self.recover(dice.as_ref());
            }
            assert!(self.read() == self.model.now, "after {op:?}");
        }
        let dice = Dice::new(ops.len() as u64);
        self.crash(Some(&dice));
        self.disk.set_full(false);
        self.recover(Some(&dice));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn an_overlay_is_an_array_of_bytes_through_every_crash(ops in proptest::collection::vec(any_op(), 1..40)) {
        Bench::new().run_all(&ops);
    }
}

/// Writes, discards and syncs that between them take every path; the machine dies at each effect in turn.
fn script() -> [Op; 14] {
    let unit = UNIT_BYTES as usize;
    [
        Op::Write { at: 0, len: 3 * unit, tag: 1 },
        Op::Sync,
        Op::Write { at: unit + 5, len: 5 * unit, tag: 2 },
        Op::Punch { at: 2 * unit, len: unit },
        Op::Sync,
        Op::Write { at: 2 * unit, len: 100, tag: 3 },
        Op::Punch { at: 0, len: SIZE },
        Op::Write { at: SIZE - 5, len: 5, tag: 4 },
        Op::Sync,
        Op::Write { at: 0, len: SIZE, tag: 5 },
        Op::Sync,
        Op::Discard,
        Op::Write { at: 7, len: 7, tag: 6 },
        Op::Sync,
    ]
}

fn effects_of(script: &[Op]) -> u64 {
    let mut bench = Bench::new();
    let before = bench.disk.effects();
    script.iter().for_each(|op| bench.run(op));
    let total = bench.disk.effects() - before;
    assert!(total > 40, "{total} effects");
    total
}

#[test]
fn dying_at_any_effect_loses_nothing_acknowledged() {
    let script = script();
    let total = effects_of(&script);
    for effects in 0..total {
        for seed in 0..8 {
            let mut bench = Bench::new();
            let crash =
                if seed == 0 { Op::Kill { effects } } else { Op::LosePower { effects, seed: seed * 1000 + effects } };
            let ops: Vec<_> = std::iter::once(crash).chain(script.iter().cloned()).collect();
            bench.run_all(&ops);
        }
    }
}

/// A killed process leaves in the page cache what is not on the disk. Who opens the overlay next sees it, and when a sync has
/// returned to him, it must be on the disk.
#[test]
fn a_sync_after_a_kill_covers_what_the_killed_one_left_unsynced() {
    let script = script();
    for effects in 0..effects_of(&script) {
        for seed in 0..8 {
            let mut bench = Bench::new();
            bench.disk.die_after(effects);
            for op in &script {
                if !bench.disk.is_dead() && bench.overlay.is_some() {
                    bench.run(op);
                }
            }
            bench.crash(None);
            bench.open();
            let found = bench.read();
            bench.model.find(&found);
            if seed % 2 == 0 {
                bench.write(9000, &[9; 10]);
            }
            bench.run(&Op::Sync);
            let dice = Dice::new(effects * 100 + seed);
            bench.crash(Some(&dice));
            bench.recover(Some(&dice));
        }
    }
}

/// Power goes right after each sync, so nothing later can make good what it left undone.
#[test]
fn power_loss_after_any_sync_loses_nothing() {
    for step in 1..40u8 {
        for seed in 0..8 {
            let mut bench = Bench::new();
            for tag in 1..=step {
                bench.write(usize::from(tag % 20) * UNIT_BYTES as usize, &[tag; 4096]);
                bench.run(&Op::Sync);
            }
            let dice = Dice::new(seed);
            bench.crash(Some(&dice));
            bench.recover(Some(&dice));
        }
    }
}

#[test]
fn a_write_that_finds_the_disk_full_takes_no_space() {
    let mut bench = Bench::new();
    bench.write(4096 * 3, &[1; 4096]);
    bench.run(&Op::Sync);
    let before = bench.disk.allocated_bytes();
    bench.disk.set_full_after(2);
    bench.write(4096, &[2; 5 * 4096]);
    assert_eq!(bench.disk.allocated_bytes(), before);
    assert_eq!(bench.overlay().stored_bytes(), UNIT_BYTES);
    bench.disk.set_full(false);
    bench.write(4096, &[2; 5 * 4096]);
    assert_eq!(bench.overlay().stored_bytes(), 5 * UNIT_BYTES);
}

/// After a crash a unit may be Data with a hole under it, where a write in place can still find the disk full half way.
#[test]
fn a_sync_covers_what_a_failed_write_has_changed() {
    for seed in 0..8 {
        let mut bench = Bench::new();
        bench.run(&Op::Write { at: 0, len: SIZE, tag: 1 });
        bench.run(&Op::Sync);
        bench.run(&Op::Punch { at: 5 * UNIT_BYTES as usize, len: UNIT_BYTES as usize });
        bench.crash(None);
        bench.run(&Op::Reopen);
        bench.run(&Op::Sync);
        bench.disk.set_full(true);
        bench.run(&Op::Write { at: 0, len: SIZE, tag: 2 });
        assert_eq!(bench.model.now[0], 2, "the write got somewhere");
        bench.run(&Op::Sync);
        let dice = Dice::new(seed);
        bench.crash(Some(&dice));
        bench.recover(Some(&dice));
    }
}

#[test]
fn a_failed_sync_is_never_made_good_by_a_later_one() {
    let bench = Bench::new();
    bench.overlay().write_at(0, &[1; 4096], &Pattern).unwrap();
    bench.disk.fail_next_sync();
    assert!(matches!(bench.overlay().sync(), Err(OverlayError::Io { .. })));
    assert!(matches!(bench.overlay().sync(), Err(OverlayError::Lost { .. })));
    let write = bench.overlay().write_at(0, &[1], &Pattern);
    assert!(matches!(write, Err(AccessError::Overlay(OverlayError::Lost { .. }))));
    bench.read();
}

#[test]
fn the_time_of_the_last_write_survives_power_loss() {
    let mut bench = Bench::new();
    assert_eq!(bench.overlay().last_write().unwrap(), None);
    for step in 0..4u8 {
        bench.write(0, &[step; 100]);
        let written = bench.overlay().last_write().unwrap();
        assert!(written.is_some());
        bench.run(&Op::Sync);
        bench.crash(Some(&Dice::new(step.into())));
        bench.recover(Some(&Dice::new(step.into())));
        assert_eq!(bench.overlay().last_write().unwrap(), written);
    }
}
