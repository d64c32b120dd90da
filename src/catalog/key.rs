//! Keys and rows as bytes. Encoders are total; decoders of what was read back answer [`Fault::Corrupt`] when it has the wrong
//! shape.

use crate::catalog::store::Fault;
use crate::words::ids::{BlockId, CondemnedFingerprint, EntryId, PackId, Uid};
use crate::words::record::{Location, RecordKind, Verdict};
use crate::words::stamp::Stamp;

/// `time` and `uid`: the common end of keys that order versions.
pub(super) const MOMENT_LEN: usize = 8 + Uid::LEN;

/// Concatenates parts into a key of exactly `N` bytes.
pub(super) fn join<const N: usize>(parts: &[&[u8]]) -> [u8; N] {
    let mut key = [0; N];
    let mut at = 0;
    for part in parts {
        key[at..at + part.len()].copy_from_slice(part);
        at += part.len();
    }
    debug_assert_eq!(at, N, "the parts fill the key");
    key
}

/// Reads an array at `at`.
pub(super) fn array<const N: usize>(bytes: &[u8], at: usize, what: &'static str) -> Result<[u8; N], Fault> {
    let part = bytes.get(at..at + N).ok_or_else(|| Fault::Corrupt(format!("a key or row of {what} is too short")))?;
    Ok(part.try_into().expect("the slice has N bytes"))
}

/// A moment as it stands in keys: earlier ones sort first, before 1970 too.
pub(super) fn time_bytes(stamp: Stamp) -> [u8; 8] {
    (stamp.millis() as u64 ^ 1 << 63).to_be_bytes()
}

pub(super) fn time(bytes: [u8; 8]) -> Stamp {
    Stamp::from_millis((u64::from_be_bytes(bytes) ^ 1 << 63) as i64)
}

/// Reads `time` and `uid` from the end of a key.
pub(super) fn moment(key: &[u8], what: &'static str) -> Result<(Stamp, Uid), Fault> {
    let at =
        key.len().checked_sub(MOMENT_LEN).ok_or_else(|| Fault::Corrupt(format!("a key of {what} is too short")))?;
    Ok((time(array(key, at, what)?), Uid::from_bytes(array(key, at + 8, what)?)))
}

/// Key of `checked`.
pub(super) fn checked(fingerprint: &CondemnedFingerprint, levels: u8, root: &BlockId) -> [u8; 65] {
    join(&[fingerprint.as_bytes(), &[levels], root.as_bytes()])
}

/// Key of `entries`.
pub(super) fn entry(uid: Uid, lamport: u64, entry: EntryId) -> [u8; 40] {
    join(&[uid.as_bytes(), &lamport.to_be_bytes(), entry.as_bytes()])
}

/// Key of `listed`.
pub(super) fn listed(kind: RecordKind, created: Stamp, uid: Uid) -> [u8; 25] {
    join(&[&[kind_byte(kind)], &time_bytes(created), uid.as_bytes()])
}

/// Key of `named`.
pub(super) fn named(node: u64, created: Stamp, uid: Uid) -> [u8; 32] {
    join(&[&node.to_be_bytes(), &time_bytes(created), uid.as_bytes()])
}

/// The part of a key of `tags` that all versions of a tag share. No tag contains a zero byte, so none is a prefix of another.
pub(super) fn tag_prefix(tag: &str) -> Vec<u8> {
    [tag.as_bytes(), &[0]].concat()
}

/// Key of `tags`.
pub(super) fn tag(tag: &str, created: Stamp, uid: Uid) -> Vec<u8> {
    [tag.as_bytes(), &[0], &time_bytes(created), uid.as_bytes()].concat()
}

/// Value of `locations`: where in which pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// Number of the pack in `packs`.
    pub(super) pack: u32,
    /// As in [`Location`].
    pub(super) offset: u32,
    /// As in [`Location`].
    pub(super) frame_len: u32,
    /// As in [`Location`].
    pub(super) plain_len: u32,
}

impl Place {
    /// Bytes of the value.
    pub(super) const LEN: usize = 16;

    /// As stored: copies of a block sort by pack number.
    pub(super) fn encode(self) -> [u8; Self::LEN] {
        let [pack, offset, frame, plain] =
            [self.pack, self.offset, self.frame_len, self.plain_len].map(u32::to_be_bytes);
        join(&[&pack, &offset, &frame, &plain])
    }

    /// Reads it back.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Fault> {
        let field = |at| array(bytes, at, "locations").map(u32::from_be_bytes);
        Ok(Self { pack: field(0)?, offset: field(4)?, frame_len: field(8)?, plain_len: field(12)? })
    }

    /// With the pack's id in place of its number.
    pub(super) fn locate(self, pack: PackId) -> Location {
        Location { pack, offset: self.offset, frame_len: self.frame_len, plain_len: self.plain_len }
    }
}

/// A kind of record in keys and rows.
pub(super) fn kind_byte(kind: RecordKind) -> u8 {
    match kind {
        RecordKind::Version => 1,
        RecordKind::Draft => 2,
        RecordKind::Pin => 3,
    }
}

/// Row of `records`.
#[derive(Debug, Clone, Copy)]
pub(super) struct RecordRow<'a> {
    /// What is known of its confirmation.
    pub(super) verdict: Verdict,
    /// Kind, moment and encoded record; `None` while only the verdict has arrived.
    pub(super) record: Option<(RecordKind, Stamp, &'a [u8])>,
}

impl<'a> RecordRow<'a> {
    /// As stored.
    pub(super) fn encode(&self) -> Vec<u8> {
        let (kind, created, record) = match self.record {
            None => (0, Stamp::from_millis(0), &[][..]),
            Some((kind, created, record)) => (kind_byte(kind), created, record),
        };
        [&[rank(self.verdict), kind], &time_bytes(created)[..], record].concat()
    }

    /// Reads it back.
    pub(super) fn decode(bytes: &'a [u8]) -> Result<Self, Fault> {
        let [verdict, kind] = array(bytes, 0, "records")?;
        let created = time(array(bytes, 2, "records")?);
        let verdict = match verdict {
            0 => Verdict::Pending,
            1 => Verdict::Withdrawing,
            2 => Verdict::Confirmed,
            other => return Err(Fault::Corrupt(format!("a record has verdict {other}"))),
        };
        let kind = match kind {
            0 => return Ok(Self { verdict, record: None }),
            1 => RecordKind::Version,
            2 => RecordKind::Draft,
            3 => RecordKind::Pin,
            other => return Err(Fault::Corrupt(format!("a record has kind {other}"))),
        };
        Ok(Self { verdict, record: Some((kind, created, &bytes[10..])) })
    }
}

/// How much a verdict says: more is never replaced by less.
pub(super) fn rank(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Pending => 0,
        Verdict::Withdrawing => 1,
        Verdict::Confirmed => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn earlier_moments_sort_first() {
        let stamps = [i64::MIN, -1, 0, 1, 1_795_372_262_123, i64::MAX].map(Stamp::from_millis);
        for pair in stamps.windows(2) {
            assert!(time_bytes(pair[0]) < time_bytes(pair[1]));
        }
        for stamp in stamps {
            assert_eq!(time(time_bytes(stamp)), stamp);
        }
    }

    #[test]
    fn rows_survive_the_round_trip_and_short_ones_are_refused() {
        let row =
            RecordRow { verdict: Verdict::Withdrawing, record: Some((RecordKind::Pin, Stamp::from_millis(-5), b"r")) };
        let bytes = row.encode();
        let back = RecordRow::decode(&bytes).unwrap();
        assert_eq!((back.verdict, back.record), (row.verdict, row.record));
        assert!(RecordRow::decode(&bytes[..9]).is_err());
        let place = Place { pack: 1, offset: 2, frame_len: 3, plain_len: 4 };
        assert_eq!(Place::decode(&place.encode()).unwrap(), place);
        assert!(Place::decode(&[0; 15]).is_err());
    }
}
