//! Whether anything happened since the last collection. If not, there is nothing to collect, and knowing that costs no more than
//! a look at the listings.

use crate::ops::OpsError;
use crate::ops::gc::{Options, roots};
use crate::repo::{RepoError, Repository};
use crate::words::record::Verdict;
use crate::words::stamp::Stamp;
use sha2::{Digest, Sha256};

/// Where the last collection left its mark in the catalog.
const KEY: &str = "gc clean";

/// Whether everything is as the last collection left it, and nothing that it kept for its age has come of age.
pub(super) fn is_clean(repo: &Repository, options: &Options, now: Stamp) -> Result<bool, OpsError> {
    let Some(mark) = repo.catalog().get_meta(KEY).map_err(RepoError::from)? else { return Ok(false) };
    let Some((due, print)) = mark.split_first_chunk::<8>() else { return Ok(false) };
    Ok(now.millis() < i64::from_be_bytes(*due) && print == fingerprint(repo, options)?)
}

/// Leaves the mark.
pub(super) fn set_clean(repo: &Repository, options: &Options, due: Option<Stamp>) -> Result<(), OpsError> {
    let due = due.map_or(i64::MAX, Stamp::millis).to_be_bytes();
    let mark = [&due[..], &fingerprint(repo, options)?].concat();
    Ok(repo.catalog().set_meta(KEY, &mark).map_err(RepoError::from)?)
}

/// Names records, index, condemned packs and what is collected by.
fn fingerprint(repo: &Repository, options: &Options) -> Result<[u8; 32], OpsError> {
    let catalog = repo.catalog();
    let mut hash = Sha256::new();
    for (record, verdict) in roots::records(repo)? {
        hash.update(record.uid.as_bytes());
        hash.update([u8::from(verdict == Verdict::Confirmed)]);
    }
    hash.update([0xff]);
    for fragment in catalog.known_fragments().map_err(RepoError::from)? {
        hash.update(fragment.as_bytes());
    }
    hash.update(catalog.fingerprint().map_err(RepoError::from)?.as_bytes());
    hash.update([options.dead_percent]);
    hash.update(options.unfinished_ms.to_be_bytes());
    Ok(hash.finalize().into())
}
