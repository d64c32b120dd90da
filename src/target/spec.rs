//! How a target is written in configuration and on the command line.

use crate::format::layout::ObjectKey;
use crate::target::{
    CountingTarget, DirTarget, LimitedTarget, Limits, Patience, Requests, RetryTarget, S3Target, Target, TargetError,
    s3,
};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

/// Which target: `dir:/srv/backup`, just the absolute path, or `s3://bucket/prefix`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetSpec {
    /// A directory of a mounted filesystem.
    Dir(PathBuf),
    /// A part of a bucket.
    S3(s3::Place),
}

/// A text that names no target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// No bucket can have this name.
    #[error("target {0:?}: write s3://bucket/prefix; a bucket has 3 to 63 of the characters a-z 0-9 . -")]
    Bucket(String),
    /// A prefix of other characters than names of objects have.
    #[error("target {0:?}: the prefix may have the characters A-Z a-z 0-9 . _ - and single slashes")]
    Prefix(String),
    /// A path that depends on the working directory.
    #[error("target {0:?}: the path must be absolute, for example dir:/srv/backup")]
    NotAbsolute(String),
    /// Neither a path nor a known kind.
    #[error("target {0:?} is not understood: write dir:/path or s3://bucket/prefix")]
    Unknown(String),
}

impl FromStr for TargetSpec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let path = match text.split_once(':') {
            Some(("dir", path)) => path,
            Some(("s3", place)) => return parse_s3(text, place).map(Self::S3),
            _ if text.starts_with('/') => text,
            _ => return Err(SpecError::Unknown(text.to_owned())),
        };
        if !path.starts_with('/') || path.contains('\0') {
            return Err(SpecError::NotAbsolute(text.to_owned()));
        }
        // Component by component: "/srv//backup/." and "/srv/backup" are one target and print alike.
        Ok(Self::Dir(Path::new(path).components().collect()))
    }
}

fn parse_s3(text: &str, place: &str) -> Result<s3::Place, SpecError> {
    let place = place.strip_prefix("//").ok_or_else(|| SpecError::Bucket(text.to_owned()))?;
    let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-');
    let ends = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = bucket.as_bytes();
    if !((3..=63).contains(&bytes.len())
        && bytes.iter().copied().all(plain)
        && ends(bytes.first())
        && ends(bytes.last()))
    {
        return Err(SpecError::Bucket(text.to_owned()));
    }
    let prefix = prefix.trim_end_matches('/');
    if !prefix.is_empty() && ObjectKey::new(prefix).is_err() {
        return Err(SpecError::Prefix(text.to_owned()));
    }
    Ok(s3::Place { bucket: bucket.to_owned(), prefix: prefix.to_owned() })
}

impl fmt::Display for TargetSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dir(path) => write!(f, "dir:{}", path.display()),
            Self::S3(place) => place.fmt(f),
        }
    }
}

/// How targets are used.
#[derive(Debug, Clone, Default)]
pub struct OpenOptions {
    /// How to get to S3.
    pub s3: s3::Settings,
    /// Bandwidth; shared with whoever changes it.
    pub limits: Arc<Limits>,
    /// Counts what is asked of the target.
    pub requests: Arc<Requests>,
    /// How long transient errors of S3 are waited out; none at all when zero.
    pub patience: Duration,
}

/// The target a specification names. It is not touched yet, save that unfinished uploads of dead processes are removed.
///
/// # Errors
/// [`TargetError::Setup`] when the settings cannot be used: no credentials, a certificate that cannot be read.
pub fn open(spec: &TargetSpec, options: &OpenOptions) -> Result<Arc<dyn Target>, TargetError> {
    let limits = Arc::clone(&options.limits);
    Ok(match spec {
        TargetSpec::Dir(path) => {
            let counted = CountingTarget::new(DirTarget::open(path), Arc::clone(&options.requests));
            Arc::new(LimitedTarget::new(counted, limits))
        }
        TargetSpec::S3(place) => {
            let target = S3Target::open(place, &options.s3, limits, Arc::clone(&options.requests))?;
            Arc::new(RetryTarget::new(target, Patience::new(options.patience)))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_written_with_or_without_its_kind() {
        for text in ["dir:/srv/backup", "/srv/backup", "/srv//backup/", "dir:/srv/./backup"] {
            let spec: TargetSpec = text.parse().unwrap();
            assert_eq!(spec.to_string(), "dir:/srv/backup", "{text}");
            assert_eq!(open(&spec, &OpenOptions::default()).unwrap().describe(), "dir:/srv/backup");
        }
        let odd: TargetSpec = "/srv/a:b c".parse().unwrap();
        assert_eq!(odd, TargetSpec::Dir("/srv/a:b c".into()));
    }

    #[test]
    fn a_place_in_s3_has_a_bucket_and_perhaps_a_prefix() {
        for (text, shown) in [
            ("s3://my.bucket-1/host/a", "s3://my.bucket-1/host/a"),
            ("s3://bucket/a/", "s3://bucket/a"),
            ("s3://bucket/", "s3://bucket"),
            ("s3://bucket", "s3://bucket"),
        ] {
            assert_eq!(text.parse::<TargetSpec>().unwrap().to_string(), shown);
        }
        for text in ["s3:", "s3:bucket/x", "s3://", "s3://ab/x", "s3://Bucket/x", "s3://-bad/x", "s3:///x"] {
            assert!(matches!(text.parse::<TargetSpec>(), Err(SpecError::Bucket(_))), "{text}");
        }
        for text in ["s3://bucket//x", "s3://bucket/a b", "s3://bucket/a/../b", "s3://bucket/é"] {
            assert!(matches!(text.parse::<TargetSpec>(), Err(SpecError::Prefix(_))), "{text}");
        }
    }

    #[test]
    fn what_is_no_target_is_refused() {
        for text in ["", "srv/backup", "ftp://x/y", "rbd:pool"] {
            assert!(matches!(text.parse::<TargetSpec>(), Err(SpecError::Unknown(_))), "{text}");
        }
        for text in ["dir:", "dir:backup", "dir:./backup", "dir:/a\0b"] {
            assert!(matches!(text.parse::<TargetSpec>(), Err(SpecError::NotAbsolute(_))), "{text}");
        }
    }
}
