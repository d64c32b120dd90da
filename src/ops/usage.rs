//! Who takes the space: what each version, or each name, holds alone, and what deleting it would free.
//!
//! Every map is walked, shared subtrees twice at most in all, so the cost follows the nodes that differ. Per block its only holder
//! is remembered. When that is more than the memory budget allows, the blocks are counted in several rounds, each of which
//! looks at a part of the ids only.

use crate::catalog::VersionSummary;
use crate::ops::OpsError;
use crate::ops::error::is_damage;
use crate::ops::statistics::ratio;
use crate::repo::{RepoError, Repository};
use crate::words::ids::{BlockId, Uid};
use crate::words::monitor::Monitor;
use crate::words::record::{ImageRef, RecordKind, Verdict};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// What a row of the answer stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Grouping {
    /// A version.
    Versions,
    /// All versions of a name.
    Names,
    /// These versions together; there is one row, without a name.
    Together(BTreeSet<Uid>),
}

/// Space of a version or a name.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct UsageRow {
    /// The version; `None` for a name.
    pub uid: Option<String>,
    /// The name.
    pub name: String,
    /// How many versions.
    pub versions: u64,
    /// Bytes of the images.
    pub logical_bytes: u64,
    /// Bytes in blocks that are not holes, each version for itself.
    pub allocated_bytes: u64,
    /// Bytes that making them added to the target.
    pub stored_bytes: u64,
    /// Bytes of images in blocks that nothing else holds.
    pub unique_bytes: u64,
    /// Bytes on the target that come free when it is deleted and collected.
    pub freed_bytes: u64,
    /// Bytes of the images for one byte that making them added to the target; `None` when that was none.
    pub ratio: Option<f64>,
}

/// Space of a repository.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Usage {
    /// Rows, in order of time or name.
    pub rows: Vec<UsageRow>,
    /// Bytes of the images of all versions.
    pub logical_bytes: u64,
    /// Bytes in blocks that are not holes, each version for itself.
    pub allocated_bytes: u64,
    /// Bytes in blocks that are not holes, each block once.
    pub unique_bytes: u64,
    /// Bytes of all packs on the target.
    pub packs_bytes: u64,
    /// Bytes of images for one byte of packs; `None` when there are none.
    pub ratio: Option<f64>,
}

/// Who holds a block: a group, or several.
type Holder = u32;
const SHARED: Holder = u32::MAX;

/// What remembering one block takes at worst: a hash map doubles its tables when it grows.
const BYTES_PER_BLOCK: u64 = 40;

/// The number of a version of `versions` in the list of groups.
struct Groups {
    of_version: Vec<Holder>,
    rows: Vec<UsageRow>,
}

/// Measures. Drafts and pins hold what they refer to, but have no row.
///
/// # Errors
/// When target or catalog fail. Maps that are damaged are left out as far as they are unreadable.
pub fn usage(repo: &Repository, grouping: &Grouping, monitor: &dyn Monitor) -> Result<Usage, OpsError> {
    let packs = repo.catalog().packs().map_err(RepoError::from)?;
    let live = || packs.iter().filter(|pack| !pack.condemned);
    let blocks: u64 = live().map(|pack| u64::from(pack.block_count)).sum();
    // Nothing is written and hardly anything read meanwhile: their shares of the budget are free.
    let budget = (repo.memory().block_cache + repo.memory().pipeline) as u64;
    let rounds = (blocks * BYTES_PER_BLOCK).div_ceil(budget.max(1)).max(1);
    usage_in_rounds(repo, grouping, rounds, live().map(|pack| pack.size_bytes).sum(), monitor)
}

fn usage_in_rounds(
    repo: &Repository,
    grouping: &Grouping,
    rounds: u64,
    packs_bytes: u64,
    monitor: &dyn Monitor,
) -> Result<Usage, OpsError> {
    let versions = repo.catalog().version_summaries().map_err(RepoError::from)?;
    let mut groups = group(&versions, grouping);
    let mut others: Vec<ImageRef> = Vec::new();
    for kind in [RecordKind::Draft, RecordKind::Pin] {
        let records = repo.catalog().records(kind).map_err(RepoError::from)?.into_iter();
        others.extend(records.filter(|(_, verdict)| *verdict == Verdict::Confirmed).map(|(record, _)| record.image));
    }
    let total = rounds * (versions.len() as u64 * 2 + others.len() as u64);
    let mut done = 0;
    let mut step = || {
        monitor.progress(done, total);
        done += 1;
    };
    let mut unique_bytes = 0;
    for round in 0..rounds {
        let mut census = Census { repo, nodes: HashMap::new(), blocks: HashMap::new(), round, rounds };
        for (version, holder) in versions.iter().zip(&groups.of_version) {
            step();
            census.hold(&version.image, *holder)?;
        }
        for image in &others {
            step();
            census.hold(image, SHARED)?;
        }
        unique_bytes += census.blocks.len() as u64 * repo.block_size().bytes_u64();
        for (version, holder) in versions.iter().zip(&groups.of_version) {
            step();
            if *holder != SHARED {
                census.release(&version.image, *holder, &mut groups.rows[*holder as usize])?;
            }
        }
    }
    monitor.progress(total, total);
    let logical_bytes = versions.iter().map(|version| version.image.size_bytes).sum();
    Ok(Usage {
        rows: groups.rows,
        logical_bytes,
        allocated_bytes: versions.iter().map(|version| allocated_bytes(&version.image)).sum(),
        unique_bytes,
        packs_bytes,
        ratio: ratio(logical_bytes, packs_bytes),
    })
}

fn allocated_bytes(image: &ImageRef) -> u64 {
    image.allocated_blocks * image.block_size.bytes_u64()
}

fn group(versions: &[VersionSummary], grouping: &Grouping) -> Groups {
    let names: BTreeSet<&str> = versions.iter().map(|version| version.attributes.name.as_str()).collect();
    let names: BTreeMap<&str, usize> = names.into_iter().zip(0..).collect();
    let count = match grouping {
        Grouping::Versions => versions.len(),
        Grouping::Names => names.len(),
        Grouping::Together(_) => 1,
    };
    let mut groups = Groups { of_version: Vec::new(), rows: vec![UsageRow::default(); count] };
    for (number, version) in versions.iter().enumerate() {
        let name = version.attributes.name.as_str();
        let at = match grouping {
            Grouping::Versions => number,
            Grouping::Names => names[name],
            Grouping::Together(uids) if uids.contains(&version.uid) => 0,
            Grouping::Together(_) => {
                groups.of_version.push(SHARED);
                continue;
            }
        };
        let row = &mut groups.rows[at];
        row.uid = (*grouping == Grouping::Versions).then(|| version.uid.to_string());
        if !matches!(grouping, Grouping::Together(_)) {
            name.clone_into(&mut row.name);
        }
        row.versions += 1;
        row.logical_bytes += version.image.size_bytes;
        row.allocated_bytes += allocated_bytes(&version.image);
        row.stored_bytes += version.stats.stored_bytes;
        groups.of_version.push(Holder::try_from(at).unwrap_or(SHARED));
    }
    groups.rows.iter_mut().for_each(|row| row.ratio = ratio(row.logical_bytes, row.stored_bytes));
    groups
}

/// One round: who holds the nodes, and the blocks of this round.
struct Census<'a> {
    repo: &'a Repository,
    nodes: HashMap<u64, Holder>,
    blocks: HashMap<u64, Holder>,
    round: u64,
    rounds: u64,
}

/// Ids are uniformly distributed: eight bytes tell them apart well enough for an estimate of space.
fn short(id: &BlockId) -> u64 {
    let (first, _) = id.as_bytes().split_first_chunk().expect("an id has 32 bytes");
    u64::from_be_bytes(*first)
}

/// Notes a holder and says whether that changed anything.
fn note(holders: &mut HashMap<u64, Holder>, id: &BlockId, holder: Holder) -> bool {
    match holders.insert(short(id), holder) {
        None => true,
        Some(before) if before == holder => false,
        Some(before) => {
            holders.insert(short(id), SHARED);
            before != SHARED
        }
    }
}

impl Census<'_> {
    fn is_mine(&self, id: &BlockId) -> bool {
        short(id) % self.rounds == self.round
    }

    fn hold(&mut self, image: &ImageRef, holder: Holder) -> Result<(), OpsError> {
        self.hold_node(&image.root, image.depth().root_level(), holder)
    }

    fn hold_node(&mut self, id: &BlockId, level: u8, holder: Holder) -> Result<(), OpsError> {
        if id.is_hole() || !note(&mut self.nodes, id, holder) {
            return Ok(());
        }
        let Some(node) = self.node(id)? else { return Ok(()) };
        // A node held by a second group is walked once more, as shared: then everything below is.
        let holder = self.nodes.get(&short(id)).copied().unwrap_or(holder);
        for child in node.ids().iter().filter(|child| !child.is_hole()) {
            if level > 0 {
                self.hold_node(child, level - 1, holder)?;
            } else if self.is_mine(child) {
                note(&mut self.blocks, child, holder);
            }
        }
        Ok(())
    }

    /// Adds up what only `holder` holds, and forgets it, so that nothing counts twice.
    fn release(&mut self, image: &ImageRef, holder: Holder, row: &mut UsageRow) -> Result<(), OpsError> {
        let block = image.block_size.bytes_u64();
        self.release_node(&image.root, image.depth().root_level(), holder, block, row)
    }

    fn release_node(
        &mut self,
        id: &BlockId,
        level: u8,
        holder: Holder,
        block: u64,
        row: &mut UsageRow,
    ) -> Result<(), OpsError> {
        if id.is_hole() || self.nodes.get(&short(id)) != Some(&holder) {
            return Ok(());
        }
        self.nodes.insert(short(id), SHARED);
        // Nodes are met in every round, and counted in one.
        if self.round == 0 {
            row.freed_bytes += self.stored_bytes(id)?;
        }
        let Some(node) = self.node(id)? else { return Ok(()) };
        for child in node.ids().iter().filter(|child| !child.is_hole()) {
            if level > 0 {
                self.release_node(child, level - 1, holder, block, row)?;
            } else if self.is_mine(child) && self.blocks.get(&short(child)) == Some(&holder) {
                self.blocks.insert(short(child), SHARED);
                row.unique_bytes += block;
                row.freed_bytes += self.stored_bytes(child)?;
            }
        }
        Ok(())
    }

    fn stored_bytes(&self, id: &BlockId) -> Result<u64, OpsError> {
        let copies = self.repo.catalog().locations(id).map_err(RepoError::from)?;
        Ok(copies.iter().map(|copy| u64::from(copy.frame_len)).sum())
    }

    fn node(&self, id: &BlockId) -> Result<Option<std::sync::Arc<crate::format::node::MapNode>>, OpsError> {
        match self.repo.read_node(id) {
            Ok(node) => Ok(Some(node)),
            Err(error) if is_damage(&error) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Interrupt;
    use crate::ops::backup::{Automatic, Backup, Begin, backup};
    use crate::ops::base::ChangesFrom;
    use crate::ops::pull::OnBadSectors;
    use crate::repo::testing::{create, small};
    use crate::source::Recipe;
    use crate::words::monitor::Silent;
    use crate::words::name::Name;

    #[test]
    fn rounds_change_nothing_but_memory() {
        let test = create(&small());
        let source = test.dir.path().join("source");
        let mut uids = Vec::new();
        // Three versions of one name that share most of their blocks, one of another that shares all with the first.
        for (name, seed) in [("a", 0u32), ("a", 1), ("a", 2), ("b", 0)] {
            let block = |n: u32| if n % 50 == 7 { n + seed * 100_000 } else { n };
            let bytes: Vec<u8> = (1..3000u32).flat_map(|n| block(n).to_le_bytes().repeat(1024)).collect();
            std::fs::write(&source, bytes).unwrap();
            let job = Backup {
                source: Recipe::File { path: source.clone() },
                name: Name::new(name).unwrap(),
                snapshot_name: String::new(),
                tags: BTreeSet::new(),
                expire: None,
                created: None,
                automatic: Automatic::Nothing,
                from: None,
                changes: ChangesFrom::Source,
                begin: Begin::Anew,
                on_bad: OnBadSectors::Tolerate,
            };
            uids.push(backup(&test.repo, &job, &Silent, &Interrupt::never()).unwrap().record.uid);
        }
        let measure = |grouping: &Grouping, rounds| usage_in_rounds(&test.repo, grouping, rounds, 1, &Silent).unwrap();
        let together = |uids: &[Uid]| Grouping::Together(uids.iter().copied().collect());
        for grouping in [Grouping::Versions, Grouping::Names, together(&uids[1..3])] {
            let one = measure(&grouping, 1);
            assert_eq!(one, measure(&grouping, 7));
            assert_eq!(one.unique_bytes, (2999 + 2 * 60) * 4096);
        }
        let changed = 60 * 4096;
        let unique =
            |grouping: &Grouping| -> Vec<u64> { measure(grouping, 3).rows.iter().map(|r| r.unique_bytes).collect() };
        assert_eq!(unique(&Grouping::Versions), [0, changed, changed, 0]);
        assert_eq!(unique(&Grouping::Names), [2 * changed, 0]);
        // The first name stored everything, the second found all but its record there.
        let names = measure(&Grouping::Names, 1).rows;
        let expected = names[0].logical_bytes as f64 / names[0].stored_bytes as f64;
        assert_eq!((names[0].ratio, names[1].stored_bytes, names[1].ratio), (Some(expected), 0, None));
        assert_eq!(unique(&together(&uids[1..3])), [2 * changed]);
        assert_eq!(unique(&together(&uids)), [2999 * 4096 + 2 * changed]);
        let all = measure(&together(&uids), 2);
        assert!(all.rows[0].freed_bytes > 0 && all.rows[0].versions == 4);
    }
}
