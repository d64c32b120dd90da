//! Made-up objects for tests.

use crate::format::frame::{Compression, FrameHeader, FrameKind, NONCE_LEN, TAG_LEN};
use crate::format::pack;
use crate::format::repository::RepositoryHeader;
use crate::format::slot::{SALT_LEN, Slot, SlotKind, WRAPPED_LEN};
use crate::words::attribute::{AttributeChange, AttributeEntry, Attributes, FileAttributes, Mtime, Validity};
use crate::words::geometry::BlockSize;
use crate::words::ids::{BlockId, DraftId, EntryId, HostId, KeyVersion, PackId, RepoId, SlotId, Uid};
use crate::words::name::Name;
use crate::words::record::{
    BlockKind, Broken, ImageRef, PackContents, PackedBlock, Record, RecordKind, Removed, Stats, Why,
};
use crate::words::stamp::Stamp;
use proptest::prelude::*;

pub(super) fn header() -> RepositoryHeader {
    RepositoryHeader {
        format_version: crate::format::repository::FORMAT_VERSION,
        repo: RepoId::from_bytes([1; 16]),
        created: Stamp::from_millis(1_795_372_262_123),
        block_size: BlockSize::DEFAULT,
        zstd_level: 1,
        pack_size_bytes: 32 << 20,
    }
}

pub(super) fn slot() -> Slot {
    Slot {
        repo: RepoId::from_bytes([1; 16]),
        id: SlotId::from_bytes([2; 16]),
        kind: SlotKind::KeyFile,
        created: Stamp::from_millis(1),
        salt: [3; SALT_LEN],
        nonce: [4; 24],
        wrapped: [5; WRAPPED_LEN],
    }
}

/// A pack of `count` blocks (their sealed bytes are made up) with a footer frame and a trailer.
pub(super) fn pack(count: u8) -> (Vec<u8>, Vec<PackedBlock>) {
    let mut bytes = pack::header(&RepoId::from_bytes([1; 16]), BlockKind::Data).to_vec();
    let mut blocks = Vec::new();
    for number in 1..=count {
        let sealed_len = 100 + u32::from(number);
        let header = frame(FrameKind::Data, [number; 32], sealed_len);
        let (offset, frame_len) = (bytes.len() as u32, header.frame_len() as u32);
        let id = BlockId::from_bytes(header.id);
        blocks.push(PackedBlock { id, offset, frame_len, plain_len: header.plain_len });
        bytes.extend(header.encode());
        bytes.extend((0..sealed_len).map(|i| b"bkyF\0\xff"[i as usize % 6]));
    }
    let footer = frame(FrameKind::PackFooter, [0; 32], 60);
    let offset = bytes.len() as u32;
    bytes.extend(footer.encode());
    bytes.extend([7; 60]);
    bytes.extend(pack::trailer(offset, footer.frame_len() as u32));
    (bytes, blocks)
}

fn frame(kind: FrameKind, id: [u8; 32], sealed_len: u32) -> FrameHeader {
    let plain_len = sealed_len - TAG_LEN as u32;
    let (compression, key_version) = (Compression::Raw, KeyVersion::FIRST);
    FrameHeader { kind, compression, key_version, plain_len, sealed_len, id, nonce: [6; NONCE_LEN] }
}

/// What some pack might hold.
pub(super) fn contents() -> impl Strategy<Value = PackContents> {
    let block = (1..=255u8, 96..5000u32, 0..=4_194_304u32, 0..3u32);
    (any::<[u8; 32]>(), any::<bool>(), prop::collection::vec(block, 0..20)).prop_map(|(pack, data, parts)| {
        let mut end = pack::HEADER_LEN as u32;
        let mut blocks = Vec::new();
        for (id, frame_len, plain_len, gap) in parts {
            let offset = end + gap;
            blocks.push(PackedBlock { id: BlockId::from_bytes([id; 32]), offset, frame_len, plain_len });
            end = offset + frame_len;
        }
        let kind = if data { BlockKind::Data } else { BlockKind::Map };
        PackContents { pack: PackId::from_bytes(pack), kind, size_bytes: u64::from(end), blocks }
    })
}

fn stamp() -> impl Strategy<Value = Stamp> {
    any::<i64>().prop_map(Stamp::from_millis)
}

fn mtime() -> impl Strategy<Value = Mtime> {
    (any::<i64>(), 0..1_000_000_000u32).prop_map(|(seconds, nanos)| Mtime { seconds, nanos })
}

fn name() -> impl Strategy<Value = Name> {
    "[a-zé]{1,9}(/[ -.0-~]{1,9}x){0,2}".prop_map(|text| Name::new(&text).unwrap())
}

fn validity() -> impl Strategy<Value = Validity> {
    prop_oneof![
        Just(Validity::Valid),
        "\\PC{0,20}".prop_map(Validity::Invalid),
        "\\PC{0,20}".prop_map(Validity::Incomplete)
    ]
}

fn image() -> impl Strategy<Value = ImageRef> {
    (12..=22u32, any::<u64>(), any::<[u8; 32]>(), any::<u64>()).prop_map(|(exponent, size_bytes, root, allocated)| {
        let block_size = BlockSize::new(1 << exponent).unwrap();
        let allocated_blocks = allocated % (block_size.count(size_bytes) + 1);
        ImageRef { block_size, size_bytes, root: BlockId::from_bytes(root), allocated_blocks }
    })
}

fn attributes() -> impl Strategy<Value = Attributes> {
    let text = ("\\PC{0,20}", prop::collection::btree_set("\\PC{1,9}", 0..4));
    let file = (any::<[u32; 3]>(), mtime());
    (name(), text, prop::option::of(stamp()), any::<bool>(), validity(), file).prop_map(
        |(name, (snapshot_name, tags), expire, protected, validity, ([mode, uid, gid], mtime))| {
            let file = FileAttributes { mode, uid, gid, mtime };
            Attributes { name, snapshot_name, tags, expire, protected, validity, file }
        },
    )
}

/// Any record.
pub(super) fn record() -> impl Strategy<Value = Record> {
    let kind = prop_oneof![Just(RecordKind::Version), Just(RecordKind::Draft), Just(RecordKind::Pin)];
    let broken = prop::option::of((any::<u64>(), "\\PC{0,20}").prop_map(|(at, reason)| Broken { at, reason }));
    let head = (kind, stamp(), any::<[[u8; 16]; 5]>());
    (head, image(), image(), broken, attributes(), any::<[u64; 7]>()).prop_map(
        |((kind, created, [uid, host, base, supersedes, draft]), image, start, broken, attributes, s)| Record {
            uid: Uid::from_bytes(uid),
            kind,
            created,
            host: HostId::from_bytes(host),
            image,
            base: Uid::from_bytes(base),
            supersedes: Uid::from_bytes(supersedes),
            draft: DraftId::from_bytes(draft),
            start,
            broken,
            attributes,
            stats: Stats {
                written_bytes: s[0],
                unchanged_bytes: s[1],
                deduplicated_bytes: s[2],
                zero_bytes: s[3],
                new_bytes: s[4],
                stored_bytes: s[5],
                duration_ms: s[6],
            },
        },
    )
}

/// What is left of any version.
pub(super) fn removed() -> impl Strategy<Value = Removed> {
    let why = prop_oneof![Just(Why::Asked), Just(Why::Pruned), Just(Why::Superseded)];
    (why, stamp(), any::<[u8; 16]>(), record()).prop_map(|(why, at, by, record)| {
        let record = Record { kind: RecordKind::Version, ..record };
        Removed { why, at, by: HostId::from_bytes(by), record }
    })
}

fn change() -> impl Strategy<Value = AttributeChange> {
    prop_oneof![
        name().prop_map(AttributeChange::Name),
        "\\PC{0,20}".prop_map(AttributeChange::SnapshotName),
        "\\PC{1,20}".prop_map(AttributeChange::AddTag),
        "\\PC{1,20}".prop_map(AttributeChange::RemoveTag),
        prop::option::of(stamp()).prop_map(AttributeChange::Expire),
        any::<bool>().prop_map(AttributeChange::Protected),
        validity().prop_map(AttributeChange::Validity),
        any::<u32>().prop_map(AttributeChange::Mode),
        any::<(u32, u32)>().prop_map(|(uid, gid)| AttributeChange::Owner { uid, gid }),
        mtime().prop_map(AttributeChange::Mtime),
    ]
}

/// Any attribute entry.
pub(super) fn entry() -> impl Strategy<Value = AttributeEntry> {
    (any::<[[u8; 16]; 3]>(), any::<u64>(), stamp(), change()).prop_map(
        |([version, entry, host], lamport, at, change)| {
            let (version, entry) = (Uid::from_bytes(version), EntryId::from_bytes(entry));
            AttributeEntry { version, entry, lamport, host: HostId::from_bytes(host), at, change }
        },
    )
}
