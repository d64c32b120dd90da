//! Condemned batches: packs that are dead for ever.

use crate::format::FormatError;
use crate::format::bytes::{Reader, Writer};
use crate::words::ids::PackId;

const WHAT: &str = "condemned batch";
const LAYOUT: u8 = 1;

/// Encodes a batch, in the order given.
pub fn encode(packs: &[PackId]) -> Vec<u8> {
    let mut writer = Writer::with_capacity(8 + packs.len() * PackId::LEN);
    writer.u8(LAYOUT).zeros(3).len(packs.len());
    for pack in packs {
        writer.raw(pack.as_bytes());
    }
    writer.finish()
}

/// Decodes a batch.
///
/// # Errors
/// When it is damaged or of a newer layout.
pub fn decode(bytes: &[u8]) -> Result<Vec<PackId>, FormatError> {
    let mut reader = Reader::new(WHAT, bytes);
    reader.layout(LAYOUT)?;
    reader.zeros(3)?;
    let count = reader.count(PackId::LEN)?;
    let (packs, _) = reader.take(count * PackId::LEN)?.as_chunks();
    reader.end()?;
    Ok(packs.iter().copied().map(PackId::from_bytes).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn batches_come_back(packs in prop::collection::vec(any::<[u8; 32]>(), 0..40)) {
            let packs: Vec<_> = packs.into_iter().map(PackId::from_bytes).collect();
            prop_assert_eq!(decode(&encode(&packs)), Ok(packs));
        }
    }
}
