//! Restoring to a logical volume: a new one is called `NAME.backyfs-part` until it is whole, one that exists is written in place.

use crate::source::SourceError;
use crate::source::destination::{Consent, Destination, Holes, Manner, Start};
use crate::source::file_destination::{self, FileDestination, PART_SUFFIX};
use crate::source::lvm::LvmVolume;
use crate::source::lvm::tools::{self, Lv, run};
use crate::words::attribute::FileAttributes;
use parking_lot::Mutex;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

/// See the module.
pub struct LvmDestination {
    volume: LvmVolume,
    device: FileDestination,
    /// Under which name it is written, when that is not its own.
    part: Option<String>,
    is_named: AtomicBool,
    fresh: bool,
    size: Mutex<Size>,
}

/// Whoever writes without knowing how much it will be makes it larger with every write, and each change of size is a command that
/// writes the metadata of the group anew. So it grows in steps, and what is too much goes at the end.
struct Size {
    wanted: u64,
    made: u64,
}

/// See [`Size`]. Of a thin volume a step takes no space.
const STEP_BYTES: u64 = 1 << 30;
const STEP_BYTES_THIN: u64 = 64 << 30;

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
            return Self::with(volume, &lv, None, manner.size_bytes);
        }
        match (tools::volume(group, &part)?, manner.start, manner.consent) {
            (Some(_), Start::Anew, Consent::None) => {
                return Err(SourceError::Unfinished { path: format!("{}/{part}", volume.group.group).into() });
            }
            (Some(lv), Start::Resume, _) => {
                let made = Self::with(volume, &lv, Some(part), 0)?;
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
        let failed = |source| SourceError::Destination { what: volume.path_of(&part), action: "found", source };
        let lv = tools::volume(group, &part)?.ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
        let made = Self::with(volume, &lv, Some(part), manner.size_bytes)?;
        // What a thick one held before shows through, and of a thin one where its pool does not zero.
        Ok(Self { fresh: lv.begins_as_zeros(), ..made })
    }

    /// `needed_bytes` are there already, or it is refused.
    fn with(volume: &LvmVolume, lv: &Lv, part: Option<String>, needed_bytes: u64) -> Result<Self, SourceError> {
        let plan = file_destination::plan(&volume.device_of(&lv.name), needed_bytes, Consent::Force, Start::Anew)?;
        let device = plan.execute(Holes::Keep)?;
        let is_named = AtomicBool::new(part.is_none());
        let size = Mutex::new(Size { wanted: needed_bytes, made: lv.size_bytes() });
        Ok(Self { volume: volume.clone(), device, part, is_named, fresh: false, size })
    }

    /// Makes the unfinished one at least so large, with room for more where there is room.
    fn extend(&self, part: &str, size_bytes: u64) -> Result<u64, SourceError> {
        let extend = |bytes: u64| {
            let size = format!("{}b", bytes.next_multiple_of(512));
            run("lvextend", &["--size", &size, &self.volume.path_of(part)])
        };
        let step = if self.volume.group.thin_pool.is_some() { STEP_BYTES_THIN } else { STEP_BYTES };
        let roomy = size_bytes.checked_next_multiple_of(step).unwrap_or(size_bytes);
        if extend(roomy).is_err() {
            extend(size_bytes)?;
        }
        Ok(tools::volume(&self.volume.group.group, part)?.map_or(size_bytes, |lv| lv.size_bytes()))
    }

    /// Gives back what was too much. One that is larger than its image is none the worse, so this may fail.
    fn cut(&self, part: &str, wanted: u64) -> Result<(), SourceError> {
        let Some(lv) = tools::volume(&self.volume.group.group, part)? else { return Ok(()) };
        let bytes = lv.whole_extents(wanted);
        if lv.size_bytes() <= bytes {
            return Ok(());
        }
        run("lvreduce", &["--yes", "--force", "--size", &format!("{bytes}b"), &self.volume.path_of(part)]).map(drop)
    }
}

impl Destination for LvmDestination {
    fn is_fresh(&self) -> bool {
        self.fresh
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
        let mut size = self.size.lock();
        if size_bytes > size.made {
            size.made = self.extend(part, size_bytes)?;
        } else if size_bytes < size.wanted && self.fresh {
            // What is cut off must be zero when it comes back.
            self.device.zero(&(size_bytes..size.wanted))?;
        }
        size.wanted = size_bytes;
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
            if let Err(error) = self.cut(part, self.size.lock().wanted) {
                tracing::warn!("{} stays larger than its image: {error}", self.volume);
            }
            run("lvrename", &[&self.volume.group.group, part, &self.volume.volume])?;
            self.is_named.store(true, Ordering::Relaxed);
        }
        Ok(self.volume.to_string())
    }
}
