//! What should be backed up now, and why.

use crate::ops::OpsError;
use crate::ops::listing::{Filter, histories};
use crate::ops::retain::due::{Due, Moment, Why, due, labels};
use crate::ops::retain::interval::Lasting;
use crate::ops::retain::{Made, Policy, Schedule};
use crate::repo::Repository;
use crate::words::name::Name;
use crate::words::stamp::Stamp;
use serde::Serialize;
use std::fmt;

/// A name that is due. The field names are those of `--json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DueRow {
    /// Which.
    pub name: String,
    /// What a backup made now is tagged with: the schedules that are due.
    pub tags: Vec<String>,
    /// When that backup may go.
    pub expire: Option<String>,
    /// Why.
    pub schedules: Vec<DueSchedule>,
}

/// A schedule that is due for a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DueSchedule {
    /// Which.
    pub schedule: String,
    /// When the last good version for it was made.
    pub last: Option<String>,
    /// Since when it is due; `None`: since ever.
    pub since: Option<String>,
    /// Why, in a sentence.
    pub reason: String,
}

impl fmt::Display for DueRow {
    /// One line: the name may contain spaces, so it stands last.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.tags.join(","), self.expire.as_deref().unwrap_or("never"), self.name)
    }
}

impl DueSchedule {
    fn new(due: &Due<'_>, now: Stamp) -> Self {
        let (last, reason) = match due.why {
            Why::Never => (None, "there is none yet".to_owned()),
            Why::Damaged(at) => (None, format!("the last one, of {at}, is damaged")),
            Why::Last(at) => {
                (Some(at.to_seconds_text()), format!("the last one is {} old", Lasting(now.millis() - at.millis())))
            }
        };
        let (schedule, since) = (due.schedule.name.clone(), due.since.map(Stamp::to_seconds_text));
        Self { schedule, last, since, reason }
    }
}

/// Lists the names that are due at this moment, in order. Names that the configuration spells out are listed before they have a
/// version. With `only`, other schedules are left out.
///
/// # Errors
/// When the catalog fails.
pub fn list_due(
    repo: &Repository,
    policy: &Policy,
    filter: &Filter,
    only: Option<&[String]>,
) -> Result<Vec<DueRow>, OpsError> {
    let now = repo.clock().now();
    let mut histories = histories(repo)?;
    for name in policy.names.iter().filter_map(crate::ops::retain::NameRule::only_name) {
        histories.entry(name).or_default();
    }
    let named = histories.iter().filter(|(name, _)| filter.is_named(name));
    Ok(named.filter_map(|(name, versions)| row(name, versions, policy, only, now)).collect())
}

/// Of these names those that are due, in their order, whether or not they have a version.
///
/// # Errors
/// When the catalog fails.
pub fn due_among(repo: &Repository, policy: &Policy, names: &[Name]) -> Result<Vec<DueRow>, OpsError> {
    let now = repo.clock().now();
    let histories = histories(repo)?;
    let versions = |name| histories.get(name).map(Vec::as_slice).unwrap_or_default();
    Ok(names.iter().filter_map(|name| row(name, versions(name), policy, None, now)).collect())
}

fn row(name: &Name, versions: &[Made], policy: &Policy, only: Option<&[String]>, now: Stamp) -> Option<DueRow> {
    let mut schedules: Vec<&Schedule> = policy.schedules_of(name);
    schedules.retain(|schedule| only.is_none_or(|only| only.contains(&schedule.name)));
    let found = due(&schedules, versions, now, &policy.zone);
    let labels = labels(&schedules, versions, Moment::after(versions, now), &policy.zone);
    (!found.is_empty()).then(|| DueRow {
        name: name.to_string(),
        tags: labels.tags.into_iter().collect(),
        expire: labels.expire.map(Stamp::to_seconds_text),
        schedules: found.iter().map(|due| DueSchedule::new(due, now)).collect(),
    })
}
