//! Versions as lists show them. The field names are those of `--json`: scripts rely on them.

use crate::catalog::{Version, VersionSummary};
use crate::ops::OpsError;
use crate::ops::retain::Made;
use crate::ops::scrub::report::VersionFinding;
use crate::repo::{RepoError, Repository};
use crate::words::attribute::{Attributes, Validity};
use crate::words::ids::Uid;
use crate::words::name::Name;
use crate::words::record::{ImageRef, Stats};
use crate::words::stamp::Stamp;
use serde::Serialize;
use std::collections::BTreeMap;

/// One version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct VersionRow {
    pub uid: String,
    pub name: String,
    pub created: String,
    pub size_bytes: u64,
    /// `valid`, `invalid` or `incomplete`.
    pub valid: &'static str,
    /// Why it is not valid.
    pub reason: String,
    pub tags: Vec<String>,
    pub expire: Option<String>,
    pub protected: bool,
    pub snapshot_name: String,
}

impl VersionRow {
    fn new(uid: Uid, created: Stamp, size_bytes: u64, attributes: &Attributes) -> Self {
        Self {
            uid: uid.to_string(),
            name: attributes.name.to_string(),
            created: created.to_millis_text(),
            size_bytes,
            valid: attributes.validity.word(),
            reason: attributes.validity.reason().to_owned(),
            tags: attributes.tags.iter().cloned().collect(),
            expire: attributes.expire.map(Stamp::to_seconds_text),
            protected: attributes.protected,
            snapshot_name: attributes.snapshot_name.clone(),
        }
    }
}

impl From<&VersionSummary> for VersionRow {
    fn from(version: &VersionSummary) -> Self {
        Self::new(version.uid, version.created, version.image.size_bytes, &version.attributes)
    }
}

impl From<&Version> for VersionRow {
    fn from(version: &Version) -> Self {
        Self::new(version.record.uid, version.record.created, version.record.image.size_bytes, &version.attributes)
    }
}

/// Everything about one version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct VersionDetails {
    #[serde(flatten)]
    pub row: VersionRow,
    pub host: String,
    /// The version it was made from.
    pub base: Option<String>,
    /// The version it replaces.
    pub supersedes: Option<String>,
    pub block_size_bytes: u64,
    /// Bytes in blocks that are not holes.
    pub allocated_bytes: u64,
    /// The id of the root of its map: equal ids mean equal images.
    pub root: String,
    /// Permission bits in octal digits.
    pub mode: String,
    pub owner: u32,
    pub group: u32,
    pub mtime: String,
    pub stats: Stats,
    /// How the last scrub on this host found it; `None` when none looked at it.
    pub scrub: Option<VersionFinding>,
}

impl From<&Version> for VersionDetails {
    fn from(version: &Version) -> Self {
        let (record, file) = (&version.record, &version.attributes.file);
        let known = |uid: Uid| (!uid.is_nil()).then(|| uid.to_string());
        let ImageRef { block_size, root, allocated_blocks, .. } = record.image;
        let mtime_ms = file.mtime.seconds.saturating_mul(1000).saturating_add(i64::from(file.mtime.nanos / 1_000_000));
        Self {
            row: VersionRow::from(version),
            host: record.host.to_string(),
            base: known(record.base),
            supersedes: known(record.supersedes),
            block_size_bytes: block_size.bytes_u64(),
            allocated_bytes: allocated_blocks * block_size.bytes_u64(),
            root: root.to_string(),
            mode: format!("{:04o}", file.mode),
            owner: file.uid,
            group: file.gid,
            mtime: Stamp::from_millis(mtime_ms).to_millis_text(),
            stats: record.stats,
            scrub: None,
        }
    }
}

/// Which versions to list. Everything said must hold.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Of this name, or of names in this directory.
    pub name: Option<Name>,
    /// With all of these tags.
    pub tags: Vec<String>,
    /// Only those past their time of expiry.
    pub expired: bool,
    /// Only those that are not valid.
    pub invalid: bool,
}

impl Filter {
    /// Whether a name is meant.
    pub fn is_named(&self, name: &Name) -> bool {
        let below = |wanted: &Name| {
            let rest = name.as_str().strip_prefix(wanted.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        self.name.as_ref().is_none_or(below)
    }

    /// Whether a version is meant.
    pub fn matches(&self, attributes: &Attributes, now: Stamp) -> bool {
        self.is_named(&attributes.name)
            && self.tags.iter().all(|tag| attributes.tags.contains(tag))
            && (!self.expired || attributes.expire.is_some_and(|expire| expire <= now))
            && (!self.invalid || attributes.validity != Validity::Valid)
    }
}

/// Versions, oldest first.
///
/// # Errors
/// When the catalog fails.
pub fn list(repo: &Repository, filter: &Filter) -> Result<Vec<VersionSummary>, OpsError> {
    let now = repo.clock().now();
    let mut versions = repo.catalog().version_summaries().map_err(RepoError::from)?;
    versions.retain(|version| filter.matches(&version.attributes, now));
    Ok(versions)
}

/// The versions of every name, oldest first, as far as schedules and keep rules care.
///
/// # Errors
/// When the catalog fails.
pub fn histories(repo: &Repository) -> Result<BTreeMap<Name, Vec<Made>>, RepoError> {
    let mut histories: BTreeMap<Name, Vec<Made>> = BTreeMap::new();
    for version in repo.catalog().version_summaries()? {
        histories.entry(version.attributes.name.clone()).or_default().push(Made::from(&version));
    }
    Ok(histories)
}

/// The versions of one name, oldest first.
///
/// # Errors
/// When the catalog fails.
pub fn history(repo: &Repository, name: &Name) -> Result<Vec<Made>, RepoError> {
    let mut history = Vec::new();
    for (_, uid) in repo.catalog().versions_of(name)? {
        // One that went meanwhile is no part of it.
        history.extend(repo.catalog().version_summary(uid)?.as_ref().map(Made::from));
    }
    Ok(history)
}
