//! Who this host is: an id that stands in the records it writes.
//!
//! It lies in a file of its own beside the catalog, because it must outlive that: a host that lost its catalog, or discarded it
//! because it was damaged, still knows its drafts and pins by their host. Made once, before anything is written under it.

use crate::words::ids::HostId;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

const FILE_NAME: &str = "host";

/// The id in a state directory; `fresh` when there is none yet.
///
/// # Errors
/// When the file cannot be read or made, or holds no id.
pub(super) fn identity(state_dir: &Path, fresh: HostId) -> io::Result<HostId> {
    let path = state_dir.join(FILE_NAME);
    if let Some(known) = read(&path)? {
        return Ok(known);
    }
    let mut file = tempfile_in(state_dir)?;
    file.1.write_all(format!("{fresh}\n").as_bytes())?;
    file.1.sync_all()?;
    // A link never replaces: of two processes that come at once the first one names the host.
    let linked = fs::hard_link(&file.0, &path);
    fs::remove_file(&file.0)?;
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => File::open(state_dir)?.sync_all()?,
    }
    read(&path)?.ok_or_else(|| io::Error::other("the id of this host vanished while it was made"))
}

fn read(path: &Path) -> io::Result<Option<HostId>> {
    match fs::read_to_string(path) {
        Ok(text) => {
            let broken = |error| io::Error::other(format!("{}: {error}", path.display()));
            text.trim_end().parse().map(Some).map_err(broken)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn tempfile_in(dir: &Path) -> io::Result<(std::path::PathBuf, File)> {
    let path = dir.join(format!("{FILE_NAME}.{}", std::process::id()));
    let file = File::options().write(true).create(true).truncate(true).open(&path)?;
    Ok((path, file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_id_stands() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (HostId::from_bytes([1; 16]), HostId::from_bytes([2; 16]));
        assert_eq!(identity(dir.path(), first).unwrap(), first);
        assert_eq!(identity(dir.path(), second).unwrap(), first);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        fs::write(dir.path().join(FILE_NAME), "nonsense\n").unwrap();
        assert!(identity(dir.path(), second).is_err());
    }
}
