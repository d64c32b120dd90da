//! Making one index fragment of many. Every flush writes one, and every check lists them all, so they must not grow in number
//! with the age of a repository.
//!
//! Why it is safe: the merged fragment is durable before those it replaces are deleted, and says all that they said. So whoever
//! lists fragments sees what an entry says in the one or the other, and whoever finds a listed fragment gone lists again
//! (`learn`). A listing that ran while both happened may miss both; a reader then knows fewer copies than there are: a check
//! stores again what it could have found, and a collection reads the index again before it calls anything missing. Nothing
//! relies on the absence of an entry. Entries of packs that are condemned and deleted may be left out, because nobody may use
//! them; those of condemned packs that still exist are kept, because what lives in them is copied from there.

use crate::format::frame::FrameKind;
use crate::format::{fragment, layout};
use crate::repo::learn::Learner;
use crate::repo::{RepoError, Repository, object_id};
use crate::words::clock::ClockExt;
use crate::words::ids::{FragmentId, PackId};
use crate::words::record::PackContents;
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// Fragments of one size class before they are merged.
const MERGE_AT: usize = 8;
/// Fragments are not merged beyond this: 380,000 blocks, some 90 GiB of images.
const FRAGMENT_MAX_BYTES: u64 = 16 << 20;

/// Fragments that are to become one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MergePlan(Vec<FragmentId>);

/// Groups of fragments worth merging: [`MERGE_AT`] or more of a size class, where a class spans a factor of eight. So an entry is
/// written again once for each class, seven times at most, however old the repository grows.
pub fn plan(fragments: &[(FragmentId, u64)]) -> Vec<MergePlan> {
    let mut classes: BTreeMap<u32, Vec<(FragmentId, u64)>> = BTreeMap::new();
    for (id, size_bytes) in fragments.iter().filter(|(_, size_bytes)| *size_bytes < FRAGMENT_MAX_BYTES / 2) {
        classes.entry(size_bytes.max(&512).ilog2() / 3).or_default().push((*id, *size_bytes));
    }
    let mut plans = Vec::new();
    for class in classes.into_values().filter(|class| class.len() >= MERGE_AT) {
        let (mut group, mut group_bytes) = (Vec::new(), 0);
        for (id, size_bytes) in class {
            if group_bytes + size_bytes > FRAGMENT_MAX_BYTES {
                plans.push(MergePlan(std::mem::take(&mut group)));
                group_bytes = 0;
            }
            group.push(id);
            group_bytes += size_bytes;
        }
        plans.push(MergePlan(group));
    }
    plans.retain(|plan| plan.0.len() > 1);
    plans
}

impl Repository {
    /// Merges fragments. Entries of packs in `deleted` are left out: packs that are condemned and were seen to be gone. Says how
    /// many fragments there are fewer now; 0 when one of them could not be read, because then its entries would be lost.
    ///
    /// # Errors
    /// When target or catalog fail. It can be repeated.
    pub fn merge_fragments(&self, plan: &MergePlan, deleted: &HashSet<PackId>) -> Result<usize, RepoError> {
        let core = &self.core;
        let mut packs: BTreeMap<PackId, PackContents> = BTreeMap::new();
        let mut replaces = BTreeSet::new();
        let mut learner = Learner::new(core, &core.catalog);
        for id in &plan.0 {
            let Some(found) = learner.read_fragment(*id)? else { return Ok(0) };
            replaces.insert(*id);
            replaces.extend(found.replaces);
            for pack in found.packs {
                if !deleted.contains(&pack.pack) {
                    add(&mut packs, pack);
                }
            }
        }
        let packs: Vec<PackContents> = packs.into_values().collect();
        let replaces: Vec<FragmentId> = replaces.into_iter().collect();
        let id = core.clock.fragment_id();
        let plain = fragment::encode_merged(&packs, &replaces);
        let sealed = core.sealer.seal_object(FrameKind::Fragment, object_id(id.as_bytes(), &[]), &plain);
        core.target.put(&layout::fragment(id), &[&sealed])?;
        core.catalog.absorb_fragment(id, &packs)?;
        core.catalog.note_replaced(&replaces, id)?;
        for old in &plan.0 {
            core.target.delete(&layout::fragment(*old))?;
        }
        core.catalog.forget_fragments(&plan.0)?;
        Ok(plan.0.len() - 1)
    }
}

/// Two fragments may each know a part of a pack: one of them was made from a pack that had lost its footer.
fn add(packs: &mut BTreeMap<PackId, PackContents>, pack: PackContents) {
    let Some(known) = packs.get_mut(&pack.pack) else {
        packs.insert(pack.pack, pack);
        return;
    };
    let mut offsets: HashSet<u32> = known.blocks.iter().map(|block| block.offset).collect();
    known.blocks.extend(pack.blocks.into_iter().filter(|block| offsets.insert(block.offset)));
    known.blocks.sort_by_key(|block| block.offset);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fragments(sizes: &[(usize, u64)]) -> Vec<(FragmentId, u64)> {
        let sizes = sizes.iter().flat_map(|(count, bytes)| std::iter::repeat_n(*bytes, *count));
        (0u128..).zip(sizes).map(|(n, bytes)| (FragmentId::from_bytes(n.to_be_bytes()), bytes)).collect()
    }

    #[test]
    fn fragments_of_a_size_are_merged_when_there_are_enough() {
        let lengths =
            |sizes: &[(usize, u64)]| plan(&fragments(sizes)).iter().map(|plan| plan.0.len()).collect::<Vec<_>>();
        assert!(lengths(&[(7, 600), (7, 6000), (7, 60_000)]).is_empty());
        assert_eq!(lengths(&[(8, 600), (7, 6000), (9, 60_000)]), [8, 9]);
        assert!(lengths(&[(100, 9 << 20)]).is_empty());
        assert_eq!(lengths(&[(20, 5 << 20)]), [3, 3, 3, 3, 3, 3, 2]);
    }

    #[test]
    fn their_number_grows_with_the_logarithm_only_and_so_does_the_work() {
        let (mut sizes, mut written) = (Vec::new(), 0);
        for _ in 0..20_000 {
            sizes.push(1000);
            loop {
                let now: Vec<_> =
                    (0u128..).map(|n| FragmentId::from_bytes(n.to_be_bytes())).zip(sizes.clone()).collect();
                let Some(MergePlan(merged)) = plan(&now).into_iter().next() else { break };
                let mut sum = 0;
                let mut at = 0u128;
                sizes.retain(|bytes| {
                    let goes = merged.contains(&FragmentId::from_bytes(at.to_be_bytes()));
                    at += 1;
                    sum += if goes { *bytes } else { 0 };
                    !goes
                });
                written += sum;
                sizes.push(sum);
            }
            assert!(sizes.len() <= 45, "{} fragments", sizes.len());
        }
        assert!(written <= 20_000 * 1000 * 7, "{written} bytes");
    }
}
