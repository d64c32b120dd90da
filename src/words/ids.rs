//! Every identifier of backyfs, each a type of its own so that one can never be passed for another.

use std::fmt;
use std::str::FromStr;

/// Why a text is not an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a {what}: {problem}")]
pub struct ParseIdError {
    /// The kind of identifier that was expected.
    pub what: &'static str,
    /// The text as given.
    pub text: String,
    /// What is wrong with it.
    pub problem: &'static str,
}

/// 32-byte identifiers: printed as 64 lower-case hexadecimal digits.
macro_rules! digest_id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 32]);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = 32;
            /// Wraps raw bytes.
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }
            /// The raw bytes.
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;
            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                let error = |problem| ParseIdError { what: $what, text: text.to_owned(), problem };
                if text.len() != 64 || !text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
                    return Err(error("expected 64 lower-case hexadecimal digits"));
                }
                let mut bytes = [0; 32];
                for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
                    let digit = |c: u8| if c <= b'9' { c - b'0' } else { c - b'a' + 10 };
                    *byte = digit(pair[0]) << 4 | digit(pair[1]);
                }
                Ok(Self(bytes))
            }
        }
    };
}

/// UUID identifiers (RFC 9562): printed hyphenated and in lower case.
macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(uuid::Uuid);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = 16;
            /// The nil identifier, which stands for "none" on disk.
            pub const NIL: Self = Self(uuid::Uuid::nil());
            /// Wraps raw bytes.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(uuid::Uuid::from_bytes(bytes))
            }
            /// Wraps a UUID.
            pub const fn from_uuid(uuid: uuid::Uuid) -> Self {
                Self(uuid)
            }
            /// The raw bytes.
            pub const fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }
            /// Whether this is [`Self::NIL`].
            pub fn is_nil(&self) -> bool {
                self.0.is_nil()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;
            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                let error = |problem| ParseIdError { what: $what, text: text.to_owned(), problem };
                if text.len() != 36 {
                    return Err(error("expected a UUID of 36 characters"));
                }
                uuid::Uuid::try_parse(text).map(Self).map_err(|_| error("not a UUID"))
            }
        }
    };
}

digest_id!(
    /// Names the plaintext of a data block or a map node: HMAC-SHA-256 under the repository's id key for that kind.
    /// [`BlockId::HOLE`] names a block, or a whole subtree of the map, that is all zero.
    BlockId,
    "block id"
);
digest_id!(
    /// Names a pack: SHA-256 of all its bytes.
    PackId,
    "pack id"
);
digest_id!(
    /// SHA-256 over the sorted names of all condemned batches known at some moment: equal fingerprints mean the
    /// same condemned list.
    CondemnedFingerprint,
    "condemned list fingerprint"
);

uuid_id!(
    /// One repository.
    RepoId,
    "repository id"
);
uuid_id!(
    /// One record on the target: a version, a draft record or a pin. UUIDv7, so order is by time of creation.
    /// For a version this is the uid that users see.
    Uid,
    "version uid"
);
uuid_id!(
    /// One draft, through all the records it publishes while it grows.
    DraftId,
    "draft id"
);
uuid_id!(
    /// One attribute entry.
    EntryId,
    "attribute entry id"
);
uuid_id!(
    /// One index fragment.
    FragmentId,
    "index fragment id"
);
uuid_id!(
    /// One batch of condemned packs.
    BatchId,
    "condemned batch id"
);
uuid_id!(
    /// One report of damage.
    DamageId,
    "damage report id"
);
uuid_id!(
    /// One key slot.
    SlotId,
    "key slot id"
);
uuid_id!(
    /// One state directory, that is one writing host.
    HostId,
    "host id"
);

impl Uid {
    /// When it was made, in milliseconds since 1970: the first 48 bits of a UUIDv7 (RFC 9562, section 5.7). What it names may claim
    /// another moment.
    pub fn millis(&self) -> i64 {
        self.as_bytes()[..6].iter().fold(0, |millis, byte| millis << 8 | i64::from(*byte))
    }
}

impl BlockId {
    /// The all-zero block or subtree. It is never stored.
    pub const HOLE: Self = Self::from_bytes([0; 32]);

    /// Whether this is [`BlockId::HOLE`].
    pub fn is_hole(&self) -> bool {
        *self == Self::HOLE
    }
}

/// Number of a data key version; the first is 1. Written in the header of everything sealed under it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyVersion(pub u32);

impl KeyVersion {
    /// The version a new repository starts with.
    pub const FIRST: Self = Self(1);
}

impl fmt::Display for KeyVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_print_and_parse_back() {
        let id = BlockId::from_bytes(std::array::from_fn(|i| i as u8 * 7));
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!("00".parse::<BlockId>().is_err());
        assert!("G".repeat(64).parse::<PackId>().is_err());
        assert!("é".repeat(32).parse::<PackId>().is_err());
    }

    #[test]
    fn uuids_print_and_parse_back() {
        let uid = Uid::from_uuid(uuid::Uuid::now_v7());
        assert_eq!(uid.to_string().parse(), Ok(uid));
        assert!("not-a-uuid".parse::<Uid>().is_err());
        assert!(uid.to_string().replace('-', "").parse::<Uid>().is_err());
    }
}
