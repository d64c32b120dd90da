//! A place that can be opened as a source, and restored to: a path, an rbd image, a logical volume.

use crate::source::destination::{Destination, Manner};
use crate::source::{Source, SourceError};
use std::sync::Arc;

/// The beginning of the names of our snapshots. What follows is a UUID, so a snapshot of that name is the one we made.
pub const SNAPSHOT_PREFIX: &str = "backyfs-";

/// What opening does with snapshots, on volumes that have them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment<'a> {
    /// A snapshot of now is taken under this name.
    Now {
        /// Its name, not in use yet.
        name: &'a str,
    },
    /// A snapshot of ours is opened again.
    Kept {
        /// Its name.
        name: &'a str,
    },
}

impl Moment<'_> {
    /// The snapshot's name.
    pub const fn name(&self) -> &str {
        match self {
            Self::Now { name } | Self::Kept { name } => name,
        }
    }
}

/// See the module.
pub trait Volume: Send + Sync {
    /// How it is called in messages and on the command line.
    fn describe(&self) -> String;

    /// Whether opening it takes a snapshot. When it does not, the [`Moment`] is passed over.
    fn takes_snapshots(&self) -> bool {
        false
    }

    /// Opens it.
    ///
    /// # Errors
    /// When it cannot be opened. A snapshot that was taken for it is gone again then, or will be found by its name.
    fn open(&self, moment: Moment<'_>) -> Result<Arc<dyn Source>, SourceError>;

    /// Removes a snapshot of ours; one that is not there is removed already.
    ///
    /// # Errors
    /// When it cannot be removed now.
    fn remove_snapshot(&self, _name: &str) -> Result<(), SourceError> {
        Ok(())
    }

    /// Makes it, or opens it for writing. Nothing was changed when this fails for want of consent.
    ///
    /// # Errors
    /// When it exists and may not be overwritten, is too small, in use, or cannot be written.
    fn destination(&self, manner: &Manner) -> Result<Box<dyn Destination>, SourceError>;
}
