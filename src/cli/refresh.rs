//! `refresh` and `adopt`: what has to do with other hosts.

use crate::cli::args::Adopt;
use crate::cli::exit;
use crate::cli::output;
use crate::cli::progress::{Unit, line};
use crate::cli::setup::{Context, Open};
use crate::control::session;
use crate::ops::OpsError;
use crate::words::ids::Uid;
use serde_json::json;
use std::process::ExitCode;

/// `backyfs refresh`. A running mount sees what is learnt here, because the catalog is theirs in common.
///
/// # Errors
/// When the target cannot be reached or the catalog fails.
pub fn refresh(context: &Context) -> anyhow::Result<ExitCode> {
    let Open { repo, .. } = context.open_unlearnt(Unit::Items, session::open)?;
    let learned = repo.refresh_everything()?;
    if context.globals.json {
        output::json(&learned)?;
    } else if !context.globals.quiet {
        line(&format!(
            "learnt {} records and {} attribute changes; {} records are gone",
            learned.records, learned.entries, learned.removed
        ));
    }
    if let Some(missing) = &learned.rebuilt {
        line(&format!("{missing} is missing on the target: the catalog was made anew from what is there"));
    }
    for text in &learned.unreadable {
        line(&format!("cannot be read: {text}"));
    }
    Ok(ExitCode::from(if learned.unreadable.is_empty() { 0 } else { exit::DAMAGE }))
}

/// `backyfs adopt`.
///
/// # Errors
/// When there is no such draft, or this host has one of that name.
pub fn adopt(context: &Context, args: &Adopt) -> anyhow::Result<()> {
    let uid: Uid = args.draft.parse().map_err(|error| OpsError::refused(format!("{error}")))?;
    let Open { repo, .. } = context.open()?;
    let record = repo.adopt_draft(uid)?;
    let name = &record.attributes.name;
    if context.globals.json {
        output::json(&json!({ "uid": record.uid.to_string(), "name": name.as_str() }))?;
    } else if !context.globals.quiet {
        line(&format!("incoming/{name} of this host goes on from it; the other host keeps its own"));
    }
    Ok(())
}
