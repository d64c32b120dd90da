//! Deleting what has expired and what keep rules have no use for: a plan first, with a reason for every version, then the deed.

use crate::catalog::VersionSummary;
use crate::image::overlay::OverlayFile;
use crate::ops::automatic::PATIENCE_MS;
use crate::ops::listing::Filter;
use crate::ops::remove::{self, Consent, Options as RemoveOptions, Refusal, RemoveError};
use crate::ops::retain::expired::{Fate, judge};
use crate::ops::retain::{KeepRules, Made, Policy};
use crate::ops::{Interrupt, OpsError, overlays};
use crate::repo::{RepoError, Repository};
use crate::words::ids::{HostId, Uid};
use crate::words::monitor::Monitor;
use crate::words::name::Name;
use crate::words::record::Why;
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::time::Duration;

/// What to prune.
#[derive(Debug, Clone)]
pub struct Options {
    /// Which names.
    pub filter: Filter,
    /// Keep rules instead of those of the policy.
    pub keep: Option<KeepRules>,
    /// Setting `protect-younger`.
    pub protect_younger: Duration,
}

impl Options {
    /// The rules of an ordinary deletion hold.
    fn removal(&self) -> RemoveOptions {
        RemoveOptions { consent: Consent::Plain, protect_younger: self.protect_younger, open_handles: 0 }
    }
}

/// What is done with a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It is deleted.
    Delete,
    /// It would be, if something did not keep it.
    Spare,
    /// It stays.
    Keep,
}

/// A version in a plan. The field names are those of `--json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PruneRow {
    /// Which.
    pub uid: String,
    /// Its name.
    pub name: String,
    /// When it was made.
    pub created: String,
    /// What is done with it.
    pub action: Action,
    /// Why, in a sentence.
    pub reason: String,
}

impl fmt::Display for PruneRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.action {
            Action::Delete => "delete",
            Action::Spare => "spare",
            Action::Keep => "keep",
        };
        write!(f, "{word} {} {} {}: {}", self.uid, self.created, self.name, self.reason)
    }
}

/// What is to be deleted, and what becomes of the rest.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// Every version looked at, in order of names and time.
    pub rows: Vec<PruneRow>,
    /// What is to go, as it was when that was decided, with the number of its row.
    goes: Vec<(usize, VersionSummary)>,
}

/// Decides. Nothing is changed.
///
/// # Errors
/// When target or catalog fail.
pub fn plan(repo: &Repository, policy: &Policy, options: &Options) -> Result<Plan, OpsError> {
    let now = repo.clock().now();
    let mut names: BTreeMap<Name, Vec<VersionSummary>> = BTreeMap::new();
    for version in repo.catalog().version_summaries().map_err(RepoError::from)? {
        if options.filter.is_named(&version.attributes.name) {
            names.entry(version.attributes.name.clone()).or_default().push(version);
        }
    }
    let elsewhere = remove::held_elsewhere(repo)?;
    let mut plan = Plan::default();
    for (name, versions) in names {
        let keep = options.keep.as_ref().or_else(|| policy.keep_of(&name));
        let made: Vec<Made> = versions.iter().map(Made::from).collect();
        for (version, fate) in versions.into_iter().zip(judge(&made, keep, policy, now)) {
            let (action, reason) = decide(repo, &version, fate, &elsewhere, options)?;
            if action == Action::Delete {
                plan.goes.push((plan.rows.len(), version.clone()));
            }
            plan.rows.push(row(&version, action, reason));
        }
    }
    Ok(plan)
}

fn row(version: &VersionSummary, action: Action, reason: String) -> PruneRow {
    PruneRow {
        uid: version.uid.to_string(),
        name: version.attributes.name.to_string(),
        created: version.created.to_seconds_text(),
        action,
        reason,
    }
}

/// What is done with a version of a fate: what may go is looked at more closely.
fn decide(
    repo: &Repository,
    version: &VersionSummary,
    fate: Fate,
    elsewhere: &HashMap<Uid, HostId>,
    options: &Options,
) -> Result<(Action, String), OpsError> {
    Ok(match fate {
        Fate::Stays(cause) => (Action::Keep, cause.to_string()),
        Fate::Newest(cause) => (Action::Spare, format!("it is the newest good version of its name ({cause})")),
        Fate::Protected(cause) => (Action::Spare, format!("it is protected ({cause})")),
        Fate::Goes(cause) => match hindrance(repo, version, elsewhere, options)? {
            Some(hindrance) => (Action::Spare, format!("{hindrance} ({cause})")),
            None => (Action::Delete, cause.to_string()),
        },
    })
}

/// What keeps a version that would go. `elsewhere`: the versions that other hosts hold.
fn hindrance(
    repo: &Repository,
    version: &VersionSummary,
    elsewhere: &HashMap<Uid, HostId>,
    options: &Options,
) -> Result<Option<String>, OpsError> {
    let now = repo.clock().now();
    match remove::check(version, remove::overlaid(repo, version.uid, elsewhere), now, &options.removal()) {
        Ok(()) => {}
        Err(Refusal::Overlaid) => return Ok(Some(overlay_of(repo, version.uid))),
        Err(refusal) => return Ok(Some(refusal.to_string())),
    }
    if repo.is_being_read(version.uid)? {
        return Ok(Some(Refusal::BeingRead.to_string()));
    }
    if now.millis() - version.created.millis() >= PATIENCE_MS {
        return Ok(None);
    }
    // What a command made is finished; who wrote through a mount may still say that it failed.
    let by_mount =
        repo.catalog().version(version.uid).map_err(RepoError::from)?.is_some_and(|v| !v.record.draft.is_nil());
    Ok(by_mount.then(|| "its writer may still be at work".to_owned()))
}

/// Says which overlay of this host keeps a version.
fn overlay_of(repo: &Repository, uid: Uid) -> String {
    let listed = OverlayFile::list(&overlays::directory(repo)).unwrap_or_default();
    let bytes = listed.into_iter().find(|(listed, _)| *listed == uid).map_or(0, |(_, bytes)| bytes);
    format!(
        "its data was written to on this host, and the overlay of {bytes} bytes is kept until `echo discard > by_version/{uid}/overlay`"
    )
}

impl Plan {
    /// How many versions are to go.
    pub fn count(&self) -> usize {
        self.goes.len()
    }

    /// Deletes what is to go, each after another look: who was protected, opened or given another expiry since the decision stays.
    /// Returns the rows as they came out.
    ///
    /// # Errors
    /// When target or catalog fail, or at an interruption; what was deleted until then is gone, and it can be repeated.
    pub fn execute(
        mut self,
        repo: &Repository,
        options: &Options,
        monitor: &dyn Monitor,
        interrupt: &Interrupt,
    ) -> Result<Vec<PruneRow>, OpsError> {
        let total = self.goes.len() as u64;
        for (done, (row, planned)) in self.goes.iter().enumerate() {
            interrupt.check()?;
            monitor.progress(done as u64, total);
            if let Some(reason) = remove_as_planned(repo, planned, options)? {
                (self.rows[*row].action, self.rows[*row].reason) = (Action::Spare, reason);
            }
        }
        monitor.progress(total, total);
        Ok(self.rows)
    }
}

const CHANGED: &str = "it was changed meanwhile";

/// Deletes a version that still is what it was when that was decided, whichever host has changed it; otherwise says why not.
fn remove_as_planned(
    repo: &Repository,
    planned: &VersionSummary,
    options: &Options,
) -> Result<Option<String>, OpsError> {
    let Some(now) = repo.catalog().version_summary(planned.uid).map_err(RepoError::from)? else {
        return Ok(Some("it was deleted meanwhile".to_owned()));
    };
    if now.attributes != planned.attributes {
        return Ok(Some(CHANGED.to_owned()));
    }
    match remove::plan(repo, planned.uid, &options.removal()) {
        Ok(removal) => match removal.execute_as_planned(repo, Why::Pruned, &planned.attributes) {
            Ok(true) => {}
            Ok(false) => return Ok(Some(CHANGED.to_owned())),
            Err(RepoError::InUse { .. }) => return Ok(Some(Refusal::BeingRead.to_string())),
            Err(RepoError::InUseElsewhere { host, .. }) => {
                return Ok(Some(Refusal::OverlaidElsewhere { host }.to_string()));
            }
            Err(RepoError::Protected { .. }) => return Ok(Some(Refusal::Protected.to_string())),
            Err(error) => return Err(error.into()),
        },
        Err(RemoveError::Refused { refusal: Refusal::Overlaid, uid }) => return Ok(Some(overlay_of(repo, uid))),
        Err(RemoveError::Refused { refusal, .. }) => return Ok(Some(refusal.to_string())),
        Err(RemoveError::Repo(error)) => return Err(error.into()),
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::hosts_tests::{host, noise, publish};
    use crate::repo::testing::{create, small};
    use crate::words::attribute::{AttributeChange, Validity};
    use crate::words::monitor::Silent;

    #[test]
    fn what_another_host_said_since_the_plan_stands() {
        let world = create(&small());
        let (one, two) = (&world.repo, host(&world, "two"));
        let past = one.clock().now().plus_millis(-1000);
        let later = AttributeChange::Expire(Some(past.plus_millis(86_400_000)));
        let changes = [
            ("expiry", later),
            ("never", AttributeChange::Expire(None)),
            ("tag", AttributeChange::AddTag("golden".into())),
            ("protection", AttributeChange::Protected(true)),
            ("validity", AttributeChange::Validity(Validity::Incomplete("no".into()))),
        ];
        let mut uids = BTreeMap::new();
        for name in changes.iter().map(|(name, _)| *name).chain(["untouched"]) {
            let uid = publish(one, name, &noise(1, 5000)).unwrap().uid;
            one.change_attributes(uid, &[AttributeChange::Expire(Some(past))]).unwrap();
            uids.insert(name, uid);
        }
        two.refresh().unwrap();
        let options = Options { filter: Filter::default(), keep: None, protect_younger: Duration::ZERO };
        let planned = plan(one, &Policy::default(), &options).unwrap();
        assert_eq!(planned.count(), uids.len(), "{:?}", planned.rows);
        for (name, change) in &changes {
            two.change_attributes(uids[name], std::slice::from_ref(change)).unwrap();
        }
        let rows = planned.execute(one, &options, &Silent, &Interrupt::never()).unwrap();
        for row in &rows {
            let (expected, reason) = match row.name.as_str() {
                "untouched" => (Action::Delete, "expire is"),
                "protection" => (Action::Spare, "it is protected"),
                _ => (Action::Spare, CHANGED),
            };
            assert!(row.action == expected && row.reason.starts_with(reason), "{row}");
            assert_eq!(one.version(uids[row.name.as_str()]).is_ok(), expected == Action::Spare, "{row}");
        }
    }
}
