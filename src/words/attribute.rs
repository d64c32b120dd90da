//! What can be said of a version after it was made, and how statements of several hosts fold into one answer.

use crate::words::ids::{EntryId, HostId, Uid};
use crate::words::name::Name;
use crate::words::stamp::Stamp;
use std::collections::BTreeSet;
use std::fmt;

/// Whether a version can be trusted to be what its writer meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Validity {
    /// Complete, and no damage is known.
    Valid,
    /// Damage was found; the reason says what.
    Invalid(String),
    /// Its writer failed after closing it; the reason says how. Never `latest`.
    Incomplete(String),
}

impl Validity {
    /// `valid`, `invalid` or `incomplete`.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Valid => "valid",
            Self::Invalid(_) => "invalid",
            Self::Incomplete(_) => "incomplete",
        }
    }

    /// Why it is not valid; empty when it is.
    pub fn reason(&self) -> &str {
        match self {
            Self::Valid => "",
            Self::Invalid(reason) | Self::Incomplete(reason) => reason,
        }
    }

    /// Whether the version counts as a backup: for `latest`, schedules and retention.
    pub fn is_complete(&self) -> bool {
        !matches!(self, Self::Incomplete(_))
    }
}

impl fmt::Display for Validity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Valid => f.write_str("valid"),
            Self::Invalid(reason) | Self::Incomplete(reason) => write!(f, "{}: {reason}", self.word()),
        }
    }
}

/// A file's modification time: seconds since the epoch and nanoseconds (0 to 999,999,999).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mtime {
    /// Seconds since the epoch.
    pub seconds: i64,
    /// Nanoseconds within the second.
    pub nanos: u32,
}

impl From<Stamp> for Mtime {
    fn from(stamp: Stamp) -> Self {
        let nanos = stamp.millis().rem_euclid(1000) * 1_000_000;
        Self { seconds: stamp.millis().div_euclid(1000), nanos: u32::try_from(nanos).unwrap_or(0) }
    }
}

/// The file attributes a version carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileAttributes {
    /// Permission bits (07777).
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time.
    pub mtime: Mtime,
}

/// Everything changeable about a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attributes {
    /// Name of the backup.
    pub name: Name,
    /// Free text: which snapshot of the source this is. At most 4000 bytes.
    pub snapshot_name: String,
    /// Tags.
    pub tags: BTreeSet<String>,
    /// After this moment `prune` may delete it.
    pub expire: Option<Stamp>,
    /// Never deleted while set.
    pub protected: bool,
    /// Whether it can be trusted.
    pub validity: Validity,
    /// Mode, owner, mtime.
    pub file: FileAttributes,
}

impl Attributes {
    /// Those of a good version of which nobody has said anything yet.
    pub fn new(name: Name, file: FileAttributes) -> Self {
        let (snapshot_name, tags) = (String::new(), BTreeSet::new());
        Self { name, snapshot_name, tags, expire: None, protected: false, validity: Validity::Valid, file }
    }
}

/// One change of one attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum AttributeChange {
    Name(Name),
    SnapshotName(String),
    AddTag(String),
    RemoveTag(String),
    Expire(Option<Stamp>),
    Protected(bool),
    Validity(Validity),
    Mode(u32),
    Owner { uid: u32, gid: u32 },
    Mtime(Mtime),
}

/// A change as it stands on the target: sealed, immutable, one object each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttributeEntry {
    /// The version it speaks of.
    pub version: Uid,
    /// Its own identity.
    pub entry: EntryId,
    /// Lamport clock: one more than the largest its writer had seen for this version (Lamport 1978). No wall clock decides.
    pub lamport: u64,
    /// Who wrote it.
    pub host: HostId,
    /// When, for people.
    pub at: Stamp,
    /// What changed.
    pub change: AttributeChange,
}

/// Folds entries into attributes: in the order of (lamport, entry id), later ones win. Any two hosts with the same set of
/// entries, in whatever order they learnt them, get the same answer.
pub fn fold(initial: &Attributes, entries: &[AttributeEntry]) -> Attributes {
    let mut ordered: Vec<_> = entries.iter().collect();
    ordered.sort_by_key(|e| (e.lamport, e.entry));
    let mut folded = initial.clone();
    for entry in ordered {
        apply(&mut folded, &entry.change);
    }
    folded
}

/// Applies one change.
pub fn apply(attributes: &mut Attributes, change: &AttributeChange) {
    match change.clone() {
        AttributeChange::Name(name) => attributes.name = name,
        AttributeChange::SnapshotName(text) => attributes.snapshot_name = text,
        AttributeChange::AddTag(tag) => drop(attributes.tags.insert(tag)),
        AttributeChange::RemoveTag(tag) => drop(attributes.tags.remove(&tag)),
        AttributeChange::Expire(expire) => attributes.expire = expire,
        AttributeChange::Protected(protected) => attributes.protected = protected,
        AttributeChange::Validity(validity) => attributes.validity = validity,
        AttributeChange::Mode(mode) => attributes.file.mode = mode,
        AttributeChange::Owner { uid, gid } => (attributes.file.uid, attributes.file.gid) = (uid, gid),
        AttributeChange::Mtime(mtime) => attributes.file.mtime = mtime,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(lamport: u64, id: u8, change: AttributeChange) -> AttributeEntry {
        let (version, entry) = (Uid::NIL, EntryId::from_bytes([id; 16]));
        AttributeEntry { version, entry, lamport, host: HostId::NIL, at: Stamp::from_millis(0), change }
    }

    #[test]
    fn folding_does_not_depend_on_the_order_of_learning() {
        let file = FileAttributes { mode: 0o600, uid: 0, gid: 0, mtime: Mtime { seconds: 0, nanos: 0 } };
        let initial = Attributes {
            name: Name::new("vm").unwrap(),
            snapshot_name: String::new(),
            tags: BTreeSet::new(),
            expire: None,
            protected: false,
            validity: Validity::Valid,
            file,
        };
        let mut entries = vec![
            entry(1, 1, AttributeChange::AddTag("a".into())),
            entry(1, 2, AttributeChange::AddTag("b".into())),
            entry(2, 9, AttributeChange::RemoveTag("a".into())),
            entry(3, 1, AttributeChange::Protected(true)),
            entry(3, 2, AttributeChange::Protected(false)),
        ];
        let folded = fold(&initial, &entries);
        assert_eq!(folded.tags.iter().collect::<Vec<_>>(), ["b"]);
        assert!(!folded.protected);
        entries.reverse();
        assert_eq!(fold(&initial, &entries), folded);
    }
}
