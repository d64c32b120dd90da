//! The sealed frame: the one envelope of everything but the repository header and the key slots.

use crate::format::FormatError;
use crate::format::bytes::{Reader, Writer};
use crate::words::ids::{BlockId, KeyVersion, RepoId, Uid};
use crate::words::record::{BlockKind, RecordKind};

const WHAT: &str = "sealed frame";

/// First bytes of every frame.
pub const MAGIC: [u8; 4] = *b"bkyF";
/// The frame layout this program writes, and the newest it reads.
pub const VERSION: u8 = 1;

const AT_ID: usize = MAGIC.len() + 4 + 4 + 4 + 4;
const AT_NONCE: usize = AT_ID + 32;
const AT_CRC: usize = AT_NONCE + NONCE_LEN;
/// Bytes of a frame header.
pub const HEADER_LEN: usize = AT_CRC + 4;
/// Bytes of the nonce.
pub const NONCE_LEN: usize = 24;
/// Bytes of the authentication tag at the end of the sealed bytes.
pub const TAG_LEN: usize = 16;
/// Bytes of the associated data: the repository id and the header before the nonce.
pub const AAD_LEN: usize = RepoId::LEN + AT_NONCE;
/// The largest plaintext of a frame.
pub const PLAIN_MAX_BYTES: u32 = 1 << 30;
/// What a frame adds to its payload.
pub const OVERHEAD: usize = HEADER_LEN + TAG_LEN;

const _: () = assert!(HEADER_LEN == 80 && AT_NONCE == 52 && AT_CRC == 76);

/// What a frame holds. Part of what is authenticated, so no object can stand in for one of another kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "the names say it")]
#[repr(u8)]
pub enum FrameKind {
    Data = 1,
    Map = 2,
    Version = 3,
    Draft = 4,
    Pin = 5,
    Attribute = 6,
    Fragment = 7,
    Condemned = 8,
    PackFooter = 9,
    Ok = 10,
    Withdrawing = 11,
    Tombstone = 12,
    KeyRing = 13,
    Damage = 14,
}

impl FrameKind {
    /// Every kind, in order of number.
    pub const ALL: [Self; 14] = [
        Self::Data,
        Self::Map,
        Self::Version,
        Self::Draft,
        Self::Pin,
        Self::Attribute,
        Self::Fragment,
        Self::Condemned,
        Self::PackFooter,
        Self::Ok,
        Self::Withdrawing,
        Self::Tombstone,
        Self::KeyRing,
        Self::Damage,
    ];

    /// Its number on disk.
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The kind with a number.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number).checked_sub(1)?).copied()
    }

    /// The kind of block, if it is one.
    pub const fn block_kind(self) -> Option<BlockKind> {
        match self {
            Self::Data => Some(BlockKind::Data),
            Self::Map => Some(BlockKind::Map),
            _ => None,
        }
    }
}

impl std::fmt::Display for FrameKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Data => "data block",
            Self::Map => "map node",
            Self::Version => "version record",
            Self::Draft => "draft record",
            Self::Pin => "pin",
            Self::Attribute => "attribute entry",
            Self::Fragment => "index fragment",
            Self::Condemned => "condemned batch",
            Self::PackFooter => "pack footer",
            Self::Ok => "ok verdict",
            Self::Withdrawing => "withdrawing verdict",
            Self::Tombstone => "tombstone",
            Self::KeyRing => "key ring",
            Self::Damage => "damage report",
        })
    }
}

impl From<BlockKind> for FrameKind {
    fn from(kind: BlockKind) -> Self {
        match kind {
            BlockKind::Data => Self::Data,
            BlockKind::Map => Self::Map,
        }
    }
}

impl From<RecordKind> for FrameKind {
    fn from(kind: RecordKind) -> Self {
        match kind {
            RecordKind::Version => Self::Version,
            RecordKind::Draft => Self::Draft,
            RecordKind::Pin => Self::Pin,
        }
    }
}

/// How the plaintext was compressed before it was encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Compression {
    /// Not at all.
    Raw = 0,
    /// One zstd frame (RFC 8878).
    Zstd = 1,
}

/// The id field of objects that have a 16-byte identity: that, then 16 zeros.
pub fn object_id(id: &[u8; 16]) -> [u8; 32] {
    join_ids(id, &[0; 16])
}

/// The id field of a record or of one of its verdicts.
pub fn uid_id(uid: Uid) -> [u8; 32] {
    object_id(uid.as_bytes())
}

/// The id field of an attribute entry: its version's uid, then its own id.
pub fn join_ids(first: &[u8; 16], second: &[u8; 16]) -> [u8; 32] {
    let mut id = [0; 32];
    id[..16].copy_from_slice(first);
    id[16..].copy_from_slice(second);
    id
}

/// The id field of pack footers and of key rings, which have none.
pub const NO_ID: [u8; 32] = [0; 32];

/// What stands in front of sealed bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// What is inside.
    pub kind: FrameKind,
    /// How it was compressed.
    pub compression: Compression,
    /// Under which key version it was sealed.
    pub key_version: KeyVersion,
    /// Bytes of the plaintext.
    pub plain_len: u32,
    /// Bytes after the header: ciphertext and tag.
    pub sealed_len: u32,
    /// Which object it is.
    pub id: [u8; 32],
    /// Nonce of the cipher.
    pub nonce: [u8; NONCE_LEN],
}

impl FrameHeader {
    /// Bytes of the whole frame.
    pub fn frame_len(&self) -> u64 {
        HEADER_LEN as u64 + u64::from(self.sealed_len)
    }

    /// The block this is a frame of, when it is a block's.
    pub fn block(&self) -> Option<(BlockKind, BlockId)> {
        self.kind.block_kind().map(|kind| (kind, BlockId::from_bytes(self.id)))
    }

    /// Encodes it.
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut writer = Writer::with_capacity(HEADER_LEN);
        writer.raw(&MAGIC).u8(VERSION).u8(self.kind.number()).u8(self.compression as u8).u8(0);
        writer.u32(self.key_version.0).u32(self.plain_len).u32(self.sealed_len).raw(&self.id).raw(&self.nonce);
        let crc = crc32c::crc32c(writer.written());
        writer.u32(crc).finish().try_into().expect("the fields add up to HEADER_LEN")
    }

    /// Decodes the header at the start of `bytes`; what follows it is not looked at.
    ///
    /// # Errors
    /// When it is cut off, no header, of a newer layout, damaged, or says impossible things.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(WHAT, bytes);
        if reader.array()? != MAGIC {
            return Err(FormatError::Magic { what: WHAT });
        }
        // The checksum stands at the same place in every layout, so that damage is not taken for a newer one.
        let header = Reader::new(WHAT, bytes).take(HEADER_LEN)?;
        if crc32c::crc32c(&header[..AT_CRC]).to_le_bytes() != header[AT_CRC..] {
            return Err(FormatError::Checksum { what: WHAT });
        }
        reader.layout(VERSION)?;
        let kind = reader.u8()?;
        let kind = FrameKind::from_number(kind).ok_or_else(|| reader.field("kind", kind, "there is none such"))?;
        let compression = match reader.u8()? {
            0 => Compression::Raw,
            1 => Compression::Zstd,
            other => return Err(reader.field("compression", other, "there is none such")),
        };
        reader.zeros(1)?;
        let key_version = KeyVersion(reader.u32()?);
        let (plain_len, sealed_len) = (reader.u32()?, reader.u32()?);
        let header =
            Self { kind, compression, key_version, plain_len, sealed_len, id: reader.array()?, nonce: reader.array()? };
        header.check(&reader)?;
        Ok(header)
    }

    fn check(&self, reader: &Reader<'_>) -> Result<(), FormatError> {
        if self.key_version.0 == 0 {
            return Err(reader.field("key version", 0, "key versions are numbered from 1"));
        }
        if self.plain_len > PLAIN_MAX_BYTES {
            return Err(reader.field("plain length", self.plain_len, "it is over the limit"));
        }
        // What does not shrink is stored raw, so sealed bytes are never longer than the plaintext and the tag.
        let payload = self.sealed_len.checked_sub(TAG_LEN as u32);
        let fits = payload.is_some_and(|payload| match self.compression {
            Compression::Raw => payload == self.plain_len,
            Compression::Zstd => payload < self.plain_len,
        });
        if !fits {
            return Err(reader.field("sealed length", self.sealed_len, "it does not go with the plain length"));
        }
        Ok(())
    }

    /// The associated data: which repository, and everything of the header but the nonce (which the cipher takes in anyway)
    /// and the checksum. It binds the sealed bytes to their place.
    pub fn aad(&self, repo: &RepoId) -> [u8; AAD_LEN] {
        let mut aad = [0; AAD_LEN];
        aad[..RepoId::LEN].copy_from_slice(repo.as_bytes());
        aad[RepoId::LEN..].copy_from_slice(&self.encode()[..AT_NONCE]);
        aad
    }
}

/// Splits one whole frame into its header and its sealed bytes.
///
/// # Errors
/// As [`FrameHeader::decode`], and when the bytes are not exactly one frame.
pub fn split(bytes: &[u8]) -> Result<(FrameHeader, &[u8]), FormatError> {
    let header = FrameHeader::decode(bytes)?;
    let (needed_bytes, found_bytes) = (header.frame_len(), bytes.len() as u64);
    if found_bytes < needed_bytes {
        return Err(FormatError::Truncated { what: WHAT, needed_bytes, found_bytes });
    }
    if found_bytes > needed_bytes {
        return Err(FormatError::Trailing { what: WHAT, extra_bytes: found_bytes - needed_bytes });
    }
    Ok((header, &bytes[HEADER_LEN..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> FrameHeader {
        FrameHeader {
            kind: FrameKind::Attribute,
            compression: Compression::Zstd,
            key_version: KeyVersion(7),
            plain_len: 1000,
            sealed_len: 300,
            id: [3; 32],
            nonce: [4; NONCE_LEN],
        }
    }

    #[test]
    fn headers_come_back() {
        for kind in FrameKind::ALL {
            let header = FrameHeader { kind, ..header() };
            assert_eq!(FrameHeader::decode(&header.encode()), Ok(header));
        }
    }

    #[test]
    fn every_flipped_bit_of_a_header_is_noticed() {
        let mut bytes = header().encode();
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(FrameHeader::decode(&bytes).is_err(), "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn a_newer_layout_says_so() {
        let mut bytes = header().encode();
        bytes[4] = VERSION + 1;
        let crc = crc32c::crc32c(&bytes[..AT_CRC]).to_le_bytes();
        bytes[AT_CRC..].copy_from_slice(&crc);
        let error = FrameHeader::decode(&bytes).unwrap_err();
        assert!(error.to_string().contains("made by a newer backyfs"), "{error}");
    }

    #[test]
    fn lengths_must_go_together() {
        for (compression, plain_len, sealed_len) in [
            (Compression::Raw, 10, 25),
            (Compression::Raw, 10, 27),
            (Compression::Raw, 10, 15),
            (Compression::Zstd, 10, 26),
            (Compression::Zstd, PLAIN_MAX_BYTES + 1, 26),
        ] {
            let header = FrameHeader { compression, plain_len, sealed_len, ..header() };
            assert!(FrameHeader::decode(&header.encode()).is_err(), "{header:?}");
        }
    }
}
