//! Going on without an object that cannot be read and that no host knows. It stands in the way of every collection, since nobody can
//! say what it needs, or of every backup, since nobody can say what it condemned. Somebody has to decide that it is lost.
//!
//! It is moved aside, not deleted: a host that turns up later and knows it puts it back (`backyfs repair` there).

use crate::format::layout::{self, Object, ObjectKey};
use crate::ops::OpsError;
use crate::ops::gc::Sharing;
use crate::ops::repair::{missing_packs, record_of};
use crate::repo::{RepoError, Repository};
use crate::words::attribute::AttributeChange;
use crate::words::ids::{PackId, Uid};
use crate::words::record::RecordKind;
use crate::words::stamp::Stamp;
use serde::Serialize;

/// What was given up, or would be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GivenUp {
    /// Whether nothing was changed.
    pub is_dry_run: bool,
    /// The object.
    pub object: String,
    /// Why it cannot be read.
    pub problem: String,
    /// What is lost with it, a sentence each.
    pub lost: Vec<String>,
    /// Where it lies now.
    pub moved_to: Option<String>,
}

/// Looks at an object, and moves it aside unless it is a dry run.
///
/// # Errors
/// When it is no object that can be given up, is not there, is whole, or this host knows it; when target or catalog fail.
pub fn give_up(repo: &Repository, object: &str, sharing: Sharing, is_dry_run: bool) -> Result<GivenUp, OpsError> {
    let unknown =
        || OpsError::refused(format!("{object} is not the name of an object: `backyfs repair` and `gc` name them"));
    let key = ObjectKey::new(object).map_err(|_| unknown())?;
    let kind = layout::parse(&key).ok_or_else(unknown)?;
    let Some(problem) = repo.problem_of(&key, kind)? else {
        return Err(OpsError::refused(format!("{object} is whole: there is no reason to give it up")));
    };
    let known = || OpsError::refused(format!("this host knows what {object} said: `backyfs repair` puts it back"));
    let lost = match kind {
        Object::Record(..) | Object::Ok(_) if is_known(repo, kind)? => return Err(known()),
        Object::Condemned(_) if is_known(repo, kind)? => return Err(known()),
        Object::Record(kind, uid) => lost_record(repo, kind, uid)?,
        Object::Ok(uid) => vec![format!(
            "the confirmation of record {uid}: if its record can be read, the next collection takes it for one that was never finished"
        )],
        Object::Condemned(_) => {
            if sharing == Sharing::Unknown && !is_dry_run {
                return Err(OpsError::refused(format!(
                    "{object} says which packs are being deleted. Whoever is deleting them at this moment must not be forgotten: stop \
                     backyfs on all other hosts, and say so with --only-host"
                )));
            }
            if !is_dry_run {
                // Index fragments still name packs that it named and that were deleted: without it they would be relied upon. Nobody is
                // deleting now, so what is not there is all that needs to be condemned in its place, and that before it goes.
                repo.learn_index_everything()?;
                let gone: Vec<PackId> = missing_packs(repo)?.into_iter().collect();
                if !gone.is_empty() {
                    repo.condemn(&gone)?;
                }
            }
            vec![
                "which packs some collection condemned: those that are gone are condemned anew, those that are still there count as sound again"
                    .to_owned(),
                "nothing of any backup: a host that knows the list writes it anew when it looks".to_owned(),
            ]
        }
        _ => {
            return Err(OpsError::refused(format!(
                "{object} is nothing to give up: `backyfs repair` says what can be done about it"
            )));
        }
    };
    let moved_to = if is_dry_run { None } else { repo.move_aside(&key)?.map(|key| key.to_string()) };
    Ok(GivenUp { is_dry_run, object: object.to_owned(), problem, lost, moved_to })
}

fn is_known(repo: &Repository, object: Object) -> Result<bool, OpsError> {
    Ok(match object {
        Object::Record(kind, uid) => record_of(repo, uid)?.is_some_and(|(record, _)| record.kind == kind),
        Object::Ok(uid) => record_of(repo, uid)?.is_some(),
        Object::Condemned(batch) => repo.catalog().known_batches().map_err(RepoError::from)?.contains(&batch),
        _ => false,
    })
}

fn lost_record(repo: &Repository, kind: RecordKind, uid: Uid) -> Result<Vec<String>, OpsError> {
    let made = Stamp::from_millis(uid.millis()).to_seconds_text();
    let mut lost = vec![match kind {
        RecordKind::Version => {
            format!("the version {uid} of {made}, of whatever name: it cannot be listed or restored")
        }
        RecordKind::Draft => format!("the draft {uid} of {made}: what was written to an unfinished copy by then"),
        RecordKind::Pin => format!(
            "the pin {uid} of {made}: should the version below an overlay, or one that is being read, be deleted, its blocks go, too"
        ),
    }];
    // What was said of it since is all that anybody knows of it.
    for entry in repo.catalog().entries(uid).map_err(RepoError::from)? {
        lost.extend(match entry.change {
            AttributeChange::Name(name) => Some(format!("it was renamed to {name}")),
            AttributeChange::AddTag(tag) => Some(format!("it was tagged {tag}")),
            AttributeChange::Protected(true) => Some("it was protected".to_owned()),
            _ => None,
        });
    }
    if kind == RecordKind::Version {
        lost.push(
            "its blocks, from the next collection on; until then `backyfs repair --orphans` lists its image, and --recover makes it a \
             version again"
                .to_owned(),
        );
    }
    Ok(lost)
}
