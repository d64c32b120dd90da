//! Whether several hosts may share a directory: whether what this one lists is what the others have written.
//!
//! An NFS client answers listings, and look-ups of names that are not there, from its own memory unless it is mounted with
//! `actimeo=0,lookupcache=none` (nfs(5)). The kernel shows options in the last field of `/proc/self/mountinfo`
//! (proc_pid_mountinfo(5)), where `actimeo=0` appears as four options of its own. Other network filesystems that are known to
//! remember listings have no such promise to make.

use crate::target::Coherence;
use crate::words::mount_table::MountEntry;
use std::path::Path;

/// Network filesystems whose clients remember listings for a while.
const FORGETFUL: &[&str] =
    &["9p", "afs", "cifs", "fuse.davfs", "fuse.glusterfs", "fuse.rclone", "fuse.s3fs", "fuse.sshfs", "smb3", "smbfs"];

/// What can be said of a directory (an absolute path without symbolic links), given the text of `/proc/self/mountinfo`.
pub(super) fn coherence(mountinfo: &[u8], dir: &Path) -> Coherence {
    let mounts = MountEntry::parse_all(mountinfo);
    // The longest path that leads to it, of several at one place the last.
    let above = mounts.filter(|mount| dir.starts_with(&mount.mountpoint));
    let Some(mount) = above.max_by_key(|mount| mount.mountpoint.components().count()) else {
        return Coherence::Doubtful("it is not known on which filesystem it lies".to_owned());
    };
    let at = mount.mountpoint.display();
    if matches!(mount.fs_type.as_str(), "nfs" | "nfs4") {
        let missing = missing_options(&mount.options);
        if missing.is_empty() {
            return Coherence::Certain;
        }
        return Coherence::Doubtful(format!("{at} is mounted by NFS without {}", missing.join(",")));
    }
    if FORGETFUL.contains(&mount.fs_type.as_str()) {
        return Coherence::Doubtful(format!("{at} is of type {}, whose clients remember listings", mount.fs_type));
    }
    Coherence::Certain
}

fn missing_options(options: &[String]) -> Vec<&'static str> {
    let has = |wanted: &str| options.iter().any(|option| option == wanted);
    let no_attributes = has("noac")
        || has("actimeo=0")
        || ["acregmin=0", "acregmax=0", "acdirmin=0", "acdirmax=0"].into_iter().all(has);
    let mut missing = Vec::new();
    if !no_attributes {
        missing.push("actimeo=0");
    }
    if !has("lookupcache=none") {
        missing.push("lookupcache=none");
    }
    missing
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: &str = "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n";
    const ACS: &str = "acregmin=0,acregmax=0,acdirmin=0,acdirmax=0";

    fn nfs(version: &str, options: &str) -> String {
        format!(
            "{ROOT}99 22 0:50 / /mnt/a\\040b rw,noatime shared:9 - {version} server:/x rw,vers=4.2,{options},hard\n"
        )
    }

    #[test]
    fn nfs_needs_both_options_in_whatever_spelling() {
        for (options, missing) in [
            (format!("{ACS},lookupcache=none"), None),
            ("actimeo=0,lookupcache=none".to_owned(), None),
            ("noac,lookupcache=none".to_owned(), None),
            ("rsize=1048576".to_owned(), Some("actimeo=0,lookupcache=none")),
            (ACS.to_owned(), Some("lookupcache=none")),
            ("noac".to_owned(), Some("lookupcache=none")),
            ("noac,lookupcache=pos".to_owned(), Some("lookupcache=none")),
            ("lookupcache=none".to_owned(), Some("actimeo=0")),
            ("acregmin=0,acregmax=0,acdirmin=0,lookupcache=none".to_owned(), Some("actimeo=0")),
            (format!("{},lookupcache=none", ACS.replace("acdirmax=0", "acdirmax=60")), Some("actimeo=0")),
            ("actimeo=05,lookupcache=none".to_owned(), Some("actimeo=0")),
        ] {
            for version in ["nfs", "nfs4"] {
                let table = nfs(version, &options);
                let found = coherence(table.as_bytes(), Path::new("/mnt/a b/repository"));
                let expected = missing.map_or(Coherence::Certain, |missing| {
                    Coherence::Doubtful(format!("/mnt/a b is mounted by NFS without {missing}"))
                });
                assert_eq!(found, expected, "{options}");
                assert_eq!(coherence(table.as_bytes(), Path::new("/mnt/a bc")), Coherence::Certain, "beside it");
            }
        }
    }

    #[test]
    fn the_mount_nearest_to_the_directory_decides() {
        let local = "101 99 8:2 / /mnt/a\\040b/local rw - xfs /dev/sdb rw\n";
        let table = nfs("nfs4", "rsize=1") + local;
        assert_eq!(coherence(table.as_bytes(), Path::new("/mnt/a b/local/r")), Coherence::Certain);
        // Mounted over: what was mounted last is what is seen.
        let over = nfs("nfs4", "rsize=1") + "102 22 8:3 / /mnt/a\\040b rw - xfs /dev/sdc rw\n";
        assert_eq!(coherence(over.as_bytes(), Path::new("/mnt/a b/r")), Coherence::Certain);
    }

    #[test]
    fn other_filesystems() {
        for (fs_type, is_certain) in
            [("ext4", true), ("ceph", true), ("fuseblk", true), ("cifs", false), ("fuse.sshfs", false)]
        {
            let table = format!("{ROOT}99 22 0:50 / /m rw - {fs_type} x rw\n");
            assert_eq!(coherence(table.as_bytes(), Path::new("/m")) == Coherence::Certain, is_certain, "{fs_type}");
        }
        assert!(matches!(coherence(b"", Path::new("/m")), Coherence::Doubtful(_)));
        assert!(matches!(coherence(b"garbage\n22 1 8:1 / /\n", Path::new("/m")), Coherence::Doubtful(_)));
        let here = std::fs::read("/proc/self/mountinfo").unwrap();
        assert_eq!(coherence(&here, Path::new("/proc")), Coherence::Certain);
    }
}
