//! Learning what is on the target: other hosts write there too, and a lost catalog is made anew from it.

use crate::format::frame::FrameKind;
use crate::format::layout::{self, ObjectKey};
use crate::format::{attribute, fragment, record, removed};
use crate::repo::look::Look;
use crate::repo::read::REREADS;
use crate::repo::{Core, RepoError, Repository, object_id};
use crate::seal::SealError;
use crate::target::TargetError;
use crate::words::ids::{EntryId, FragmentId, Uid};
use crate::words::record::{RecordKind, Verdict};
use std::collections::HashSet;

/// What a [`Repository::refresh`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Learned {
    /// Records that were new.
    pub records: u64,
    /// Records that are gone.
    pub removed: u64,
    /// Attribute entries that were new.
    pub entries: u64,
    /// Objects that could not be read, each with the reason. Everything else was learnt all the same.
    pub unreadable: Vec<String>,
}

/// How many objects that could not be read are named each time.
const UNREADABLE_NAMED: usize = 20;

const RECORD_KINDS: [RecordKind; 3] = [RecordKind::Version, RecordKind::Draft, RecordKind::Pin];

impl Repository {
    /// Brings the catalog up to date with the target. Damage is local: an object that cannot be read is reported and left
    /// out.
    ///
    /// # Errors
    /// When the target cannot be reached or the catalog fails.
    pub fn refresh(&self) -> Result<Learned, RepoError> {
        let core = &self.core;
        let mut learned = Learned::default();
        let look = core.next_look()?;
        core.learn_rings()?;
        core.learn_tombstones(&mut learned.unreadable)?;
        core.learn_records(look, &mut learned)?;
        core.learn_verdicts()?;
        core.learn_entries(&mut learned)?;
        core.learn_fragments(look, &mut learned.unreadable)?;
        core.learn_damage(&mut learned.unreadable)?;
        self.learn_condemned()?;
        core.drop_published_drafts()?;
        core.warn_unreadable(&learned.unreadable);
        Ok(learned)
    }

    /// Reads index fragments that are new. Says whether there were any.
    ///
    /// # Errors
    /// When the target cannot be reached or the catalog fails.
    pub fn learn_index(&self) -> Result<bool, RepoError> {
        let mut unreadable = Vec::new();
        let learned = self.core.learn_fragments(Look::Recent, &mut unreadable)?;
        self.core.warn_unreadable(&unreadable);
        Ok(learned)
    }
}

impl Core {
    /// A target full of damage, or of another repository's objects, must not fill the log.
    fn warn_unreadable(&self, unreadable: &[String]) {
        for text in unreadable.iter().take(UNREADABLE_NAMED) {
            self.monitor.warn(text);
        }
        if let Some(more) = unreadable.len().checked_sub(UNREADABLE_NAMED).filter(|more| *more > 0) {
            self.monitor.warn(&format!("{more} more objects of the target could not be read"));
        }
    }

    pub(super) fn learn_fragments(&self, look: Look, unreadable: &mut Vec<String>) -> Result<bool, RepoError> {
        let known = self.catalog.known_fragments()?;
        let mut learned = false;
        let after = self.floor(layout::INDEX, look, known.last().map(FragmentId::as_bytes));
        for info in self.target.list_after(layout::INDEX, &after)? {
            let Some(id) = layout::parse_fragment(&info.key).filter(|id| !known.contains(id)) else { continue };
            let Some(plain) = self.fetch(FrameKind::Fragment, &info.key, object_id(id.as_bytes(), &[]), unreadable)?
            else {
                continue;
            };
            match fragment::decode(&plain) {
                Ok(packs) => {
                    self.catalog.absorb_fragment(id, &packs)?;
                    learned = true;
                }
                Err(error) => unreadable.push(format!("{}: {error}", info.key)),
            }
        }
        Ok(learned)
    }

    /// The name of a tombstone says that its version is dead, whatever becomes of its content.
    fn learn_tombstones(&self, unreadable: &mut Vec<String>) -> Result<(), RepoError> {
        for info in self.target.list(layout::TOMBSTONES)? {
            let Some(uid) = layout::parse_verdict(&info.key) else { continue };
            if self.catalog.has_tombstone(uid)? {
                continue;
            }
            let object = object_id(uid.as_bytes(), &[]);
            let left = self.fetch(FrameKind::Tombstone, &info.key, object, unreadable)?.filter(|left| !left.is_empty());
            match left.as_deref().map(removed::decode).transpose() {
                Ok(Some(left)) if left.record.uid == uid => self.catalog.add_removed(&left)?,
                Ok(None) => self.catalog.add_tombstone(uid)?,
                Ok(Some(_)) => {
                    unreadable.push(format!("{}: it speaks of another version", info.key));
                    self.catalog.add_tombstone(uid)?;
                }
                Err(error) => {
                    unreadable.push(format!("{}: {error}", info.key));
                    self.catalog.add_tombstone(uid)?;
                }
            }
        }
        Ok(())
    }

    fn learn_records(&self, look: Look, learned: &mut Learned) -> Result<(), RepoError> {
        for kind in RECORD_KINDS {
            // Only versions grow many, and only they leave a tombstone when they go.
            let look = if kind == RecordKind::Version { look } else { Look::Everything };
            let records: Vec<_> = self.catalog.known_records()?.into_iter().filter(|r| r.kind == kind).collect();
            let newest = records.iter().map(|r| r.uid).max();
            let after = self.floor(layout::records(kind), look, newest.as_ref().map(Uid::as_bytes));
            // What is to be looked for: whatever the list would show, and what may have gone without being listed.
            let mut known = HashSet::with_capacity(records.len());
            for record in records {
                let is_listed = layout::record(kind, record.uid).as_str() > after.as_str();
                if is_listed || record.verdict != Verdict::Confirmed || self.catalog.has_tombstone(record.uid)? {
                    known.insert(record.uid);
                }
            }
            for info in self.target.list_after(layout::records(kind), &after)? {
                let Some((_, uid)) = layout::parse_record(&info.key) else { continue };
                if known.remove(&uid) {
                    continue;
                }
                if self.catalog.has_tombstone(uid)? {
                    // Its deletion was cut short; finish it.
                    self.delete_record(kind, uid)?;
                    continue;
                }
                let object = object_id(uid.as_bytes(), &[]);
                let Some(plain) = self.fetch(FrameKind::from(kind), &info.key, object, &mut learned.unreadable)? else {
                    continue;
                };
                match record::decode(&plain) {
                    Ok(record) if record.uid == uid && record.kind == kind => {
                        self.catalog.put_record(&record, Verdict::Pending)?;
                        learned.records += 1;
                    }
                    Ok(_) => learned.unreadable.push(format!("{}: it is another record under this name", info.key)),
                    Err(error) => learned.unreadable.push(format!("{}: {error}", info.key)),
                }
            }
            // What is left was in the catalog and is not on the target any more. A record that this process, or another on
            // this host, published after the list was read is there: look at each before forgetting it.
            for uid in known {
                let gone = self.target.get(&layout::record(kind, uid));
                if matches!(gone, Err(TargetError::NotFound { .. })) {
                    if let Some(text) = self.note_lost(uid)? {
                        learned.unreadable.push(text);
                    }
                    self.catalog.remove_record(uid)?;
                    learned.removed += 1;
                }
            }
        }
        Ok(())
    }

    fn learn_verdicts(&self) -> Result<(), RepoError> {
        let records = self.catalog.known_records()?;
        let pending: HashSet<Uid> = records.iter().filter(|r| r.verdict != Verdict::Confirmed).map(|r| r.uid).collect();
        if pending.is_empty() {
            return Ok(());
        }
        let Some(oldest) = pending.iter().min() else { return Ok(()) };
        let listed = |prefix: &str| -> Result<HashSet<Uid>, RepoError> {
            // A name sorts after its own beginning.
            let oldest = oldest.to_string();
            let after = format!("{prefix}{}", &oldest[..oldest.len() - 1]);
            let infos = self.target.list_after(prefix, &after)?;
            Ok(infos.iter().filter_map(|info| layout::parse_verdict(&info.key)).collect())
        };
        let confirmed = listed(layout::OK)?;
        let withdrawing = listed(layout::WITHDRAWING)?;
        for uid in pending {
            // `ok` decides: a finder that meets it deletes nothing.
            if confirmed.contains(&uid) {
                self.catalog.set_verdict(uid, Verdict::Confirmed)?;
            } else if withdrawing.contains(&uid) {
                self.catalog.set_verdict(uid, Verdict::Withdrawing)?;
            }
        }
        Ok(())
    }

    fn learn_entries(&self, learned: &mut Learned) -> Result<(), RepoError> {
        let known: HashSet<(Uid, EntryId)> = self.catalog.known_entries()?.into_iter().collect();
        for info in self.target.list(layout::ATTRIBUTES)? {
            let Some((uid, entry)) = layout::parse_attribute(&info.key) else { continue };
            if known.contains(&(uid, entry)) || self.catalog.has_tombstone(uid)? {
                continue;
            }
            let object = object_id(uid.as_bytes(), entry.as_bytes());
            let Some(plain) = self.fetch(FrameKind::Attribute, &info.key, object, &mut learned.unreadable)? else {
                continue;
            };
            match attribute::decode(&plain) {
                Ok(found) if found.version == uid && found.entry == entry => {
                    self.catalog.add_entry(&found)?;
                    learned.entries += 1;
                }
                Ok(_) => learned.unreadable.push(format!("{}: it is another entry under this name", info.key)),
                Err(error) => learned.unreadable.push(format!("{}: {error}", info.key)),
            }
        }
        Ok(())
    }

    /// A daemon that died between confirming a version and removing its draft leaves both; the version stands for both.
    /// The same holds for older records of a draft.
    fn drop_published_drafts(&self) -> Result<(), RepoError> {
        let drafts = self.catalog.records(RecordKind::Draft)?;
        if drafts.is_empty() {
            return Ok(());
        }
        let published: HashSet<_> = self
            .catalog
            .records(RecordKind::Version)?
            .into_iter()
            .filter(|(_, verdict)| *verdict == Verdict::Confirmed)
            .map(|(record, _)| record.draft)
            .collect();
        let superseded: HashSet<Uid> = drafts
            .iter()
            .filter(|(_, verdict)| *verdict == Verdict::Confirmed)
            .map(|(record, _)| record.supersedes)
            .collect();
        for (record, verdict) in drafts {
            let stale = published.contains(&record.draft) || superseded.contains(&record.uid);
            if verdict == Verdict::Confirmed && stale {
                self.delete_record(RecordKind::Draft, record.uid)?;
                self.catalog.remove_record(record.uid)?;
            }
        }
        Ok(())
    }

    /// Gets and opens an object. One that is gone or not authentic is `None` and noted; a target out of reach is an error.
    pub(super) fn fetch(
        &self,
        kind: FrameKind,
        key: &ObjectKey,
        object: [u8; 32],
        unreadable: &mut Vec<String>,
    ) -> Result<Option<Vec<u8>>, RepoError> {
        match self.get_opened(kind, key, object) {
            Ok(Ok(plain)) => Ok(Some(plain)),
            Ok(Err(error)) => {
                unreadable.push(format!("{key}: {error}"));
                Ok(None)
            }
            Err(TargetError::NotFound { .. }) => Ok(None),
            Err(error @ TargetError::Truncated { .. }) => {
                unreadable.push(format!("{key}: {error}"));
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Gets and opens an object. One that is not authentic is read again a few times: what was changed on its way, or is the answer to
    /// another question, is not damage.
    pub(super) fn get_opened(
        &self,
        kind: FrameKind,
        key: &ObjectKey,
        object: [u8; 32],
    ) -> Result<Result<Vec<u8>, SealError>, TargetError> {
        let mut opened = self.open_object(kind, object, &self.target.get(key)?);
        for _ in 0..REREADS {
            if opened.is_ok() {
                break;
            }
            opened = self.open_object(kind, object, &self.target.get(key)?);
        }
        Ok(opened)
    }
}
