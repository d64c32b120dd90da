//! Making the catalog anew from the target.

use crate::ops::OpsError;
use crate::repo::{RepoError, Repository};
use crate::words::monitor::Monitor;
use crate::words::record::PackContents;
use serde::Serialize;

/// Where the index is learnt from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IndexSource {
    /// Index fragments; only packs that none of them names are looked into.
    Fragments,
    /// The footer of every pack, whatever fragments say: `--from-packs`.
    Packs,
}

/// Packs that one fragment of a rebuild speaks of.
const PACKS_PER_FRAGMENT: usize = 256;

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

/// Empties the catalog and learns it from the target. What is local (overlays, hidden names, known damage) stays.
///
/// Packs that no fragment names are left by a writer that died before it indexed them. They become known to every host by
/// a new fragment: were they known here only, a version could come to rely on a block that nobody else finds.
///
/// # Errors
/// When the target cannot be reached or the catalog fails. It can be repeated.
pub fn rebuild(repo: &Repository, source: IndexSource, monitor: &dyn Monitor) -> Result<Rebuilt, OpsError> {
    let catalog = repo.catalog();
    catalog.clear().map_err(RepoError::from)?;
    let learned = repo.refresh()?;
    let mut rebuilt = Rebuilt {
        records: learned.records,
        entries: learned.entries,
        unreadable: learned.unreadable,
        ..Rebuilt::default()
    };
    let stored = repo.stored_packs()?;
    rebuilt.packs = stored.len() as u64;
    let mut found: Vec<PackContents> = Vec::new();
    for (done, (id, size_bytes)) in stored.into_iter().enumerate() {
        monitor.progress(done as u64, rebuilt.packs);
        let known = catalog.pack(&id).map_err(RepoError::from)?;
        let condemned = catalog.is_condemned(&id).map_err(RepoError::from)?;
        if condemned || (known.is_some() && source == IndexSource::Fragments) {
            continue;
        }
        match repo.inspect_pack(id, size_bytes) {
            // What fragments say is true as far as it goes; a pack of which they say all needs no new one.
            Ok(pack) if known.is_some_and(|known| known.block_count as usize >= pack.blocks.len()) => {}
            Ok(pack) => {
                found.push(pack);
                if found.len() == PACKS_PER_FRAGMENT {
                    index(repo, &mut found, &mut rebuilt)?;
                }
            }
            Err(error @ (RepoError::Format { .. } | RepoError::Seal { .. })) => {
                rebuilt.unreadable.push(error.to_string());
            }
            Err(error) if error.is_gone() => {}
            Err(error) => return Err(error.into()),
        }
    }
    index(repo, &mut found, &mut rebuilt)?;
    monitor.progress(rebuilt.packs, rebuilt.packs);
    Ok(rebuilt)
}

/// Writes a fragment of the packs found so far. They are not kept until the end: the blocks of all packs may be more than memory holds.
fn index(repo: &Repository, found: &mut Vec<PackContents>, rebuilt: &mut Rebuilt) -> Result<(), RepoError> {
    if !found.is_empty() {
        repo.index_packs(found)?;
        rebuilt.packs_indexed += found.len() as u64;
        found.clear();
    }
    Ok(())
}
