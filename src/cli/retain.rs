//! `due`, `sla` and `prune`.

use crate::cli::args::{DueArgs, Filtered, Prune};
use crate::cli::exit;
use crate::cli::inspect::parse_name;
use crate::cli::output::{self, Align, Table};
use crate::cli::progress::line;
use crate::cli::setup::{Context, Open, interrupt};
use crate::control::retention::parse_keep;
use crate::ops::due::list_due;
use crate::ops::listing::Filter;
use crate::ops::prune::{self, Action, Options, PruneRow};
use crate::ops::retain::Policy;
use crate::ops::sla::list_breaches;
use crate::ops::{OpsError, automatic};
use std::process::ExitCode;

fn filter(name: Option<&str>) -> Result<Filter, OpsError> {
    Ok(Filter { name: parse_name(name)?, ..Filter::default() })
}

/// A repository whose versions have the tags they wait for.
fn open(context: &Context) -> anyhow::Result<Open> {
    let open = context.open_with_items()?;
    automatic::label_overdue(&open.repo, &open.settings.policy)?;
    Ok(open)
}

/// An empty list is good news only where something was promised.
fn hint_at_schedules(context: &Context, policy: &Policy) {
    if !policy.tags_anything() && !context.globals.quiet {
        line("no name has a schedule: set `schedules`, or [names] in the configuration file (docs/schedules.md)");
    }
}

/// `backyfs due`.
///
/// # Errors
/// When the repository fails, or a schedule is not known.
pub fn due(context: &Context, args: &DueArgs) -> anyhow::Result<()> {
    let filter = filter(args.name.as_deref())?;
    let Open { repo, settings, .. } = open(context)?;
    check_schedules(&settings.policy, &args.only)?;
    hint_at_schedules(context, &settings.policy);
    let only = (!args.only.is_empty()).then_some(args.only.as_slice());
    let rows = list_due(&repo, &settings.policy, &filter, only)?;
    if context.globals.json {
        output::json(&rows)?;
        return Ok(());
    }
    let mut table = Table::new(&[
        ("NAME", Align::Left),
        ("TAGS", Align::Left),
        ("EXPIRE", Align::Left),
        ("SINCE", Align::Left),
        ("WHY", Align::Left),
    ]);
    for row in rows {
        let since = row.schedules.iter().map(|due| due.since.clone()).min().flatten();
        let why: Vec<String> = row.schedules.iter().map(|due| format!("{}: {}", due.schedule, due.reason)).collect();
        let expire = row.expire.unwrap_or_else(|| "never".into());
        table.row(vec![row.name, row.tags.join(","), expire, since.unwrap_or_default(), why.join("; ")]);
    }
    output::print(&table.render())?;
    Ok(())
}

fn check_schedules(policy: &Policy, only: &[String]) -> Result<(), OpsError> {
    match only.iter().find(|name| !policy.is_schedule(name)) {
        Some(unknown) => Err(OpsError::refused(format!("there is no schedule {unknown:?}"))),
        None => Ok(()),
    }
}

/// `backyfs sla`: the code says whether a backup is late, or a schedule was not met.
///
/// # Errors
/// When the repository fails.
pub fn sla(context: &Context, args: &Filtered) -> anyhow::Result<ExitCode> {
    let filter = filter(args.name.as_deref())?;
    let Open { repo, settings, .. } = open(context)?;
    hint_at_schedules(context, &settings.policy);
    let rows = list_breaches(&repo, &settings.policy, &filter, settings.protect_younger)?;
    let code = match (rows.is_empty(), rows.iter().any(|row| row.now)) {
        (true, _) => 0,
        (false, true) => exit::LATE,
        (false, false) => exit::UNMET,
    };
    if context.globals.json {
        output::json(&rows)?;
        return Ok(ExitCode::from(code));
    }
    let mut table =
        Table::new(&[("NAME", Align::Left), ("SCHEDULE", Align::Left), ("BREACH", Align::Left), ("WHAT", Align::Left)]);
    for row in rows {
        table.row(vec![row.name, row.schedule, row.breach.to_owned(), row.reason]);
    }
    output::print(&table.render())?;
    Ok(ExitCode::from(code))
}

/// `backyfs prune`.
///
/// # Errors
/// When the repository fails or the rules are none.
pub fn prune(context: &Context, args: &Prune) -> anyhow::Result<()> {
    let rules = args.rules.as_deref().map(|text| {
        let rules = parse_keep(text).and_then(|rules| rules.ok_or_else(|| "there are no rules in it".to_owned()));
        rules.map_err(|problem| OpsError::refused(format!("--rules: {problem}")))
    });
    let (keep, filter) = (rules.transpose()?, filter(args.name.as_deref())?);
    let Open { repo, settings, progress } = open(context)?;
    let options = Options { filter, keep, protect_younger: settings.protect_younger };
    let plan = prune::plan(&repo, &settings.policy, &options)?;
    if args.dry_run {
        return show(context, &plan.rows, Mood::Would);
    }
    progress.tell(&repo, "prune", args.name.as_deref().unwrap_or("all names"));
    let rows = plan.execute(&repo, &options, &*progress, &interrupt());
    progress.finish();
    show(context, &rows?, Mood::Did)
}

/// Whether something was done or only planned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    Would,
    Did,
}

fn show(context: &Context, rows: &[PruneRow], mood: Mood) -> anyhow::Result<()> {
    if context.globals.json {
        output::json(&rows)?;
        return Ok(());
    }
    // What stays by the rules is worth a line only to someone who looks before he leaps.
    let shown = |row: &&PruneRow| row.action != Action::Keep || mood == Mood::Would;
    let text: String = rows.iter().filter(shown).map(|row| format!("{row}\n")).collect();
    output::print(&text)?;
    if !context.globals.quiet {
        let count = |action| rows.iter().filter(|row| row.action == action).count();
        let (gone, spared, kept) = (count(Action::Delete), count(Action::Spare), count(Action::Keep));
        let what = match mood {
            Mood::Would => "would be deleted",
            Mood::Did => "were deleted; their space stays taken until a collection",
        };
        line(&format!("{spared} spared and {kept} kept; {gone} {what}"));
    }
    Ok(())
}
