//! How to get to a volume: what is typed, configured and noted for later, as data.

use crate::source::file::FileVolume;
use crate::source::lvm::LvmVolume;
use crate::source::qemu::QemuVolume;
use crate::source::rbd::{self, RbdImage};
use crate::source::{SourceError, Volume};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// See the module. Texts are `PATH`, `file:PATH`, `rbd:POOL[/NAMESPACE]/IMAGE[@SNAPSHOT]`, `lvm:GROUP/VOLUME`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Recipe {
    /// A file or a block device.
    File {
        /// Absolute.
        path: PathBuf,
    },
    /// An image file of another format than raw, read as the disk it holds.
    Qemu {
        /// Absolute.
        path: PathBuf,
        /// As qemu calls it.
        format: String,
    },
    /// An image of a Ceph cluster.
    Rbd(RbdImage),
    /// A logical volume.
    Lvm(LvmVolume),
}

impl Recipe {
    /// Reads what somebody typed. A relative path is taken from `here`.
    ///
    /// # Errors
    /// When it is none of the forms.
    pub fn parse(text: &str, here: &Path) -> Result<Self, SourceError> {
        if let Some(image) = text.strip_prefix("rbd://").or_else(|| text.strip_prefix("rbd:")) {
            return Ok(Self::Rbd(RbdImage::parse(image)?));
        }
        if let Some(volume) = text.strip_prefix("lvm:") {
            return Ok(Self::Lvm(LvmVolume::parse(volume)?));
        }
        let path = text.strip_prefix("file://").or_else(|| text.strip_prefix("file:")).unwrap_or(text);
        if path.is_empty() {
            return Err(SourceError::Refused("the source has no name".into()));
        }
        Ok(Self::File { path: here.join(path) })
    }

    /// The same as an image of a format; `raw` is what a file is anyway.
    ///
    /// # Errors
    /// When it is no file.
    pub fn of_format(self, format: &str) -> Result<Self, SourceError> {
        match self {
            Self::File { path } if format == "raw" => Ok(Self::File { path }),
            Self::File { path } => Ok(Self::Qemu { path, format: format.to_owned() }),
            other if format == "raw" => Ok(other),
            _ => Err(SourceError::Refused("--format is for files".into())),
        }
    }

    /// The volume. Nothing is opened yet.
    ///
    /// # Errors
    /// When this program was built without what it takes.
    pub fn volume(&self) -> Result<Arc<dyn Volume>, SourceError> {
        match self {
            Self::File { path } => Ok(Arc::new(FileVolume::new(path.clone()))),
            Self::Rbd(image) => rbd::volume(image),
            Self::Lvm(volume) => Ok(Arc::new(volume.clone())),
            Self::Qemu { path, format } => Ok(Arc::new(QemuVolume::new(path.clone(), format.clone()))),
        }
    }
}
