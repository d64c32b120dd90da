//! What a scrub found, as it is printed, kept and shown. The field names are those of `--json`: scripts rely on them.

use crate::ops::OpsError;
use crate::repo::objects::BadObject;
use crate::repo::{RepoError, Repository};
use crate::words::ids::Uid;
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;

/// Where the report of the last scrub is kept.
const LAST: &str = "scrub/last";

/// Ranges of a version that are listed; more are only counted.
pub const RANGES_MAX: usize = 1000;

/// Bytes of an image that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostRange {
    /// From where.
    pub offset: u64,
    /// How many.
    pub length: u64,
    /// Why.
    pub reason: String,
}

/// A pack that is not what was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DamagedPack {
    /// Its name.
    pub pack: String,
    /// What is wrong.
    pub problem: String,
    /// Blocks of which the copy in it cannot be read.
    pub bad_blocks: u64,
    /// Of these, blocks of which no other copy is known.
    pub lost_blocks: u64,
    /// Whether this scrub was the first to find it so.
    pub is_news: bool,
}

/// How one version was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionFinding {
    /// Which.
    pub uid: String,
    /// Its name.
    pub name: String,
    /// When it was looked at.
    pub at: String,
    /// Blocks and map nodes of it that no scrub of this host has read yet.
    pub unseen_blocks: u64,
    /// Bytes of it that cannot be read.
    pub lost_bytes: u64,
    /// Where they are; at most [`RANGES_MAX`] ranges.
    pub ranges: Vec<LostRange>,
    /// What became of its validity, if that changed.
    pub marked: Option<String>,
}

/// A whole scrub.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct ScrubReport {
    /// What was scrubbed: `all`, a version, a name, and how many percent.
    pub what: String,
    pub started: String,
    /// When it ended; `None` when it was interrupted: the next one goes on from there.
    pub finished: Option<String>,
    /// Packs that could be read for it, and their bytes.
    pub packs: u64,
    pub packs_bytes: u64,
    /// Packs that were read, now or before an interruption.
    pub packs_read: u64,
    pub bytes_read: u64,
    /// Packs that this host never read.
    pub packs_never_read: u64,
    pub damaged_packs: Vec<DamagedPack>,
    /// Packs that could not be read although nothing is known to be wrong with them.
    pub unreadable_packs: Vec<BadPack>,
    /// Packs that no index names: left by a writer that died, or of an index fragment that is lost.
    pub unindexed_packs: u64,
    pub objects_read: u64,
    pub damaged_objects: Vec<BadObject>,
    pub versions: u64,
    /// Versions of which every block was seen good.
    pub versions_good: u64,
    /// Versions with damage, and those whose validity changed.
    pub findings: Vec<VersionFinding>,
}

/// A pack that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct BadPack {
    pub pack: String,
    pub problem: String,
}

impl ScrubReport {
    /// Whether something is wrong that somebody should look at: anything found for the first time, and whatever a version or the
    /// repository lacks now. Copies known to be bad of blocks that are elsewhere are not.
    pub fn is_damage(&self) -> bool {
        self.damaged_packs.iter().any(|pack| pack.is_news)
            || !self.unreadable_packs.is_empty()
            || !self.damaged_objects.is_empty()
            || self.findings.iter().any(|finding| finding.lost_bytes > 0)
    }

    /// For people, a fact or a finding a line.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let ended = self.finished.as_deref().map_or("interrupted".to_owned(), |at| format!("finished {at}"));
        let _ = writeln!(text, "scrub of {}: started {}, {ended}", self.what, self.started);
        let never = match self.packs_never_read {
            0 => String::new(),
            packs => format!(", {packs} were never read"),
        };
        let (read, bytes) = (self.packs_read, self.bytes_read);
        let _ = writeln!(text, "packs: {read} of {} read ({bytes} of {} bytes){never}", self.packs, self.packs_bytes);
        let _ = writeln!(text, "other objects: {} read", self.objects_read);
        let _ = writeln!(text, "versions: {} of {} wholly seen good", self.versions_good, self.versions);
        for pack in &self.damaged_packs {
            let blocks = match (pack.bad_blocks, pack.lost_blocks) {
                (0, _) => "all its blocks can be read".to_owned(),
                (bad, 0) => format!("{bad} blocks are bad, all of them are elsewhere, too"),
                (bad, lost) => format!("{bad} blocks are bad, {lost} of them are nowhere else"),
            };
            let _ = writeln!(text, "damaged: {}: {}; {blocks}", pack.pack, pack.problem);
        }
        for pack in &self.unreadable_packs {
            let _ = writeln!(text, "cannot be read: {}: {}", pack.pack, pack.problem);
        }
        for object in &self.damaged_objects {
            let _ = writeln!(text, "damaged: {}: {}", object.object, object.problem);
        }
        if self.unindexed_packs > 0 {
            let _ =
                writeln!(text, "not in the index: {} packs (`backyfs rebuild` looks into them)", self.unindexed_packs);
        }
        self.findings.iter().for_each(|finding| text.push_str(&finding.text()));
        text
    }
}

impl VersionFinding {
    /// For people: the version, and a line for each range.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let marked = self.marked.as_deref().map(|marked| format!(", now {marked}")).unwrap_or_default();
        let state = match (self.lost_bytes, self.unseen_blocks) {
            (0, 0) => "every block was seen good".to_owned(),
            (0, unseen) => format!("{unseen} blocks were not looked at yet"),
            (lost, _) => format!("{lost} bytes cannot be read"),
        };
        let _ = writeln!(text, "version {} ({}): {state}{marked}", self.uid, self.name);
        for range in &self.ranges {
            let _ = writeln!(text, "  {} bytes at offset {}: {}", range.length, range.offset, range.reason);
        }
        let told: u64 = self.ranges.iter().map(|range| range.length).sum();
        if told < self.lost_bytes {
            let _ = writeln!(
                text,
                "  {} bytes in more places; `backyfs restore --skip-damaged` tells all of them",
                self.lost_bytes - told
            );
        }
        text
    }

    /// In one line, for `show`.
    pub fn summary(&self) -> String {
        match (self.lost_bytes, self.unseen_blocks) {
            (0, 0) => format!("{}: every block was seen good", self.at),
            (0, unseen) => format!("{}: {unseen} blocks were not looked at yet", self.at),
            (lost, _) => format!("{}: {lost} bytes cannot be read", self.at),
        }
    }
}

/// The report of the last scrub on this host.
///
/// # Errors
/// When the catalog fails.
pub fn last(repo: &Repository) -> Result<Option<ScrubReport>, OpsError> {
    let bytes = repo.catalog().get_meta(LAST).map_err(RepoError::from)?;
    Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
}

pub(super) fn keep(repo: &Repository, report: &ScrubReport) -> Result<(), RepoError> {
    let bytes = serde_json::to_vec(report).unwrap_or_default();
    Ok(repo.catalog().set_meta(LAST, &bytes)?)
}

/// How the last scrub that looked at a version found it.
///
/// # Errors
/// When the catalog fails.
pub fn of_version(repo: &Repository, uid: Uid) -> Result<Option<VersionFinding>, OpsError> {
    let text = repo.catalog().finding(uid).map_err(RepoError::from)?;
    Ok(text.and_then(|text| serde_json::from_str(&text).ok()))
}
