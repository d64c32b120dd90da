//! The repository header: readable without a key, trusted only once the key has vouched for it.

use crate::format::FormatError;
use crate::format::bytes::{Reader, Writer};
use crate::format::pack::PACK_MAX_BYTES;
use crate::words::geometry::BlockSize;
use crate::words::ids::RepoId;
use crate::words::stamp::Stamp;

const WHAT: &str = "backyfs repository";

/// First bytes of the header.
pub const MAGIC: [u8; 8] = *b"backyfs\0";
/// The repository format this program writes, and the newest it reads. In the one before nothing had a second copy.
pub const FORMAT_VERSION: u32 = 2;
const NAME_LEN: usize = 24;
/// How block ids are made.
pub const ID_ALGORITHM: &str = "hmac-sha256";
/// How everything is sealed.
pub const CIPHER: &str = "xchacha20poly1305";
/// How plaintext is compressed.
pub const COMPRESSION: &str = "zstd";
/// How keys are derived.
pub const KDF: &str = "hkdf-sha256";
/// Bytes of the MAC at the end.
pub const MAC_LEN: usize = 32;
const AT_CRC: usize = MAGIC.len() + 4 + 4 + 16 + 8 + 4 + 4 + 8 + 8 + 4 * NAME_LEN;
const AT_MAC: usize = AT_CRC + 4;
/// Bytes of the header.
pub const HEADER_LEN: usize = AT_MAC + MAC_LEN;
const _: () = assert!(AT_CRC == 160 && HEADER_LEN == 196);

/// The smallest size a pack may be asked to have.
pub const PACK_SIZE_MIN: u64 = 64 << 10;

/// What is fixed for a repository when it is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepositoryHeader {
    /// The format it is written in.
    pub format_version: u32,
    /// Its identity.
    pub repo: RepoId,
    /// When it was made.
    pub created: Stamp,
    /// Bytes per block.
    pub block_size: BlockSize,
    /// zstd level for new blocks.
    pub zstd_level: i32,
    /// Packs are closed when they reach this many bytes.
    pub pack_size_bytes: u64,
}

/// A header whose MAC was not checked yet. It can be printed, nothing else: give it to [`UncheckedHeader::check`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UncheckedHeader {
    header: RepositoryHeader,
    authenticated: Vec<u8>,
    mac: [u8; MAC_LEN],
}

impl RepositoryHeader {
    /// Whether header, key slots and key rings have a second copy. Where a program that knows nothing of these may be at work, one
    /// of a slot would outlive the slot.
    pub const fn has_spares(&self) -> bool {
        self.format_version >= 2
    }

    /// Encodes it; `mac` computes HMAC-SHA-256 under the repository's header key.
    pub fn encode(&self, mac: impl FnOnce(&[u8]) -> [u8; MAC_LEN]) -> Vec<u8> {
        let mut writer = Writer::with_capacity(HEADER_LEN);
        writer.raw(&MAGIC).u32(self.format_version).u32(HEADER_LEN as u32).raw(self.repo.as_bytes());
        writer.i64(self.created.millis()).u32(self.block_size.bytes() as u32).i32(self.zstd_level);
        writer.u64(self.pack_size_bytes).zeros(8);
        for name in [ID_ALGORITHM, CIPHER, COMPRESSION, KDF] {
            writer.raw(name.as_bytes()).zeros(NAME_LEN - name.len());
        }
        let crc = crc32c::crc32c(writer.written());
        writer.u32(crc);
        let mac = mac(writer.written());
        writer.raw(&mac).finish()
    }
}

impl UncheckedHeader {
    /// Decodes a header.
    ///
    /// # Errors
    /// When it is none, of a newer format, damaged, or asks for what this program does not have.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(WHAT, bytes);
        if reader.array()? != MAGIC {
            return Err(FormatError::Magic { what: WHAT });
        }
        // A newer format may have another length and another checksum, so the version is believed before they are checked.
        let version = reader.u32()?;
        if version > FORMAT_VERSION {
            return Err(FormatError::Newer { what: WHAT, version, supported: FORMAT_VERSION });
        }
        let all = Reader::new(WHAT, bytes).take(HEADER_LEN)?;
        if crc32c::crc32c(&all[..AT_CRC]).to_le_bytes() != all[AT_CRC..AT_MAC] {
            return Err(FormatError::Checksum { what: WHAT });
        }
        if version == 0 {
            return Err(reader.field("format version", 0, "formats are numbered from 1"));
        }
        let header = Self::read(version, &mut reader)?;
        reader.take(4)?;
        let mac = reader.array()?;
        reader.end()?;
        Ok(Self { header, authenticated: all[..AT_MAC].to_vec(), mac })
    }

    fn read(format_version: u32, reader: &mut Reader<'_>) -> Result<RepositoryHeader, FormatError> {
        let len = reader.u32()?;
        if len as usize != HEADER_LEN {
            return Err(reader.field("header length", len, "this format has another"));
        }
        let repo = RepoId::from_bytes(reader.array()?);
        let created = Stamp::from_millis(reader.i64()?);
        let bytes = reader.u32()?;
        let block_size = BlockSize::new(bytes.into())
            .map_err(|_| reader.field("block size", bytes, "it must be a power of two from 4096 to 4194304"))?;
        let zstd_level = reader.i32()?;
        let pack_size_bytes = reader.u64()?;
        if !(PACK_SIZE_MIN..=PACK_MAX_BYTES / 2).contains(&pack_size_bytes) {
            return Err(reader.field("pack size", pack_size_bytes, "it must be from 64 KiB to 512 MiB"));
        }
        reader.zeros(8)?;
        for (field, expected) in
            [("id algorithm", ID_ALGORITHM), ("cipher", CIPHER), ("compression", COMPRESSION), ("key derivation", KDF)]
        {
            let name = reader.array::<NAME_LEN>()?;
            if name[..expected.len()] != *expected.as_bytes() || name[expected.len()..].iter().any(|&b| b != 0) {
                let name = String::from_utf8_lossy(&name).trim_end_matches('\0').to_owned();
                return Err(reader.field(field, name, "this program does not have it"));
            }
        }
        Ok(RepositoryHeader { format_version, repo, created, block_size, zstd_level, pack_size_bytes })
    }

    /// Which repository it says it is: needed to derive the key that checks it.
    pub fn claimed_repo(&self) -> RepoId {
        self.header.repo
    }

    /// Gives the header up when `verify`, given the authenticated bytes and the MAC, says that they belong together.
    pub fn check(self, verify: impl FnOnce(&[u8], &[u8; MAC_LEN]) -> bool) -> Option<RepositoryHeader> {
        verify(&self.authenticated, &self.mac).then_some(self.header)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::samples;

    #[test]
    fn headers_come_back_when_vouched_for() {
        let header = samples::header();
        let bytes = header.encode(|_| [5; MAC_LEN]);
        let unchecked = UncheckedHeader::decode(&bytes).unwrap();
        assert_eq!(unchecked.claimed_repo(), header.repo);
        assert_eq!(unchecked.clone().check(|_, mac| *mac == [6; MAC_LEN]), None);
        let back = unchecked.check(|authenticated, mac| authenticated == &bytes[..AT_MAC] && *mac == [5; MAC_LEN]);
        assert_eq!(back, Some(header));
    }

    #[test]
    fn a_newer_format_says_so() {
        let mut bytes = samples::header().encode(|_| [0; MAC_LEN]);
        bytes[8] = 3;
        let error = UncheckedHeader::decode(&bytes).unwrap_err();
        assert_eq!(error, FormatError::Newer { what: WHAT, version: 3, supported: 2 });
        assert!(error.to_string().contains("made by a newer backyfs"), "{error}");
    }

    #[test]
    fn something_else_is_told_from_a_damaged_header() {
        assert!(matches!(UncheckedHeader::decode(b"GIF89a and more"), Err(FormatError::Magic { .. })));
        let mut bytes = samples::header().encode(|_| [0; MAC_LEN]);
        bytes[40] ^= 1;
        assert!(matches!(UncheckedHeader::decode(&bytes), Err(FormatError::Checksum { .. })));
    }
}
