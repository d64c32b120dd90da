//! What is due: for which schedules a backup made at some moment counts, and when it may go then.
//!
//! A schedule is due an interval after the newest good version that carries its tag, and `sla` earlier than that: who makes backups
//! by a timer is a little early or late each day, and must not skip a day because of it. The allowance is half an interval at
//! most, so that a schedule whose `sla` is as long as its interval is not due at every moment.
//!
//! Missed runs are not made up for: the next backup is due at once, and once.
//!
//! **Clocks that were wrong.** A version from the future by up to an interval counts as made now. One from further ahead counts for
//! nothing, or a clock that stood in 2038 once would end all backups until then.

use crate::ops::retain::{Made, Schedule, Standing, Zone};
use crate::words::stamp::Stamp;
use std::collections::BTreeSet;

/// Why a schedule is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// There is no version for it.
    Never,
    /// There are versions for it, but each of them is damaged; the newest is of this moment.
    Damaged(Stamp),
    /// The newest was made then.
    Last(Stamp),
}

/// A schedule that is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due<'a> {
    /// Which.
    pub schedule: &'a Schedule,
    /// Why.
    pub why: Why,
    /// Since when; `None`: since ever.
    pub since: Option<Stamp>,
}

/// What a version is published with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels {
    /// The names of the schedules that are due.
    pub tags: BTreeSet<String>,
    /// The latest of the expiries that they imply, in whole seconds.
    pub expire: Option<Stamp>,
}

/// When a version is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// By the clock.
    pub now: Stamp,
    /// Its date: later than the clock when that stands before the newest version of the name.
    pub created: Stamp,
}

impl Moment {
    /// Of a version that is published now, after all others of its name (`ops::commit` dates it so).
    pub fn after(versions: &[Made], now: Stamp) -> Self {
        let newest = versions.iter().map(|made| made.created).max();
        Self { now, created: newest.map_or(now, |newest| newest.plus_millis(1).max(now)) }
    }
}

/// The newest good version of a schedule, as of a moment. Versions from too far ahead are left out.
pub(super) fn newest<'a>(
    schedule: &Schedule,
    versions: &'a [Made],
    now: Stamp,
    zone: &Zone,
) -> Option<(Stamp, &'a Made)> {
    let end = zone.after(now, &schedule.interval).unwrap_or(now);
    let counts = |made: &&Made| made.standing.counts() && made.created <= end && made.tags.contains(&schedule.name);
    let newest = versions.iter().filter(counts).max_by_key(|made| (made.created, made.uid))?;
    Some((newest.created.min(now), newest))
}

/// When a schedule is due after a version of a moment; `None`: never, the calendar ends before.
pub fn due_after(schedule: &Schedule, last: Stamp, zone: &Zone) -> Option<Stamp> {
    let next = zone.after(last, &schedule.interval)?;
    let early = zone.before(next, &schedule.sla).unwrap_or(last);
    let half = last.plus_millis((next.millis() - last.millis()) / 2);
    Some(early.max(half))
}

/// The schedules of a name that are due at a moment. `versions` are those of the name, in any order.
pub fn due<'a>(schedules: &[&'a Schedule], versions: &[Made], now: Stamp, zone: &Zone) -> Vec<Due<'a>> {
    let judge = |schedule: &&'a Schedule| {
        let Some((last, _)) = newest(schedule, versions, now, zone) else {
            let tagged = versions.iter().filter(|made| made.tags.contains(&schedule.name));
            let damaged = tagged.filter(|made| made.standing == Standing::Damaged).map(|made| made.created).max();
            return Some(Due { schedule, why: damaged.map_or(Why::Never, Why::Damaged), since: None });
        };
        let since = due_after(schedule, last, zone)?;
        (since <= now).then_some(Due { schedule, why: Why::Last(last), since: Some(since) })
    };
    schedules.iter().filter_map(judge).collect()
}

/// When a version made at a moment for a schedule may go: it stays for `keep` intervals and one more. `None`: never.
pub fn expiry(schedule: &Schedule, made: Stamp, zone: &Zone) -> Option<Stamp> {
    let expire = zone.times_after(made, &schedule.interval, schedule.keep.saturating_add(1))?;
    Some(expire.plus_millis(-expire.millis().rem_euclid(1000)))
}

/// What a version made at a moment is labelled with. No expiry when one of the schedules keeps for longer than the calendar lasts.
///
/// The expiry counts from the later of clock and date. With a clock that stands years behind, one that counts from the clock would
/// be over before the version was made. And a version whose date lies ahead is too young to be pruned until then anyway.
pub fn labels(schedules: &[&Schedule], versions: &[Made], moment: Moment, zone: &Zone) -> Labels {
    let due = due(schedules, versions, moment.now, zone);
    let made = moment.now.max(moment.created);
    let tags = due.iter().map(|due| due.schedule.name.clone()).collect();
    let expiries: Option<Vec<Stamp>> = due.iter().map(|due| expiry(due.schedule, made, zone)).collect();
    Labels { tags, expire: expiries.and_then(|expiries| expiries.into_iter().max()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::retain::made::samples::{at, made};
    use crate::ops::retain::schedule::{shipped, shipped_named};
    use proptest::prelude::*;

    fn stamp(text: &str) -> Stamp {
        Stamp::parse(text, Stamp::from_millis(0)).unwrap()
    }

    fn berlin() -> Zone {
        Zone::named("Europe/Berlin").unwrap()
    }

    /// Whether `schedule` is due after versions, each with its tag.
    fn is_due(schedule: &str, versions: &[&str], now: &str) -> bool {
        let schedule = shipped_named(schedule).unwrap();
        let versions: Vec<Made> = versions.iter().map(|created| made(created, &[schedule.name.as_str()])).collect();
        !due(&[&schedule], &versions, stamp(now), &berlin()).is_empty()
    }

    #[test]
    fn a_schedule_is_due_an_interval_after_the_last_less_its_allowance() {
        for (schedule, versions, now, expected) in [
            ("daily", &[][..], "2026-11-22T02:00:00Z", true),
            ("daily", &["2026-11-21T02:00:00Z"], "2026-11-21T02:00:01Z", false),
            ("daily", &["2026-11-21T02:00:00Z"], "2026-11-21T19:59:59Z", false),
            ("daily", &["2026-11-21T02:00:00Z"], "2026-11-21T20:00:00Z", true),
            // Three runs were missed: one is due.
            ("daily", &["2026-11-18T02:00:00Z"], "2026-11-22T02:00:00Z", true),
            ("daily", &["2026-11-18T02:00:00Z", "2026-11-22T02:00:00Z"], "2026-11-22T02:00:01Z", false),
            // An allowance as long as the interval does not make it due always.
            ("hourly", &["2026-11-22T02:00:00Z"], "2026-11-22T02:29:59Z", false),
            ("hourly", &["2026-11-22T02:00:00Z"], "2026-11-22T02:30:00Z", true),
            // The clocks change: the day has 23 or 25 hours. Made at 03:00, due from 21:00 local time.
            ("daily", &["2026-03-28T02:00:00Z"], "2026-03-28T18:59:59Z", false),
            ("daily", &["2026-03-28T02:00:00Z"], "2026-03-28T19:00:00Z", true),
            ("daily", &["2026-10-24T01:00:00Z"], "2026-10-24T19:59:59Z", false),
            ("daily", &["2026-10-24T01:00:00Z"], "2026-10-24T20:00:00Z", true),
            // The leap day is a day.
            ("weekly", &["2028-02-23T02:00:00Z"], "2028-02-29T13:59:59Z", false),
            ("weekly", &["2028-02-23T02:00:00Z"], "2028-02-29T14:00:00Z", true),
            // A clock of another host is some minutes ahead; another stood in 2038.
            ("daily", &["2026-11-22T02:10:00Z"], "2026-11-22T02:00:00Z", false),
            ("daily", &["2038-01-19T03:14:07Z"], "2026-11-22T02:00:00Z", true),
            ("daily", &["2038-01-19T03:14:07Z", "2026-11-22T01:00:00Z"], "2026-11-22T02:00:00Z", false),
        ] {
            assert_eq!(is_due(schedule, versions, now), expected, "{schedule} {versions:?} {now}");
        }
    }

    #[test]
    fn what_is_not_good_does_not_count() {
        let daily = shipped_named("daily").unwrap();
        let now = stamp("2026-11-22T03:00:00Z");
        let mut last = made("2026-11-22T02:00:00Z", &["daily"]);
        let why = |last: &Made| due(&[&daily], std::slice::from_ref(last), now, &berlin()).first().map(|due| due.why);
        assert_eq!(why(&last), None);
        last.standing = Standing::Damaged;
        assert_eq!(why(&last), Some(Why::Damaged(last.created)));
        last.standing = Standing::Incomplete;
        assert_eq!(why(&last), Some(Why::Never));
        last.standing = Standing::Lacking;
        assert_eq!(why(&last), None, "bad sectors that were accepted are no reason to repeat the backup");
        last.standing = Standing::Good;
        last.tags = ["b_daily".to_owned()].into();
        assert_eq!(why(&last), Some(Why::Never));
    }

    #[test]
    fn the_latest_expiry_of_what_is_due() {
        let schedules = shipped();
        let schedules: Vec<&Schedule> = schedules.iter().filter(|schedule| schedule.name != "hourly").collect();
        let (now, zone) = (Stamp::from_millis(stamp("2026-03-20T12:00:00Z").millis() + 5), berlin());
        let at = |created| Moment { now, created };
        let first = labels(&schedules, &[], at(now), &zone);
        assert_eq!(first.tags.iter().collect::<Vec<_>>(), ["daily", "monthly", "weekly"]);
        // Four times 30 days, at the same hour of summer time.
        assert_eq!(first.expire, Some(stamp("2026-07-18T11:00:00Z")));
        let versions = [made("2026-03-19T12:00:00Z", &["daily", "weekly", "monthly"])];
        let second = labels(&schedules, &versions, at(now), &zone);
        assert_eq!((second.tags.len(), second.expire), (1, Some(stamp("2026-03-29T11:00:00Z"))));
        let versions = [made("2026-03-20T11:00:00Z", &["daily", "weekly", "monthly"])];
        assert_eq!(labels(&schedules, &versions, at(now), &zone), Labels::default());
        // A clock that is behind, and a date of the past.
        for (created, expire) in [
            ("2031-03-20T12:00:00Z", "2031-07-18T11:00:00Z"),
            ("2026-03-20T12:00:00Z", "2026-07-18T11:00:00Z"),
            ("2021-03-20T12:00:00Z", "2026-07-18T11:00:00Z"),
        ] {
            assert_eq!(labels(&schedules, &[], at(stamp(created)), &zone).expire, Some(stamp(expire)), "{created}");
        }
    }

    proptest! {
        /// Backups at any times, labelled as they are made: between two for one schedule there is at least half an interval,
        /// and never is a backup made while the schedule is due and does not count for it.
        #[test]
        fn labels_space_backups_out(gaps in proptest::collection::vec(1..200_000_000i64, 1..60)) {
            let (schedules, zone) = (shipped(), berlin());
            let schedules: Vec<&Schedule> = schedules.iter().collect();
            let (mut versions, mut now) = (Vec::new(), stamp("2026-02-01T00:00:00Z"));
            for gap in gaps {
                now = now.plus_millis(gap);
                let labels = labels(&schedules, &versions, Moment::after(&versions, now), &zone);
                prop_assert_eq!(labels.expire.is_some(), !labels.tags.is_empty());
                let tags: Vec<&str> = labels.tags.iter().map(String::as_str).collect();
                versions.push(at(now, &tags));
                prop_assert!(due(&schedules, &versions, now, &zone).is_empty());
            }
            for schedule in schedules {
                let made: Vec<Stamp> =
                    versions.iter().filter(|v| v.tags.contains(&schedule.name)).map(|v| v.created).collect();
                for pair in made.windows(2) {
                    let next = zone.after(pair[0], &schedule.interval).unwrap();
                    prop_assert!((pair[1].millis() - pair[0].millis()) * 2 >= next.millis() - pair[0].millis() - 1);
                }
            }
        }
    }
}
