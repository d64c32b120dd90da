//! Removing a draft by its uid: what `rm incoming/NAME` does for the drafts of its own mount, for those of hosts that are gone.

use crate::ops::OpsError;
use crate::ops::remove::Consent;
use crate::repo::drafts::DraftOwner;
use crate::repo::{RepoError, Repository};
use crate::words::ids::Uid;
use crate::words::name::Name;
use crate::words::record::Record;

/// A draft that may be removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Discard {
    record: Record,
    owner: DraftOwner,
}

/// Looks whether `spec` is the uid of a draft, and decides; `None` when it is not.
///
/// # Errors
/// When the draft is being written on this host, or belongs to another host and nobody insists: only its people know whether
/// its writer is still at work.
pub fn plan(repo: &Repository, spec: &str, consent: Consent) -> Result<Option<Discard>, OpsError> {
    let Ok(uid) = spec.parse::<Uid>() else { return Ok(None) };
    let record = match repo.draft(uid) {
        Err(RepoError::NoSuchDraft { .. }) => return Ok(None),
        found => found?,
    };
    let owner = repo.owner_of_draft(&record)?;
    decide(owner, consent).map_err(|why| OpsError::refused(format!("draft {uid} was not removed: {why}")))?;
    Ok(Some(Discard { record, owner }))
}

fn decide(owner: DraftOwner, consent: Consent) -> Result<(), String> {
    match (owner, consent) {
        (DraftOwner::Ours, _) | (DraftOwner::OtherHost(_), Consent::Forced) => Ok(()),
        (DraftOwner::OtherProcess, _) => Err("a mount of this host has it; remove it there".into()),
        (DraftOwner::OtherHost(host), Consent::Plain) => Err(format!(
            "it belongs to host {host}, which may still be writing it; when it is gone for good, `backyfs rm --force` removes it"
        )),
    }
}

impl Discard {
    /// Its uid.
    pub fn uid(&self) -> Uid {
        self.record.uid
    }

    /// Its name.
    pub fn name(&self) -> &Name {
        &self.record.attributes.name
    }

    /// Removes it.
    ///
    /// # Errors
    /// When target or catalog fail, or a mount of this host took it meanwhile.
    pub fn execute(self, repo: &Repository) -> Result<(), OpsError> {
        let removed = repo.discard_draft(&self.record, self.owner)?;
        let uid = self.record.uid;
        removed.then_some(()).ok_or_else(|| OpsError::refused(format!("draft {uid} was taken up meanwhile")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::ids::HostId;

    #[test]
    fn only_what_nobody_may_be_writing_goes_without_insisting() {
        let other = DraftOwner::OtherHost(HostId::NIL);
        for (owner, consent, allowed) in [
            (DraftOwner::Ours, Consent::Plain, true),
            (other, Consent::Plain, false),
            (other, Consent::Forced, true),
            (DraftOwner::OtherProcess, Consent::Plain, false),
            (DraftOwner::OtherProcess, Consent::Forced, false),
        ] {
            assert_eq!(decide(owner, consent).is_ok(), allowed, "{owner:?} {consent:?}");
        }
    }
}
