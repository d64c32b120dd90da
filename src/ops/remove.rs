//! Deleting a version: the decision is a pure function that gives reasons; the deed follows only from a plan.

use crate::catalog::VersionSummary;
use crate::ops::overlays;
use crate::ops::retain::interval::Lasting;
use crate::repo::{RepoError, Repository};
use crate::words::attribute::Attributes;
use crate::words::ids::{HostId, Uid};
use crate::words::record::{RecordKind, Verdict, Why};
use crate::words::stamp::Stamp;
use std::collections::HashMap;
use std::time::Duration;

/// Versions younger than this are kept, unless the caller insists.
pub const PROTECT_YOUNGER_DEFAULT: Duration = Duration::from_secs(6 * 24 * 60 * 60);

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
    /// Setting `protect-younger`.
    pub protect_younger: Duration,
    /// How many handles are open on the version's files, as far as this process knows.
    pub open_handles: usize,
}

/// Whether something was written over a version, or another host uses it otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overlaid {
    /// On this host, which would lose it.
    Here,
    /// On another host, or in use there, as a pin says.
    Elsewhere(HostId),
    /// Nowhere.
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
    /// Another host reads it, makes another from it, or has local changes on top of it. That goes on whatever is deleted, so insisting
    /// is enough.
    #[error(
        "it is in use on host {host} (its data was written to, or it is being read, restored or written on from): end that there, or \
         `backyfs rm --force` deletes the version"
    )]
    OverlaidElsewhere {
        /// Which host.
        host: HostId,
    },
    /// Somebody reads or writes it.
    #[error("it is in use by {handles} open files")]
    InUse {
        /// How many.
        handles: usize,
    },
    /// A restore, or a mount.
    #[error("a process of this host is reading it")]
    BeingRead,
    /// It may just have been made by mistake, or be the one that is needed tomorrow.
    #[error(
        "it is {} old and versions are kept for {} at least: `backyfs rm --force` deletes it",
        Lasting(*age_ms),
        Lasting(*protected_ms)
    )]
    Young {
        /// Milliseconds since it was made; 0 for one from the future.
        age_ms: i64,
        /// The setting, in milliseconds.
        protected_ms: i64,
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
    consent: Consent,
}

/// Decides. Protection comes first, then use, then age.
///
/// # Errors
/// Why not.
pub fn check(version: &VersionSummary, overlaid: Overlaid, now: Stamp, options: &Options) -> Result<(), Refusal> {
    if version.attributes.protected {
        return Err(Refusal::Protected);
    }
    if overlaid == Overlaid::Here {
        return Err(Refusal::Overlaid);
    }
    if options.open_handles > 0 {
        return Err(Refusal::InUse { handles: options.open_handles });
    }
    if options.consent == Consent::Forced {
        return Ok(());
    }
    if let Overlaid::Elsewhere(host) = overlaid {
        return Err(Refusal::OverlaidElsewhere { host });
    }
    // A version from the future (a clock was put back) counts as young, whatever the setting: nobody knows how old it is.
    let age_ms = now.millis().saturating_sub(version.created.millis());
    let protected_ms = i64::try_from(options.protect_younger.as_millis()).unwrap_or(i64::MAX);
    if age_ms < protected_ms {
        return Err(Refusal::Young { age_ms: age_ms.max(0), protected_ms });
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
    let overlaid = overlaid(repo, uid, &held_elsewhere(repo)?);
    let refused = |refusal| RemoveError::Refused { uid, refusal };
    check(&version, overlaid, repo.clock().now(), options).map_err(refused)?;
    // The deed asks again, by trying.
    if repo.is_being_read(uid)? {
        Err(refused(Refusal::BeingRead))
    } else {
        Ok(Removal { uid, consent: options.consent })
    }
}

/// The versions that overlays on other hosts hold, as their pins say. A pin of this host without an overlay means nothing.
///
/// # Errors
/// When the catalog fails.
pub fn held_elsewhere(repo: &Repository) -> Result<HashMap<Uid, HostId>, RepoError> {
    let pins = repo.catalog().records(RecordKind::Pin)?.into_iter();
    let others = pins.filter(|(pin, verdict)| pin.host != repo.host() && *verdict == Verdict::Confirmed);
    Ok(others.map(|(pin, _)| (pin.base, pin.host)).collect())
}

/// Whether a version is overlaid, here first.
pub fn overlaid(repo: &Repository, uid: Uid, elsewhere: &HashMap<Uid, HostId>) -> Overlaid {
    if overlays::exists(repo, uid) {
        return Overlaid::Here;
    }
    elsewhere.get(&uid).map_or(Overlaid::No, |host| Overlaid::Elsewhere(*host))
}

impl Removal {
    /// Which version.
    pub fn uid(&self) -> Uid {
        self.uid
    }

    /// Deletes it. Space comes back with a collection.
    ///
    /// # Errors
    /// [`RepoError::InUse`] when a process of this host has begun to read it since, [`RepoError::InUseElsewhere`] when another host has;
    /// when target or catalog fail. It can be repeated.
    pub fn execute(self, repo: &Repository) -> Result<(), RepoError> {
        self.delete(repo, Why::Asked, |_| true).map(drop)
    }

    /// Deletes it for what was planned, unless somebody on any host has changed its attributes since, and says whether it did.
    ///
    /// # Errors
    /// As [`Removal::execute`].
    pub fn execute_as_planned(self, repo: &Repository, why: Why, planned: &Attributes) -> Result<bool, RepoError> {
        self.delete(repo, why, |now| now == planned)
    }

    fn delete(self, repo: &Repository, why: Why, still: impl Fn(&Attributes) -> bool) -> Result<bool, RepoError> {
        let Some(_alone) = repo.lease_deletion(self.uid)? else { return Err(RepoError::InUse { uid: self.uid }) };
        // Another host may have protected it since this one looked, or given it another expiry.
        repo.learn_entries_of(self.uid)?;
        let now = repo.version(self.uid)?.attributes;
        if now.protected {
            return Err(RepoError::Protected { uid: self.uid });
        }
        if !still(&now) {
            return Ok(false);
        }
        // Or have begun to use it.
        repo.learn_pins()?;
        if self.consent == Consent::Plain
            && let Some(host) = held_elsewhere(repo)?.get(&self.uid)
        {
            return Err(RepoError::InUseElsewhere { uid: self.uid, host: *host });
        }
        repo.remove_version_because(self.uid, why)?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::attribute::{FileAttributes, Mtime, Validity};
    use crate::words::geometry::BlockSize;
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
        const DAY_MS: i64 = 24 * 60 * 60 * 1000;
        let plain = Options { consent: Consent::Plain, protect_younger: PROTECT_YOUNGER_DEFAULT, open_handles: 0 };
        let forced = Options { consent: Consent::Forced, ..plain };
        let open = Options { open_handles: 2, ..forced };
        let (old, young) = (6 * DAY_MS, 6 * DAY_MS - 1);
        let is_young = |age_ms| Err(Refusal::Young { age_ms, protected_ms: old });
        let (elsewhere, not_here) =
            (Overlaid::Elsewhere(HostId::NIL), Err(Refusal::OverlaidElsewhere { host: HostId::NIL }));
        let in_use = Err(Refusal::InUse { handles: 2 });
        for (age, protected, overlaid, options, expected) in [
            (old, false, Overlaid::No, &plain, Ok(())),
            (young, false, Overlaid::No, &plain, is_young(young)),
            (-1, false, Overlaid::No, &plain, is_young(0)),
            (young, false, Overlaid::No, &forced, Ok(())),
            (old, true, Overlaid::No, &forced, Err(Refusal::Protected)),
            (old, true, Overlaid::Here, &open, Err(Refusal::Protected)),
            (old, false, Overlaid::Here, &open, Err(Refusal::Overlaid)),
            (old, false, Overlaid::Here, &forced, Err(Refusal::Overlaid)),
            (old, false, elsewhere, &plain, not_here),
            (old, false, elsewhere, &forced, Ok(())),
            (old, false, Overlaid::No, &open, in_use),
            (0, false, Overlaid::No, &Options { protect_younger: Duration::ZERO, ..plain }, Ok(())),
        ] {
            assert_eq!(
                check(&version(age, protected), overlaid, NOW, options),
                expected,
                "{age} {protected} {overlaid:?}"
            );
        }
    }
}
