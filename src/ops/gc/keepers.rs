//! Who keeps what stays: the records that a collection goes by. Counts, and by name whatever keeps a version that was deleted.

use crate::ops::OpsError;
use crate::ops::gc::roots;
use crate::repo::{RepoError, Repository};
use crate::words::record::{RecordKind, Verdict};
use crate::words::stamp::Stamp;
use serde::Serialize;

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Keepers {
    /// Versions.
    pub versions: u64,
    /// Of these, versions that have expired and were not deleted yet.
    pub expired: u64,
    /// Drafts of this host.
    pub drafts: u64,
    /// Drafts of other hosts, which may be at work on them.
    pub foreign_drafts: u64,
    /// Records that are not confirmed: their writers may be about to.
    pub unconfirmed: u64,
    /// Versions whose record is gone although nobody deleted them: a repair can put them back.
    pub lost: u64,
    /// Versions that were deleted and are still in use.
    pub deleted_in_use: Vec<InUse>,
}

/// A version that was deleted, and a host that uses it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InUse {
    /// Which version.
    pub version: String,
    /// Its name.
    pub name: String,
    /// Which host.
    pub host: String,
    /// Whether that is this one.
    pub is_here: bool,
    /// Since when.
    pub since: String,
}

impl Keepers {
    /// As the catalog knows them.
    ///
    /// # Errors
    /// When the catalog fails.
    pub fn read(repo: &Repository, now: Stamp) -> Result<Self, OpsError> {
        let mut keepers = Self { lost: repo.lost_records()?.len() as u64, ..Self::default() };
        for (record, verdict) in roots::records(repo)? {
            let is_here = record.host == repo.host();
            match record.kind {
                _ if verdict != Verdict::Confirmed => keepers.unconfirmed += 1,
                RecordKind::Version => keepers.versions += 1,
                RecordKind::Draft if is_here => keepers.drafts += 1,
                RecordKind::Draft => keepers.foreign_drafts += 1,
                RecordKind::Pin if repo.version(record.base).is_ok() => {}
                RecordKind::Pin => keepers.deleted_in_use.push(InUse {
                    version: record.base.to_string(),
                    name: record.attributes.name.to_string(),
                    host: record.host.to_string(),
                    is_here,
                    since: record.created.to_seconds_text(),
                }),
            }
        }
        let versions = repo.catalog().version_summaries().map_err(RepoError::from)?;
        let expired = versions.iter().filter(|version| version.attributes.expire.is_some_and(|expire| expire <= now));
        keepers.expired = expired.count() as u64;
        Ok(keepers)
    }
}
