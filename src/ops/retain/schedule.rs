//! Schedules: how often a name is to be backed up, how many of these backups are kept, and how late one may be.

use crate::ops::retain::Interval;

/// A schedule. Its name is the tag of the versions that were made for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    /// Its name, which can be a tag.
    pub name: String,
    /// A backup is wanted this often.
    pub interval: Interval,
    /// So many backups are kept; each for one interval more, so that this many are there until the next is made.
    pub keep: u32,
    /// How much a backup may be late, or early.
    pub sla: Interval,
}

/// The schedules that are there unless the configuration says otherwise: backy2's.
pub fn shipped() -> Vec<Schedule> {
    let span = |text: &str| -> Interval { text.parse().expect("these are spans of time; a test reads them") };
    [("hourly", "1h", 25, "1h"), ("daily", "1d", 8, "6h"), ("weekly", "7d", 5, "12h"), ("monthly", "30d", 3, "3d")]
        .into_iter()
        .map(|(name, interval, keep, sla)| Schedule {
            name: name.to_owned(),
            interval: span(interval),
            keep,
            sla: span(sla),
        })
        .collect()
}

/// The shipped schedule of a name.
pub fn shipped_named(name: &str) -> Option<Schedule> {
    shipped().into_iter().find(|schedule| schedule.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_are_shipped() {
        let names: Vec<String> = shipped().into_iter().map(|schedule| schedule.name).collect();
        assert_eq!(names, ["hourly", "daily", "weekly", "monthly"]);
        assert_eq!(shipped_named("daily").unwrap().interval, "1d".parse().unwrap());
        assert_eq!(shipped_named("yearly"), None);
    }
}
