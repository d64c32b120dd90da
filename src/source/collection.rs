//! Many volumes under one name, as the configuration has them: a directory of images, a pool, a volume group.

use crate::source::error::SourceError;
use crate::source::file::{FileSource, Looked};
use crate::source::file_destination::PART_SUFFIX;
use crate::source::lvm::{self, Group, LvmVolume};
use crate::source::rbd::{self, Pool, RbdImage};
use crate::source::recipe::Recipe;
use std::io;
use std::path::{Path, PathBuf};

/// See the module. Paths in it are relative, with `/` between their parts; the collection itself is `""`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Collection {
    /// A directory of image files; or a single file or block device, which stands in it under its own name.
    File {
        /// Absolute.
        root: PathBuf,
    },
    /// The images of a pool of a Ceph cluster, or of a namespace in it.
    Rbd(Pool),
    /// The volumes of a volume group.
    Lvm(Group),
}

/// What a path in a collection leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ItemKind {
    /// More of them.
    Directory,
    /// Something to back up.
    Volume,
}

impl Collection {
    /// The keys and values that configure it.
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::File { root } => vec![("kind", "file".into()), ("path", root.to_string_lossy().into_owned())],
            Self::Lvm(Group { group, snapshot_size, snapshot_prefix, thin_pool }) => {
                let mut settings = vec![("kind", "lvm".into()), ("group", group.clone())];
                settings.extend(snapshot_size.as_ref().map(|size| ("snapshot-size", size.clone())));
                settings.extend(prefix_of(snapshot_prefix));
                settings.extend(thin_pool.as_ref().map(|pool| ("thin-pool", pool.clone())));
                settings
            }
            Self::Rbd(Pool { conf, user, pool, namespace, snapshot_prefix }) => {
                let mut settings = vec![("kind", "rbd".into()), ("pool", pool.clone())];
                settings.extend((!namespace.is_empty()).then(|| ("namespace", namespace.clone())));
                settings.extend(conf.as_ref().map(|conf| ("conf", conf.to_string_lossy().into_owned())));
                settings.extend(user.as_ref().map(|user| ("user", user.clone())));
                settings.extend(prefix_of(snapshot_prefix));
                settings
            }
        }
    }

    /// Whether a look at it may wait for a machine that does not answer.
    pub const fn may_hang(&self) -> bool {
        match self {
            Self::File { .. } => false,
            // A command for each look, and a group whose disks hang.
            Self::Rbd(_) | Self::Lvm(_) => true,
        }
    }

    /// What a directory holds, in no order.
    ///
    /// # Errors
    /// When it cannot be listed.
    pub fn list(&self, dir: &str) -> Result<Vec<(String, ItemKind)>, SourceError> {
        match self {
            Self::File { root } => list_files(root, dir).map_err(failed(&root.join(dir))),
            Self::Lvm(group) => {
                let volumes = lvm::list(group)?.into_iter();
                Ok(volumes.filter(|_| dir.is_empty()).map(|volume| (volume, ItemKind::Volume)).collect())
            }
            Self::Rbd(pool) => {
                let images = rbd::list(pool)?.into_iter();
                Ok(images.filter(|_| dir.is_empty()).map(|image| (image, ItemKind::Volume)).collect())
            }
        }
    }

    /// What a path leads to; `None` when there is nothing.
    ///
    /// # Errors
    /// When that cannot be found out.
    pub fn find(&self, path: &str) -> Result<Option<ItemKind>, SourceError> {
        match self {
            Self::File { root } => find_file(root, path).map_err(failed(&root.join(path))),
            Self::Rbd(_) | Self::Lvm(_) if path.is_empty() => Ok(Some(ItemKind::Directory)),
            Self::Rbd(_) | Self::Lvm(_) if path.contains('/') || path.ends_with(PART_SUFFIX) => Ok(None),
            Self::Lvm(group) => lvm::find(&volume_in(group, path)),
            Self::Rbd(pool) => rbd::find(&image_in(pool, path)),
        }
    }

    /// Size and attributes of a volume as it is now, without opening it.
    ///
    /// # Errors
    /// When there is none.
    pub fn look(&self, path: &str) -> Result<Looked, SourceError> {
        match self {
            Self::File { root } => FileSource::look(&file_path(root, path)),
            Self::Lvm(group) => lvm::look(&volume_in(group, path)),
            Self::Rbd(pool) => rbd::look(&image_in(pool, path)),
        }
    }

    /// How to get to a volume, which need not exist.
    pub fn recipe(&self, path: &str) -> Recipe {
        match self {
            Self::File { root } => Recipe::File { path: file_path(root, path) },
            Self::Lvm(group) => Recipe::Lvm(volume_in(group, path)),
            Self::Rbd(pool) => Recipe::Rbd(image_in(pool, path)),
        }
    }
}

fn prefix_of(prefix: &str) -> Option<(&'static str, String)> {
    (!prefix.is_empty()).then(|| ("snapshot-prefix", prefix.to_owned()))
}

fn volume_in(group: &Group, path: &str) -> LvmVolume {
    LvmVolume { group: group.clone(), volume: path.to_owned() }
}

/// `image` or `image@snapshot`.
fn image_in(pool: &Pool, path: &str) -> RbdImage {
    let (image, snapshot) = match path.split_once('@') {
        Some((image, snapshot)) => (image, Some(snapshot.to_owned())),
        None => (path, None),
    };
    RbdImage { pool: pool.clone(), image: image.to_owned(), snapshot }
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> SourceError {
    let what = path.display().to_string();
    move |source| SourceError::Open { what, source }
}

/// A single file stands in its collection under its own name.
fn file_path(root: &Path, path: &str) -> PathBuf {
    if root.is_dir() { root.join(path) } else { root.with_file_name(path) }
}

fn kind_of(path: &Path) -> io::Result<Option<ItemKind>> {
    use std::os::unix::fs::FileTypeExt;
    // A link is what it leads to: device mapper's names are links.
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => Ok(Some(ItemKind::Directory)),
        Ok(metadata) if metadata.is_file() || metadata.file_type().is_block_device() => Ok(Some(ItemKind::Volume)),
        Ok(_) => Ok(None),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(error),
    }
}

fn find_file(root: &Path, path: &str) -> io::Result<Option<ItemKind>> {
    let own_name = root.file_name().is_some_and(|name| name == path);
    match kind_of(root)? {
        _ if path.ends_with(PART_SUFFIX) => Ok(None),
        Some(ItemKind::Directory) => kind_of(&root.join(path)),
        Some(ItemKind::Volume) if path.is_empty() => Ok(Some(ItemKind::Directory)),
        Some(ItemKind::Volume) if own_name => Ok(Some(ItemKind::Volume)),
        _ => Ok(None),
    }
}

fn list_files(root: &Path, dir: &str) -> io::Result<Vec<(String, ItemKind)>> {
    if kind_of(root)? == Some(ItemKind::Volume) {
        let name = root.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        return Ok(vec![(name, ItemKind::Volume)]);
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(root.join(dir))? {
        let entry = entry?;
        // Other names cannot be typed here, nor become names of backups.
        let Ok(name) = entry.file_name().into_string() else { continue };
        if name.ends_with(PART_SUFFIX) {
            continue;
        }
        // One that cannot be looked at, or vanished meanwhile, does not hide the others.
        if let Ok(Some(kind)) = kind_of(&entry.path()) {
            found.push((name, kind));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_of_images_and_a_single_one() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("host")).unwrap();
        std::fs::write(dir.path().join("host/vm"), [1; 5000]).unwrap();
        std::fs::write(dir.path().join(format!("host/x{PART_SUFFIX}")), []).unwrap();
        std::os::unix::fs::symlink("/dev/null", dir.path().join("null")).unwrap();
        let all = Collection::File { root: dir.path().to_owned() };
        assert_eq!(all.list("").unwrap(), [("host".to_owned(), ItemKind::Directory)]);
        assert_eq!(all.list("host").unwrap(), [("vm".to_owned(), ItemKind::Volume)]);
        assert_eq!(all.find("").unwrap(), Some(ItemKind::Directory));
        assert_eq!(all.find("host/vm").unwrap(), Some(ItemKind::Volume));
        assert_eq!((all.find("null").unwrap(), all.find("host/vm/x").unwrap()), (None, None));
        assert_eq!(all.look("host/vm").unwrap().size_bytes, 5000);

        let one = Collection::File { root: dir.path().join("host/vm") };
        assert_eq!(one.list("").unwrap(), [("vm".to_owned(), ItemKind::Volume)]);
        assert_eq!(
            (one.find("").unwrap(), one.find("vm").unwrap()),
            (Some(ItemKind::Directory), Some(ItemKind::Volume))
        );
        assert_eq!(one.find("other").unwrap(), None);
        assert_eq!(one.recipe("vm"), all.recipe("host/vm"));
    }
}
