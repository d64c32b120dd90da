//! The protocol of deletion in the abstract: docs/architecture.md, "Deleting".
//!
//! One target. Blocks are bits: the root of a map, which names a data block. Packs hold blocks and can exist, be in an index
//! fragment, be condemned. Every step of an actor is one request, or work on what it has read. An actor that is never chosen
//! again has crashed or stalls for ever, so crashes at every step need no steps of their own. Local choices (what to condemn,
//! when to look) are all tried.

mod others;
mod steps;

use crate::explore::Model;

pub const WRITERS_MAX: usize = 2;
pub const COLLECTORS_MAX: usize = 3;
/// Packs that can ever be made.
const PACKS: usize = 8;
/// Records: one that stands at the beginning, and two for each writer.
const RECORDS: usize = 1 + 2 * WRITERS_MAX;

/// A set of packs, or of blocks.
type Set = u8;

/// An image is a root and a data block; both images share the data.
const DATA: Set = 1;
const ROOTS: [Set; 2] = [2, 4];

/// What can be taken out of the protocol. Each is a way in which simpler protocols lose data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Without {
    /// All rules hold.
    Nothing,
    /// Rule 8: what fsync acknowledged has a record.
    Records,
    /// Rule 5: records are never rewritten; going on publishes a new one (6).
    NewRecords,
    /// Rule 2: the list is never trimmed. Here entries go when their packs are deleted.
    WholeList,
    /// Rule 2: the whole list is read. Here entries have numbers, and only those above the last one seen are read.
    ReadingTheWholeList,
    /// Rule 2: batches have names of their own. Here they are numbered, and a stalled collector reuses a number.
    UniqueBatches,
    /// Rule 2: condemned packs are never used again. Here those that (again) exist are.
    DeadForEver,
    /// Rule 3: the list is read after condemning.
    ListAfterCondemning,
    /// Rule 3: condemning comes before looking at records.
    CondemningFirst,
    /// Rule 3: records are read before the index. Here the index is read first, and not again.
    RecordsBeforeIndex,
    /// Rule 3: the index of copies is durable before packs are deleted.
    IndexBeforeDeleting,
    /// Rule 3: only packs in the list as read are deleted. Here the list is read again.
    ListAsRead,
    /// Rule 3: what a confirmed version needs and cannot be read stops the deletion.
    StoppingForUnreadable,
    /// Rule 3: the index is read again before anything is called missing.
    ReadingAgain,
    /// Rule 4: the list is read after the index.
    IndexBeforeList,
    /// Rule 4: the check is repeated until it stored nothing.
    Repeating,
    /// Rule 4: there is a check at all.
    Check,
    /// Rule 4: blocks that were there before are checked, too.
    CheckOfInherited,
    /// Rule 4: blocks stored just now are checked, too.
    CheckOfNew,
    /// Rule 5: a finder looks for `ok` after it wrote `withdrawing`.
    LookForOk,
    /// Rule 5: a writer looks for `withdrawing` after it wrote `ok`.
    LookForWithdrawing,
    /// Rule 7: a removed version leaves a tombstone.
    Tombstones,
    /// Rule 8: an open draft has a record of what it is based on.
    BaseRecord,
    /// Drafts that were published are dropped only when nobody is withdrawing the version that stands for them.
    LookBeforeDropping,
    /// A merged index fragment is durable before those it replaces go.
    MergedFirst,
    /// A merged fragment keeps the entries of condemned packs that are still there.
    EntriesOfTheCondemned,
    /// Where a version was lost, its blocks are kept for whoever repairs it.
    KeepingTheLost,
    /// Once a writer has written `ok` it takes nothing back: others may have acted on it.
    LeavingWhatIsConfirmed,
    /// A confirmation is put back before the record that it confirms.
    OkFirst,
}

/// Who takes part.
#[derive(Debug, Clone, Copy)]
pub struct Cast {
    /// Backups of the same image; 0 to 2.
    pub writers: usize,
    /// 0 to 3.
    pub collectors: usize,
    /// Whether somebody takes writers for dead.
    pub finder: bool,
    /// Whether versions may be removed.
    pub rm: bool,
    /// Packs, records and verdicts that may arrive once more.
    pub duplicates: u8,
    /// Whether a collector may find a map unreadable for a moment.
    pub flaky: bool,
    /// Whether the last writer dies when it has stored its blocks.
    pub dies: bool,
    /// Whether a writer goes on after it was acknowledged, with another image.
    pub goes_on: bool,
    /// Whether what a writer writes first is based on the version at the beginning: it has the new root only, and inherits the data.
    pub based: bool,
    /// Whether somebody drops drafts that were published.
    pub cleaner: bool,
    /// Whether somebody merges index fragments. Then reading the index takes time.
    pub merger: bool,
    /// Whether the record of the version at the beginning is lost, and put back by whoever knew it: collector 0's host.
    pub repairer: bool,
    /// What packs hold at the beginning, all of them indexed.
    pub packs: &'static [Set],
    /// Whether a confirmed version of the image is there at the beginning.
    pub version: bool,
    /// Steps that were taken before everything that follows is tried, where all of it would be too much.
    pub opening: &'static [&'static str],
}

/// Root and data.
pub const BOTH: Set = DATA | ROOTS[0];
/// Only the root.
pub const ROOT: Set = ROOTS[0];
/// Only the data.
pub const BLOCK: Set = DATA;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
struct RecordOf {
    /// 0 for none yet; otherwise 1 more than the image.
    image: u8,
    exists: bool,
    ok: bool,
    /// Whether `ok` was ever written: it may arrive again.
    ok_written: bool,
    withdrawing: bool,
    tombstone: bool,
    removed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
enum Writing {
    #[default]
    Begins,
    PutsPack,
    PutsFragment,
    Publishes,
    ReadsFirst,
    ReadsSecond,
    Walks,
    CopiesPack,
    CopiesFragment,
    Confirms,
    Looks,
    TakesBack,
    Ended,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
struct Writer {
    at: Writing,
    /// 0: the first image, 1: the other, after going on.
    image: u8,
    index: Set,
    list: Set,
    /// First number of the list that it has not seen.
    cursor: u8,
    /// Blocks to put into the next pack.
    carries: Set,
    /// Packs it made.
    own: Set,
    /// 0: nothing was acknowledged; otherwise 1 more than the image.
    acknowledged: u8,
    reading: Reading,
}

/// A list of the index fragments that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
struct Reading {
    is_begun: bool,
    /// Packs whose entries were put into a merged fragment since it began: it may not show that one.
    merged: Set,
    /// Packs whose other fragments are gone, too.
    missed: Set,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
enum Collecting {
    #[default]
    Chooses,
    Condemns,
    ReadsList,
    ReadsRecords,
    ReadsIndex,
    Walks,
    PutsPack,
    PutsFragment,
    Deletes,
    Ended,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
struct Collector {
    at: Collecting,
    batch: Set,
    number: u8,
    list: Set,
    /// Records it saw, and those of them that were confirmed.
    records: u8,
    confirmed: u8,
    /// The image each of the records had, for those that are rewritten.
    images: u8,
    index: Set,
    carries: Set,
    pack: Set,
    reading: Reading,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
struct Finder {
    /// 0: waits; 1: is about to write `withdrawing`; 2: is about to look; 3: is about to delete; 4: ended.
    at: u8,
    record: u8,
}

/// Somebody who drops published drafts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
struct Cleaner {
    /// 0: waits; 1: is about to look for `withdrawing`; 2: is about to delete the draft; 3: ended.
    at: u8,
    writer: u8,
}

/// Somebody who merges all index fragments into one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
struct Merger {
    /// 0: waits; 1: has read the list of condemned packs; 2: what is there, too; 3: has put, or deleted, the first half; 4: ended.
    at: u8,
    /// Packs whose entries are merged, and those left out.
    takes: Set,
    leaves_out: Set,
}

/// Somebody who puts back a version that was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
struct Repairer {
    /// 0: nothing is lost; 1: is about to look for a tombstone; 2: for `withdrawing`; 3: to put the first of record and `ok`; 4: the
    /// other; 5: ended.
    at: u8,
}

/// One moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct World {
    holds: [Set; PACKS],
    made: u8,
    exist: Set,
    indexed: Set,
    /// Batches by number; with unique names all of them are in the first.
    batches: [Set; 2],
    records: [RecordOf; RECORDS],
    writers: [Writer; WRITERS_MAX],
    collectors: [Collector; COLLECTORS_MAX],
    finder: Finder,
    cleaner: Cleaner,
    merger: Merger,
    repairer: Repairer,
    /// Whether a writer could not store what it was based on.
    is_stranded: bool,
    duplicates: u8,
}

impl World {
    fn condemned(&self) -> Set {
        self.batches[0] | self.batches[1]
    }

    /// What a reader knows that reads numbers from a cursor on only, and where that stands then.
    fn since(&self, cursor: u8) -> (Set, u8) {
        let new = (usize::from(cursor)..2).filter(|number| self.batches[*number] != 0);
        new.fold((0, cursor), |(list, _), number| (list | self.batches[number], number as u8 + 1))
    }

    fn make(&mut self, blocks: Set) -> Option<Set> {
        let number = usize::from(self.made);
        *self.holds.get_mut(number)? = blocks;
        self.made += 1;
        self.exist |= 1 << number;
        Some(1 << number)
    }

    /// The blocks that some pack of a set holds.
    fn held_by(&self, packs: Set) -> Set {
        (0..PACKS).filter(|pack| packs >> pack & 1 == 1).fold(0, |held, pack| held | self.holds[pack])
    }
}

/// The protocol, whole or with a rule taken out, and who takes part.
pub struct Protocol {
    pub cast: Cast,
    pub without: Without,
}

fn blocks_of(image: u8) -> Set {
    DATA | ROOTS[usize::from(image)]
}

fn root_of(image: u8) -> Set {
    ROOTS[usize::from(image)]
}

impl Model for Protocol {
    type State = World;

    fn first(&self) -> World {
        let mut world = World {
            holds: [0; PACKS],
            made: 0,
            exist: 0,
            indexed: 0,
            batches: [0; 2],
            records: [RecordOf::default(); RECORDS],
            writers: [Writer::default(); WRITERS_MAX],
            collectors: [Collector::default(); COLLECTORS_MAX],
            finder: Finder::default(),
            cleaner: Cleaner::default(),
            merger: Merger::default(),
            repairer: Repairer::default(),
            is_stranded: false,
            duplicates: self.cast.duplicates,
        };
        for blocks in self.cast.packs {
            world.indexed |= world.make(*blocks).expect("packs at the beginning fit");
        }
        if self.cast.version {
            world.records[0] = RecordOf { image: 1, exists: true, ok: true, ok_written: true, ..RecordOf::default() };
        }
        if self.is_out(Without::BaseRecord) {
            // It begins with the other image at once, and believes in what that inherits.
            world.writers[..self.cast.writers].iter_mut().for_each(|writer| writer.image = 1);
        }
        for words in self.cast.opening {
            let mut next = Vec::new();
            self.next(&world, &mut next);
            let taken = next.into_iter().find(|(taken, _)| taken == words);
            world = taken.unwrap_or_else(|| panic!("nobody {words}")).1;
        }
        world
    }

    fn next(&self, world: &World, out: &mut Vec<(String, World)>) {
        (0..self.cast.writers).for_each(|number| self.write(world, number, out));
        (0..self.cast.collectors).for_each(|number| self.collect(world, number, out));
        if self.cast.finder {
            self.find(world, out);
        }
        if self.cast.rm {
            self.remove(world, out);
        }
        if self.cast.cleaner {
            self.clean(world, out);
        }
        if self.cast.merger {
            self.merge(world, out);
        }
        if self.cast.repairer {
            self.repair(world, out);
        }
        if world.duplicates > 0 {
            self.repeat(world, out);
        }
    }

    fn fault(&self, world: &World) -> Option<String> {
        // What can be found: packs that are there and in the index.
        let there = world.held_by(world.exist & world.indexed);
        for (at, record) in world.records.iter().enumerate() {
            let is_shown = record.exists && record.ok && !record.tombstone;
            if is_shown && blocks_of(record.image - 1) & !there != 0 {
                return Some(format!("record {at} is shown and not whole"));
            }
        }
        for (number, writer) in world.writers[..self.cast.writers].iter().enumerate() {
            let Some(image) = writer.acknowledged.checked_sub(1) else { continue };
            let image = self.stands_for(world, number, image);
            if blocks_of(image) & !there != 0 && !self.was_removed(world, number, image) {
                return Some(format!("what writer {number} was told is safe is gone"));
            }
            if !self.is_out(Without::Records) && !self.has_record(world, number, image) {
                return Some(format!("the record of what writer {number} was told is safe is gone"));
            }
        }
        let first = &world.records[0];
        let was_put_back = world.repairer.at == 5 && !first.exists;
        if self.cast.version && !first.removed && (first.tombstone || was_put_back) {
            return Some("the version that was there is gone".into());
        }
        world.is_stranded.then(|| "a draft has lost what it is based on".into())
    }
}

impl Protocol {
    fn was_removed(&self, world: &World, number: usize, image: u8) -> bool {
        let at = self.record_of(number, &Writer { image, ..Writer::default() });
        world.records[at].removed
    }

    /// The image that stands for an acknowledged one: a draft that was dropped has its version.
    fn stands_for(&self, world: &World, number: usize, image: u8) -> u8 {
        let is_dropped = self.cast.cleaner && image == 0 && !self.has_record(world, number, 0);
        u8::from(is_dropped || image == 1)
    }

    fn has_record(&self, world: &World, number: usize, image: u8) -> bool {
        let at = self.record_of(number, &Writer { image, ..Writer::default() });
        let record = &world.records[at];
        record.removed || record.exists && record.image == image + 1
    }
}
