//! `backup` and `restore`.

use crate::cli::args::{Backup, Restore};
use crate::cli::exit;
use crate::cli::output;
use crate::cli::progress::line;
use crate::cli::setup::{Context, Open, interrupt};
use crate::control::Settings;
use crate::control::sizes::show_bytes;
use crate::ops::backup::{self, Automatic, BackedUp, Backup as Job, Begin};
use crate::ops::base::ChangesFrom;
use crate::ops::listing::VersionDetails;
use crate::ops::pull::OnBadSectors;
use crate::ops::restore::{self, OnDamage, Options, Restored};
use crate::ops::{OpsError, label};
use crate::source::Recipe;
use crate::source::destination::{Consent, Holes, Start};
use crate::source::file_destination::PART_SUFFIX;
use crate::words::name::Name;
use crate::words::record::Stats;
use std::io;
use std::process::ExitCode;
use std::sync::Arc;

/// `backyfs backup`.
///
/// # Errors
/// When nothing was published.
pub fn backup(context: &Context, args: &Backup) -> anyhow::Result<ExitCode> {
    let name = Name::new(&args.name).map_err(|error| OpsError::refused(error.to_string()))?;
    let tags = label::parse_tags(&args.tag)?;
    let expire = args.expire.as_deref().map(|text| label::parse_expire(text, context.clock.now())).transpose()?;
    let created = args.created.as_deref().map(|text| label::parse_moment(text, context.clock.now())).transpose()?;
    let Open { repo, progress, settings } = context.open_or_make()?;
    let source = recipe(&settings, &args.source)?.of_format(&args.format).map_err(OpsError::from)?;
    let policy = Arc::new(settings.policy);
    let automatic = match (args.tag.is_empty(), args.expire.is_some()) {
        _ if created.is_some() => Automatic::Nothing,
        (false, _) => Automatic::Nothing,
        (true, true) => Automatic::Tags(policy),
        (true, false) => Automatic::Everything(policy),
    };
    let from = args.from.as_deref().map(|spec| repo.resolve(spec)).transpose()?.map(|version| version.record.uid);
    let job = Job {
        source,
        name,
        snapshot_name: args.snapshot.clone(),
        tags,
        expire: expire.flatten(),
        created,
        automatic,
        from,
        changes: match &args.hints {
            Some(file) => ChangesFrom::Hints(file.clone()),
            None if args.full => ChangesFrom::Nobody,
            None => ChangesFrom::Source,
        },
        begin: if args.resume { Begin::Continue } else { Begin::Anew },
        on_bad: if args.skip_errors { OnBadSectors::Skip } else { OnBadSectors::Tolerate },
    };
    progress.tell(&repo, "backup", &args.name);
    let made = backup::backup(&repo, &job, &*progress, &interrupt());
    progress.finish();
    let BackedUp { record, bad } = made?;
    let version = repo.version(record.uid)?;
    if context.globals.json {
        output::json(&VersionDetails::from(&version))?;
    } else {
        if !context.globals.quiet {
            line(&cost(record.image.size_bytes, &record.stats));
        }
        output::print(&format!("{}\n", record.uid))?;
    }
    if bad.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    line(&format!("{bad}; these {} bytes are zero in version {}", bad.bytes(), record.uid));
    if args.skip_errors {
        return Ok(ExitCode::SUCCESS);
    }
    line(
        "the version is incomplete: repeat with --skip-errors to have it count as a backup (for schedules, too), or write `valid` to its file of that name",
    );
    Ok(ExitCode::from(exit::SOURCE))
}

/// What was typed as a source or a destination: a volume of a configured source, or a way of its own.
///
/// # Errors
/// When it is neither.
pub fn recipe(settings: &Settings, text: &str) -> anyhow::Result<Recipe> {
    if let Some((name, volume)) = text.split_once(':')
        && let Some(source) = settings.sources.get(name)
    {
        return Ok(source.recipe(volume));
    }
    Ok(Recipe::parse(text, &std::env::current_dir()?).map_err(OpsError::from)?)
}

fn cost(size_bytes: u64, stats: &Stats) -> String {
    format!(
        "{} in {}.{:01} s: {} unchanged, {} known, {} new, stored in {}",
        show_bytes(size_bytes),
        stats.duration_ms / 1000,
        stats.duration_ms / 100 % 10,
        show_bytes(stats.unchanged_bytes),
        show_bytes(stats.deduplicated_bytes),
        show_bytes(stats.new_bytes),
        show_bytes(stats.stored_bytes)
    )
}

/// `backyfs restore`.
///
/// # Errors
/// When the destination is not whole.
pub fn restore(context: &Context, args: &Restore) -> anyhow::Result<ExitCode> {
    let Open { repo, progress, settings } = context.open_for_work()?;
    let version = repo.resolve(&args.version)?;
    let on_damage = if args.skip_damaged { OnDamage::Skip } else { OnDamage::Stop };
    let options = Options {
        consent: if args.force { Consent::Force } else { Consent::None },
        start: if args.resume { Start::Resume } else { Start::Anew },
        holes: if args.sparse == "no" { Holes::Allocate } else { Holes::Keep },
        on_damage,
        threads: repo.readers(),
    };
    progress.tell(&repo, "restore", &args.version);
    let is_stream = args.destination == "-";
    let restored = if is_stream {
        restore::restore_stream(&repo, &version, &mut io::stdout().lock(), on_damage, &*progress, &interrupt())
    } else {
        let volume = recipe(&settings, &args.destination)?.volume().map_err(OpsError::from)?;
        restore::restore(&repo, &version, &*volume, &options, &*progress, &interrupt())
    };
    progress.finish();
    let restored = restored.inspect_err(|_| hint_at_part(args))?;
    report(context, is_stream, &restored)?;
    let code = if restored.zeroed.is_empty() { 0 } else { exit::DAMAGE };
    Ok(ExitCode::from(code))
}

/// What was restored before a failure is worth going on from.
fn hint_at_part(args: &Restore) {
    let part = format!("{}{PART_SUFFIX}", args.destination);
    if !args.resume && std::fs::metadata(&part).is_ok_and(|part| part.len() > 0) {
        line(&format!("what was restored is kept in {part}: --continue goes on from there"));
    }
}

fn report(context: &Context, is_stream: bool, restored: &Restored) -> anyhow::Result<()> {
    for range in &restored.zeroed {
        let (offset, length) = (range.offset, range.length);
        line(&format!("zeros at offset {offset}, {length} bytes, because they cannot be read: {}", range.reason));
    }
    if context.globals.json && !is_stream {
        output::json(restored)?;
    } else if !context.globals.quiet && !is_stream {
        let kept = match restored.kept_bytes {
            0 => String::new(),
            bytes => format!(", {} were there already", show_bytes(bytes)),
        };
        line(&format!(
            "restored {} of version {} to {}: {} written{kept}",
            show_bytes(restored.size_bytes),
            restored.uid,
            restored.destination,
            show_bytes(restored.written_bytes)
        ));
    }
    Ok(())
}
