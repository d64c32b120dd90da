//! Version, draft and pin records.

use crate::format::FormatError;
use crate::format::attribute::{read_mtime, read_name, read_validity, write_mtime, write_validity};
use crate::format::bytes::{Reader, Writer};
use crate::words::attribute::{Attributes, FileAttributes};
use crate::words::geometry::BlockSize;
use crate::words::ids::{BlockId, DraftId, HostId, Uid};
use crate::words::record::{Broken, ImageRef, Record, RecordKind, Stats};
use crate::words::stamp::Stamp;
use std::collections::BTreeSet;

const WHAT: &str = "record";
const LAYOUT: u8 = 1;

/// Encodes a record.
pub fn encode(record: &Record) -> Vec<u8> {
    let mut writer = Writer::with_capacity(512);
    writer.u8(LAYOUT).u8(kind_number(record.kind)).zeros(6);
    writer.raw(record.uid.as_bytes()).i64(record.created.millis()).raw(record.host.as_bytes());
    write_image(&mut writer, &record.image);
    writer.raw(record.base.as_bytes()).raw(record.supersedes.as_bytes()).raw(record.draft.as_bytes());
    write_image(&mut writer, &record.start);
    match &record.broken {
        Some(broken) => writer.u8(1).u64(broken.at).text(&broken.reason),
        None => writer.u8(0),
    };
    write_attributes(&mut writer, &record.attributes);
    let s = &record.stats;
    for number in [
        s.written_bytes,
        s.unchanged_bytes,
        s.deduplicated_bytes,
        s.zero_bytes,
        s.new_bytes,
        s.stored_bytes,
        s.duration_ms,
    ] {
        writer.u64(number);
    }
    writer.finish()
}

/// Decodes a record.
///
/// # Errors
/// When it is damaged, of a newer layout, or says impossible things.
pub fn decode(bytes: &[u8]) -> Result<Record, FormatError> {
    let mut reader = Reader::new(WHAT, bytes);
    reader.layout(LAYOUT)?;
    let kind = read_kind(&mut reader)?;
    reader.zeros(6)?;
    let record = Record {
        uid: Uid::from_bytes(reader.array()?),
        kind,
        created: Stamp::from_millis(reader.i64()?),
        host: HostId::from_bytes(reader.array()?),
        image: read_image(&mut reader)?,
        base: Uid::from_bytes(reader.array()?),
        supersedes: Uid::from_bytes(reader.array()?),
        draft: DraftId::from_bytes(reader.array()?),
        start: read_image(&mut reader)?,
        broken: read_broken(&mut reader)?,
        attributes: read_attributes(&mut reader)?,
        stats: read_stats(&mut reader)?,
    };
    reader.end()?;
    Ok(record)
}

const fn kind_number(kind: RecordKind) -> u8 {
    match kind {
        RecordKind::Version => 1,
        RecordKind::Draft => 2,
        RecordKind::Pin => 3,
    }
}

fn read_kind(reader: &mut Reader<'_>) -> Result<RecordKind, FormatError> {
    match reader.u8()? {
        1 => Ok(RecordKind::Version),
        2 => Ok(RecordKind::Draft),
        3 => Ok(RecordKind::Pin),
        other => Err(reader.field("kind", other, "a record is a version (1), a draft (2) or a pin (3)")),
    }
}

fn write_image(writer: &mut Writer, image: &ImageRef) {
    writer.u32(image.block_size.bytes() as u32).zeros(4).u64(image.size_bytes);
    writer.u64(image.allocated_blocks).raw(image.root.as_bytes());
}

fn read_image(reader: &mut Reader<'_>) -> Result<ImageRef, FormatError> {
    let bytes = reader.u32()?;
    let block_size = BlockSize::new(bytes.into())
        .map_err(|_| reader.field("block size", bytes, "it must be a power of two from 4096 to 4194304"))?;
    reader.zeros(4)?;
    let (size_bytes, allocated_blocks) = (reader.u64()?, reader.u64()?);
    let image = ImageRef { block_size, size_bytes, root: BlockId::from_bytes(reader.array()?), allocated_blocks };
    if allocated_blocks > image.block_count() {
        return Err(reader.field("allocated blocks", allocated_blocks, "the image has fewer blocks"));
    }
    Ok(image)
}

fn read_broken(reader: &mut Reader<'_>) -> Result<Option<Broken>, FormatError> {
    match reader.flag("broken")? {
        false => Ok(None),
        true => Ok(Some(Broken { at: reader.u64()?, reason: reader.text("reason")?.to_owned() })),
    }
}

fn write_attributes(writer: &mut Writer, attributes: &Attributes) {
    let a = attributes;
    writer.text(a.name.as_str()).text(&a.snapshot_name).len(a.tags.len());
    for tag in &a.tags {
        writer.text(tag);
    }
    match a.expire {
        Some(expire) => writer.u8(1).i64(expire.millis()),
        None => writer.u8(0),
    };
    writer.u8(a.protected.into());
    write_validity(writer, &a.validity);
    writer.u32(a.file.mode).u32(a.file.uid).u32(a.file.gid);
    write_mtime(writer, a.file.mtime);
}

fn read_attributes(reader: &mut Reader<'_>) -> Result<Attributes, FormatError> {
    Ok(Attributes {
        name: read_name(reader)?,
        snapshot_name: reader.text("snapshot name")?.to_owned(),
        tags: read_tags(reader)?,
        expire: match reader.flag("expire")? {
            true => Some(Stamp::from_millis(reader.i64()?)),
            false => None,
        },
        protected: reader.flag("protected")?,
        validity: read_validity(reader)?,
        file: FileAttributes {
            mode: reader.u32()?,
            uid: reader.u32()?,
            gid: reader.u32()?,
            mtime: read_mtime(reader)?,
        },
    })
}

fn read_tags(reader: &mut Reader<'_>) -> Result<BTreeSet<String>, FormatError> {
    let mut tags = BTreeSet::new();
    for _ in 0..reader.count(4)? {
        let tag = reader.text("tag")?;
        if tags.last().is_some_and(|last: &String| last.as_str() >= tag) {
            return Err(reader.field("tag", format!("{tag:?}"), "tags must be in order and each once"));
        }
        tags.insert(tag.to_owned());
    }
    Ok(tags)
}

fn read_stats(reader: &mut Reader<'_>) -> Result<Stats, FormatError> {
    Ok(Stats {
        written_bytes: reader.u64()?,
        unchanged_bytes: reader.u64()?,
        deduplicated_bytes: reader.u64()?,
        zero_bytes: reader.u64()?,
        new_bytes: reader.u64()?,
        stored_bytes: reader.u64()?,
        duration_ms: reader.u64()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::samples;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn records_come_back(record in samples::record()) {
            prop_assert_eq!(decode(&encode(&record)), Ok(record));
        }
    }
}
