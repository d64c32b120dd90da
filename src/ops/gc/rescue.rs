//! Copying what is needed out of condemned packs, so that these can be deleted. Nothing here is an estimate.
//!
//! Called when the packs are condemned, the whole list was read after that, then every record, then the index. A block of such a
//! pack that a record refers to must be readable in a pack that is not condemned before the pack goes. Such a copy is read,
//! not believed: it may be the one that made somebody store the block again.

use crate::catalog::short_id;
use crate::ops::gc::reach::{Reach, Unreadable, Visitor};
use crate::ops::gc::roots::Roots;
use crate::ops::{Interrupt, OpsError};
use crate::repo::Repository;
use crate::repo::copy_out::{Copied, Loss};
use crate::repo::error::RepoError;
use crate::repo::packer::PackNo;
use crate::words::ids::{BlockId, PackId};
use crate::words::record::{BlockKind, Location};
use std::collections::{BTreeMap, HashMap, HashSet};

/// What came of it.
#[derive(Debug, Default)]
pub struct Rescued {
    /// Blocks that were copied.
    pub blocks: u64,
    /// Bytes of their frames.
    pub bytes: u64,
    /// Condemned packs that hold the last, damaged copy of something that is needed: they stay.
    pub spared: HashSet<PackId>,
    /// Why nothing may be deleted at all.
    pub obstacle: Option<String>,
}

/// Who needs a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Need {
    Nobody,
    /// Only records that are not confirmed.
    Pending,
    Confirmed,
}

/// A block of a condemned pack.
struct Candidate {
    id: BlockId,
    kind: BlockKind,
    need: Need,
    /// Copies in packs that are to be deleted.
    doomed: Vec<Location>,
    /// Copies in packs that are not condemned.
    others: Vec<Location>,
}

/// Blocks looked at in one walk, sorted by the first bytes of their ids.
struct Candidates<'a> {
    repo: &'a Repository,
    list: Vec<Candidate>,
    /// Who is being walked for.
    walking: Need,
    /// A node that the index knows no copy of.
    homeless: Option<BlockId>,
}

impl Candidates<'_> {
    fn need(&mut self, short: u64) {
        let first = self.list.partition_point(|candidate| short_id(&candidate.id) < short);
        for candidate in self.list[first..].iter_mut().take_while(|candidate| short_id(&candidate.id) == short) {
            candidate.need = candidate.need.max(self.walking);
        }
    }
}

impl Visitor for Candidates<'_> {
    fn node(&mut self, id: &BlockId) -> Result<(), OpsError> {
        self.need(short_id(id));
        // A node may be known from an earlier collection although it is gone since.
        let copies = self.repo.catalog().all_locations(id).map_err(RepoError::from)?;
        if copies.is_empty() && self.walking == Need::Confirmed {
            self.homeless = Some(*id);
        }
        Ok(())
    }

    fn blocks(&mut self, ids: &[u64]) {
        ids.iter().for_each(|id| self.need(*id));
    }
}

/// Copies what is needed out of `doomed`, which are condemned in the list as it was read. Looks at `blocks_max` blocks at a time.
///
/// # Errors
/// When target or catalog fail, or the work is to stop. Then nothing may be deleted.
pub fn rescue(
    repo: &Repository,
    doomed: &HashSet<PackId>,
    roots: &Roots,
    blocks_max: usize,
    interrupt: &Interrupt,
) -> Result<Rescued, OpsError> {
    let mut rescued = Rescued::default();
    let mut from = Some(BlockId::HOLE);
    while let Some(start) = from {
        let (list, next) = candidates(repo, doomed, start, blocks_max, interrupt)?;
        from = next;
        // Nothing to copy, and no need to know who needs what.
        if list.is_empty() {
            continue;
        }
        let mut found = Candidates { repo, list, walking: Need::Confirmed, homeless: None };
        rescued.obstacle = walk(repo, roots, &mut found, interrupt)?;
        if rescued.obstacle.is_some() {
            return Ok(rescued);
        }
        let mut needed = found.list;
        needed.retain(|candidate| candidate.need > Need::Nobody);
        copy(repo, needed, &mut rescued, interrupt)?;
        if rescued.obstacle.is_some() {
            return Ok(rescued);
        }
    }
    Ok(rescued)
}

/// Blocks from `start` on that have a copy in a doomed pack, and where the next stretch begins.
fn candidates(
    repo: &Repository,
    doomed: &HashSet<PackId>,
    start: BlockId,
    blocks_max: usize,
    interrupt: &Interrupt,
) -> Result<(Vec<Candidate>, Option<BlockId>), OpsError> {
    let (mut list, mut from) = (Vec::new(), Some(start));
    while let Some(at) = from.filter(|_| list.len() < blocks_max) {
        interrupt.check()?;
        let stretch = repo.catalog().stretch(at).map_err(RepoError::from)?;
        from = stretch.next;
        for (id, copies) in &stretch.blocks {
            let id = *id;
            let mut candidate =
                Candidate { id, kind: BlockKind::Data, need: Need::Nobody, doomed: Vec::new(), others: Vec::new() };
            for copy in copies {
                let pack = stretch.pack_of(copy);
                candidate.kind = pack.kind;
                if doomed.contains(&pack.pack) {
                    candidate.doomed.push(copy.location(pack.pack));
                } else if !pack.condemned {
                    candidate.others.push(copy.location(pack.pack));
                }
            }
            if !candidate.doomed.is_empty() {
                list.push(candidate);
            }
        }
    }
    Ok((list, from))
}

/// Finds out who needs what. Answers why nothing may be deleted, if so: only when the index, read again, says nothing new.
fn walk(
    repo: &Repository,
    roots: &Roots,
    found: &mut Candidates,
    interrupt: &Interrupt,
) -> Result<Option<String>, OpsError> {
    loop {
        let unreadable = walk_once(repo, roots, found, interrupt)?;
        let is_whole = unreadable.is_empty() && found.homeless.is_none();
        if is_whole || !repo.learn_index_everything()? {
            return obstacle(repo, found, &unreadable);
        }
    }
}

/// Visits everything. Answers what could not be entered.
fn walk_once(
    repo: &Repository,
    roots: &Roots,
    found: &mut Candidates,
    interrupt: &Interrupt,
) -> Result<Vec<(Need, Unreadable)>, OpsError> {
    let mut reach = Reach::new(repo, interrupt)?;
    let mut unreadable = Vec::new();
    found.homeless = None;
    for (need, roots) in [(Need::Confirmed, &roots.confirmed), (Need::Pending, &roots.pending)] {
        found.walking = need;
        unreadable.extend(reach.walk(roots, found)?.into_iter().map(|node| (need, node)));
    }
    Ok(unreadable)
}

fn obstacle(
    repo: &Repository,
    found: &Candidates,
    unreadable: &[(Need, Unreadable)],
) -> Result<Option<String>, OpsError> {
    for (need, Unreadable { id, error }) in unreadable {
        // Of an unconfirmed version: what is gone for good was not there either when its writer checked, so its writer cannot
        // confirm it. What is there and cannot be read is another matter.
        if *need == Need::Confirmed || repo.loss_of(id)? == Loss::Damaged {
            return Ok(Some(format!("a map cannot be read, so what its version needs is not known ({error})")));
        }
    }
    let homeless = |id| format!("no pack is known to hold map node {id}, which a version needs");
    Ok(found.homeless.map(homeless))
}

fn copy(
    repo: &Repository,
    needed: Vec<Candidate>,
    rescued: &mut Rescued,
    interrupt: &Interrupt,
) -> Result<(), OpsError> {
    let mut by_pack: BTreeMap<PackId, Vec<Candidate>> = BTreeMap::new();
    for candidate in needed {
        interrupt.check()?;
        if candidate.others.is_empty() || !repo.is_readable(candidate.kind, &candidate.id, &candidate.others)? {
            let pack = candidate.doomed[0].pack;
            by_pack.entry(pack).or_default().push(candidate);
        }
    }
    let mut packs: Vec<PackNo> = Vec::new();
    for (pack, mut blocks) in by_pack {
        interrupt.check()?;
        blocks.sort_by_key(|block| block.doomed[0].offset);
        let kind = blocks[0].kind;
        let places: Vec<(BlockId, Location)> = blocks.iter().map(|block| (block.id, block.doomed[0])).collect();
        for (block, copied) in blocks.iter().zip(repo.copy_out(pack, kind, &places)?) {
            let into = match copied {
                Copied::Into(no) => Some(no),
                Copied::Unreadable(error) => elsewhere(repo, block, &error, rescued)?,
            };
            let Some(no) = into else { continue };
            packs.push(no);
            rescued.blocks += 1;
            rescued.bytes += u64::from(block.doomed[0].frame_len);
        }
        packs.dedup();
        if rescued.obstacle.is_some() {
            break;
        }
    }
    repo.flush_packs(packs)?;
    Ok(())
}

/// One copy cannot be read: tries all others. When there is none, decides what that means.
fn elsewhere(
    repo: &Repository,
    block: &Candidate,
    error: &RepoError,
    rescued: &mut Rescued,
) -> Result<Option<PackNo>, OpsError> {
    match repo.store_anew(block.kind, &block.id) {
        Ok(no) => return Ok(Some(no)),
        Err(RepoError::Damaged { .. } | RepoError::Format { .. } | RepoError::Seal { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    match (repo.loss_of(&block.id)?, block.need, block.kind) {
        (Loss::Gone, Need::Pending | Need::Nobody, _) => {}
        // A damaged data block hides nothing: its packs stay for whoever may repair them, others may go.
        (Loss::Damaged, _, BlockKind::Data) => rescued.spared.extend(block.doomed.iter().map(|copy| copy.pack)),
        (Loss::Gone, Need::Confirmed, _) | (Loss::Damaged, _, BlockKind::Map) => {
            rescued.obstacle =
                Some(format!("a version needs block {}, and no copy of it can be read ({error})", block.id));
        }
    }
    Ok(None)
}

/// Blocks of each doomed pack that the index does not know are looked up in the pack itself. Says of how many packs that was so.
///
/// # Errors
/// When target or catalog fail.
pub fn learn_contents(repo: &Repository, doomed: &HashMap<PackId, u64>) -> Result<usize, OpsError> {
    let mut learnt = 0;
    for (pack, size_bytes) in doomed {
        if repo.catalog().pack(pack).map_err(RepoError::from)?.is_some() {
            continue;
        }
        match repo.inspect_pack(*pack, *size_bytes) {
            Ok(contents) => {
                repo.catalog().absorb_packs(&[contents]).map_err(RepoError::from)?;
                learnt += 1;
            }
            // Nothing in it can be told apart, so nobody can read anything of it.
            Err(RepoError::Format { .. } | RepoError::Seal { .. }) => {}
            Err(error) if error.is_gone() => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(learnt)
}
