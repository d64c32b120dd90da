//! What keeps a collection from deleting anything, and what to do about it.
//!
//! Of a version that lacks a map node a scrub tells. Of an unfinished copy nobody does, and it may be one that was discarded long ago: it
//! leaves no tombstone, so one whose record comes back with its confirmation, by a write that was delayed for long or by a repair that met
//! such a write, refers to what was collected since. It stands in the way until it is discarded once more.

use crate::ops::gc::reach::{Nobody, Reach, Unreadable};
use crate::ops::{Interrupt, OpsError};
use crate::repo::{RepoError, Repository};
use crate::words::ids::BlockId;
use crate::words::record::Record;
use std::collections::BTreeMap;

/// A sentence for each map node that cannot be read.
///
/// # Errors
/// When target or catalog fail, or the work is to stop.
pub fn of_maps(repo: &Repository, unreadable: &[Unreadable], interrupt: &Interrupt) -> Result<Vec<String>, OpsError> {
    if unreadable.is_empty() {
        return Ok(Vec::new());
    }
    let needed = needed_by_drafts(repo, unreadable, interrupt)?;
    let tell = |Unreadable { id, error }: &Unreadable| {
        let draft = needed.get(id).map_or_else(String::new, |draft| {
            let (uid, name) = (draft.uid, &draft.attributes.name);
            format!(
                "; the unfinished copy of {name} needs it: if nobody needs that copy, and no version is named, `backyfs rm --force {uid}` \
                 discards it"
            )
        });
        format!(
            "map node {id} cannot be read, so what is below it is not known: {error}; `backyfs scrub --all` names the versions that need \
             it{draft}"
        )
    };
    Ok(unreadable.iter().map(tell).collect())
}

/// Of map nodes that cannot be read those that some unfinished copy needs, with one that does.
fn needed_by_drafts(
    repo: &Repository,
    unreadable: &[Unreadable],
    interrupt: &Interrupt,
) -> Result<BTreeMap<BlockId, Record>, OpsError> {
    let mut needed = BTreeMap::new();
    for record in repo.catalog().drafts().map_err(RepoError::from)? {
        if unreadable.iter().all(|node| needed.contains_key(&node.id)) {
            break;
        }
        let root = (record.image.root, record.image.depth().root_level());
        let lost = Reach::new(repo, interrupt)?.walk(&[root], &mut Nobody)?;
        needed.extend(lost.into_iter().map(|node| (node.id, record.clone())));
    }
    Ok(needed)
}
