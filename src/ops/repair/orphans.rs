//! Images whose records are lost: roots of maps that nothing refers to.
//!
//! A map node knows its level and the ids below it, not the size of its image nor its name. So an image is recovered up to its last block
//! that is not a hole, in whole blocks: trailing zeros and the length of a last partial block are unknown. Nodes that were stored
//! early, while a long copy was running, are roots as well, of a part of an image; age, size and content tell which is which.

use crate::image::Settled;
use crate::ops::OpsError;
use crate::ops::commit::{Publication, publish_version};
use crate::ops::error::is_damage;
use crate::repo::{RepoError, Repository};
use crate::words::attribute::{Attributes, FileAttributes, Mtime, Validity};
use crate::words::geometry::{MapDepth, node_span_blocks};
use crate::words::ids::{BlockId, PackId};
use crate::words::name::Name;
use crate::words::record::{BlockKind, ImageRef, Record, RecordKind, Stats, Verdict};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// An image that can be recovered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Orphan {
    /// The root of its map, by which it is recovered.
    pub root: String,
    /// Up to the end of its last block that is not a hole, or exactly when a record that was never confirmed tells.
    pub size_bytes: u64,
    /// Whether that is the size it had.
    pub is_size_known: bool,
    /// Blocks that are not holes.
    pub blocks: u64,
    /// Of these, blocks that no pack holds any more.
    pub lost_blocks: u64,
    /// The name, when a record that was never confirmed tells.
    pub name: Option<String>,
}

struct Found {
    image: ImageRef,
    orphan: Orphan,
}

/// Finds images that no confirmed record refers to, largest first.
///
/// # Errors
/// When target or catalog fail.
pub fn orphans(repo: &Repository) -> Result<Vec<Orphan>, OpsError> {
    Ok(find(repo)?.into_iter().map(|found| found.orphan).collect())
}

fn find(repo: &Repository) -> Result<Vec<Found>, OpsError> {
    let mut unconfirmed: BTreeMap<BlockId, Record> = BTreeMap::new();
    let mut reached: BTreeSet<BlockId> = BTreeSet::new();
    for kind in [RecordKind::Version, RecordKind::Draft, RecordKind::Pin] {
        for (record, verdict) in repo.catalog().records(kind).map_err(RepoError::from)? {
            match verdict {
                Verdict::Confirmed => drop(reached.insert(record.image.root)),
                _ if kind == RecordKind::Version => drop(unconfirmed.insert(record.image.root, record)),
                _ => {}
            }
        }
    }
    let packs = repo.catalog().packs().map_err(RepoError::from)?.into_iter();
    let maps: BTreeSet<PackId> =
        packs.filter(|pack| pack.kind == BlockKind::Map && !pack.condemned).map(|pack| pack.pack).collect();
    let blocks = repo.catalog().blocks_in(&maps).map_err(RepoError::from)?;
    let nodes: BTreeSet<BlockId> = blocks.into_values().flatten().map(|block| block.id).collect();
    let mut levels: BTreeMap<BlockId, u8> = BTreeMap::new();
    for id in &nodes {
        match repo.read_node(id) {
            Ok(node) => {
                levels.insert(*id, node.level);
                if node.level > 0 {
                    reached.extend(node.ids().iter().copied());
                }
            }
            Err(error) if is_damage(&error) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let mut found = Vec::new();
    for (root, level) in levels {
        if !reached.contains(&root) {
            found.push(measure(repo, root, level, unconfirmed.get(&root))?);
        }
    }
    found.sort_by_key(|found| (std::cmp::Reverse(found.orphan.size_bytes), found.image.root));
    Ok(found)
}

/// Looks at all of an image.
fn measure(repo: &Repository, root: BlockId, level: u8, record: Option<&Record>) -> Result<Found, OpsError> {
    let mut counts = Counts::default();
    count(repo, root, level, 0, &mut counts)?;
    let block_size = repo.block_size();
    // A tree of this height has more blocks than one level less could hold, or its size would put the root elsewhere.
    let least = if level == 0 { 1 } else { node_span_blocks(level - 1) + 1 };
    let end = counts.end.max(least);
    let size_bytes = record.map_or(end.saturating_mul(block_size.bytes_u64()), |record| record.image.size_bytes);
    let image = ImageRef { block_size, size_bytes, root, allocated_blocks: counts.blocks };
    debug_assert_eq!(MapDepth::for_blocks(end).root_level(), level);
    let orphan = Orphan {
        root: root.to_string(),
        size_bytes,
        is_size_known: record.is_some(),
        blocks: counts.blocks,
        lost_blocks: counts.lost,
        name: record.map(|record| record.attributes.name.to_string()),
    };
    Ok(Found { image, orphan })
}

#[derive(Default)]
struct Counts {
    blocks: u64,
    lost: u64,
    /// One past the last block that is not a hole.
    end: u64,
}

fn count(repo: &Repository, id: BlockId, level: u8, first: u64, counts: &mut Counts) -> Result<(), OpsError> {
    let node = match repo.read_node(&id) {
        Ok(node) => node,
        Err(error) if is_damage(&error) => {
            counts.lost += node_span_blocks(level);
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    let step = if level == 0 { 1 } else { node_span_blocks(level - 1) };
    for (slot, child) in (0..).zip(node.ids()).filter(|(_, child)| !child.is_hole()) {
        let at = first.saturating_add(step.saturating_mul(slot));
        if level > 0 {
            count(repo, *child, level - 1, at, counts)?;
            continue;
        }
        counts.blocks += 1;
        counts.end = counts.end.max(at + 1);
        counts.lost += u64::from(!repo.catalog().has_sound_location(child).map_err(RepoError::from)?);
    }
    Ok(())
}

/// Publishes an orphan as a version of `name`. It is incomplete, since nobody knows whether it is whole, until somebody accepts it.
///
/// # Errors
/// When there is no such orphan, or it cannot be published.
pub fn recover(repo: &Repository, root: &str, name: &Name) -> Result<Record, OpsError> {
    let matching: Vec<Found> = find(repo)?.into_iter().filter(|found| found.orphan.root.starts_with(root)).collect();
    let [found] = matching.as_slice() else {
        let problem = match matching.len() {
            0 => format!(
                "no image that can be recovered has a root that begins with {root:?}: see `backyfs repair --orphans`"
            ),
            many => format!("{root:?} means {many} images: give more digits"),
        };
        return Err(OpsError::refused(problem));
    };
    let now = repo.clock().now();
    let file = FileAttributes { mode: 0o600, uid: 0, gid: 0, mtime: Mtime::from(now) };
    let size =
        if found.orphan.is_size_known { "" } else { ", and its size is that of its last block that is not zero" };
    let lost = format!("recovered from its map: its record was lost{size}");
    let attributes = Attributes { validity: Validity::Incomplete(lost), ..Attributes::new(name.clone(), file) };
    let publication = Publication::new(attributes);
    let settled = Settled { image: found.image, changes: 0, stats: Stats::default() };
    Ok(publish_version(repo, &settled, publication)?)
}
