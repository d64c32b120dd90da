//! `export`, `import` and `rebuild`.

use crate::cli::args::{Export, Import, Rebuild};
use crate::cli::exit;
use crate::cli::output;
use crate::cli::progress::line;
use crate::cli::setup::{Context, Open};
use crate::ops::listing::VersionRow;
use crate::ops::rebuild::{self, IndexSource};
use crate::ops::{OpsError, transfer};
use crate::source::SourceError;
use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::process::ExitCode;

/// The longest export worth reading.
const EXPORT_MAX_BYTES: u64 = 16 << 20;

/// `backyfs export`.
///
/// # Errors
/// When there is no such version, or the file exists.
pub fn export(context: &Context, args: &Export) -> anyhow::Result<()> {
    let Open { repo, .. } = context.open()?;
    let export = transfer::export(&repo, &repo.resolve(&args.version)?);
    if args.file.as_os_str() == "-" {
        output::json(&export)?;
        return Ok(());
    }
    let mut text = serde_json::to_string_pretty(&export)?;
    text.push('\n');
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::AlreadyExists => {
            OpsError::refused(format!("{} exists: nothing was written", args.file.display()))
        }
        _ => OpsError::Destination { path: args.file.clone(), action: "written", source },
    };
    let mut file = OpenOptions::new().write(true).create_new(true).open(&args.file).map_err(failed)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(|error| {
        // Half an export must not stand in the way of a whole one.
        let _ = std::fs::remove_file(&args.file);
        failed(error)
    })?;
    Ok(())
}

/// `backyfs import`.
///
/// # Errors
/// When it is no export of this repository, or a block is gone.
pub fn import(context: &Context, args: &Import) -> anyhow::Result<()> {
    let mut text = String::new();
    let failed = |source| OpsError::from(SourceError::Open { what: args.file.display().to_string(), source });
    if args.file.as_os_str() == "-" {
        io::stdin().lock().take(EXPORT_MAX_BYTES).read_to_string(&mut text).map_err(failed)?;
    } else {
        let file = std::fs::File::open(&args.file).map_err(failed)?;
        file.take(EXPORT_MAX_BYTES).read_to_string(&mut text).map_err(failed)?;
    }
    let Open { repo, progress, .. } = context.open()?;
    let file = args.file.display().to_string();
    progress.tell(&repo, "import", &file);
    let imported = transfer::import(&repo, &text, &file, &*progress);
    progress.finish();
    let record = imported?;
    if context.globals.json {
        output::json(&VersionRow::from(&repo.version(record.uid)?))?;
    } else {
        output::print(&format!("{}\n", record.uid))?;
    }
    Ok(())
}

/// `backyfs rebuild`.
///
/// # Errors
/// When the target cannot be reached or the catalog fails.
pub fn rebuild(context: &Context, args: &Rebuild) -> anyhow::Result<ExitCode> {
    let Open { repo, progress, .. } = context.open_for_rebuild()?;
    let source = if args.from_packs { IndexSource::Packs } else { IndexSource::Fragments };
    progress.tell(&repo, "rebuild", "the catalog");
    let rebuilt = rebuild::rebuild(&repo, source, &*progress);
    progress.finish();
    let rebuilt = rebuilt?;
    if context.globals.json {
        output::json(&rebuilt)?;
    } else if !context.globals.quiet {
        line(&format!(
            "learnt {} records, {} attribute changes and {} packs, {} of them from the packs themselves",
            rebuilt.records, rebuilt.entries, rebuilt.packs, rebuilt.packs_indexed
        ));
    }
    for text in &rebuilt.unreadable {
        line(&format!("cannot be read: {text}"));
    }
    let code = if rebuilt.unreadable.is_empty() { 0 } else { exit::DAMAGE };
    Ok(ExitCode::from(code))
}
