//! Text that is OpenMetrics 1.0 and the older text format of Prometheus (0.0.4) at once.
//!
//! Both are read: servers and libraries know OpenMetrics; promtool and the textfile collector of node_exporter know the older one only.
//! They differ in one thing that matters: in OpenMetrics the metadata of a counter leave out the `_total` that its samples have, and a
//! reader of the older format then finds no help for them. A counter whose type is left out, which OpenMetrics allows, reads the same in
//! both; `_total` says what it is, to people and to PromQL (docs/decisions/0062-metrics.md).

use crate::words::histogram::{BOUNDS_MICROS, Distribution};
use std::fmt::{Display, Write as _};

/// What a family is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows; the name ends in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Durations in seconds.
    Histogram,
}

/// A text being written.
#[derive(Debug, Default)]
pub struct Exposition {
    text: String,
}

/// A family whose samples are being written.
pub struct Family<'a> {
    text: &'a mut String,
    name: &'static str,
}

impl Exposition {
    /// Begins a family. Each name once; the help is a line without quotes and backslashes, which the formats escape differently.
    pub fn family(&mut self, kind: Kind, name: &'static str, help: &str) -> Family<'_> {
        debug_assert_eq!(name.ends_with("_total"), kind == Kind::Counter, "{name}");
        debug_assert!(!help.contains(['\\', '\n', '"']), "{help}");
        let _ = writeln!(self.text, "# HELP {name} {help}");
        match kind {
            Kind::Counter => {}
            Kind::Gauge => _ = writeln!(self.text, "# TYPE {name} gauge"),
            Kind::Histogram => _ = writeln!(self.text, "# TYPE {name} histogram"),
        }
        Family { text: &mut self.text, name }
    }

    /// A family of one sample without labels.
    pub fn single(&mut self, kind: Kind, name: &'static str, help: &str, value: impl Display) {
        self.family(kind, name, help).sample(&[], value);
    }

    /// The whole text.
    pub fn finish(mut self) -> String {
        self.text.push_str("# EOF\n");
        self.text
    }
}

impl Family<'_> {
    /// One sample. A float is printed so that it reads back as the same.
    pub fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) {
        self.line("", labels, None, value);
    }

    /// All samples of one histogram.
    pub fn histogram(&mut self, labels: &[(&str, &str)], distribution: &Distribution) {
        for (bound, count) in BOUNDS_MICROS.iter().zip(distribution.up_to) {
            self.line("_bucket", labels, Some(&seconds(*bound)), count);
        }
        self.line("_bucket", labels, Some("+Inf"), distribution.count);
        self.line("_sum", labels, None, distribution.sum_micros as f64 / 1e6);
        self.line("_count", labels, None, distribution.count);
    }

    fn line(&mut self, suffix: &str, labels: &[(&str, &str)], bound: Option<&str>, value: impl Display) {
        let _ = write!(self.text, "{}{suffix}", self.name);
        let labels = labels.iter().copied().chain(bound.map(|bound| ("le", bound)));
        let mut opened = false;
        for (label, text) in labels {
            let _ = write!(self.text, "{}{label}=\"{}\"", if opened { ',' } else { '{' }, escape(text));
            opened = true;
        }
        let _ = writeln!(self.text, "{} {value}", if opened { "}" } else { "" });
    }
}

/// A bound as OpenMetrics writes floats: always with a point, below a ten-thousandth with an exponent.
fn seconds(micros: u64) -> String {
    let seconds = micros as f64 / 1e6;
    match micros {
        0..100 => format!("{:.0}e-05", seconds * 1e5),
        _ if micros.is_multiple_of(1_000_000) => format!("{seconds:.1}"),
        _ => seconds.to_string(),
    }
}

/// For values of labels.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => escaped.push_str("\\\\"),
            '"' => escaped.push_str("\\\""),
            '\n' => escaped.push_str("\\n"),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::histogram::Histogram;
    use std::time::Duration;

    #[test]
    fn what_is_written_reads_the_same_in_both_formats() {
        let mut text = Exposition::default();
        text.single(Kind::Gauge, "a_ratio", "A share.", 0.25);
        let mut family = text.family(Kind::Counter, "b_total", "Things.");
        family.sample(&[("name", "a\"b\\c\nd"), ("of", "x")], 7_u64);
        let histogram = Histogram::default();
        histogram.observe(Duration::from_millis(3));
        text.family(Kind::Histogram, "c_seconds", "Times.").histogram(&[("op", "read")], &histogram.distribution());
        let text = text.finish();
        assert!(
            text.starts_with("# HELP a_ratio A share.\n# TYPE a_ratio gauge\na_ratio 0.25\n# HELP b_total Things.\n")
        );
        assert!(text.contains("b_total{name=\"a\\\"b\\\\c\\nd\",of=\"x\"} 7\n"), "{text}");
        assert!(
            text.contains(
                "c_seconds_bucket{op=\"read\",le=\"0.0025\"} 0\nc_seconds_bucket{op=\"read\",le=\"0.005\"} 1\n"
            )
        );
        assert!(text.ends_with("c_seconds_sum{op=\"read\"} 0.003\nc_seconds_count{op=\"read\"} 1\n# EOF\n"), "{text}");
    }

    #[test]
    fn bounds_are_written_as_floats() {
        let bounds: Vec<String> = BOUNDS_MICROS.iter().map(|bound| seconds(*bound)).collect();
        assert_eq!(
            bounds.join(" "),
            "5e-05 0.0001 0.00025 0.0005 0.001 0.0025 0.005 0.01 0.025 0.05 0.1 0.25 1.0 5.0 15.0 60.0"
        );
        assert!(bounds.iter().zip(BOUNDS_MICROS).all(|(text, micros)| text.parse::<f64>() == Ok(micros as f64 / 1e6)));
    }
}
