//! Moments in time, as they are stored and as people read and write them.

use jiff::civil;
use jiff::tz::TimeZone;
use std::fmt;

/// A moment: milliseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp(i64);

/// A text that names no moment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a date: write 2026-11-22, 2026-11-22T18:31:02Z or a span from now such as 30d, 12h, 2w")]
pub struct StampError(pub String);

impl Stamp {
    /// From milliseconds since the epoch.
    pub const fn from_millis(ms: i64) -> Self {
        Self(ms)
    }

    /// Milliseconds since the epoch.
    pub const fn millis(self) -> i64 {
        self.0
    }

    /// This moment plus a number of milliseconds (saturating).
    #[must_use]
    pub const fn plus_millis(self, ms: i64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// `2026-11-22T18:31:02Z`: cut to the second.
    pub fn to_seconds_text(self) -> String {
        self.civil().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    }

    /// `2026-11-22T18:31:02.123Z`.
    pub fn to_millis_text(self) -> String {
        format!("{}.{:03}Z", self.civil().strftime("%Y-%m-%dT%H:%M:%S"), self.0.rem_euclid(1000))
    }

    fn civil(self) -> civil::DateTime {
        let ms = self.0.clamp(-62_135_596_800_000, 253_402_207_200_000);
        jiff::Timestamp::from_millisecond(ms).expect("clamped to years 1 to 9999").to_zoned(TimeZone::UTC).datetime()
    }

    /// Reads what a person writes: a date (midnight UTC), an RFC 3339 time, or a span from `now` (`30d`, `+12h`, `2w`,
    /// `6m` months of 30 days, `1y` of 365 days).
    ///
    /// # Errors
    /// When it is none of these, or outside the years 1 to 9999.
    pub fn parse(text: &str, now: Self) -> Result<Self, StampError> {
        let text = text.trim();
        let error = || StampError(text.to_owned());
        if let Ok(timestamp) = text.parse::<jiff::Timestamp>() {
            return Ok(Self(timestamp.as_millisecond()));
        }
        if let Ok(date) = text.parse::<civil::Date>() {
            // Only the written form YYYY-MM-DD: jiff also takes 20261122 and date-times without a zone.
            if text.len() == 10 {
                let zoned = date.to_zoned(TimeZone::UTC).map_err(|_| error())?;
                return Ok(Self(zoned.timestamp().as_millisecond()));
            }
        }
        let span = text.strip_prefix('+').unwrap_or(text);
        let unit = span.chars().last().ok_or_else(error)?;
        let hours: i64 = match unit {
            'h' => 1,
            'd' => 24,
            'w' => 24 * 7,
            'm' => 24 * 30,
            'y' => 24 * 365,
            _ => return Err(error()),
        };
        let count: i64 = span[..span.len() - 1].parse::<u32>().map_err(|_| error())?.into();
        let then = now.plus_millis(count.saturating_mul(hours).saturating_mul(3_600_000));
        jiff::Timestamp::from_millisecond(then.0).map_err(|_| error())?;
        Ok(then)
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_seconds_text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Stamp = Stamp::from_millis(1_795_372_262_123);

    #[test]
    fn prints_seconds_and_milliseconds() {
        assert_eq!(NOW.to_seconds_text(), "2026-11-22T18:31:02Z");
        assert_eq!(NOW.to_millis_text(), "2026-11-22T18:31:02.123Z");
    }

    #[test]
    fn reads_dates_times_and_spans() {
        assert_eq!(Stamp::parse("2026-11-22T18:31:02.123Z", NOW), Ok(NOW));
        assert_eq!(Stamp::parse("2030-01-02", NOW).unwrap().to_seconds_text(), "2030-01-02T00:00:00Z");
        assert_eq!(Stamp::parse("+2d", NOW), Ok(NOW.plus_millis(2 * 86_400_000)));
        for bad in ["", "soon", "2030-13-01", "20300101", "5", "d", "-3d", "99999999999y", "4294967295y"] {
            assert!(Stamp::parse(bad, NOW).is_err(), "{bad}");
        }
    }
}
