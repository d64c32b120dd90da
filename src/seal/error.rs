//! What goes wrong with sealed bytes and with keys.

use crate::format::FormatError;
use crate::format::frame::FrameKind;
use crate::words::ids::{KeyVersion, RepoId, SlotId};

/// Why a frame could not be sealed or opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// It is no intact frame.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// It is an intact frame of another kind of object.
    #[error("expected a {expected}, found a {found}")]
    Kind {
        /// What was asked for.
        expected: FrameKind,
        /// What the header says.
        found: FrameKind,
    },
    /// It is an intact frame of another object.
    #[error("this {kind} is another than asked for: its header says {found}, expected {expected}")]
    Id {
        /// Kind of object.
        kind: FrameKind,
        /// What was asked for, in hexadecimal digits.
        expected: String,
        /// What the header says.
        found: String,
    },
    /// No key ring of that version could be read.
    #[error("this {kind} was sealed under key version {version}, whose key ring is missing or damaged")]
    UnknownKey {
        /// Kind of object.
        kind: FrameKind,
        /// The key version its header names.
        version: KeyVersion,
    },
    /// The authentication tag is wrong.
    #[error("this {kind} was damaged or tampered with: its authentication tag is wrong")]
    Tag {
        /// Kind of object.
        kind: FrameKind,
    },
    /// It is authentic, but does not decompress to the length its header says: a fault of whoever wrote it.
    #[error("this {kind} does not decompress to the {expected_bytes} bytes its header says: {problem}")]
    Decompress {
        /// Kind of object.
        kind: FrameKind,
        /// What the header says.
        expected_bytes: u32,
        /// What zstd says.
        problem: String,
    },
    /// There is too much to seal.
    #[error("a {kind} of {found_bytes} bytes is too long: the limit is {limit_bytes}")]
    TooLong {
        /// Kind of object.
        kind: FrameKind,
        /// Its length.
        found_bytes: u64,
        /// The limit.
        limit_bytes: u64,
    },
}

/// Why a repository's keys could not be made or unlocked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The repository header is none, damaged, or of a newer format.
    #[error(transparent)]
    Header(#[from] FormatError),
    /// No slot opens with this secret.
    #[error(
        "wrong {secret}: it does not open this repository (tried {tried} of its key slots{})", damaged_slots(*.damaged)
    )]
    WrongSecret {
        /// `key file` or `passphrase`.
        secret: &'static str,
        /// How many slots were tried.
        tried: usize,
        /// How many slots could not be read: its own may be one of them.
        damaged: usize,
    },
    /// The repository has no readable slot of the right kind.
    #[error("no {secret} opens this repository: it has no key slot for one{}", damaged_note(*.damaged))]
    NoSlot {
        /// `key file` or `passphrase`.
        secret: &'static str,
        /// How many slots could not be read.
        damaged: usize,
    },
    /// A slot was made by a newer version.
    #[error("a key slot cannot be read: {0}")]
    Slot(FormatError),
    /// The secret opened a slot, but the header was changed by somebody without the key.
    #[error("the header of repository {repo} was damaged or tampered with: its authentication code is wrong")]
    HeaderMac {
        /// The repository it says it is.
        repo: RepoId,
    },
    /// No key ring is readable.
    #[error("no key ring of the repository is readable ({found} found): {problem}")]
    NoRing {
        /// How many there are.
        found: usize,
        /// Why the last of them is not.
        problem: String,
    },
    /// A key version that was made, and whose ring is lost or damaged.
    #[error("the ring of key version {} cannot be read, so no newer version is made: run `backyfs repair` first", version.0)]
    Unreadable {
        /// Which.
        version: KeyVersion,
    },
    /// A secret that protects nothing.
    #[error("this {secret} cannot be used: {problem}")]
    Weak {
        /// `key file` or `passphrase`.
        secret: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A secret that is wanted for a new slot opens one already.
    #[error("this {secret} opens the repository already: nothing was changed")]
    Known {
        /// `key file` or `passphrase`.
        secret: &'static str,
    },
    /// The last slot is not removed.
    #[error("key slot {slot} is the last one that opens this repository: it stays")]
    LastSlot {
        /// Which.
        slot: SlotId,
    },
    /// A slot that was written reads otherwise.
    #[error("key slot {slot} was written, but does not read as it was written: look after the target")]
    NotRead {
        /// Which.
        slot: SlotId,
    },
    /// The costs of stretching the passphrase are out of range, or the memory for it is not to be had.
    #[error("the passphrase cannot be stretched: {0}")]
    Argon2(String),
    /// The settings of a new repository cannot be used.
    #[error("a repository cannot be made so: {0}")]
    Settings(FormatError),
}

impl KeyError {
    /// Whether what every opening needs is damaged or missing, as against a secret that is wrong.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Header(error) => !matches!(error, FormatError::Newer { .. }),
            Self::HeaderMac { .. } | Self::NoRing { .. } | Self::Unreadable { .. } => true,
            _ => false,
        }
    }
}

fn damaged_slots(damaged: usize) -> String {
    if damaged == 0 {
        String::new()
    } else {
        format!("; {damaged} more could not be read, its own perhaps: use another secret")
    }
}

fn damaged_note(damaged: usize) -> String {
    if damaged == 0 { String::new() } else { format!(" ({damaged} could not be read)") }
}
