//! What people call a version: a uid, the beginning of one, NAME, or NAME@moment.

use crate::catalog::Version;
use crate::repo::{RepoError, Repository};
use crate::words::ids::Uid;
use crate::words::name::Name;

impl Repository {
    /// Finds the version meant by `spec`. A whole uid comes first, then a name (its newest complete version), then
    /// `NAME@2026-11-22T18:31` (the newest complete version whose time begins so), then the beginning of a uid.
    ///
    /// # Errors
    /// [`RepoError::NoSuchVersion`] or [`RepoError::Ambiguous`].
    pub fn resolve(&self, spec: &str) -> Result<Version, RepoError> {
        let unknown = || RepoError::NoSuchVersion { spec: spec.to_owned() };
        if let Ok(uid) = spec.parse::<Uid>() {
            return self.version(uid);
        }
        let catalog = self.catalog();
        if let Some(uid) = Name::new(spec).ok().map(|name| catalog.newest_complete(&name)).transpose()?.flatten() {
            return self.version(uid);
        }
        if let Some((name, moment)) = spec.rsplit_once('@') {
            let name = Name::new(name).map_err(|_| unknown())?;
            for (created, uid) in catalog.versions_of(&name)?.into_iter().rev() {
                let version = self.version(uid)?;
                if (created.to_millis_text().starts_with(moment) || created.to_seconds_text() == moment)
                    && version.attributes.validity.is_complete()
                {
                    return Ok(version);
                }
            }
            return Err(unknown());
        }
        if spec.len() < 4 {
            return Err(unknown());
        }
        match catalog.find_by_prefix(spec)?.as_slice() {
            [] => Err(unknown()),
            [uid] => self.version(*uid),
            many => Err(RepoError::Ambiguous { spec: spec.to_owned(), count: many.len() }),
        }
    }
}
