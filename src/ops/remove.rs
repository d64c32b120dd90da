//! Deleting a version: the decision is a pure function that gives reasons; the deed follows only from a plan.

use crate::catalog::VersionSummary;
use crate::ops::overlays;
use crate::repo::{RepoError, Repository};
use crate::words::ids::Uid;
use crate::words::stamp::Stamp;

/// Versions younger than this many days are kept, unless the caller insists.
pub const MIN_AGE_DAYS_DEFAULT: u32 = 6;

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// How much the caller insists. It matters for young versions only: nothing deletes what is protected or in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consent {
    /// An ordinary deletion.
    Plain,
    /// `--force`.
    Forced,
}

/// What a decision needs to know beside the version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// How much the caller insists.
    pub consent: Consent,
    /// Setting `min_age_days`.
    pub min_age_days: u32,
    /// How many handles are open on the version's files, as far as this process knows.
    pub open_handles: usize,
}

/// Whether this host holds something written over a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Overlaid {
    Yes,
    No,
}

/// Why a version stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Whatever else is asked for.
    #[error("it is protected: take the protection off first (`backyfs unprotect`)")]
    Protected,
    /// There are local changes that would go with it.
    #[error("its data was written to: discard the overlay first (`echo discard > by_version/<uid>/overlay`)")]
    Overlaid,
    /// Somebody reads or writes it.
    #[error("it is in use by {handles} open files")]
    InUse {
        /// How many.
        handles: usize,
    },
    /// It may just have been made by mistake, or be the one that is needed tomorrow.
    #[error(
        "it is {age_days} days old and versions are kept for {min_age_days} days at least: `backyfs rm --force` deletes it"
    )]
    Young {
        /// Whole days since it was made.
        age_days: i64,
        /// The setting.
        min_age_days: u32,
    },
}

/// A version was not deleted.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RemoveError {
    /// It is not to be.
    #[error("version {uid} was not deleted: {refusal}")]
    Refused {
        /// Which.
        uid: Uid,
        /// Why.
        refusal: Refusal,
    },
    /// There is none, or the repository failed.
    #[error(transparent)]
    Repo(#[from] RepoError),
}

/// A deletion that was found to be allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removal {
    uid: Uid,
}

/// Decides. Protection comes first, then use, then age.
///
/// # Errors
/// Why not.
pub fn check(version: &VersionSummary, overlaid: Overlaid, now: Stamp, options: &Options) -> Result<(), Refusal> {
    if version.attributes.protected {
        return Err(Refusal::Protected);
    }
    if overlaid == Overlaid::Yes {
        return Err(Refusal::Overlaid);
    }
    if options.open_handles > 0 {
        return Err(Refusal::InUse { handles: options.open_handles });
    }
    let age_ms = now.millis().saturating_sub(version.created.millis());
    let min_age_ms = i64::from(options.min_age_days) * DAY_MS;
    // A version from the future (a clock was put back) counts as young.
    if options.consent == Consent::Plain && age_ms < min_age_ms {
        return Err(Refusal::Young { age_days: age_ms.div_euclid(DAY_MS), min_age_days: options.min_age_days });
    }
    Ok(())
}

/// Looks at a version and decides.
///
/// # Errors
/// [`RemoveError::Refused`] with the reason; [`RepoError::NoSuchVersion`].
pub fn plan(repo: &Repository, uid: Uid, options: &Options) -> Result<Removal, RemoveError> {
    let version = repo.catalog().version_summary(uid).map_err(RepoError::from)?;
    let version = version.ok_or_else(|| RepoError::NoSuchVersion { spec: uid.to_string() })?;
    let overlaid = if overlays::exists(repo, uid) { Overlaid::Yes } else { Overlaid::No };
    check(&version, overlaid, repo.clock().now(), options)
        .map_err(|refusal| RemoveError::Refused { uid, refusal })
        .map(|()| Removal { uid })
}

impl Removal {
    /// Which version.
    pub fn uid(&self) -> Uid {
        self.uid
    }

    /// Deletes it. Space comes back with a collection.
    ///
    /// # Errors
    /// When target or catalog fail. It can be repeated.
    pub fn execute(self, repo: &Repository) -> Result<(), RepoError> {
        repo.remove_version(self.uid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::attribute::{Attributes, FileAttributes, Mtime, Validity};
    use crate::words::geometry::BlockSize;
    use crate::words::ids::HostId;
    use crate::words::name::Name;
    use crate::words::record::{ImageRef, Stats};
    use std::collections::BTreeSet;

    const NOW: Stamp = Stamp::from_millis(1_795_372_262_123);

    fn version(age_ms: i64, protected: bool) -> VersionSummary {
        let mtime = Mtime { seconds: 0, nanos: 0 };
        VersionSummary {
            uid: Uid::NIL,
            created: NOW.plus_millis(-age_ms),
            host: HostId::NIL,
            image: ImageRef::empty(BlockSize::DEFAULT),
            base: Uid::NIL,
            supersedes: Uid::NIL,
            attributes: Attributes {
                name: Name::new("vm").unwrap(),
                snapshot_name: String::new(),
                tags: BTreeSet::new(),
                expire: None,
                protected,
                validity: Validity::Valid,
                file: FileAttributes { mode: 0o600, uid: 0, gid: 0, mtime },
            },
            stats: Stats::default(),
        }
    }

    #[test]
    fn reasons_in_their_order() {
        let plain = Options { consent: Consent::Plain, min_age_days: 6, open_handles: 0 };
        let forced = Options { consent: Consent::Forced, ..plain };
        let open = Options { open_handles: 2, ..forced };
        let (old, young) = (6 * DAY_MS, 6 * DAY_MS - 1);
        let is_young = |age_days| Err(Refusal::Young { age_days, min_age_days: 6 });
        let in_use = Err(Refusal::InUse { handles: 2 });
        for (age, protected, overlaid, options, expected) in [
            (old, false, Overlaid::No, &plain, Ok(())),
            (young, false, Overlaid::No, &plain, is_young(5)),
            (-1, false, Overlaid::No, &plain, is_young(-1)),
            (young, false, Overlaid::No, &forced, Ok(())),
            (old, true, Overlaid::No, &forced, Err(Refusal::Protected)),
            (old, true, Overlaid::Yes, &open, Err(Refusal::Protected)),
            (old, false, Overlaid::Yes, &open, Err(Refusal::Overlaid)),
            (old, false, Overlaid::No, &open, in_use),
            (0, false, Overlaid::No, &Options { min_age_days: 0, ..plain }, Ok(())),
        ] {
            assert_eq!(
                check(&version(age, protected), overlaid, NOW, options),
                expected,
                "{age} {protected} {overlaid:?}"
            );
        }
    }
}
