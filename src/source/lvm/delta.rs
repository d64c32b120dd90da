//! What `thin_delta` says of two thin volumes of a pool.

use crate::source::changes::Changes;
use crate::source::{Content, Extent};

const SECTOR_BYTES: u64 = 512;

/// Reads its XML: `same`, `different`, `left_only` and `right_only` parts, in blocks of the pool. What it does not mention is mapped in
/// neither. `size_bytes` is that of the right volume, whose last block may be partial.
///
/// # Errors
/// What is not as it should be.
pub fn parse(xml: &str, size_bytes: u64) -> Result<Changes, String> {
    let mut block_bytes = None;
    let mut ended = false;
    let mut parts = Vec::new();
    for line in xml.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let tag = line
            .trim_start_matches('<')
            .split(|c: char| !(c.is_alphanumeric() || "_/".contains(c)))
            .next()
            .unwrap_or("");
        let number = |name: &str| -> Result<u64, String> {
            let at = line.find(&format!(" {name}=\"")).ok_or_else(|| format!("{line:?} has no {name}"))?;
            let text = line[at..].split('"').nth(1).unwrap_or("");
            text.parse().map_err(|_| format!("{line:?}: {name} is no number"))
        };
        let content = match tag {
            "superblock" => {
                let bytes = number("data_block_size")?.checked_mul(SECTOR_BYTES).filter(|bytes| *bytes > 0);
                block_bytes = Some(bytes.ok_or_else(|| format!("{line:?}: no size of blocks"))?);
                continue;
            }
            "diff" | "same" | "/diff" => continue,
            "/superblock" => {
                ended = true;
                continue;
            }
            "different" | "right_only" => Content::Data,
            // Discarded, or never there: it reads as zero now.
            "left_only" => Content::Hole,
            _ => return Err(format!("{line:?} is not understood")),
        };
        let block = block_bytes.ok_or("no size of blocks")?;
        let start = number("begin")?.checked_mul(block).ok_or("too large")?;
        let len = number("length")?.checked_mul(block).ok_or("too large")?;
        let end = start.checked_add(len).ok_or("too large")?.min(size_bytes);
        parts.push(Extent { range: start.min(end)..end, content });
    }
    // A list that was cut off must not pass for one without further changes.
    if ended { Ok(Changes::new(parts)) } else { Err("it ends in the middle".into()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    const BEFORE_AND_AFTER: &str = r#"<superblock uuid="" time="2" transaction="3" flags="0" version="2" data_block_size="128" nr_data_blocks="4096">
  <device dev_id="1" mapped_blocks="30" transaction="0" creation_time="0" snap_time="1">
    <range_mapping origin_begin="0" data_begin="0" length="20" time="0"/>
    <range_mapping origin_begin="100" data_begin="20" length="10" time="0"/>
  </device>
  <device dev_id="2" mapped_blocks="28" transaction="1" creation_time="1" snap_time="1">
    <range_mapping origin_begin="0" data_begin="0" length="5" time="0"/>
    <range_mapping origin_begin="5" data_begin="50" length="3" time="1"/>
    <range_mapping origin_begin="8" data_begin="8" length="12" time="0"/>
    <range_mapping origin_begin="100" data_begin="20" length="4" time="0"/>
    <range_mapping origin_begin="200" data_begin="60" length="4" time="1"/>
  </device>
</superblock>
"#;

    /// Real metadata, made and compared by the tools themselves.
    #[test]
    fn metadata_of_a_pool_is_compared() {
        let dir = tempfile::tempdir().unwrap();
        let (xml, pool) = (dir.path().join("xml"), dir.path().join("pool"));
        std::fs::write(&xml, BEFORE_AND_AFTER).unwrap();
        std::fs::File::create(&pool).unwrap().set_len(4 << 20).unwrap();
        let restored = Command::new("thin_restore").arg("-i").arg(&xml).arg("-o").arg(&pool).output().unwrap();
        assert!(restored.status.success(), "{restored:?}");
        let delta = Command::new("thin_delta").args(["--snap1", "1", "--snap2", "2"]).arg(&pool).output().unwrap();
        let said = String::from_utf8(delta.stdout).unwrap();
        const BLOCK: u64 = 64 << 10;
        let part = |from: u64, to: u64, content| Extent { range: from..to, content };
        let size = 203 * BLOCK + 512;
        let expected = [
            part(5 * BLOCK, 8 * BLOCK, Content::Data),
            part(104 * BLOCK, 110 * BLOCK, Content::Hole),
            part(200 * BLOCK, size, Content::Data),
        ];
        assert_eq!(parse(&said, size).unwrap().ranges(), expected);
        // Cut off anywhere, it is refused.
        let cut = said.rfind("<right_only").unwrap();
        assert!(parse(&said[..cut], size).is_err());
        assert!(parse("", size).is_err());
        assert!(parse("<superblock data_block_size=\"0\">\n</superblock>", size).is_err());
        assert!(
            parse("<superblock data_block_size=\"128\">\n<odd begin=\"1\" length=\"1\"/>\n</superblock>", size)
                .is_err()
        );
    }
}
