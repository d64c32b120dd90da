//! What each actor does next, and what comes of it.

use super::*;

impl Protocol {
    pub(super) fn is_out(&self, rule: Without) -> bool {
        self.without == rule
    }

    /// The record a writer works on.
    pub(super) fn record_of(&self, number: usize, writer: &Writer) -> usize {
        1 + 2 * number + if self.is_out(Without::NewRecords) { 0 } else { usize::from(writer.image) }
    }

    pub(super) fn write(&self, world: &World, number: usize, out: &mut Vec<(String, World)>) {
        let mut next = *world;
        let writer = world.writers[number];
        let image = blocks_of(writer.image);
        let record = self.record_of(number, &writer);
        let me = &mut next.writers[number];
        let words = match writer.at {
            Writing::Begins => {
                let mut missing = image & !world.held_by(world.indexed & !world.condemned());
                if self.cast.based {
                    // It has never had the bytes that it inherits.
                    missing &= root_of(writer.image);
                }
                me.carries = missing;
                if self.is_out(Without::ReadingTheWholeList) {
                    (me.list, me.cursor) = world.since(writer.cursor);
                }
                me.at = if missing == 0 { Writing::Publishes } else { Writing::PutsPack };
                "looks what is there"
            }
            Writing::PutsPack | Writing::CopiesPack => {
                let Some(pack) = next.make(writer.carries) else { return };
                let me = &mut next.writers[number];
                me.own |= pack;
                me.carries = pack;
                me.at = if writer.at == Writing::PutsPack { Writing::PutsFragment } else { Writing::CopiesFragment };
                "puts a pack"
            }
            Writing::PutsFragment | Writing::CopiesFragment => {
                let copies = writer.at == Writing::CopiesFragment;
                me.at = match copies {
                    _ if self.cast.dies && number + 1 == self.cast.writers => Writing::Ended,
                    true if self.is_out(Without::Repeating) => Writing::Confirms,
                    true => Writing::ReadsFirst,
                    false => Writing::Publishes,
                };
                me.carries = 0;
                next.indexed |= writer.carries;
                "puts a fragment"
            }
            Writing::Publishes if self.is_out(Without::Records) => {
                me.acknowledged = writer.image + 1;
                me.at = Writing::Ended;
                "acknowledges without a record"
            }
            Writing::Publishes => {
                me.at = if self.is_out(Without::Check) { Writing::Confirms } else { Writing::ReadsFirst };
                next.records[record] = RecordOf { image: writer.image + 1, exists: true, ..RecordOf::default() };
                "publishes"
            }
            Writing::ReadsFirst if self.begins_to_list(&mut me.reading) => "begins to list the index",
            Writing::ReadsFirst => {
                let reading = std::mem::take(&mut me.reading);
                if reading.missed != 0 {
                    let mut next = next;
                    let me = &mut next.writers[number];
                    (me.index, me.at) = (world.indexed & !reading.missed, Writing::ReadsSecond);
                    out.push((format!("writer {number} reads the index without what was merged"), next));
                }
                let me = &mut next.writers[number];
                match self.is_out(Without::IndexBeforeList) {
                    true => me.list = world.condemned(),
                    false => me.index = world.indexed,
                }
                me.at = Writing::ReadsSecond;
                if self.is_out(Without::IndexBeforeList) { "reads the list" } else { "reads the index" }
            }
            Writing::ReadsSecond => {
                match self.is_out(Without::IndexBeforeList) {
                    true => me.index = world.indexed,
                    false if self.is_out(Without::ReadingTheWholeList) => {
                        let (new, cursor) = world.since(writer.cursor);
                        (me.list, me.cursor) = (writer.list | new, cursor);
                    }
                    false => me.list = world.condemned(),
                }
                me.at = Writing::Walks;
                if self.is_out(Without::IndexBeforeList) { "reads the index" } else { "reads the list" }
            }
            Writing::Walks => self.check(world, &writer, me),
            Writing::Confirms => {
                me.at = Writing::Looks;
                (next.records[record].ok, next.records[record].ok_written) = (true, true);
                "writes ok"
            }
            Writing::Looks => {
                let withdrawn = world.records[record].withdrawing && !self.is_out(Without::LookForWithdrawing);
                if withdrawn {
                    // It says that it failed. What stands is left to the finder, who may have found `ok`.
                    let takes_back = self.is_out(Without::LeavingWhatIsConfirmed);
                    me.at = if takes_back { Writing::TakesBack } else { Writing::Ended };
                } else {
                    *me = Writer { acknowledged: writer.image + 1, at: Writing::Ended, ..Writer::default() };
                    if self.cast.goes_on && writer.image == 0 {
                        (me.image, me.at) = (1, Writing::Begins);
                    }
                    if writer.image == 1 && !self.is_out(Without::NewRecords) {
                        // What it replaces goes when it is confirmed itself.
                        next.records[record - 1].exists = false;
                        next.records[record - 1].tombstone = true;
                    }
                }
                if withdrawn { "finds that it was withdrawn" } else { "acknowledges" }
            }
            Writing::TakesBack => {
                me.at = Writing::Ended;
                // What it wrote itself it can write again.
                let is_left = DATA & world.held_by(world.exist & world.indexed) != 0;
                next.is_stranded |= self.cast.based && writer.image == 1 && !is_left;
                let record = &mut next.records[record];
                (record.tombstone, record.exists, record.ok) = (true, false, false);
                "takes back"
            }
            Writing::Ended => return,
        };
        out.push((format!("writer {number} {words}"), next));
    }

    /// The walk of a check, under the index and the list as they were read.
    pub(super) fn check(&self, world: &World, writer: &Writer, me: &mut Writer) -> &'static str {
        let image = blocks_of(writer.image);
        let mut usable = writer.index & !writer.list;
        if self.is_out(Without::DeadForEver) {
            usable |= writer.index & world.exist;
        }
        let mut located = world.held_by(usable);
        if self.is_out(Without::CheckOfNew) {
            located |= world.held_by(writer.own);
        }
        if self.is_out(Without::CheckOfInherited) {
            located |= image & !world.held_by(writer.own);
        }
        let missing = image & !located;
        let readable = world.held_by(writer.index & world.exist);
        if missing == 0 {
            me.at = Writing::Confirms;
            return "finds everything";
        }
        if missing & !readable == 0 {
            (me.at, me.carries) = (Writing::CopiesPack, missing);
            return "reads what it must copy";
        }
        if writer.index != world.indexed {
            me.at = Writing::ReadsFirst;
            return "looks again for what is gone";
        }
        me.at = Writing::TakesBack;
        "misses something"
    }

    /// Where fragments are merged, a list of them takes time.
    pub(super) fn begins_to_list(&self, reading: &mut Reading) -> bool {
        self.cast.merger && !std::mem::replace(&mut reading.is_begun, true)
    }

    pub(super) fn collect(&self, world: &World, number: usize, out: &mut Vec<(String, World)>) {
        let collector = world.collectors[number];
        if collector.at == Collecting::Chooses {
            return self.choose(world, number, out);
        }
        let mut next = *world;
        let me = &mut next.collectors[number];
        let words = match collector.at {
            Collecting::Condemns => {
                me.at = match self.without {
                    Without::CondemningFirst => Collecting::Deletes,
                    Without::ListAfterCondemning => Collecting::ReadsRecords,
                    _ => Collecting::ReadsList,
                };
                me.list |= if self.is_out(Without::CondemningFirst) { collector.batch } else { 0 };
                match self.is_out(Without::UniqueBatches) || self.is_out(Without::ReadingTheWholeList) {
                    true => next.batches[usize::from(collector.number)] = collector.batch,
                    false => next.batches[0] |= collector.batch,
                }
                "condemns"
            }
            Collecting::ReadsList => {
                me.list = world.condemned();
                if self.is_out(Without::CondemningFirst) {
                    // It plans as if its batch were there.
                    me.list |= collector.batch;
                }
                me.at = Collecting::ReadsRecords;
                "reads the list"
            }
            Collecting::ReadsRecords => {
                for (at, record) in world.records.iter().enumerate() {
                    // The host of the first collector knew the version that is lost.
                    let is_lost = at == 0 && number == 0 && (1..5).contains(&world.repairer.at);
                    let is_kept = is_lost && !self.is_out(Without::KeepingTheLost);
                    if (record.exists || is_kept) && !record.tombstone {
                        me.records |= 1 << at;
                        me.confirmed |= u8::from(record.ok) << at;
                        me.images |= u8::from(record.image == 2) << at;
                    }
                }
                me.at = match self.is_out(Without::RecordsBeforeIndex) {
                    true => Collecting::Walks,
                    false => Collecting::ReadsIndex,
                };
                "reads records"
            }
            Collecting::ReadsIndex if self.begins_to_list(&mut me.reading) => "begins to list the index",
            Collecting::ReadsIndex => {
                let reading = std::mem::take(&mut me.reading);
                if reading.missed != 0 {
                    let mut next = next;
                    let me = &mut next.collectors[number];
                    (me.index, me.at) = (world.indexed & !reading.missed, Collecting::Walks);
                    out.push((format!("collector {number} reads the index without what was merged"), next));
                }
                let me = &mut next.collectors[number];
                me.index = world.indexed;
                me.at = Collecting::Walks;
                "reads the index"
            }
            Collecting::Walks => {
                if self.cast.flaky {
                    let mut next = *world;
                    let me = &mut next.collectors[number];
                    me.at = match self.is_out(Without::StoppingForUnreadable) {
                        true => Collecting::Deletes,
                        false => Collecting::Ended,
                    };
                    out.push((format!("collector {number} cannot read a map"), next));
                }
                self.rescue(world, &collector, me)
            }
            Collecting::PutsPack => {
                let Some(pack) = next.make(collector.carries) else { return };
                let me = &mut next.collectors[number];
                me.pack = pack;
                me.at = match self.is_out(Without::IndexBeforeDeleting) {
                    true => Collecting::Deletes,
                    false => Collecting::PutsFragment,
                };
                "copies into a pack"
            }
            Collecting::PutsFragment => {
                me.at = if self.is_out(Without::CondemningFirst) { Collecting::Condemns } else { Collecting::Deletes };
                next.indexed |= collector.pack;
                "puts a fragment"
            }
            Collecting::Deletes => {
                *me = Collector { at: Collecting::Ended, ..Collector::default() };
                let going = if self.is_out(Without::ListAsRead) { world.condemned() } else { collector.list };
                next.exist &= !going;
                if self.is_out(Without::WholeList) {
                    next.batches = next.batches.map(|batch| batch & !going);
                }
                "deletes"
            }
            Collecting::Chooses | Collecting::Ended => return,
        };
        out.push((format!("collector {number} {words}"), next));
    }

    /// Whatever a policy may choose: any one pack, or all of them, or nothing but what others condemned.
    pub(super) fn choose(&self, world: &World, number: usize, out: &mut Vec<(String, World)>) {
        let packs = world.exist & !world.condemned();
        let mut choices: Vec<Set> = (0..PACKS).map(|pack| packs & 1 << pack).filter(|batch| *batch != 0).collect();
        choices.push(packs);
        choices.push(0);
        choices.dedup();
        for batch in choices {
            let mut next = *world;
            let me = &mut next.collectors[number];
            me.batch = batch;
            me.number = match self.without {
                // Each took the next number, in this order, before it stalled.
                Without::ReadingTheWholeList => number as u8 % 2,
                _ => u8::from(world.batches[0] != 0),
            };
            me.at = Collecting::Condemns;
            match self.without {
                Without::ListAfterCondemning => me.list = world.condemned() | batch,
                Without::CondemningFirst => me.at = Collecting::ReadsList,
                Without::RecordsBeforeIndex => me.index = world.indexed,
                _ => {}
            }
            if batch == 0 && me.at == Collecting::Condemns {
                me.at = Collecting::ReadsList;
            }
            out.push((format!("collector {number} chooses {batch:08b}"), next));
        }
    }

    /// Reads what must be copied, or finds out that something is missing.
    pub(super) fn rescue(&self, world: &World, collector: &Collector, me: &mut Collector) -> &'static str {
        let located = world.held_by(collector.index & !collector.list);
        let readable = world.held_by(collector.index & world.exist);
        let (mut carries, mut missing, mut stops) = (0, false, false);
        for at in (0..RECORDS).filter(|at| collector.records >> at & 1 == 1) {
            let image = collector.images >> at & 1;
            let is_confirmed = collector.confirmed >> at & 1 == 1;
            // Without the root nobody knows of the data.
            for block in [root_of(image), DATA] {
                if readable & block == 0 {
                    missing = true;
                    stops |= is_confirmed;
                    break;
                }
                carries |= block & !located;
            }
        }
        let reads_again = !self.is_out(Without::ReadingAgain) && !self.is_out(Without::RecordsBeforeIndex);
        if missing && collector.index != world.indexed && reads_again {
            me.at = Collecting::ReadsIndex;
            return "reads again for what is missing";
        }
        if stops && !self.is_out(Without::StoppingForUnreadable) {
            *me = Collector { at: Collecting::Ended, ..Collector::default() };
            return "deletes nothing";
        }
        me.carries = carries;
        me.at = match (carries, self.without) {
            (0, Without::CondemningFirst) => Collecting::Condemns,
            (0, _) => Collecting::Deletes,
            _ => Collecting::PutsPack,
        };
        "reads what it must copy"
    }

    pub(super) fn find(&self, world: &World, out: &mut Vec<(String, World)>) {
        let finder = world.finder;
        let mut next = *world;
        let words = match finder.at {
            0 => {
                for (at, record) in world.records.iter().enumerate() {
                    if record.exists && !record.ok && !record.tombstone {
                        let mut next = *world;
                        next.finder = Finder { at: 1, record: at as u8 };
                        out.push((format!("finder meets record {at}"), next));
                    }
                }
                return;
            }
            1 => {
                next.records[usize::from(finder.record)].withdrawing = true;
                next.finder.at = if self.is_out(Without::LookForOk) { 3 } else { 2 };
                "writes withdrawing"
            }
            2 => {
                next.finder.at = if world.records[usize::from(finder.record)].ok { 4 } else { 3 };
                "looks for ok"
            }
            3 => {
                let record = &mut next.records[usize::from(finder.record)];
                (record.tombstone, record.exists) = (true, false);
                next.finder.at = 4;
                "deletes the record"
            }
            _ => return,
        };
        out.push((format!("finder {words}"), next));
    }

    pub(super) fn remove(&self, world: &World, out: &mut Vec<(String, World)>) {
        for (at, record) in world.records.iter().enumerate() {
            // Only the version goes that a draft is based on, not the record of what it is based on.
            let is_wanted = !self.cast.based || at == 0;
            if is_wanted && record.exists && record.ok && !record.tombstone && !record.removed {
                let mut next = *world;
                let gone = &mut next.records[at];
                (gone.removed, gone.exists) = (true, false);
                // Tombstone, then deletion: what lies between shows no more than what follows.
                gone.tombstone = !self.is_out(Without::Tombstones);
                gone.ok = false;
                out.push((format!("rm of record {at}"), next));
            }
        }
    }

    pub(super) fn repeat(&self, world: &World, out: &mut Vec<(String, World)>) {
        let mut push = |words: String, mut next: World| {
            next.duplicates -= 1;
            out.push((words, next));
        };
        for pack in (0..usize::from(world.made)).filter(|pack| world.exist >> pack & 1 == 0) {
            push(format!("pack {pack} arrives again"), World { exist: world.exist | 1 << pack, ..*world });
        }
        for (at, record) in world.records.iter().enumerate() {
            let mut next = *world;
            if record.image != 0 && !record.exists {
                next.records[at].exists = true;
                push(format!("record {at} arrives again"), next);
            }
            let mut next = *world;
            if record.ok_written && !record.ok {
                next.records[at].ok = true;
                push(format!("ok of record {at} arrives again"), next);
            }
        }
    }
}
