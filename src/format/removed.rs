//! What a tombstone says of the version it stands for: why it went, and the record as it was. Kept for statistics only; that the version is
//! dead follows from the tombstone's name.

use crate::format::bytes::{Reader, Writer};
use crate::format::{FormatError, record};
use crate::words::ids::HostId;
use crate::words::record::{RecordKind, Removed, Why};
use crate::words::stamp::Stamp;

const WHAT: &str = "tombstone";
const LAYOUT: u8 = 1;
/// Bytes before the record.
const HEAD_LEN: usize = 32;

/// Encodes what is left of a version.
pub fn encode(removed: &Removed) -> Vec<u8> {
    let record = record::encode(&removed.record);
    let mut writer = Writer::with_capacity(HEAD_LEN + record.len());
    writer.u8(LAYOUT).u8(number(removed.why)).zeros(6);
    writer.i64(removed.at.millis()).raw(removed.by.as_bytes()).raw(&record);
    writer.finish()
}

/// Decodes what is left of a version.
///
/// # Errors
/// When it is damaged, of a newer layout, or says impossible things.
pub fn decode(bytes: &[u8]) -> Result<Removed, FormatError> {
    let (head, rest) = bytes.split_at(bytes.len().min(HEAD_LEN));
    let mut reader = Reader::new(WHAT, head);
    reader.layout(LAYOUT)?;
    let why = match reader.u8()? {
        1 => Why::Asked,
        2 => Why::Pruned,
        3 => Why::Superseded,
        other => return Err(reader.field("reason", other, "a version was deleted (1), pruned (2) or superseded (3)")),
    };
    reader.zeros(6)?;
    let (at, by) = (Stamp::from_millis(reader.i64()?), HostId::from_bytes(reader.array()?));
    reader.end()?;
    let record = record::decode(rest)?;
    if record.kind != RecordKind::Version {
        return Err(reader.field("record", format!("{:?}", record.kind), "only versions leave something behind"));
    }
    Ok(Removed { why, at, by, record })
}

const fn number(why: Why) -> u8 {
    match why {
        Why::Asked => 1,
        Why::Pruned => 2,
        Why::Superseded => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::samples;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_left_comes_back(removed in samples::removed()) {
            prop_assert_eq!(decode(&encode(&removed)), Ok(removed));
        }
    }

    #[test]
    fn short_ones_are_refused() {
        for len in 0..HEAD_LEN {
            assert!(decode(&vec![1; len]).is_err());
        }
    }
}
