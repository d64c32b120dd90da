//! What there is to say about a repository, gathered from the catalog of this host.

use crate::catalog::VersionSummary;
use crate::image::overlay::OverlayFile;
use crate::ops::retain::sla::{Severity, breaches};
use crate::ops::retain::{Made, Policy, Standing, Zone};
use crate::ops::scrub::report::{ScrubReport, last};
use crate::ops::sla::SlaRow;
use crate::ops::{OpsError, overlays};
use crate::repo::{RepoError, Repository};
use crate::target::Space;
use crate::words::ids::PackId;
use crate::words::name::Name;
use crate::words::record::{BlockKind, Stats, Why};
use crate::words::stamp::Stamp;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A day in milliseconds.
pub const DAY_MS: i64 = 86_400_000;

/// How a name does with its schedules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sla {
    /// A backup is missing now.
    Late,
    /// Nothing is missing now, but something was.
    Breached,
    /// Every promise is kept.
    Met,
    /// It has no schedule.
    Unscheduled,
}

/// A version, as small as it can be said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point {
    /// When it was made.
    pub created: Stamp,
    /// What it is worth.
    pub standing: Standing,
    /// Bytes of the image.
    pub size_bytes: u64,
    /// Bytes that making it took on the target.
    pub stored_bytes: u64,
}

/// A name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameState {
    /// Which.
    pub name: Name,
    /// Its versions, oldest first. None when it is only configured.
    pub versions: Vec<Point>,
    /// How it does with its schedules.
    pub sla: Sla,
    /// What is broken of them.
    pub breaches: Vec<SlaRow>,
}

impl NameState {
    /// The newest version that counts as a backup.
    pub fn newest(&self) -> Option<&Point> {
        self.versions.iter().rev().find(|point| point.standing != Standing::Incomplete)
    }
}

/// One day of the growth of the repository, at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Day {
    /// The day, counted from 1970-01-01, where the overview's zone is.
    pub number: i64,
    /// Bytes of the images that were there.
    pub logical_bytes: u64,
    /// Bytes that backups had added to the target by then, whatever became of them.
    pub stored_bytes: u64,
}

/// A pack as far as scrubs care.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackState {
    /// Bytes of it.
    pub size_bytes: u64,
    /// When this host last read it from end to end.
    pub read: Option<Stamp>,
    /// Whether a copy of a block in it is known to be bad.
    pub is_damaged: bool,
}

/// An overlay of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlaid {
    /// The version below it.
    pub uid: String,
    /// Its name; `None` when another host removed it.
    pub name: Option<String>,
    /// Bytes on the local disk.
    pub local_bytes: u64,
}

/// Something unfinished. Who knows more than the catalog (a mount) replaces these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfinished {
    /// Its name.
    pub name: String,
    /// Bytes so far.
    pub size_bytes: u64,
    /// Why it is not whole, or who writes it.
    pub state: String,
    /// Whether nobody writes it any more.
    pub is_broken: bool,
}

/// See the module.
#[derive(Debug, Clone)]
pub struct Overview {
    /// When this was gathered.
    pub now: Stamp,
    /// The repository's identity.
    pub repository: String,
    /// Where it is.
    pub target: String,
    /// This host, as records name it.
    pub host: String,
    /// Every name, in order.
    pub names: Vec<NameState>,
    /// What making all versions cost, also those that are gone.
    pub cost: Stats,
    /// Versions that are gone.
    pub removed: u64,
    /// From the first backup to now; empty when there is none.
    pub growth: Vec<Day>,
    /// Packs in the order in which this host learnt of them; no condemned ones.
    pub packs: Vec<PackState>,
    /// Bytes of packs of maps.
    pub map_bytes: u64,
    /// Blocks of which no good copy is known, and why; in order of blocks.
    pub damaged: Vec<(String, String)>,
    /// The last scrub of this host.
    pub scrub: Option<ScrubReport>,
    /// What is not finished.
    pub drafts: Vec<Unfinished>,
    /// Changes over versions, on this host.
    pub overlays: Vec<Overlaid>,
    /// Bytes of the catalog.
    pub catalog_bytes: u64,
    /// Size of the target, if somebody has asked it lately.
    pub space: Option<Space>,
    /// What days are.
    pub zone: Zone,
}

impl Overview {
    /// Versions that are there.
    pub fn versions(&self) -> impl Iterator<Item = &Point> {
        self.names.iter().flat_map(|name| &name.versions)
    }

    /// How many versions are worth the same.
    pub fn count(&self, standing: Standing) -> u64 {
        self.versions().filter(|point| point.standing == standing).count() as u64
    }

    /// How many names do the same with their schedules.
    pub fn count_names(&self, sla: Sla) -> u64 {
        self.names.iter().filter(|name| name.sla == sla).count() as u64
    }

    /// Bytes of all images that are there.
    pub fn logical_bytes(&self) -> u64 {
        self.versions().map(|point| point.size_bytes).sum()
    }

    /// Bytes of all packs.
    pub fn packs_bytes(&self) -> u64 {
        self.packs.iter().map(|pack| pack.size_bytes).sum()
    }

    /// Bytes read from sources and writers for each one that was new; 0 when nothing was.
    pub fn deduplication_ratio(&self) -> f64 {
        ratio(self.cost.written_bytes, self.cost.new_bytes)
    }

    /// New bytes for each one that they took on the target; 0 when they took none.
    pub fn compression_ratio(&self) -> f64 {
        ratio(self.cost.new_bytes, self.cost.stored_bytes)
    }

    /// When the pack was read that was not read for longest, of those that were read at all.
    pub fn oldest_scrub(&self) -> Option<Stamp> {
        self.packs.iter().filter_map(|pack| pack.read).min()
    }

    /// Packs that this host never read from end to end.
    pub fn never_scrubbed(&self) -> u64 {
        self.packs.iter().filter(|pack| pack.read.is_none()).count() as u64
    }
}

fn ratio(of: u64, to: u64) -> f64 {
    if to == 0 { 0.0 } else { of as f64 / to as f64 }
}

/// Gathers. Asks nothing of the target.
///
/// # Errors
/// When the catalog or the state directory fails.
pub fn gather(repo: &Repository, policy: &Policy, protect_younger: Duration) -> Result<Overview, OpsError> {
    let (catalog, now) = (repo.catalog(), repo.clock().now());
    let versions = catalog.version_summaries().map_err(RepoError::from)?;
    let mut gone = catalog.removed().map_err(RepoError::from)?;
    gone.retain(|removed| removed.why != Why::Superseded);
    let mut lives: Vec<Life> = versions.iter().map(Life::from).collect();
    lives.extend(gone.iter().map(|removed| {
        let record = &removed.record;
        Life { from: record.created, to: Some(removed.at), size_bytes: record.image.size_bytes, stats: record.stats }
    }));
    let cost = lives.iter().fold(Stats::default(), |sum, life| add(sum, &life.stats));
    let (packs, map_bytes) = packs(repo)?;
    let damaged = catalog.damaged().map_err(RepoError::from)?;
    Ok(Overview {
        now,
        repository: repo.id().to_string(),
        target: repo.target().describe(),
        host: repo.host().to_string(),
        names: names(versions, policy, protect_younger, now),
        cost,
        removed: gone.len() as u64,
        growth: growth(&lives, now, &policy.zone),
        packs,
        map_bytes,
        damaged: damaged.into_iter().map(|(block, why)| (block.to_string(), why)).collect(),
        scrub: last(repo)?,
        drafts: drafts(repo)?,
        overlays: overlaid(repo)?,
        catalog_bytes: catalog.size_bytes().map_err(RepoError::from)?.0,
        space: None,
        zone: policy.zone.clone(),
    })
}

fn names(versions: Vec<VersionSummary>, policy: &Policy, protect_younger: Duration, now: Stamp) -> Vec<NameState> {
    let mut histories: BTreeMap<Name, (Vec<Point>, Vec<Made>)> = BTreeMap::new();
    for version in versions {
        let made = Made::from(&version);
        let point = Point {
            created: version.created,
            // As its validity says: what it lacks is for somebody to see, though it counts for schedules.
            standing: if made.standing == Standing::Lacking { Standing::Damaged } else { made.standing },
            size_bytes: version.image.size_bytes,
            stored_bytes: version.stats.stored_bytes,
        };
        let (points, history) = histories.entry(version.attributes.name).or_default();
        points.push(point);
        history.push(made);
    }
    // What is to be backed up and never was is worth a line, too.
    for name in policy.names_to_back_up() {
        histories.entry(name).or_default();
    }
    let deletable = now.plus_millis(-i64::try_from(protect_younger.as_millis()).unwrap_or(i64::MAX));
    let state = |(name, (versions, history)): (Name, (Vec<Point>, Vec<Made>))| {
        let schedules = policy.schedules_of(&name);
        let (mut rows, mut worst) = (Vec::new(), None);
        for schedule in &schedules {
            for breach in breaches(schedule, &history, now, deletable, &policy.zone) {
                worst = worst.max(Some(breach.severity()));
                rows.push(SlaRow::new(name.to_string(), schedule.name.clone(), &breach));
            }
        }
        let sla = match worst {
            Some(Severity::Late) => Sla::Late,
            Some(Severity::History) => Sla::Breached,
            None if schedules.is_empty() => Sla::Unscheduled,
            None => Sla::Met,
        };
        NameState { name, versions, sla, breaches: rows }
    };
    histories.into_iter().map(state).collect()
}

/// From when to when a version was there, and what it cost.
struct Life {
    from: Stamp,
    to: Option<Stamp>,
    size_bytes: u64,
    stats: Stats,
}

impl From<&VersionSummary> for Life {
    fn from(version: &VersionSummary) -> Self {
        Self { from: version.created, to: None, size_bytes: version.image.size_bytes, stats: version.stats }
    }
}

fn add(mut sum: Stats, stats: &Stats) -> Stats {
    sum.written_bytes += stats.written_bytes;
    sum.unchanged_bytes += stats.unchanged_bytes;
    sum.deduplicated_bytes += stats.deduplicated_bytes;
    sum.zero_bytes += stats.zero_bytes;
    sum.new_bytes += stats.new_bytes;
    sum.stored_bytes += stats.stored_bytes;
    sum.duration_ms += stats.duration_ms;
    sum
}

/// Days that are shown at most; older ones are left out.
const GROWTH_DAYS_MAX: i64 = 3660;

fn growth(lives: &[Life], now: Stamp, zone: &Zone) -> Vec<Day> {
    let day = |at: Stamp| zone.position(at).day;
    let today = day(now);
    let Some(first) = lives.iter().map(|life| day(life.from)).min() else { return Vec::new() };
    // What comes and goes on a day. A date in the future (a clock was wrong) counts as today.
    let mut changes: BTreeMap<i64, (i128, u64)> = BTreeMap::new();
    for life in lives {
        let came = changes.entry(day(life.from).min(today)).or_default();
        came.0 += i128::from(life.size_bytes);
        came.1 += life.stats.stored_bytes;
        if let Some(to) = life.to {
            changes.entry(day(to.max(life.from)).min(today)).or_default().0 -= i128::from(life.size_bytes);
        }
    }
    let (mut logical, mut stored, mut days) = (0_i128, 0, Vec::new());
    for number in first.min(today)..=today {
        if let Some((logical_change, stored_change)) = changes.get(&number) {
            logical += logical_change;
            stored += stored_change;
        }
        if number > today - GROWTH_DAYS_MAX {
            days.push(Day { number, logical_bytes: u64::try_from(logical).unwrap_or(0), stored_bytes: stored });
        }
    }
    days
}

fn packs(repo: &Repository) -> Result<(Vec<PackState>, u64), RepoError> {
    let catalog = repo.catalog();
    let read: BTreeMap<PackId, Stamp> = catalog.scrubbed()?;
    let damaged: BTreeSet<PackId> = catalog.bad_copies()?.into_iter().map(|copy| copy.pack).collect();
    let (mut packs, mut map_bytes) = (Vec::new(), 0);
    for pack in catalog.packs()?.into_iter().filter(|pack| !pack.condemned) {
        if pack.kind == BlockKind::Map {
            map_bytes += pack.size_bytes;
        }
        packs.push(PackState {
            size_bytes: pack.size_bytes,
            read: read.get(&pack.pack).copied(),
            is_damaged: damaged.contains(&pack.pack),
        });
    }
    Ok((packs, map_bytes))
}

fn drafts(repo: &Repository) -> Result<Vec<Unfinished>, RepoError> {
    let mut drafts = Vec::new();
    for record in repo.catalog().drafts()? {
        let state = match &record.broken {
            Some(broken) => format!("incomplete at {}: {}", broken.at, broken.reason),
            None => format!("durable since {}, not published", record.created),
        };
        let (name, size_bytes) = (record.attributes.name.to_string(), record.image.size_bytes);
        drafts.push(Unfinished { name, size_bytes, state, is_broken: record.broken.is_some() });
    }
    Ok(drafts)
}

fn overlaid(repo: &Repository) -> Result<Vec<Overlaid>, OpsError> {
    let path = overlays::directory(repo);
    let found = OverlayFile::list(&path).map_err(|source| OpsError::Destination { path, action: "listed", source })?;
    let overlay = |(uid, local_bytes): (crate::words::ids::Uid, u64)| Overlaid {
        uid: uid.to_string(),
        name: repo.version(uid).ok().map(|version| version.attributes.name.to_string()),
        local_bytes,
    };
    Ok(found.into_iter().map(overlay).collect())
}
