//! What is true of directories beyond the contract of every target.

use super::*;
use crate::target::conformance;
use crate::words::ids::PackId;
use nix::mount::{MntFlags, MsFlags, mount, umount, umount2};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

fn key(text: &str) -> ObjectKey {
    ObjectKey::new(text).unwrap()
}

fn names(path: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        std::fs::read_dir(path).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn unreachable<T>(result: Result<T, TargetError>) {
    match result {
        Err(error @ TargetError::Unreachable { .. }) => assert!(error.to_string().contains("is it mounted?")),
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("it answered"),
    }
}

/// A small filesystem that is unmounted when the test ends.
struct Mounted(PathBuf);

impl Mounted {
    fn tmpfs(at: &Path, options: &str) -> Self {
        mount(Some("tmpfs"), at, Some("tmpfs"), MsFlags::empty(), Some(options)).unwrap();
        Self(at.to_owned())
    }
    fn remount(&self, flags: MsFlags, options: &str) -> nix::Result<()> {
        mount(None::<&str>, &self.0, None::<&str>, MsFlags::MS_REMOUNT | flags, Some(options))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

/// Waits for something that a process just forked by another test, which has all our descriptors until it executes its program,
/// may hold up for a moment.
fn eventually(mut done: impl FnMut() -> bool) -> bool {
    (0..500).any(|_| done() || (std::thread::sleep(Duration::from_millis(10)), false).1)
}

/// To mount a filesystem.
fn needs_root() {
    assert!(nix::unistd::geteuid().is_root(), "this test mounts a filesystem: run it as root");
}

#[test]
fn it_is_a_target() {
    let dir = tempfile::tempdir().unwrap();
    conformance::check(&DirTarget::open(dir.path().join("new")));
    let shared: Arc<dyn Target> = Arc::new(DirTarget::open(dir.path().join("shared")));
    conformance::check(&shared);
    assert_eq!(names(&dir.path().join("new/tmp")), [""; 0]);
}

/// Memory that begins on a page, as packs have it.
struct Pages {
    bytes: Vec<u8>,
    start: usize,
}

impl Pages {
    fn of(len: usize) -> Self {
        let mut bytes: Vec<u8> = vec![0; len + 4096];
        let start = bytes.as_ptr().align_offset(4096);
        bytes.iter_mut().enumerate().for_each(|(at, byte)| *byte = (at.wrapping_mul(2_654_435_761) >> 13) as u8);
        bytes.truncate(start + len);
        Self { bytes, start }
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}

/// Pages of a file that lie in the page cache.
fn cached_pages(path: &Path) -> usize {
    let file = File::open(path).unwrap();
    let len = file.metadata().unwrap().len() as usize;
    // SAFETY: maps a file that nobody shortens; the vector has a byte for each page of it; unmapped before the file closes.
    unsafe {
        let map = libc::mmap(std::ptr::null_mut(), len, libc::PROT_READ, libc::MAP_SHARED, file.as_raw_fd(), 0);
        assert_ne!(map, libc::MAP_FAILED);
        let mut pages = vec![0_u8; len.div_ceil(4096)];
        assert_eq!(libc::mincore(map, len, pages.as_mut_ptr()), 0);
        libc::munmap(map, len);
        pages.iter().filter(|page| **page & 1 == 1).count()
    }
}

#[test]
fn packs_leave_the_page_cache_alone() {
    // Beside the test program: /tmp is often a filesystem that has nothing but the page cache.
    let dir = tempfile::tempdir_in(std::env::current_exe().unwrap().parent().unwrap()).unwrap();
    let target = DirTarget::open(dir.path().join("r"));
    target.prepare().unwrap();
    for len in [1 << 20, (9 << 20) + 100, (1 << 20) - 1, 5000] {
        let (pages, pack) = (Pages::of(len), layout::pack(PackId::from_bytes([len as u8; 32])));
        target.put(&pack, &[pages.bytes()]).unwrap();
        // What does not fill a page goes through it, and so does what is too short to be worth it.
        let through = if len < 1 << 20 { len.div_ceil(4096) } else { (len % 4096).min(1) };
        assert_eq!(cached_pages(&dir.path().join("r").join(pack.as_str())), through, "{len} bytes");
        assert!(target.get(&pack).unwrap() == pages.bytes(), "{len} bytes");
        // From elsewhere, and in several parts.
        for parts in [[&pages.bytes()[1..], &[]], [&pages.bytes()[..len - 7], &pages.bytes()[len - 7..]]] {
            target.put(&pack, &parts).unwrap();
            assert!(target.get(&pack).unwrap() == parts.concat(), "{len} bytes");
        }
    }
}

#[test]
fn only_the_owner_may_look() {
    let dir = tempfile::tempdir().unwrap();
    let target = DirTarget::open(dir.path().join("r"));
    target.prepare().unwrap();
    target.put(&key("index/a"), &[b"a"]).unwrap();
    target.put_new(&key("index/b"), &[b"b"]).unwrap();
    let mode = |path: &str| std::fs::metadata(dir.path().join(path)).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("r"), mode("r/index"), mode("r/packs/ff")), (0o700, 0o700, 0o700));
    assert_eq!((mode("r/index/a"), mode("r/index/b")), (0o600, 0o600));
}

#[test]
fn an_empty_mountpoint_is_unreachable_and_stays_empty() {
    let dir = tempfile::tempdir().unwrap();
    for root in [dir.path().to_owned(), dir.path().join("gone"), dir.path().join("file")] {
        if root.ends_with("file") {
            std::fs::write(&root, "").unwrap();
        }
        let target = DirTarget::open(&root);
        unreachable(target.put(&layout::header(), &[b"x"]));
        unreachable(target.put(&key("index/a"), &[b"x"]));
        unreachable(target.put_new(&key("packs/00/a"), &[b"x"]));
        unreachable(target.get(&key("index/a")));
        unreachable(target.read_at(&key("index/a"), 0, &mut [0; 1]));
        unreachable(target.list(""));
        unreachable(target.list("packs/"));
        unreachable(target.list("packs/00/"));
        unreachable(target.delete(&key("index/a")));
        unreachable(target.space());
    }
    assert_eq!(names(dir.path()), ["file"]);
    unreachable(DirTarget::open(dir.path().join("no/parent")).prepare());
}

#[test]
fn the_header_of_an_empty_directory_is_absent_or_unreachable_never_read() {
    let dir = tempfile::tempdir().unwrap();
    assert!(DirTarget::open(dir.path()).get(&layout::header()).is_err());
}

#[test]
fn what_others_own_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("photo.jpg"), "mine").unwrap();
    let target = DirTarget::open(dir.path());
    assert!(matches!(target.prepare(), Err(TargetError::Occupied { found, .. }) if found == "photo.jpg"));
    assert_eq!(names(dir.path()), ["photo.jpg"]);
}

#[test]
fn strange_files_are_no_objects() {
    let dir = tempfile::tempdir().unwrap();
    let target = DirTarget::open(dir.path());
    std::fs::create_dir(dir.path().join("lost+found")).unwrap();
    target.prepare().unwrap();
    target.put(&key("index/a"), &[b"a"]).unwrap();
    std::fs::write(dir.path().join("index/not a key"), "").unwrap();
    std::fs::write(dir.path().join("tmp/part"), "").unwrap();
    std::os::unix::fs::symlink("nowhere", dir.path().join("index/link")).unwrap();
    let found: Vec<_> = target.list("").unwrap().into_iter().map(|info| info.key).collect();
    assert_eq!(found, [key("index/a")]);
}

#[test]
fn a_target_that_is_unmounted_and_returns() {
    needs_root();
    let dir = tempfile::tempdir().unwrap();
    let _mount = Mounted::tmpfs(dir.path(), "size=8M");
    let target = DirTarget::open(dir.path());
    target.prepare().unwrap();
    target.put(&layout::header(), &[b"h"]).unwrap();
    target.put(&key("index/a"), &[b"a"]).unwrap();
    target.get(&key("index/a")).unwrap();
    assert!(eventually(|| umount(dir.path()).is_ok()), "nothing is kept open");
    unreachable(target.get(&key("index/a")));
    unreachable(target.put(&key("index/b"), &[b"b"]));
    unreachable(target.list("index/"));
    assert_eq!(names(dir.path()), [""; 0]);
    let _mount = Mounted::tmpfs(dir.path(), "size=8M");
    target.prepare().unwrap();
    target.put(&key("index/b"), &[b"b"]).unwrap();
}

#[test]
fn a_full_target_says_so_and_keeps_nothing_of_the_upload() {
    needs_root();
    let dir = tempfile::tempdir().unwrap();
    let mount = Mounted::tmpfs(dir.path(), "size=4M");
    let target = DirTarget::open(dir.path());
    target.prepare().unwrap();
    let big = vec![1; 16 << 20];
    assert!(matches!(target.put(&key("index/a"), &[&big]), Err(TargetError::NoSpace { .. })));
    assert!(matches!(target.put_new(&key("index/a"), &[&big]), Err(TargetError::NoSpace { .. })));
    assert!(target.list("").unwrap().is_empty() && names(&dir.path().join("tmp")).is_empty());
    assert!(eventually(|| target.put(&key("index/a"), &[&big[..1000]]).is_ok()));
    mount.remount(MsFlags::empty(), "size=64M").unwrap();
    target.put(&key("index/a"), &[&big]).unwrap();
    assert!(eventually(|| mount.remount(MsFlags::MS_RDONLY, "").is_ok()));
    assert!(matches!(target.put(&key("index/b"), &[b"b"]), Err(TargetError::Denied { .. })));
    assert!(matches!(target.delete(&key("index/a")), Err(TargetError::Denied { .. })));
    assert_eq!(DirTarget::open(dir.path()).get(&key("index/a")).unwrap().len(), big.len());
}

#[test]
fn only_the_leftovers_of_dead_writers_are_swept() {
    let dir = tempfile::tempdir().unwrap();
    DirTarget::open(dir.path()).prepare().unwrap();
    let tmp = Root::open(dir.path()).unwrap().directory("tmp").unwrap();
    std::fs::write(dir.path().join("tmp/dead"), "part").unwrap();
    let mut alive = Upload::create(&tmp, "alive", &step::Open).unwrap();
    alive.write(&[b"whole"]).unwrap();
    let target = DirTarget::open(dir.path());
    assert_eq!(names(&dir.path().join("tmp")), ["alive"]);
    let home = Root::open(dir.path()).unwrap().directory("ok").unwrap();
    alive.publish(&home, "a", Existing::Replace).unwrap();
    assert_eq!(target.get(&key("ok/a")).unwrap(), b"whole");
}

/// Removes the temporary file of an upload under way, as a sweep of a host that does not see its lock would.
struct Sweeper {
    root: PathBuf,
    left: AtomicU64,
}

impl Gate for Sweeper {
    fn pass(&self, step: Step) -> Result<(), Errno> {
        let active = step == Step::Rename && self.left.load(Ordering::SeqCst) > 0;
        if active {
            self.left.fetch_sub(1, Ordering::SeqCst);
            for name in names(&self.root.join("tmp")) {
                std::fs::remove_file(self.root.join("tmp").join(name)).unwrap();
            }
        }
        Ok(())
    }
}

#[test]
fn an_upload_that_was_swept_is_repeated_and_then_fails() {
    for (times, succeeds) in [(1, true), (2, false)] {
        let dir = tempfile::tempdir().unwrap();
        let sweeper = Sweeper { root: dir.path().to_owned(), left: AtomicU64::new(0) };
        let sweeper = Arc::new(sweeper);
        let target = DirTarget::open_gated(dir.path(), sweeper.clone());
        target.prepare().unwrap();
        sweeper.left.store(times, Ordering::SeqCst);
        assert_eq!(target.put(&key("ok/a"), &[b"a"]).is_ok(), succeeds);
        sweeper.left.store(times, Ordering::SeqCst);
        assert_eq!(target.put_new(&key("ok/b"), &[b"b"]).is_ok(), succeeds);
        assert_eq!(target.list("ok/").unwrap().len(), if succeeds { 2 } else { 0 });
    }
}

/// Remembers the order of steps.
#[derive(Default)]
struct Steps(parking_lot::Mutex<Vec<Step>>);

impl Gate for Steps {
    fn pass(&self, step: Step) -> Result<(), Errno> {
        self.0.lock().push(step);
        Ok(())
    }
}

#[test]
fn data_is_durable_before_its_name_and_the_name_before_the_answer() {
    let dir = tempfile::tempdir().unwrap();
    let steps = Arc::new(Steps::default());
    let target = DirTarget::open_gated(dir.path(), steps.clone());
    target.prepare().unwrap();
    let taken = || std::mem::take(&mut *steps.0.lock());
    taken();
    let upload = [Step::Create, Step::Write, Step::SyncData, Step::Rename, Step::SyncDirectory];
    target.put(&key("ok/a"), &[b"a", b"b"]).unwrap();
    assert_eq!(taken(), upload);
    target.put_new(&key("ok/b"), &[b"a"]).unwrap();
    assert_eq!(taken(), upload);
    target.put_new(&key("ok/b"), &[b"a"]).unwrap();
    assert_eq!(taken(), [&upload[..], &[Step::Discard]].concat());
    target.delete(&key("ok/b")).unwrap();
    assert_eq!(taken(), [Step::Unlink, Step::SyncDirectory]);
}

#[test]
fn without_a_rename_that_does_not_replace_a_link_stands_in() {
    let dir = tempfile::tempdir().unwrap();
    let target = DirTarget::open(dir.path());
    target.prepare().unwrap();
    let root = Root::open(dir.path()).unwrap();
    let (tmp, home) = (root.directory("tmp").unwrap(), root.directory("ok").unwrap());
    for (name, bytes, put) in [("1", b"first", Put::Created), ("2", b"later", Put::Exists)] {
        let mut upload = Upload::create(&tmp, name, &step::Open).unwrap();
        upload.write(&[bytes]).unwrap();
        assert_eq!(upload.link(&home, "a").unwrap(), put);
        // The network asked twice.
        assert_eq!(upload.link(&home, "a").unwrap(), put);
    }
    assert_eq!(target.get(&key("ok/a")).unwrap(), b"first");
    assert!(names(&dir.path().join("tmp")).is_empty());
}
