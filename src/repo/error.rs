//! What can go wrong in the repository.

use crate::catalog::CatalogError;
use crate::format::FormatError;
use crate::seal::{KeyError, SealError};
use crate::target::TargetError;
use crate::words::ids::{BlockId, HostId, Uid};
use std::sync::Arc;

/// An error of the repository. It can be cloned, because an error of background work is given to everyone it concerns.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RepoError {
    /// The target failed; the source says whether the thing is gone or the target cannot be reached.
    #[error("{0}")]
    Target(#[source] Arc<TargetError>),
    /// The local catalog failed.
    #[error("{0}")]
    Catalog(#[source] Arc<CatalogError>),
    /// Something stored cannot be understood.
    #[error("{what}: {source}")]
    Format {
        /// The object.
        what: String,
        /// Why.
        source: Arc<FormatError>,
    },
    /// Something stored was not authentic.
    #[error("{what}: {source}")]
    Seal {
        /// The object.
        what: String,
        /// Why.
        source: Arc<SealError>,
    },
    /// The key does not open the repository.
    #[error("{0}")]
    Key(#[source] Arc<KeyError>),
    /// No readable copy of a block is left.
    #[error("block {id} is damaged or missing: {detail}")]
    Damaged {
        /// The block.
        id: BlockId,
        /// Which copies were tried, and what was wrong with each.
        detail: String,
    },
    /// There is no repository at the target.
    #[error(
        "there is no backyfs repository at {target}: run `backyfs init`, or mount the target if it is a mountpoint"
    )]
    NoRepository {
        /// The target.
        target: String,
    },
    /// There are objects of a repository, but not the header that makes it one.
    #[error(
        "the header of the backyfs repository at {target} is missing, and {object} is there: `backyfs repair` on a host that has used it \
         puts the header back"
    )]
    NoHeader {
        /// The target.
        target: String,
        /// One of the objects.
        object: String,
    },
    /// There are keys, and nothing else.
    #[error(
        "{target} holds keys without a repository ({object}): another `backyfs init` is at work, or one was interrupted; if none is at \
         work and nothing else was ever there, delete everything below keys/ and spare/ and run it again"
    )]
    HalfMade {
        /// The target.
        target: String,
        /// One of the keys.
        object: String,
    },
    /// A repository exists already.
    #[error("{target} already holds a backyfs repository: nothing was changed")]
    AlreadyExists {
        /// The target.
        target: String,
    },
    /// A collector withdrew the record while it was being confirmed.
    #[error("version {uid} was withdrawn by a collector before it was confirmed: copy it again")]
    Withdrawn {
        /// The record.
        uid: Uid,
    },
    /// A version was protected while it was to be deleted.
    #[error("version {uid} is protected: take the protection off first (`backyfs unprotect`)")]
    Protected {
        /// The version.
        uid: Uid,
    },
    /// Another process of this host is reading a version.
    #[error("version {uid} is in use: another process of this host is reading it, or deleting it")]
    InUse {
        /// The version.
        uid: Uid,
    },
    /// Another host uses a version.
    #[error("version {uid} is in use on host {host}: end that there, or `backyfs rm --force` deletes the version")]
    InUseElsewhere {
        /// The version.
        uid: Uid,
        /// Who.
        host: HostId,
    },
    /// No version is meant by this text.
    #[error(
        "no version is called {spec:?}: give a uid, the beginning of one, NAME or NAME@2026-11-22 (see `backyfs ls`)"
    )]
    NoSuchVersion {
        /// As given.
        spec: String,
    },
    /// Several versions are meant by this text.
    #[error("{spec:?} means {count} versions: give more digits")]
    Ambiguous {
        /// As given.
        spec: String,
        /// How many.
        count: usize,
    },
    /// A name is taken as a directory or as a file.
    #[error("{name:?} collides with the backup {other:?}: one would have to be a directory and a file at once")]
    NameCollision {
        /// The new name.
        name: String,
        /// The one that exists.
        other: String,
    },
    /// No draft has this uid.
    #[error("no draft has the uid {uid} (see `backyfs status`)")]
    NoSuchDraft {
        /// As given.
        uid: Uid,
    },
    /// This host has a draft of that name already.
    #[error("this host has a draft of {name:?} already: finish it or remove it first")]
    DraftExists {
        /// The name.
        name: String,
    },
    /// The state directory cannot be used.
    #[error("state directory {path}: {source}")]
    State {
        /// Where.
        path: String,
        /// Why.
        source: Arc<std::io::Error>,
    },
    /// A background thread is gone.
    #[error("a background thread has ended; restart backyfs")]
    Stopped,
}

impl From<TargetError> for RepoError {
    fn from(error: TargetError) -> Self {
        Self::Target(Arc::new(error))
    }
}

impl From<CatalogError> for RepoError {
    fn from(error: CatalogError) -> Self {
        Self::Catalog(Arc::new(error))
    }
}

impl From<KeyError> for RepoError {
    fn from(error: KeyError) -> Self {
        Self::Key(Arc::new(error))
    }
}

impl RepoError {
    /// Names the object that could not be understood.
    pub fn format(what: impl Into<String>) -> impl FnOnce(FormatError) -> Self {
        |source| Self::Format { what: what.into(), source: Arc::new(source) }
    }

    /// Names the object that was not authentic.
    pub fn seal(what: impl Into<String>) -> impl FnOnce(SealError) -> Self {
        |source| Self::Seal { what: what.into(), source: Arc::new(source) }
    }

    /// Whether the thing asked for is known to be absent (as against out of reach).
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::Target(error) if matches!(**error, TargetError::NotFound { .. }))
    }
}
