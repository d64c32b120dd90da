//! Who keeps a mount busy, for the message that says so.

use crate::fuse::mountinfo;
use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// Longest list a message shows.
const SHOWN_MAX: usize = 8;

/// Processes, loop devices and mounts below a mountpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Holders(BTreeSet<String>);

impl Holders {
    /// Looks through /proc and /sys without touching the mount itself. Other users' processes are seen by root alone.
    pub fn of(dir: &Path) -> Self {
        let mut found = BTreeSet::new();
        for process in numbered_entries(Path::new("/proc")) {
            if holds(&process, dir) {
                let name = fs::read_to_string(process.join("comm")).unwrap_or_default();
                let pid = process.file_name().unwrap_or_default().to_string_lossy().into_owned();
                found.insert(format!("{}[{pid}]", name.trim()));
            }
        }
        for device in fs::read_dir("/sys/block").into_iter().flatten().flatten() {
            let backing = fs::read_to_string(device.path().join("loop/backing_file")).unwrap_or_default();
            if Path::new(backing.trim_end_matches('\n')).starts_with(dir) {
                found.insert(format!("/dev/{}", device.file_name().to_string_lossy()));
            }
        }
        for mount in mountinfo::mounts().unwrap_or_default() {
            if mount.mountpoint != dir && mount.mountpoint.starts_with(dir) {
                found.insert(format!("the mount at {}", mount.mountpoint.display()));
            }
        }
        Self(found)
    }

    /// Their names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

/// ` by dd[12], /dev/loop0`. Who waits in close() has let go of its file, and is found by nobody.
impl fmt::Display for Holders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str(" by nobody who can be seen (a close() may be waiting for the target)");
        }
        let shown: Vec<_> = self.names().take(SHOWN_MAX).collect();
        write!(f, " by {}", shown.join(", "))?;
        match self.0.len().checked_sub(SHOWN_MAX) {
            Some(more @ 1..) => write!(f, " and {more} more"),
            _ => Ok(()),
        }
    }
}

fn numbered_entries(dir: &Path) -> impl Iterator<Item = PathBuf> {
    let numbered =
        |path: &PathBuf| path.file_name().is_some_and(|n| n.as_encoded_bytes().iter().all(u8::is_ascii_digit));
    fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).filter(numbered)
}

/// Working directory, root, program, open files, mappings. Links are read, never followed.
fn holds(process: &Path, dir: &Path) -> bool {
    let inside = |link: PathBuf| fs::read_link(link).is_ok_and(|target| target.starts_with(dir));
    let mapped = || {
        let maps = fs::read(process.join("maps")).unwrap_or_default();
        String::from_utf8_lossy(&maps).lines().any(|line| {
            let path = line.splitn(6, ' ').nth(5).map(str::trim_start);
            path.is_some_and(|path| Path::new(path).starts_with(dir))
        })
    };
    ["cwd", "root", "exe"].iter().any(|link| inside(process.join(link)))
        || numbered_entries(&process.join("fd")).any(inside)
        || mapped()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn a_process_with_its_working_directory_there_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().canonicalize().unwrap();
        assert!(Holders::of(&at).to_string().contains("nobody who can be seen"));
        let mut child = Command::new("cat").stdin(Stdio::piped()).current_dir(&at).spawn().unwrap();
        let said = Holders::of(&at).to_string();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(said, format!(" by cat[{}]", child.id()));
        let file = fs::File::create(at.join("f")).unwrap();
        assert!(Holders::of(&at).to_string().contains(&format!("[{}]", std::process::id())));
        drop(file);
    }
}
