//! Small values of the vocabulary, made from numbers.

use backyfs::words::attribute::{AttributeChange, AttributeEntry, Attributes, FileAttributes, Mtime, Validity};
use backyfs::words::geometry::BlockSize;
use backyfs::words::ids::{BlockId, DraftId, EntryId, HostId, PackId, Uid};
use backyfs::words::name::Name;
use backyfs::words::record::{BlockKind, ImageRef, PackContents, PackedBlock, Record, RecordKind, Stats};
use backyfs::words::stamp::Stamp;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;

pub const START_MS: i64 = 1_795_372_262_123;

/// 32 bytes that look like a hash.
pub fn digest(domain: &str, number: u64) -> [u8; 32] {
    Sha256::digest(format!("{domain} {number}")).into()
}

pub fn block(number: u64) -> BlockId {
    BlockId::from_bytes(digest("block", number))
}

pub fn pack_id(number: u64) -> PackId {
    PackId::from_bytes(digest("pack", number))
}

/// 16 bytes in order of `number`.
pub fn id16(number: u64) -> [u8; 16] {
    let mut bytes = [0x77; 16];
    bytes[..8].copy_from_slice(&(0x019a_0000_0000_0000 + number).to_be_bytes());
    bytes
}

pub fn uid(number: u64) -> Uid {
    Uid::from_bytes(id16(number))
}

pub fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// A pack of the given blocks.
pub fn pack(number: u64, blocks: impl IntoIterator<Item = u64>) -> PackContents {
    let blocks: Vec<_> = (0..)
        .zip(blocks)
        .map(|(at, number)| PackedBlock { id: block(number), offset: 32 + at * 900, frame_len: 900, plain_len: 4096 })
        .collect();
    let size_bytes = 32 + 900 * blocks.len() as u64;
    PackContents { pack: pack_id(number), kind: BlockKind::Data, size_bytes, blocks }
}

pub fn record(number: u64, kind: RecordKind, text: &str, created_ms: i64) -> Record {
    let image = ImageRef { block_size: BlockSize::MIN, size_bytes: 4096, root: block(number), allocated_blocks: 1 };
    let file = FileAttributes { mode: 0o600, uid: 0, gid: 0, mtime: Mtime { seconds: 1, nanos: 2 } };
    Record {
        uid: uid(number),
        kind,
        created: Stamp::from_millis(START_MS + created_ms),
        host: HostId::NIL,
        image,
        base: Uid::NIL,
        supersedes: Uid::NIL,
        draft: DraftId::from_bytes(id16(number)),
        start: image,
        broken: None,
        attributes: Attributes {
            name: name(text),
            snapshot_name: String::new(),
            tags: BTreeSet::new(),
            expire: None,
            protected: false,
            validity: Validity::Valid,
            file,
        },
        stats: Stats::default(),
    }
}

pub fn entry(version: u64, lamport: u64, number: u64, change: AttributeChange) -> AttributeEntry {
    let (version, entry) = (uid(version), EntryId::from_bytes(id16(number)));
    AttributeEntry { version, entry, lamport, host: HostId::NIL, at: Stamp::from_millis(START_MS), change }
}
