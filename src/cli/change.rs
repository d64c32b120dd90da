//! `tag`, `untag`, `expire`, `protect`, `unprotect` and `rm`.

use crate::catalog::Version;
use crate::cli::args::{Expire, Many, Rm, Tags};
use crate::cli::output;
use crate::cli::progress::line;
use crate::cli::setup::{Context, Open};
use crate::ops::discard;
use crate::ops::label::{self, label};
use crate::ops::listing::VersionRow;
use crate::ops::overlays;
use crate::ops::remove::{self, Consent, Options};
use crate::repo::Repository;
use crate::words::attribute::AttributeChange;
use crate::words::ids::Uid;
use serde_json::json;

/// Shows versions as they are after a change: as JSON, or not at all.
fn show(context: &Context, versions: &[Version]) -> anyhow::Result<()> {
    if context.globals.json {
        output::json(&versions.iter().map(VersionRow::from).collect::<Vec<_>>())?;
    }
    Ok(())
}

fn change_one(context: &Context, spec: &str, changes: &[AttributeChange]) -> anyhow::Result<()> {
    let Open { repo, .. } = context.open()?;
    let version = label(&repo, spec, changes)?;
    show(context, &[version])
}

/// `backyfs tag`.
///
/// # Errors
/// When the version does not exist or a tag is none.
pub fn tag(context: &Context, args: &Tags) -> anyhow::Result<()> {
    let changes: Vec<_> = label::parse_tags(&args.tags)?.into_iter().map(AttributeChange::AddTag).collect();
    change_one(context, &args.version, &changes)
}

/// `backyfs untag`.
///
/// # Errors
/// As [`tag`].
pub fn untag(context: &Context, args: &Tags) -> anyhow::Result<()> {
    let changes: Vec<_> = label::parse_tags(&args.tags)?.into_iter().map(AttributeChange::RemoveTag).collect();
    change_one(context, &args.version, &changes)
}

/// `backyfs expire`.
///
/// # Errors
/// When the version does not exist or the date is none.
pub fn expire(context: &Context, args: &Expire) -> anyhow::Result<()> {
    let expire = label::parse_expire(&args.date, context.clock.now())?;
    change_one(context, &args.version, &[AttributeChange::Expire(expire)])
}

/// `backyfs protect` and `unprotect`.
///
/// # Errors
/// When a version does not exist. All are looked for before one is changed.
pub fn protect(context: &Context, args: &Many, protected: bool) -> anyhow::Result<()> {
    let Open { repo, .. } = context.open()?;
    let found: Vec<_> = args.versions.iter().map(|spec| repo.resolve(spec)).collect::<Result<_, _>>()?;
    let mut changed = Vec::new();
    for version in found {
        let uid = version.record.uid.to_string();
        changed.push(label(&repo, &uid, &[AttributeChange::Protected(protected)])?);
    }
    show(context, &changed)
}

/// `backyfs rm`.
///
/// # Errors
/// When a version does not exist or may not be deleted. Then none is: all are decided upon before one goes.
pub fn rm(context: &Context, args: &Rm) -> anyhow::Result<()> {
    let Open { repo, settings, .. } = context.open()?;
    let consent = if args.force { Consent::Forced } else { Consent::Plain };
    let options = Options { consent, protect_younger: settings.protect_younger, open_handles: 0 };
    let mut uids: Vec<Uid> = Vec::new();
    let (mut drafts, mut pinned) = (Vec::new(), Vec::<Uid>::new());
    for spec in &args.versions {
        if let Some(draft) = discard::plan(&repo, spec, consent)? {
            drafts.push(draft);
            continue;
        }
        match (label::resolve_for_removal(&repo, spec), spec.parse::<Uid>()) {
            (Err(_), Ok(uid)) if args.force && is_only_pinned(&repo, uid)? => pinned.push(uid),
            (found, _) => uids.push(found?),
        }
    }
    uids.sort_unstable();
    uids.dedup();
    let plan: Vec<_> = uids.into_iter().map(|uid| remove::plan(&repo, uid, &options)).collect::<Result<_, _>>()?;
    let mut removed = Vec::new();
    for uid in pinned {
        let dropped = overlays::drop_foreign_pins(&repo, uid)?;
        if !context.globals.quiet && !context.globals.json {
            line(&format!(
                "{dropped} pins of other hosts on version {uid} were dropped; `backyfs gc` gives back its space"
            ));
        }
        removed.push(uid.to_string());
    }
    for draft in drafts {
        let (uid, name) = (draft.uid().to_string(), draft.name().to_string());
        draft.execute(&repo)?;
        if !context.globals.quiet && !context.globals.json {
            line(&format!("draft {uid} of {name} was removed"));
        }
        removed.push(uid);
    }
    for removal in plan {
        let uid = removal.uid().to_string();
        removal.execute(&repo)?;
        if !context.globals.quiet && !context.globals.json {
            line(&format!("version {uid} was deleted; `backyfs gc` gives back its space"));
        }
        removed.push(uid);
    }
    if context.globals.json {
        output::json(&json!({ "removed": removed }))?;
    }
    Ok(())
}

/// Whether all that is left of a version are pins of other hosts.
fn is_only_pinned(repo: &Repository, uid: Uid) -> anyhow::Result<bool> {
    Ok(repo.version(uid).is_err() && overlays::foreign_pins(repo)?.iter().any(|pin| pin.base == uid))
}
