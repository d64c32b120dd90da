//! What can go wrong with the catalog. Nothing here loses a backup: the catalog is rebuilt from the target.

use std::io;
use std::path::PathBuf;

/// An error of the catalog; each names the directory it lies in.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// The file system of the state directory is full. The change was not made, what was there before is whole.
    #[error("no space left for the catalog in {}: free some and try again", path.display())]
    NoSpace {
        /// The catalog's directory.
        path: PathBuf,
    },
    /// What is stored cannot be understood.
    #[error("the catalog in {} is damaged ({problem}): run `backyfs rebuild`, no backup is lost", path.display())]
    Corrupt {
        /// The catalog's directory.
        path: PathBuf,
        /// What was found.
        problem: String,
    },
    /// It is in use in a way that excludes this one.
    #[error("the catalog in {} is busy: {problem}", path.display())]
    Busy {
        /// The catalog's directory.
        path: PathBuf,
        /// By what.
        problem: &'static str,
    },
    /// Any other failure of the file system below it.
    #[error("the catalog in {} cannot be used: {source}", path.display())]
    Io {
        /// The catalog's directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}
