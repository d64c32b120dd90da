//! Looking at every object that is no pack: is it there, is it authentic, is it what its name says.

use crate::format::frame::FrameKind;
use crate::format::layout::{self, Object, ObjectKey};
use crate::format::slot::Slot;
use crate::format::{attribute, condemned, damage, fragment, record};
use crate::repo::header::answers;
use crate::repo::reread::REREADS;
use crate::repo::{RepoError, Repository, object_id};
use crate::seal::keys;
use crate::target::TargetError;
use crate::words::ids::{PackId, Uid};
use crate::words::record::{RecordKind, Verdict};
use std::collections::{BTreeMap, BTreeSet};

/// An object that is missing, or not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct BadObject {
    /// Its name.
    pub object: String,
    /// What is wrong with it.
    pub problem: String,
}

/// What all objects that are no packs look like.
#[derive(Debug, Clone, Default)]
pub struct ObjectsSeen {
    /// How many were read.
    pub checked: u64,
    /// Those with a problem, in order of names.
    pub bad: Vec<BadObject>,
    /// The packs that readable index fragments describe, and how many blocks they say are in each.
    pub described: BTreeMap<PackId, u32>,
}

impl Repository {
    /// Reads every object but the packs, and looks for those that should be there and are not, as far as this host knows. `go_on` is
    /// asked before each, and told how many bytes the one before it had: it may wait.
    ///
    /// # Errors
    /// When the target as a whole cannot be read, the catalog fails, or `go_on` says no ([`RepoError::Stopped`]).
    pub fn examine_objects(&self, go_on: &dyn Fn(u64) -> bool) -> Result<ObjectsSeen, RepoError> {
        let mut seen = ObjectsSeen::default();
        // What is known first, the list after it: an object is written before it is known.
        let expected = self.expected_objects()?;
        let mut listed = BTreeSet::new();
        let mut read_bytes = 0;
        for prefix in self.directories().filter(|name| !is_of_packs(name)) {
            match self.core.target.list(&format!("{prefix}/")) {
                Ok(infos) => listed.extend(infos.into_iter().map(|info| info.key)),
                Err(error) if !answers(&*self.core.target) => return Err(error.into()),
                Err(error) => seen.bad.push(BadObject { object: format!("{prefix}/"), problem: error.to_string() }),
            }
        }
        listed.insert(layout::header());
        // What is there once should be there twice.
        let twin = |key: &ObjectKey| Some(layout::parse(key)?.twin()?.key());
        let twins: Vec<ObjectKey> = listed.iter().filter(|_| self.header().has_spares()).filter_map(twin).collect();
        listed.extend(twins);
        for key in listed.union(&expected) {
            let Some(object) = layout::parse(key) else { continue };
            if !go_on(std::mem::take(&mut read_bytes)) {
                return Err(RepoError::Stopped);
            }
            seen.checked += 1;
            let problem = match self.look_at_again(key, object, &mut seen.described, &mut read_bytes) {
                Ok(problem) => problem,
                // Deleted since the list was read.
                Err(TargetError::NotFound { .. }) if !self.is_still_expected(object)? => None,
                Err(TargetError::NotFound { .. }) => Some("it is missing".to_owned()),
                Err(error) if answers(&*self.core.target) => Some(error.to_string()),
                Err(error) => return Err(error.into()),
            };
            if let Some(problem) = problem {
                seen.bad.push(BadObject { object: key.to_string(), problem });
            }
        }
        for (uid, name) in self.lost_versions()? {
            let object = layout::record(RecordKind::Version, uid).to_string();
            let problem = format!("the version of {name} is gone, and nobody deleted it");
            seen.bad.push(BadObject { object, problem });
        }
        seen.bad.sort_by(|a, b| a.object.cmp(&b.object));
        Ok(seen)
    }

    /// The directories that its target has, if it has any: [`layout::directories`], as far as its format knows them.
    pub fn directories(&self) -> impl Iterator<Item = String> {
        let (has_spares, spares) = (self.header().has_spares(), layout::SPARE.trim_end_matches('/'));
        layout::directories().into_iter().filter(move |name| has_spares || name != spares)
    }

    /// What is wrong with one object; `None` when it is whole.
    ///
    /// # Errors
    /// When it is not there, or the target cannot be reached.
    pub fn problem_of(&self, key: &ObjectKey, object: Object) -> Result<Option<String>, RepoError> {
        Ok(self.look_at_again(key, object, &mut BTreeMap::new(), &mut 0)?)
    }

    /// Reads an object and says what is wrong with it. What comes wrong may come right the next time: a repair sets aside what is damaged,
    /// a key slot too. Counts the bytes that were read.
    fn look_at_again(
        &self,
        key: &ObjectKey,
        object: Object,
        described: &mut BTreeMap<PackId, u32>,
        read_bytes: &mut u64,
    ) -> Result<Option<String>, TargetError> {
        let mut looked = Ok(None);
        for _ in 0..=REREADS {
            let read = self.core.target.get(key).inspect(|bytes| *read_bytes += bytes.len() as u64);
            looked = read.map(|bytes| self.look_at(object, &bytes, described).err());
            if !matches!(looked, Ok(Some(_)) | Err(TargetError::Garbled { .. })) {
                break;
            }
        }
        looked
    }

    /// Objects that must be there for what this host knows. Fragments are not among them: what they say is looked for instead.
    fn expected_objects(&self) -> Result<BTreeSet<ObjectKey>, RepoError> {
        let catalog = &self.core.catalog;
        let mut expected = BTreeSet::from([layout::header()]);
        for known in catalog.known_records()? {
            expected.insert(layout::record(known.kind, known.uid));
            if known.verdict == Verdict::Confirmed {
                expected.insert(layout::ok(known.uid));
            }
        }
        expected.extend(catalog.known_entries()?.into_iter().map(|(uid, entry)| layout::attribute(uid, entry)));
        expected.extend(catalog.known_batches()?.into_iter().map(layout::condemned));
        expected.extend(catalog.damage_reports()?.into_keys().map(layout::damage));
        expected.extend(self.core.sealer.keyring().versions().map(layout::ring));
        Ok(expected)
    }

    /// Whether an object should be there, asked again after it was not: another process may have removed it rightly.
    fn is_still_expected(&self, object: Object) -> Result<bool, RepoError> {
        let catalog = &self.core.catalog;
        let is_removed = |uid: Uid| -> Result<bool, RepoError> {
            let is_gone = |key| matches!(self.core.target.get(&key), Err(TargetError::NotFound { .. }));
            Ok(catalog.record(uid)?.is_none() || !is_gone(layout::tombstone(uid)))
        };
        Ok(match object {
            Object::Header | Object::SpareHeader | Object::Ring(_) | Object::SpareRing(_) | Object::Condemned(_) => {
                true
            }
            Object::Slot(_) | Object::SpareSlot(_) => {
                object.twin().is_some_and(|twin| self.core.target.get(&twin.key()).is_ok())
            }
            Object::Record(RecordKind::Version, uid) | Object::Attribute(uid, _) => !is_removed(uid)?,
            Object::Ok(uid) => match catalog.record(uid)? {
                Some((record, _)) if record.kind == RecordKind::Version => !is_removed(uid)?,
                Some((record, _)) => self.core.target.get(&layout::record(record.kind, uid)).is_ok(),
                None => false,
            },
            // Drafts, pins and reports come and go without a trace.
            _ => false,
        })
    }

    /// Whether bytes are the object.
    pub(super) fn is_whole(&self, object: Object, bytes: &[u8]) -> bool {
        self.look_at(object, bytes, &mut BTreeMap::new()).is_ok()
    }

    fn look_at(&self, object: Object, bytes: &[u8], described: &mut BTreeMap<PackId, u32>) -> Result<(), String> {
        let open = |kind, id| self.core.sealer.open_object(kind, id, bytes).map_err(|error| error.to_string());
        let of_uid = |kind, uid: Uid| open(kind, object_id(uid.as_bytes(), &[]));
        let told = |error: crate::format::FormatError| error.to_string();
        let is_own =
            |is_own: bool| if is_own { Ok(()) } else { Err("it is another object under this name".to_owned()) };
        match object {
            Object::Header | Object::SpareHeader => {
                keys::check_header(&self.core.sealer, bytes).map_err(|error| error.to_string())
            }
            Object::Slot(id) | Object::SpareSlot(id) => {
                let slot = Slot::decode(bytes).map_err(told)?;
                is_own(slot.id == id && slot.repo == self.id())
            }
            Object::Ring(version) | Object::SpareRing(version) => {
                let rings = self.core.sealer.with_rings(&[bytes.to_vec()]).map_err(|error| error.to_string())?;
                is_own(rings.keyring().current() == version)
            }
            Object::Fragment(id) => {
                let packs =
                    fragment::decode(&open(FrameKind::Fragment, object_id(id.as_bytes(), &[]))?).map_err(told)?;
                for pack in packs.packs {
                    let count = described.entry(pack.pack).or_default();
                    *count = (*count).max(u32::try_from(pack.blocks.len()).unwrap_or(u32::MAX));
                }
                Ok(())
            }
            Object::Record(kind, uid) => {
                let record = record::decode(&of_uid(FrameKind::from(kind), uid)?).map_err(told)?;
                is_own(record.uid == uid && record.kind == kind)
            }
            Object::Ok(uid) => of_uid(FrameKind::Ok, uid).map(drop),
            Object::Withdrawing(uid) => of_uid(FrameKind::Withdrawing, uid).map(drop),
            Object::Tombstone(uid) => of_uid(FrameKind::Tombstone, uid).map(drop),
            Object::Attribute(uid, entry) => {
                let plain = open(FrameKind::Attribute, object_id(uid.as_bytes(), entry.as_bytes()))?;
                let found = attribute::decode(&plain).map_err(told)?;
                is_own(found.version == uid && found.entry == entry)
            }
            Object::Condemned(id) => {
                let plain = open(FrameKind::Condemned, object_id(id.as_bytes(), &[]))?;
                condemned::decode(&plain).map(drop).map_err(told)
            }
            Object::Damage(id) => {
                let plain = open(FrameKind::Damage, object_id(id.as_bytes(), &[]))?;
                damage::decode(&plain).map(drop).map_err(told)
            }
            Object::Pack(_) => Ok(()),
        }
    }
}

fn is_of_packs(directory: &str) -> bool {
    directory.starts_with(layout::PACKS.trim_end_matches('/')) || directory == layout::TMP.trim_end_matches('/')
}
