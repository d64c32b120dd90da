//! Packs that a scrub could not read: tried again when their turn comes, not before all others each time.

use crate::repo::{RepoError, Repository};
use crate::words::ids::PackId;
use crate::words::stamp::Stamp;
use std::collections::BTreeMap;

/// Where it is kept: for each pack its id and the time in milliseconds, big-endian.
const TRIED: &str = "scrub/tried";
const ID_BYTES: usize = 32;
const ROW_BYTES: usize = ID_BYTES + 8;

/// When each pack that could not be read was last tried. Nothing but the order of packs depends on it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tried(BTreeMap<PackId, Stamp>);

impl Tried {
    /// As it was kept last.
    ///
    /// # Errors
    /// When the catalog fails.
    pub fn load(repo: &Repository) -> Result<Self, RepoError> {
        let bytes = repo.catalog().get_meta(TRIED)?.unwrap_or_default();
        let rows = bytes.chunks_exact(ROW_BYTES).filter_map(|row| {
            let (pack, at) = row.split_first_chunk::<ID_BYTES>()?;
            let at = i64::from_be_bytes(at.try_into().ok()?);
            Some((PackId::from_bytes(*pack), Stamp::from_millis(at)))
        });
        Ok(Self(rows.collect()))
    }

    /// Forgets what is of no use any more; kept with the next note.
    pub fn retain(&mut self, keep: impl Fn(&PackId, Stamp) -> bool) {
        self.0.retain(|pack, at| keep(pack, *at));
    }

    /// All of them.
    pub const fn times(&self) -> &BTreeMap<PackId, Stamp> {
        &self.0
    }

    /// Notes that packs were tried at a moment, and keeps it.
    ///
    /// # Errors
    /// When the catalog fails.
    pub fn note(&mut self, repo: &Repository, packs: Vec<PackId>, now: Stamp) -> Result<(), RepoError> {
        if packs.is_empty() {
            return Ok(());
        }
        self.0.extend(packs.into_iter().map(|pack| (pack, now)));
        let row = |(pack, at): (&PackId, &Stamp)| [&pack.as_bytes()[..], &at.millis().to_be_bytes()].concat();
        let bytes: Vec<u8> = self.0.iter().flat_map(row).collect();
        Ok(repo.catalog().set_meta(TRIED, &bytes)?)
    }
}
