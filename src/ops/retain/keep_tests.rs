//! Keep rules against the figures that Benji publishes for its own (elemental-lf/benji, src/benji/tests/test_retentionfilter.py):
//! how many of 8,641 versions, 15 minutes apart up to 2019-05-09T00:00Z, survive each rule.

use crate::ops::retain::keep::{KeepRules, Kept, Unit};
use crate::ops::retain::made::samples::at;
use crate::ops::retain::{Made, Zone};
use crate::words::stamp::Stamp;
use proptest::prelude::*;

const QUARTER_MS: i64 = 15 * 60 * 1000;
const HOUR_MS: i64 = 4 * QUARTER_MS;

fn reference() -> Stamp {
    Stamp::parse("2019-05-09T00:00:00Z", Stamp::from_millis(0)).unwrap()
}

fn quarters() -> Vec<Made> {
    (0..=8640).map(|n| at(reference().plus_millis(-n * QUARTER_MS), &[])).collect()
}

fn survivors(versions: &[Made], rules: &str, now: Stamp) -> Vec<Made> {
    let (rules, all): (KeepRules, Vec<&Made>) = (rules.parse().unwrap(), versions.iter().collect());
    let verdicts = rules.judge(&all, now, &Zone::utc());
    versions.iter().zip(verdicts).filter(|(_, kept)| kept.stays()).map(|(made, _)| made.clone()).collect()
}

#[test]
fn as_many_survive_as_with_benji() {
    let versions = quarters();
    for (rules, expected) in [
        ("latest3", 3),
        ("latest10", 10),
        ("hours12", 13),
        ("hours25", 26),
        ("days15", 16),
        ("days31", 32),
        ("weeks4", 5),
        ("months1", 2),
        ("months2", 3),
        ("years1", 1),
        ("latest3,months2", 6),
        ("latest3,hours24,days3", 29),
        ("latest3,hours48,days3", 52),
        ("latest3,hours48,days3,months2", 55),
        ("latest3,hours48,days30,months2", 81),
    ] {
        let left = survivors(&versions, rules, reference());
        assert_eq!(left.len(), expected, "{rules}");
        assert_eq!(survivors(&left, rules, reference()).len(), expected, "{rules}, again");
    }
}

#[test]
fn each_hour_lets_one_go() {
    let mut left = survivors(&quarters(), "hours30", reference());
    assert_eq!(left.len(), 31);
    for hour in 1..=30 {
        left = survivors(&left, "hours30", reference().plus_millis(hour * HOUR_MS));
        assert_eq!(left.len() as i64, 31 - hour);
    }
}

/// Half a year of versions every 15 minutes, thinned out each hour: every category is filled, with one version for each unit. (Benji's
/// test of classification has the same rules and length.)
#[test]
fn categories_stay_filled_as_time_goes_by() {
    let rules = "latest8,hours48,days7,weeks4,months2,years1";
    let (parsed, utc) = (rules.parse::<KeepRules>().unwrap(), Zone::utc());
    let mut left = quarters();
    for hour in 0..4464 {
        let now = reference().plus_millis(hour * HOUR_MS);
        left = survivors(&left, rules, now);
        let all: Vec<&Made> = left.iter().collect();
        let verdicts = parsed.judge(&all, now, &utc);
        let backs = |wanted: Unit| -> Vec<i64> {
            let of = |kept: &Kept| if let Kept::OldestOf(unit, back) = kept { Some((*unit, *back)) } else { None };
            let mut backs: Vec<i64> =
                verdicts.iter().filter_map(of).filter(|(unit, _)| *unit == wanted).map(|(_, back)| back).collect();
            backs.sort_unstable();
            backs
        };
        assert_eq!(verdicts.iter().filter(|kept| **kept == Kept::Latest).count(), 8);
        for (unit, first, last) in
            [(Unit::Hours, 2, 48), (Unit::Days, 2, 7), (Unit::Weeks, 1, 4), (Unit::Months, 1, 2), (Unit::Years, 0, 0)]
        {
            // The youngest may be missing: it is then still covered by the category before.
            let (all, without_first): (Vec<i64>, Vec<i64>) = ((first..=last).collect(), (first + 1..=last).collect());
            let found = backs(unit);
            assert!(found == all || found == without_first, "{unit:?} {found:?} at hour {hour}");
        }
        left.extend((1..=4).map(|n| at(now.plus_millis(n * QUARTER_MS), &[])));
    }
}

#[test]
fn rules_are_read_and_shown() {
    for (text, shown) in [("days3, latest2", "latest2,days3"), ("years2", "years2")] {
        assert_eq!(text.parse::<KeepRules>().unwrap().to_string(), shown);
    }
    for bad in [
        "",
        "latest",
        "3",
        "days0",
        "days-1",
        "days1,days2",
        "decades1",
        "days1.5",
        "days1,,latest1",
        "days99999999999",
    ] {
        assert!(bad.parse::<KeepRules>().is_err(), "{bad}");
    }
}

#[test]
fn days_and_weeks_are_those_of_the_zone() {
    let now = Stamp::parse("2026-11-22T22:30:00Z", Stamp::from_millis(0)).unwrap();
    let versions = [at(now.plus_millis(-2 * HOUR_MS), &[]), at(now.plus_millis(HOUR_MS), &[])];
    let judge = |zone: &Zone| {
        let all: Vec<&Made> = versions.iter().collect();
        "days1".parse::<KeepRules>().unwrap().judge(&all, now.plus_millis(HOUR_MS), zone)
    };
    // 20:30 and 23:30 UTC are one day in London and two in Berlin, where it is half past midnight.
    let (day, yesterday) = (Kept::OldestOf(Unit::Days, 0), Kept::OldestOf(Unit::Days, 1));
    assert_eq!(judge(&Zone::named("Europe/London").unwrap()), [day, Kept::NotOldestOf(Unit::Days, 0)]);
    assert_eq!(judge(&Zone::named("Europe/Berlin").unwrap()), [yesterday, day]);
    let all: Vec<&Made> = versions.iter().collect();
    let ahead = "days1".parse::<KeepRules>().unwrap().judge(&all, now, &Zone::utc());
    assert_eq!(ahead, [day, Kept::FromTheFuture]);
}

proptest! {
    #[test]
    fn rules_applied_twice_do_what_they_do_once(
        ages in proptest::collection::btree_set(-10_000..40_000_000i64, 1..200),
        rules in "(latest[1-5],)?(hours[1-9]{1,2},)?(days[1-9],)?(weeks[1-9],)?(months[1-9],)?years[1-3]",
        zone in prop_oneof![Just("UTC"), Just("Europe/Berlin"), Just("Australia/Lord_Howe"), Just("Asia/Kolkata")],
    ) {
        let now = reference();
        let versions: Vec<Made> = ages.iter().map(|seconds| at(now.plus_millis(-seconds * 1000), &[])).collect();
        let (rules, zone) = (rules.parse::<KeepRules>().unwrap(), Zone::named(zone).unwrap());
        let all: Vec<&Made> = versions.iter().collect();
        let once = rules.judge(&all, now, &zone);
        let left: Vec<&Made> = all.iter().zip(&once).filter(|(_, kept)| kept.stays()).map(|(made, _)| *made).collect();
        prop_assert!(rules.judge(&left, now, &zone).iter().all(|kept| kept.stays()));
    }
}
