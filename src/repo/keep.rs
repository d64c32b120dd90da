//! Copies of the header and the key rings in the state directory: with them and a key slot everything else can be read, so that
//! losing a few bytes of the target does not lose all of it. They are sealed as on the target; key slots are not kept, since a
//! slot that was removed must not live on.

use crate::format::layout::{self, Object, ObjectKey};
use crate::words::ids::SlotId;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

const DIRECTORY: &str = "keep";
const OPENED_BY: &str = "opened-by";

fn path(state_dir: &Path, key: &ObjectKey) -> PathBuf {
    state_dir.join(DIRECTORY).join(key.as_str().replace('/', "."))
}

/// The copy of an object.
pub fn read(state_dir: &Path, key: &ObjectKey) -> Option<Vec<u8>> {
    fs::read(path(state_dir, key)).ok()
}

/// Every kept key ring.
pub fn rings(state_dir: &Path) -> Vec<Vec<u8>> {
    let prefix = layout::KEYS.replace('/', ".");
    let Ok(entries) = fs::read_dir(state_dir.join(DIRECTORY)) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.retain(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&prefix)));
    paths.sort();
    paths.iter().filter_map(|path| fs::read(path).ok()).collect()
}

/// Keeps objects that were just read and found good. A copy that is there stays; that none can be made harms nothing now.
pub fn keep(state_dir: &Path, objects: &[(Object, &[u8])]) {
    for (object, bytes) in objects {
        let path = path(state_dir, &object.key());
        if fs::metadata(&path).is_ok_and(|metadata| metadata.len() == bytes.len() as u64) {
            continue;
        }
        if let Err(error) = write(&path, bytes) {
            tracing::warn!("no copy of {} is kept here: {error}", object.key());
        }
    }
}

/// The slot that opened the repository last: only its name, which is no secret and opens nothing.
pub(super) fn opened_by(state_dir: &Path) -> Option<SlotId> {
    fs::read_to_string(state_dir.join(DIRECTORY).join(OPENED_BY)).ok()?.trim_end().parse().ok()
}

/// Notes it. That it cannot be noted costs a few requests the next time.
pub(super) fn note_opened_by(state_dir: &Path, slot: SlotId) {
    if opened_by(state_dir) != Some(slot)
        && let Err(error) = write(&state_dir.join(DIRECTORY).join(OPENED_BY), format!("{slot}\n").as_bytes())
    {
        tracing::debug!("which slot opens the repository is not noted: {error}");
    }
}

fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(directory)?;
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}
