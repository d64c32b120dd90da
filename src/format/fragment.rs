//! Index fragments: what some packs hold, so that another host, or a rebuild, learns it in few requests.

use crate::format::FormatError;
use crate::format::bytes::{Reader, Writer};
use crate::format::pack::{self, ENTRY_LEN, PACK_MAX_BYTES};
use crate::words::ids::{FragmentId, PackId};
use crate::words::record::PackContents;

const WHAT: &str = "index fragment";
/// Says what packs hold.
const LAYOUT: u8 = 1;
/// As layout 1, then the fragments that it replaces.
const LAYOUT_MERGED: u8 = 2;
const PACK_LEN: usize = PackId::LEN + 8 + 8 + 4;

/// What a fragment says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fragment {
    /// What these packs hold.
    pub packs: Vec<PackContents>,
    /// Fragments that were merged into this one, also by way of others, in ascending order. They say nothing more than this one
    /// and may be gone.
    pub replaces: Vec<FragmentId>,
}

/// Encodes what `packs` hold.
pub fn encode(packs: &[PackContents]) -> Vec<u8> {
    encode_merged(packs, &[])
}

/// Encodes what `packs` hold, in place of other fragments.
pub fn encode_merged(packs: &[PackContents], replaces: &[FragmentId]) -> Vec<u8> {
    let len: usize = packs.iter().map(|pack| PACK_LEN + pack.blocks.len() * ENTRY_LEN).sum();
    let mut writer = Writer::with_capacity(12 + len + replaces.len() * FragmentId::LEN);
    writer.u8(if replaces.is_empty() { LAYOUT } else { LAYOUT_MERGED }).zeros(3).len(packs.len());
    for pack in packs {
        writer.raw(pack.pack.as_bytes()).u8(pack::kind_number(pack.kind)).zeros(7).u64(pack.size_bytes);
        pack::write_blocks(&mut writer, &pack.blocks);
    }
    if !replaces.is_empty() {
        writer.len(replaces.len());
        for fragment in replaces {
            writer.raw(fragment.as_bytes());
        }
    }
    writer.finish()
}

/// Decodes a fragment.
///
/// # Errors
/// When it is damaged, of a newer layout, or says impossible things.
pub fn decode(bytes: &[u8]) -> Result<Fragment, FormatError> {
    let mut reader = Reader::new(WHAT, bytes);
    let is_merged = bytes.first() == Some(&LAYOUT_MERGED);
    reader.layout(if is_merged { LAYOUT_MERGED } else { LAYOUT })?;
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
    let mut replaces = Vec::new();
    if is_merged {
        let count = reader.count(FragmentId::LEN)?;
        for _ in 0..count {
            replaces.push(FragmentId::from_bytes(reader.array()?));
        }
        if replaces.is_empty() || !replaces.is_sorted_by(|a, b| a < b) {
            return Err(reader.field("replaced fragments", count, "they are none, or not in ascending order"));
        }
    }
    reader.end()?;
    Ok(Fragment { packs, replaces })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::samples;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn fragments_come_back(
            packs in prop::collection::vec(samples::contents(), 0..5),
            replaces in prop::collection::btree_set(any::<[u8; 16]>(), 0..5),
        ) {
            let replaces: Vec<_> = replaces.into_iter().map(FragmentId::from_bytes).collect();
            prop_assert_eq!(decode(&encode_merged(&packs, &replaces)), Ok(Fragment { packs, replaces }));
        }
    }

    #[test]
    fn a_newer_layout_says_so() {
        let mut bytes = encode(&[]);
        bytes[0] = LAYOUT_MERGED + 1;
        assert!(decode(&bytes).unwrap_err().to_string().contains("newer backyfs"));
    }

    #[test]
    fn replaced_fragments_have_one_order_and_are_not_none() {
        let ids = [[2; 16], [1; 16]].map(FragmentId::from_bytes);
        assert!(decode(&encode_merged(&[], &ids)).is_err());
        let mut none = encode_merged(&[], &ids[..1]);
        none.truncate(none.len() - 16);
        let at = none.len() - 4;
        none[at..].fill(0);
        assert!(decode(&none).is_err());
    }
}
