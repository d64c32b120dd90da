//! A place that can be opened as a source, and restored to: a path, an rbd image, a logical volume.

use crate::source::destination::{Destination, Manner};
use crate::source::{Source, SourceError};
use std::sync::Arc;

/// What names of our snapshots have before the UUID that they end with, so a snapshot of that name is the one we made. Before it
/// may stand what was configured.
pub const SNAPSHOT_MARK: &str = "backyfs-";
/// Parts of names that LVM keeps to itself, behind an underscore.
const RESERVED: [&str; 13] = [
    "cdata", "cmeta", "corig", "iorig", "mimage", "mlog", "pmspare", "rimage", "rmeta", "tdata", "tmeta", "vdata",
    "vorigin",
];
/// A UUID with its hyphens.
const UUID_CHARS: usize = 36;

/// Whether a name is one that we give to snapshots: nobody else ends one with our mark and a UUID.
pub fn is_ours(name: &str) -> bool {
    let uuid = name.len().checked_sub(UUID_CHARS).and_then(|at| Some((name.get(..at)?, name.get(at..)?)));
    uuid.is_some_and(|(before, uuid)| before.ends_with(SNAPSHOT_MARK) && uuid::Uuid::try_parse(uuid).is_ok())
}

/// Whether a text can stand before our mark in the name of a snapshot, in a cluster as in a volume group.
///
/// # Errors
/// What it may consist of.
pub fn check_snapshot_prefix(prefix: &str) -> Result<(), String> {
    const CHARS_MAX: usize = 32;
    let is_plain = prefix.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c));
    // LVM keeps names with these beginnings and parts to itself (lvm(8), VALID NAMES).
    let is_reserved = ["snapshot", "pvmove"].iter().any(|word| prefix.starts_with(word))
        || prefix
            .to_ascii_lowercase()
            .split('_')
            .skip(1)
            .any(|part| !part.is_empty() && RESERVED.iter().any(|word| part.starts_with(word)));
    match is_plain && prefix.len() <= CHARS_MAX && !prefix.starts_with(['-', '.']) && !is_reserved {
        true => Ok(()),
        false => Err(format!(
            "{prefix:?} cannot begin the name of a snapshot: it takes up to {CHARS_MAX} letters, digits, '_', '.' and '-'"
        )),
    }
}

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

    /// What the names of snapshots that it takes begin with, before our mark.
    fn snapshot_prefix(&self) -> &str {
        ""
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ours_are_told_from_others() {
        let uuid = "0192d3f0-5c11-7e5c-9d8e-3f6a3a2b1c0d";
        assert!(is_ours(&format!("backyfs-{uuid}")) && is_ours(&format!("nightly-backyfs-{uuid}")));
        for other in ["backyfs-", "backyfs-daily", "backyfs-backyfs-backyfs-backyfs-backyfs-back", "", "daily", uuid] {
            assert!(!is_ours(other), "{other}");
        }
        assert!(!is_ours(&format!("backyfs-{uuid}-copy")) && !is_ours(&format!("other-{uuid}")));
        assert!(!is_ours(&format!("backyfs-{}é", &uuid[1..])));
    }

    #[test]
    fn prefixes_that_a_cluster_and_a_group_take() {
        for good in ["", "nightly-", "a_b.c-", "vm1_"] {
            check_snapshot_prefix(good).unwrap();
        }
        for bad in ["-a", ".", "a/b", "a b", "a@", "snapshot-", "pvmove", "x_tdata", "x_rimage_0", &"x".repeat(33)] {
            assert!(check_snapshot_prefix(bad).is_err(), "{bad}");
        }
    }
}
