//! Records: what stands on the target for everything acknowledged. Versions, drafts and pins share one shape and one
//! protocol (publish, check, confirm; see docs/architecture.md).

use crate::words::attribute::Attributes;
use crate::words::geometry::{BlockSize, MapDepth};
use crate::words::ids::{BlockId, DraftId, HostId, PackId, Uid};
use crate::words::stamp::Stamp;

/// What a record stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RecordKind {
    /// A finished backup.
    Version,
    /// What has been acknowledged of an unfinished one.
    Draft,
    /// Keeps the base of an overlay readable.
    Pin,
}

/// A disk image in the repository: its size and the root of its block map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageRef {
    /// Bytes per block.
    pub block_size: BlockSize,
    /// Bytes of the image. Bytes of the last block past it are zero.
    pub size_bytes: u64,
    /// Root of the map, at level `depth().root_level()`; [`BlockId::HOLE`] when everything is zero.
    pub root: BlockId,
    /// How many of its blocks are not holes: what `stat` reports, without reading the map.
    pub allocated_blocks: u64,
}

impl ImageRef {
    /// The empty image.
    pub const fn empty(block_size: BlockSize) -> Self {
        Self { block_size, size_bytes: 0, root: BlockId::HOLE, allocated_blocks: 0 }
    }

    /// Levels of its map.
    pub fn depth(&self) -> MapDepth {
        MapDepth::for_blocks(self.block_count())
    }

    /// Blocks, the last perhaps partial.
    pub const fn block_count(&self) -> u64 {
        self.block_size.count(self.size_bytes)
    }
}

/// Where and why a writer stopped half way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// The end of the last write of the writer that died: the draft is whole again only when a write or a truncation has
    /// gone over this offset.
    pub at: u64,
    /// For people: who died how.
    pub reason: String,
}

/// What making a version cost. Bytes of image data unless said otherwise.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Stats {
    /// Bytes received from the writer or read from the source.
    pub written_bytes: u64,
    /// Of these, bytes in blocks equal to the base's at the same place.
    pub unchanged_bytes: u64,
    /// Bytes in blocks that the repository already held.
    pub deduplicated_bytes: u64,
    /// Bytes in blocks that were all zero.
    pub zero_bytes: u64,
    /// Bytes in blocks stored anew.
    pub new_bytes: u64,
    /// Bytes those took on the target, sealed.
    pub stored_bytes: u64,
    /// From the first write to publication.
    pub duration_ms: u64,
}

/// One record. Immutable once on the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its identity.
    pub uid: Uid,
    /// What it stands for.
    pub kind: RecordKind,
    /// Moment of publication.
    pub created: Stamp,
    /// The host that wrote it.
    pub host: HostId,
    /// The image.
    pub image: ImageRef,
    /// Version: the one it was made from, or nil. Draft: likewise. Pin: the version pinned.
    pub base: Uid,
    /// Version: the one it replaces (going on after close), or nil. Draft: the draft record before it, or nil.
    pub supersedes: Uid,
    /// Version and draft: the draft this belongs to. Pin: nil.
    pub draft: DraftId,
    /// Draft: the image as it was when the draft began, to tell whether anything changed. Otherwise equal to `image`.
    pub start: ImageRef,
    /// Draft: why it is not whole.
    pub broken: Option<Broken>,
    /// Attributes at publication; entries change them later.
    pub attributes: Attributes,
    /// What it cost.
    pub stats: Stats,
}

/// Why a version is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Why {
    /// Somebody deleted it: `rm`, `rmdir`.
    Asked,
    /// It had expired, or keep rules had no use for it.
    Pruned,
    /// Its writer went on after closing it; the version that replaces it stands for it.
    Superseded,
}

/// What is left of a version that was removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removed {
    /// Why it went.
    pub why: Why,
    /// When.
    pub at: Stamp,
    /// The host that removed it.
    pub by: HostId,
    /// The record, with the attributes as they were in the end.
    pub record: Record,
}

/// Whether a record is known to be confirmed (GC rule 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Neither object exists (yet).
    Pending,
    /// `ok` exists.
    Confirmed,
    /// `withdrawing` exists and `ok` does not.
    Withdrawing,
}

/// What kind of blocks a pack holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BlockKind {
    /// Blocks of images.
    Data,
    /// Nodes of block maps.
    Map,
}

/// Where one stored copy of a block is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Location {
    /// The pack.
    pub pack: PackId,
    /// Offset of the block's frame from the start of the pack.
    pub offset: u32,
    /// Bytes of the frame: header and sealed bytes.
    pub frame_len: u32,
    /// Bytes of the plaintext.
    pub plain_len: u32,
}

/// What a pack holds, as its footer and the index say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackContents {
    /// The pack.
    pub pack: PackId,
    /// Data or map.
    pub kind: BlockKind,
    /// Bytes of the whole pack.
    pub size_bytes: u64,
    /// Its blocks in order of offset.
    pub blocks: Vec<PackedBlock>,
}

impl PackContents {
    /// Whether a block can lie in the pack beside those that are known: it is one of them, or where none of them is.
    pub fn has_room_for(&self, block: &PackedBlock) -> bool {
        let next = self.blocks.partition_point(|known| known.offset < block.offset);
        if self.blocks.get(next).is_some_and(|known| known == block) {
            return true;
        }
        let before = next.checked_sub(1).is_none_or(|last| self.blocks[last].end() <= u64::from(block.offset));
        let behind = self.blocks.get(next).map_or(self.size_bytes, |known| u64::from(known.offset));
        before && block.end() <= behind
    }

    /// Takes over what another description of the pack says beyond this one. When both cannot be true of one pack, which happens when a
    /// pack was put in another's place, nothing is taken over and the answer is false.
    pub fn join(&mut self, other: &Self) -> bool {
        let is_same = (self.pack, self.kind, self.size_bytes) == (other.pack, other.kind, other.size_bytes);
        if !is_same || !other.blocks.iter().all(|block| self.has_room_for(block)) {
            return false;
        }
        self.blocks.extend(other.blocks.iter().copied());
        // Nearly in order already.
        self.blocks.sort_by_key(|block| block.offset);
        self.blocks.dedup();
        true
    }
}

/// A block in a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackedBlock {
    /// Which block.
    pub id: BlockId,
    /// Offset of its frame.
    pub offset: u32,
    /// Bytes of its frame.
    pub frame_len: u32,
    /// Bytes of its plaintext.
    pub plain_len: u32,
}

impl PackedBlock {
    /// The offset behind its frame.
    pub fn end(&self) -> u64 {
        u64::from(self.offset) + u64::from(self.frame_len)
    }
}
