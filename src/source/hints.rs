//! Change hints: JSON as `rbd diff --format json` writes it, from whoever knows what has changed.
//!
//! ```json
//! [{"offset": 0, "length": 4194304, "exists": "true"}, {"offset": 8388608, "length": 4096, "exists": false}]
//! ```

use crate::source::changes::Changes;
use crate::source::{Content, Extent, SourceError};
use serde::Deserialize;
use std::io::Read;

/// One hint. Other fields that a tool may write beside these are passed over.
#[derive(Debug, Deserialize)]
struct Hint {
    offset: u64,
    length: u64,
    exists: Exists,
}

/// `rbd diff` has written texts for years and may write booleans one day.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Exists {
    Bool(bool),
    Text(Text),
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Text {
    True,
    False,
}

impl Exists {
    const fn content(&self) -> Content {
        match self {
            Self::Bool(true) | Self::Text(Text::True) => Content::Data,
            Self::Bool(false) | Self::Text(Text::False) => Content::Hole,
        }
    }
}

/// Reads hints for a source of `size_bytes`. `file` is how their origin is called in messages.
///
/// # Errors
/// When they are no hints, or one reaches past the end of the source: then they were made for another disk, or another moment.
pub fn read(json: impl Read, file: &str, size_bytes: u64) -> Result<Changes, SourceError> {
    let failed = |problem: String| SourceError::Hints { file: file.to_owned(), problem };
    let hints: Vec<Hint> = serde_json::from_reader(std::io::BufReader::new(json))
        .map_err(|error| failed(format!("this is no list of {{offset, length, exists}}: {error}")))?;
    let parts = hints.iter().map(|hint| {
        let end = hint.offset.checked_add(hint.length).filter(|end| *end <= size_bytes);
        let end = end.ok_or_else(|| {
            let Hint { offset, length, .. } = hint;
            failed(format!("offset {offset}, length {length} reaches past the end of the source, {size_bytes} bytes"))
        })?;
        Ok(Extent { range: hint.offset..end, content: hint.exists.content() })
    });
    Ok(Changes::new(parts.collect::<Result<Vec<_>, _>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Changes, String> {
        read(text.as_bytes(), "h.json", 10_000).map_err(|error| error.to_string())
    }

    #[test]
    fn as_rbd_and_others_write_them() {
        let text = r#"[{"offset":0,"length":10,"exists":"true"},{"offset":20,"length":5,"exists":false, "zero": 1},
                       {"offset":5,"length":10,"exists":true},{"offset":9000,"length":1000,"exists":"false"},
                       {"offset":10000,"length":0,"exists":true}]"#;
        let part = |range, content| Extent { range, content };
        let expected = [part(0..15, Content::Data), part(20..25, Content::Hole), part(9000..10_000, Content::Hole)];
        assert_eq!(parse(text).unwrap().ranges(), expected);
        assert_eq!(parse("[]").unwrap(), Changes::default());
    }

    #[test]
    fn what_is_wrong_is_told() {
        let past = parse(r#"[{"offset":9999,"length":2,"exists":true}]"#).unwrap_err();
        assert!(past.contains("h.json") && past.contains("9999") && past.contains("past the end"), "{past}");
        assert!(parse(r#"[{"offset":18446744073709551615,"length":2,"exists":true}]"#).is_err());
        for bad in [
            "",
            "{}",
            "[1]",
            r#"[{"offset":0,"length":1}]"#,
            r#"[{"offset":-1,"length":1,"exists":true}]"#,
            r#"[{"offset":0,"length":1,"exists":"maybe"}]"#,
            r#"[{"offset":0,"length":1,"exists":1}]"#,
        ] {
            assert!(parse(bad).unwrap_err().contains("no list"), "{bad}");
        }
    }
}
