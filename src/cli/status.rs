//! `status`: the state of a repository at a glance, once or again and again.

use crate::cli::args::StatusArgs;
use crate::cli::output::{self, facts};
use crate::cli::setup::{Context, Open, interrupt};
use crate::control::Settings;
use crate::control::glance::progress::{self, lasting};
use crate::control::glance::{Overview, Sla, gather};
use crate::control::jobs::{self, JobRow};
use crate::control::sizes::{parse_seconds, show_bytes};
use crate::fuse::mount::{self, Liveness};
use crate::fuse::options::FS_TYPE;
use crate::fuse::pidfile::PidFile;
use crate::fuse::{mountinfo, pidfile};
use crate::ops::status::{self, Status};
use crate::ops::{Interrupt, OpsError};
use crate::repo::Repository;
use crate::repo::disk_cache::{CacheSettings, DiskCache};
use crate::target::TargetSpec;
use crate::words::mount_table::MountEntry;
use crate::words::stamp::Stamp;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How often a live view learns what other hosts did.
const LEARN_EVERY: Duration = Duration::from_secs(60);
/// Late names that are listed; more are counted.
const LATE_MAX: usize = 10;

/// What `status --json` prints.
#[derive(Serialize)]
struct FullStatus {
    #[serde(flatten)]
    status: Status,
    /// Where it is mounted on this machine.
    mounts: Vec<String>,
    /// Where nobody serves the mount any more.
    dead_mounts: Vec<String>,
    /// The cache on the local disk; its hits and misses are in `status/metrics` of a mount.
    cache: Option<CacheRow>,
    /// Bytes of all images.
    logical_bytes: u64,
    /// Bytes backed up for each one that was new.
    deduplication_ratio: f64,
    /// New bytes for each one stored.
    compression_ratio: f64,
    /// Names whose backup is late or missing.
    late: Vec<String>,
    /// Names, by how they do with their schedules.
    names_by_sla: BTreeMap<&'static str, u64>,
    /// When the last scrub of this host ended.
    scrubbed: Option<String>,
    /// Packs that no scrub of this host has read.
    never_scrubbed_packs: u64,
    /// What is at work on this host.
    jobs: Vec<JobRow>,
}

#[derive(Serialize)]
struct CacheRow {
    dir: String,
    limit_bytes: u64,
    bytes: u64,
    files: u64,
}

fn cache_row(cache: CacheSettings, repo: &Repository) -> CacheRow {
    let (bytes, files) = DiskCache::usage(&cache, repo.id());
    CacheRow { dir: cache.dir.display().to_string(), limit_bytes: cache.limit_bytes, bytes, files }
}

/// `backyfs status`.
///
/// # Errors
/// When the repository fails.
pub fn status(context: &Context, args: &StatusArgs) -> anyhow::Result<()> {
    let every = args.watch.as_deref().map(parse_seconds).transpose();
    let every = every.map_err(|problem| OpsError::refused(format!("--watch: {problem}")))?;
    let Open { repo, settings, .. } = context.open()?;
    let Some(every) = every else { return show(context, &repo, &settings, "") };
    watch(context, &repo, &settings, every.max(Duration::from_millis(200)))
}

/// Shows it until it is interrupted. A target that does not answer for a while is no end.
fn watch(context: &Context, repo: &Repository, settings: &Settings, every: Duration) -> anyhow::Result<()> {
    let interrupt = interrupt();
    let mut rates = Rates::default();
    let mut learnt = Instant::now();
    loop {
        let live = mounts(settings)?.0.first().map(|mount| rates.text(&PathBuf::from(mount))).unwrap_or_default();
        if std::io::stdout().is_terminal() && !context.globals.json {
            // Home, and clear: the page stays in its place.
            output::print("\x1b[H\x1b[2J")?;
        }
        show(context, repo, settings, &live)?;
        if !context.globals.json && !std::io::stdout().is_terminal() {
            output::print("\n")?;
        }
        if wait(every, interrupt).is_err() {
            return Ok(());
        }
        if learnt.elapsed() > LEARN_EVERY {
            learnt = Instant::now();
            if let Err(error) = repo.refresh() {
                tracing::warn!("what other hosts do is not seen here for now: {error}");
            }
        }
    }
}

fn wait(span: Duration, interrupt: Interrupt) -> Result<(), OpsError> {
    let end = Instant::now() + span;
    while let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        interrupt.check()?;
        std::thread::sleep(left.min(Duration::from_millis(100)));
    }
    interrupt.check()
}

/// Where the repository is mounted on this machine, and where it looks mounted although nobody serves it.
fn mounts(settings: &Settings) -> anyhow::Result<(Vec<String>, Vec<String>)> {
    let source = settings.target.to_string();
    // The mount table has it as it was written in fstab.
    let is_ours = |text: &str| text.parse().is_ok_and(|spec: TargetSpec| spec == settings.target) || text == source;
    let mounts = mountinfo::mounts()?.into_iter().filter(|mount| mount.fs_type == FS_TYPE && is_ours(&mount.source));
    let run_dir = pidfile::run_dir().unwrap_or_else(|| pidfile::run_dir_below(&settings.state_dir));
    // A daemon that is there may be slow to answer, so it is not asked. One of another user keeps its file elsewhere.
    let is_served = |dir: &Path| {
        PidFile::new(&run_dir, dir).daemon().is_some() || !matches!(mount::find(dir), Ok(Some((_, Liveness::Stale))))
    };
    let (live, dead): (Vec<_>, Vec<_>) = mounts.partition(|mount| is_served(&mount.mountpoint));
    let shown = |mounts: Vec<MountEntry>| mounts.iter().map(|mount| mount.mountpoint.display().to_string()).collect();
    Ok((shown(live), shown(dead)))
}

fn show(context: &Context, repo: &Repository, settings: &Settings, live: &str) -> anyhow::Result<()> {
    let overview = gather(repo, &settings.policy, settings.protect_younger)?;
    let now = repo.clock().now();
    let late = overview.names.iter().filter(|name| name.sla == Sla::Late).map(|name| name.name.to_string());
    let words =
        [("late", Sla::Late), ("breached", Sla::Breached), ("met", Sla::Met), ("unscheduled", Sla::Unscheduled)];
    let (mounts, dead_mounts) = mounts(settings)?;
    let full = FullStatus {
        status: status::status(repo)?,
        mounts,
        dead_mounts,
        cache: settings.cache().map(|cache| cache_row(cache, repo)),
        logical_bytes: overview.logical_bytes(),
        deduplication_ratio: overview.deduplication_ratio(),
        compression_ratio: overview.compression_ratio(),
        late: late.collect(),
        names_by_sla: words.into_iter().map(|(word, sla)| (word, overview.count_names(sla))).collect(),
        scrubbed: overview.scrub.as_ref().and_then(|report| report.finished.clone()),
        never_scrubbed_packs: overview.never_scrubbed(),
        jobs: jobs::list(repo.state_dir(), now)?,
    };
    if context.globals.json {
        output::json(&full)?;
        return Ok(());
    }
    output::print(&(text(&full, &overview, now) + live))?;
    Ok(())
}

fn text(full: &FullStatus, overview: &Overview, now: Stamp) -> String {
    let FullStatus { status, mounts, cache, .. } = full;
    let trouble = match (status.invalid, status.incomplete) {
        (0, 0) => String::new(),
        (invalid, incomplete) => format!(" ({invalid} damaged, {incomplete} incomplete)"),
    };
    let mut text = facts(&[
        ("repository", format!("{} of {}", status.repository, status.created)),
        ("target", status.target.clone()),
        ("free", format!("{} of {}", show_bytes(status.target_free_bytes), show_bytes(status.target_total_bytes))),
        ("packs", format!("{} with {}", status.packs, show_bytes(status.packs_bytes))),
        ("blocks", format!("{}, zstd level {}", show_bytes(status.block_size_bytes), status.zstd_level)),
        ("versions", format!("{} of {} names{trouble}", status.versions, status.names)),
        ("newest", newest(overview, now)),
        ("images", images(overview)),
        ("schedules", schedules(overview)),
        ("scrub", scrub(overview, now)),
        ("damaged blocks", status.damaged_blocks.to_string()),
        ("mounted at", if mounts.is_empty() { "nowhere".into() } else { mounts.join(", ") }),
        ("state", format!("{}, catalog {}", status.state_dir, show_bytes(status.catalog_bytes))),
        ("host", status.host.clone()),
    ]);
    if let Some(cache) = cache {
        let (held, limit) = (show_bytes(cache.bytes), show_bytes(cache.limit_bytes));
        text += &facts(&[("cache", format!("{held} of {limit} in {}", cache.dir))]);
    }
    for dir in &full.dead_mounts {
        let _ =
            writeln!(text, "dead: {dir}: the daemon that served it has died; run `umount {dir}` and mount it again");
    }
    for job in &full.jobs {
        let _ = writeln!(text, "running: {}", progress::line(job, now));
    }
    let late = overview.names.iter().filter(|name| name.sla == Sla::Late);
    for name in late.clone().take(LATE_MAX) {
        let why = name.breaches.iter().find(|breach| breach.now);
        let why = why.map_or_else(|| "there is none yet".to_owned(), |row| format!("{}: {}", row.schedule, row.reason));
        let _ = writeln!(text, "late: {} ({why})", name.name);
    }
    let more = late.count().saturating_sub(LATE_MAX);
    if more > 0 {
        let _ = writeln!(text, "late: {more} more; `backyfs sla` lists them");
    }
    for draft in &status.drafts {
        let state = draft.broken.as_ref().map_or_else(|| "unfinished".to_owned(), |reason| format!("broken: {reason}"));
        let is_ours = draft.host == status.host;
        let whose = if is_ours { String::new() } else { format!(" of host {}: {}", draft.host, draft.uid) };
        let _ =
            writeln!(text, "draft: {} {} {} {state}{whose}", draft.written, draft.name, show_bytes(draft.size_bytes));
    }
    for overlay in &status.overlays {
        let name = overlay.name.as_deref().unwrap_or("removed by another host");
        let _ = writeln!(text, "overlay: {} {name} {}", overlay.uid, show_bytes(overlay.local_bytes));
    }
    for reader in &status.readers {
        let _ = writeln!(text, "being read: {} {}", reader.uid, reader.name);
    }
    for pin in &status.foreign_pins {
        let removed = if pin.removed { ", removed" } else { "" };
        let _ =
            writeln!(text, "pin: {} {}{removed}, held by host {} since {}", pin.version, pin.name, pin.host, pin.since);
    }
    text
}

fn since(at: Stamp, now: Stamp) -> String {
    format!("{} ago", lasting(u64::try_from((now.millis() - at.millis()) / 1000).unwrap_or(0)))
}

fn newest(overview: &Overview, now: Stamp) -> String {
    let newest = overview.names.iter().filter_map(|name| Some((name.newest()?.created, &name.name))).max();
    newest.map_or_else(|| "there is no backup yet".to_owned(), |(at, name)| format!("{name}, {}", since(at, now)))
}

fn images(overview: &Overview) -> String {
    let logical = show_bytes(overview.logical_bytes());
    match (overview.deduplication_ratio(), overview.compression_ratio()) {
        (0.0, _) => logical,
        (deduplication, 0.0) => format!("{logical}, deduplicated {deduplication:.1} : 1"),
        (deduplication, compression) => {
            format!("{logical}, deduplicated {deduplication:.1} : 1, compressed {compression:.1} : 1")
        }
    }
}

fn schedules(overview: &Overview) -> String {
    let of = |sla| overview.count_names(sla);
    match (of(Sla::Late), of(Sla::Breached), of(Sla::Met)) {
        (0, 0, 0) => "no name has one".to_owned(),
        (0, 0, met) => format!("{met} names are on time"),
        (late, breached, met) => format!("{late} names are late, {breached} were, {met} are on time"),
    }
}

fn scrub(overview: &Overview, now: Stamp) -> String {
    let Some(report) = &overview.scrub else { return "never on this host".to_owned() };
    let ended = report.finished.as_deref().and_then(|at| Stamp::parse(at, now).ok());
    let when = ended.map_or_else(|| "interrupted".to_owned(), |at| since(at, now));
    let found = report.damaged_packs.len() + report.unreadable_packs.len() + report.damaged_objects.len();
    let never = overview.never_scrubbed();
    let found = if found == 0 { "no damage found".to_owned() } else { format!("{found} objects are damaged") };
    if never == 0 { format!("{when}, {found}") } else { format!("{when}, {found}, {never} packs were never read") }
}

/// What a mount did between two looks at its metrics.
#[derive(Default)]
struct Rates {
    before: Option<(Instant, BTreeMap<String, f64>)>,
}

impl Rates {
    fn text(&mut self, mountpoint: &std::path::Path) -> String {
        // Who may not read it, or whose mount is gone, sees the rest.
        let Ok(text) = std::fs::read_to_string(mountpoint.join("status/metrics")) else { return String::new() };
        let (at, now) = (Instant::now(), samples(&text));
        let before = self.before.replace((at, now.clone()));
        let Some((then, before)) = before else { return "mount: measuring\n".to_owned() };
        let seconds = at.duration_since(then).as_secs_f64().max(0.001);
        let sum = |samples: &BTreeMap<String, f64>, prefix: &str| -> f64 {
            samples
                .range(prefix.to_owned()..)
                .take_while(|(key, _)| key.starts_with(prefix))
                .map(|(_, v)| v)
                .fold(0.0, |sum, v| sum + v)
        };
        let grown = |prefix: &str| (sum(&now, prefix) - sum(&before, prefix)).max(0.0);
        let rate = |prefix: &str| show_bytes((grown(prefix) / seconds) as u64);
        let mean = |family: &str| match grown(&format!("{family}_count")) {
            0.0 => 0.0,
            count => grown(&format!("{family}_sum")) / count * 1000.0,
        };
        let is = |key: &str| sum(&now, key);
        let (hits, misses) = (
            grown("backyfs_cache_requests_total{cache=\"memory\",result=\"hit\"}"),
            grown("backyfs_cache_requests_total{cache=\"memory\",result=\"miss\"}"),
        );
        let hit = if hits + misses > 0.0 { format!("{:.0}%", hits / (hits + misses) * 100.0) } else { "unused".into() };
        let queue = |name: &str| {
            let of = |family: &str| is(&format!("{family}{{queue=\"{name}\"}}"));
            format!("{name} {} of {}", of("backyfs_queue_depth"), of("backyfs_queue_limit"))
        };
        facts(&[
            (
                "mount",
                format!(
                    "{}/s written, {}/s read; {:.0} requests/s, {:.1} ms each, {} running",
                    rate("backyfs_mount_written_bytes_total"),
                    rate("backyfs_mount_read_bytes_total"),
                    grown("backyfs_operation_duration_seconds_count") / seconds,
                    mean("backyfs_operation_duration_seconds"),
                    is("backyfs_operations_running{")
                ),
            ),
            (
                "to the target",
                format!(
                    "{}/s sent, {}/s received; {:.0} requests/s, {:.1} ms each, {:.0} failed",
                    rate("backyfs_target_sent_bytes_total"),
                    rate("backyfs_target_received_bytes_total"),
                    grown("backyfs_target_requests_total") / seconds,
                    mean("backyfs_target_request_duration_seconds"),
                    grown("backyfs_target_failures_total")
                ),
            ),
            ("waiting", format!("{}, {}, {}", queue("pipeline"), queue("packs"), queue("read-ahead"))),
            ("cache hits", hit),
        ])
    }
}

/// Samples of a text of metrics by their name and labels.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| line.rsplit_once(' '))
        .filter_map(|(key, v)| Some((key.to_owned(), v.parse().ok()?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_what_grew_between_two_looks() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("status")).unwrap();
        let write = |text: &str| std::fs::write(dir.path().join("status/metrics"), text).unwrap();
        let mut rates = Rates::default();
        write("# TYPE x gauge\nbackyfs_mount_written_bytes_total 0\n");
        assert_eq!(rates.text(dir.path()), "mount: measuring\n");
        rates.before.as_mut().unwrap().0 -= Duration::from_secs(10);
        write(
            "backyfs_mount_written_bytes_total 104857600\nbackyfs_operation_duration_seconds_sum{operation=\"write\"} 1\n\
             backyfs_operation_duration_seconds_count{operation=\"write\"} 100\n\
             backyfs_cache_requests_total{cache=\"memory\",result=\"hit\"} 3\nbackyfs_cache_requests_total{cache=\"memory\",result=\"miss\"} 1\n\
             backyfs_queue_depth{queue=\"packs\"} 2\nbackyfs_queue_limit{queue=\"packs\"} 3\n",
        );
        let text = rates.text(dir.path());
        assert!(text.contains("written, 0 B/s read; 10 requests/s, 10.0 ms each, 0 running"), "{text}");
        assert!(text.contains("packs 2 of 3") && text.contains("75%"), "{text}");
        assert_eq!(rates.text(&dir.path().join("none")), "");
    }
}
