//! Where each object stands on the target. Every name follows from the object, so a name can be made without looking and
//! a listing tells what is there without opening anything.

use crate::words::ids::{BatchId, DamageId, EntryId, FragmentId, KeyVersion, PackId, SlotId, Uid};
use crate::words::record::RecordKind;
use std::fmt;

/// The repository header.
pub const HEADER: &str = "backyfs.repository";
/// Key slots and key rings.
pub const KEYS: &str = "keys/";
/// Second copies of the header, key slots and key rings, away from the first: without these nothing can be read.
pub const SPARE: &str = "spare/";
/// Packs, in 256 directories.
pub const PACKS: &str = "packs/";
/// Index fragments.
pub const INDEX: &str = "index/";
/// Version records.
pub const VERSIONS: &str = "versions/";
/// Draft records.
pub const DRAFTS: &str = "drafts/";
/// Pins.
pub const PINS: &str = "pins/";
/// Verdicts: confirmed.
pub const OK: &str = "ok/";
/// Verdicts: being withdrawn.
pub const WITHDRAWING: &str = "withdrawing/";
/// Verdicts: removed for ever.
pub const TOMBSTONES: &str = "tombstones/";
/// Attribute entries.
pub const ATTRIBUTES: &str = "attributes/";
/// Condemned batches.
pub const CONDEMNED: &str = "condemned/";
/// Damage reports.
pub const DAMAGE: &str = "damage/";
/// What a repair has set aside; never read.
pub const ASIDE: &str = "aside/";
/// Unfinished uploads of directory targets; never read.
pub const TMP: &str = "tmp/";

const SLOT: &str = "keys/slot-";
const RING: &str = "keys/ring-";
const SPARE_SLOT: &str = "spare/slot-";
const SPARE_RING: &str = "spare/ring-";

/// The directories of a repository, parents before children, without a trailing slash. `init` makes all of them and nothing but
/// a repair makes one later: writing to a target whose file system is not mounted must fail, not fill the mount point.
pub fn directories() -> Vec<String> {
    let flat = [
        KEYS,
        SPARE,
        PACKS,
        INDEX,
        VERSIONS,
        DRAFTS,
        PINS,
        OK,
        WITHDRAWING,
        TOMBSTONES,
        ATTRIBUTES,
        CONDEMNED,
        DAMAGE,
        ASIDE,
        TMP,
    ];
    let flat = flat.iter().map(|prefix| prefix.trim_end_matches('/').to_owned());
    flat.chain((0..=255u8).map(|byte| format!("{PACKS}{byte:02x}"))).collect()
}

/// Name of an object on the target: components of `A-Z a-z 0-9 . _ -` joined by `/`, relative, at most 255 bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey(String);

/// A text that is not the name of an object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the name of an object of a repository")]
pub struct ObjectKeyError(pub String);

impl ObjectKey {
    /// Longest key, in bytes.
    pub const MAX_BYTES: usize = 255;

    /// Checks a text, for example from a listing.
    ///
    /// # Errors
    /// When it is empty, too long, absolute, or has a component that is empty, `.`, `..` or of other characters.
    pub fn new(text: &str) -> Result<Self, ObjectKeyError> {
        let good = |c: &str| {
            let plain = c.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
            plain && !matches!(c, "" | "." | "..")
        };
        match text.len() <= Self::MAX_BYTES && text.split('/').all(good) {
            true => Ok(Self(text.to_owned())),
            false => Err(ObjectKeyError(text.to_owned())),
        }
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for ObjectKey {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for ObjectKey {
    type Err = ObjectKeyError;
    fn from_str(text: &str) -> Result<Self, ObjectKeyError> {
        Self::new(text)
    }
}

/// The repository header.
pub fn header() -> ObjectKey {
    ObjectKey(HEADER.to_owned())
}

/// A key slot.
pub fn slot(id: SlotId) -> ObjectKey {
    ObjectKey(format!("{SLOT}{id}"))
}

/// The key ring of a key version.
pub fn ring(version: KeyVersion) -> ObjectKey {
    ObjectKey(format!("{RING}{:08}", version.0))
}

/// A pack.
pub fn pack(id: PackId) -> ObjectKey {
    ObjectKey(format!("{PACKS}{:02x}/{id}", id.as_bytes()[0]))
}

/// An index fragment.
pub fn fragment(id: FragmentId) -> ObjectKey {
    ObjectKey(format!("{INDEX}{id}"))
}

/// The prefix of all records of a kind.
pub const fn records(kind: RecordKind) -> &'static str {
    match kind {
        RecordKind::Version => VERSIONS,
        RecordKind::Draft => DRAFTS,
        RecordKind::Pin => PINS,
    }
}

/// A record.
pub fn record(kind: RecordKind, uid: Uid) -> ObjectKey {
    ObjectKey(format!("{}{uid}", records(kind)))
}

/// The verdict that a record is confirmed.
pub fn ok(uid: Uid) -> ObjectKey {
    ObjectKey(format!("{OK}{uid}"))
}

/// The verdict that an unconfirmed record is being withdrawn.
pub fn withdrawing(uid: Uid) -> ObjectKey {
    ObjectKey(format!("{WITHDRAWING}{uid}"))
}

/// The mark that a record was removed.
pub fn tombstone(uid: Uid) -> ObjectKey {
    ObjectKey(format!("{TOMBSTONES}{uid}"))
}

/// The prefix of all attribute entries of one version.
pub fn attributes_of(version: Uid) -> String {
    format!("{ATTRIBUTES}{version}.")
}

/// An attribute entry.
pub fn attribute(version: Uid, entry: EntryId) -> ObjectKey {
    ObjectKey(format!("{}{entry}", attributes_of(version)))
}

/// A condemned batch.
pub fn condemned(batch: BatchId) -> ObjectKey {
    ObjectKey(format!("{CONDEMNED}{batch}"))
}

/// A damage report.
pub fn damage(id: DamageId) -> ObjectKey {
    ObjectKey(format!("{DAMAGE}{id}"))
}

/// Where the bytes of a damaged object are set aside, for the `number`th time.
pub fn aside(key: &ObjectKey, number: DamageId) -> ObjectKey {
    ObjectKey(format!("{ASIDE}{}.{number}", key.as_str().replace('/', ".")))
}

/// What the name of an object says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Object {
    Header,
    Slot(SlotId),
    Ring(KeyVersion),
    SpareHeader,
    SpareSlot(SlotId),
    SpareRing(KeyVersion),
    Pack(PackId),
    Fragment(FragmentId),
    Record(RecordKind, Uid),
    Ok(Uid),
    Withdrawing(Uid),
    Tombstone(Uid),
    Attribute(Uid, EntryId),
    Condemned(BatchId),
    Damage(DamageId),
}

impl Object {
    /// Where it stands.
    pub fn key(&self) -> ObjectKey {
        match *self {
            Self::Header => header(),
            Self::Slot(id) => slot(id),
            Self::Ring(version) => ring(version),
            Self::SpareHeader => ObjectKey(format!("{SPARE}{HEADER}")),
            Self::SpareSlot(id) => ObjectKey(format!("{SPARE_SLOT}{id}")),
            Self::SpareRing(version) => ObjectKey(format!("{SPARE_RING}{:08}", version.0)),
            Self::Pack(id) => pack(id),
            Self::Fragment(id) => fragment(id),
            Self::Record(kind, uid) => record(kind, uid),
            Self::Ok(uid) => ok(uid),
            Self::Withdrawing(uid) => withdrawing(uid),
            Self::Tombstone(uid) => tombstone(uid),
            Self::Attribute(version, entry) => attribute(version, entry),
            Self::Condemned(batch) => condemned(batch),
            Self::Damage(id) => damage(id),
        }
    }

    /// The other copy of what lies on the target twice.
    pub fn twin(self) -> Option<Self> {
        Some(match self {
            Self::Header => Self::SpareHeader,
            Self::Slot(id) => Self::SpareSlot(id),
            Self::Ring(version) => Self::SpareRing(version),
            Self::SpareHeader => Self::Header,
            Self::SpareSlot(id) => Self::Slot(id),
            Self::SpareRing(version) => Self::Ring(version),
            _ => return None,
        })
    }
}

/// Reads a name. `None` for names that no object has: temporary files, things that others put there.
pub fn parse(key: &ObjectKey) -> Option<Object> {
    let text = key.as_str();
    let object = guess(text)?;
    // Only the one spelling that the constructors give is a name: no object is found under two.
    (object.key().as_str() == text).then_some(object)
}

fn guess(text: &str) -> Option<Object> {
    if text == HEADER {
        return Some(Object::Header);
    }
    let at = text.find('/')? + 1;
    let (prefix, rest) = text.split_at(at);
    match prefix {
        KEYS => match (text.strip_prefix(SLOT), text.strip_prefix(RING)) {
            (Some(id), _) => id.parse().ok().map(Object::Slot),
            (_, Some(version)) => version.parse().ok().map(|version| Object::Ring(KeyVersion(version))),
            _ => None,
        },
        SPARE => match (text.strip_prefix(SPARE_SLOT), text.strip_prefix(SPARE_RING)) {
            (Some(id), _) => id.parse().ok().map(Object::SpareSlot),
            (_, Some(version)) => version.parse().ok().map(|version| Object::SpareRing(KeyVersion(version))),
            _ => (rest == HEADER).then_some(Object::SpareHeader),
        },
        PACKS => rest.split_once('/').and_then(|(_, id)| id.parse().ok()).map(Object::Pack),
        INDEX => rest.parse().ok().map(Object::Fragment),
        VERSIONS => rest.parse().ok().map(|uid| Object::Record(RecordKind::Version, uid)),
        DRAFTS => rest.parse().ok().map(|uid| Object::Record(RecordKind::Draft, uid)),
        PINS => rest.parse().ok().map(|uid| Object::Record(RecordKind::Pin, uid)),
        OK => rest.parse().ok().map(Object::Ok),
        WITHDRAWING => rest.parse().ok().map(Object::Withdrawing),
        TOMBSTONES => rest.parse().ok().map(Object::Tombstone),
        ATTRIBUTES => {
            let (version, entry) = rest.split_once('.')?;
            Some(Object::Attribute(version.parse().ok()?, entry.parse().ok()?))
        }
        CONDEMNED => rest.parse().ok().map(Object::Condemned),
        DAMAGE => rest.parse().ok().map(Object::Damage),
        _ => None,
    }
}

/// The pack a name names.
pub fn parse_pack(key: &ObjectKey) -> Option<PackId> {
    parse(key).and_then(|object| if let Object::Pack(id) = object { Some(id) } else { None })
}

/// The index fragment a name names.
pub fn parse_fragment(key: &ObjectKey) -> Option<FragmentId> {
    parse(key).and_then(|object| if let Object::Fragment(id) = object { Some(id) } else { None })
}

/// The record a name names.
pub fn parse_record(key: &ObjectKey) -> Option<(RecordKind, Uid)> {
    parse(key).and_then(|object| if let Object::Record(kind, uid) = object { Some((kind, uid)) } else { None })
}

/// The record that a verdict or a tombstone speaks of.
pub fn parse_verdict(key: &ObjectKey) -> Option<Uid> {
    match parse(key)? {
        Object::Ok(uid) | Object::Withdrawing(uid) | Object::Tombstone(uid) => Some(uid),
        _ => None,
    }
}

/// The version and entry that an attribute entry's name names.
pub fn parse_attribute(key: &ObjectKey) -> Option<(Uid, EntryId)> {
    parse(key).and_then(|object| if let Object::Attribute(uid, entry) = object { Some((uid, entry)) } else { None })
}

/// The batch a name names.
pub fn parse_condemned(key: &ObjectKey) -> Option<BatchId> {
    parse(key).and_then(|object| if let Object::Condemned(id) = object { Some(id) } else { None })
}

/// The damage report a name names.
pub fn parse_damage(key: &ObjectKey) -> Option<DamageId> {
    parse(key).and_then(|object| if let Object::Damage(id) = object { Some(id) } else { None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back() {
        let uid = Uid::from_bytes([7; 16]);
        let objects = [
            Object::Header,
            Object::Slot(SlotId::from_bytes([1; 16])),
            Object::Ring(KeyVersion(12)),
            Object::Ring(KeyVersion(u32::MAX)),
            Object::SpareHeader,
            Object::SpareSlot(SlotId::from_bytes([1; 16])),
            Object::SpareRing(KeyVersion(12)),
            Object::Pack(PackId::from_bytes([0xa5; 32])),
            Object::Fragment(FragmentId::from_bytes([2; 16])),
            Object::Record(RecordKind::Version, uid),
            Object::Record(RecordKind::Draft, uid),
            Object::Record(RecordKind::Pin, uid),
            Object::Ok(uid),
            Object::Withdrawing(uid),
            Object::Tombstone(uid),
            Object::Attribute(uid, EntryId::from_bytes([3; 16])),
            Object::Condemned(BatchId::from_bytes([4; 16])),
            Object::Damage(DamageId::from_bytes([5; 16])),
        ];
        for object in objects {
            let key = object.key();
            assert_eq!(ObjectKey::new(key.as_str()).as_ref(), Ok(&key));
            assert_eq!(parse(&key), Some(object), "{key}");
        }
    }

    #[test]
    fn one_spelling_only() {
        let id = "a5".repeat(32);
        for odd in
            [&format!("packs/00/{id}"), &format!("packs/{id}"), "keys/ring-1", "keys/other", "tmp/x", "versions/x"]
        {
            assert_eq!(parse(&ObjectKey::new(odd).unwrap()), None, "{odd}");
        }
        assert!(parse(&ObjectKey::new(&format!("packs/a5/{id}")).unwrap()).is_some());
    }

    #[test]
    fn keys_stay_inside_the_target() {
        let long = "x".repeat(256);
        for bad in ["", "/etc", "a//b", "a/", "../x", "a/./b", "a b", "a\\b", "é", long.as_str()] {
            assert!(ObjectKey::new(bad).is_err(), "{bad:?}");
        }
        assert_eq!(directories().len(), 15 + 256);
        assert!(directories().iter().all(|directory| ObjectKey::new(directory).is_ok()));
    }
}
