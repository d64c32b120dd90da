//! A version as far as rules care.

use crate::catalog::VersionSummary;
use crate::words::attribute::Validity;
use crate::words::ids::Uid;
use crate::words::stamp::Stamp;
use std::collections::BTreeSet;

/// What a version is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Complete, no damage known.
    Good,
    /// Damage was found. It may heal, so rules do not delete it; but it does not stand for a good one.
    Damaged,
    /// Its writer failed. It counts for no schedule.
    Incomplete,
}

/// A version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// Which.
    pub uid: Uid,
    /// Moment of publication.
    pub created: Stamp,
    /// What it is worth.
    pub standing: Standing,
    /// Tags.
    pub tags: BTreeSet<String>,
    /// When it may go.
    pub expire: Option<Stamp>,
    /// Whether it is protected.
    pub protected: bool,
}

impl From<&VersionSummary> for Made {
    fn from(version: &VersionSummary) -> Self {
        let attributes = &version.attributes;
        Self {
            uid: version.uid,
            created: version.created,
            standing: match attributes.validity {
                Validity::Valid => Standing::Good,
                Validity::Invalid(_) => Standing::Damaged,
                Validity::Incomplete(_) => Standing::Incomplete,
            },
            tags: attributes.tags.clone(),
            expire: attributes.expire,
            protected: attributes.protected,
        }
    }
}

#[cfg(test)]
pub(super) mod samples {
    use super::*;

    /// A good version, made at a moment written as people write it.
    pub(in crate::ops::retain) fn made(created: &str, tags: &[&str]) -> Made {
        at(Stamp::parse(created, Stamp::from_millis(0)).unwrap(), tags)
    }

    /// A good version; its uid follows from its moment.
    pub(in crate::ops::retain) fn at(created: Stamp, tags: &[&str]) -> Made {
        let mut uid = [0; 16];
        uid[..8].copy_from_slice(&created.millis().to_be_bytes());
        Made {
            uid: Uid::from_bytes(uid),
            created,
            standing: Standing::Good,
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            expire: None,
            protected: false,
        }
    }
}
