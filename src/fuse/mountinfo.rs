//! What is mounted: `/proc/self/mountinfo` (proc_pid_mountinfo(5)). Reading it touches no filesystem, so it is safe with
//! mounts that no longer answer.

use crate::words::mount_table::MountEntry;
use std::fs;
use std::io;
use std::path::Path;

/// All mounts, in the order they were made.
///
/// # Errors
/// When /proc is not mounted.
pub fn mounts() -> io::Result<Vec<MountEntry>> {
    Ok(MountEntry::parse_all(&fs::read("/proc/self/mountinfo")?).collect())
}

/// The uppermost mount at `dir`, an absolute path.
///
/// # Errors
/// As [`mounts`].
pub fn mount_at(dir: &Path) -> io::Result<Option<MountEntry>> {
    Ok(mounts()?.into_iter().rfind(|mount| mount.mountpoint == dir))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_is_mounted() {
        assert!(mount_at(Path::new("/")).unwrap().is_some());
        assert!(mount_at(Path::new("/nowhere at all")).unwrap().is_none());
    }
}
