//! Packs: a header, frames back to back, a footer frame that says where each is, and a trailer that says where the footer is.

use crate::format::FormatError;
use crate::format::bytes::{Reader, Writer};
use crate::format::frame::{self, FrameHeader};
use crate::words::geometry::BlockSize;
use crate::words::ids::{BlockId, RepoId};
use crate::words::record::{BlockKind, PackedBlock};
use std::ops::Range;

const WHAT: &str = "pack";
const FOOTER: &str = "pack footer";

/// First bytes of every pack.
pub const MAGIC: [u8; 8] = *b"bkyPACK1";
/// Last bytes of every pack.
pub const END_MAGIC: [u8; 8] = *b"bkyPEND1";
/// Bytes before the first frame.
pub const HEADER_LEN: usize = MAGIC.len() + RepoId::LEN + 8;
/// Bytes after the footer.
pub const TRAILER_LEN: usize = 4 + 4 + END_MAGIC.len();
/// Bytes of one block in a footer or a fragment.
pub(super) const ENTRY_LEN: usize = BlockId::LEN + 4 + 4 + 4;
/// The largest pack: offsets are u32, and a target must be able to hold one in memory.
pub const PACK_MAX_BYTES: u64 = 1 << 30;

const _: () = assert!(HEADER_LEN == 32 && TRAILER_LEN == 16 && ENTRY_LEN == 44);

/// Encodes a pack's header.
pub fn header(repo: &RepoId, kind: BlockKind) -> [u8; HEADER_LEN] {
    let mut writer = Writer::with_capacity(HEADER_LEN);
    writer.raw(&MAGIC).raw(repo.as_bytes()).u8(kind_number(kind)).zeros(7);
    writer.finish().try_into().expect("the fields add up to HEADER_LEN")
}

/// Decodes the header at the start of a pack.
///
/// # Errors
/// When it is none.
pub fn decode_header(bytes: &[u8]) -> Result<(RepoId, BlockKind), FormatError> {
    let mut reader = Reader::new(WHAT, bytes);
    let [magic @ .., version] = reader.array::<8>()?;
    if magic != MAGIC[..7] {
        return Err(FormatError::Magic { what: WHAT });
    }
    check_version(WHAT, version)?;
    let repo = RepoId::from_bytes(reader.array()?);
    let kind = read_kind(&mut reader)?;
    reader.zeros(7)?;
    Ok((repo, kind))
}

/// The last byte of a magic is the layout's number as an ASCII digit.
fn check_version(what: &'static str, digit: u8) -> Result<(), FormatError> {
    match digit {
        b'1' => Ok(()),
        b'2'..=b'9' => Err(FormatError::Newer { what, version: (digit - b'0').into(), supported: 1 }),
        _ => Err(FormatError::Magic { what }),
    }
}

pub(super) const fn kind_number(kind: BlockKind) -> u8 {
    match kind {
        BlockKind::Data => 1,
        BlockKind::Map => 2,
    }
}

pub(super) fn read_kind(reader: &mut Reader<'_>) -> Result<BlockKind, FormatError> {
    match reader.u8()? {
        1 => Ok(BlockKind::Data),
        2 => Ok(BlockKind::Map),
        other => Err(reader.field("kind", other, "a pack holds data (1) or map nodes (2)")),
    }
}

/// Encodes the plaintext of a footer: `blocks` in order of offset.
pub fn encode_footer(blocks: &[PackedBlock]) -> Vec<u8> {
    let mut writer = Writer::with_capacity(4 + blocks.len() * ENTRY_LEN);
    write_blocks(&mut writer, blocks);
    writer.finish()
}

/// Decodes the plaintext of a footer that begins at `footer_offset` of its pack.
///
/// # Errors
/// When it is damaged or names frames that are not between the header and the footer, in order.
pub fn decode_footer(plain: &[u8], footer_offset: u32) -> Result<Vec<PackedBlock>, FormatError> {
    let mut reader = Reader::new(FOOTER, plain);
    let blocks = read_blocks(&mut reader, footer_offset.into())?;
    reader.end()?;
    Ok(blocks)
}

pub(super) fn write_blocks(writer: &mut Writer, blocks: &[PackedBlock]) {
    writer.len(blocks.len());
    for block in blocks {
        writer.raw(block.id.as_bytes()).u32(block.offset).u32(block.frame_len).u32(block.plain_len);
    }
}

/// Reads a list of blocks, which must lie in order and apart, after the header and before `end`.
pub(super) fn read_blocks(reader: &mut Reader<'_>, end: u64) -> Result<Vec<PackedBlock>, FormatError> {
    let count = reader.count(ENTRY_LEN)?;
    let mut blocks = Vec::with_capacity(count);
    let mut free_from = HEADER_LEN as u64;
    for _ in 0..count {
        let id = BlockId::from_bytes(reader.array()?);
        let block = PackedBlock { id, offset: reader.u32()?, frame_len: reader.u32()?, plain_len: reader.u32()? };
        if id.is_hole() {
            return Err(reader.field("block id", id, "holes are not stored"));
        }
        if u64::from(block.offset) < free_from {
            return Err(reader.field("offset", block.offset, "frames overlap or are out of order"));
        }
        if (block.frame_len as usize) < frame::OVERHEAD {
            return Err(reader.field("frame length", block.frame_len, "no frame is that short"));
        }
        if block.plain_len > BlockSize::MAX.bytes() as u32 {
            return Err(reader.field("plain length", block.plain_len, "no block is that long"));
        }
        free_from = block.end();
        if free_from > end {
            return Err(reader.field("frame length", block.frame_len, "the frame ends beyond its pack"));
        }
        blocks.push(block);
    }
    Ok(blocks)
}

/// Encodes a pack's trailer.
pub fn trailer(footer_offset: u32, footer_frame_len: u32) -> [u8; TRAILER_LEN] {
    let mut writer = Writer::with_capacity(TRAILER_LEN);
    writer.u32(footer_offset).u32(footer_frame_len).raw(&END_MAGIC);
    writer.finish().try_into().expect("the fields add up to TRAILER_LEN")
}

/// Where the footer frame of a pack of `pack_len` bytes is, from its last [`TRAILER_LEN`] bytes.
///
/// # Errors
/// When these are no trailer, or one that does not fit the pack's length.
pub fn decode_trailer(bytes: &[u8], pack_len: u64) -> Result<Range<u64>, FormatError> {
    let mut reader = Reader::new(WHAT, bytes);
    let (offset, len) = (reader.u32()?, reader.u32()?);
    let [magic @ .., version] = reader.array::<8>()?;
    reader.end()?;
    if magic != END_MAGIC[..7] {
        return Err(FormatError::Magic { what: "pack trailer" });
    }
    check_version("pack trailer", version)?;
    let footer = u64::from(offset)..u64::from(offset) + u64::from(len);
    if footer.start < HEADER_LEN as u64 || footer.end.checked_add(TRAILER_LEN as u64) != Some(pack_len) {
        return Err(reader.field(
            "footer",
            format!("{footer:?} of {pack_len}"),
            "it must end where the trailer begins",
        ));
    }
    Ok(footer)
}

/// What kind of blocks a damaged pack holds: by its header, else by the first block frame found.
pub fn kind_of(bytes: &[u8]) -> Option<BlockKind> {
    let by_header = decode_header(bytes).ok().map(|(_, kind)| kind);
    by_header.or_else(|| frames(bytes).find_map(|(_, header)| header.kind.block_kind()))
}

/// Finds the blocks of a pack whose footer is lost, from the headers of its frames. Damage costs the frames it touches:
/// the search goes on at the next intact header. What is found is authenticated only when it is opened.
pub fn rescan(bytes: &[u8]) -> Vec<PackedBlock> {
    let kind = kind_of(bytes);
    let blocks = frames(bytes).filter(|(_, header)| header.kind.block_kind() == kind);
    blocks.filter_map(|(offset, header)| packed_block(offset, &header)).collect()
}

fn packed_block(offset: u32, header: &FrameHeader) -> Option<PackedBlock> {
    let (_, id) = header.block()?;
    let frame_len = u32::try_from(header.frame_len()).ok()?;
    let plausible = !id.is_hole() && header.plain_len <= BlockSize::MAX.bytes() as u32;
    plausible.then_some(PackedBlock { id, offset, frame_len, plain_len: header.plain_len })
}

/// Every whole frame, in order, with its offset.
fn frames(bytes: &[u8]) -> impl Iterator<Item = (u32, FrameHeader)> {
    let len = bytes.len().min(PACK_MAX_BYTES as usize);
    let mut at = HEADER_LEN;
    std::iter::from_fn(move || {
        while at + frame::HEADER_LEN <= len {
            let header = FrameHeader::decode(&bytes[at..len]).ok();
            if let Some(header) = header.filter(|header| header.frame_len() <= (len - at) as u64) {
                let offset = at as u32;
                at += header.frame_len() as usize;
                return Some((offset, header));
            }
            let magic = frame::MAGIC[0];
            at += 1 + bytes[at + 1..len].iter().position(|&byte| byte == magic).unwrap_or(len);
        }
        None
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::samples;
    use proptest::prelude::*;

    #[test]
    fn headers_and_trailers_come_back() {
        let repo = RepoId::from_bytes([9; 16]);
        assert_eq!(decode_header(&header(&repo, BlockKind::Map)), Ok((repo, BlockKind::Map)));
        assert_eq!(decode_trailer(&trailer(32, 100), 148), Ok(32..132));
        assert!(decode_trailer(&trailer(32, 100), 149).is_err());
        assert!(decode_trailer(&trailer(u32::MAX, u32::MAX), 148).is_err());
        let mut newer = header(&repo, BlockKind::Map);
        newer[7] = b'2';
        assert!(decode_header(&newer).unwrap_err().to_string().contains("newer backyfs"));
    }

    #[test]
    fn rescanning_finds_every_block() {
        let (bytes, blocks) = samples::pack(12);
        assert_eq!(rescan(&bytes), blocks);
        assert_eq!(kind_of(&bytes), Some(BlockKind::Data));
    }

    #[test]
    fn damage_costs_the_frame_it_touches() {
        let (bytes, blocks) = samples::pack(5);
        for (hit, block) in blocks.iter().enumerate() {
            let mut damaged = bytes.clone();
            damaged[..HEADER_LEN].fill(0);
            damaged[block.offset as usize + 20] ^= 1;
            let left: Vec<_> = blocks.iter().enumerate().filter(|(i, _)| *i != hit).map(|(_, b)| *b).collect();
            assert_eq!(rescan(&damaged), left);
        }
        let cut = &bytes[..blocks[4].offset as usize + 90];
        assert_eq!(rescan(cut), blocks[..4]);
    }

    proptest! {
        #[test]
        fn footers_come_back(contents in samples::contents()) {
            let end = u32::try_from(contents.size_bytes).unwrap();
            prop_assert_eq!(decode_footer(&encode_footer(&contents.blocks), end), Ok(contents.blocks));
        }
    }
}
