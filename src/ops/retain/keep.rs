//! Keep rules, with Benji's words and meaning: `latest3,hours24,days30,weeks8,months12,years2`.
//!
//! The newest `latest` versions stay and are not looked at further. Every other version belongs to the first of hours, days,
//! weeks, months, years (in this order, those that have a rule) whose number of units back from now covers it; of the versions of
//! one category that lie in the same hour, day, ... the oldest stays. Units are those of the calendar, and the present one counts
//! as number 0: `days30` keeps up to 31. What no category covers goes.
//!
//! The oldest of a unit and not the newest: it stays the oldest however often the rules are applied, and as it grows older
//! it moves on to the coarser categories.

use crate::ops::retain::interval::Position;
use crate::ops::retain::{Made, Zone};
use crate::words::stamp::Stamp;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

/// A unit of the calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Unit {
    Hours,
    Days,
    Weeks,
    Months,
    Years,
}

impl Unit {
    const ALL: [Self; 5] = [Self::Hours, Self::Days, Self::Weeks, Self::Months, Self::Years];

    /// As in a rule.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Hours => "hours",
            Self::Days => "days",
            Self::Weeks => "weeks",
            Self::Months => "months",
            Self::Years => "years",
        }
    }

    /// One of it, for people.
    pub const fn one(self) -> &'static str {
        match self {
            Self::Hours => "hour",
            Self::Days => "day",
            Self::Weeks => "week",
            Self::Months => "month",
            Self::Years => "year",
        }
    }

    const fn number(self, position: &Position) -> i64 {
        match self {
            Self::Hours => position.hour,
            Self::Days => position.day,
            Self::Weeks => position.week,
            Self::Months => position.month,
            Self::Years => position.year,
        }
    }
}

/// Rules, at least one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeepRules {
    latest: usize,
    units: BTreeMap<Unit, i64>,
}

/// A text that is no list of rules.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a keep rule: write for example latest3,hours24,days30,weeks8,months12,years2")]
pub struct KeepError(pub String);

impl FromStr for KeepRules {
    type Err = KeepError;

    fn from_str(text: &str) -> Result<Self, KeepError> {
        let mut rules = Self::default();
        let mut seen = BTreeSet::new();
        for rule in text.split(',').map(str::trim) {
            let error = || KeepError(rule.to_owned());
            let at = rule.find(|c: char| c.is_ascii_digit()).ok_or_else(error)?;
            let (word, count) = rule.split_at(at);
            // None of something is no rule, and twice the same is a mistake.
            let count: u32 = count.parse().map_err(|_| error())?;
            if count == 0 || !seen.insert(word) {
                return Err(error());
            }
            match Unit::ALL.into_iter().find(|unit| unit.word() == word) {
                Some(unit) => drop(rules.units.insert(unit, i64::from(count))),
                None if word == "latest" => rules.latest = usize::try_from(count).unwrap_or(usize::MAX),
                None => return Err(error()),
            }
        }
        Ok(rules)
    }
}

impl fmt::Display for KeepRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let latest = (self.latest > 0).then(|| format!("latest{}", self.latest));
        let units = self.units.iter().map(|(unit, count)| format!("{}{count}", unit.word()));
        f.write_str(&latest.into_iter().chain(units).collect::<Vec<_>>().join(","))
    }
}

/// What the rules say of a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// It is one of the newest.
    Latest,
    /// It is the oldest of its hour, day, ..., which lies this many back.
    OldestOf(Unit, i64),
    /// An older one of the same hour, day, ... stays in its place.
    NotOldestOf(Unit, i64),
    /// It is older than any rule reaches.
    TooOld,
    /// It lies in the future: a clock was wrong, and nobody knows how old it is.
    FromTheFuture,
}

impl Kept {
    /// Whether it stays.
    pub const fn stays(self) -> bool {
        matches!(self, Self::Latest | Self::OldestOf(..) | Self::FromTheFuture)
    }
}

impl KeepRules {
    /// What becomes of each of `versions` (of one name, in any order), in their order. Applied again to those that stay, all stay.
    pub fn judge(&self, versions: &[&Made], now: Stamp, zone: &Zone) -> Vec<Kept> {
        let mut newest_first: Vec<usize> = (0..versions.len()).collect();
        newest_first.sort_by_key(|at| std::cmp::Reverse((versions[*at].created, versions[*at].uid)));
        let mut verdicts = vec![Kept::Latest; versions.len()];
        let mut oldest: BTreeMap<(Unit, i64), usize> = BTreeMap::new();
        let today = zone.position(now);
        for at in newest_first.into_iter().skip(self.latest) {
            if versions[at].created > now {
                verdicts[at] = Kept::FromTheFuture;
                continue;
            }
            let position = zone.position(versions[at].created);
            let slot = self.units.iter().find_map(|(unit, count)| {
                let back = unit.number(&today) - unit.number(&position);
                (back <= *count).then_some((*unit, back))
            });
            let Some(slot) = slot else {
                verdicts[at] = Kept::TooOld;
                continue;
            };
            verdicts[at] = Kept::OldestOf(slot.0, slot.1);
            if let Some(younger) = oldest.insert(slot, at) {
                verdicts[younger] = Kept::NotOldestOf(slot.0, slot.1);
            }
        }
        verdicts
    }
}
