//! `scrub`.

use crate::cli::args::Scrub;
use crate::cli::data::recipe;
use crate::cli::exit;
use crate::cli::output;
use crate::cli::progress::{Unit, line};
use crate::cli::setup::{Context, Open, interrupt};
use crate::control::session;
use crate::control::sizes::{parse_bytes, show_bytes};
use crate::ops::OpsError;
use crate::ops::scrub::keyless::{self, KeylessOptions};
use crate::ops::scrub::{self, Options, Selection, Start, source};
use crate::ops::snapshots::Session;
use crate::repo::Repository;
use crate::source::Recipe;
use crate::words::name::Name;
use std::process::ExitCode;
use std::sync::Arc;

/// `backyfs scrub`.
///
/// # Errors
/// When the repository cannot be opened, the target cannot be reached, or it was interrupted. Damage is no error, but a result.
pub fn scrub(context: &Context, args: &Scrub) -> anyhow::Result<ExitCode> {
    check(args)?;
    let rate = args.rate.as_deref().map(parse_rate).transpose()?;
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    if args.packs {
        return keyless(context, KeylessOptions { rate, threads, after: args.after.clone() });
    }
    let Open { repo, progress, settings } = context.open_for_scrub()?;
    scrub::learn(&repo)?;
    if let Some(source) = &args.source {
        let spec = args.what.as_deref().ok_or_else(|| OpsError::refused("--source needs a VERSION to compare with"))?;
        let source = recipe(&settings, source)?;
        return compare(context, &repo, &progress, spec, &source, (rate, threads));
    }
    let selection = match (&args.what, args.all) {
        (None, _) => Selection::All,
        (Some(spec), false) => select(&repo, spec)?,
        (Some(_), true) => return Err(OpsError::refused("give either a version, a name, or --all").into()),
    };
    let start = if args.restart { Start::Anew } else { Start::Resume };
    let options = Options { selection, percent: args.percent, rate, threads, start };
    progress.tell(&repo, "scrub", args.what.as_deref().unwrap_or("all"));
    let report = scrub::scrub(&repo, &options, &*progress, &interrupt());
    progress.finish();
    let report = report?;
    if context.globals.json {
        output::json(&report)?;
    } else if !context.globals.quiet || report.is_damage() {
        output::print(&report.text())?;
    }
    Ok(code(report.is_damage()))
}

/// Refuses what would be passed over in silence.
fn check(args: &Scrub) -> Result<(), OpsError> {
    let is_partial = args.percent.is_some() || args.all || args.restart;
    if args.packs && (args.what.is_some() || args.source.is_some() || is_partial) {
        let problem = "--packs reads all packs without a key, cannot tell versions apart and remembers nothing: leave the rest \
                       out (--after goes on from a pack)";
        return Err(OpsError::refused(problem));
    }
    if args.source.is_some() && is_partial {
        let problem = "--source compares a whole version each time: leave --percent, --all and --restart out";
        return Err(OpsError::refused(problem));
    }
    Ok(())
}

fn code(is_damage: bool) -> ExitCode {
    ExitCode::from(if is_damage { exit::DAMAGE } else { 0 })
}

fn parse_rate(text: &str) -> Result<u64, OpsError> {
    match parse_bytes(text.strip_suffix("/s").unwrap_or(text)) {
        Ok(0) => Err(OpsError::refused("--rate: nothing can be read at no bytes a second")),
        Ok(bytes) => Ok(bytes),
        Err(problem) => Err(OpsError::refused(format!("--rate: {problem}"))),
    }
}

/// A name means all its versions here, anything else one version.
fn select(repo: &Repository, spec: &str) -> Result<Selection, OpsError> {
    let named = Name::new(spec).ok().map(|name| repo.catalog().versions_of(&name)).transpose();
    let named = named.map_err(crate::repo::RepoError::from)?.unwrap_or_default();
    let uids = match named.is_empty() {
        true => vec![repo.resolve(spec)?.record.uid],
        false => named.into_iter().map(|(_, uid)| uid).collect(),
    };
    Ok(Selection::Versions(spec.to_owned(), uids))
}

fn keyless(context: &Context, options: KeylessOptions) -> anyhow::Result<ExitCode> {
    context.log_to_stderr();
    crate::cli::setup::default_broken_pipe();
    let settings = context.settings(&[])?;
    let progress = context.progress(Unit::Bytes);
    let scrubbed = keyless::scrub(&*session::target(&settings)?, &options, &progress, &interrupt());
    progress.finish();
    let (report, is_finished) = scrubbed?;
    if context.globals.json {
        output::json(&report)?;
    } else {
        for pack in report.damaged_packs.iter().chain(&report.unreadable_packs) {
            output::print(&format!("{}: {}\n", pack.pack, pack.problem))?;
        }
        if !context.globals.quiet {
            let (packs, bytes, damaged) = (report.packs_read, report.bytes_read, report.damaged_packs.len());
            line(&format!("{packs} packs with {} were read, {damaged} are damaged", show_bytes(bytes)));
        }
    }
    if !is_finished {
        if let Some(reached) = &report.reached {
            line(&format!("interrupted; --after {reached} goes on from there"));
        }
        return Err(OpsError::Interrupted.into());
    }
    Ok(code(!report.damaged_packs.is_empty() || !report.unreadable_packs.is_empty()))
}

fn compare(
    context: &Context,
    repo: &Arc<Repository>,
    progress: &crate::cli::progress::Progress,
    spec: &str,
    source: &Recipe,
    how: (Option<u64>, usize),
) -> anyhow::Result<ExitCode> {
    let version = repo.resolve(spec)?;
    let session = Session::now(repo, source)?;
    let compared = source::compare(repo, &version, &**session.source(), how, progress, &interrupt());
    progress.finish();
    let compared = compared?;
    if context.globals.json {
        output::json(&compared)?;
        return Ok(code(!compared.is_equal()));
    }
    for range in &compared.lost {
        output::print(&format!("lost: {} bytes at offset {}: {}\n", range.length, range.offset, range.reason))?;
    }
    for range in &compared.differing {
        output::print(&format!("differs: {} bytes at offset {}\n", range.length, range.offset))?;
    }
    if compared.size_bytes != compared.source_size_bytes {
        let (version, source) = (compared.size_bytes, compared.source_size_bytes);
        output::print(&format!("differs: the version has {version} bytes, the source {source}\n"))?;
    }
    if !context.globals.quiet {
        let (bytes, differ) = (show_bytes(compared.compared_bytes), compared.differing_bytes);
        line(&format!("{bytes} of version {} were compared: {differ} bytes differ", compared.uid));
    }
    Ok(code(!compared.is_equal()))
}
