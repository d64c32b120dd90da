//! A target that is not the one it was: an old copy of it was put back, or some of it was lost. What the catalog knows may not be
//! there any more, and trusting it would acknowledge versions whose blocks are nowhere. So whatever reads a list of the target
//! compares it with what this host knew, and makes the catalog anew before going on when something is missing that nobody
//! removes (docs/architecture.md, "Processes and hosts").

use crate::format::layout::{self, ObjectKey};
use crate::repo::RepoError;
use crate::target::{Target, TargetError};
use crate::words::ids::{BatchId, FragmentId};
use std::fmt;

/// What is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RolledBack {
    /// An index fragment.
    Fragment(FragmentId),
    /// A batch of condemned packs.
    Batch(BatchId),
}

impl fmt::Display for RolledBack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fragment(id) => write!(f, "{}", layout::fragment(*id)),
            Self::Batch(id) => write!(f, "{}", layout::condemned(*id)),
        }
    }
}

/// Whether an object is certainly not there.
///
/// # Errors
/// When the target cannot be asked.
pub(super) fn is_absent(target: &dyn Target, key: &ObjectKey) -> Result<bool, RepoError> {
    match target.get(key) {
        Ok(_) | Err(TargetError::Truncated { .. }) => Ok(false),
        Err(TargetError::NotFound { .. }) => Ok(true),
        Err(error) => Err(error.into()),
    }
}
