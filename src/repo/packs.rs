//! Packs by themselves: what a rebuild does when index fragments are lost or were never written.

use crate::format::frame::FrameKind;
use crate::format::{FormatError, fragment, layout, pack};
use crate::repo::reread::REREADS;
use crate::repo::{RepoError, Repository, object_id};
use crate::target::{Space, TargetError};
use crate::words::clock::ClockExt;
use crate::words::ids::PackId;
use crate::words::monitor::Counter;
use crate::words::record::PackContents;
use sha2::{Digest, Sha256};

/// The largest footer worth trusting a trailer for: a pack of the smallest blocks.
const FOOTER_MAX_BYTES: u64 = 64 << 20;

impl Repository {
    /// The packs that lie on the target, and how many bytes each has.
    ///
    /// # Errors
    /// When the target cannot be reached.
    pub fn stored_packs(&self) -> Result<Vec<(PackId, u64)>, RepoError> {
        let listed = self.core.target.list(layout::PACKS)?.into_iter();
        Ok(listed.filter_map(|info| Some((layout::parse_pack(&info.key)?, info.size_bytes?))).collect())
    }

    /// Room on the target. Where the target cannot tell, what is used is what the packs take.
    ///
    /// # Errors
    /// When target or catalog fail.
    pub fn space(&self) -> Result<Space, RepoError> {
        let space = self.core.target.space()?;
        if space != Space::BOUNDLESS {
            return Ok(space);
        }
        let packs = self.core.catalog.packs()?;
        Ok(space.with_used(packs.iter().filter(|pack| !pack.condemned).map(|pack| pack.size_bytes).sum()))
    }

    /// What a pack says it holds: by its footer or, when that is damaged, by the headers of its frames. Each block is
    /// authenticated when it is read, so a lie costs no more than the block.
    ///
    /// # Errors
    /// When the target cannot be reached, or nothing in the pack can be understood.
    pub fn inspect_pack(&self, id: PackId, size_bytes: u64) -> Result<PackContents, RepoError> {
        for attempt in 0..=REREADS {
            match self.read_footer(id, size_bytes) {
                Err(error @ RepoError::Target(_)) if !is_short(&error) => return Err(error),
                Err(error) if attempt == REREADS => {
                    tracing::warn!("{}: {error}; looking at each of its frames", layout::pack(id));
                }
                // It may have been changed on its way.
                Err(_) => {}
                read => return read,
            }
        }
        let mut bytes = self.core.target.get(&layout::pack(id))?;
        for _ in 0..REREADS {
            // Its name is the hash of its bytes: they are as they were written, or damaged there, or changed on their way.
            if <[u8; 32]>::from(Sha256::digest(&bytes)) == *id.as_bytes() {
                break;
            }
            bytes = self.core.target.get(&layout::pack(id))?;
        }
        let kind =
            pack::kind_of(&bytes).ok_or_else(|| RepoError::format(layout::pack(id).as_str())(nothing_in_it()))?;
        Ok(PackContents { pack: id, kind, size_bytes: bytes.len() as u64, blocks: pack::rescan(&bytes) })
    }

    pub(super) fn read_footer(&self, id: PackId, size_bytes: u64) -> Result<PackContents, RepoError> {
        let key = layout::pack(id);
        let target = &self.core.target;
        let format = |error| RepoError::format(key.as_str())(error);
        let mut header = [0; pack::HEADER_LEN];
        target.read_at(&key, 0, &mut header)?;
        let (_, kind) = pack::decode_header(&header).map_err(format)?;
        let mut trailer = [0; pack::TRAILER_LEN];
        target.read_at(&key, size_bytes.saturating_sub(trailer.len() as u64), &mut trailer)?;
        let range = pack::decode_trailer(&trailer, size_bytes).map_err(format)?;
        let len = range.end.saturating_sub(range.start).min(FOOTER_MAX_BYTES);
        let mut sealed = vec![0; usize::try_from(len).unwrap_or(0)];
        target.read_at(&key, range.start, &mut sealed)?;
        let plain = self
            .core
            .sealer
            .open_object(FrameKind::PackFooter, object_id(&[0; 16], &[]), &sealed)
            .map_err(RepoError::seal(key.as_str()))?;
        let footer_offset = u32::try_from(range.start).unwrap_or(u32::MAX);
        let blocks = pack::decode_footer(&plain, footer_offset).map_err(format)?;
        Ok(PackContents { pack: id, kind, size_bytes, blocks })
    }

    /// Writes an index fragment about packs, so that every host learns of them, and learns it here. The packs are durable.
    ///
    /// # Errors
    /// When target or catalog fail.
    pub fn index_packs(&self, packs: &[PackContents]) -> Result<(), RepoError> {
        let core = &self.core;
        let id = core.clock.fragment_id();
        let object = object_id(id.as_bytes(), &[]);
        let plain = fragment::encode(packs);
        // One that nobody can read would stand in the place of what could be.
        fragment::decode(&plain).map_err(RepoError::format(layout::fragment(id).as_str()))?;
        let sealed = core.sealer.seal_object(FrameKind::Fragment, object, &plain);
        core.target.put(&layout::fragment(id), &[&sealed])?;
        core.monitor.count(Counter::FragmentsPut, 1);
        Ok(core.catalog.absorb_fragment(id, packs)?)
    }
}

/// A pack too short for what its trailer says is damaged, not out of reach.
fn is_short(error: &RepoError) -> bool {
    matches!(error, RepoError::Target(error) if matches!(**error, TargetError::Truncated { .. }))
}

fn nothing_in_it() -> FormatError {
    FormatError::Field {
        what: "pack",
        field: "blocks",
        value: "none".into(),
        problem: "it has no readable header and no block",
    }
}
