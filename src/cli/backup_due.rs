//! `backup-due`: what a timer runs.

use crate::cli::args::BackupDue;
use crate::cli::exit;
use crate::cli::output;
use crate::cli::progress::line;
use crate::cli::setup::{Context, Open, interrupt};
use crate::control::sources_file::Sources;
use crate::ops::backup::{self, Automatic, BackedUp, Backup as Job};
use crate::ops::due::due_among;
use crate::ops::{Interrupt, OpsError, automatic};
use crate::source::Collection;
use crate::source::collection::ItemKind;
use crate::words::name::Name;
use serde::Serialize;
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;

/// What became of one volume. The field names are those of `--json`.
#[derive(Serialize)]
struct DueBackup {
    /// `SOURCE/VOLUME`.
    name: String,
    /// Of the version, if there is one.
    uid: Option<String>,
    /// Why there is none, or what is wrong with it.
    problem: Option<String>,
}

/// `backyfs backup-due`: each volume that is due, one after another; what fails keeps nothing else from being backed up. The code is
/// that of the first failure.
///
/// # Errors
/// When the repository cannot be opened, or there is no such source.
pub fn backup_due(context: &Context, args: &BackupDue) -> anyhow::Result<ExitCode> {
    let Open { repo, progress, settings } = context.open_or_make()?;
    let sources = chosen(settings.sources, &args.sources)?;
    let policy = Arc::new(settings.policy);
    if !policy.tags_anything() && !context.globals.quiet {
        line("no name has a schedule: set `schedules`, or [names] in the configuration file (docs/schedules.md)");
    }
    automatic::label_overdue(&repo, &policy)?;
    let stop = interrupt();
    let mut code = None;
    let mut fail = |name: &str, problem: String, failed: u8| {
        line(&format!("{name}: {problem}"));
        code.get_or_insert(failed);
        Some(problem)
    };
    let mut volumes = BTreeMap::new();
    let mut done: Vec<DueBackup> = Vec::new();
    for (source, collection) in &sources {
        match volumes_of(source, collection, &stop) {
            Ok(found) => volumes.extend(found.into_iter().map(|(name, path)| (name, (collection, path)))),
            Err(error) => {
                let problem = fail(source, exit::sentence(&error), exit::code_of(&error));
                done.push(DueBackup { name: source.clone(), uid: None, problem });
            }
        }
    }
    let names: Vec<Name> = volumes.keys().cloned().collect();
    for row in due_among(&repo, &policy, &names)? {
        stop.check()?;
        let name = Name::new(&row.name).map_err(|error| OpsError::refused(error.to_string()))?;
        let Some((collection, path)) = volumes.get(&name) else { continue };
        let mut job = Job::new(collection.recipe(path), name);
        job.automatic = Automatic::Everything(Arc::clone(&policy));
        progress.tell(&repo, "backup", job.name.as_str());
        let made = backup::backup(&repo, &job, &*progress, &stop);
        let (uid, problem) = match made {
            Ok(BackedUp { record, bad }) if bad.is_empty() => (Some(record.uid), None),
            Ok(BackedUp { record, bad }) => {
                (Some(record.uid), fail(&row.name, format!("{bad}; the version is incomplete"), exit::SOURCE))
            }
            Err(OpsError::Interrupted) => return Err(OpsError::Interrupted.into()),
            Err(error) => {
                let error = error.into();
                (None, fail(&row.name, exit::sentence(&error), exit::code_of(&error)))
            }
        };
        if let (Some(uid), false) = (uid, context.globals.json) {
            output::print(&format!("{uid} {}\n", row.name))?;
        }
        done.push(DueBackup { name: row.name, uid: uid.map(|uid| uid.to_string()), problem });
    }
    progress.finish();
    if context.globals.json {
        output::json(&done)?;
    }
    Ok(ExitCode::from(code.unwrap_or(0)))
}

fn chosen(mut sources: Sources, wanted: &[String]) -> Result<Sources, OpsError> {
    if let Some(unknown) = wanted.iter().find(|name| !sources.contains_key(*name)) {
        return Err(OpsError::refused(format!("there is no source {unknown:?} in the configuration")));
    }
    if sources.is_empty() {
        return Err(OpsError::refused("the configuration has no sources: write [sources.NAME] (docs/sources.md)"));
    }
    sources.retain(|name, _| wanted.is_empty() || wanted.contains(name));
    Ok(sources)
}

/// Every volume of a source, below however many directories, with the name it is backed up as. One whose name backyfs does not
/// take is told by nobody else, so it is an error.
fn volumes_of(source: &str, collection: &Collection, stop: &Interrupt) -> anyhow::Result<Vec<(Name, String)>> {
    let (mut found, mut directories) = (Vec::new(), vec![String::new()]);
    while let Some(directory) = directories.pop() {
        stop.check()?;
        for (item, kind) in collection.list(&directory).map_err(OpsError::from)? {
            let path = if directory.is_empty() { item } else { format!("{directory}/{item}") };
            match kind {
                ItemKind::Directory => directories.push(path),
                ItemKind::Volume => {
                    let name = Name::new(&format!("{source}/{path}"));
                    let name = name.map_err(|error| OpsError::refused(format!("{path}: {error}")))?;
                    found.push((name, path));
                }
            }
        }
    }
    Ok(found)
}
