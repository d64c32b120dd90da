//! `repair`.

use crate::cli::args_repair::Repair;
use crate::cli::exit;
use crate::cli::output::{self, Align, Table};
use crate::cli::progress::{Unit, line};
use crate::cli::setup::{Context, Open, interrupt};
use crate::control::session;
use crate::control::sizes::show_bytes;
use crate::ops::gc::Sharing;
use crate::ops::repair::give_up::{self, GivenUp};
use crate::ops::repair::{self, Repaired, Step, orphans};
use crate::ops::{OpsError, scrub};
use crate::words::name::Name;
use std::process::ExitCode;

/// `backyfs repair`.
///
/// # Errors
/// When the repository cannot be opened, not even with what this host keeps of it, or the target cannot be reached. What cannot be
/// repaired is no error, but a result.
pub fn repair(context: &Context, args: &Repair) -> anyhow::Result<ExitCode> {
    let settings = context.settings(&[])?;
    let target = session::target(&settings)?;
    let mut steps: Vec<Step> = Vec::new();
    if let Some(kept) = session::kept(&settings, &context.clock)? {
        steps = kept.steps(&*target)?;
        if !args.dry_run {
            kept.execute(&*target, &*context.clock)?;
        }
    }
    if args.dry_run && !steps.is_empty() {
        // Nothing else can be looked at before that.
        let only = Repaired { is_dry_run: true, steps, ..Repaired::default() };
        return show(context, &only);
    }
    let Open { repo, progress, .. } = context.open_unlearnt(Unit::Items, session::open_for_rebuild)?;
    if let (Some(root), Some(name)) = (&args.recover, &args.name) {
        let name = Name::new(name).map_err(|error| OpsError::refused(error.to_string()))?;
        scrub::learn(&repo)?;
        let record = orphans::recover(&repo, root, &name)?;
        output::print(&format!("{}\n", record.uid))?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(object) = &args.give_up {
        scrub::learn(&repo)?;
        let sharing = if args.only_host { Sharing::OnlyHere } else { Sharing::Unknown };
        return show_given_up(context, &give_up::give_up(&repo, object, sharing, args.dry_run)?);
    }
    if args.orphans {
        scrub::learn(&repo)?;
        return list_orphans(context, &orphans::orphans(&repo)?);
    }
    progress.tell(&repo, "repair", "the target");
    let repaired = repair::repair(&repo, args.dry_run, &*progress, &interrupt());
    progress.finish();
    let mut repaired = repaired?;
    repaired.steps.splice(..0, steps);
    show(context, &repaired)
}

fn show(context: &Context, repaired: &Repaired) -> anyhow::Result<ExitCode> {
    if context.globals.json {
        output::json(repaired)?;
    } else {
        let mut text = String::new();
        for Step { object, problem, remedy } in &repaired.steps {
            text += &format!("{object}: {problem}: {remedy}\n");
        }
        for bad in &repaired.hopeless {
            text += &format!("cannot be repaired: {}: {}\n", bad.object, bad.problem);
        }
        repaired.versions.iter().for_each(|version| text += &version.text());
        output::print(&text)?;
        if !context.globals.quiet {
            let (steps, verb) = (repaired.steps.len(), if repaired.is_dry_run { "would be" } else { "were" });
            let lost = repaired.versions.len();
            line(&format!(
                "{steps} things {verb} repaired, {} cannot be; {lost} versions lack bytes",
                repaired.hopeless.len()
            ));
        }
    }
    Ok(ExitCode::from(if repaired.is_damage() { exit::DAMAGE } else { 0 }))
}

fn show_given_up(context: &Context, given_up: &GivenUp) -> anyhow::Result<ExitCode> {
    if context.globals.json {
        output::json(given_up)?;
        return Ok(ExitCode::SUCCESS);
    }
    let GivenUp { is_dry_run, object, problem, lost, moved_to } = given_up;
    let mut text = format!("{object}: {problem}\n");
    let verb = if *is_dry_run { "would be lost" } else { "lost" };
    lost.iter().for_each(|lost| text += &format!("{verb}: {lost}\n"));
    if let Some(place) = moved_to {
        text += &format!("moved to {place}\n");
    }
    output::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn list_orphans(context: &Context, found: &[orphans::Orphan]) -> anyhow::Result<ExitCode> {
    if context.globals.json {
        output::json(&found)?;
        return Ok(ExitCode::SUCCESS);
    }
    let columns = [("ROOT", Align::Left), ("SIZE", Align::Right), ("BLOCKS", Align::Right), ("LOST", Align::Right)];
    let mut table = Table::new(&[&columns[..], &[("NAME", Align::Left)]].concat());
    for orphan in found {
        let about = if orphan.is_size_known { "" } else { "about " };
        table.row(vec![
            orphan.root.clone(),
            format!("{about}{}", show_bytes(orphan.size_bytes)),
            orphan.blocks.to_string(),
            orphan.lost_blocks.to_string(),
            orphan.name.clone().unwrap_or_default(),
        ]);
    }
    output::print(&table.render())?;
    Ok(ExitCode::SUCCESS)
}
