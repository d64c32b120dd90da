//! Key slots: each holds the repository's root key, wrapped under one secret.

use crate::format::FormatError;
use crate::format::bytes::{Reader, Writer};
use crate::words::ids::{RepoId, SlotId};
use crate::words::stamp::Stamp;

const WHAT: &str = "key slot";

/// First bytes of every slot; the last is the layout's number.
pub const MAGIC: [u8; 8] = *b"bkySLOT1";
/// Bytes of the salt.
pub const SALT_LEN: usize = 32;
/// Bytes of the wrapped root key: the key and a tag.
pub const WRAPPED_LEN: usize = 32 + 16;
const AT_NONCE: usize = MAGIC.len() + 16 + 16 + 4 + 12 + 8 + SALT_LEN;
const AT_CRC: usize = AT_NONCE + 24 + WRAPPED_LEN;
/// Bytes of a slot.
pub const SLOT_LEN: usize = AT_CRC + 4;
const _: () = assert!(AT_NONCE == 96 && SLOT_LEN == 172);

/// Cost of Argon2id (RFC 9106). The limits keep a tampered slot from exhausting memory before it is found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Argon2Costs {
    /// Memory, in KiB: 8 x lanes to 1 GiB.
    pub memory_kib: u32,
    /// Passes: 1 to 64.
    pub passes: u32,
    /// Lanes: 1 to 16.
    pub lanes: u32,
}

impl Argon2Costs {
    /// 64 MiB, three passes, one lane: the second recommendation of RFC 9106 with one lane, because lanes run one after
    /// the other here.
    pub const DEFAULT: Self = Self { memory_kib: 64 << 10, passes: 3, lanes: 1 };
    /// The cheapest there is, for tests.
    pub const CHEAPEST: Self = Self { memory_kib: 8, passes: 1, lanes: 1 };

    /// Whether they are within the limits.
    pub const fn are_valid(&self) -> bool {
        let lanes = self.lanes >= 1 && self.lanes <= 16;
        lanes
            && self.passes >= 1
            && self.passes <= 64
            && self.memory_kib >= 8 * self.lanes
            && self.memory_kib <= 1 << 20
    }
}

impl Default for Argon2Costs {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// What secret opens a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotKind {
    /// A passphrase, stretched with Argon2id.
    Passphrase(Argon2Costs),
    /// The bytes of a key file.
    KeyFile,
    /// The recovery key shown by `init`.
    Recovery,
}

impl SlotKind {
    const fn number(self) -> u8 {
        match self {
            Self::Passphrase(_) => 1,
            Self::KeyFile => 2,
            Self::Recovery => 3,
        }
    }
}

/// A key slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// The repository it belongs to.
    pub repo: RepoId,
    /// Its identity.
    pub id: SlotId,
    /// What opens it.
    pub kind: SlotKind,
    /// When it was made, for people.
    pub created: Stamp,
    /// Salt of the key derivation.
    pub salt: [u8; SALT_LEN],
    /// Nonce of the wrapping.
    pub nonce: [u8; 24],
    /// The wrapped root key and its tag.
    pub wrapped: [u8; WRAPPED_LEN],
}

impl Slot {
    /// Encodes it.
    pub fn encode(&self) -> [u8; SLOT_LEN] {
        let mut writer = Writer::with_capacity(SLOT_LEN);
        writer.raw(&MAGIC).raw(self.repo.as_bytes()).raw(self.id.as_bytes()).u8(self.kind.number()).zeros(3);
        match self.kind {
            SlotKind::Passphrase(costs) => writer.u32(costs.memory_kib).u32(costs.passes).u32(costs.lanes),
            SlotKind::KeyFile | SlotKind::Recovery => writer.zeros(12),
        };
        writer.i64(self.created.millis()).raw(&self.salt).raw(&self.nonce).raw(&self.wrapped);
        let crc = crc32c::crc32c(writer.written());
        writer.u32(crc).finish().try_into().expect("the fields add up to SLOT_LEN")
    }

    /// The associated data of the wrapping: everything before the nonce.
    pub fn aad(&self) -> [u8; AT_NONCE] {
        *self.encode().first_chunk().expect("a slot is longer")
    }

    /// Decodes one.
    ///
    /// # Errors
    /// When it is no slot, of a newer layout, damaged, or asks for costs over the limits.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(WHAT, bytes);
        let [magic @ .., version] = reader.array::<8>()?;
        if magic != MAGIC[..7] {
            return Err(FormatError::Magic { what: WHAT });
        }
        match version {
            b'1' => {}
            b'2'..=b'9' => {
                return Err(FormatError::Newer { what: WHAT, version: (version - b'0').into(), supported: 1 });
            }
            _ => return Err(FormatError::Magic { what: WHAT }),
        }
        let slot = Reader::new(WHAT, bytes).take(SLOT_LEN)?;
        if crc32c::crc32c(&slot[..AT_CRC]).to_le_bytes() != slot[AT_CRC..] {
            return Err(FormatError::Checksum { what: WHAT });
        }
        let (repo, id) = (RepoId::from_bytes(reader.array()?), SlotId::from_bytes(reader.array()?));
        let kind = read_kind(&mut reader)?;
        let slot = Self {
            repo,
            id,
            kind,
            created: Stamp::from_millis(reader.i64()?),
            salt: reader.array()?,
            nonce: reader.array()?,
            wrapped: reader.array()?,
        };
        reader.take(4)?;
        reader.end()?;
        Ok(slot)
    }
}

fn read_kind(reader: &mut Reader<'_>) -> Result<SlotKind, FormatError> {
    let number = reader.u8()?;
    reader.zeros(3)?;
    match number {
        1 => {
            let costs = Argon2Costs { memory_kib: reader.u32()?, passes: reader.u32()?, lanes: reader.u32()? };
            match costs.are_valid() {
                true => Ok(SlotKind::Passphrase(costs)),
                false => Err(reader.field("cost of the passphrase", format!("{costs:?}"), "it is beyond the limits")),
            }
        }
        2 => reader.zeros(12).map(|()| SlotKind::KeyFile),
        3 => reader.zeros(12).map(|()| SlotKind::Recovery),
        other => Err(reader.field("kind", other, "there is none such")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::samples;

    #[test]
    fn slots_come_back() {
        for kind in [SlotKind::KeyFile, SlotKind::Recovery, SlotKind::Passphrase(Argon2Costs::DEFAULT)] {
            let slot = Slot { kind, ..samples::slot() };
            assert_eq!(Slot::decode(&slot.encode()), Ok(slot));
        }
    }

    #[test]
    fn costs_are_limited() {
        for costs in [
            Argon2Costs { memory_kib: u32::MAX, ..Argon2Costs::DEFAULT },
            Argon2Costs { passes: 0, ..Argon2Costs::DEFAULT },
            Argon2Costs { lanes: u32::MAX, ..Argon2Costs::DEFAULT },
        ] {
            let slot = Slot { kind: SlotKind::Passphrase(costs), ..samples::slot() };
            assert!(matches!(Slot::decode(&slot.encode()), Err(FormatError::Field { .. })), "{costs:?}");
        }
    }

    #[test]
    fn a_newer_slot_says_so() {
        let mut bytes = samples::slot().encode();
        bytes[7] = b'2';
        assert!(Slot::decode(&bytes).unwrap_err().to_string().contains("newer backyfs"));
    }
}
