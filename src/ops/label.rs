//! Changing attributes of versions, and naming the ones that are meant.

use crate::catalog::Version;
use crate::ops::OpsError;
use crate::repo::Repository;
use crate::words::attribute::AttributeChange;
use crate::words::ids::Uid;
use crate::words::name::{Name, check_tag};
use crate::words::stamp::Stamp;
use std::collections::BTreeSet;

/// Changes attributes of a version and returns it as it is then.
///
/// # Errors
/// When there is no such version, a tag is none, or target or catalog fail.
pub fn label(repo: &Repository, spec: &str, changes: &[AttributeChange]) -> Result<Version, OpsError> {
    let uid = repo.resolve(spec)?.record.uid;
    repo.change_attributes(uid, changes)?;
    Ok(repo.version(uid)?)
}

/// Reads tags as people write them: several arguments, each perhaps a list with commas.
///
/// # Errors
/// What is wrong with one of them.
pub fn parse_tags(texts: &[String]) -> Result<BTreeSet<String>, OpsError> {
    let words = texts.iter().flat_map(|text| text.split(',')).map(str::trim).filter(|tag| !tag.is_empty());
    words.map(|tag| check_tag(tag).map(|()| tag.to_owned()).map_err(OpsError::refused)).collect()
}

/// Reads a time of expiry; nothing, `never` and `none` take it away.
///
/// # Errors
/// When it is no date.
pub fn parse_expire(text: &str, now: Stamp) -> Result<Option<Stamp>, OpsError> {
    match text.trim() {
        "" | "never" | "none" => Ok(None),
        date => Stamp::parse(date, now).map(Some).map_err(|error| OpsError::refused(error.to_string())),
    }
}

/// A moment of the past or, as everywhere, a date.
///
/// # Errors
/// When it is neither.
pub fn parse_moment(text: &str, now: Stamp) -> Result<Stamp, OpsError> {
    Stamp::parse(text.trim(), now).map_err(|error| OpsError::refused(error.to_string()))
}

/// The version to delete. A bare name means its newest version everywhere else; who deletes must say which one.
///
/// # Errors
/// When it is a bare name, or no version is meant.
pub fn resolve_for_removal(repo: &Repository, spec: &str) -> Result<Uid, OpsError> {
    let is_uid = spec.parse::<Uid>().is_ok();
    let is_name = Name::new(spec).is_ok_and(|name| repo.catalog().name_exists(&name).unwrap_or(false));
    if is_name && !is_uid {
        return Err(OpsError::refused(format!(
            "{spec:?} is a name with perhaps many versions: give the uid of the one to delete, or NAME@DATE (see `backyfs ls {spec}`)"
        )));
    }
    Ok(repo.resolve(spec)?.record.uid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_and_dates_as_people_write_them() {
        let tags = parse_tags(&["a,b".into(), " c ".into(), ",".into()]).unwrap();
        assert_eq!(tags.into_iter().collect::<Vec<_>>(), ["a", "b", "c"]);
        assert!(parse_tags(&["a/b".into()]).is_err());
        let now = Stamp::from_millis(0);
        assert_eq!(parse_expire("", now).unwrap(), None);
        assert_eq!(parse_expire("never", now).unwrap(), None);
        assert_eq!(parse_expire("1d", now).unwrap(), Some(Stamp::from_millis(86_400_000)));
        assert!(parse_expire("soon", now).is_err());
    }
}
