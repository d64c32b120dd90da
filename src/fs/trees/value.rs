//! The attribute files' contents: values to text and back. Pure.

use crate::words::attribute::{AttributeChange, Attributes, Validity};
use crate::words::name::{Name, check_tag};
use crate::words::stamp::Stamp;
use std::collections::BTreeSet;

/// The attributes that have a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Attribute {
    Name,
    SnapshotName,
    Tags,
    Expire,
    Protected,
    Valid,
}

/// What was written, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Exactly these tags.
    Tags(BTreeSet<String>),
    /// Any other attribute.
    Change(AttributeChange),
}

/// Longest `snapshot_name`.
pub const SNAPSHOT_NAME_MAX_BYTES: usize = 4000;
/// Longest reason in `valid`.
pub const REASON_MAX_BYTES: usize = 1000;

/// Text that is not a value; the sentence says why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ValueError(String);

impl ValueError {
    fn new(problem: impl ToString) -> Self {
        Self(problem.to_string())
    }
}

/// What reading shows. Tags stand one a line, so that no tags are no lines; every other value is one line.
pub fn render(attribute: Attribute, attributes: &Attributes) -> String {
    let mut text = match attribute {
        Attribute::Name => attributes.name.to_string(),
        Attribute::SnapshotName => attributes.snapshot_name.clone(),
        Attribute::Tags => return attributes.tags.iter().map(|tag| format!("{tag}\n")).collect(),
        Attribute::Expire => attributes.expire.map(Stamp::to_seconds_text).unwrap_or_default(),
        Attribute::Protected => u8::from(attributes.protected).to_string(),
        Attribute::Valid if attributes.validity.reason().is_empty() => attributes.validity.word().to_owned(),
        Attribute::Valid => attributes.validity.to_string().replace('\n', " "),
    };
    text.push('\n');
    text
}

/// Understands what was written: the whole text, whatever writes it came in. A lone newline clears what can be empty.
///
/// # Errors
/// Why it cannot be the value.
pub fn parse(attribute: Attribute, bytes: &[u8], now: Stamp) -> Result<Value, ValueError> {
    let text = std::str::from_utf8(bytes).map_err(|_| ValueError::new("it is not UTF-8 text"))?;
    if text.contains('\0') {
        return Err(ValueError::new("it contains NUL"));
    }
    if attribute == Attribute::Tags {
        return parse_tags(text).map(Value::Tags);
    }
    let line = text.strip_suffix('\n').unwrap_or(text);
    if line.contains('\n') {
        return Err(ValueError::new("it has more than one line"));
    }
    let change = match attribute {
        Attribute::Name => AttributeChange::Name(Name::new(line).map_err(ValueError::new)?),
        Attribute::SnapshotName if line.len() > SNAPSHOT_NAME_MAX_BYTES => {
            return Err(ValueError::new(format!("it is longer than {SNAPSHOT_NAME_MAX_BYTES} bytes")));
        }
        Attribute::SnapshotName => AttributeChange::SnapshotName(line.to_owned()),
        Attribute::Expire => AttributeChange::Expire(parse_expire(line.trim(), now)?),
        Attribute::Protected => AttributeChange::Protected(parse_protected(line.trim())?),
        Attribute::Valid => AttributeChange::Validity(parse_validity(line.trim())?),
        Attribute::Tags => unreachable!("parsed above"),
    };
    Ok(Value::Change(change))
}

fn parse_tags(text: &str) -> Result<BTreeSet<String>, ValueError> {
    let tags = text.split(['\n', ',']).map(str::trim).filter(|tag| !tag.is_empty());
    tags.map(|tag| check_tag(tag).map(|()| tag.to_owned()).map_err(ValueError::new)).collect()
}

/// Whole seconds, as shown, so that reading and writing back changes nothing.
fn parse_expire(text: &str, now: Stamp) -> Result<Option<Stamp>, ValueError> {
    if text.is_empty() {
        return Ok(None);
    }
    let at = Stamp::parse(text, now).map_err(ValueError::new)?;
    Ok(Some(at.plus_millis(-at.millis().rem_euclid(1000))))
}

fn parse_protected(text: &str) -> Result<bool, ValueError> {
    match text {
        "0" => Ok(false),
        "1" => Ok(true),
        _ => Err(ValueError::new(format!("{text:?} is neither 0 nor 1"))),
    }
}

/// `valid`, or `invalid` or `incomplete` with a reason; a colon after the word is how it is shown.
fn parse_validity(text: &str) -> Result<Validity, ValueError> {
    let end = text.find([':', ' ', '\t']).unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    let reason = rest.strip_prefix(':').unwrap_or(rest).trim();
    if reason.len() > REASON_MAX_BYTES {
        return Err(ValueError::new(format!("the reason is longer than {REASON_MAX_BYTES} bytes")));
    }
    match word {
        "valid" if rest.is_empty() => Ok(Validity::Valid),
        "invalid" => Ok(Validity::Invalid(reason.to_owned())),
        "incomplete" => Ok(Validity::Incomplete(reason.to_owned())),
        _ => Err(ValueError::new(format!("{text:?} is not `valid`, `invalid REASON` or `incomplete REASON`"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::attribute::apply;

    const NOW: Stamp = Stamp::from_millis(1_795_372_262_123);

    fn attributes() -> Attributes {
        crate::repo::testing::attributes("vm")
    }

    fn written(attribute: Attribute, text: &str) -> Result<String, ValueError> {
        let mut after = attributes();
        match parse(attribute, text.as_bytes(), NOW)? {
            Value::Tags(tags) => after.tags = tags,
            Value::Change(change) => apply(&mut after, &change),
        }
        Ok(render(attribute, &after))
    }

    #[test]
    fn what_is_written_is_read() {
        let long = "x".repeat(SNAPSHOT_NAME_MAX_BYTES);
        for (attribute, text, expected) in [
            (Attribute::Tags, "golden\nkeep\n", "golden\nkeep\n"),
            (Attribute::Tags, "b, a,,\n c \n", "a\nb\nc\n"),
            (Attribute::Tags, "\n", ""),
            (Attribute::Tags, "no newline", "no newline\n"),
            (Attribute::Expire, "2030-01-02\n", "2030-01-02T00:00:00Z\n"),
            (Attribute::Expire, "2030-01-02T03:04:05.678+01:00", "2030-01-02T02:04:05Z\n"),
            (Attribute::Expire, " 1d \n", "2026-11-23T18:31:02Z\n"),
            (Attribute::Expire, "\n", "\n"),
            (Attribute::Protected, "1\n", "1\n"),
            (Attribute::Protected, "0", "0\n"),
            (Attribute::Valid, "valid\n", "valid\n"),
            (Attribute::Valid, "invalid\n", "invalid\n"),
            (Attribute::Valid, "incomplete cp was killed\n", "incomplete: cp was killed\n"),
            (Attribute::Valid, "incomplete: cp was killed\n", "incomplete: cp was killed\n"),
            (Attribute::Name, "host1/disks/vm 1\n", "host1/disks/vm 1\n"),
            (Attribute::Name, " vm ", " vm \n"),
            (Attribute::SnapshotName, "before the upgrade\n", "before the upgrade\n"),
            (Attribute::SnapshotName, "\n", "\n"),
            (Attribute::SnapshotName, &long, &format!("{long}\n")),
        ] {
            assert_eq!(written(attribute, text).as_deref(), Ok(expected), "{attribute:?} {text:?}");
            assert_eq!(written(attribute, expected).as_deref(), Ok(expected), "{attribute:?} {expected:?}");
        }
    }

    #[test]
    fn what_is_no_value_is_refused() {
        let long = "x".repeat(SNAPSHOT_NAME_MAX_BYTES + 1);
        for (attribute, text) in [
            (Attribute::Tags, "a/b"),
            (Attribute::Tags, "."),
            (Attribute::Tags, "a\n..\n"),
            (Attribute::Tags, "a\0"),
            (Attribute::Expire, "soon\n"),
            (Attribute::Expire, "2030-13-01\n"),
            (Attribute::Expire, "2030-01-01\n2030-01-02\n"),
            (Attribute::Protected, "\n"),
            (Attribute::Protected, "yes\n"),
            (Attribute::Protected, "1\n0\n"),
            (Attribute::Valid, "\n"),
            (Attribute::Valid, "valid really\n"),
            (Attribute::Valid, "ok\n"),
            (Attribute::Name, "\n"),
            (Attribute::Name, "a//b\n"),
            (Attribute::Name, "a\nb\n"),
            (Attribute::SnapshotName, &long),
            (Attribute::SnapshotName, "two\nlines\n"),
        ] {
            assert!(written(attribute, text).is_err(), "{attribute:?} {text:?}");
        }
        assert!(parse(Attribute::SnapshotName, b"\xff\n", NOW).is_err());
    }
}
