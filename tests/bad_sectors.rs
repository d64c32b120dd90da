//! A disk with bad sectors, as the kernel reports them: a file of a small file system of our own answers EIO for parts of itself.
//! Needs /dev/fuse.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, LockOwner, MountOption,
    OpenFlags, ReplyAttr, ReplyData, ReplyEntry, ReplyOpen, Request,
};
use std::ffi::OsStr;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant, UNIX_EPOCH};

const SIZE: u64 = 6 << 20;
const SECTOR: u64 = 4096;
/// Bad sectors, one at the beginning of a chunk, two side by side, and the last one.
const BAD: [u64; 4] = [4 << 20, 1_000 * 4096, 1_001 * 4096, SIZE - SECTOR];
const DISK: INodeNo = INodeNo(2);

struct BadDisk;

fn attr(ino: INodeNo) -> FileAttr {
    let (kind, size, perm) =
        if ino == DISK { (FileType::RegularFile, SIZE, 0o644) } else { (FileType::Directory, 0, 0o755) };
    let time = UNIX_EPOCH + Duration::from_secs(1);
    FileAttr {
        ino,
        size,
        blocks: size / 512,
        atime: time,
        mtime: time,
        ctime: time,
        crtime: time,
        kind,
        perm,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

fn good_byte(at: u64) -> u8 {
    (at / SECTOR % 251) as u8 + 1
}

impl Filesystem for BadDisk {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if name == "disk" {
            reply.entry(&Duration::from_secs(60), &attr(DISK), Generation(0));
        } else {
            reply.error(Errno::ENOENT);
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&Duration::from_secs(60), &attr(ino));
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        // Not through the page cache, which would read ahead over the bad places.
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let end = (offset + u64::from(size)).min(SIZE);
        if BAD.iter().any(|bad| offset < bad + SECTOR && *bad < end) {
            return reply.error(Errno::EIO);
        }
        reply.data(&(offset..end).map(good_byte).collect::<Vec<u8>>());
    }
}

struct Lab {
    dir: tempfile::TempDir,
}

impl Lab {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("backyfs.toml"), "").unwrap();
        Self { dir }
    }

    fn run(&self, args: &[&str]) -> Output {
        let below = |name: &str| self.dir.path().join(name);
        Command::new(env!("CARGO_BIN_EXE_backyfs"))
            .args(args)
            .env("BACKYFS_TARGET", format!("dir:{}", below("repository").display()))
            .env("BACKYFS_STATE_DIR", below("state"))
            .env("BACKYFS_KEY_FILE", below("key"))
            .env("BACKYFS_CONFIG", below("backyfs.toml"))
            .output()
            .unwrap()
    }

    fn restored(&self, version: &str) -> Vec<u8> {
        let out = self.dir.path().join("out");
        let done = self.run(&["restore", version, out.to_str().unwrap(), "--force"]);
        assert!(done.status.success(), "{done:?}");
        std::fs::read(out).unwrap()
    }
}

/// The program's own mount, gone at the end.
struct Mounted(PathBuf);

impl Mounted {
    fn of(lab: &Lab) -> Self {
        let at = lab.dir.path().join("backups");
        std::fs::create_dir(&at).unwrap();
        let done = lab.run(&["mount", at.to_str().unwrap()]);
        assert!(done.status.success(), "{done:?}");
        Self(at)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("fusermount3").arg("-u").arg(&self.0).status();
    }
}

fn mount(dir: &Path) -> (fuser::BackgroundSession, PathBuf) {
    let at = dir.join("mnt");
    std::fs::create_dir(&at).unwrap();
    let mut config = fuser::Config::default();
    config.mount_options = vec![MountOption::RO, MountOption::FSName("bad".into())];
    (fuser::spawn_mount(BadDisk, &at, &config).unwrap(), at.join("disk"))
}

#[test]
fn a_copy_of_a_disk_with_bad_sectors_fails_and_is_no_backup() {
    let lab = Lab::new();
    let (session, disk) = mount(lab.dir.path());
    let good = lab.dir.path().join("good");
    std::fs::write(&good, (0..SIZE).map(good_byte).collect::<Vec<u8>>()).unwrap();
    let worn = disk.parent().unwrap().display();
    std::fs::write(
        lab.dir.path().join("backyfs.toml"),
        format!("[sources.worn]\nkind = \"file\"\npath = \"{worn}\"\n"),
    )
    .unwrap();
    assert!(lab.run(&["init"]).status.success());
    let mounted = Mounted::of(&lab);
    let below = |name: &str| mounted.0.join(name);
    let copy = |from: &Path, name: &str| {
        let mut command = Command::new("cp");
        command.arg(from).arg(below("incoming").join(name)).env("LC_ALL", "C").output().unwrap()
    };
    // Inside the daemon, and by cp itself: it is told, and nothing counts.
    for (from, name) in [(below("sources/worn/disk"), "inside"), (disk, "by-cp")] {
        assert_eq!(std::fs::metadata(&from).unwrap().len(), SIZE);
        let done = copy(&from, name);
        assert!(!done.status.success(), "{done:?}");
        let said = String::from_utf8(done.stderr).unwrap();
        assert!(said.contains("Input/output error"), "{said}");
        // cp closes what it has copied before it fails: that it did is seen a moment later.
        let counts = || below("by_name").join(name).join("latest").exists();
        let told = Instant::now();
        while counts() && told.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(!counts(), "{name} counts as a backup");
        // What is good of it can be read, as of the disk itself.
        let file = std::fs::File::open(&from).unwrap();
        let mut sectors = vec![0; 4 * SECTOR as usize];
        file.read_exact_at(&mut sectors, 996 * SECTOR).unwrap();
        assert!(sectors.iter().enumerate().all(|(at, byte)| *byte == good_byte(996 * SECTOR + at as u64)));
        assert_eq!(file.read_at(&mut sectors, 1_000 * SECTOR).unwrap_err().raw_os_error(), Some(libc::EIO));
        // From a good disk it is a backup, under the same name.
        let done = copy(&good, name);
        assert!(done.status.success(), "{done:?}");
        let original = below("by_name").join(name).join("latest/original");
        assert!(std::fs::read(original).unwrap() == std::fs::read(&good).unwrap());
    }
    drop(mounted);
    drop(session);
}

#[test]
fn bad_sectors_are_named_and_the_rest_is_backed_up() {
    let lab = Lab::new();
    let (session, disk) = mount(lab.dir.path());
    let disk = disk.to_str().unwrap().to_owned();
    assert!(lab.run(&["init"]).status.success());
    let mut expected: Vec<u8> = (0..SIZE).map(good_byte).collect();
    for bad in BAD {
        expected[bad as usize..(bad + SECTOR) as usize].fill(0);
    }

    // Without consent the version is there, incomplete, and the code says that the source failed.
    let done = lab.run(&["backup", &disk, "vm"]);
    assert_eq!(done.status.code(), Some(5), "{done:?}");
    let uid = String::from_utf8(done.stdout).unwrap().trim().to_owned();
    let said = String::from_utf8(done.stderr).unwrap();
    for place in ["offset 4096000 (8192 bytes)", "offset 4194304 (4096 bytes)", "offset 6287360 (4096 bytes)"] {
        assert!(said.contains(place), "{place}: {said}");
    }
    assert!(lab.restored(&uid) == expected);
    let shown =
        |uid: &str| -> serde_json::Value { serde_json::from_slice(&lab.run(&["show", uid, "--json"]).stdout).unwrap() };
    assert_eq!(shown(&uid)["valid"], "incomplete");
    assert!(!lab.run(&["show", "vm"]).status.success(), "it is no latest version");

    // With consent it counts, for its schedules too, and says what it lacks.
    let is_due = || {
        let done = lab.run(&["due", "--json", "--schedules", "daily"]);
        let due: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
        !due.as_array().unwrap().is_empty()
    };
    assert!(is_due());
    let done = lab.run(&["backup", &disk, "vm", "--skip-errors", "--schedules", "daily"]);
    assert!(done.status.success(), "{done:?}");
    assert!(!is_due());
    let latest = shown("vm");
    assert_eq!(latest["tags"], serde_json::json!(["daily"]), "{latest}");
    assert!(latest["expire"].is_string(), "{latest}");
    assert_eq!(latest["valid"], "invalid");
    assert!(latest["reason"].as_str().unwrap().contains("offset 4096000 (8192 bytes)"), "{latest}");
    assert!(lab.restored("vm") == expected);

    // Next time these places are read again, whatever the hints say; nothing else is.
    let hints = lab.dir.path().join("hints");
    std::fs::write(&hints, "[]").unwrap();
    let repaired = lab.dir.path().join("repaired");
    let whole: Vec<u8> = (0..SIZE).map(good_byte).collect();
    std::fs::write(&repaired, &whole).unwrap();
    let done = lab.run(&["backup", repaired.to_str().unwrap(), "vm", "--hints", hints.to_str().unwrap()]);
    assert!(done.status.success(), "{done:?}");
    assert_eq!(shown("vm")["valid"], "valid");
    assert!(lab.restored("vm") == whole);
    drop(session);
}
