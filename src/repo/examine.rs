//! Reading packs from end to end, to see whether they are what was written.
//!
//! A pack is named by the hash of its bytes, so without a key it can be told that something is wrong with it. With the key each
//! of its blocks is opened as well, and named anew: that finds what was damaged in the memory of the writer, before it was hashed. A
//! pack that is not intact says nothing reliable about itself; then each copy that the index places in it is tried.

use crate::format::layout::{self, ObjectKey};
use crate::repo::header::answers;
use crate::repo::{RepoError, Repository};
use crate::target::{Target, TargetError};
use crate::words::ids::{BlockId, PackId};
use crate::words::record::{BlockKind, PackedBlock};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::ops::{ControlFlow, Range};

/// What is read at once: large enough for a remote target, small enough for many threads. A frame is never cut, so a read can
/// be one block longer.
pub const WINDOW_BYTES: u64 = 4 << 20;

/// Asked before each read of so many bytes; waits as long as a limit demands, and says when to stop.
pub type Pace<'a> = &'a (dyn Fn(u64) -> ControlFlow<()> + Sync);

/// How a pack was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PackState {
    /// Its bytes are those that were written and, if the key was there, every block in it opens.
    Intact,
    /// Something is wrong with it; what.
    Damaged(String),
    /// It is not there.
    Missing,
    /// It may not be read, which says nothing about what is in it; why.
    Unreadable(String),
    /// The pace said stop.
    Stopped,
}

/// Why a look at a pack ended early.
enum Early {
    State(PackState),
    Target(TargetError),
}

/// Compares a pack with its name. Needs no key.
///
/// # Errors
/// When the target as a whole cannot be read; what concerns this pack alone is a [`PackState`].
pub fn hash_pack(target: &dyn Target, id: PackId, size_bytes: u64, pace: Pace<'_>) -> Result<PackState, TargetError> {
    let ends = (1..=size_bytes.div_ceil(WINDOW_BYTES)).map(|number| (number * WINDOW_BYTES).min(size_bytes));
    let hashed = stream(target, &layout::pack(id), ends, pace, &mut |_, _| {});
    conclude(hashed, id)
}

fn conclude(hashed: Result<PackId, Early>, id: PackId) -> Result<PackState, TargetError> {
    match hashed {
        Ok(found) if found == id => Ok(PackState::Intact),
        Ok(_) => Ok(PackState::Damaged("its bytes are not those that were written: their hash is another".to_owned())),
        Err(Early::State(state)) => Ok(state),
        Err(Early::Target(error)) => Err(error),
    }
}

/// Reads an object in windows that end at `ends`, hashes it and shows each window with its offset.
fn stream(
    target: &dyn Target,
    key: &ObjectKey,
    ends: impl IntoIterator<Item = u64>,
    pace: Pace<'_>,
    visit: &mut dyn FnMut(u64, &[u8]),
) -> Result<PackId, Early> {
    let mut hash = Sha256::new();
    let mut buffer = Vec::new();
    let mut at = 0;
    for end in ends {
        let len = end.saturating_sub(at);
        if pace(len).is_break() {
            return Err(Early::State(PackState::Stopped));
        }
        buffer.resize(usize::try_from(len).unwrap_or(0), 0);
        target.read_at(key, at, &mut buffer).map_err(|error| early(target, error))?;
        hash.update(&buffer);
        visit(at, &buffer);
        at = end;
    }
    Ok(PackId::from_bytes(hash.finalize().into()))
}

/// Whether an error concerns one object or the whole target: the header, which every repository has, tells.
fn early(target: &dyn Target, error: TargetError) -> Early {
    if !answers(target) {
        return Early::Target(error);
    }
    Early::State(match error {
        // A directory of packs that is gone as a whole makes its packs unreachable; they are as lost as by themselves.
        TargetError::NotFound { .. } | TargetError::Unreachable { .. } => PackState::Missing,
        TargetError::Truncated { .. } => PackState::Damaged("it is cut off".to_owned()),
        TargetError::Io { .. } => PackState::Damaged(error.to_string()),
        error => PackState::Unreadable(error.to_string()),
    })
}

/// Groups blocks, which are in order of offset, so that each group is read at once.
fn windows(blocks: &[PackedBlock]) -> Vec<Range<usize>> {
    let mut groups: Vec<Range<usize>> = Vec::new();
    for (number, block) in blocks.iter().enumerate() {
        match groups.last_mut() {
            Some(group) if block.end() - u64::from(blocks[group.start].offset) <= WINDOW_BYTES => {
                group.end = number + 1;
            }
            _ => groups.push(number..number + 1),
        }
    }
    groups
}

impl Repository {
    /// Reads a pack from end to end: its hash, and every block that its footer names.
    ///
    /// # Errors
    /// When the target as a whole cannot be read.
    pub fn examine_pack(&self, id: PackId, size_bytes: u64, pace: Pace<'_>) -> Result<PackState, RepoError> {
        let target = &*self.core.target;
        let contents = match self.read_footer(id, size_bytes) {
            Ok(contents) => contents,
            // Without a footer the hash will be wrong as well; if not, the footer was written so.
            Err(footer) => {
                return Ok(match hash_pack(target, id, size_bytes, pace)? {
                    PackState::Intact => PackState::Damaged(format!("its list of blocks cannot be read: {footer}")),
                    state => state,
                });
            }
        };
        let blocks = &contents.blocks;
        let groups = windows(blocks);
        let ends = groups.iter().map(|group| blocks[group.end - 1].end());
        let (mut bad, mut seen) = (None::<String>, groups.iter());
        let mut plain = Vec::new();
        let hashed = stream(target, &layout::pack(id), ends.chain([size_bytes]), pace, &mut |start, bytes| {
            for block in seen.next().map_or(&[][..], |group| &blocks[group.clone()]) {
                let from = usize::try_from(u64::from(block.offset) - start).unwrap_or(usize::MAX);
                let frame = bytes.get(from..from.saturating_add(block.frame_len as usize)).unwrap_or_default();
                if let Err(problem) = self.try_frame(contents.kind, block, frame, &mut plain) {
                    bad.get_or_insert(format!("block {} at offset {}: {problem}", block.id, block.offset));
                }
            }
        });
        Ok(match (conclude(hashed, id)?, bad) {
            (PackState::Intact, Some(problem)) => PackState::Damaged(problem),
            (state, _) => state,
        })
    }

    /// Tries the copies that a pack should hold, in order of offset. Answers which are bad, and why; `None` when the pace said stop.
    ///
    /// # Errors
    /// When the target as a whole cannot be read.
    pub fn examine_copies(
        &self,
        pack: PackId,
        kind: BlockKind,
        blocks: &[PackedBlock],
        pace: Pace<'_>,
    ) -> Result<Option<BTreeMap<BlockId, String>>, RepoError> {
        let target = &*self.core.target;
        let key = layout::pack(pack);
        let mut bad = BTreeMap::new();
        let (mut frame, mut plain) = (Vec::new(), Vec::new());
        for block in blocks {
            if pace(u64::from(block.frame_len)).is_break() {
                return Ok(None);
            }
            frame.resize(block.frame_len as usize, 0);
            let read = target.read_at(&key, u64::from(block.offset), &mut frame).map_err(|error| early(target, error));
            let tried = match read {
                Ok(()) => self.try_frame(kind, block, &frame, &mut plain),
                Err(Early::Target(error)) => return Err(error.into()),
                Err(Early::State(PackState::Missing)) => Err("the pack is missing".to_owned()),
                Err(Early::State(PackState::Damaged(problem))) => Err(problem),
                // Whether it is damaged is not known.
                Err(Early::State(_)) => Ok(()),
            };
            if let Err(problem) = tried {
                bad.insert(block.id, problem);
            }
        }
        Ok(Some(bad))
    }

    fn try_frame(&self, kind: BlockKind, block: &PackedBlock, frame: &[u8], plain: &mut Vec<u8>) -> Result<(), String> {
        let sealer = &self.core.sealer;
        sealer.open_block_into(kind, &block.id, frame, plain).map_err(|error| error.to_string())?;
        if plain.len() != block.plain_len as usize {
            return Err(format!("it has {} bytes where {} should be", plain.len(), block.plain_len));
        }
        if sealer.block_id(kind, plain) != block.id {
            return Err("it was damaged before it was stored: its content is not what it is named after".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_hold_whole_blocks_and_miss_none() {
        let block = |offset, frame_len| PackedBlock { id: BlockId::HOLE, offset, frame_len, plain_len: 1 };
        let mib = 1 << 20;
        let blocks = [block(32, mib), block(32 + mib, mib), block(32 + 2 * mib, 3 * mib), block(9 * mib, 5 * mib)];
        assert_eq!(windows(&blocks), [0..2, 2..3, 3..4]);
        assert!(windows(&[]).is_empty());
    }
}
