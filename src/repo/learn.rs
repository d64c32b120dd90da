//! Learning what is on the target: other hosts write there too, and a lost catalog is made anew from it.

use crate::catalog::Catalog;
use crate::format::frame::FrameKind;
use crate::format::layout::{self, Object, ObjectKey};
use crate::format::{attribute, condemned, record, removed};
use crate::repo::look::Look;
use crate::repo::pages::Pages;
use crate::repo::reread::REREADS;
use crate::repo::rollback::{RolledBack, is_absent};
use crate::repo::{Core, RepoError, Repository, object_id};
use crate::seal::SealError;
use crate::target::TargetError;
use crate::words::attribute::AttributeEntry;
use crate::words::ids::{BatchId, DraftId, EntryId, FragmentId, Uid};
use crate::words::record::{Record, RecordKind, Verdict};
use std::collections::{HashMap, HashSet};
use std::fmt::Display;

/// What a [`Repository::refresh`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Learned {
    /// Records that were new.
    pub records: u64,
    /// Records that are gone.
    pub removed: u64,
    /// Attribute entries that were new.
    pub entries: u64,
    /// An object that this host knew and that is missing on the target: because of it the catalog was made anew.
    pub rebuilt: Option<String>,
    /// Objects that could not be read, each with the reason. Everything else was learnt all the same.
    pub unreadable: Vec<String>,
    /// Of these, records and index fragments: without them nobody can say what is not needed any more.
    #[serde(skip)]
    pub blind: Vec<String>,
}

/// Where lists come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lists {
    /// One for each family of objects.
    Separate,
    /// Several families on one page, where there are pages.
    Shared,
}

/// How many objects that could not be read are named each time.
const UNREADABLE_NAMED: usize = 20;
/// Records and entries put into the catalog in one transaction.
const PER_COMMIT: usize = 1000;

impl Repository {
    /// Brings the catalog up to date with the target. Damage is local: an object that cannot be read is reported and left
    /// out. When the target is not the one it was (an old copy of it was put back), the catalog is made anew.
    ///
    /// # Errors
    /// When the target cannot be reached or the catalog fails.
    pub fn refresh(&self) -> Result<Learned, RepoError> {
        self.refresh_by(self.core.next_look()?, Lists::Shared)
    }

    /// As [`Repository::refresh`], and looks at everything, also where lists are long and old names seldom new.
    ///
    /// # Errors
    /// As [`Repository::refresh`].
    pub fn refresh_everything(&self) -> Result<Learned, RepoError> {
        self.refresh_by(Look::Everything, Lists::Separate)
    }

    /// As [`Repository::refresh_everything`], and makes nothing anew when something is missing: for a repair, which puts back what this
    /// host knows and may be asked to change nothing.
    ///
    /// # Errors
    /// As [`Repository::refresh`].
    pub fn refresh_as_known(&self) -> Result<Learned, RepoError> {
        let (learned, _) = self.learn_by(Look::Everything, Lists::Separate)?;
        self.core.warn_unreadable(&learned.unreadable);
        Ok(learned)
    }

    fn refresh_by(&self, look: Look, lists: Lists) -> Result<Learned, RepoError> {
        let (mut learned, rolled_back) = self.learn_by(look, lists)?;
        if let Some(sign) = rolled_back
            && let Some(again) = self.rebuild_after(&sign)?
        {
            // What was found to be lost before the catalog was made anew is not found again.
            let lost = std::mem::replace(&mut learned, again);
            learned.removed += lost.removed;
            let news: Vec<_> = lost.unreadable.into_iter().filter(|text| !learned.unreadable.contains(text)).collect();
            learned.unreadable.extend(news);
        }
        self.core.warn_unreadable(&learned.unreadable);
        Ok(learned)
    }

    fn learn_by(&self, look: Look, lists: Lists) -> Result<(Learned, Option<RolledBack>), RepoError> {
        let mut learner = Learner::new(&self.core, &self.core.catalog);
        learner.look = look;
        if lists == Lists::Shared {
            learner.by_pages();
        }
        learner.everything()?;
        Ok((learner.learned, learner.rolled_back))
    }

    /// Learns what was said of one version by anybody.
    ///
    /// # Errors
    /// When the target cannot be reached or the catalog fails.
    pub fn learn_entries_of(&self, uid: Uid) -> Result<(), RepoError> {
        let known = self.core.catalog.entries(uid)?.iter().map(|entry| (uid, entry.entry)).collect();
        let mut learner = Learner::new(&self.core, &self.core.catalog);
        learner.entries_below(&format!("{}{uid}.", layout::ATTRIBUTES), &known)
    }

    /// Learns what is pinned, by any host.
    ///
    /// # Errors
    /// When the target cannot be reached or the catalog fails.
    pub fn learn_pins(&self) -> Result<(), RepoError> {
        let mut learner = Learner::new(&self.core, &self.core.catalog);
        learner.records_of(RecordKind::Pin)?;
        learner.standing()
    }

    /// Reads index fragments that are new. Says whether there were any.
    ///
    /// # Errors
    /// When the target cannot be reached or the catalog fails.
    pub fn learn_index(&self) -> Result<bool, RepoError> {
        self.learn_index_by(Look::Recent)
    }

    /// As [`Repository::learn_index`], and looks at all fragments, however old.
    ///
    /// # Errors
    /// As [`Repository::learn_index`].
    pub fn learn_index_everything(&self) -> Result<bool, RepoError> {
        self.learn_index_by(Look::Everything)
    }

    fn learn_index_by(&self, look: Look) -> Result<bool, RepoError> {
        let mut learner = Learner::new(&self.core, &self.core.catalog);
        learner.look = look;
        let learned = learner.fragments()?;
        self.core.warn_unreadable(&learner.learned.unreadable);
        match learner.rolled_back {
            Some(sign) => self.rebuild_after(&sign).map(|_| true),
            None => Ok(learned),
        }
    }
}

impl Core {
    /// A target full of damage, or of another repository's objects, must not fill the log.
    fn warn_unreadable(&self, unreadable: &[String]) {
        // A mount looks every minute: what was said once need not be said again, as long as it stays as it is.
        let mut said = self.said.lock();
        let news: Vec<&String> = unreadable.iter().filter(|text| !said.contains(*text)).collect();
        for text in news.iter().take(UNREADABLE_NAMED) {
            self.monitor.warn(text);
        }
        let more = news.len().checked_sub(UNREADABLE_NAMED).filter(|more| *more > 0);
        said.extend(unreadable.iter().cloned());
        if let Some(more) = more {
            self.monitor.warn(&format!("{more} more objects of the target could not be read"));
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

/// Learns into a catalog: the one that is used, or one that is being rebuilt.
pub(super) struct Learner<'a> {
    pub(super) core: &'a Core,
    pub(super) catalog: &'a Catalog,
    /// How far back it looks.
    pub(super) look: Look,
    /// What was found.
    pub(super) learned: Learned,
    /// The first sign that the target is not the one it was.
    pub(super) rolled_back: Option<RolledBack>,
    /// Fragments that this learner has absorbed.
    pub(super) absorbed: HashSet<FragmentId>,
    /// What lists are taken from, where that is worth it.
    pub(super) pages: Option<Pages>,
}

impl<'a> Learner<'a> {
    pub(super) fn new(core: &'a Core, catalog: &'a Catalog) -> Self {
        Self {
            core,
            catalog,
            look: Look::Everything,
            learned: Learned::default(),
            rolled_back: None,
            absorbed: HashSet::new(),
            pages: None,
        }
    }

    /// Everything but what packs say of themselves. Records come first and verdicts last: a record is shown from its verdict on,
    /// and everything that was on the target before it, above all where its blocks are, has been learnt by then.
    ///
    /// A list of condemned packs that cannot be read hides no version: the rest is learnt, then it is an error, and whoever
    /// publishes or deletes meets it again.
    fn everything(&mut self) -> Result<(), RepoError> {
        self.turn_to(layout::PINS)?;
        self.records()?;
        // What is sealed under a key that came since made that known already.
        self.rings()?;
        self.fragments()?;
        self.damage()?;
        let list = self.condemned();
        self.verdicts()?;
        list
    }

    /// What records there are; none of the new ones is shown yet.
    pub(super) fn records(&mut self) -> Result<(), RepoError> {
        self.tombstones()?;
        self.records_of(RecordKind::Version)?;
        self.records_of(RecordKind::Pin)?;
        self.turn_to(layout::ATTRIBUTES)?;
        // Where there are more changes of attributes than a page has names.
        self.turn_to(layout::CONDEMNED)?;
        let known = self.learned.records;
        self.records_of(RecordKind::Draft)?;
        if self.learned.records > known {
            // The index must be read after it.
            self.turn_away(layout::INDEX);
        }
        Ok(())
    }

    /// What became of the records, and what was said of them since.
    pub(super) fn verdicts(&mut self) -> Result<(), RepoError> {
        self.entries()?;
        self.standing()?;
        self.drop_published_drafts()
    }

    /// Notes an object that cannot be read.
    pub(super) fn unreadable(&mut self, key: &ObjectKey, why: impl Display) {
        let text = format!("{key}: {why}");
        if matches!(layout::parse(key), Some(Object::Record(..) | Object::Fragment(_))) {
            self.learned.blind.push(text.clone());
        }
        self.learned.unreadable.push(text);
    }

    pub(super) fn sign(&mut self, sign: RolledBack) {
        self.rolled_back.get_or_insert(sign);
    }

    /// Reads batches of the condemned list that are new. One that cannot be read is an error, after the others were learnt: an
    /// incomplete list must not pass for the whole.
    pub(super) fn condemned(&mut self) -> Result<(), RepoError> {
        let core = self.core;
        let mut known = self.catalog.known_batches()?;
        let mut damaged = None;
        for info in self.listed(layout::CONDEMNED, "")? {
            let Some(batch) = layout::parse_condemned(&info.key) else { continue };
            if known.remove(&batch) {
                continue;
            }
            match self.batch(batch, &info.key) {
                Err(error @ (RepoError::Seal { .. } | RepoError::Format { .. })) => drop(damaged.get_or_insert(error)),
                learnt => learnt?,
            }
        }
        for batch in known {
            if is_absent(&*core.target, &layout::condemned(batch))? {
                self.sign(RolledBack::Batch(batch));
            }
        }
        damaged.map_or(Ok(()), Err)
    }

    /// As [`Learner::condemned`], for a catalog that must be made although a batch is damaged. Nobody takes the list for the whole
    /// because of that: whoever publishes or collects reads the batches that are not known here.
    pub(super) fn condemned_past_damage(&mut self) -> Result<(), RepoError> {
        match self.condemned() {
            Err(error @ (RepoError::Seal { .. } | RepoError::Format { .. })) => {
                let text = error.to_string();
                if !self.learned.unreadable.contains(&text) {
                    self.learned.unreadable.push(text);
                }
                Ok(())
            }
            learnt => learnt,
        }
    }

    fn batch(&self, batch: BatchId, key: &ObjectKey) -> Result<(), RepoError> {
        let object = object_id(batch.as_bytes(), &[]);
        let plain = self.core.get_opened(FrameKind::Condemned, key, object)?;
        let packs = condemned::decode(&plain.map_err(RepoError::seal(key.as_str()))?);
        Ok(self.catalog.absorb_batch(batch, &packs.map_err(RepoError::format(key.as_str()))?)?)
    }

    fn tombstones(&mut self) -> Result<(), RepoError> {
        let mut known = self.catalog.tombstones()?;
        let mut new = Vec::new();
        for info in self.listed(layout::TOMBSTONES, "")? {
            let Some(uid) = layout::parse_verdict(&info.key) else { continue };
            if !known.remove(&uid) {
                new.push((uid, info.key));
            }
        }
        let object = |uid: &Uid| object_id(uid.as_bytes(), &[]);
        self.each(FrameKind::Tombstone, &new, object, Self::tombstone)?;
        // A tombstone that is gone must not kill the version, should that be back.
        for uid in known {
            if is_absent(&*self.core.target, &layout::tombstone(uid))? {
                self.catalog.remove_tombstone(uid)?;
            }
        }
        Ok(())
    }

    /// The name of a tombstone says that its version is dead, whatever becomes of its content.
    fn tombstone(&mut self, uid: Uid, key: &ObjectKey, left: Option<Vec<u8>>) -> Result<(), RepoError> {
        let left = left.filter(|left| !left.is_empty());
        match left.as_deref().map(removed::decode).transpose() {
            Ok(Some(left)) if left.record.uid == uid => return Ok(self.catalog.add_removed(&left)?),
            Ok(None) => {}
            Ok(Some(_)) => self.unreadable(key, "it speaks of another version"),
            Err(error) => self.unreadable(key, error),
        }
        Ok(self.catalog.add_tombstone(uid)?)
    }

    fn records_of(&mut self, kind: RecordKind) -> Result<(), RepoError> {
        // Only versions grow many, and only they leave a tombstone when they go.
        let look = if kind == RecordKind::Version { self.look } else { Look::Everything };
        let records: Vec<_> = self.catalog.known_records()?.into_iter().filter(|r| r.kind == kind).collect();
        let newest = records.iter().map(|r| r.uid).max();
        let after = self.core.floor(layout::records(kind), look, newest.as_ref().map(Uid::as_bytes));
        // What is to be looked for: whatever the list would show, and what may have gone without being listed.
        let mut known = HashSet::with_capacity(records.len());
        for record in records {
            let is_listed = layout::record(kind, record.uid).as_str() > after.as_str();
            if is_listed || record.verdict != Verdict::Confirmed || self.catalog.has_tombstone(record.uid)? {
                known.insert(record.uid);
            }
        }
        let mut listed = Vec::new();
        for info in self.listed(layout::records(kind), &after)? {
            let Some((_, uid)) = layout::parse_record(&info.key) else { continue };
            if known.remove(&uid) {
                continue;
            }
            if self.catalog.has_tombstone(uid)? {
                // Its deletion was cut short; finish it.
                self.core.clear_record(kind, uid)?;
                continue;
            }
            listed.push((uid, info.key));
        }
        let mut new: Vec<(Record, Verdict)> = Vec::new();
        let object = |uid: &Uid| object_id(uid.as_bytes(), &[]);
        self.each(FrameKind::from(kind), &listed, object, |learner, uid, key, plain| {
            let record = plain.and_then(|plain| learner.record(kind, uid, key, &plain));
            new.extend(record.map(|record| (record, Verdict::Pending)));
            if new.len() == PER_COMMIT {
                learner.put_records(&mut new)?;
            }
            Ok(())
        })?;
        self.put_records(&mut new)?;
        // What is left was in the catalog and is not on the target any more. A record that this process, or another on
        // this host, published after the list was read is there: look at each before forgetting it.
        for uid in known {
            if is_absent(&*self.core.target, &layout::record(kind, uid))? {
                self.forget_record(uid)?;
            }
        }
        Ok(())
    }

    fn record(&mut self, kind: RecordKind, uid: Uid, key: &ObjectKey, plain: &[u8]) -> Option<Record> {
        match record::decode(plain) {
            Ok(record) if record.uid == uid && record.kind == kind => return Some(record),
            Ok(_) => self.unreadable(key, "it is another record under this name"),
            Err(error) => self.unreadable(key, error),
        }
        None
    }

    fn put_records(&mut self, new: &mut Vec<(Record, Verdict)>) -> Result<(), RepoError> {
        if !new.is_empty() {
            self.catalog.put_records(new)?;
            self.learned.records += new.len() as u64;
            new.clear();
        }
        Ok(())
    }

    fn forget_record(&mut self, uid: Uid) -> Result<(), RepoError> {
        self.learned.unreadable.extend(self.core.note_lost(uid)?);
        self.catalog.remove_record(uid)?;
        self.learned.removed += 1;
        Ok(())
    }

    fn standing(&mut self) -> Result<(), RepoError> {
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
            let infos = self.core.target.list_after(prefix, &after)?;
            Ok(infos.iter().filter_map(|info| layout::parse_verdict(&info.key)).collect())
        };
        let confirmed = listed(layout::OK)?;
        let withdrawing = listed(layout::WITHDRAWING)?;
        let mut verdicts = Vec::new();
        for uid in pending {
            // `ok` decides: a finder that meets it deletes nothing.
            if confirmed.contains(&uid) {
                verdicts.push((uid, Verdict::Confirmed));
            } else if withdrawing.contains(&uid) {
                verdicts.push((uid, Verdict::Withdrawing));
            }
        }
        for some in verdicts.chunks(PER_COMMIT) {
            self.catalog.set_verdicts(some)?;
        }
        Ok(())
    }

    fn entries(&mut self) -> Result<(), RepoError> {
        self.entries_below(layout::ATTRIBUTES, &self.catalog.known_entries()?)
    }

    fn entries_below(&mut self, prefix: &str, known: &HashSet<(Uid, EntryId)>) -> Result<(), RepoError> {
        let mut listed = Vec::new();
        for info in self.listed(prefix, "")? {
            let Some((uid, entry)) = layout::parse_attribute(&info.key) else { continue };
            if known.contains(&(uid, entry)) || self.catalog.has_tombstone(uid)? {
                continue;
            }
            listed.push(((uid, entry), info.key));
        }
        let mut new: Vec<AttributeEntry> = Vec::new();
        let object = |(uid, entry): &(Uid, EntryId)| object_id(uid.as_bytes(), entry.as_bytes());
        self.each(FrameKind::Attribute, &listed, object, |learner, (uid, entry), key, plain| {
            new.extend(plain.and_then(|plain| learner.entry(uid, entry, key, &plain)));
            if new.len() == PER_COMMIT {
                learner.put_entries(&mut new)?;
            }
            Ok(())
        })?;
        self.put_entries(&mut new)
    }

    fn entry(&mut self, uid: Uid, entry: EntryId, key: &ObjectKey, plain: &[u8]) -> Option<AttributeEntry> {
        match attribute::decode(plain) {
            Ok(found) if found.version == uid && found.entry == entry => return Some(found),
            Ok(_) => self.unreadable(key, "it is another entry under this name"),
            Err(error) => self.unreadable(key, error),
        }
        None
    }

    fn put_entries(&mut self, new: &mut Vec<AttributeEntry>) -> Result<(), RepoError> {
        if !new.is_empty() {
            self.catalog.add_entries(new)?;
            self.learned.entries += new.len() as u64;
            new.clear();
        }
        Ok(())
    }

    /// Whether a record that has its `ok` will stay. One that somebody withdraws may go in spite of it, if that looked before `ok` came;
    /// who begins to withdraw later finds `ok`.
    fn is_certain(&self, uid: Uid) -> Result<bool, RepoError> {
        let target = &*self.core.target;
        Ok(!is_absent(target, &layout::ok(uid))? && is_absent(target, &layout::withdrawing(uid))?)
    }

    /// A daemon that died between confirming a version and removing its draft leaves both; the version stands for both.
    /// The same holds for older records of a draft. Whose they are does not matter: what they hold is held by another record.
    ///
    /// A record that is younger than the version holds what the version does not: the confirmation got to the target, its
    /// answer was lost until patience ended, and the writer, who was told of an error, went on with the draft.
    fn drop_published_drafts(&self) -> Result<(), RepoError> {
        let drafts = self.catalog.records(RecordKind::Draft)?;
        if drafts.is_empty() {
            return Ok(());
        }
        let mut published: HashMap<DraftId, Uid> = HashMap::new();
        for (version, verdict) in self.catalog.records(RecordKind::Version)? {
            if verdict == Verdict::Confirmed && !version.draft.is_nil() {
                let newest = published.entry(version.draft).or_insert(version.uid);
                *newest = version.uid.max(*newest);
            }
        }
        let superseded: HashMap<Uid, Uid> = drafts
            .iter()
            .filter(|(_, verdict)| *verdict == Verdict::Confirmed)
            .map(|(record, _)| (record.supersedes, record.uid))
            .collect();
        for (record, verdict) in drafts {
            // By the moments of their publication, which uids have: a version that was taken over from elsewhere is created in the past.
            let version = published.get(&record.draft).filter(|uid| record.uid.millis() <= uid.millis());
            let successor = version.copied().or_else(|| superseded.get(&record.uid).copied());
            if let Some(successor) = successor.filter(|_| verdict == Verdict::Confirmed)
                && self.is_certain(successor)?
            {
                self.core.clear_record(RecordKind::Draft, record.uid)?;
                self.catalog.remove_record(record.uid)?;
            }
        }
        Ok(())
    }
}
