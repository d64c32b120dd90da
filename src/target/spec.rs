//! How a target is written in configuration and on the command line.

use crate::target::{DirTarget, Target};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

/// Which target: `dir:/srv/backup`, or just the absolute path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetSpec {
    /// A directory of a mounted filesystem.
    Dir(PathBuf),
}

/// A text that names no target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// Known, but not part of this program.
    #[error("target {0:?}: s3: targets are not built in yet; use dir:/path")]
    S3NotBuiltIn(String),
    /// A path that depends on the working directory.
    #[error("target {0:?}: the path must be absolute, for example dir:/srv/backup")]
    NotAbsolute(String),
    /// Neither a path nor a known kind.
    #[error("target {0:?} is not understood: write dir:/path")]
    Unknown(String),
}

impl FromStr for TargetSpec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let path = match text.split_once(':') {
            Some(("dir", path)) => path,
            Some(("s3", _)) => return Err(SpecError::S3NotBuiltIn(text.to_owned())),
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

impl fmt::Display for TargetSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dir(path) => write!(f, "dir:{}", path.display()),
        }
    }
}

/// The target a specification names. It is not touched yet, save that unfinished uploads of dead processes are removed.
pub fn open(spec: &TargetSpec) -> Arc<dyn Target> {
    match spec {
        TargetSpec::Dir(path) => Arc::new(DirTarget::open(path)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_written_with_or_without_its_kind() {
        for text in ["dir:/srv/backup", "/srv/backup", "/srv//backup/", "dir:/srv/./backup"] {
            let spec: TargetSpec = text.parse().unwrap();
            assert_eq!(spec.to_string(), "dir:/srv/backup", "{text}");
            assert_eq!(open(&spec).describe(), "dir:/srv/backup");
        }
        let odd: TargetSpec = "/srv/a:b c".parse().unwrap();
        assert_eq!(odd, TargetSpec::Dir("/srv/a:b c".into()));
    }

    #[test]
    fn everything_else_is_refused_with_the_reason() {
        let parse = |text: &str| text.parse::<TargetSpec>().unwrap_err();
        assert!(matches!(parse("dir:backup"), SpecError::NotAbsolute(_)));
        assert!(matches!(parse("dir:"), SpecError::NotAbsolute(_)));
        assert!(parse("s3:bucket/prefix").to_string().contains("not built in yet"));
        for bad in ["", "backup", "ftp:/srv", "./x"] {
            assert!(matches!(parse(bad), SpecError::Unknown(_)), "{bad}");
        }
    }
}
