//! Who takes the space: what each version, or each name, holds alone, and what deleting it would free.
//!
//! Every map is walked once, shared subtrees once in all. Per block and node 12 bytes are remembered (the first eight of its id
//! and its only holder): 40 million blocks, 10 TiB, take about 1 GiB.

use crate::catalog::VersionSummary;
use crate::ops::OpsError;
use crate::ops::error::is_damage;
use crate::repo::{RepoError, Repository};
use crate::words::ids::BlockId;
use crate::words::record::{ImageRef, RecordKind, Verdict};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// What a row of the answer stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grouping {
    /// A version.
    Versions,
    /// All versions of a name.
    Names,
}

/// Space of a version or a name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
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
}

/// Space of a repository.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// Rows, in order of time or name.
    pub rows: Vec<UsageRow>,
    /// Bytes of all packs on the target.
    pub packs_bytes: u64,
}

/// Who holds a block: a group, or several.
type Holder = u32;
const SHARED: Holder = u32::MAX;

/// The number of a version of `versions` in the list of groups.
struct Groups {
    of_version: Vec<Holder>,
    rows: Vec<UsageRow>,
}

/// Measures. Drafts and pins hold what they refer to, but have no row.
///
/// # Errors
/// When target or catalog fail. Maps that are damaged are left out as far as they are unreadable.
pub fn usage(repo: &Repository, grouping: Grouping) -> Result<Usage, OpsError> {
    let versions = repo.catalog().version_summaries().map_err(RepoError::from)?;
    let mut groups = group(&versions, grouping);
    let mut census = Census { repo, holders: HashMap::new() };
    for (version, holder) in versions.iter().zip(&groups.of_version) {
        census.hold(&version.image, *holder)?;
    }
    for kind in [RecordKind::Draft, RecordKind::Pin] {
        for (record, verdict) in repo.catalog().records(kind).map_err(RepoError::from)? {
            if verdict == Verdict::Confirmed {
                census.hold(&record.image, SHARED)?;
            }
        }
    }
    for (version, holder) in versions.iter().zip(&groups.of_version) {
        let row = &mut groups.rows[*holder as usize];
        census.release(&version.image, *holder, row)?;
    }
    let packs = repo.catalog().packs().map_err(RepoError::from)?;
    let packs_bytes = packs.iter().filter(|pack| !pack.condemned).map(|pack| pack.size_bytes).sum();
    Ok(Usage { rows: groups.rows, packs_bytes })
}

fn group(versions: &[VersionSummary], grouping: Grouping) -> Groups {
    let names: BTreeSet<&str> = versions.iter().map(|version| version.attributes.name.as_str()).collect();
    let names: BTreeMap<&str, usize> = names.into_iter().zip(0..).collect();
    let count = if grouping == Grouping::Names { names.len() } else { versions.len() };
    let mut groups = Groups { of_version: Vec::new(), rows: vec![UsageRow::default(); count] };
    for (number, version) in versions.iter().enumerate() {
        let name = version.attributes.name.as_str();
        let at = if grouping == Grouping::Names { names[name] } else { number };
        let row = &mut groups.rows[at];
        row.uid = (grouping == Grouping::Versions).then(|| version.uid.to_string());
        name.clone_into(&mut row.name);
        row.versions += 1;
        row.logical_bytes += version.image.size_bytes;
        row.allocated_bytes += version.image.allocated_blocks * version.image.block_size.bytes_u64();
        row.stored_bytes += version.stats.stored_bytes;
        groups.of_version.push(Holder::try_from(at).unwrap_or(SHARED));
    }
    groups
}

struct Census<'a> {
    repo: &'a Repository,
    holders: HashMap<u64, Holder>,
}

/// Ids are uniformly distributed: eight bytes tell them apart well enough for an estimate of space.
fn short(id: &BlockId) -> u64 {
    let (first, _) = id.as_bytes().split_first_chunk().expect("an id has 32 bytes");
    u64::from_be_bytes(*first)
}

impl Census<'_> {
    fn hold(&mut self, image: &ImageRef, holder: Holder) -> Result<(), OpsError> {
        self.hold_node(&image.root, image.depth().root_level(), holder)
    }

    fn hold_node(&mut self, id: &BlockId, level: u8, holder: Holder) -> Result<(), OpsError> {
        if id.is_hole() || !self.note(id, holder) {
            return Ok(());
        }
        let Some(node) = self.node(id)? else { return Ok(()) };
        // A node held by a second group is walked once more, as shared: then everything below is.
        let holder = self.holders.get(&short(id)).copied().unwrap_or(holder);
        for child in node.ids().iter().filter(|child| !child.is_hole()) {
            if level == 0 {
                self.note(child, holder);
            } else {
                self.hold_node(child, level - 1, holder)?;
            }
        }
        Ok(())
    }

    /// Notes a holder and says whether that changed anything.
    fn note(&mut self, id: &BlockId, holder: Holder) -> bool {
        match self.holders.insert(short(id), holder) {
            None => true,
            Some(before) if before == holder => false,
            Some(before) => {
                self.holders.insert(short(id), SHARED);
                before != SHARED
            }
        }
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
        if id.is_hole() || !self.take(id, holder, row)? {
            return Ok(());
        }
        let Some(node) = self.node(id)? else { return Ok(()) };
        for child in node.ids().iter().filter(|child| !child.is_hole()) {
            if level > 0 {
                self.release_node(child, level - 1, holder, block, row)?;
            } else if self.take(child, holder, row)? {
                row.unique_bytes += block;
            }
        }
        Ok(())
    }

    fn take(&mut self, id: &BlockId, holder: Holder, row: &mut UsageRow) -> Result<bool, OpsError> {
        if self.holders.get(&short(id)) != Some(&holder) {
            return Ok(false);
        }
        self.holders.insert(short(id), SHARED);
        let copies = self.repo.catalog().locations(id).map_err(RepoError::from)?;
        row.freed_bytes += copies.iter().map(|copy| u64::from(copy.frame_len)).sum::<u64>();
        Ok(true)
    }

    fn node(&self, id: &BlockId) -> Result<Option<std::sync::Arc<crate::format::node::MapNode>>, OpsError> {
        match self.repo.read_node(id) {
            Ok(node) => Ok(Some(node)),
            Err(error) if is_damage(&error) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}
