//! Fuzz bodies: each decoder against any bytes. What decodes must encode back to the same bytes, so there is one encoding
//! of everything and nothing in an object is ignored. Called by the property tests here and by fuzzers from outside.

use crate::format::frame::{self, FrameHeader};
use crate::format::layout::{self, ObjectKey};
use crate::format::node::MapNode;
use crate::format::repository::UncheckedHeader;
use crate::format::ring::Ring;
use crate::format::slot::Slot;
use crate::format::{attribute, condemned, damage, fragment, pack, record, removed};

/// A fuzz body: panics when a promise is broken.
pub type Body = fn(&[u8]);

/// Every body, with its name.
pub const BODIES: [(&str, Body); 14] = [
    ("frame", frame_header),
    ("node", node),
    ("pack_ends", pack_ends),
    ("footer", footer),
    ("rescan", rescan),
    ("fragment", fragments),
    ("record", records),
    ("removed", removals),
    ("attribute", attributes),
    ("condemned", condemned_batch),
    ("damage", damage_report),
    ("repository", repository),
    ("slot", slot),
    ("ring", ring),
];

/// Frame headers and whole frames.
pub fn frame_header(bytes: &[u8]) {
    if let Ok(header) = FrameHeader::decode(bytes) {
        assert_eq!(header.encode(), bytes[..frame::HEADER_LEN]);
        let _ = header.aad(&crate::words::ids::RepoId::NIL);
    }
    if let Ok((header, sealed)) = frame::split(bytes) {
        assert_eq!(sealed.len() as u64, header.frame_len() - frame::HEADER_LEN as u64);
    }
}

/// Map nodes.
pub fn node(bytes: &[u8]) {
    if let Ok(node) = MapNode::decode(bytes) {
        assert_eq!(node.encode(), bytes);
        assert_eq!(node.is_all_hole(), (0..1024).all(|index| node.get(index).is_hole()));
    }
}

/// Headers and trailers of packs.
pub fn pack_ends(bytes: &[u8]) {
    if let Ok((repo, kind)) = pack::decode_header(bytes) {
        assert_eq!(pack::header(&repo, kind), bytes[..pack::HEADER_LEN]);
    }
    let end = bytes.len().saturating_sub(pack::TRAILER_LEN);
    if let Ok(footer) = pack::decode_trailer(&bytes[end..], bytes.len() as u64) {
        assert!(footer.start <= footer.end && footer.end == end as u64);
    }
}

/// Footers of packs.
pub fn footer(bytes: &[u8]) {
    if let Ok(blocks) = pack::decode_footer(bytes, u32::MAX) {
        assert_eq!(pack::encode_footer(&blocks), bytes);
    }
}

/// Packs without a footer.
pub fn rescan(bytes: &[u8]) {
    let mut free_from = pack::HEADER_LEN as u64;
    for block in pack::rescan(bytes) {
        assert!(u64::from(block.offset) >= free_from);
        free_from = block.end();
        assert!(free_from <= bytes.len() as u64);
    }
}

/// Index fragments.
pub fn fragments(bytes: &[u8]) {
    if let Ok(found) = fragment::decode(bytes) {
        assert_eq!(fragment::encode_merged(&found.packs, &found.replaces), bytes);
    }
}

/// Records.
pub fn records(bytes: &[u8]) {
    if let Ok(decoded) = record::decode(bytes) {
        assert_eq!(record::encode(&decoded), bytes);
    }
}

/// What tombstones say.
pub fn removals(bytes: &[u8]) {
    if let Ok(removed) = removed::decode(bytes) {
        assert_eq!(removed::encode(&removed), bytes);
    }
}

/// Attribute entries.
pub fn attributes(bytes: &[u8]) {
    if let Ok(entry) = attribute::decode(bytes) {
        assert_eq!(attribute::encode(&entry), bytes);
    }
}

/// Condemned batches.
pub fn condemned_batch(bytes: &[u8]) {
    if let Ok(packs) = condemned::decode(bytes) {
        assert_eq!(condemned::encode(&packs), bytes);
    }
}

/// Damage reports.
pub fn damage_report(bytes: &[u8]) {
    if let Ok(report) = damage::decode(bytes) {
        assert_eq!(damage::encode(&report), bytes);
    }
}

/// Repository headers.
pub fn repository(bytes: &[u8]) {
    if let Ok(unchecked) = UncheckedHeader::decode(bytes) {
        let mut found = [0; 32];
        let header = unchecked.check(|_, mac| {
            found = *mac;
            true
        });
        assert_eq!(header.expect("the check said yes").encode(|_| found), bytes);
    }
}

/// Key slots.
pub fn slot(bytes: &[u8]) {
    if let Ok(slot) = Slot::decode(bytes) {
        assert_eq!(slot.encode(), bytes);
    }
}

/// Key rings.
pub fn ring(bytes: &[u8]) {
    if let Ok(ring) = Ring::decode(bytes) {
        assert_eq!(*ring.encode(), bytes);
    }
}

/// Names of objects.
pub fn object_key(text: &str) {
    if let Ok(key) = ObjectKey::new(text)
        && let Some(object) = layout::parse(&key)
    {
        assert_eq!(object.key(), key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::samples;
    use crate::words::ids::PackId;
    use crate::words::stamp::Stamp;
    use proptest::prelude::*;
    use zeroize::Zeroizing;

    /// Good bytes of every kind, to be damaged.
    fn good() -> impl Strategy<Value = Vec<u8>> {
        let node = prop::collection::vec(any::<u8>(), 0..20).prop_map(|ids| {
            let ids = ids.into_iter().map(|byte| crate::words::ids::BlockId::from_bytes([byte; 32])).collect();
            MapNode::from_ids(1, ids).encode()
        });
        prop_oneof![
            node,
            samples::record().prop_map(|value| record::encode(&value)),
            samples::entry().prop_map(|value| attribute::encode(&value)),
            samples::contents().prop_map(|value| pack::encode_footer(&value.blocks)),
            prop::collection::vec(samples::contents(), 0..4).prop_map(|packs| fragment::encode(&packs)),
            (0..9u8).prop_map(|count| samples::pack(count).0),
            (0..9u8).prop_map(|count| condemned::encode(&vec![PackId::from_bytes([count; 32]); count.into()])),
            Just(samples::slot().encode().to_vec()),
            Just(samples::header().encode(|_| [0; 32])),
            Just(samples::pack(1).0[pack::HEADER_LEN..].to_vec()),
            Just(Ring { created: Stamp::from_millis(0), master: Zeroizing::new([1; 32]) }.encode().to_vec()),
        ]
    }

    fn run_all(bytes: &[u8]) {
        BODIES.iter().for_each(|(_, body)| body(bytes));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        #[test]
        fn random_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            run_all(&bytes);
        }

        #[test]
        fn good_bytes(bytes in good()) {
            run_all(&bytes);
        }

        #[test]
        fn damaged_bytes(bytes in good(), flips in prop::collection::vec(any::<(prop::sample::Index, u8)>(), 1..4)) {
            let mut bytes = bytes;
            for (at, flip) in flips {
                let at = at.index(bytes.len());
                bytes[at] ^= flip;
            }
            run_all(&bytes);
        }

        #[test]
        fn cut_and_extended_bytes(bytes in good(), cut in any::<prop::sample::Index>(), more in any::<[u8; 9]>()) {
            run_all(&bytes[..cut.index(bytes.len())]);
            run_all(&[&bytes[..], &more].concat());
        }

        #[test]
        fn names(text in "(packs|keys|ok|versions|attributes|index)/[a-f0-9/.-]{0,70}") {
            object_key(&text);
        }
    }

    #[test]
    fn huge_counts_allocate_nothing() {
        // A count of four thousand million with no bytes behind it: decoders that believed it would ask for gigabytes.
        for prefix in [&[][..], &[1, 0, 0, 0], &[0, 0, 0, 0]] {
            run_all(&[prefix, &[0xff; 4]].concat());
            run_all(&[prefix, &[0xff; 64]].concat());
        }
    }
}
