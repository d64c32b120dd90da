//! What a mount stands on: filesystems that hold its target, its state and its keys. One of them may be mounted by the same table at
//! the same moment, and until it is, the directory below its mountpoint is somebody else's.

use crate::fuse::fstab::{self, FSTAB, FstabLine};
use crate::fuse::mountinfo;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fs, thread};

/// Between two looks at the mount table.
const PAUSE: Duration = Duration::from_millis(100);
/// After this it is told what is waited for.
const SILENCE: Duration = Duration::from_secs(1);

/// Something that is needed is not mounted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum GroundError {
    #[error("{path} lies in {mountpoint}, which is not mounted ({FSTAB} line {line}, noauto): mount that first", path = .path.display(), mountpoint = .mountpoint.display())]
    NotMounted { path: PathBuf, mountpoint: PathBuf, line: usize },
    #[error("{path} lies in {mountpoint}, which was not mounted within {patience_s} s ({FSTAB} line {line}): put its line first and see why it fails", path = .path.display(), mountpoint = .mountpoint.display())]
    Late { path: PathBuf, mountpoint: PathBuf, line: usize, patience_s: u64 },
}

/// Waits until the filesystems are mounted that paths will lie in, as fstab says. `say` is told when that takes long.
///
/// # Errors
/// When one is not mounted in time; at once, when nobody is going to mount it.
pub fn await_mounts(paths: &[&Path], patience: Duration, say: &dyn Fn(&str)) -> Result<(), GroundError> {
    let lines = fstab::lines();
    let start = Instant::now();
    for path in paths {
        let real = follow_links(path);
        let Some(line) = fstab::holding(&lines, &real) else { continue };
        await_mount(path, line, start, patience, say)?;
    }
    Ok(())
}

fn await_mount(
    path: &Path,
    line: &FstabLine,
    start: Instant,
    patience: Duration,
    say: &dyn Fn(&str),
) -> Result<(), GroundError> {
    let mut told = false;
    while !is_mounted(&line.mountpoint) {
        let (path, mountpoint) = (path.to_owned(), line.mountpoint.clone());
        if !line.is_automatic() {
            return Err(GroundError::NotMounted { path, mountpoint, line: line.number });
        }
        if start.elapsed() >= patience {
            return Err(GroundError::Late { path, mountpoint, line: line.number, patience_s: patience.as_secs() });
        }
        if start.elapsed() >= SILENCE && !told {
            told = true;
            say(&format!("waiting for {} to be mounted ({FSTAB} line {})", mountpoint.display(), line.number));
        }
        thread::sleep(PAUSE);
    }
    Ok(())
}

/// Whether a filesystem is mounted there. Looking into the mountpoint of an automount mounts it.
fn is_mounted(mountpoint: &Path) -> bool {
    let real = follow_links(mountpoint);
    let fs_type = || mountinfo::mount_at(&real).ok().flatten().map(|entry| entry.fs_type);
    match fs_type().as_deref() {
        None => false,
        Some("autofs") => fs::read_dir(&real).is_ok() && fs_type().is_some_and(|fs_type| fs_type != "autofs"),
        Some(_) => true,
    }
}

/// The path with its links followed as far as it exists.
fn follow_links(path: &Path) -> PathBuf {
    let found = path.ancestors().find_map(|above| Some((above, above.canonicalize().ok()?)));
    match found {
        Some((above, real)) => path.strip_prefix(above).map_or_else(
            |_| path.to_owned(),
            |rest| {
                if rest.as_os_str().is_empty() { real.clone() } else { real.join(rest) }
            },
        ),
        None => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_followed_as_far_as_there_is_something() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().canonicalize().unwrap();
        fs::create_dir(top.join("disk")).unwrap();
        std::os::unix::fs::symlink("disk", top.join("link")).unwrap();
        assert_eq!(follow_links(&top.join("link/backup/x")), top.join("disk/backup/x"));
        assert_eq!(follow_links(&top.join("link")), top.join("disk"));
        assert_eq!(follow_links(Path::new("/nowhere/at/all")), Path::new("/nowhere/at/all"));
    }

    #[test]
    fn what_is_not_mounted_is_waited_for_or_refused() {
        let parse = |options: &str| FstabLine {
            number: 7,
            source: "/dev/sdb1".into(),
            mountpoint: "/nowhere".into(),
            fs_type: "ext4".into(),
            options: vec![options.to_owned()],
        };
        let said = std::cell::RefCell::new(Vec::new());
        let say = |text: &str| said.borrow_mut().push(text.to_owned());
        let wait = |line: &FstabLine, ms| {
            await_mount(Path::new("/nowhere/repo"), line, Instant::now(), Duration::from_millis(ms), &say).unwrap_err()
        };
        assert!(wait(&parse("noauto"), 9000).to_string().contains("/etc/fstab line 7, noauto"));
        assert!(matches!(wait(&parse("nofail"), 1300), GroundError::Late { line: 7, .. }));
        assert_eq!(*said.borrow(), ["waiting for /nowhere to be mounted (/etc/fstab line 7)"]);
        let root = FstabLine { mountpoint: "/".into(), ..parse("defaults") };
        assert_eq!(await_mount(Path::new("/x"), &root, Instant::now(), Duration::ZERO, &say), Ok(()));
    }
}
