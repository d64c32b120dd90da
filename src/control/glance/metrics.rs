//! Metrics: what a repository is like, and what a process does with it. docs/metrics.md lists them.

use crate::control::glance::openmetrics::{Exposition, Kind};
use crate::control::glance::{Overview, Sla};
use crate::ops::retain::Standing;
use crate::repo::queues::Queue;
use crate::target::{Request, Requests};
use crate::words::monitor::{Counter, Tally};
use crate::words::stamp::Stamp;
use Kind::{Counter as Sum, Gauge, Histogram};
use std::collections::BTreeMap;

/// What a process has measured.
pub struct Process<'a> {
    /// When it began.
    pub started: Stamp,
    /// What happened to blocks and packs.
    pub tally: &'a Tally,
    /// What was asked of the target.
    pub requests: &'a Requests,
    /// What waits.
    pub queues: Vec<Queue>,
    /// Bytes of packs in memory.
    pub held_bytes: u64,
    /// Warnings and errors in its log.
    pub logged: (u64, u64),
}

/// Seconds since 1970, as Prometheus counts.
fn seconds(at: Stamp) -> f64 {
    at.millis() as f64 / 1000.0
}

/// What a process has measured.
pub fn process(text: &mut Exposition, process: &Process<'_>) {
    text.family(Gauge, "backyfs_build_info", "Always 1; the label says which version of backyfs runs.")
        .sample(&[("version", env!("CARGO_PKG_VERSION"))], 1);
    let started = seconds(process.started);
    text.single(Gauge, "backyfs_start_time_seconds", "When this process began.", started);
    let mut logged = text.family(Sum, "backyfs_log_messages_total", "Lines of the log, by level.");
    logged.sample(&[("level", "warn")], process.logged.0);
    logged.sample(&[("level", "error")], process.logged.1);
    data(text, process.tally);
    caches(text, process.tally);
    target(text, process.requests);
    let mut waiting = text.family(Gauge, "backyfs_queue_depth", "How much waits in a queue.");
    process.queues.iter().for_each(|queue| waiting.sample(&[("queue", queue.name)], queue.waiting));
    let mut limits =
        text.family(Gauge, "backyfs_queue_limit", "With how much a queue is full, and holds up its writers.");
    process.queues.iter().for_each(|queue| limits.sample(&[("queue", queue.name)], queue.limit));
    let help = "Packs in memory, being filled or on their way to the target.";
    text.single(Gauge, "backyfs_packs_held_bytes", help, process.held_bytes);
}

fn data(text: &mut Exposition, tally: &Tally) {
    let mut blocks = text.family(Sum, "backyfs_blocks_total", "Blocks that were to be stored, by what became of them.");
    for (outcome, counter) in [
        ("hole", Counter::BlocksHole),
        ("unchanged", Counter::BlocksUnchanged),
        ("deduplicated", Counter::BlocksDeduplicated),
        ("stored", Counter::BlocksStored),
    ] {
        blocks.sample(&[("outcome", outcome)], tally.get(counter));
    }
    for (name, counter, help) in [
        ("backyfs_stored_plain_bytes_total", Counter::BytesPlain, "Stored blocks before they were compressed."),
        ("backyfs_stored_sealed_bytes_total", Counter::BytesSealed, "Stored blocks compressed and sealed."),
        ("backyfs_packs_put_bytes_total", Counter::BytesStored, "Packs that were put on the target."),
        ("backyfs_packs_put_total", Counter::PacksPut, "Packs that were put on the target."),
        ("backyfs_fragments_put_total", Counter::FragmentsPut, "Index fragments that were put on the target."),
        ("backyfs_records_put_total", Counter::RecordsPut, "Records that were put: versions, drafts and pins."),
        ("backyfs_index_lookups_total", Counter::IndexLookups, "How often the index was asked for a block."),
        ("backyfs_source_read_bytes_total", Counter::BytesRead, "Read from sources by this process itself."),
        ("backyfs_restored_bytes_total", Counter::BytesWritten, "Written to sources by this process itself."),
        ("backyfs_damage_met_total", Counter::Damage, "Blocks of which no good copy could be read."),
    ] {
        text.single(Sum, name, help, tally.get(counter));
    }
}

fn caches(text: &mut Exposition, tally: &Tally) {
    let mut caches = text.family(Sum, "backyfs_cache_requests_total", "Blocks that were looked for in a cache.");
    for (cache, result, counter) in [
        ("memory", "hit", Counter::CacheHits),
        ("memory", "miss", Counter::CacheMisses),
        ("disk", "hit", Counter::DiskCacheHits),
        ("disk", "miss", Counter::DiskCacheMisses),
    ] {
        caches.sample(&[("cache", cache), ("result", result)], tally.get(counter));
    }
}

fn target(text: &mut Exposition, requests: &Requests) {
    let mut asked = text.family(Sum, "backyfs_target_requests_total", "Requests to the target, repeated ones too.");
    Request::ALL.iter().for_each(|kind| asked.sample(&[("request", kind.word())], requests.count(*kind)));
    let mut failed = text.family(Sum, "backyfs_target_failures_total", "Requests to the target without a good answer.");
    Request::ALL.iter().for_each(|kind| failed.sample(&[("request", kind.word())], requests.failed(*kind)));
    let help = "How long the target took to answer.";
    let mut took = text.family(Histogram, "backyfs_target_request_duration_seconds", help);
    Request::ALL.iter().for_each(|kind| took.histogram(&[("request", kind.word())], &requests.took(*kind)));
    let help = "Contents of objects sent to the target.";
    text.single(Sum, "backyfs_target_sent_bytes_total", help, requests.sent_bytes());
    let help = "Contents of objects received from the target.";
    text.single(Sum, "backyfs_target_received_bytes_total", help, requests.received_bytes());
}

/// What the repository is like.
pub fn repository(text: &mut Exposition, overview: &Overview) {
    let info = [("repository", overview.repository.as_str()), ("target", &overview.target), ("host", &overview.host)];
    text.family(Gauge, "backyfs_repository_info", "Always 1; the labels say which repository, where, seen by whom.")
        .sample(&info, 1);
    let mut versions = text.family(Gauge, "backyfs_versions", "Versions that are there, by what they are worth.");
    for (state, standing) in
        [("valid", Standing::Good), ("invalid", Standing::Damaged), ("incomplete", Standing::Incomplete)]
    {
        versions.sample(&[("state", state)], overview.count(standing));
    }
    let cost = &overview.cost;
    for (name, help, value) in [
        ("backyfs_versions_removed", "Versions that were deleted.", overview.removed),
        ("backyfs_logical_bytes", "Bytes of all images that are there.", overview.logical_bytes()),
        ("backyfs_written_bytes", "Bytes that all backups ever read or received.", cost.written_bytes),
        ("backyfs_new_bytes", "Of these, bytes in blocks that had to be stored.", cost.new_bytes),
        ("backyfs_stored_bytes", "Bytes that those took, compressed and sealed.", cost.stored_bytes),
        ("backyfs_packs", "Packs on the target.", overview.packs.len() as u64),
        ("backyfs_packs_bytes", "Bytes of the packs on the target.", overview.packs_bytes()),
        ("backyfs_map_packs_bytes", "Of these, bytes of packs of block maps.", overview.map_bytes),
        ("backyfs_damaged_blocks", "Blocks of which no good copy is known.", overview.damaged.len() as u64),
        ("backyfs_catalog_bytes", "Bytes of the catalog on this host.", overview.catalog_bytes),
        ("backyfs_drafts", "Copies that are not finished.", overview.drafts.len() as u64),
        ("backyfs_drafts_bytes", "Bytes of their images.", overview.drafts.iter().map(|d| d.size_bytes).sum()),
        (
            "backyfs_drafts_broken",
            "Unfinished copies whose writer failed or died.",
            overview.drafts.iter().filter(|draft| draft.is_broken).count() as u64,
        ),
        ("backyfs_overlays", "Versions that were written over on this host.", overview.overlays.len() as u64),
        ("backyfs_overlays_bytes", "Bytes these overlays take.", overview.overlays.iter().map(|o| o.local_bytes).sum()),
    ] {
        text.single(Gauge, name, help, value);
    }
    let help = "Bytes that backups read or received for each one that had to be stored; 0 before the first.";
    text.single(Gauge, "backyfs_deduplication_ratio", help, overview.deduplication_ratio());
    let help = "Bytes that had to be stored for each one that they took; 0 before the first.";
    text.single(Gauge, "backyfs_compression_ratio", help, overview.compression_ratio());
    if let Some(space) = overview.space {
        text.single(Gauge, "backyfs_target_size_bytes", "Size of the target.", space.total_bytes);
        text.single(Gauge, "backyfs_target_free_bytes", "Bytes that still fit on the target.", space.free_bytes);
    }
    scrub(text, overview);
    names(text, overview);
}

fn scrub(text: &mut Exposition, overview: &Overview) {
    let help = "Packs that this host has never read from end to end.";
    text.single(Gauge, "backyfs_scrub_never_packs", help, overview.never_scrubbed());
    if let Some(oldest) = overview.oldest_scrub() {
        let help =
            "When the pack was read from end to end that was not read for longest, of those that were read at all.";
        text.single(Gauge, "backyfs_scrub_oldest_timestamp_seconds", help, seconds(oldest));
        let help = "Seconds since then.";
        text.single(Gauge, "backyfs_scrub_oldest_age_seconds", help, age(oldest, overview.now));
    }
    let Some(report) = &overview.scrub else { return };
    let ended = report.finished.as_deref().and_then(|at| Stamp::parse(at, overview.now).ok());
    if let Some(ended) = ended {
        let help = "When the last scrub of this host ended. Absent when it was interrupted.";
        text.single(Gauge, "backyfs_scrub_last_timestamp_seconds", help, seconds(ended));
        text.single(Gauge, "backyfs_scrub_last_age_seconds", "Seconds since then.", age(ended, overview.now));
    }
    let help = "Packs and other objects that the last scrub found damaged or could not read.";
    let found = report.damaged_packs.len() + report.unreadable_packs.len() + report.damaged_objects.len();
    text.single(Gauge, "backyfs_scrub_last_findings", help, found);
}

fn age(at: Stamp, now: Stamp) -> f64 {
    (now.millis() - at.millis()).max(0) as f64 / 1000.0
}

fn names(text: &mut Exposition, overview: &Overview) {
    text.single(Gauge, "backyfs_names", "Names of backups.", overview.names.len());
    let mut sla = text.family(Gauge, "backyfs_names_by_sla", "Names, by how they do with their schedules.");
    for (state, which) in
        [("late", Sla::Late), ("breached", Sla::Breached), ("met", Sla::Met), ("unscheduled", Sla::Unscheduled)]
    {
        sla.sample(&[("sla", state)], overview.count_names(which));
    }
    let newest = || overview.names.iter().filter_map(|state| Some((state.name.as_str(), state.newest()?)));
    let help = "When the newest version of a name was made that is not incomplete.";
    let mut made = text.family(Gauge, "backyfs_newest_version_timestamp_seconds", help);
    newest().for_each(|(name, point)| made.sample(&[("name", name)], seconds(point.created)));
    let mut ages = text.family(Gauge, "backyfs_newest_version_age_seconds", "Seconds since then.");
    newest().for_each(|(name, point)| ages.sample(&[("name", name)], age(point.created, overview.now)));
    let mut sizes = text.family(Gauge, "backyfs_newest_version_size_bytes", "Bytes of the image of that version.");
    newest().for_each(|(name, point)| sizes.sample(&[("name", name)], point.size_bytes));
    let mut counts = text.family(Gauge, "backyfs_name_versions", "Versions of a name.");
    for state in &overview.names {
        counts.sample(&[("name", state.name.as_str())], state.versions.len());
    }
    let help = "Promises of schedules that are not kept, by name, schedule and kind; late and missing are of now.";
    let mut breaches = text.family(Gauge, "backyfs_sla_breaches", help);
    let mut counts: BTreeMap<[&str; 3], u64> = BTreeMap::new();
    for row in overview.names.iter().flat_map(|state| &state.breaches) {
        *counts.entry([row.name.as_str(), row.schedule.as_str(), row.breach]).or_default() += 1;
    }
    for ([name, schedule, breach], count) in counts {
        breaches.sample(&[("name", name), ("schedule", schedule), ("breach", breach)], count);
    }
}
