//! A version's metadata as JSON: to keep it elsewhere, and to publish it again as long as its blocks are there.

use crate::catalog::Version;
use crate::image::Settled;
use crate::ops::commit::{Publication, publish_version};
use crate::ops::walk::{Found, walk};
use crate::ops::{OpsError, label};
use crate::repo::{RepoError, Repository};
use crate::words::attribute::{Attributes, FileAttributes, Mtime, Validity};
use crate::words::geometry::BlockSize;
use crate::words::ids::{BlockId, Uid};
use crate::words::monitor::Monitor;
use crate::words::name::Name;
use crate::words::record::{ImageRef, Record, Stats};
use crate::words::stamp::Stamp;
use serde::{Deserialize, Serialize};

/// The layout of an export.
const LAYOUT: u32 = 1;

/// An exported version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Export {
    /// Layout of this file.
    pub backyfs_export: u32,
    pub repository: String,
    pub uid: String,
    pub created: String,
    pub host: String,
    pub base: Option<String>,
    pub image: ExportedImage,
    pub attributes: ExportedAttributes,
    /// What making it cost. Exports of before have none.
    #[serde(default)]
    pub stats: Stats,
}

/// An exported image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct ExportedImage {
    pub size_bytes: u64,
    pub block_size_bytes: u64,
    pub root: String,
}

/// Exported attributes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct ExportedAttributes {
    pub name: String,
    pub snapshot_name: String,
    pub tags: Vec<String>,
    pub expire: Option<String>,
    pub protected: bool,
    pub valid: String,
    pub reason: String,
    pub mode: u32,
    pub owner: u32,
    pub group: u32,
    pub mtime_seconds: i64,
    pub mtime_nanos: u32,
}

/// Exports a version.
pub fn export(repo: &Repository, version: &Version) -> Export {
    let Version { record, attributes, .. } = version;
    let file = attributes.file;
    Export {
        backyfs_export: LAYOUT,
        repository: repo.id().to_string(),
        uid: record.uid.to_string(),
        created: record.created.to_millis_text(),
        host: record.host.to_string(),
        base: (!record.base.is_nil()).then(|| record.base.to_string()),
        image: ExportedImage {
            size_bytes: record.image.size_bytes,
            block_size_bytes: record.image.block_size.bytes_u64(),
            root: record.image.root.to_string(),
        },
        attributes: ExportedAttributes {
            name: attributes.name.to_string(),
            snapshot_name: attributes.snapshot_name.clone(),
            tags: attributes.tags.iter().cloned().collect(),
            expire: attributes.expire.map(Stamp::to_millis_text),
            protected: attributes.protected,
            valid: attributes.validity.word().to_owned(),
            reason: attributes.validity.reason().to_owned(),
            mode: file.mode,
            owner: file.uid,
            group: file.gid,
            mtime_seconds: file.mtime.seconds,
            mtime_nanos: file.mtime.nanos,
        },
        stats: record.stats,
    }
}

/// Publishes an exported version again, with its moment. Its uid is new, because one that was deleted stays dead.
///
/// # Errors
/// When the text is no export, belongs to another repository, its version still exists or was imported already, or a block of it is
/// gone.
pub fn import(repo: &Repository, text: &str, file: &str, monitor: &dyn Monitor) -> Result<Record, OpsError> {
    let failed = |problem: String| OpsError::Import { file: file.to_owned(), problem };
    let export: Export = serde_json::from_str(text).map_err(|error| failed(format!("this is no export: {error}")))?;
    if export.backyfs_export != LAYOUT {
        return Err(failed(format!("its layout is {}; this backyfs knows {LAYOUT}", export.backyfs_export)));
    }
    if export.repository != repo.id().to_string() {
        return Err(failed(format!("it belongs to repository {}, this one is {}", export.repository, repo.id())));
    }
    let uid: Uid = export.uid.parse().map_err(|error| failed(format!("{error}")))?;
    if repo.version(uid).is_ok() {
        return Err(failed(format!("version {uid} exists")));
    }
    let now = repo.clock().now();
    let attributes = attributes(&export.attributes, now).map_err(failed)?;
    let created = Stamp::parse(&export.created, now).map_err(|error| failed(error.to_string()))?;
    let versions = repo.catalog().versions_of(&attributes.name).map_err(RepoError::from)?;
    if let Some((_, there)) = versions.iter().find(|(moment, _)| *moment == created) {
        return Err(failed(format!("{} has a version of {} already: {there}", attributes.name, export.created)));
    }
    let image = image(repo, &export.image).map_err(failed)?;
    let image = count_blocks(repo, image, monitor)?;
    let base = export.base.and_then(|base| base.parse().ok()).filter(|base| repo.version(*base).is_ok());
    // One from the future was made by a clock that was wrong; its moment is now.
    let created = Some(created).filter(|created| *created <= now);
    let (base, stats) = (base.unwrap_or(Uid::NIL), export.stats);
    let publication = Publication { base, created, duration_ms: stats.duration_ms, ..Publication::new(attributes) };
    let settled = Settled { image, changes: 0, stats };
    Ok(publish_version(repo, &settled, publication)?)
}

fn attributes(exported: &ExportedAttributes, now: Stamp) -> Result<Attributes, String> {
    let reason = exported.reason.clone();
    Ok(Attributes {
        name: Name::new(&exported.name).map_err(|error| error.to_string())?,
        snapshot_name: exported.snapshot_name.clone(),
        tags: label::parse_tags(&exported.tags).map_err(|error| error.to_string())?,
        expire: exported
            .expire
            .as_deref()
            .map(|text| Stamp::parse(text, now))
            .transpose()
            .map_err(|e| e.to_string())?,
        protected: exported.protected,
        validity: match exported.valid.as_str() {
            "valid" => Validity::Valid,
            "invalid" => Validity::Invalid(reason),
            "incomplete" => Validity::Incomplete(reason),
            other => return Err(format!("{other:?} is no validity")),
        },
        file: FileAttributes {
            mode: exported.mode & 0o7777,
            uid: exported.owner,
            gid: exported.group,
            mtime: Mtime { seconds: exported.mtime_seconds, nanos: exported.mtime_nanos.min(999_999_999) },
        },
    })
}

fn image(repo: &Repository, exported: &ExportedImage) -> Result<ImageRef, String> {
    let block_size = BlockSize::new(exported.block_size_bytes).map_err(|error| error.to_string())?;
    if block_size != repo.block_size() {
        return Err(format!("its blocks have {block_size}, those of the repository {}", repo.block_size()));
    }
    if exported.size_bytes > crate::image::IMAGE_MAX_BYTES {
        return Err(format!("{} bytes are more than an image can have", exported.size_bytes));
    }
    let root: BlockId = exported.root.parse().map_err(|error| format!("{error}"))?;
    Ok(ImageRef { block_size, size_bytes: exported.size_bytes, root, allocated_blocks: 0 })
}

/// Counts the blocks, and sees that all of the map can be read.
fn count_blocks(repo: &Repository, image: ImageRef, monitor: &dyn Monitor) -> Result<ImageRef, OpsError> {
    let mut allocated_blocks = 0;
    walk(repo, &image, &mut |found| match found {
        Found::Block { index, .. } => {
            allocated_blocks += 1;
            monitor.progress(index * image.block_size.bytes_u64(), image.size_bytes);
            Ok(())
        }
        Found::Lost { error, .. } => Err(OpsError::from(error)),
    })?;
    monitor.progress(image.size_bytes, image.size_bytes);
    Ok(ImageRef { allocated_blocks, ..image })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Interrupt;
    use crate::ops::backup::{Backup, backup};
    use crate::repo::testing::{create, small};
    use crate::source::Recipe;
    use crate::words::monitor::{Counter, Silent};
    use std::sync::Mutex;

    struct Told(Mutex<Vec<(u64, u64)>>);

    impl Monitor for Told {
        fn count(&self, _: Counter, _: u64) {}

        fn progress(&self, done: u64, total: u64) {
            self.0.lock().unwrap().push((done, total));
        }
    }

    #[test]
    fn how_far_an_import_is_is_told() {
        let test = create(&small());
        let path = test.dir.path().join("disk");
        let bytes: Vec<u8> = (1..=2000u32).flat_map(|n| n.to_le_bytes().repeat(1024)).collect();
        std::fs::write(&path, &bytes).unwrap();
        let job = Backup::new(Recipe::File { path }, Name::new("vm").unwrap());
        let made = backup(&test.repo, &job, &Silent, &Interrupt::never()).unwrap().record;
        let text = serde_json::to_string(&export(&test.repo, &test.repo.version(made.uid).unwrap())).unwrap();
        test.repo.remove_version(made.uid).unwrap();
        let told = Told(Mutex::default());
        let again = import(&test.repo, &text, "export", &told).unwrap();
        assert_eq!(again.image, made.image);
        let told = told.0.into_inner().unwrap();
        let size = bytes.len() as u64;
        assert!(told.len() == 2001 && told.is_sorted());
        assert_eq!(told.last(), Some(&(size, size)));
    }
}
