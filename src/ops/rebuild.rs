//! Making the catalog anew from the target.

use crate::ops::OpsError;
use crate::repo::Repository;
use crate::words::monitor::Monitor;
use serde::Serialize;

pub use crate::repo::rebuild::IndexSource;

/// What was learnt.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Rebuilt {
    /// Versions, drafts and pins.
    pub records: u64,
    /// Attribute entries.
    pub entries: u64,
    /// Packs on the target.
    pub packs: u64,
    /// Of these, packs that no index fragment described; a fragment was written for them.
    pub packs_indexed: u64,
    /// What could not be read, and why. Everything else was learnt all the same.
    pub unreadable: Vec<String>,
}

/// Learns the catalog from the target beside the one that is used, and then uses that.
///
/// # Errors
/// When the target cannot be reached or the catalog fails. It can be repeated.
pub fn rebuild(repo: &Repository, source: IndexSource, monitor: &dyn Monitor) -> Result<Rebuilt, OpsError> {
    let rebuilt = repo.rebuild(source, monitor)?;
    let (learned, packs, packs_indexed) = (rebuilt.learned, rebuilt.packs, rebuilt.packs_indexed);
    let (records, entries, unreadable) = (learned.records, learned.entries, learned.unreadable);
    Ok(Rebuilt { records, entries, packs, packs_indexed, unreadable })
}
