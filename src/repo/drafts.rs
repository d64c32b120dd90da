//! The drafts of this host, and what may be done with those of others.
//!
//! Only the host that wrote a draft continues, discards or expires it: another host can neither know whether its writer lives
//! nor trust a clock to tell. What an fsync acknowledged must be within reach of every host all the same, so a draft of another
//! can be copied ([`Repository::adopt_draft`]), which takes nothing from its writer.

use crate::repo::claims::ClaimedDraft;
use crate::repo::{RepoError, Repository};
use crate::words::clock::ClockExt;
use crate::words::ids::{DraftId, HostId, Uid};
use crate::words::name::Name;
use crate::words::record::{Record, RecordKind};
use std::sync::Arc;

/// Who may do something with a draft.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DraftOwner {
    /// This process, or any process of this host that wants it.
    Ours,
    /// Another process of this host, which is alive.
    OtherProcess,
    /// Another host.
    OtherHost(HostId),
}

impl Repository {
    /// Who a draft record belongs to.
    ///
    /// # Errors
    /// When the state directory does not lock.
    pub fn owner_of_draft(&self, record: &Record) -> Result<DraftOwner, RepoError> {
        if record.host != self.host() {
            return Ok(DraftOwner::OtherHost(record.host));
        }
        let elsewhere = self.claims.is_elsewhere(record.draft).map_err(|error| self.state_failed(error))?;
        Ok(if elsewhere { DraftOwner::OtherProcess } else { DraftOwner::Ours })
    }

    /// The newest draft record of a name that belongs to this process, or to nobody else on this host.
    ///
    /// # Errors
    /// When the catalog fails or the state directory does not lock.
    pub fn own_draft(&self, name: &Name) -> Result<Option<Record>, RepoError> {
        // Nearly always there is none, or one.
        for (_, uid) in self.catalog().drafts_of(name)?.into_iter().rev() {
            let Some((record, _)) = self.catalog().record(uid)? else { continue };
            if self.owner_of_draft(&record)? == DraftOwner::Ours {
                return Ok(Some(record));
            }
        }
        Ok(None)
    }

    /// The draft record that is shown for a name: [`Repository::own_draft`], else, while there is no version of that name, the
    /// newest of whoever else: a host that lost its state directory finds again what it was told is durable.
    ///
    /// # Errors
    /// As [`Repository::own_draft`].
    pub fn shown_draft(&self, name: &Name) -> Result<Option<Record>, RepoError> {
        match self.own_draft(name)? {
            None if !self.catalog().name_exists(name)? => Ok(self.catalog().draft_of(name)?),
            own => Ok(own),
        }
    }

    /// The record of [`Repository::own_draft`] with its claim, for going on with it. `None` as well when another process
    /// was faster.
    ///
    /// # Errors
    /// As [`Repository::own_draft`].
    pub fn take_draft(&self, name: &Name) -> Result<Option<(Record, ClaimedDraft)>, RepoError> {
        let Some(record) = self.own_draft(name)? else { return Ok(None) };
        let Some(claim) = self.claim_draft(record.draft)? else { return Ok(None) };
        // Until it was claimed its last owner may have published or discarded it.
        let stands = self.catalog().record(record.uid)?.is_some();
        Ok(stands.then_some((record, claim)))
    }

    /// Claims a draft; `None` while another process of this host has it.
    ///
    /// # Errors
    /// When the state directory does not lock.
    pub fn claim_draft(&self, id: DraftId) -> Result<Option<ClaimedDraft>, RepoError> {
        self.claims.claim(id).map_err(|error| self.state_failed(error))
    }

    /// A new draft, claimed.
    ///
    /// # Errors
    /// When the state directory does not lock.
    pub fn new_draft(&self) -> Result<ClaimedDraft, RepoError> {
        loop {
            // Taken already only if 62 random bits meet.
            if let Some(claim) = self.claim_draft(self.clock().draft_id())? {
                return Ok(claim);
            }
        }
    }

    /// Makes a draft of this host out of one of another host, whose record stays: should its writer be alive, it has lost
    /// nothing. It is as whole, or as broken, as its writer left it.
    ///
    /// # Errors
    /// [`RepoError::NoSuchDraft`]; [`RepoError::DraftExists`] when this host has one of that name; as
    /// [`Repository::publish`].
    pub fn adopt_draft(&self, uid: Uid) -> Result<Record, RepoError> {
        let from = self.draft(uid)?;
        let name = &from.attributes.name;
        if self.own_draft(name)?.is_some() || self.owner_of_draft(&from)? == DraftOwner::OtherProcess {
            return Err(RepoError::DraftExists { name: name.to_string() });
        }
        let claim = self.new_draft()?;
        let now = self.clock().now();
        let record = Record {
            uid: self.clock().uid_at(now),
            created: now,
            host: self.host(),
            supersedes: Uid::NIL,
            draft: claim.id(),
            ..from.clone()
        };
        self.publish(&record, &[from.image])?;
        Ok(record)
    }

    /// A confirmed draft record, of whatever host.
    ///
    /// # Errors
    /// [`RepoError::NoSuchDraft`].
    pub fn draft(&self, uid: Uid) -> Result<Record, RepoError> {
        let mut drafts = self.catalog().drafts()?.into_iter();
        drafts.find(|record| record.uid == uid).ok_or(RepoError::NoSuchDraft { uid })
    }

    /// Removes a draft record that belongs to nobody else on this host; one of another host too, when `owner` says so.
    /// Its claim is held meanwhile. Says whether it was removed.
    ///
    /// # Errors
    /// When target or catalog fail.
    pub fn discard_draft(&self, record: &Record, owner: DraftOwner) -> Result<bool, RepoError> {
        if self.owner_of_draft(record)? != owner {
            return Ok(false);
        }
        let Some(_claim) = self.claim_draft(record.draft)? else { return Ok(false) };
        self.remove_record(RecordKind::Draft, record.uid)?;
        Ok(true)
    }

    fn state_failed(&self, source: std::io::Error) -> RepoError {
        RepoError::State { path: self.state_dir().display().to_string(), source: Arc::new(source) }
    }
}
