//! Index fragments: what some packs hold, so that another host, or a rebuild, learns it in few requests.

use crate::format::FormatError;
use crate::format::bytes::{Reader, Writer};
use crate::format::pack::{self, ENTRY_LEN, PACK_MAX_BYTES};
use crate::words::ids::PackId;
use crate::words::record::PackContents;

const WHAT: &str = "index fragment";
const LAYOUT: u8 = 1;
const PACK_LEN: usize = PackId::LEN + 8 + 8 + 4;

/// Encodes what `packs` hold.
pub fn encode(packs: &[PackContents]) -> Vec<u8> {
    let len: usize = packs.iter().map(|pack| PACK_LEN + pack.blocks.len() * ENTRY_LEN).sum();
    let mut writer = Writer::with_capacity(8 + len);
    writer.u8(LAYOUT).zeros(3).len(packs.len());
    for pack in packs {
        writer.raw(pack.pack.as_bytes()).u8(pack::kind_number(pack.kind)).zeros(7).u64(pack.size_bytes);
        pack::write_blocks(&mut writer, &pack.blocks);
    }
    writer.finish()
}

/// Decodes a fragment.
///
/// # Errors
/// When it is damaged, of a newer layout, or says impossible things.
pub fn decode(bytes: &[u8]) -> Result<Vec<PackContents>, FormatError> {
    let mut reader = Reader::new(WHAT, bytes);
    reader.layout(LAYOUT)?;
    reader.zeros(3)?;
    let count = reader.count(PACK_LEN)?;
    let mut packs = Vec::with_capacity(count);
    for _ in 0..count {
        let pack = PackId::from_bytes(reader.array()?);
        let kind = pack::read_kind(&mut reader)?;
        reader.zeros(7)?;
        let size_bytes = reader.u64()?;
        if size_bytes > PACK_MAX_BYTES {
            return Err(reader.field("pack size", size_bytes, "no pack is that large"));
        }
        let blocks = pack::read_blocks(&mut reader, size_bytes)?;
        packs.push(PackContents { pack, kind, size_bytes, blocks });
    }
    reader.end()?;
    Ok(packs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::samples;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn fragments_come_back(packs in prop::collection::vec(samples::contents(), 0..5)) {
            prop_assert_eq!(decode(&encode(&packs)), Ok(packs));
        }
    }

    #[test]
    fn a_newer_layout_says_so() {
        let mut bytes = encode(&[]);
        bytes[0] = LAYOUT + 1;
        assert!(decode(&bytes).unwrap_err().to_string().contains("newer backyfs"));
    }
}
