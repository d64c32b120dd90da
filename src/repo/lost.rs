//! Versions whose record is gone from the target although nobody deleted it. Whoever deletes writes a tombstone first, and whoever
//! withdraws a record says so, so a record that is gone without either was lost. What this host knew of it is kept, since with
//! the record its blocks can still be found.

use crate::format::layout;
use crate::format::record;
use crate::repo::{Core, RepoError, Repository};
use crate::target::TargetError;
use crate::words::ids::Uid;
use crate::words::name::Name;
use crate::words::record::{Record, RecordKind, Verdict};

const PREFIX: &str = "lost/";

fn key(uid: Uid) -> String {
    format!("{PREFIX}{uid}")
}

impl Core {
    /// Keeps a confirmed version that is known here and gone from the target, if it was lost, and says so. To be called before the
    /// catalog forgets it.
    pub(super) fn note_lost(&self, uid: Uid) -> Result<Option<String>, RepoError> {
        let Some((lost, Verdict::Confirmed)) = self.catalog.record(uid)? else { return Ok(None) };
        if lost.kind != RecordKind::Version {
            return Ok(None);
        }
        for said in [layout::tombstone(uid), layout::withdrawing(uid)] {
            match self.target.get(&said) {
                Err(TargetError::NotFound { .. }) => {}
                Ok(_) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
        self.catalog.set_meta(&key(uid), &record::encode(&lost))?;
        Ok(Some(format!(
            "{}: the record of a version of {} is gone, and nobody deleted it: `backyfs repair` puts it back",
            layout::record(RecordKind::Version, uid),
            lost.attributes.name
        )))
    }
}

impl Repository {
    /// Versions that this host knew and whose records are lost.
    ///
    /// # Errors
    /// When the catalog fails.
    pub fn lost_records(&self) -> Result<Vec<Record>, RepoError> {
        let catalog = &self.core.catalog;
        let mut lost = Vec::new();
        for (kept, bytes) in catalog.metas(PREFIX)? {
            let known = record::decode(&bytes).ok();
            let known = known.filter(|record| record.kind == RecordKind::Version);
            match known {
                Some(record) if !catalog.is_known(record.uid)? => lost.push(record),
                // It was put back, or deleted since.
                _ => catalog.remove_meta(&kept)?,
            }
        }
        Ok(lost)
    }

    /// Their uids and names.
    ///
    /// # Errors
    /// As [`Repository::lost_records`].
    pub fn lost_versions(&self) -> Result<Vec<(Uid, Name)>, RepoError> {
        Ok(self.lost_records()?.into_iter().map(|record| (record.uid, record.attributes.name)).collect())
    }
}
