//! A disk in memory whose power can be cut: what was not synced survives in part, by sectors, as chance has it.

use crate::image::overlay_disk::{LocalDisk, LocalFile};
use crate::words::attribute::Mtime;
use crate::words::clock::{Clock, TestClock};
use crate::words::stamp::Stamp;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::sync::Arc;

const SECTOR: u64 = 512;
const PAGE: u64 = 4096;

/// Seeded chance.
pub struct Dice(TestClock);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(TestClock::new(Stamp::from_millis(0), seed))
    }

    pub fn below(&self, limit: usize) -> usize {
        let mut bytes = [0; 8];
        self.0.random(&mut bytes);
        (u64::from_le_bytes(bytes) % limit as u64) as usize
    }
}

#[derive(Clone)]
enum Change {
    Write(u64, Vec<u8>),
    Punch(Range<u64>),
    SetLen(u64),
}

fn apply(content: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write(offset, bytes) => {
            let end = *offset as usize + bytes.len();
            content.resize(content.len().max(end), 0);
            content[*offset as usize..end].copy_from_slice(bytes);
        }
        Change::Punch(range) => {
            let end = content.len().min(range.end as usize);
            content[(range.start as usize).min(end)..end].fill(0);
        }
        Change::SetLen(len) => content.resize(*len as usize, 0),
    }
}

#[derive(Default)]
struct Inode {
    live: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Change>,
    allocated: BTreeSet<u64>,
    time: i64,
    durable_time: i64,
}

#[derive(Clone)]
enum Renaming {
    Create(String, usize),
    Rename(String, String),
    Remove(String),
}

type Directory = BTreeMap<String, usize>;

fn apply_renaming(names: &mut Directory, renaming: &Renaming) {
    match renaming {
        Renaming::Create(name, inode) => drop(names.insert(name.clone(), *inode)),
        Renaming::Rename(from, to) => {
            let inode = names.remove(from).unwrap();
            names.insert(to.clone(), inode);
        }
        Renaming::Remove(name) => drop(names.remove(name)),
    }
}

#[derive(Default)]
struct State {
    inodes: Vec<Inode>,
    names: Directory,
    durable_names: Directory,
    pending_names: Vec<Renaming>,
    clock: i64,
    /// Effects still to succeed before all fail.
    left: Option<u64>,
    /// Pages that can still be allocated; `None` when there is no end of them.
    room: Option<u64>,
    /// Whether the next sync of a file fails, and with it the knowledge of what is durable.
    sync_fails: bool,
    effects: u64,
}

impl State {
    /// Counts a change of the disk; fails it when the machine has died.
    fn effect(&mut self) -> io::Result<()> {
        self.effects += 1;
        match &mut self.left {
            Some(0) => Err(io::Error::other("the machine is dead")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

/// The disk. Clones are the same disk.
#[derive(Clone, Default)]
pub struct SimulatedDisk(Arc<Mutex<State>>);

impl SimulatedDisk {
    /// Lets `effects` more changes succeed, and none after.
    pub fn die_after(&self, effects: u64) {
        self.0.lock().left = Some(effects);
    }

    pub fn is_dead(&self) -> bool {
        self.0.lock().left == Some(0)
    }

    pub fn effects(&self) -> u64 {
        self.0.lock().effects
    }

    pub fn set_full(&self, full: bool) {
        self.0.lock().room = full.then_some(0);
    }

    /// Lets so many more pages be allocated.
    pub fn set_full_after(&self, pages: u64) {
        self.0.lock().room = Some(pages);
    }

    pub fn allocated_bytes(&self) -> u64 {
        self.0.lock().inodes.iter().map(|inode| inode.allocated.len() as u64 * PAGE).sum()
    }

    pub fn fail_next_sync(&self) {
        self.0.lock().sync_fails = true;
    }

    /// Makes the machine live again after a kill: the page cache survived.
    pub fn revive(&self) {
        self.0.lock().left = None;
    }

    /// Cuts the power and turns it on again.
    pub fn lose_power(&self, dice: &Dice) {
        let mut state = self.0.lock();
        for inode in &mut state.inodes {
            for change in std::mem::take(&mut inode.pending) {
                match change {
                    Change::Write(offset, bytes) => {
                        // 1: as it was written, 2: a prefix, else: any sectors.
                        let (mode, cut) = (dice.below(4), dice.below(bytes.len() + 1));
                        let mut at = 0;
                        while at < bytes.len() {
                            let sector_end = ((offset + at as u64) / SECTOR + 1) * SECTOR;
                            let end = bytes.len().min((sector_end - offset) as usize);
                            let survives = match mode {
                                0 => true,
                                1 => end <= cut,
                                _ => dice.below(2) == 0,
                            };
                            if survives {
                                let part = Change::Write(offset + at as u64, bytes[at..end].to_vec());
                                apply(&mut inode.durable, &part);
                            }
                            at = end;
                        }
                    }
                    change if dice.below(2) == 0 => apply(&mut inode.durable, &change),
                    _ => {}
                }
            }
            inode.live = inode.durable.clone();
            inode.time = inode.durable_time;
        }
        // Names change in order: every journaling filesystem keeps that.
        let kept = dice.below(state.pending_names.len() + 1);
        let pending = std::mem::take(&mut state.pending_names);
        pending[..kept].iter().for_each(|renaming| apply_renaming(&mut state.durable_names, renaming));
        state.names = state.durable_names.clone();
        state.left = None;
        state.sync_fails = false;
    }

    fn file(&self, name: &str) -> io::Result<SimulatedFile> {
        let mut state = self.0.lock();
        if let Some(inode) = state.names.get(name) {
            return Ok(SimulatedFile { disk: self.clone(), inode: *inode });
        }
        state.effect()?;
        state.inodes.push(Inode::default());
        let inode = state.inodes.len() - 1;
        state.rename(Renaming::Create(name.to_owned(), inode));
        Ok(SimulatedFile { disk: self.clone(), inode })
    }
}

impl State {
    fn rename(&mut self, renaming: Renaming) {
        apply_renaming(&mut self.names, &renaming);
        self.pending_names.push(renaming);
    }
}

impl LocalDisk for SimulatedDisk {
    fn open(&self, name: &str) -> io::Result<Box<dyn LocalFile>> {
        Ok(Box::new(self.file(name)?))
    }
    fn open_locked(&self, name: &str) -> io::Result<Box<dyn LocalFile>> {
        self.open(name)
    }
    fn exists(&self, name: &str) -> io::Result<bool> {
        Ok(self.0.lock().names.contains_key(name))
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.0.lock();
        state.effect()?;
        state.rename(Renaming::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.0.lock();
        if state.names.contains_key(name) {
            state.effect()?;
            state.rename(Renaming::Remove(name.to_owned()));
        }
        Ok(())
    }
    fn sync(&self) -> io::Result<()> {
        let mut state = self.0.lock();
        state.effect()?;
        state.durable_names = state.names.clone();
        state.pending_names.clear();
        Ok(())
    }
}

struct SimulatedFile {
    disk: SimulatedDisk,
    inode: usize,
}

impl SimulatedFile {
    fn with<T>(&self, act: impl FnOnce(&mut Inode) -> T) -> T {
        act(&mut self.disk.0.lock().inodes[self.inode])
    }

    fn change(&self, change: Change) -> io::Result<()> {
        let mut state = self.disk.0.lock();
        state.effect()?;
        state.clock += 1;
        let (clock, room) = (state.clock, state.room);
        let mut left = room;
        let inode = &mut state.inodes[self.inode];
        inode.time = clock;
        let (change, result) = match change {
            Change::Write(offset, bytes) if let Some(room) = room => {
                // As the kernel does it: page by page until one finds no space.
                let pages = offset / PAGE..(offset + bytes.len() as u64).div_ceil(PAGE);
                match pages.filter(|page| !inode.allocated.contains(page)).nth(room as usize) {
                    None => (Change::Write(offset, bytes), Ok(())),
                    Some(page) => {
                        let len = (page * PAGE).saturating_sub(offset) as usize;
                        (Change::Write(offset, bytes[..len].to_vec()), Err(io::ErrorKind::StorageFull.into()))
                    }
                }
            }
            change => (change, Ok(())),
        };
        match &change {
            Change::Write(offset, bytes) if !bytes.is_empty() => {
                let before = inode.allocated.len();
                inode.allocated.extend(offset / PAGE..(offset + bytes.len() as u64).div_ceil(PAGE));
                left = room.map(|room| room - (inode.allocated.len() - before) as u64);
            }
            Change::Write(..) => return result,
            Change::Punch(range) => inode.allocated.retain(|page| !range.contains(&(page * PAGE))),
            Change::SetLen(len) => inode.allocated.retain(|page| page * PAGE < *len),
        }
        apply(&mut inode.live, &change);
        inode.pending.push(match change {
            // A disk takes whole sectors, with what else the page cache holds of them.
            Change::Write(offset, bytes) => {
                let (from, end) = (offset / SECTOR * SECTOR, offset + bytes.len() as u64);
                let end = end.next_multiple_of(SECTOR).min(inode.live.len() as u64);
                Change::Write(from, inode.live[from as usize..end as usize].to_vec())
            }
            change => change,
        });
        state.room = left;
        result
    }

    fn make_durable(&self, with_time: bool) -> io::Result<()> {
        let mut state = self.disk.0.lock();
        state.effect()?;
        if std::mem::take(&mut state.sync_fails) {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        let inode = &mut state.inodes[self.inode];
        inode.pending.clear();
        inode.durable = inode.live.clone();
        if with_time {
            inode.durable_time = inode.time;
        }
        Ok(())
    }
}

impl LocalFile for SimulatedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.with(|inode| {
            let part = inode.live.get(offset as usize..offset as usize + buffer.len());
            buffer.copy_from_slice(part.ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        })
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.change(Change::Write(offset, bytes.to_vec()))
    }
    fn punch(&self, range: Range<u64>) -> io::Result<()> {
        self.change(Change::Punch(range))
    }
    fn set_len(&self, len_bytes: u64) -> io::Result<()> {
        self.change(Change::SetLen(len_bytes))
    }
    fn len_bytes(&self) -> io::Result<u64> {
        Ok(self.with(|inode| inode.live.len() as u64))
    }
    fn allocated_bytes(&self) -> io::Result<u64> {
        // So much, if anything, that an overlay opened again always looks for leftovers.
        Ok(if self.with(|inode| inode.allocated.is_empty()) { 0 } else { u64::MAX })
    }
    fn next_allocated(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
        Ok(self.with(|inode| inode.allocated.range(offset.div_ceil(PAGE)..).next().map(|p| p * PAGE..(p + 1) * PAGE)))
    }
    fn sync_data(&self) -> io::Result<()> {
        self.make_durable(false)
    }
    fn sync_all(&self) -> io::Result<()> {
        self.make_durable(true)
    }
    fn start_writeback(&self) -> io::Result<()> {
        Ok(())
    }
    fn mtime(&self) -> io::Result<Mtime> {
        Ok(Mtime { seconds: self.with(|inode| inode.time), nanos: 0 })
    }
    fn set_mtime(&self, mtime: Option<Mtime>) -> io::Result<()> {
        let mut state = self.disk.0.lock();
        state.effect()?;
        let now = state.clock;
        state.inodes[self.inode].time = mtime.map_or(now, |mtime| mtime.seconds);
        Ok(())
    }
}
