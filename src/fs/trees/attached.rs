//! Whether a loop device stands on a file of ours (sysfs-block-loop). Only /sys is read: a daemon must not look at its own
//! mount.

use crate::words::ids::Uid;
use std::fs;
use std::path::Path;

/// Whether a loop device is backed by `data` of a version.
pub(super) fn is_attached(uid: Uid) -> bool {
    is_attached_in(Path::new("/sys/block"), uid)
}

fn is_attached_in(block_devices: &Path, uid: Uid) -> bool {
    let Ok(devices) = fs::read_dir(block_devices) else { return false };
    let end = format!("by_version/{uid}/data");
    devices.flatten().any(|device| {
        let file = fs::read_to_string(device.path().join("loop/backing_file"));
        file.is_ok_and(|path| path.trim_end().ends_with(&end))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_found_by_the_path_below_it() {
        let dir = tempfile::tempdir().unwrap();
        let other = Uid::from_bytes([7; 16]);
        assert!(!is_attached_in(&dir.path().join("none"), Uid::NIL));
        for device in ["loop0", "loop1", "sda"] {
            fs::create_dir_all(dir.path().join(device).join("loop")).unwrap();
        }
        assert!(!is_attached_in(dir.path(), Uid::NIL));
        let line = format!("/mnt/backups/by_version/{other}/data\n");
        fs::write(dir.path().join("loop1/loop/backing_file"), line).unwrap();
        assert!(is_attached_in(dir.path(), other) && !is_attached_in(dir.path(), Uid::NIL));
    }
}
