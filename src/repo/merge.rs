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
        let mut packs: BTreeMap<PackId, Vec<PackContents>> = BTreeMap::new();
        let mut replaces = BTreeSet::new();
        let mut learner = Learner::new(core, &core.catalog);
        for id in &plan.0 {
            let Some(found) = learner.read_fragment(*id)? else { return Ok(0) };
            replaces.insert(*id);
            replaces.extend(found.replaces);
            for pack in found.packs {
                if !deleted.contains(&pack.pack) {
                    add(packs.entry(pack.pack).or_default(), pack);
                }
            }
        }
        let packs: Vec<PackContents> = packs.into_values().flatten().collect();
        let replaces: Vec<FragmentId> = replaces.into_iter().collect();
        let id = core.clock.fragment_id();
        let plain = fragment::encode_merged(&packs, &replaces);
        // Those it is made of are deleted: one that nobody can read would take what they say with it.
        if let Err(error) = fragment::decode(&plain) {
            tracing::error!("index fragments stay as they are, because made one nobody could read them: {error}");
            return Ok(0);
        }
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

/// Two fragments may each know a part of a pack: one of them was made from a pack that had lost its footer. What cannot be true of one
/// pack is kept side by side, in the order in which it was written.
fn add(known: &mut Vec<PackContents>, pack: PackContents) {
    if !known.iter_mut().any(|known| known.join(&pack)) {
        known.push(pack);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::ids::BlockId;
    use crate::words::record::{BlockKind, PackedBlock};

    fn fragments(sizes: &[(usize, u64)]) -> Vec<(FragmentId, u64)> {
        let sizes = sizes.iter().flat_map(|(count, bytes)| std::iter::repeat_n(*bytes, *count));
        (0u128..).zip(sizes).map(|(n, bytes)| (FragmentId::from_bytes(n.to_be_bytes()), bytes)).collect()
    }

    fn contents(pack: u8, size_bytes: u64, blocks: &[(u8, u32, u32)]) -> PackContents {
        let block = |&(id, offset, frame_len): &(u8, u32, u32)| PackedBlock {
            id: BlockId::from_bytes([id; 32]),
            offset,
            frame_len,
            plain_len: 4096,
        };
        let blocks = blocks.iter().map(block).collect();
        PackContents { pack: PackId::from_bytes([pack; 32]), kind: BlockKind::Data, size_bytes, blocks }
    }

    #[test]
    fn what_cannot_be_true_of_one_pack_is_not_made_one() {
        let known = contents(1, 10_000, &[(1, 32, 100), (3, 300, 100)]);
        let merged = |others: &[PackContents]| {
            let mut all = Vec::new();
            std::iter::once(&known).chain(others).for_each(|pack| add(&mut all, pack.clone()));
            // Whatever comes out, the next host can read it.
            let plain = fragment::encode_merged(&all, &[FragmentId::from_bytes([9; 16])]);
            assert_eq!(fragment::decode(&plain).unwrap().packs, all);
            all
        };
        // The same, a part of it, and what lies between.
        let same = [known.clone(), contents(1, 10_000, &[(3, 300, 100)])];
        assert_eq!(merged(&same), same[..1]);
        let between = contents(1, 10_000, &[(2, 132, 168), (4, 400, 9600)]);
        let all = contents(1, 10_000, &[(1, 32, 100), (2, 132, 168), (3, 300, 100), (4, 400, 9600)]);
        assert_eq!(merged(&[between]), [all]);
        // Another block in its place, one that overlaps, one past the end, another size: each stays a description of its own.
        for other in [
            contents(1, 10_000, &[(7, 32, 100)]),
            contents(1, 10_000, &[(7, 100, 100)]),
            contents(1, 10_000, &[(7, 201, 100)]),
            contents(1, 10_000, &[(1, 32, 101)]),
            contents(1, 20_000, &[(7, 400, 15_000)]),
        ] {
            assert_eq!(merged(std::slice::from_ref(&other)), [known.clone(), other]);
        }
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
