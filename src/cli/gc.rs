//! `gc`.

use crate::cli::args::Gc;
use crate::cli::progress::line;
use crate::cli::setup::{Context, Open, interrupt};
use crate::cli::{exit, output};
use crate::control::sizes::show_bytes;
use crate::ops::gc::policy::Reason;
use crate::ops::gc::{self, GoingRow, InUse, Keepers, Options, Report, Sharing};
use std::fmt::Write as _;
use std::process::ExitCode;

/// `backyfs gc`.
///
/// # Errors
/// When another collection runs on this host, or the target fails.
pub fn gc(context: &Context, args: &Gc) -> anyhow::Result<ExitCode> {
    let Open { repo, progress, settings } = context.open_with_items()?;
    let kept_ms = i64::try_from(settings.draft_expire.as_millis()).unwrap_or(i64::MAX);
    let options = Options {
        dry_run: args.dry_run,
        dead_percent: args.dead_percent,
        unfinished_ms: if args.unfinished { 0 } else { kept_ms },
        sharing: if args.only_host { Sharing::OnlyHere } else { Sharing::Unknown },
    };
    progress.tell(&repo, "gc", "packs");
    let collected = gc::gc(&repo, &options, &*progress, &interrupt());
    progress.finish();
    let report = collected?;
    if context.globals.json {
        output::json(&report)?;
    } else if !context.globals.quiet {
        output::print(&text(&report))?;
    }
    for version in &report.unconfirmed {
        line(&format!(
            "the confirmation of version {version} is lost; it stays: run `backyfs repair` on a host that knows it"
        ));
    }
    for obstacle in &report.obstacles {
        line(&format!("nothing more is deleted: {obstacle}"));
    }
    if report.damaged_packs > 0 {
        line(&format!("{} packs stay because blocks in them are damaged and needed", report.damaged_packs));
    }
    let is_whole = report.obstacles.is_empty() && report.damaged_packs == 0;
    Ok(ExitCode::from(if is_whole { 0 } else { exit::DAMAGE }))
}

/// Who needs what stays.
fn kept_by(keepers: &Keepers) -> String {
    let Keepers { versions, expired, drafts, foreign_drafts, unconfirmed, lost, deleted_in_use } = keepers;
    let mut text = format!("what stays is kept by {versions} versions");
    for (count, what) in [
        (drafts, "drafts of this host"),
        (foreign_drafts, "drafts of other hosts"),
        (unconfirmed, "records that are not confirmed yet"),
        (lost, "versions whose records are lost (run `backyfs repair`)"),
    ] {
        if *count > 0 {
            let _ = write!(text, ", {count} {what}");
        }
    }
    text.push('\n');
    if *expired > 0 {
        let _ = writeln!(text, "{expired} of these versions have expired: `backyfs prune` deletes them");
    }
    for InUse { version, name, host, is_here, since } in deleted_in_use {
        let place = if *is_here { "this host".to_owned() } else { format!("host {host}") };
        let out = if *is_here { "" } else { "; if that host is gone for good, `backyfs rm --force` of it lets go" };
        let _ =
            writeln!(text, "version {version} of {name} was deleted and is still in use on {place} since {since}{out}");
    }
    text
}

fn text(report: &Report) -> String {
    if report.nothing_new {
        return format!("nothing was removed since the last collection\n{}", kept_by(&report.kept_by));
    }
    let mut text = String::new();
    let will = if report.dry_run { "would go" } else { "went" };
    for GoingRow { reason, packs, bytes, needed_bytes } in &report.going {
        let why = match reason {
            Reason::Dead => "nothing in them is needed".to_owned(),
            Reason::Abandoned => "backups that were never finished stored them".to_owned(),
            Reason::Sparse => format!("too little of them is needed: {} to copy", show_bytes(*needed_bytes)),
            Reason::Small => format!("they are many and small: {} to copy", show_bytes(*needed_bytes)),
        };
        let _ = writeln!(text, "{packs} packs of {} {will}: {why}", show_bytes(*bytes));
    }
    let staying = &report.staying;
    let _ = writeln!(
        text,
        "{} packs of {} stay; {} in them are not needed, too few in each to be worth copying the rest",
        staying.packs,
        show_bytes(staying.bytes),
        show_bytes(staying.dead_bytes)
    );
    if let Some(until) = &staying.unfinished_until {
        let _ = writeln!(
            text,
            "{} packs of {} stay: backups that are under way or were not finished stored them; the first may go at {until}, or now with \
             --unfinished",
            staying.unfinished_packs,
            show_bytes(staying.unfinished_bytes)
        );
    }
    text += &kept_by(&report.kept_by);
    if report.dry_run {
        return text;
    }
    for (count, what) in [
        (report.resumed_packs, "packs were left by an earlier collection"),
        (report.withdrawn_records, "records that were never confirmed were withdrawn"),
        (report.merged_fragments, "index fragments fewer"),
    ] {
        if count > 0 {
            let _ = writeln!(text, "{count} {what}");
        }
    }
    let freed = u64::try_from(report.freed_bytes).unwrap_or(0);
    let _ = writeln!(
        text,
        "freed {}: {} packs deleted, {} copied",
        show_bytes(freed),
        report.deleted_packs,
        show_bytes(report.copied_bytes)
    );
    text
}
