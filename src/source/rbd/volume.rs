//! An image by its name: taking its snapshots, removing them, restoring to it; and the images of a pool.

use crate::source::collection::ItemKind;
use crate::source::destination::{Destination, Manner};
use crate::source::file::{FileKind, Looked};
use crate::source::file_destination::PART_SUFFIX;
use crate::source::rbd::cluster::OpenPool;
use crate::source::rbd::destination::RbdDestination;
use crate::source::rbd::image::{Image, Mode};
use crate::source::rbd::opened::RbdSource;
use crate::source::rbd::{Pool, RbdImage};
use crate::source::volume::{Moment, Volume, is_ours};
use crate::source::{Source, SourceError};
use crate::words::attribute::FileAttributes;
use parking_lot::Mutex;
use std::io;
use std::sync::Arc;

/// What an image has instead of an owner and a mode.
const MODE: u32 = 0o600;

struct RbdVolume(RbdImage);

/// The volume of an image. Nothing is opened yet.
///
/// # Errors
/// Never.
pub fn volume(image: &RbdImage) -> Result<Arc<dyn Volume>, SourceError> {
    Ok(Arc::new(RbdVolume(image.clone())))
}

fn is_absent(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ENOENT)
}

impl RbdVolume {
    fn failed(&self) -> impl FnOnce(io::Error) -> SourceError {
        let what = self.0.to_string();
        move |source| SourceError::Open { what, source }
    }

    fn snapshot_failed(&self, action: &str, name: &str) -> impl FnOnce(io::Error) -> SourceError {
        let (what, action) = (self.0.to_string(), format!("{action} snapshot {name}"));
        move |source| SourceError::Snapshot { what, action, source }
    }
}

fn attributes(image: &Image) -> FileAttributes {
    FileAttributes { mode: MODE, uid: 0, gid: 0, mtime: image.modified() }
}

impl Volume for RbdVolume {
    fn describe(&self) -> String {
        self.0.to_string()
    }

    fn takes_snapshots(&self) -> bool {
        self.0.snapshot.is_none()
    }

    fn snapshot_prefix(&self) -> &str {
        &self.0.pool.snapshot_prefix
    }

    fn open(&self, moment: Moment<'_>) -> Result<Arc<dyn Source>, SourceError> {
        let pool = OpenPool::open(&self.0.pool)?;
        let ours = match (&self.0.snapshot, moment) {
            (Some(_), _) => None,
            (None, Moment::Now { name }) => {
                let head = Image::open(&pool, &self.0.image, Mode::Write).map_err(self.failed())?;
                head.take_snapshot(name).map_err(self.snapshot_failed("taking", name))?;
                Some(name.to_owned())
            }
            (None, Moment::Kept { name }) => Some(name.to_owned()),
        };
        let snapshot = ours.as_deref().or(self.0.snapshot.as_deref());
        let image = Image::open(&pool, &self.0.image, Mode::Read { snapshot }).map_err(self.failed())?;
        let size_bytes = image.size_bytes().map_err(self.failed())?;
        let shown =
            image.snapshots().map_err(self.failed())?.into_iter().find(|(_, name)| Some(name.as_str()) == snapshot);
        let shown = shown.ok_or_else(|| self.failed()(io::Error::from_raw_os_error(libc::ENOENT)))?;
        let mut attributes = attributes(&image);
        if ours.is_none() {
            // Another snapshot of the same name is another content, and its time says so.
            attributes.mtime = image.taken(shown.0);
        }
        let (what, name, window) = (self.describe(), self.0.image.clone(), Mutex::default());
        Ok(Arc::new(RbdSource { what, image, size_bytes, attributes, snapshot: ours, pool, name, shown, window }))
    }

    fn remove_snapshot(&self, name: &str) -> Result<(), SourceError> {
        // Whatever else may be called so: nothing that we did not make is removed.
        if !is_ours(name) {
            return Ok(());
        }
        let pool = OpenPool::open(&self.0.pool)?;
        let removed = Image::open(&pool, &self.0.image, Mode::Write).and_then(|image| image.remove_snapshot(name));
        match removed {
            Err(error) if !is_absent(&error) => Err(self.snapshot_failed("removing", name)(error)),
            _ => Ok(()),
        }
    }

    fn destination(&self, manner: &Manner) -> Result<Box<dyn Destination>, SourceError> {
        if self.0.snapshot.is_some() {
            let problem = "a snapshot cannot be written".to_owned();
            return Err(SourceError::DestinationKind { what: self.describe(), problem });
        }
        Ok(Box::new(RbdDestination::open(&self.0, manner)?))
    }
}

/// The images of a pool, in no order; unfinished ones are left out.
///
/// # Errors
/// When the cluster cannot be reached, or there is no such pool.
pub fn list(pool: &Pool) -> Result<Vec<String>, SourceError> {
    let open = OpenPool::open(pool)?;
    let images = open.images().map_err(|source| SourceError::Open { what: pool.to_string(), source })?;
    Ok(images.into_iter().filter(|name| !name.ends_with(PART_SUFFIX)).collect())
}

fn open_head(image: &RbdImage) -> Result<Option<Image>, SourceError> {
    let pool = OpenPool::open(&image.pool)?;
    match Image::open(&pool, &image.image, Mode::Read { snapshot: image.snapshot.as_deref() }) {
        Ok(open) => Ok(Some(open)),
        Err(error) if is_absent(&error) => Ok(None),
        Err(source) => Err(SourceError::Open { what: image.to_string(), source }),
    }
}

/// What an image is, if it is there.
///
/// # Errors
/// When the cluster cannot be reached.
pub fn find(image: &RbdImage) -> Result<Option<ItemKind>, SourceError> {
    Ok(open_head(image)?.map(|_| ItemKind::Volume))
}

/// Size and attributes of an image.
///
/// # Errors
/// When there is none, or the cluster cannot be reached.
pub fn look(image: &RbdImage) -> Result<Looked, SourceError> {
    let failed = |source| SourceError::Open { what: image.to_string(), source };
    let open = open_head(image)?.ok_or_else(|| failed(io::Error::from_raw_os_error(libc::ENOENT)))?;
    let size_bytes = open.size_bytes().map_err(failed)?;
    Ok(Looked { size_bytes, attributes: attributes(&open), kind: FileKind::Device })
}
