//! Copying what is still needed out of condemned packs. Frames are taken as they are, each authenticated on the way: nothing in
//! them names the pack they lie in. Only those under an old key version are sealed anew: the version of a pack is told by its
//! first frame (`migrate`), so versions must not fall within one.

use crate::format::frame::FrameHeader;
use crate::format::layout;
use crate::repo::packer::PackNo;
use crate::repo::read::is_loss;
use crate::repo::{RepoError, Repository};
use crate::words::ids::{BlockId, PackId};
use crate::words::monitor::Counter;
use crate::words::record::{BlockKind, Location};

/// Frames this close are read at once with what lies between.
const GAP_MAX_BYTES: u32 = 256 << 10;
/// What is read at once at most, unless one frame is longer.
const RUN_MAX_BYTES: u32 = 8 << 20;

/// What became of a block that was to be copied.
#[derive(Debug)]
pub enum Copied {
    /// It is in another pack, which must become durable before anybody relies on it.
    Into(PackNo),
    /// This copy cannot be read.
    Unreadable(RepoError),
}

/// Where a block has no copy any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// No pack that is said to hold it exists.
    Gone,
    /// A pack that holds it exists, but the block in it cannot be read.
    Damaged,
}

impl Repository {
    /// Copies blocks out of one pack; `blocks` are in order of offset. Answers for each, in that order.
    ///
    /// # Errors
    /// When the target cannot be reached, or the catalog fails.
    pub fn copy_out(
        &self,
        pack: PackId,
        kind: BlockKind,
        blocks: &[(BlockId, Location)],
    ) -> Result<Vec<Copied>, RepoError> {
        let mut answers = Vec::with_capacity(blocks.len());
        let (mut bytes, mut plain) = (Vec::new(), Vec::new());
        for run in runs(blocks) {
            let start = run.first().map_or(0, |(_, first)| first.offset);
            let end = run.iter().map(|(_, at)| at.offset.saturating_add(at.frame_len)).max().unwrap_or(start);
            bytes.resize((end - start) as usize, 0);
            let read = self.core.target.read_at(&layout::pack(pack), u64::from(start), &mut bytes);
            self.core.monitor.count(Counter::TargetReads, 1);
            match read.map_err(RepoError::from) {
                Ok(()) => {
                    for (id, at) in run {
                        let from = (at.offset - start) as usize;
                        let frame = &bytes[from..from + at.frame_len as usize];
                        answers.push(self.take_frame(kind, id, at, frame, &mut plain)?);
                    }
                }
                // The pack may be cut short: what lies before the end can still be had.
                Err(error) if is_loss(&error) && run.len() > 1 => {
                    for one in run {
                        answers.extend(self.copy_out(pack, kind, std::slice::from_ref(one))?);
                    }
                }
                Err(error) if is_loss(&error) => answers.push(Copied::Unreadable(error)),
                Err(error) => return Err(error),
            }
        }
        Ok(answers)
    }

    fn take_frame(
        &self,
        kind: BlockKind,
        id: &BlockId,
        at: &Location,
        frame: &[u8],
        plain: &mut Vec<u8>,
    ) -> Result<Copied, RepoError> {
        plain.clear();
        if let Err(error) = self.core.sealer.open_block_into(kind, id, frame, plain) {
            return Ok(Copied::Unreadable(RepoError::seal(format!("block {id}"))(error)));
        }
        let header = FrameHeader::decode(frame).map_err(RepoError::format(format!("block {id}")))?;
        if header.key_version < self.core.sealer.keyring().current() {
            return self.seal_anew(kind, id, plain).map(Copied::Into);
        }
        let (no, _) = self.core.packer.append(kind, *id, frame, at.plain_len)?;
        Ok(Copied::Into(no))
    }

    /// Stores a block anew from whichever copy can be read, whatever the index says of others.
    ///
    /// # Errors
    /// [`RepoError::Damaged`] when none can be.
    pub fn store_anew(&self, kind: BlockKind, id: &BlockId) -> Result<PackNo, RepoError> {
        let mut plain = Vec::new();
        self.core.read_into(kind, id, &mut plain)?;
        self.seal_anew(kind, id, &plain)
    }

    fn seal_anew(&self, kind: BlockKind, id: &BlockId, plain: &[u8]) -> Result<PackNo, RepoError> {
        let core = &self.core;
        let mut frame = Vec::new();
        let level = core.header.zstd_level;
        core.sealer.seal_block(kind, id, plain, level, &mut frame).map_err(RepoError::seal(format!("block {id}")))?;
        let plain_len = u32::try_from(plain.len()).expect("a block is at most 4 MiB");
        Ok(core.packer.append(kind, *id, &frame, plain_len)?.0)
    }

    /// Whether one of these copies of a block can be read and is authentic.
    ///
    /// # Errors
    /// When the target cannot be reached.
    pub fn is_readable(&self, kind: BlockKind, id: &BlockId, copies: &[Location]) -> Result<bool, RepoError> {
        let mut plain = Vec::new();
        for copy in copies {
            match self.core.read_copy(kind, id, copy, &mut plain) {
                Ok(()) => return Ok(true),
                Err(error @ RepoError::Target(_)) if !is_loss(&error) => return Err(error),
                Err(error) => tracing::warn!("block {id} in {}: {error}", layout::pack(copy.pack)),
            }
        }
        Ok(false)
    }

    /// How a block that cannot be read was lost. Ask only after the index was read until it said nothing new.
    ///
    /// # Errors
    /// When the target cannot be reached.
    pub fn loss_of(&self, id: &BlockId) -> Result<Loss, RepoError> {
        for copy in self.core.catalog.all_locations(id)? {
            match self.core.target.read_at(&layout::pack(copy.pack), u64::from(copy.offset), &mut [0]) {
                Err(crate::target::TargetError::NotFound { .. }) => {}
                Ok(()) | Err(crate::target::TargetError::Truncated { .. }) => return Ok(Loss::Damaged),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Loss::Gone)
    }
}

/// Cuts blocks in order of offset into runs that are worth reading at once.
fn runs(blocks: &[(BlockId, Location)]) -> impl Iterator<Item = &[(BlockId, Location)]> {
    let mut rest = blocks;
    std::iter::from_fn(move || {
        let (_, first) = rest.first()?;
        let mut end = first.offset;
        let fits = |(_, at): &&(BlockId, Location)| {
            let next = at.offset.saturating_add(at.frame_len);
            let near = at.offset <= end.saturating_add(GAP_MAX_BYTES);
            let short = next.saturating_sub(first.offset) <= RUN_MAX_BYTES;
            end = end.max(next);
            near && short
        };
        let len = rest.iter().take_while(fits).count().max(1);
        let (run, others) = rest.split_at(len);
        rest = others;
        Some(run)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_frames_are_read_together_and_far_ones_are_not() {
        let at = |offset, frame_len| {
            let location = Location { pack: PackId::from_bytes([1; 32]), offset, frame_len, plain_len: 1 };
            (BlockId::from_bytes([2; 32]), location)
        };
        let blocks = [at(32, 100), at(132, 100), at(2 << 20, 100), at((2 << 20) + 200_000, 9 << 20), at(12 << 20, 10)];
        let lengths: Vec<_> = runs(&blocks).map(<[_]>::len).collect();
        assert_eq!(lengths, [2, 1, 1, 1]);
        assert_eq!(runs(&[]).count(), 0);
    }
}
