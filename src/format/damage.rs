//! Damage reports: copies of blocks that were found to be bad.

use crate::format::FormatError;
use crate::format::bytes::{Reader, Writer};
use crate::format::pack::{kind_number, read_kind};
use crate::words::damage::DamageReport;
use crate::words::ids::{BlockId, HostId, PackId};
use crate::words::stamp::Stamp;

const WHAT: &str = "damage report";
const LAYOUT: u8 = 1;

/// Encodes a report.
pub fn encode(report: &DamageReport) -> Vec<u8> {
    let mut writer = Writer::with_capacity(128 + report.blocks.len() * BlockId::LEN);
    writer.u8(LAYOUT).zeros(7).raw(report.pack.as_bytes()).u8(kind_number(report.kind)).zeros(7);
    writer.raw(report.host.as_bytes()).i64(report.at.millis()).text(&report.reason).len(report.blocks.len());
    for block in &report.blocks {
        writer.raw(block.as_bytes());
    }
    writer.finish()
}

/// Decodes a report.
///
/// # Errors
/// When it is damaged itself, or of a newer layout.
pub fn decode(bytes: &[u8]) -> Result<DamageReport, FormatError> {
    let mut reader = Reader::new(WHAT, bytes);
    reader.layout(LAYOUT)?;
    reader.zeros(7)?;
    let pack = PackId::from_bytes(reader.array()?);
    let kind = read_kind(&mut reader)?;
    reader.zeros(7)?;
    let (host, at) = (HostId::from_bytes(reader.array()?), Stamp::from_millis(reader.i64()?));
    let reason = reader.text("reason")?.to_owned();
    let count = reader.count(BlockId::LEN)?;
    let (blocks, _) = reader.take(count * BlockId::LEN)?.as_chunks();
    reader.end()?;
    let blocks = blocks.iter().copied().map(BlockId::from_bytes).collect();
    Ok(DamageReport { pack, kind, host, at, reason, blocks })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::record::BlockKind;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn reports_come_back(
            (pack, host, at) in any::<([u8; 32], [u8; 16], i64)>(),
            data in any::<bool>(),
            reason in "\\PC{0,20}",
            blocks in prop::collection::vec(any::<[u8; 32]>(), 0..20),
        ) {
            let report = DamageReport {
                pack: PackId::from_bytes(pack),
                kind: if data { BlockKind::Data } else { BlockKind::Map },
                host: HostId::from_bytes(host),
                at: Stamp::from_millis(at),
                reason,
                blocks: blocks.into_iter().map(BlockId::from_bytes).collect(),
            };
            prop_assert_eq!(decode(&encode(&report)), Ok(report));
        }
    }
}
