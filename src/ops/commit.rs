//! Publishing a version: what a finished draft, a backup command and an import have in common.

use crate::image::Settled;
use crate::ops::scrub::assess::Assessor;
use crate::ops::scrub::mark::remark;
use crate::ops::{Interrupt, OpsError};
use crate::repo::{RepoError, Repository};
use crate::words::attribute::Attributes;
use crate::words::clock::ClockExt;
use crate::words::ids::{DraftId, Uid};
use crate::words::record::{ImageRef, Record, RecordKind, Stats};
use crate::words::stamp::Stamp;

/// What a version is published with, beside its image.
#[derive(Debug, Clone)]
pub struct Publication {
    /// Its attributes, the name among them.
    pub attributes: Attributes,
    /// The version it was made from, or nil.
    pub base: Uid,
    /// The version it replaces (going on after close), or nil.
    pub supersedes: Uid,
    /// The draft it was, or nil.
    pub draft: DraftId,
    /// Its moment, when it is one of the past: of a backup that was made elsewhere. Otherwise it is now.
    pub created: Option<Stamp>,
    /// Milliseconds from the first write until now.
    pub duration_ms: u64,
    /// Images besides the base's that its map shares subtrees with: what they were checked for is not walked again.
    pub relatives: Vec<ImageRef>,
}

impl Publication {
    /// Of an image that is made from nothing and takes no time.
    pub const fn new(attributes: Attributes) -> Self {
        Self {
            attributes,
            base: Uid::NIL,
            supersedes: Uid::NIL,
            draft: DraftId::NIL,
            created: None,
            duration_ms: 0,
            relatives: Vec::new(),
        }
    }
}

/// Publishes a settled image as a version. On return it is durable, checked and confirmed.
///
/// Its moment is now, or just after the newest version of its name when the clock stands before that: `latest` must not
/// depend on a clock that was set back. Another host may publish the same name meanwhile; then both stand, in the order of
/// their moments and uids.
///
/// # Errors
/// [`RepoError::NameCollision`] when the name would have to be a file and a directory at once, and what
/// [`Repository::publish`] says. Nothing is acknowledged then.
pub fn publish_version(repo: &Repository, settled: &Settled, publication: Publication) -> Result<Record, RepoError> {
    let Publication { attributes, base, supersedes, draft, created, duration_ms, mut relatives } = publication;
    repo.check_name(&attributes.name)?;
    let attributes = with_known_damage(repo, &settled.image, attributes)?;
    let newest = repo.catalog().versions_of(&attributes.name)?.last().map(|(created, _)| created.plus_millis(1));
    let now = repo.clock().now();
    // Uids rise with the time of publication in any case: other hosts look for what is new among the newest.
    let published = newest.map_or(now, |after| after.max(now));
    for uid in [base, supersedes].into_iter().filter(|uid| !uid.is_nil()) {
        relatives.extend(repo.catalog().record(uid)?.map(|(record, _)| record.image));
    }
    let record = Record {
        uid: repo.clock().uid_at(published),
        kind: RecordKind::Version,
        created: created.unwrap_or(published),
        host: repo.host(),
        image: settled.image,
        base,
        supersedes,
        draft,
        start: settled.image,
        broken: None,
        attributes,
        stats: Stats { duration_ms, ..settled.stats },
    };
    repo.publish(&record, &relatives)?;
    Ok(record)
}

/// A version that is made from a damaged one, without all of it being written anew, is damaged as well, and must say so from
/// the beginning. Costs nothing while no damage is known, and otherwise a walk over the map.
fn with_known_damage(repo: &Repository, image: &ImageRef, attributes: Attributes) -> Result<Attributes, RepoError> {
    if repo.catalog().damaged()?.is_empty() {
        return Ok(attributes);
    }
    let found = Assessor::new(repo, Interrupt::never()).assess(image).map_err(|error| match error {
        OpsError::Repo(error) => error,
        _ => RepoError::Stopped,
    })?;
    if found.lost_bytes == 0 {
        return Ok(attributes);
    }
    let validity = remark(&attributes.validity, &found).unwrap_or(attributes.validity);
    Ok(Attributes { validity, ..attributes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repo::testing;

    fn publication(name: &str) -> Publication {
        Publication::new(testing::attributes(name))
    }

    #[test]
    fn moments_of_a_name_only_rise_and_names_do_not_collide() {
        let test = testing::create(&testing::small());
        let image = ImageRef::empty(test.repo.block_size());
        let settled = Settled { image, changes: 0, stats: Stats::default() };
        let made: Vec<Record> =
            (0..20).map(|_| publish_version(&test.repo, &settled, publication("host/vm")).unwrap()).collect();
        assert!(made.windows(2).all(|pair| pair[0].created < pair[1].created && pair[0].uid < pair[1].uid));
        for name in ["host", "host/vm/disk"] {
            let refused = publish_version(&test.repo, &settled, publication(name));
            assert!(matches!(refused, Err(RepoError::NameCollision { .. })), "{name}");
        }
        assert_eq!(test.repo.catalog().version_uids().unwrap().len(), 20);
    }
}
