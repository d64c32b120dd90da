//! Restoring to a logical volume: a new one is called `NAME.backyfs-part` until it is whole, one that exists is written in place.

use crate::source::SourceError;
use crate::source::destination::{Consent, Destination, Holes, Manner, Start};
use crate::source::file_destination::{self, FileDestination, PART_SUFFIX};
use crate::source::lvm::LvmVolume;
use crate::source::lvm::tools::{self, run};
use crate::words::attribute::FileAttributes;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// See the module.
pub struct LvmDestination {
    volume: LvmVolume,
    device: FileDestination,
    /// Under which name it is written, when that is not its own.
    part: Option<String>,
    is_named: AtomicBool,
    size_bytes: AtomicU64,
}

impl LvmDestination {
    /// Makes it, or opens it.
    ///
    /// # Errors
    /// When it exists without consent, is too small, in use, or there is no room for it.
    pub fn open(volume: &LvmVolume, manner: &Manner) -> Result<Self, SourceError> {
        let group = volume.group.group.as_str();
        let part = format!("{}{PART_SUFFIX}", volume.volume);
        if let Some(lv) = tools::volume(group, &volume.volume)? {
            if manner.consent == Consent::None {
                return Err(SourceError::Exists { what: volume.to_string() });
            }
            return Self::with(volume, &volume.volume, None, lv.size_bytes(), manner.size_bytes);
        }
        match (tools::volume(group, &part)?, manner.start, manner.consent) {
            (Some(_), Start::Anew, Consent::None) => {
                return Err(SourceError::Unfinished { path: format!("{}/{part}", volume.group.group).into() });
            }
            (Some(lv), Start::Resume, _) => {
                let made = Self::with(volume, &part, Some(part.clone()), lv.size_bytes(), 0)?;
                made.resize(manner.size_bytes)?;
                return Ok(made);
            }
            (Some(_), Start::Anew, Consent::Force) => run("lvremove", &["--yes", &volume.path_of(&part)]).map(drop)?,
            (None, ..) => {}
        }
        // A volume has at least one extent; LVM rounds up to whole ones.
        let size = format!("{}b", manner.size_bytes.max(1).next_multiple_of(512));
        match &volume.group.thin_pool {
            Some(pool) => {
                let pool = volume.path_of(pool);
                run("lvcreate", &["--yes", "--thin", "--virtualsize", &size, "--name", &part, &pool])?;
            }
            None => {
                run("lvcreate", &["--yes", "--wipesignatures", "n", "--size", &size, "--name", &part, group])?;
            }
        }
        let made = tools::volume(group, &part)?.map_or(0, |lv| lv.size_bytes());
        Self::with(volume, &part, Some(part.clone()), made, manner.size_bytes)
    }

    fn with(
        volume: &LvmVolume,
        name: &str,
        part: Option<String>,
        has_bytes: u64,
        needed_bytes: u64,
    ) -> Result<Self, SourceError> {
        let plan = file_destination::plan(&volume.device_of(name), needed_bytes, Consent::Force, Start::Anew)?;
        let device = plan.execute(Holes::Keep)?;
        let (is_named, size_bytes) = (AtomicBool::new(part.is_none()), AtomicU64::new(has_bytes));
        Ok(Self { volume: volume.clone(), device, part, is_named, size_bytes })
    }
}

impl Destination for LvmDestination {
    /// What was there before shows through a new thick volume.
    fn is_fresh(&self) -> bool {
        false
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<(), SourceError> {
        self.device.read(offset, buffer)
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), SourceError> {
        self.device.write(offset, data)
    }

    fn zero(&self, range: &Range<u64>) -> Result<(), SourceError> {
        self.device.zero(range)
    }

    fn resize(&self, size_bytes: u64) -> Result<(), SourceError> {
        let Some(part) = &self.part else { return self.device.resize(size_bytes) };
        if size_bytes > self.size_bytes.load(Ordering::Relaxed) {
            let size = format!("{}b", size_bytes.next_multiple_of(512));
            run("lvextend", &["--size", &size, &self.volume.path_of(part)])?;
            let made = tools::volume(&self.volume.group.group, part)?.map_or(size_bytes, |lv| lv.size_bytes());
            self.size_bytes.store(made, Ordering::Relaxed);
        }
        Ok(())
    }

    fn start_writeback(&self) {
        self.device.start_writeback();
    }

    fn finish(&self, attributes: &FileAttributes) -> Result<String, SourceError> {
        self.device.finish(attributes)?;
        if let Some(part) = &self.part
            && !self.is_named.load(Ordering::Relaxed)
        {
            run("lvrename", &[&self.volume.group.group, part, &self.volume.volume])?;
            self.is_named.store(true, Ordering::Relaxed);
        }
        Ok(self.volume.to_string())
    }
}
