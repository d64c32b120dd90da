//! The state of a repository in a few numbers.

use crate::ops::OpsError;
use crate::repo::{RepoError, Repository};
use crate::words::attribute::Validity;
use crate::words::record::{RecordKind, Verdict};
use serde::Serialize;

/// What `status` shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Status {
    pub repository: String,
    pub target: String,
    pub created: String,
    pub block_size_bytes: u64,
    pub zstd_level: i32,
    pub pack_size_bytes: u64,
    pub target_total_bytes: u64,
    pub target_free_bytes: u64,
    pub packs: u64,
    pub packs_bytes: u64,
    pub names: u64,
    pub versions: u64,
    /// Versions that are damaged.
    pub invalid: u64,
    /// Versions whose writer failed.
    pub incomplete: u64,
    /// Blocks that this host found to be damaged.
    pub damaged_blocks: u64,
    pub drafts: Vec<DraftRow>,
    pub overlays: Vec<OverlayRow>,
    /// Versions that processes of this host have open or restore.
    pub readers: Vec<ReaderRow>,
    /// What other hosts hold, for overlays and for restores.
    pub foreign_pins: Vec<PinRow>,
    pub state_dir: String,
    pub catalog_bytes: u64,
    pub host: String,
}

/// Something unfinished in incoming/.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct DraftRow {
    pub uid: String,
    pub name: String,
    /// The host that writes it.
    pub host: String,
    pub size_bytes: u64,
    /// When it was last made durable.
    pub written: String,
    /// Why it is not whole.
    pub broken: Option<String>,
}

/// Local changes to a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct OverlayRow {
    pub uid: String,
    /// Name of the version; `None` when another host removed it.
    pub name: Option<String>,
    /// Bytes on the local disk.
    pub local_bytes: u64,
}

/// A version that is being read on this host: it is not deleted meanwhile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct ReaderRow {
    pub uid: String,
    pub name: String,
}

/// A version that another host holds: its blocks stay, even when it is removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct PinRow {
    pub version: String,
    /// Name of the version when it was pinned.
    pub name: String,
    /// Whether it was removed since.
    pub removed: bool,
    pub host: String,
    pub since: String,
}

/// Looks.
///
/// # Errors
/// When target or catalog fail.
pub fn status(repo: &Repository) -> Result<Status, OpsError> {
    let catalog = repo.catalog();
    let versions = catalog.version_summaries().map_err(RepoError::from)?;
    let count = |matches: fn(&Validity) -> bool| {
        versions.iter().filter(|version| matches(&version.attributes.validity)).count() as u64
    };
    let packs = catalog.packs().map_err(RepoError::from)?;
    let live = || packs.iter().filter(|pack| !pack.condemned);
    let space = repo.space()?;
    let header = repo.header();
    Ok(Status {
        repository: repo.id().to_string(),
        target: repo.target().describe(),
        created: header.created.to_seconds_text(),
        block_size_bytes: header.block_size.bytes_u64(),
        zstd_level: header.zstd_level,
        pack_size_bytes: header.pack_size_bytes,
        target_total_bytes: space.total_bytes,
        target_free_bytes: space.free_bytes,
        packs: live().count() as u64,
        packs_bytes: live().map(|pack| pack.size_bytes).sum(),
        names: catalog.names().map_err(RepoError::from)?.len() as u64,
        versions: versions.len() as u64,
        invalid: count(|validity| matches!(validity, Validity::Invalid(_))),
        incomplete: count(|validity| matches!(validity, Validity::Incomplete(_))),
        damaged_blocks: catalog.damaged().map_err(RepoError::from)?.len() as u64,
        drafts: drafts(repo)?,
        overlays: overlays(repo)?,
        readers: readers(repo)?,
        foreign_pins: foreign_pins(repo)?,
        state_dir: repo.state_dir().display().to_string(),
        catalog_bytes: catalog.size_bytes().map_err(RepoError::from)?.0,
        host: repo.host().to_string(),
    })
}

fn readers(repo: &Repository) -> Result<Vec<ReaderRow>, OpsError> {
    let mut rows = Vec::new();
    for uid in repo.versions_being_read()? {
        if let Some(version) = repo.catalog().version_summary(uid).map_err(RepoError::from)? {
            rows.push(ReaderRow { uid: uid.to_string(), name: version.attributes.name.to_string() });
        }
    }
    Ok(rows)
}

fn foreign_pins(repo: &Repository) -> Result<Vec<PinRow>, OpsError> {
    let pins = crate::ops::overlays::foreign_pins(repo)?.into_iter();
    Ok(pins
        .map(|pin| PinRow {
            version: pin.base.to_string(),
            name: pin.attributes.name.to_string(),
            removed: repo.version(pin.base).is_err(),
            host: pin.host.to_string(),
            since: pin.created.to_seconds_text(),
        })
        .collect())
}

fn drafts(repo: &Repository) -> Result<Vec<DraftRow>, OpsError> {
    let records = repo.catalog().records(RecordKind::Draft).map_err(RepoError::from)?;
    let confirmed = records.into_iter().filter(|(_, verdict)| *verdict == Verdict::Confirmed);
    Ok(confirmed
        .map(|(record, _)| DraftRow {
            uid: record.uid.to_string(),
            host: record.host.to_string(),
            name: record.attributes.name.to_string(),
            size_bytes: record.image.size_bytes,
            written: record.created.to_seconds_text(),
            broken: record.broken.map(|broken| format!("{} (at offset {})", broken.reason, broken.at)),
        })
        .collect())
}

fn overlays(repo: &Repository) -> Result<Vec<OverlayRow>, OpsError> {
    let directory = crate::ops::overlays::directory(repo);
    let found = crate::image::overlay::OverlayFile::list(&directory).map_err(|source| OpsError::Destination {
        path: directory,
        action: "listed",
        source,
    })?;
    Ok(found
        .into_iter()
        .map(|(uid, local_bytes)| OverlayRow {
            uid: uid.to_string(),
            name: repo.version(uid).ok().map(|version| version.attributes.name.to_string()),
            local_bytes,
        })
        .collect())
}
