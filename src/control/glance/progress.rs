//! What is being done now, for people.

use crate::control::glance::overview::Unfinished;
use crate::control::jobs::{JobRow, Unit};
use crate::control::sizes::show_bytes;
use crate::words::stamp::Stamp;
use std::fmt::Write as _;

/// Characters of a bar.
const BAR: u64 = 20;

/// A line for each job, then one for each copy that is not finished; a sentence when there is nothing.
pub fn text(jobs: &[JobRow], drafts: &[Unfinished], now: Stamp) -> String {
    let mut text = String::new();
    for job in jobs {
        let _ = writeln!(text, "{}", line(job, now));
    }
    for draft in drafts {
        let _ = writeln!(text, "incoming {}: {} so far, {}", draft.name, show_bytes(draft.size_bytes), draft.state);
    }
    if text.is_empty() { "nothing is being done\n".to_owned() } else { text }
}

/// One job in a line.
pub fn line(job: &JobRow, now: Stamp) -> String {
    let amount = |count: u64| match job.unit {
        Unit::Bytes => show_bytes(count),
        Unit::Items => count.to_string(),
    };
    let mut line = format!("{} {}: ", job.verb, job.what);
    match job.percent() {
        Some(percent) => {
            let full = percent * BAR / 100;
            let bar: String = (0..BAR).map(|at| if at < full { '#' } else { '.' }).collect();
            let _ = write!(line, "[{bar}] {percent}% of {}, {}/s", amount(job.total), amount(job.per_second()));
            if let Some(seconds) = job.seconds_left() {
                let _ = write!(line, ", {} left", lasting(seconds));
            }
        }
        None if job.done > 0 => _ = write!(line, "{} done", amount(job.done)),
        None => line.push_str("at work"),
    }
    let since = u64::try_from((now.millis() - job.started_ms) / 1000).unwrap_or(0);
    let _ = write!(line, " (for {}, process {})", lasting(since), job.pid);
    line
}

/// A time in its two largest units.
pub fn lasting(seconds: u64) -> String {
    let units = [(86_400, "d"), (3600, "h"), (60, "min"), (1, "s")];
    let Some(first) = units.iter().position(|(unit, _)| seconds >= *unit) else { return "0 s".to_owned() };
    let (unit, name) = units[first];
    let rest = units.get(first + 1).map(|(next, name)| (seconds % unit / next, name)).filter(|(count, _)| *count > 0);
    let rest = rest.map(|(count, name)| format!(" {count} {name}")).unwrap_or_default();
    format!("{} {name}{rest}", seconds / unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_and_drafts_read_like_sentences() {
        let now = Stamp::from_millis(100_000);
        assert_eq!(text(&[], &[], now), "nothing is being done\n");
        let job = JobRow {
            pid: 7,
            verb: "backup".into(),
            what: "vm1".into(),
            unit: Unit::Bytes,
            started_ms: 0,
            updated_ms: 10_000,
            done: 50 << 20,
            total: 200 << 20,
        };
        let draft = Unfinished {
            name: "vm2".into(),
            size_bytes: 1 << 30,
            state: "being written by cp (8)".into(),
            is_broken: false,
        };
        assert_eq!(
            text(std::slice::from_ref(&job), &[draft], now),
            "backup vm1: [#####...............] 25% of 200 MiB, 5.0 MiB/s, 30 s left (for 1 min 40 s, process 7)\n\
             incoming vm2: 1.0 GiB so far, being written by cp (8)\n"
        );
        let unknown = JobRow { total: 0, unit: Unit::Items, done: 3, ..job };
        assert_eq!(line(&unknown, now), "backup vm1: 3 done (for 1 min 40 s, process 7)");
    }

    #[test]
    fn times_have_two_units() {
        let told: Vec<String> = [0, 59, 60, 3601, 7260, 90_000, 864_000].into_iter().map(lasting).collect();
        assert_eq!(told, ["0 s", "59 s", "1 min", "1 h", "2 h 1 min", "1 d 1 h", "10 d"]);
    }
}
