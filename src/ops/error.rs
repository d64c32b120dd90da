//! Why a verb did not do what it was asked to.

use crate::repo::RepoError;
use crate::source::SourceError;
use crate::source::error::SourceFailure;
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
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(
        "{what} differs from version {base} at offset {offset}, where nothing should have changed: whatever told the changes \
         was wrong. Nothing was published and the version was kept; back up without hints (or --full), and see whether it is \
         the right source"
    )]
    Differs { what: String, offset: u64, base: String },
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
            Self::Source(error) => match error.failure() {
                SourceFailure::Refused => Failure::Refused,
                SourceFailure::Reading => Failure::Source,
                SourceFailure::Writing => Failure::Other,
            },
            Self::Differs { .. } => Failure::Source,
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
        RepoError::Damaged { .. } | RepoError::Format { .. } | RepoError::Seal { .. } | RepoError::NoHeader { .. } => {
            Failure::Damage
        }
        RepoError::Key(error) if error.is_damage() => Failure::Damage,
        RepoError::Catalog(_) | RepoError::Withdrawn { .. } | RepoError::Stopped => Failure::Other,
        _ => Failure::Refused,
    }
}

/// Whether an error means that something stored is bad, as against out of reach.
pub fn is_damage(error: &RepoError) -> bool {
    failure_of(error) == Failure::Damage
}
