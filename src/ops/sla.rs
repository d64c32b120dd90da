//! Which promises of the schedules are broken.

use crate::ops::OpsError;
use crate::ops::listing::{Filter, histories};
use crate::ops::retain::Policy;
use crate::ops::retain::sla::{Breach, Severity, breaches};
use crate::repo::Repository;
use serde::Serialize;
use std::fmt;
use std::time::Duration;

/// A broken promise. The field names are those of `--json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SlaRow {
    /// Whose.
    pub name: String,
    /// Of which schedule.
    pub schedule: String,
    /// What is broken: `late`, `missing`, `gap`, `too-few`, `unpruned`, `future`.
    pub breach: &'static str,
    /// Whether a backup is missing now, as against something past.
    pub now: bool,
    /// By how much, where that is a time.
    pub by_seconds: Option<i64>,
    /// In a sentence.
    pub reason: String,
}

impl fmt::Display for SlaRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}: {}", self.breach, self.schedule, self.name, self.reason)
    }
}

impl SlaRow {
    /// What is broken of a schedule for a name.
    pub fn new(name: String, schedule: String, breach: &Breach) -> Self {
        Self {
            name,
            schedule,
            breach: breach.word(),
            now: breach.severity() == Severity::Late,
            by_seconds: breach.by_ms().map(|ms| ms / 1000),
            reason: breach.to_string(),
        }
    }
}

/// Lists what is broken, in order of names; one that the configuration spells out needs no version to be missed. `protect_younger` says which versions `prune` could not have deleted.
///
/// # Errors
/// When the catalog fails.
pub fn list_breaches(
    repo: &Repository,
    policy: &Policy,
    filter: &Filter,
    protect_younger: Duration,
) -> Result<Vec<SlaRow>, OpsError> {
    let now = repo.clock().now();
    let deletable = now.plus_millis(-i64::try_from(protect_younger.as_millis()).unwrap_or(i64::MAX));
    let mut rows = Vec::new();
    let mut histories = histories(repo)?;
    for name in policy.names_to_back_up() {
        histories.entry(name).or_default();
    }
    for (name, versions) in histories.iter().filter(|(name, _)| filter.is_named(name)) {
        for schedule in policy.schedules_of(name) {
            let found = breaches(schedule, versions, now, deletable, &policy.zone);
            rows.extend(found.iter().map(|breach| SlaRow::new(name.to_string(), schedule.name.clone(), breach)));
        }
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::commit::{Publication, publish_version};
    use crate::ops::retain::NameRule;
    use crate::repo::testing;

    #[test]
    fn a_name_that_is_spelled_out_is_missed_before_its_first_version_and_after_its_last() {
        let test = testing::create(&testing::small());
        let rule = |pattern: &str, schedules: &[&str]| NameRule {
            pattern: pattern.to_owned(),
            schedules: schedules.iter().map(|name| (*name).to_owned()).collect(),
            keep: None,
        };
        let names = vec![rule("vm", &["daily", "weekly"]), rule("other*", &["daily"]), rule("scratch", &[])];
        let policy = Policy { names, ..Policy::default() };
        let said = || {
            let rows = list_breaches(&test.repo, &policy, &Filter::default(), Duration::ZERO).unwrap();
            rows.into_iter().map(|row| (row.to_string(), row.now)).collect::<Vec<_>>()
        };
        let missing = [
            ("missing daily vm: there is no version of this name".to_owned(), true),
            ("missing weekly vm: there is no version of this name".to_owned(), true),
        ];
        assert_eq!(said(), missing);
        let image = crate::words::record::ImageRef::empty(test.repo.block_size());
        let settled = crate::image::Settled { image, changes: 0, stats: Default::default() };
        let made = publish_version(&test.repo, &settled, Publication::new(testing::attributes("vm"))).unwrap();
        assert_eq!(said(), []);
        test.repo.remove_version(made.uid).unwrap();
        assert_eq!(said(), missing);
    }
}
