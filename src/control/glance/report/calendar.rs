//! The days on which there are versions of a name.

use crate::control::glance::overview::Point;
use crate::ops::retain::{Standing, Zone};
use crate::words::stamp::Stamp;
use maud::{Markup, html};
use std::fmt::Write as _;

/// Days of the strip that stands beside a name.
pub(super) const STRIP_DAYS: usize = 84;
/// Days of the calendar that unfolds: 53 weeks.
const YEAR_DAYS: usize = 371;

/// What a day is marked with: the best version of it counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Mark {
    None,
    Incomplete,
    Damaged,
    Good,
}

impl Mark {
    const fn letter(self) -> char {
        match self {
            Self::None => '.',
            Self::Incomplete => 'i',
            Self::Damaged => 'd',
            Self::Good => 'g',
        }
    }
}

impl From<Standing> for Mark {
    fn from(standing: Standing) -> Self {
        match standing {
            Standing::Good => Self::Good,
            Standing::Lacking | Standing::Damaged => Self::Damaged,
            Standing::Incomplete => Self::Incomplete,
        }
    }
}

/// The days up to today, the last one being today.
pub(super) struct Days {
    marks: Vec<Mark>,
}

impl Days {
    pub(super) fn new(versions: &[Point], now: Stamp, zone: &Zone) -> Self {
        let today = zone.position(now).day;
        let mut marks = vec![Mark::None; YEAR_DAYS];
        for version in versions {
            // One from the future is shown today.
            let back = (today - zone.position(version.created).day).max(0);
            let at = usize::try_from(back).ok().and_then(|back| (YEAR_DAYS - 1).checked_sub(back));
            if let Some(mark) = at.and_then(|at| marks.get_mut(at)) {
                *mark = (*mark).max(version.standing.into());
            }
        }
        Self { marks }
    }

    /// Runs of equal days among the last `count`: from which one, how many, how marked.
    fn runs(&self, count: usize) -> Vec<(usize, usize, Mark)> {
        let mut runs: Vec<(usize, usize, Mark)> = Vec::new();
        for (at, mark) in self.marks[YEAR_DAYS - count..].iter().enumerate() {
            match runs.last_mut() {
                Some((_, len, last)) if last == mark => *len += 1,
                _ => runs.push((at, 1, *mark)),
            }
        }
        runs
    }

    /// For the script, which draws the year: letters with how often they follow each other.
    pub(super) fn encoded(&self) -> String {
        self.runs(YEAR_DAYS).iter().fold(String::new(), |mut text, (_, len, mark)| {
            let _ = write!(text, "{}{len}", mark.letter());
            text
        })
    }

    /// The last twelve weeks as a picture: a dashed line for each run of days, a dash for each day.
    pub(super) fn strip(&self) -> Markup {
        let runs = self.runs(STRIP_DAYS);
        let path = |wanted: Mark| {
            let runs = runs.iter().filter(|(_, _, mark)| *mark == wanted);
            runs.fold(String::new(), |mut path, (at, len, _)| {
                let _ = write!(path, "M{at} 4h{len}");
                path
            })
        };
        let count =
            |wanted: Mark| runs.iter().filter(|(_, _, mark)| *mark == wanted).map(|(_, len, _)| len).sum::<usize>();
        let mut label = format!("Versions on {} of the last {STRIP_DAYS} days", STRIP_DAYS - count(Mark::None));
        for (mark, word) in [(Mark::Damaged, "damaged"), (Mark::Incomplete, "incomplete")] {
            if count(mark) > 0 {
                let _ = write!(label, ", {word} on {}", count(mark));
            }
        }
        html! {
            svg.strip viewBox={ "0 0 " (STRIP_DAYS) " 8" } preserveAspectRatio="none" role="img" aria-label=(label) {
                @for (mark, class) in [(Mark::None, "n"), (Mark::Good, "g"), (Mark::Damaged, "d"), (Mark::Incomplete, "i")] {
                    @let path = path(mark);
                    @if !path.is_empty() { path class=(class) d=(path) {} }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::glance::overview::DAY_MS;

    fn point(day: i64, standing: Standing) -> Point {
        Point { created: Stamp::from_millis(day * DAY_MS + 5), standing, size_bytes: 1, stored_bytes: 1 }
    }

    #[test]
    fn the_best_version_of_a_day_marks_it() {
        let now = Stamp::from_millis(1000 * DAY_MS);
        let versions = [
            point(100, Standing::Good),
            point(998, Standing::Good),
            point(999, Standing::Damaged),
            point(999, Standing::Incomplete),
            point(1003, Standing::Good),
        ];
        let days = Days::new(&versions, now, &Zone::utc());
        assert_eq!(days.encoded(), ".368g1d1g1");
        let strip = days.strip().into_string();
        assert!(strip.contains("aria-label=\"Versions on 3 of the last 84 days, damaged on 1\""), "{strip}");
        assert!(strip.contains("<path class=\"g\" d=\"M81 4h1M83 4h1\">") && !strip.contains("class=\"i\""), "{strip}");
        assert_eq!(Days::new(&[], now, &Zone::utc()).encoded(), ".371");
    }

    #[test]
    fn days_begin_where_people_are() {
        let stamp = |text: &str| Stamp::parse(text, Stamp::from_millis(0)).unwrap();
        // Half past eleven in the evening in UTC is half past midnight of the next day in Berlin.
        let version = Point { created: stamp("2026-11-21T23:30:00Z"), ..point(0, Standing::Good) };
        let now = stamp("2026-11-22T12:00:00Z");
        assert_eq!(Days::new(&[version], now, &Zone::utc()).encoded(), ".369g1.1");
        assert_eq!(Days::new(&[version], now, &Zone::named("Europe/Berlin").unwrap()).encoded(), ".370g1");
    }
}
