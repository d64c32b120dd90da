//! Logical volumes.
//!
//! Opening one takes a snapshot and reads that. Snapshots of thin volumes are kept by a backup: the next one asks `thin_delta` what
//! has changed since. Those of thick volumes take space for every write to their origin, so they are removed when they are closed.

mod delta;
mod destination;
mod metadata;
#[cfg(test)]
mod tests;
mod tools;

use crate::source::changes::Changes;
use crate::source::collection::ItemKind;
use crate::source::destination::{Destination, Manner};
use crate::source::error::SourceError;
use crate::source::file::{FileSource, Looked};
use crate::source::file_destination::PART_SUFFIX;
use crate::source::lvm::destination::LvmDestination;
use crate::source::lvm::metadata::MetadataView;
use crate::source::lvm::tools::{Lv, mapped, run};
use crate::source::volume::{Moment, Volume, is_ours};
use crate::source::{EachPiece, Extent, Source};
use crate::words::attribute::FileAttributes;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// Space for what is written to a thick volume while its snapshot is read, unless set.
const SNAPSHOT_SIZE_DEFAULT: &str = "10%ORIGIN";

/// A volume group, and how its volumes are treated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Its name.
    pub group: String,
    /// Space for snapshots of thick volumes, as `lvcreate --size` or `--extents` takes it (`2G`, `10%ORIGIN`).
    pub snapshot_size: Option<String>,
    /// What names of snapshots begin with; empty unless set.
    #[serde(default)]
    pub snapshot_prefix: String,
    /// The pool that restored volumes are made in; without one they are thick.
    pub thin_pool: Option<String>,
}

impl Group {
    /// A group with nothing configured.
    pub fn new(group: &str) -> Self {
        Self { group: group.to_owned(), snapshot_size: None, snapshot_prefix: String::new(), thin_pool: None }
    }
}

/// A volume of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LvmVolume {
    /// Where.
    #[serde(flatten)]
    pub group: Group,
    /// Its name.
    pub volume: String,
}

impl std::fmt::Display for LvmVolume {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "lvm:{}/{}", self.group.group, self.volume)
    }
}

impl LvmVolume {
    /// Reads `GROUP/VOLUME`.
    ///
    /// # Errors
    /// When it has other parts.
    pub fn parse(text: &str) -> Result<Self, SourceError> {
        let is_name = |name: &&str| {
            !name.is_empty()
                && !name.starts_with('-')
                && name.chars().all(|c| c.is_ascii_alphanumeric() || "_.+-".contains(c))
        };
        let parts: Vec<&str> = text.split('/').collect();
        match parts[..] {
            [group, volume] if [group, volume].iter().all(is_name) => {
                let group = Group::new(group);
                Ok(Self { group, volume: volume.to_owned() })
            }
            _ => Err(SourceError::Refused(format!("lvm:{text}: write lvm:GROUP/VOLUME"))),
        }
    }

    fn path_of(&self, name: &str) -> String {
        format!("{}/{name}", self.group.group)
    }

    fn device_of(&self, name: &str) -> PathBuf {
        PathBuf::from("/dev/mapper").join(mapped(&self.group.group, name))
    }

    fn lv(&self) -> Result<Lv, SourceError> {
        tools::volume(&self.group.group, &self.volume)?.ok_or_else(|| SourceError::Open {
            what: self.to_string(),
            source: io::Error::from_raw_os_error(libc::ENOENT),
        })
    }

    fn activate(&self, name: &str) -> Result<(), SourceError> {
        run("lvchange", &["--activate", "y", "--ignoreactivationskip", &self.path_of(name)]).map(drop)
    }

    fn take_snapshot(&self, origin: &Lv, name: &str) -> Result<(), SourceError> {
        let from = self.path_of(&self.volume);
        if origin.is_thin() {
            let options = ["--snapshot", "--permission", "r", "--setactivationskip", "n", "--name", name, &from];
            return run("lvcreate", &options).map(drop);
        }
        let size = self.group.snapshot_size.as_deref().unwrap_or(SNAPSHOT_SIZE_DEFAULT);
        let how = if size.contains('%') { "--extents" } else { "--size" };
        run("lvcreate", &["--snapshot", "--permission", "r", how, size, "--name", name, &from]).map(drop)
    }
}

impl Volume for LvmVolume {
    fn describe(&self) -> String {
        self.to_string()
    }

    fn takes_snapshots(&self) -> bool {
        true
    }

    fn snapshot_prefix(&self) -> &str {
        &self.group.snapshot_prefix
    }

    fn open(&self, moment: Moment<'_>) -> Result<Arc<dyn Source>, SourceError> {
        let origin = self.lv()?;
        let name = moment.name();
        match moment {
            Moment::Now { .. } => self.take_snapshot(&origin, name)?,
            Moment::Kept { .. } if tools::volume(&self.group.group, name)?.is_none() => {
                let what = format!("{self}, snapshot {name}");
                return Err(SourceError::Open { what, source: io::Error::from_raw_os_error(libc::ENOENT) });
            }
            Moment::Kept { .. } => self.activate(name)?,
        }
        let device = FileSource::open(&self.device_of(name))?;
        let (volume, snapshot) = (self.clone(), name.to_owned());
        Ok(Arc::new(LvmSource { volume, snapshot, device, is_thin: origin.is_thin() }))
    }

    fn remove_snapshot(&self, name: &str) -> Result<(), SourceError> {
        // Whatever else may be called so: nothing that we did not make is removed.
        if !is_ours(name) || tools::volume(&self.group.group, name)?.is_none() {
            return Ok(());
        }
        run("lvremove", &["--yes", &self.path_of(name)]).map(drop)
    }

    fn destination(&self, manner: &Manner) -> Result<Box<dyn Destination>, SourceError> {
        Ok(Box::new(LvmDestination::open(self, manner)?))
    }
}

/// A snapshot of a volume, open to be read.
struct LvmSource {
    volume: LvmVolume,
    snapshot: String,
    device: FileSource,
    is_thin: bool,
}

impl Source for LvmSource {
    fn describe(&self) -> String {
        self.volume.to_string()
    }

    fn size_bytes(&self) -> u64 {
        self.device.size_bytes()
    }

    fn attributes(&self) -> FileAttributes {
        self.device.attributes()
    }

    fn extent_at(&self, offset: u64) -> Result<Extent, SourceError> {
        self.device.extent_at(offset)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), SourceError> {
        self.device.read_at(offset, buffer)
    }

    fn read_pieces(
        &self,
        offset: u64,
        buffer: &mut [u8],
        piece_bytes: usize,
        each: &mut EachPiece<'_>,
    ) -> Result<(), SourceError> {
        self.device.read_pieces(offset, buffer, piece_bytes, each)
    }

    fn sector_bytes(&self) -> u32 {
        self.device.sector_bytes()
    }

    /// A thick snapshot that ran full reads as errors from then on: that is no bad disk.
    fn check(&self) -> Result<(), SourceError> {
        let now = tools::volume(&self.volume.group.group, &self.snapshot)?;
        if now.is_some_and(|lv| !lv.is_overrun()) {
            return Ok(());
        }
        let full = io::Error::other("it is full or gone: give it more room with snapshot-size");
        let (what, action) = (self.describe(), format!("reading snapshot {}", self.snapshot));
        Err(SourceError::Snapshot { what, action, source: full })
    }

    /// Only thin ones are worth keeping.
    fn snapshot_name(&self) -> Option<&str> {
        self.is_thin.then_some(self.snapshot.as_str())
    }

    fn changes_since(&self, snapshot: &str) -> Result<Option<Changes>, SourceError> {
        let group = &self.volume.group.group;
        let volumes = tools::volumes(group)?;
        let find = |name: &str| volumes.iter().find(|lv| lv.name == name);
        let (Some(before), Some(now)) = (find(snapshot), find(&self.snapshot)) else { return Ok(None) };
        let (Some(old), Some(new)) = (before.thin_id(), now.thin_id()) else { return Ok(None) };
        if before.pool != now.pool {
            return Ok(None);
        }
        for name in [snapshot, &self.snapshot] {
            self.volume.activate(name)?;
            // Where such a volume maps nothing it is not zero but another volume, of which the pool's metadata says nothing.
            if tools::has_external_origin(&run("dmsetup", &["table", &mapped(group, name)])?) {
                return Ok(None);
            }
        }
        // The pool's metadata changes all the time.
        let Some(view) = MetadataView::take(&format!("{}-tpool", mapped(group, &now.pool)))? else { return Ok(None) };
        let metadata = format!("/dev/mapper/{}_tmeta", mapped(group, &now.pool));
        let said = run("thin_delta", &["-m", "--snap1", old, "--snap2", new, &metadata]);
        drop(view);
        let said = said?;
        let strange = |said| SourceError::Tool { program: "thin_delta".into(), said };
        delta::parse(&said, self.size_bytes()).map(Some).map_err(strange)
    }
}

/// The volumes of a group, in no order; those of LVM itself, snapshots of ours and unfinished ones are left out.
///
/// # Errors
/// When there is no such group.
pub fn list(group: &Group) -> Result<Vec<String>, SourceError> {
    let shown = |lv: &Lv| lv.is_plain() && !is_ours(&lv.name) && !lv.name.ends_with(PART_SUFFIX);
    Ok(tools::volumes(&group.group)?.into_iter().filter(shown).map(|lv| lv.name).collect())
}

/// What a volume is, if it is there.
///
/// # Errors
/// When there is no such group.
pub fn find(volume: &LvmVolume) -> Result<Option<ItemKind>, SourceError> {
    Ok(tools::volume(&volume.group.group, &volume.volume)?.map(|_| ItemKind::Volume))
}

/// Size and attributes of a volume.
///
/// # Errors
/// When there is none.
pub fn look(volume: &LvmVolume) -> Result<Looked, SourceError> {
    let lv = volume.lv()?;
    let looked = FileSource::look(&volume.device_of(&volume.volume))?;
    Ok(Looked { size_bytes: lv.size_bytes(), ..looked })
}
