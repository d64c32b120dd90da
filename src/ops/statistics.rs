//! What making versions cost, also of those that are gone: tombstones keep it.

use crate::catalog::VersionSummary;
use crate::ops::OpsError;
use crate::ops::listing::Filter;
use crate::repo::{RepoError, Repository};
use crate::words::ids::Uid;
use crate::words::name::Name;
use crate::words::record::{Removed, Stats, Why};
use crate::words::stamp::Stamp;
use serde::Serialize;
use std::collections::BTreeMap;

/// What a version cost. The field names are those of `--json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct StatsRow {
    pub uid: String,
    pub name: String,
    pub created: String,
    pub size_bytes: u64,
    /// Received from the writer, or read from the source.
    pub read_bytes: u64,
    /// Of these, in blocks equal to those of the version before.
    pub unchanged_bytes: u64,
    /// In blocks that the repository held already.
    pub deduplicated_bytes: u64,
    /// In blocks of zeros.
    pub sparse_bytes: u64,
    /// In blocks that were stored.
    pub new_bytes: u64,
    /// In blocks that differ from those of the version before: deduplicated and new ones.
    pub changed_bytes: u64,
    /// What the new ones took on the target.
    pub stored_bytes: u64,
    pub duration_ms: u64,
    /// Read bytes in a second; 0 when it took no time.
    pub bytes_per_second: u64,
    /// When it was deleted.
    pub removed: Option<String>,
    /// Why: `asked` or `pruned`.
    pub why: Option<Why>,
}

/// What all versions of a name, or of the repository, cost.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct TotalRow {
    /// `None`: of everything listed.
    pub name: Option<String>,
    /// That are there.
    pub versions: u64,
    /// That are gone.
    pub removed: u64,
    /// Bytes of the images that are there.
    pub logical_bytes: u64,
    pub read_bytes: u64,
    pub changed_bytes: u64,
    pub new_bytes: u64,
    pub stored_bytes: u64,
    pub duration_ms: u64,
    /// How many bytes were read for one that was stored; `None` when none was.
    pub ratio: Option<f64>,
}

impl StatsRow {
    fn new(uid: Uid, name: &Name, created: Stamp, size_bytes: u64, stats: &Stats) -> Self {
        let per_second = u128::from(stats.written_bytes) * 1000 / u128::from(stats.duration_ms.max(1));
        Self {
            uid: uid.to_string(),
            name: name.to_string(),
            created: created.to_millis_text(),
            size_bytes,
            read_bytes: stats.written_bytes,
            unchanged_bytes: stats.unchanged_bytes,
            deduplicated_bytes: stats.deduplicated_bytes,
            sparse_bytes: stats.zero_bytes,
            new_bytes: stats.new_bytes,
            changed_bytes: stats.deduplicated_bytes.saturating_add(stats.new_bytes),
            stored_bytes: stats.stored_bytes,
            duration_ms: stats.duration_ms,
            bytes_per_second: if stats.duration_ms == 0 { 0 } else { u64::try_from(per_second).unwrap_or(u64::MAX) },
            removed: None,
            why: None,
        }
    }
}

impl From<&VersionSummary> for StatsRow {
    fn from(version: &VersionSummary) -> Self {
        let size_bytes = version.image.size_bytes;
        Self::new(version.uid, &version.attributes.name, version.created, size_bytes, &version.stats)
    }
}

impl From<&Removed> for StatsRow {
    fn from(removed: &Removed) -> Self {
        let record = &removed.record;
        let row =
            Self::new(record.uid, &record.attributes.name, record.created, record.image.size_bytes, &record.stats);
        Self { removed: Some(removed.at.to_seconds_text()), why: Some(removed.why), ..row }
    }
}

/// Lists versions, oldest first, those that are gone with the others. What a writer replaced by going on after its close is left
/// out. `which` is a name, a directory of names, or the beginning of a uid; `last`: the newest so many.
///
/// # Errors
/// When nothing is called so, or the catalog fails.
pub fn list(repo: &Repository, which: Option<&str>, last: Option<usize>) -> Result<Vec<StatsRow>, OpsError> {
    let catalog = repo.catalog();
    let present = catalog.version_summaries().map_err(RepoError::from)?;
    let removed = catalog.removed().map_err(RepoError::from)?;
    let gone = removed.iter().filter(|removed| removed.why != Why::Superseded);
    let mut rows: Vec<StatsRow> = present.iter().map(StatsRow::from).chain(gone.map(StatsRow::from)).collect();
    if let Some(which) = which {
        let filter = Filter { name: Name::new(which).ok(), ..Filter::default() };
        let is_named =
            |row: &StatsRow| filter.name.is_some() && Name::new(&row.name).is_ok_and(|name| filter.is_named(&name));
        // As everywhere, a name comes first, and the beginning of a uid has four digits at least.
        if rows.iter().any(is_named) {
            rows.retain(is_named);
        } else {
            rows.retain(|row| which.len() >= 4 && row.uid.starts_with(&which.to_ascii_lowercase()));
        }
        if rows.is_empty() {
            return Err(OpsError::refused(format!("nothing is known of a name or a version {which:?}")));
        }
    }
    rows.sort_by(|a, b| (&a.created, &a.uid).cmp(&(&b.created, &b.uid)));
    let skipped = last.map_or(0, |last| rows.len().saturating_sub(last));
    rows.drain(..skipped);
    Ok(rows)
}

/// Adds up by name, in order of names; the last row is the sum of all.
pub fn totals(rows: &[StatsRow]) -> Vec<TotalRow> {
    let mut names: BTreeMap<Option<&str>, TotalRow> = BTreeMap::new();
    let mut all = TotalRow::default();
    for row in rows {
        let name = Some(row.name.as_str());
        let named =
            names.entry(name).or_insert_with(|| TotalRow { name: name.map(str::to_owned), ..TotalRow::default() });
        for total in [named, &mut all] {
            if row.removed.is_some() {
                total.removed += 1;
            } else {
                total.versions += 1;
                total.logical_bytes += row.size_bytes;
            }
            total.read_bytes += row.read_bytes;
            total.changed_bytes += row.changed_bytes;
            total.new_bytes += row.new_bytes;
            total.stored_bytes += row.stored_bytes;
            total.duration_ms += row.duration_ms;
        }
    }
    let mut totals: Vec<TotalRow> = names.into_values().collect();
    totals.push(all);
    for total in &mut totals {
        total.ratio = ratio(total.read_bytes, total.stored_bytes);
    }
    totals
}

/// How many bytes there are for one that was stored; `None` when none was.
pub(super) fn ratio(bytes: u64, stored_bytes: u64) -> Option<f64> {
    (stored_bytes > 0).then(|| bytes as f64 / stored_bytes as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, read_bytes: u64, stored_bytes: u64, removed: Option<&str>) -> StatsRow {
        let stats = Stats {
            written_bytes: read_bytes,
            new_bytes: read_bytes,
            stored_bytes,
            duration_ms: 500,
            ..Stats::default()
        };
        let row = StatsRow::new(Uid::NIL, &Name::new(name).unwrap(), Stamp::from_millis(0), 100, &stats);
        StatsRow { removed: removed.map(str::to_owned), ..row }
    }

    #[test]
    fn what_is_gone_counts_for_what_it_cost_and_not_for_what_is_there() {
        let rows = [row("a", 10, 5, None), row("b", 30, 0, None), row("a", 20, 10, Some("then"))];
        assert_eq!(rows[0].bytes_per_second, 20);
        let totals = totals(&rows);
        let told: Vec<_> = totals
            .iter()
            .map(|t| (t.name.as_deref(), t.versions, t.removed, t.logical_bytes, t.read_bytes, t.ratio))
            .collect();
        assert_eq!(
            told,
            [(Some("a"), 1, 1, 100, 30, Some(2.0)), (Some("b"), 1, 0, 100, 30, None), (None, 2, 1, 200, 60, Some(4.0))]
        );
    }
}
