//! Collecting by itself, in a daemon: every so often, and when the target fills up.

use crate::ops::gc::{Options, gc};
use crate::ops::{Interrupt, OpsError};
use crate::repo::{RepoError, Repository};
use crate::target::Space;
use crate::words::monitor::Silent;
use crate::words::stamp::Stamp;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// Between two looks, unless collections are to follow sooner on one another.
const TICK: Duration = Duration::from_secs(60);
/// A target that is full stays full when there is nothing to collect: it is looked at this often.
const FULL_EVERY_MS: i64 = 3_600_000;
/// Where the catalog keeps when the last collection began.
const LAST: &str = "gc last";
/// And the last one because the target filled up.
const LAST_FULL: &str = "gc last full";

/// When to collect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    /// This often; `None`: not by time.
    pub interval: Option<Duration>,
    /// When less than this share of the target is free; 0: not for that.
    pub free_percent: u8,
}

/// Why it is time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// The interval has passed.
    Time,
    /// The target fills up.
    Space {
        /// So much is free.
        free_percent: u8,
    },
}

/// What was done before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Before {
    /// When the last collection began, or, before the first, when it was first looked.
    pub last: Stamp,
    /// When the last one began that was due to a full target, if there was one.
    pub last_full: Option<Stamp>,
}

impl Schedule {
    /// Whether it is time. A clock that was put back makes it so.
    pub fn due(&self, before: Before, now: Stamp, space: Option<Space>) -> Option<Due> {
        let is_past = |since: Stamp, ms: i64| {
            let since_ms = now.millis().saturating_sub(since.millis());
            since_ms >= ms || since_ms < 0
        };
        let every_ms = self.interval.map(|every| i64::try_from(every.as_millis()).unwrap_or(i64::MAX));
        if every_ms.is_some_and(|every_ms| is_past(before.last, every_ms)) {
            return Some(Due::Time);
        }
        let may_look = before.last_full.is_none_or(|last| is_past(last, FULL_EVERY_MS));
        let space = space.filter(|space| space.total_bytes > 0 && may_look)?;
        let free = u128::from(space.free_bytes) * 100 / u128::from(space.total_bytes);
        let free_percent = u8::try_from(free).unwrap_or(100);
        (free_percent < self.free_percent).then_some(Due::Space { free_percent })
    }

    fn is_off(&self) -> bool {
        self.interval.is_none() && self.free_percent == 0
    }
}

/// Starts a thread that collects when it is time, and ends with the repository. When the process ends, so does a collection under
/// way; the next one goes on from there.
///
/// # Errors
/// When the thread cannot be started.
pub fn start(repo: &Arc<Repository>, schedule: Schedule, options: Options) -> std::io::Result<()> {
    if schedule.is_off() {
        return Ok(());
    }
    let repo = Arc::downgrade(repo);
    std::thread::Builder::new().name("gc".into()).spawn(move || keep_on(&repo, schedule, &options)).map(drop)
}

fn keep_on(repo: &Weak<Repository>, schedule: Schedule, options: &Options) {
    let tick = schedule.interval.map_or(TICK, |interval| interval.clamp(Duration::from_millis(100), TICK));
    loop {
        let Some(repo) = repo.upgrade() else { return };
        if let Err(error) = look(&repo, schedule, options) {
            tracing::warn!("nothing was collected: {error}");
        }
        drop(repo);
        std::thread::sleep(tick);
    }
}

/// Looks whether it is time, and collects if so.
///
/// # Errors
/// Those of a collection.
pub fn look(repo: &Repository, schedule: Schedule, options: &Options) -> Result<Option<Due>, OpsError> {
    let catalog = repo.catalog();
    let now = repo.clock().now();
    let set = |key: &str| catalog.set_meta(key, &now.millis().to_be_bytes()).map_err(RepoError::from);
    let get = |key: &str| {
        let kept = catalog.get_meta(key).map_err(RepoError::from)?;
        let kept = kept.and_then(|bytes| Some(i64::from_be_bytes(bytes.try_into().ok()?)));
        Ok::<_, RepoError>(kept.map(Stamp::from_millis))
    };
    let last = get(LAST)?;
    if last.is_none() {
        // The time counts from the first look.
        set(LAST)?;
    }
    let before = Before { last: last.unwrap_or(now), last_full: get(LAST_FULL)? };
    let space = if schedule.free_percent > 0 { repo.target().space().ok() } else { None };
    let Some(due) = schedule.due(before, now, space) else { return Ok(None) };
    set(LAST)?;
    if let Due::Space { .. } = due {
        set(LAST_FULL)?;
    }
    let report = gc(repo, options, &Silent, &Interrupt::never())?;
    match due {
        _ if report.nothing_new => tracing::debug!("nothing to collect"),
        Due::Time => tracing::info!("collected: {} packs, {} bytes freed", report.deleted_packs, report.freed_bytes),
        Due::Space { free_percent } => tracing::info!(
            "{free_percent} percent of the target are free; collected: {} packs, {} bytes freed",
            report.deleted_packs,
            report.freed_bytes
        ),
    }
    for obstacle in &report.obstacles {
        tracing::warn!("nothing more is deleted: {obstacle}");
    }
    Ok(Some(due))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_time_and_by_space() {
        let at = |hours: i64| Stamp::from_millis(1_795_372_262_123 + hours * 3_600_000);
        let space = |free_bytes| Some(Space { total_bytes: 1000, free_bytes });
        let daily = Schedule { interval: Some(Duration::from_secs(86_400)), free_percent: 10 };
        let never = Schedule { interval: None, ..daily };
        for (schedule, hours, space, expected) in [
            (daily, 23, space(500), None),
            (daily, 24, space(500), Some(Due::Time)),
            (daily, 0, space(20), None),
            (daily, 1, space(20), Some(Due::Space { free_percent: 2 })),
            (daily, 1, space(100), None),
            (daily, 1, space(99), Some(Due::Space { free_percent: 9 })),
            (daily, 1, None, None),
            (daily, -1, None, Some(Due::Time)),
            (never, 1000, space(500), None),
            (never, 1000, space(0), Some(Due::Space { free_percent: 0 })),
            (Schedule { free_percent: 0, ..never }, 1000, space(0), None),
        ] {
            let before = Before { last: at(0), last_full: Some(at(0)) };
            assert_eq!(schedule.due(before, at(hours), space), expected, "{schedule:?} {hours} {space:?}");
        }
        // A target that fills up is not made to wait for the hour after a collection that was due to something else.
        let before = Before { last: at(0), last_full: None };
        assert_eq!(daily.due(before, at(0), space(20)), Some(Due::Space { free_percent: 2 }));
        assert_eq!(daily.due(before, at(0), space(500)), None);
    }
}
