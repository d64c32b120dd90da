//! Those who tidy up beside writers and collectors: drafts that were published, index fragments, versions that were lost.

use super::*;

impl Protocol {
    /// Drops the draft of a writer whose version it has seen confirmed. Whoever begins to withdraw that version later finds its `ok`;
    /// who began before may not, so it looks.
    pub(super) fn clean(&self, world: &World, out: &mut Vec<(String, World)>) {
        let mut push = |words: &str, cleaner: Cleaner, next: World| {
            out.push((format!("cleaner {words}"), World { cleaner, ..next }));
        };
        let cleaner = world.cleaner;
        let draft = 1 + 2 * usize::from(cleaner.writer);
        match cleaner.at {
            0 => {
                for writer in 0..self.cast.writers {
                    let (draft, version) = (&world.records[1 + 2 * writer], &world.records[2 + 2 * writer]);
                    let is_published = draft.exists && draft.ok && version.exists && version.ok && !version.tombstone;
                    if is_published {
                        let at = if self.is_out(Without::LookBeforeDropping) { 2 } else { 1 };
                        push("meets a draft that was published", Cleaner { at, writer: writer as u8 }, *world);
                    }
                }
            }
            1 => {
                let at = if world.records[draft + 1].withdrawing { 3 } else { 2 };
                push("looks for withdrawing", Cleaner { at, ..cleaner }, *world);
            }
            2 => {
                let mut next = *world;
                (next.records[draft].exists, next.records[draft].ok) = (false, false);
                push("drops the draft", Cleaner { at: 3, ..cleaner }, next);
            }
            _ => {}
        }
    }

    /// Merges all fragments. Entries of packs that are condemned and gone are left out.
    pub(super) fn merge(&self, world: &World, out: &mut Vec<(String, World)>) {
        let mut next = *world;
        let Merger { at, takes, leaves_out } = world.merger;
        let words = match at {
            0 => {
                next.merger = Merger { at: 1, takes: 0, leaves_out: world.condemned() };
                "reads the list"
            }
            1 => {
                // What is in none of the fragments as they were listed is in others, which stay.
                let there = if self.is_out(Without::EntriesOfTheCondemned) { 0 } else { world.exist };
                next.merger = Merger { at: 2, takes: world.indexed, leaves_out: leaves_out & !there };
                "lists packs and fragments"
            }
            2 if self.is_out(Without::MergedFirst) => {
                next.merger.at = 3;
                next.indexed &= !takes;
                "deletes fragments"
            }
            2 => {
                next.merger.at = 3;
                next.listings(|reading| reading.merged |= takes);
                "puts a merged fragment"
            }
            3 if self.is_out(Without::MergedFirst) => {
                next.merger = Merger { at: 4, ..Merger::default() };
                next.indexed |= takes & !leaves_out;
                "puts a merged fragment"
            }
            3 => {
                next.merger = Merger { at: 4, ..Merger::default() };
                next.indexed &= !leaves_out;
                // Who began to list before it was put may see neither it nor what it replaces.
                next.listings(|reading| reading.missed |= reading.merged);
                "deletes the fragments that it replaces"
            }
            _ => return,
        };
        out.push((format!("merger {words}"), next));
    }

    /// The record of the first version vanishes, with its `ok`, although nobody deleted it; who knew it puts it back.
    pub(super) fn repair(&self, world: &World, out: &mut Vec<(String, World)>) {
        let mut next = *world;
        let lost = &mut next.records[0];
        let first = &world.records[0];
        let gives_up = Repairer { at: 6 };
        let (words, repairer) = match world.repairer.at {
            0 if first.exists && !first.tombstone => {
                (lost.exists, lost.ok) = (false, false);
                ("misses record 0, which is lost", Repairer { at: 1 })
            }
            1 if first.tombstone => ("finds a tombstone", gives_up),
            1 => ("finds no tombstone", Repairer { at: 2 }),
            2 if first.withdrawing => ("finds that it was withdrawn", gives_up),
            2 => ("finds no withdrawing", Repairer { at: 3 }),
            3 if self.is_out(Without::OkFirst) => {
                lost.exists = true;
                ("puts the record back", Repairer { at: 4 })
            }
            3 => {
                lost.ok = true;
                ("puts its ok back", Repairer { at: 4 })
            }
            4 => {
                (lost.exists, lost.ok) = (true, true);
                ("puts back the other", Repairer { at: 5 })
            }
            _ => return,
        };
        next.repairer = repairer;
        out.push((format!("repairer {words}"), next));
    }
}

impl World {
    /// Everybody who is listing fragments at this moment.
    fn listings(&mut self, mut change: impl FnMut(&mut Reading)) {
        let writers = self.writers.iter_mut().map(|writer| &mut writer.reading);
        let readings = writers.chain(self.collectors.iter_mut().map(|collector| &mut collector.reading));
        readings.filter(|reading| reading.is_begun).for_each(&mut change);
    }
}
