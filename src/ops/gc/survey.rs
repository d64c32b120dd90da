//! How much of each pack is needed: an estimate, for deciding which packs go. Deleting relies on none of it.

use crate::catalog::{PackSummary, Root, Sighting, short_id};
use crate::ops::gc::marks::Marks;
use crate::ops::gc::policy::{PackFacts, Standing};
use crate::ops::gc::reach::{Reach, Unreadable, Visitor};
use crate::ops::gc::roots::Roots;
use crate::ops::{Interrupt, OpsError};
use crate::repo::{RepoError, Repository};
use crate::words::ids::{BlockId, PackId};
use crate::words::record::BlockKind;
use crate::words::stamp::Stamp;
use std::collections::{HashMap, HashSet};

/// What was found.
pub struct Survey {
    /// Every pack that is not condemned, in order of id.
    pub packs: Vec<PackFacts>,
    /// Map nodes of confirmed records that cannot be read.
    pub unreadable: Vec<Unreadable>,
    /// What is to be remembered of packs.
    pub sightings: HashMap<PackId, Sighting>,
}

impl Visitor for Marks {
    fn node(&mut self, id: &BlockId) -> Result<(), OpsError> {
        self.mark(short_id(id));
        Ok(())
    }

    fn blocks(&mut self, ids: &[u64]) {
        ids.iter().for_each(|id| self.mark(*id));
    }
}

/// What is counted of a pack.
#[derive(Clone, Copy, Default)]
struct Share {
    live_bytes: u64,
    live_blocks: u32,
    was_needed: bool,
}

/// Walks all records, and the images of those that went since the last collection, then goes through the index. `stored` are the
/// packs on the target and their sizes.
///
/// # Errors
/// When target or catalog fail, or the work is to stop.
pub fn survey(
    repo: &Repository,
    roots: &Roots,
    stored: &HashMap<PackId, u64>,
    now: Stamp,
    interrupt: &Interrupt,
) -> Result<Survey, OpsError> {
    let catalog = repo.catalog();
    let known = catalog.packs().map_err(RepoError::from)?;
    let blocks: u64 = known.iter().map(|pack| u64::from(pack.block_count)).sum();
    let mut seed = [0; 8];
    repo.clock().random(&mut seed);
    let seed = u64::from_le_bytes(seed);
    let memory = repo.memory().pipeline / 2;
    let (mut needed, mut was_needed) = (Marks::new(blocks, memory, seed), Marks::new(blocks, memory, !seed));
    let mut reach = Reach::new(repo, interrupt)?;
    let unreadable = reach.walk(&roots.confirmed, &mut needed)?;
    // What is just being published, or was not in time, counts here as if it were confirmed; what is missing of it does not.
    reach.walk(&roots.pending, &mut needed)?;
    let removed: Vec<Root> = catalog.removed_roots().map_err(RepoError::from)?;
    reach.walk(&removed, &mut was_needed)?;
    if unreadable.is_empty() {
        reach.forget_others()?;
    }
    let shares = count(repo, &needed, &was_needed, interrupt)?;
    let seen = catalog.sightings().map_err(RepoError::from)?;
    let (packs, sightings) = facts(&known, &shares, stored, &seen, now);
    Ok(Survey { packs, unreadable, sightings })
}

fn count(
    repo: &Repository,
    needed: &Marks,
    was_needed: &Marks,
    interrupt: &Interrupt,
) -> Result<HashMap<PackId, Share>, OpsError> {
    let bad = repo.catalog().bad_copies().map_err(RepoError::from)?;
    let bad: HashSet<(BlockId, PackId)> = bad.into_iter().map(|copy| (copy.block, copy.pack)).collect();
    let mut shares: HashMap<PackId, Share> = HashMap::new();
    let mut from = Some(BlockId::HOLE);
    while let Some(start) = from {
        interrupt.check()?;
        let stretch = repo.catalog().stretch(start).map_err(RepoError::from)?;
        from = stretch.next;
        for (block, copies) in &stretch.blocks {
            let uncondemned = copies.iter().filter_map(|copy| {
                let pack = stretch.pack_of(copy);
                (!pack.condemned).then_some((pack.pack, copy))
            });
            let id = short_id(block);
            if needed.has(id) {
                // In one pack only, or two that hold the same would keep each other; in a bad one only if there is no other.
                if let Some((pack, copy)) = uncondemned.min_by_key(|(pack, _)| (bad.contains(&(*block, *pack)), *pack))
                {
                    let share = shares.entry(pack).or_default();
                    share.live_bytes += u64::from(copy.frame_len());
                    share.live_blocks += 1;
                }
            } else if was_needed.has(id) {
                uncondemned.for_each(|(pack, _)| shares.entry(pack).or_default().was_needed = true);
            }
        }
    }
    Ok(shares)
}

fn facts(
    known: &[PackSummary],
    shares: &HashMap<PackId, Share>,
    stored: &HashMap<PackId, u64>,
    seen: &HashMap<PackId, Sighting>,
    now: Stamp,
) -> (Vec<PackFacts>, HashMap<PackId, Sighting>) {
    let (mut packs, mut sightings) = (Vec::new(), HashMap::new());
    let since = |pack: &PackId| match seen.get(pack) {
        Some(Sighting::Unreferenced(since)) => *since,
        _ => now,
    };
    for pack in known.iter().filter(|pack| !pack.condemned) {
        let share = shares.get(&pack.pack).copied().unwrap_or_default();
        let referenced =
            share.live_blocks > 0 || share.was_needed || seen.get(&pack.pack) == Some(&Sighting::Referenced);
        let (standing, sighting) = match referenced {
            true => (Standing::Referenced, Sighting::Referenced),
            false => (Standing::Unfinished(since(&pack.pack)), Sighting::Unreferenced(since(&pack.pack))),
        };
        sightings.insert(pack.pack, sighting);
        packs.push(PackFacts {
            pack: pack.pack,
            kind: pack.kind,
            size_bytes: pack.size_bytes,
            blocks: pack.block_count,
            live_bytes: share.live_bytes,
            live_blocks: share.live_blocks,
            standing,
        });
    }
    let known: HashSet<PackId> = known.iter().map(|pack| pack.pack).collect();
    for (pack, size_bytes) in stored.iter().filter(|(pack, _)| !known.contains(*pack)) {
        sightings.insert(*pack, Sighting::Unreferenced(since(pack)));
        packs.push(PackFacts {
            pack: *pack,
            kind: BlockKind::Data,
            size_bytes: *size_bytes,
            blocks: 0,
            live_bytes: 0,
            live_blocks: 0,
            standing: Standing::Unindexed(since(pack)),
        });
    }
    packs.sort_by_key(|pack| pack.pack);
    (packs, sightings)
}
