//! A version as far as rules care.

use crate::catalog::VersionSummary;
use crate::source::bad_sectors::BadSectors;
use crate::words::attribute::Validity;
use crate::words::ids::Uid;
use crate::words::stamp::Stamp;
use std::collections::BTreeSet;

/// What a version is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Complete, no damage known.
    Good,
    /// Complete but for sectors that its source could not read, which somebody accepted (`--skip-errors`), no other damage known. It
    /// is a backup and counts for schedules; but where a good one is kept, it does not stand for that.
    Lacking,
    /// Damage was found. It may heal, so rules do not delete it; but it does not stand for a good one.
    Damaged,
    /// Its writer failed. It counts for no schedule.
    Incomplete,
}

impl Standing {
    /// What a validity is worth.
    pub fn of(validity: &Validity) -> Self {
        match validity {
            Validity::Valid => Self::Good,
            Validity::Invalid(reason) if BadSectors::is_all(reason) => Self::Lacking,
            Validity::Invalid(_) => Self::Damaged,
            Validity::Incomplete(_) => Self::Incomplete,
        }
    }

    /// Whether it counts for schedules.
    pub const fn counts(self) -> bool {
        matches!(self, Self::Good | Self::Lacking)
    }
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
            standing: Standing::of(&attributes.validity),
            tags: attributes.tags.clone(),
            expire: attributes.expire,
            protected: attributes.protected,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_sectors_that_were_accepted_count_and_damage_does_not() {
        let bad = "the source could not be read at offset 4096 (512 bytes); offset 8192 (512 bytes)";
        let damaged = format!("{bad}; damage: 4096 bytes cannot be read");
        for (validity, standing, counts) in [
            (Validity::Valid, Standing::Good, true),
            (Validity::Invalid(bad.into()), Standing::Lacking, true),
            (Validity::Invalid(damaged), Standing::Damaged, false),
            (Validity::Invalid("damage: 4096 bytes cannot be read".into()), Standing::Damaged, false),
            (Validity::Invalid("I do not trust it".into()), Standing::Damaged, false),
            (Validity::Invalid(String::new()), Standing::Damaged, false),
            (Validity::Incomplete(bad.into()), Standing::Incomplete, false),
        ] {
            let found = Standing::of(&validity);
            assert_eq!((found, found.counts()), (standing, counts), "{validity}");
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
