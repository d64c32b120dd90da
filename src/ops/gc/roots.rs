//! What must stay: the images of all records, confirmed or not.

use crate::catalog::Root;
use crate::ops::OpsError;
use crate::repo::{RepoError, Repository};
use crate::words::ids::Uid;
use crate::words::record::{Record, RecordKind, Verdict};
use std::collections::HashSet;

/// Roots of maps, without holes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Roots {
    /// Of confirmed versions, drafts and pins.
    pub confirmed: Vec<Root>,
    /// Of those that are not: somebody may be about to confirm them. And of versions that were lost and may be repaired.
    pub pending: Vec<Root>,
}

impl Roots {
    /// As the catalog knows them now.
    ///
    /// # Errors
    /// When the catalog fails.
    pub fn read(repo: &Repository) -> Result<Self, OpsError> {
        let mut roots = Self::default();
        for (record, verdict) in records(repo)? {
            let root = (record.image.root, record.image.depth().root_level());
            match verdict {
                _ if root.0.is_hole() => {}
                Verdict::Confirmed => roots.confirmed.push(root),
                Verdict::Pending | Verdict::Withdrawing => roots.pending.push(root),
            }
        }
        // Their records are gone although nobody deleted them, and can be put back as long as their blocks are there.
        for record in repo.lost_records()? {
            roots.pending.push((record.image.root, record.image.depth().root_level()));
        }
        Ok(roots)
    }
}

/// Every record that is known.
pub fn records(repo: &Repository) -> Result<Vec<(Record, Verdict)>, OpsError> {
    let mut all = Vec::new();
    for kind in [RecordKind::Version, RecordKind::Draft, RecordKind::Pin] {
        all.extend(repo.catalog().records(kind).map_err(RepoError::from)?);
    }
    Ok(all)
}

/// Their uids.
///
/// # Errors
/// When the catalog fails.
pub fn uids(repo: &Repository) -> Result<HashSet<Uid>, OpsError> {
    Ok(records(repo)?.into_iter().map(|(record, _)| record.uid).collect())
}
