//! Sizes and times as people write them.

use std::time::Duration;

/// Reads `268435456`, `256M`, `256MiB`, `1g`: units are powers of 1024.
///
/// # Errors
/// A sentence that says what is wrong.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let problem = || format!("{text:?} is not a size: write for example 256M or 1G");
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim().to_ascii_lowercase();
    let unit = unit.strip_suffix("ib").or_else(|| unit.strip_suffix('b')).unwrap_or(&unit);
    let shift = match unit {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return Err(problem()),
    };
    let number: u64 = number.parse().map_err(|_| problem())?;
    number.checked_mul(1 << shift).ok_or_else(problem)
}

/// Reads `300` (seconds), `300s`, `5m`, `1h`.
///
/// # Errors
/// A sentence that says what is wrong.
pub fn parse_seconds(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let problem = || format!("{text:?} is not a time: write for example 300, 5m or 1h");
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let seconds = match unit {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err(problem()),
    };
    let number: u64 = number.parse().map_err(|_| problem())?;
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(problem)
}

/// Reads an age: `6` (days), `6d`, `2w`, or what [`parse_seconds`] reads with a unit.
///
/// # Errors
/// A sentence that says what is wrong.
pub fn parse_age(text: &str) -> Result<Duration, String> {
    const DAY_S: u64 = 86_400;
    let text = text.trim();
    let problem = || format!("{text:?} is not an age: write for example 6d, 12h or 2w");
    let (number, unit_s) = match text.chars().last() {
        Some('d') => (&text[..text.len() - 1], DAY_S),
        Some('w') => (&text[..text.len() - 1], 7 * DAY_S),
        Some('0'..='9') => (text, DAY_S),
        _ => return parse_seconds(text).map_err(|_| problem()),
    };
    let number: u64 = number.parse().map_err(|_| problem())?;
    // More than a thousand years are a slip of the finger.
    number.checked_mul(unit_s).filter(|age| *age <= 400_000 * DAY_S).map(Duration::from_secs).ok_or_else(problem)
}

/// An age as [`parse_age`] reads it.
pub fn show_age(age: Duration) -> String {
    match age.as_secs() {
        seconds if seconds % 86_400 == 0 => format!("{}d", seconds / 86_400),
        seconds if seconds % 3600 == 0 => format!("{}h", seconds / 3600),
        seconds => format!("{seconds}s"),
    }
}

/// `1.5 GiB`: three digits that matter.
pub fn show_bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = if unit == 0 || value >= 99.95 { 0 } else { 1 };
    format!("{value:.digits$} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_with_units() {
        for (text, bytes) in [("0", 0), ("4096", 4096), ("256M", 256 << 20), (" 1g ", 1 << 30), ("2 TiB", 2 << 40)] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for bad in ["", "M", "1.5G", "-1", "1X", "99999999999T"] {
            assert!(parse_bytes(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_seconds("5m"), Ok(Duration::from_secs(300)));
        assert!(parse_seconds("soon").is_err());
        for (text, seconds, shown) in
            [("6", 518_400, "6d"), ("2w", 1_209_600, "14d"), ("12h", 43_200, "12h"), ("90s", 90, "90s"), ("0", 0, "0d")]
        {
            let age = parse_age(text).unwrap();
            assert_eq!((age.as_secs(), show_age(age).as_str()), (seconds, shown), "{text}");
        }
        for bad in ["", "d", "-1d", "soon", "1.5d", "99999999d", "é"] {
            assert!(parse_age(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_for_people() {
        for (bytes, text) in
            [(0, "0 B"), (999, "999 B"), (1024, "1.0 KiB"), (64 << 20, "64.0 MiB"), (4000 << 20, "3.9 GiB")]
        {
            assert_eq!(show_bytes(bytes), text);
        }
    }
}
