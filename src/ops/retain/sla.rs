//! Which promises of the schedules are broken, and by how much.
//!
//! *Late* is what can be mended now: the newest good version of a schedule is older than its interval and its allowance, or there is
//! none although the name is older than that. The rest is history: gaps between versions that are still to be kept, fewer versions
//! than promised, versions that `prune` should have deleted, dates from the future.

use crate::ops::retain::expired::newest;
use crate::ops::retain::interval::Lasting;
use crate::ops::retain::{Made, Schedule, Zone, due};
use crate::words::ids::Uid;
use crate::words::stamp::Stamp;
use std::fmt;

const DAY_MS: i64 = 86_400_000;

/// A broken promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Breach {
    /// There is no good version for the schedule, and the first of the name was made long enough ago.
    Missing {
        /// Since when there should be one.
        since: Stamp,
        /// Milliseconds since then.
        by_ms: i64,
    },
    /// The name is spelled out in the configuration and has no version at all, perhaps not any more.
    Never,
    /// The newest is too old.
    Late {
        /// When it was made.
        last: Stamp,
        /// Milliseconds since the next one should have been there.
        by_ms: i64,
    },
    /// Between two versions lies more than the interval and its allowance.
    Gap {
        /// The earlier one.
        from: Stamp,
        /// The later one.
        to: Stamp,
        /// Milliseconds that it was late.
        by_ms: i64,
    },
    /// Fewer good versions are there than are to be kept.
    TooFew {
        /// How many there are.
        have: u64,
        /// How many there should be.
        want: u64,
    },
    /// Versions that expired long ago are still there: `prune` does not run.
    Unpruned {
        /// How many.
        count: u64,
        /// The earliest expiry among them.
        since: Stamp,
        /// Milliseconds since then.
        by_ms: i64,
    },
    /// A version is dated later than now: a clock was wrong.
    FromTheFuture {
        /// Which.
        uid: Uid,
        /// Milliseconds from now.
        by_ms: i64,
    },
}

/// How much a broken promise matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// It cannot be mended any more, or mends itself.
    History,
    /// A backup is missing now.
    Late,
}

impl Breach {
    /// A word for scripts.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Missing { .. } | Self::Never => "missing",
            Self::Late { .. } => "late",
            Self::Gap { .. } => "gap",
            Self::TooFew { .. } => "too-few",
            Self::Unpruned { .. } => "unpruned",
            Self::FromTheFuture { .. } => "future",
        }
    }

    /// How much it matters.
    pub const fn severity(&self) -> Severity {
        match self {
            Self::Missing { .. } | Self::Never | Self::Late { .. } => Severity::Late,
            _ => Severity::History,
        }
    }

    /// By how much the promise is broken, in milliseconds, where that is a time.
    pub const fn by_ms(&self) -> Option<i64> {
        match self {
            Self::Missing { by_ms, .. }
            | Self::Late { by_ms, .. }
            | Self::Gap { by_ms, .. }
            | Self::Unpruned { by_ms, .. }
            | Self::FromTheFuture { by_ms, .. } => Some(*by_ms),
            Self::Never | Self::TooFew { .. } => None,
        }
    }
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { since, .. } => write!(f, "there is none; one should have been there at {since}"),
            Self::Never => write!(f, "there is no version of this name"),
            Self::Late { last, by_ms } => write!(f, "late by {}: the last was made at {last}", Lasting(*by_ms)),
            Self::Gap { from, to, by_ms } => {
                write!(f, "there was none between {from} and {to}, which was late by {}", Lasting(*by_ms))
            }
            Self::TooFew { have, want } => write!(f, "there are {have} of {want}"),
            Self::Unpruned { count, since, .. } => {
                write!(f, "{count} have expired and are still there, the first since {since}: run `backyfs prune`")
            }
            Self::FromTheFuture { uid, by_ms } => {
                write!(f, "version {uid} is dated {} in the future: a clock was wrong", Lasting(*by_ms))
            }
        }
    }
}

/// What is broken of a schedule for a name. `versions` are all of the name, in any order; what was made after `deletable_before` is too
/// young for `prune` to delete.
pub fn breaches(
    schedule: &Schedule,
    versions: &[Made],
    now: Stamp,
    deletable_before: Stamp,
    zone: &Zone,
) -> Vec<Breach> {
    if versions.is_empty() {
        return vec![Breach::Never];
    }
    let late_after =
        |last: Stamp| zone.after(last, &schedule.interval).and_then(|next| zone.after(next, &schedule.sla));
    let since = |at: Stamp| now.millis() - at.millis();
    let mut found = Vec::new();
    let first = versions.iter().map(|made| made.created).min();
    match due::newest(schedule, versions, now, zone) {
        Some((last, _)) => {
            let late = late_after(last).filter(|late| *late < now);
            found.extend(late.map(|late| Breach::Late { last, by_ms: since(late) }));
        }
        None => {
            let late = first.and_then(late_after).filter(|late| *late < now);
            found.extend(late.map(|since_when| Breach::Missing { since: since_when, by_ms: since(since_when) }));
        }
    }
    let good = |made: &&Made| made.standing.counts() && made.tags.contains(&schedule.name);
    let mut made: Vec<Stamp> = versions.iter().filter(good).map(|made| made.created).collect();
    made.sort_unstable();
    let kept_from = zone.times_before(now, &schedule.interval, schedule.keep);
    for pair in made.windows(2) {
        let (from, to) = (pair[0], pair[1]);
        // The calendar is asked last: of many versions few matter here.
        if kept_from.is_some_and(|kept| to < kept) || to > now {
            continue;
        }
        let late = late_after(from).filter(|late| *late < to);
        found.extend(late.map(|late| Breach::Gap { from, to, by_ms: to.millis() - late.millis() }));
    }
    let (have, want) = (made.len() as u64, u64::from(schedule.keep));
    let is_old = kept_from
        .and_then(|kept| zone.before(kept, &schedule.sla))
        .zip(first)
        .is_some_and(|(kept, first)| first < kept);
    if have < want && is_old && have > 0 {
        found.push(Breach::TooFew { have, want });
    }
    found.extend(unpruned(schedule, versions, now, deletable_before, zone));
    let tagged = versions.iter().filter(|made| made.tags.contains(&schedule.name));
    let ahead = zone.after(now, &schedule.sla).unwrap_or(now);
    let future = tagged.filter(|made| made.created > ahead);
    found.extend(future.map(|made| Breach::FromTheFuture { uid: made.uid, by_ms: -since(made.created) }));
    found
}

fn unpruned(
    schedule: &Schedule,
    versions: &[Made],
    now: Stamp,
    deletable_before: Stamp,
    zone: &Zone,
) -> Option<Breach> {
    let newest = newest(versions);
    let tolerated = zone.before(now, &schedule.sla)?.plus_millis(-DAY_MS);
    let old = versions.iter().enumerate().filter(|(at, made)| {
        let deletable = !made.protected && made.created < deletable_before && !newest.contains(&Some(*at));
        deletable && made.tags.contains(&schedule.name)
    });
    // What became old enough only now counts from then.
    let spared_ms = now.millis() - deletable_before.millis();
    let expiries = old.filter_map(|(_, made)| Some(made.expire?.max(made.created.plus_millis(spared_ms))));
    let expired: Vec<Stamp> = expiries.filter(|expire| *expire < tolerated).collect();
    let since = *expired.iter().min()?;
    Some(Breach::Unpruned { count: expired.len() as u64, since, by_ms: now.millis() - since.millis() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::retain::Standing;
    use crate::ops::retain::made::samples::made;
    use crate::ops::retain::schedule::shipped_named;

    fn stamp(text: &str) -> Stamp {
        Stamp::parse(text, Stamp::from_millis(0)).unwrap()
    }

    /// What is said of `daily` at noon of November 22nd.
    fn said(versions: &[Made]) -> Vec<String> {
        let (daily, now, zone) =
            (shipped_named("daily").unwrap(), stamp("2026-11-22T12:00:00Z"), Zone::named("Europe/Berlin").unwrap());
        let deletable = now.plus_millis(-6 * DAY_MS);
        breaches(&daily, versions, now, deletable, &zone).iter().map(|b| format!("{}: {b}", b.word())).collect()
    }

    fn days(days: impl Iterator<Item = u32>) -> Vec<Made> {
        days.map(|day| made(&format!("2026-11-{day:02}T06:00:00Z"), &["daily"])).collect()
    }

    #[test]
    fn nothing_is_said_of_what_is_in_order() {
        assert_eq!(said(&[]), ["missing: there is no version of this name"]);
        assert_eq!(said(&days(14..=22)), [""; 0]);
        // A new name, and one whose first version is of yesterday morning and was made for nothing.
        assert_eq!(said(&days(22..=22)), [""; 0]);
        assert_eq!(said(&[made("2026-11-21T07:00:00Z", &[])]), [""; 0]);
    }

    #[test]
    fn what_is_late_and_by_how_much() {
        assert_eq!(said(&days(13..=20)), ["late: late by 1d: the last was made at 2026-11-20T06:00:00Z"]);
        assert_eq!(said(&days(13..=21)), [""; 0]);
        let never = said(&[made("2026-11-21T05:00:00Z", &["weekly"])]);
        assert_eq!(never, ["missing: there is none; one should have been there at 2026-11-22T11:00:00Z"]);
        let mut lacking = days(13..=22);
        lacking[7..].iter_mut().for_each(|made| made.standing = Standing::Lacking);
        assert_eq!(said(&lacking), [""; 0]);
        let mut damaged = days(13..=22);
        damaged[7..].iter_mut().for_each(|made| made.standing = Standing::Damaged);
        assert_eq!(
            said(&damaged),
            ["late: late by 2d: the last was made at 2026-11-19T06:00:00Z", "too-few: there are 7 of 8"]
        );
    }

    #[test]
    fn gaps_remain_until_they_are_past_keeping() {
        let gap: Vec<Made> = days(10..=22).into_iter().filter(|m| m.created != stamp("2026-11-18T06:00:00Z")).collect();
        assert_eq!(
            said(&gap),
            ["gap: there was none between 2026-11-17T06:00:00Z and 2026-11-19T06:00:00Z, which was late by 18h"]
        );
        let old: Vec<Made> = days(10..=22).into_iter().filter(|m| m.created != stamp("2026-11-12T06:00:00Z")).collect();
        assert_eq!(said(&old), [""; 0]);
    }

    #[test]
    fn what_prune_should_have_deleted_and_what_the_future_holds() {
        let mut versions = days(10..=22);
        versions[0].expire = Some(stamp("2026-11-19T06:00:00Z"));
        versions[1].expire = Some(stamp("2026-11-22T06:00:00Z"));
        // Too young to be deleted, or protected.
        versions[10].expire = Some(stamp("2026-11-20T07:00:00Z"));
        versions[2].expire = Some(stamp("2026-11-19T06:00:00Z"));
        versions[2].protected = true;
        assert_eq!(
            said(&versions),
            ["unpruned: 1 have expired and are still there, the first since 2026-11-19T06:00:00Z: run `backyfs prune`"]
        );
        let mut versions = days(14..=22);
        versions.push(made("2026-11-27T12:00:00Z", &["daily"]));
        let future = said(&versions);
        assert!(future.len() == 1 && future[0].contains("is dated 5d in the future"), "{future:?}");
    }
}
