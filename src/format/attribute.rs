//! Attribute entries: one change of one attribute of one version.

use crate::format::FormatError;
use crate::format::bytes::{Reader, Writer};
use crate::words::attribute::{AttributeChange, AttributeEntry, Mtime, Validity};
use crate::words::ids::{EntryId, HostId, Uid};
use crate::words::name::Name;
use crate::words::stamp::Stamp;

const WHAT: &str = "attribute entry";
const LAYOUT: u8 = 1;
const NANOS_MAX: u32 = 999_999_999;

/// Encodes an entry.
pub fn encode(entry: &AttributeEntry) -> Vec<u8> {
    let mut writer = Writer::with_capacity(128);
    writer.u8(LAYOUT).u8(change_number(&entry.change)).zeros(6);
    writer.raw(entry.version.as_bytes()).raw(entry.entry.as_bytes()).u64(entry.lamport);
    writer.raw(entry.host.as_bytes()).i64(entry.at.millis());
    match &entry.change {
        AttributeChange::Name(name) => writer.text(name.as_str()),
        AttributeChange::SnapshotName(text) | AttributeChange::AddTag(text) | AttributeChange::RemoveTag(text) => {
            writer.text(text)
        }
        AttributeChange::Expire(None) => writer.u8(0),
        AttributeChange::Expire(Some(at)) => writer.u8(1).i64(at.millis()),
        AttributeChange::Protected(protected) => writer.u8((*protected).into()),
        AttributeChange::Validity(validity) => write_validity(&mut writer, validity),
        AttributeChange::Mode(mode) => writer.u32(*mode),
        AttributeChange::Owner { uid, gid } => writer.u32(*uid).u32(*gid),
        AttributeChange::Mtime(mtime) => write_mtime(&mut writer, *mtime),
    };
    writer.finish()
}

/// Decodes an entry.
///
/// # Errors
/// When it is damaged, of a newer layout, or says impossible things.
pub fn decode(bytes: &[u8]) -> Result<AttributeEntry, FormatError> {
    let mut reader = Reader::new(WHAT, bytes);
    reader.layout(LAYOUT)?;
    let number = reader.u8()?;
    reader.zeros(6)?;
    let entry = AttributeEntry {
        version: Uid::from_bytes(reader.array()?),
        entry: EntryId::from_bytes(reader.array()?),
        lamport: reader.u64()?,
        host: HostId::from_bytes(reader.array()?),
        at: Stamp::from_millis(reader.i64()?),
        change: read_change(&mut reader, number)?,
    };
    reader.end()?;
    Ok(entry)
}

const fn change_number(change: &AttributeChange) -> u8 {
    match change {
        AttributeChange::Name(_) => 1,
        AttributeChange::SnapshotName(_) => 2,
        AttributeChange::AddTag(_) => 3,
        AttributeChange::RemoveTag(_) => 4,
        AttributeChange::Expire(_) => 5,
        AttributeChange::Protected(_) => 6,
        AttributeChange::Validity(_) => 7,
        AttributeChange::Mode(_) => 8,
        AttributeChange::Owner { .. } => 9,
        AttributeChange::Mtime(_) => 10,
    }
}

fn read_change(reader: &mut Reader<'_>, number: u8) -> Result<AttributeChange, FormatError> {
    Ok(match number {
        1 => AttributeChange::Name(read_name(reader)?),
        2 => AttributeChange::SnapshotName(reader.text("snapshot name")?.to_owned()),
        3 => AttributeChange::AddTag(reader.text("tag")?.to_owned()),
        4 => AttributeChange::RemoveTag(reader.text("tag")?.to_owned()),
        5 => AttributeChange::Expire(match reader.flag("expire")? {
            true => Some(Stamp::from_millis(reader.i64()?)),
            false => None,
        }),
        6 => AttributeChange::Protected(reader.flag("protected")?),
        7 => AttributeChange::Validity(read_validity(reader)?),
        8 => AttributeChange::Mode(reader.u32()?),
        9 => AttributeChange::Owner { uid: reader.u32()?, gid: reader.u32()? },
        10 => AttributeChange::Mtime(read_mtime(reader)?),
        other => return Err(reader.field("change", other, "there is none such")),
    })
}

pub(super) fn read_name(reader: &mut Reader<'_>) -> Result<Name, FormatError> {
    let text = reader.text("name")?;
    Name::new(text).map_err(|error| reader.field("name", format!("{text:?}"), error.problem))
}

pub(super) fn write_validity<'w>(writer: &'w mut Writer, validity: &Validity) -> &'w mut Writer {
    match validity {
        Validity::Valid => writer.u8(0),
        Validity::Invalid(reason) => writer.u8(1).text(reason),
        Validity::Incomplete(reason) => writer.u8(2).text(reason),
    }
}

pub(super) fn read_validity(reader: &mut Reader<'_>) -> Result<Validity, FormatError> {
    match reader.u8()? {
        0 => Ok(Validity::Valid),
        1 => Ok(Validity::Invalid(reader.text("reason")?.to_owned())),
        2 => Ok(Validity::Incomplete(reader.text("reason")?.to_owned())),
        other => Err(reader.field("validity", other, "it is valid (0), invalid (1) or incomplete (2)")),
    }
}

/// Nanoseconds beyond a second are cut: what is written must be readable.
pub(super) fn write_mtime(writer: &mut Writer, mtime: Mtime) -> &mut Writer {
    writer.i64(mtime.seconds).u32(mtime.nanos.min(NANOS_MAX))
}

pub(super) fn read_mtime(reader: &mut Reader<'_>) -> Result<Mtime, FormatError> {
    let mtime = Mtime { seconds: reader.i64()?, nanos: reader.u32()? };
    if mtime.nanos > NANOS_MAX {
        return Err(reader.field("nanoseconds", mtime.nanos, "a second has fewer"));
    }
    Ok(mtime)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::samples;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn entries_come_back(entry in samples::entry()) {
            prop_assert_eq!(decode(&encode(&entry)), Ok(entry));
        }
    }

    #[test]
    fn only_the_smallest_encoding_is_read() {
        let change = AttributeChange::Protected(true);
        let (version, entry, host) = (Uid::NIL, EntryId::NIL, HostId::NIL);
        let entry = AttributeEntry { version, entry, lamport: 1, host, at: Stamp::from_millis(0), change };
        let mut bytes = encode(&entry);
        *bytes.last_mut().unwrap() = 2;
        assert!(decode(&bytes).is_err());
        *bytes.last_mut().unwrap() = 1;
        bytes.push(0);
        assert_eq!(decode(&bytes), Err(FormatError::Trailing { what: WHAT, extra_bytes: 1 }));
    }
}
