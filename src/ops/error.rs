//! Why a verb did not do what it was asked to.

use crate::repo::RepoError;
use crate::target::TargetError;
use std::io;
use std::path::PathBuf;

/// An error of a verb. Each names the file or version and, where there is one, the way out.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum OpsError {
    #[error(transparent)]
    Repo(#[from] RepoError),
    #[error("{what}")]
    Refused { what: String },
    #[error("{path} cannot be opened: {source}", path = .path.display())]
    Source { path: PathBuf, source: io::Error },
    #[error("{path} cannot be backed up: {problem}", path = .path.display())]
    SourceKind { path: PathBuf, problem: &'static str },
    #[error("{path} cannot be read at offset {offset}: {source}; nothing was published", path = .path.display())]
    SourceRead { path: PathBuf, offset: u64, source: io::Error },
    #[error("{path} ended at offset {offset} while it was being read; nothing was published", path = .path.display())]
    SourceShrank { path: PathBuf, offset: u64 },
    #[error("{path} exists: use --force to overwrite it", path = .path.display())]
    Exists { path: PathBuf },
    #[error("{path} is left from a restore that did not finish: use --continue to go on, or --force to begin anew", path = .path.display())]
    Unfinished { path: PathBuf },
    #[error("{path} has {has_bytes} bytes, too few for an image of {needed_bytes} bytes", path = .path.display())]
    TooSmall { path: PathBuf, has_bytes: u64, needed_bytes: u64 },
    #[error("{path} cannot be restored to: {problem}", path = .path.display())]
    DestinationKind { path: PathBuf, problem: &'static str },
    #[error("{path} cannot be {action}: {source}", path = .path.display())]
    Destination { path: PathBuf, action: &'static str, source: io::Error },
    #[error("version {uid} cannot be read at offset {offset}: {source}; use --skip-damaged to restore the rest")]
    Damaged { uid: String, offset: u64, source: RepoError },
    #[error("{file}: {problem}")]
    Import { file: String, problem: String },
    #[error("interrupted; what was stored is kept, and repeating the command goes on from there")]
    Interrupted,
}

/// What kind of failure it is, for exit codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// Asked for something impossible, refused, or not set up.
    Refused,
    /// The source of a backup could not be read.
    Source,
    /// The target failed or is full.
    Target,
    /// Stored data is damaged or missing.
    Damage,
    /// A signal.
    Interrupted,
    /// Anything else.
    Other,
}

impl OpsError {
    /// A refusal in words.
    pub fn refused(what: impl Into<String>) -> Self {
        Self::Refused { what: what.into() }
    }

    /// Its kind.
    pub fn failure(&self) -> Failure {
        match self {
            Self::Repo(error) => failure_of(error),
            Self::Source { .. } | Self::SourceRead { .. } | Self::SourceShrank { .. } => Failure::Source,
            Self::Damaged { .. } => Failure::Damage,
            Self::Destination { .. } => Failure::Other,
            Self::Interrupted => Failure::Interrupted,
            _ => Failure::Refused,
        }
    }
}

/// The kind of an error of the repository.
pub fn failure_of(error: &RepoError) -> Failure {
    match error {
        RepoError::Target(error) if matches!(**error, TargetError::Occupied { .. }) => Failure::Refused,
        RepoError::Target(_) => Failure::Target,
        RepoError::Damaged { .. } | RepoError::Format { .. } | RepoError::Seal { .. } => Failure::Damage,
        RepoError::Catalog(_) | RepoError::Withdrawn { .. } | RepoError::Stopped => Failure::Other,
        _ => Failure::Refused,
    }
}

/// Whether an error means that something stored is bad, as against out of reach.
pub fn is_damage(error: &RepoError) -> bool {
    failure_of(error) == Failure::Damage
}
