//! Backups that stopped half way, kept as draft records: what they stored stays reachable, on any host, and `--continue` goes on.
//!
//! They follow the rules of all drafts: only the host that wrote one goes on with it, for the same path is another disk elsewhere,
//! and while a backup runs it holds the claim, so that nobody beside it takes its draft for one that was left.

use crate::image::Settled;
use crate::ops::OpsError;
use crate::repo::claims::ClaimedDraft;
use crate::repo::{RepoError, Repository};
use crate::words::attribute::{Attributes, FileAttributes, Validity};
use crate::words::clock::ClockExt;
use crate::words::ids::Uid;
use crate::words::name::Name;
use crate::words::record::{Broken, ImageRef, Record, RecordKind};
use std::collections::BTreeSet;

/// A backup under way, as its draft records tell of it.
pub struct Unfinished {
    /// Names it on the target, and keeps others away from it.
    pub draft: ClaimedDraft,
    /// As what.
    pub name: Name,
    /// How the source is called.
    pub source: String,
    /// Which snapshot of the source is read; empty without one.
    pub snapshot_name: String,
    /// Mode, owner and time of the source: another time is another content.
    pub file: FileAttributes,
    /// The version it began from, or nil.
    pub base: Uid,
    /// The image it began from.
    pub start: ImageRef,
    /// Its newest record.
    pub record: Option<Record>,
}

/// What the reason of a record begins with.
fn introduction(source: &str) -> String {
    format!("backup of {source} has not finished: ")
}

impl Unfinished {
    /// What an interrupted backup of this source under this name left on this host, if it did and nobody is at it.
    ///
    /// # Errors
    /// When the catalog fails or the state directory does not lock.
    pub fn find(repo: &Repository, name: &Name, source: &str) -> Result<Option<(Record, ClaimedDraft)>, OpsError> {
        let ours = |record: &Record| {
            record.broken.as_ref().is_some_and(|broken| broken.reason.starts_with(&introduction(source)))
        };
        let Some(record) = repo.own_draft(name)?.filter(ours) else { return Ok(None) };
        let Some(claim) = repo.claim_draft(record.draft)? else { return Ok(None) };
        // Until it was claimed another backup may have finished it.
        let stands = repo.catalog().record(record.uid).map_err(RepoError::from)?.is_some();
        Ok(stands.then_some((record, claim)))
    }

    /// Makes what was read so far durable. Nothing is done while the name has another draft on this host, which a mount would take
    /// for older than this one; drafts of other hosts are not in the way.
    ///
    /// # Errors
    /// When target or catalog fail.
    pub fn save(
        &mut self,
        repo: &Repository,
        settled: &Settled,
        reached: u64,
        state: &str,
        relative: Option<ImageRef>,
    ) -> Result<(), OpsError> {
        for (_, uid) in repo.catalog().drafts_of(&self.name).map_err(RepoError::from)? {
            let other = repo.catalog().record(uid).map_err(RepoError::from)?;
            if other.is_some_and(|(other, _)| other.host == repo.host() && other.draft != self.draft.id()) {
                return Ok(());
            }
        }
        let now = repo.clock().now();
        let before = self.record.take();
        let record = Record {
            uid: repo.clock().uid_at(now),
            kind: RecordKind::Draft,
            created: now,
            host: repo.host(),
            image: settled.image,
            base: self.base,
            supersedes: before.as_ref().map_or(Uid::NIL, |record| record.uid),
            draft: self.draft.id(),
            start: self.start,
            broken: Some(Broken { at: reached, reason: format!("{}{state}", introduction(&self.source)) }),
            attributes: Attributes {
                name: self.name.clone(),
                snapshot_name: self.snapshot_name.clone(),
                tags: BTreeSet::new(),
                expire: None,
                protected: false,
                validity: Validity::Valid,
                file: self.file,
            },
            stats: settled.stats,
        };
        let relatives: Vec<ImageRef> = relative.into_iter().chain(before.as_ref().map(|record| record.image)).collect();
        let published = repo.publish(&record, &relatives);
        self.record = if published.is_ok() { Some(record) } else { before.clone() };
        published?;
        if let Some(before) = before {
            repo.remove_record(RecordKind::Draft, before.uid)?;
        }
        Ok(())
    }

    /// Removes its record: a version stands for it now.
    pub fn finish(&mut self, repo: &Repository) {
        if let Some(record) = self.record.take()
            && let Err(error) = repo.remove_record(RecordKind::Draft, record.uid)
        {
            tracing::warn!("an old draft could not be removed, it will be at the next mount: {error}");
        }
    }

    /// What of the reason comes after who it is.
    pub fn state_of<'a>(record: &'a Record, source: &str) -> &'a str {
        let reason = record.broken.as_ref().map_or("", |broken| &broken.reason);
        reason.strip_prefix(&introduction(source)).unwrap_or("")
    }
}
