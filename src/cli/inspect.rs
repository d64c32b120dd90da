//! `ls`, `show`, `diff`, `du` and `stats`: they change nothing.

use crate::cli::args::{Diff, Du, Ls, One, StatsArgs};
use crate::cli::output::{self, Align, Table, facts};
use crate::cli::setup::{Context, Open};
use crate::control::sizes::show_bytes;
use crate::ops::OpsError;
use crate::ops::compare::{Difference, compare};
use crate::ops::listing::{Filter, VersionDetails, VersionRow, list};
use crate::ops::scrub;
use crate::ops::statistics::{self, TotalRow};
use crate::ops::usage::{Grouping, Usage, usage};
use crate::words::name::Name;

pub(super) fn parse_name(text: Option<&str>) -> Result<Option<Name>, OpsError> {
    text.map(|text| Name::new(text).map_err(|error| OpsError::refused(error.to_string()))).transpose()
}

/// `backyfs ls`.
///
/// # Errors
/// When the repository fails.
pub fn ls(context: &Context, args: &Ls) -> anyhow::Result<()> {
    let name = parse_name(args.name.as_deref())?;
    let filter = Filter { name, tags: args.tag.clone(), expired: args.expired, invalid: args.invalid };
    let Open { repo, .. } = context.open()?;
    let rows: Vec<VersionRow> = list(&repo, &filter)?.iter().map(VersionRow::from).collect();
    if context.globals.json {
        output::json(&rows)?;
        return Ok(());
    }
    let mut table = Table::new(&[
        ("CREATED", Align::Left),
        ("NAME", Align::Left),
        ("SNAPSHOT", Align::Left),
        ("SIZE", Align::Right),
        ("UID", Align::Left),
        ("VALID", Align::Left),
        ("PROT", Align::Left),
        ("TAGS", Align::Left),
        ("EXPIRE", Align::Left),
    ]);
    for row in rows {
        table.row(vec![
            seconds(&row.created),
            row.name,
            row.snapshot_name,
            show_bytes(row.size_bytes),
            row.uid,
            row.valid.to_owned(),
            if row.protected { "yes" } else { "" }.to_owned(),
            row.tags.join(","),
            row.expire.unwrap_or_default(),
        ]);
    }
    output::print(&table.render())?;
    Ok(())
}

/// `-` where nothing was stored.
fn show_ratio(ratio: Option<f64>) -> String {
    ratio.map_or_else(|| "-".to_owned(), |ratio| format!("1 : {ratio:.1}"))
}

/// Cuts milliseconds off.
fn seconds(time: &str) -> String {
    time.split_once('.').map_or(time.to_owned(), |(seconds, _)| format!("{seconds}Z"))
}

/// `backyfs show`.
///
/// # Errors
/// When there is no such version.
pub fn show(context: &Context, args: &One) -> anyhow::Result<()> {
    let Open { repo, .. } = context.open()?;
    let version = repo.resolve(&args.version)?;
    let scrubbed = scrub::report::of_version(&repo, version.record.uid)?;
    let mut details = VersionDetails::from(&version);
    details.scrub.clone_from(&scrubbed);
    if context.globals.json {
        output::json(&details)?;
        return Ok(());
    }
    let row = details.row;
    let valid = if row.reason.is_empty() { row.valid.to_owned() } else { format!("{}: {}", row.valid, row.reason) };
    let stats = details.stats;
    output::print(&facts(&[
        ("uid", row.uid),
        ("name", row.name),
        ("snapshot_name", row.snapshot_name),
        ("created", row.created),
        ("valid", valid),
        ("protected", if row.protected { "yes" } else { "no" }.into()),
        ("tags", row.tags.join(",")),
        ("expire", row.expire.unwrap_or_else(|| "never".into())),
        ("size", format!("{} bytes ({})", row.size_bytes, show_bytes(row.size_bytes))),
        ("allocated", show_bytes(details.allocated_bytes)),
        ("block size", show_bytes(details.block_size_bytes)),
        ("made from", details.base.unwrap_or_default()),
        ("supersedes", details.supersedes.unwrap_or_default()),
        ("host", details.host),
        ("mode and owner", format!("{} {}:{}", details.mode, details.owner, details.group)),
        ("mtime", details.mtime),
        ("map", details.root),
        ("read", show_bytes(stats.written_bytes)),
        ("unchanged", show_bytes(stats.unchanged_bytes)),
        ("known", show_bytes(stats.deduplicated_bytes)),
        ("new", format!("{}, stored in {}", show_bytes(stats.new_bytes), show_bytes(stats.stored_bytes))),
        ("took", format!("{} ms", stats.duration_ms)),
        ("scrubbed", scrubbed.map_or_else(|| "never on this host".into(), |finding| finding.summary())),
    ]))?;
    Ok(())
}

/// `backyfs diff`.
///
/// # Errors
/// When one of the versions does not exist or its map cannot be read.
pub fn diff(context: &Context, args: &Diff) -> anyhow::Result<()> {
    let Open { repo, .. } = context.open()?;
    let (from, to) = (repo.resolve(&args.from)?, repo.resolve(&args.to)?);
    let ranges = compare(&repo, &from.record.image, &to.record.image)?;
    let difference = Difference {
        from: from.record.uid.to_string(),
        to: to.record.uid.to_string(),
        from_size_bytes: from.record.image.size_bytes,
        to_size_bytes: to.record.image.size_bytes,
        changed_bytes: ranges.iter().map(|range| range.length).sum(),
        ranges,
    };
    if context.globals.json {
        output::json(&difference)?;
        return Ok(());
    }
    let mut table = Table::new(&[("OFFSET", Align::Right), ("LENGTH", Align::Right), ("NOW", Align::Left)]);
    for range in &difference.ranges {
        let now = if range.exists { "data" } else { "hole" };
        table.row(vec![range.offset.to_string(), range.length.to_string(), now.to_owned()]);
    }
    let (before, after) = (difference.from_size_bytes, difference.to_size_bytes);
    let size = if before == after { String::new() } else { format!("; size was {before} and is {after} bytes") };
    let changed = show_bytes(difference.changed_bytes);
    let summary = format!("{changed} in {} ranges differ{size}\n", difference.ranges.len());
    output::print(&if difference.ranges.is_empty() { summary } else { table.render() + &summary })?;
    Ok(())
}

/// `backyfs du`.
///
/// # Errors
/// When the repository fails.
pub fn du(context: &Context, args: &Du) -> anyhow::Result<()> {
    let filter = Filter { name: parse_name(args.name.as_deref())?, ..Filter::default() };
    let Open { repo, progress, .. } = context.open_with_items()?;
    let grouping = match (args.freed_by.is_empty(), args.names) {
        (true, false) => Grouping::Versions,
        (true, true) => Grouping::Names,
        (false, _) => {
            let uids = args.freed_by.iter().map(|spec| Ok(repo.resolve(spec)?.record.uid));
            Grouping::Together(uids.collect::<Result<_, OpsError>>()?)
        }
    };
    progress.tell(&repo, "du", args.name.as_deref().unwrap_or("everything"));
    let measured = usage(&repo, &grouping, &*progress);
    progress.finish();
    let mut usage = measured?;
    if let Grouping::Together(_) = grouping {
        return together(context, &usage);
    }
    let wanted = |name: &str| Name::new(name).is_ok_and(|name| filter.is_named(&name));
    usage.rows.retain(|row| wanted(&row.name));
    if context.globals.json {
        output::json(&usage)?;
        return Ok(());
    }
    let mut table = Table::new(&[
        ("NAME", Align::Left),
        (if args.names { "VERSIONS" } else { "UID" }, Align::Left),
        ("SIZE", Align::Right),
        ("ALLOCATED", Align::Right),
        ("STORED", Align::Right),
        ("UNIQUE", Align::Right),
        ("FREED BY RM", Align::Right),
        ("RATIO", Align::Right),
    ]);
    for row in usage.rows {
        let which = row.uid.unwrap_or_else(|| row.versions.to_string());
        let sizes = [row.logical_bytes, row.allocated_bytes, row.stored_bytes, row.unique_bytes, row.freed_bytes];
        let ratio = show_ratio(row.ratio);
        table.row([row.name, which].into_iter().chain(sizes.map(show_bytes)).chain([ratio]).collect());
    }
    let totals = [usage.logical_bytes, usage.allocated_bytes, usage.unique_bytes, usage.packs_bytes].map(show_bytes);
    let [logical, allocated, unique, packs] = totals;
    output::print(&format!(
        "{}all together {logical}, {allocated} of it not holes, {unique} when each block counts once, {packs} in packs: {}\n",
        table.render(),
        show_ratio(usage.ratio)
    ))?;
    Ok(())
}

/// What deleting several versions at once would free.
fn together(context: &Context, usage: &Usage) -> anyhow::Result<()> {
    let Some(row) = usage.rows.first() else { return Ok(()) };
    if context.globals.json {
        output::json(row)?;
        return Ok(());
    }
    output::print(&format!(
        "deleting {} versions would free {} on the target: {} of their images are in no other version\n",
        row.versions,
        show_bytes(row.freed_bytes),
        show_bytes(row.unique_bytes)
    ))?;
    Ok(())
}

/// `backyfs stats`.
///
/// # Errors
/// When nothing is called so, or the repository fails.
pub fn stats(context: &Context, args: &StatsArgs) -> anyhow::Result<()> {
    let Open { repo, .. } = context.open()?;
    let rows = statistics::list(&repo, args.which.as_deref(), args.last)?;
    if args.names {
        return stats_of_names(context, statistics::totals(&rows));
    }
    if context.globals.json {
        output::json(&rows)?;
        return Ok(());
    }
    let mut table = Table::new(&[
        ("CREATED", Align::Left),
        ("NAME", Align::Left),
        ("UID", Align::Left),
        ("SIZE", Align::Right),
        ("READ", Align::Right),
        ("UNCHANGED", Align::Right),
        ("KNOWN", Align::Right),
        ("SPARSE", Align::Right),
        ("NEW", Align::Right),
        ("STORED", Align::Right),
        ("SECONDS", Align::Right),
        ("PER SECOND", Align::Right),
        ("REMOVED", Align::Left),
    ]);
    for row in rows {
        let sizes = [
            row.size_bytes,
            row.read_bytes,
            row.unchanged_bytes,
            row.deduplicated_bytes,
            row.sparse_bytes,
            row.new_bytes,
            row.stored_bytes,
        ];
        let mut cells = vec![seconds(&row.created), row.name, row.uid];
        cells.extend(sizes.map(show_bytes));
        cells.push(format!("{}.{}", row.duration_ms / 1000, row.duration_ms / 100 % 10));
        cells.extend([show_bytes(row.bytes_per_second), row.removed.unwrap_or_default()]);
        table.row(cells);
    }
    output::print(&table.render())?;
    Ok(())
}

fn stats_of_names(context: &Context, totals: Vec<TotalRow>) -> anyhow::Result<()> {
    if context.globals.json {
        output::json(&totals)?;
        return Ok(());
    }
    let mut table = Table::new(&[
        ("NAME", Align::Left),
        ("VERSIONS", Align::Right),
        ("REMOVED", Align::Right),
        ("SIZE", Align::Right),
        ("READ", Align::Right),
        ("CHANGED", Align::Right),
        ("NEW", Align::Right),
        ("STORED", Align::Right),
        ("RATIO", Align::Right),
    ]);
    for total in totals {
        let mut cells = vec![total.name.unwrap_or_else(|| "(all)".into()), total.versions.to_string()];
        cells.push(total.removed.to_string());
        let sizes = [total.logical_bytes, total.read_bytes, total.changed_bytes, total.new_bytes, total.stored_bytes];
        cells.extend(sizes.map(show_bytes));
        cells.push(show_ratio(total.ratio));
        table.row(cells);
    }
    output::print(&table.render())?;
    Ok(())
}
