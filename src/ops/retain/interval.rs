//! Spans of time as people mean them, and the time zone that they are meant in.

use crate::words::stamp::Stamp;
use jiff::civil::{Date, Weekday};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, Zoned};
use std::fmt;
use std::str::FromStr;

/// A positive span: `1h`, `1d`, `2 weeks`, `1mo`, `1y`; `m` are minutes.
#[derive(Debug, Clone)]
pub struct Interval {
    span: Span,
    text: String,
}

/// A text that is no span of time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a span of time: write for example 90m, 6h, 1d, 2w, 1mo or 1y")]
pub struct IntervalError(pub String);

impl FromStr for Interval {
    type Err = IntervalError;

    fn from_str(text: &str) -> Result<Self, IntervalError> {
        let error = || IntervalError(text.to_owned());
        let text_in = text.trim();
        let span: Span = text_in.parse().map_err(|_| error())?;
        let interval = Self { span, text: text_in.to_owned() };
        // A span is good when it leads from any moment to a later one that can still be told.
        let (start, utc) = (Stamp::from_millis(0), Zone::utc());
        let lasts_ms = utc.after(start, &interval).ok_or_else(error)?.millis();
        if span.is_positive() && lasts_ms >= 1000 { Ok(interval) } else { Err(error()) }
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl PartialEq for Interval {
    fn eq(&self, other: &Self) -> bool {
        self.span.fieldwise() == other.span.fieldwise()
    }
}

impl Eq for Interval {}

/// So many milliseconds, for people: the two largest units, `3d 4h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lasting(pub i64);

impl fmt::Display for Lasting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.unsigned_abs() / 1000;
        let parts =
            [(seconds / 86_400, "d"), (seconds / 3600 % 24, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s")];
        let first = parts.iter().position(|(count, _)| *count > 0).unwrap_or(parts.len() - 1);
        let shown = parts[first..].iter().take(2).filter(|(count, _)| *count > 0 || first == parts.len() - 1);
        f.write_str(&shown.map(|(count, unit)| format!("{count}{unit}")).collect::<Vec<_>>().join(" "))
    }
}

/// A calendar: hours, days, weeks, months and years begin when they do there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone(TimeZone);

/// Where a moment stands in a calendar: numbers of units that grow by one from each unit to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Hours, as elapsed time: an hour that the clocks repeat is two.
    pub hour: i64,
    /// Days.
    pub day: i64,
    /// Weeks, which begin on Monday.
    pub week: i64,
    /// Months.
    pub month: i64,
    /// Years.
    pub year: i64,
}

impl Zone {
    /// Coordinated universal time.
    pub fn utc() -> Self {
        Self(TimeZone::UTC)
    }

    /// What the machine is set to: `TZ`, else `/etc/localtime`; UTC when neither says anything.
    pub fn system() -> Self {
        Self(TimeZone::try_system().unwrap_or(TimeZone::UTC))
    }

    /// A zone by its name, for example `Europe/Berlin`; `None` when this machine does not know it.
    pub fn named(name: &str) -> Option<Self> {
        TimeZone::get(name).ok().map(Self)
    }

    /// Its name, if it has one.
    pub fn name(&self) -> Option<&str> {
        self.0.iana_name()
    }

    fn zoned(&self, at: Stamp) -> Zoned {
        // Moments outside of what a calendar can tell are as good as its ends.
        let ms = at.millis().clamp(-62_135_596_800_000, 253_402_207_200_000);
        let at = Timestamp::from_millisecond(ms).expect("clamped to years 1 to 9999");
        at.to_zoned(self.0.clone())
    }

    /// The moment an interval after another; `None` past the end of the calendar.
    pub fn after(&self, at: Stamp, interval: &Interval) -> Option<Stamp> {
        self.times_after(at, interval, 1)
    }

    /// The moment `count` intervals after another; `None` past the end of the calendar.
    pub fn times_after(&self, at: Stamp, interval: &Interval, count: u32) -> Option<Stamp> {
        let span = interval.span.checked_mul(i64::from(count)).ok()?;
        let then = self.zoned(at).checked_add(span).ok()?;
        Some(Stamp::from_millis(then.timestamp().as_millisecond()))
    }

    /// The moment an interval before another; `None` before the beginning of the calendar.
    pub fn before(&self, at: Stamp, interval: &Interval) -> Option<Stamp> {
        self.times_before(at, interval, 1)
    }

    /// The moment `count` intervals before another; `None` before the beginning of the calendar.
    pub fn times_before(&self, at: Stamp, interval: &Interval, count: u32) -> Option<Stamp> {
        let span = interval.span.checked_mul(i64::from(count)).ok()?;
        let then = self.zoned(at).checked_sub(span).ok()?;
        Some(Stamp::from_millis(then.timestamp().as_millisecond()))
    }

    /// Where a moment stands in the calendar.
    pub fn position(&self, at: Stamp) -> Position {
        let zoned = self.zoned(at);
        let date = zoned.date();
        // Some zones are half an hour off, and their hours begin at half past.
        let into_hour = i64::from(zoned.minute()) * 60 + i64::from(zoned.second());
        let start_of_hour = zoned.timestamp().as_second() - into_hour;
        let day = i64::from(days_since_epoch(date));
        let monday = day - i64::from(date.weekday().since(Weekday::Monday));
        Position {
            hour: start_of_hour.div_euclid(3600),
            day,
            week: monday.div_euclid(7),
            month: i64::from(date.year()) * 12 + i64::from(date.month()),
            year: i64::from(date.year()),
        }
    }
}

fn days_since_epoch(date: Date) -> i32 {
    let epoch = jiff::civil::date(1970, 1, 1);
    date.since((jiff::Unit::Day, epoch)).map_or(0, |span| span.get_days())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(text: &str) -> Stamp {
        Stamp::parse(text, Stamp::from_millis(0)).unwrap()
    }

    fn interval(text: &str) -> Interval {
        text.parse().unwrap()
    }

    #[test]
    fn days_follow_the_calendar_and_hours_do_not() {
        let berlin = Zone::named("Europe/Berlin").unwrap();
        for (from, span, expected) in [
            // The clocks go forward on 2026-03-29 at 01:00 UTC and back on 2026-10-25 at 01:00 UTC.
            ("2026-03-28T03:30:00Z", "1d", "2026-03-29T02:30:00Z"),
            ("2026-03-28T03:30:00Z", "24h", "2026-03-29T03:30:00Z"),
            ("2026-10-24T02:30:00Z", "1d", "2026-10-25T03:30:00Z"),
            // 02:30 does not exist on that day: it becomes 03:30 summer time.
            ("2026-03-28T01:30:00Z", "1d", "2026-03-29T01:30:00Z"),
            // Ends of months, and the leap day.
            ("2026-01-31T12:00:00Z", "1mo", "2026-02-28T12:00:00Z"),
            ("2028-01-31T12:00:00Z", "1mo", "2028-02-29T12:00:00Z"),
            ("2028-02-29T12:00:00Z", "1y", "2029-02-28T12:00:00Z"),
            ("2026-12-31T12:00:00Z", "30d", "2027-01-30T12:00:00Z"),
        ] {
            let then = berlin.after(stamp(from), &interval(span)).unwrap();
            assert_eq!(then.to_seconds_text(), expected, "{from} + {span}");
        }
        let last = Stamp::from_millis(253_402_207_200_000);
        assert_eq!(berlin.after(last, &interval("1y")), None);
    }

    #[test]
    fn only_positive_spans() {
        for bad in ["", "0d", "-1d", "soon", "1", "1 parsec", "1ms", "99999999y"] {
            assert!(bad.parse::<Interval>().is_err(), "{bad}");
        }
        assert_eq!(interval("7d"), interval("7 days"));
        assert_ne!(interval("7d"), interval("1w"));
    }

    #[test]
    fn spans_for_people() {
        for (ms, text) in [
            (0, "0s"),
            (59_999, "59s"),
            (60_000, "1m"),
            (3_725_000, "1h 2m"),
            (90_000_000, "1d 1h"),
            (86_460_000, "1d"),
            (86_400_000 * 400, "400d"),
        ] {
            assert_eq!(Lasting(ms).to_string(), text);
        }
    }

    #[test]
    fn units_follow_each_other() {
        let position = |zone: &Zone, text| zone.position(stamp(text));
        let (utc, kolkata) = (Zone::utc(), Zone::named("Asia/Kolkata").unwrap());
        let (sunday, monday) = (position(&utc, "2026-11-22T23:59:59Z"), position(&utc, "2026-11-23T00:00:00Z"));
        assert_eq!((monday.week - sunday.week, monday.day - sunday.day, monday.hour - sunday.hour), (1, 1, 1));
        // Half past is where hours begin there, and 18:30 UTC is midnight.
        let (before, after) = (position(&kolkata, "2026-12-31T18:29:59Z"), position(&kolkata, "2026-12-31T18:30:00Z"));
        assert_eq!((after.hour - before.hour, after.year - before.year, after.month - before.month), (1, 1, 1));
        // An hour that the clocks repeat is two, and a day is a day however long it takes.
        let berlin = Zone::named("Europe/Berlin").unwrap();
        let (first, second) = (position(&berlin, "2026-10-25T00:30:00Z"), position(&berlin, "2026-10-25T01:30:00Z"));
        assert_eq!((second.hour - first.hour, second.day - first.day), (1, 0));
    }
}
