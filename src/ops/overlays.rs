//! The overlays of this host: where they lie, and the pins on the target that keep what is below them readable, whatever
//! other hosts delete.
//!
//! Order: an (empty) overlay is made, then its pin published, then the first write acknowledged. The other way round on the
//! way out: the overlay goes, then its pin. So a pin of this host without an overlay means nothing and may go at any time, unless a
//! reader holds it (`reading`); an overlay without a pin holds nothing acknowledged, or is about to go.

use crate::catalog::VersionSummary;
use crate::image::overlay::OverlayFile;
use crate::repo::{RepoError, Repository};
use crate::words::attribute::Attributes;
use crate::words::clock::ClockExt;
use crate::words::ids::{DraftId, Uid};
use crate::words::record::{ImageRef, Record, RecordKind, Stats, Verdict};
use std::collections::HashSet;
use std::path::PathBuf;

/// What a pin keeps.
#[derive(Debug, Clone)]
pub struct Pinned {
    /// The version it is, or nil.
    pub version: Uid,
    /// Its image.
    pub image: ImageRef,
    /// Its name and the like, for people.
    pub attributes: Attributes,
}

impl From<&VersionSummary> for Pinned {
    fn from(version: &VersionSummary) -> Self {
        Self { version: version.uid, image: version.image, attributes: version.attributes.clone() }
    }
}

/// The directory of this host's overlays of a repository.
pub fn directory(repo: &Repository) -> PathBuf {
    repo.state_dir().join("overlays")
}

/// Whether this host holds an overlay of a version. When that cannot be told, it does.
pub fn exists(repo: &Repository, uid: Uid) -> bool {
    OverlayFile::exists(&directory(repo), uid).unwrap_or_else(|error| {
        tracing::error!("{error}");
        true
    })
}

/// The confirmed pins of this host for a version.
///
/// # Errors
/// When the catalog fails.
pub fn pins_of(repo: &Repository, version: Uid) -> Result<Vec<Record>, RepoError> {
    Ok(own_pins(repo)?.into_iter().filter(|pin| pin.base == version).collect())
}

/// All confirmed pins of this host.
///
/// # Errors
/// When the catalog fails.
pub fn own_pins(repo: &Repository) -> Result<Vec<Record>, RepoError> {
    let pins = repo.catalog().records(RecordKind::Pin)?.into_iter();
    let own = pins.filter(|(pin, verdict)| pin.host == repo.host() && *verdict == Verdict::Confirmed);
    Ok(own.map(|(pin, _)| pin).collect())
}

/// All confirmed pins of other hosts.
///
/// # Errors
/// When the catalog fails.
pub fn foreign_pins(repo: &Repository) -> Result<Vec<Record>, RepoError> {
    let pins = repo.catalog().records(RecordKind::Pin)?.into_iter();
    let foreign = pins.filter(|(pin, verdict)| pin.host != repo.host() && *verdict == Verdict::Confirmed);
    Ok(foreign.map(|(pin, _)| pin).collect())
}

/// Drops the pins that other hosts hold on a version which was removed: its blocks go with the next collection, and overlays of
/// those hosts lose what is below them. Answers how many there were.
///
/// # Errors
/// When target or catalog fail. It can be repeated.
pub fn drop_foreign_pins(repo: &Repository, version: Uid) -> Result<usize, RepoError> {
    let pins: Vec<Record> = foreign_pins(repo)?.into_iter().filter(|pin| pin.base == version).collect();
    pins.iter().try_for_each(|pin| repo.remove_record(RecordKind::Pin, pin.uid))?;
    Ok(pins.len())
}

/// Makes sure that a version is pinned by this host.
///
/// # Errors
/// When the pin could not be published; nothing may be acknowledged then.
pub fn pin(repo: &Repository, version: &VersionSummary) -> Result<(), RepoError> {
    for pin in pins_of(repo, version.uid)? {
        // A reader's pin goes with the reader.
        if !repo.is_being_read(pin.uid)? {
            return Ok(());
        }
    }
    publish_pin(repo, repo.clock().uid(), &Pinned::from(version))
}

/// Pins a version for an overlay that was made just now. A pin that is there already does not count: who looked for stale ones
/// before there was an overlay may be about to remove it.
///
/// # Errors
/// As [`pin`].
pub fn pin_anew(repo: &Repository, version: &VersionSummary) -> Result<(), RepoError> {
    publish_pin(repo, repo.clock().uid(), &Pinned::from(version))
}

/// Publishes a pin.
///
/// # Errors
/// When it could not be published; then there is none.
pub(super) fn publish_pin(repo: &Repository, uid: Uid, what: &Pinned) -> Result<(), RepoError> {
    let record = Record {
        uid,
        kind: RecordKind::Pin,
        created: repo.clock().now(),
        host: repo.host(),
        image: what.image,
        base: what.version,
        supersedes: Uid::NIL,
        draft: DraftId::NIL,
        start: what.image,
        broken: None,
        attributes: what.attributes.clone(),
        stats: Stats::default(),
    };
    repo.publish(&record, &[])
}

/// Removes this host's pins of a version whose overlay is gone.
///
/// # Errors
/// When target or catalog fail. It can be repeated.
pub fn unpin(repo: &Repository, version: Uid) -> Result<(), RepoError> {
    for pin in pins_of(repo, version)? {
        if !repo.is_being_read(pin.uid)? {
            repo.remove_record(RecordKind::Pin, pin.uid)?;
        }
    }
    Ok(())
}

/// Pins what overlays lie on that came with a copy of another host's state directory: the pins they had are that host's, which drops
/// them when it likes. Says how many were pinned.
///
/// # Errors
/// When target or catalog fail. It can be repeated.
pub fn pin_copied(repo: &Repository) -> Result<usize, RepoError> {
    let mut pinned: HashSet<Uid> = own_pins(repo)?.into_iter().map(|pin| pin.base).collect();
    let copied = foreign_pins(repo)?.into_iter().filter(|pin| repo.hosts_before().contains(&pin.host));
    let mut made = 0;
    for pin in copied.filter(|pin| exists(repo, pin.base)) {
        if pinned.insert(pin.base) {
            let now = repo.clock().now();
            let uid = repo.clock().uid_at(now);
            let own = Record { uid, created: now, host: repo.host(), ..pin };
            repo.publish(&own, &[])?;
            made += 1;
        }
    }
    Ok(made)
}

/// Removes pins of this host that a crash has left behind: those without an overlay and without a reader. Says how many there
/// were.
///
/// # Errors
/// When target or catalog fail. It can be repeated.
pub fn drop_stale_pins(repo: &Repository) -> Result<usize, RepoError> {
    let mut dropped = 0;
    for pin in own_pins(repo)? {
        if !exists(repo, pin.base) && !repo.is_being_read(pin.uid)? {
            repo.remove_record(RecordKind::Pin, pin.uid)?;
            dropped += 1;
        }
    }
    Ok(dropped)
}
