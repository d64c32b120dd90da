//! The edge to the kernel on a real mount: one small filesystem in memory, served by a daemon of its own, used through
//! system calls. Needs /dev/fuse.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod leaving;
mod memory;

use backyfs::fs::process;
use backyfs::fuse::daemon::{Place, ServeOptions, Served, serve};
use backyfs::fuse::mount::MountError;
use backyfs::fuse::options::{Audience, MountOptions};
use backyfs::fuse::pidfile::PidFile;
use backyfs::fuse::umount::{Insistence, umount};
use nix::fcntl::{AT_FDCWD, FallocateFlags, RenameFlags, fallocate, renameat2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Whence, lseek};
use std::env;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);
const MIB: usize = 1 << 20;

/// Run by the other tests in a process of its own; alone it does nothing.
#[test]
#[ignore = "the daemon of the other tests"]
fn the_daemon() {
    let Some(dir) = env::var_os("TEST_MOUNT").map(PathBuf::from) else { return };
    let top = PathBuf::from(env::var_os("TEST_TOP").unwrap());
    let audience = if env::var_os("TEST_PRIVATE").is_some() { Audience::Owner } else { Audience::Everyone };
    let place = Place::Background { log: Some(top.join("log")) };
    let mut options = ServeOptions::new(&dir, MountOptions::new("memory, really", audience), &top.join("run"), place);
    options.request_threads = env::var("TEST_THREADS").map_or(options.request_threads, |text| text.parse().unwrap());
    options.farewell = Duration::from_secs(3);
    let served = serve(options, |cache| match env::var("TEST_FAILURE").as_deref() {
        Ok("error") => Err("the repository cannot be found"),
        Ok("panic") => panic!("on purpose"),
        _ => Ok(Arc::new(memory::Memory::new(cache, top.join("drained"))) as _),
    });
    match served {
        Ok(Served::Ready(pid)) => println!("pid={pid}"),
        Ok(Served::Ended) => {}
        Err(error) => {
            eprintln!("failed: {error}");
            std::process::exit(1);
        }
    }
    std::process::exit(0);
}

/// A mounted filesystem. Leaves nothing behind.
struct Mounted {
    top: tempfile::TempDir,
}

impl Mounted {
    fn new() -> Self {
        let unmounted = Self::unmounted();
        unmounted.start();
        unmounted
    }

    fn unmounted() -> Self {
        let top = tempfile::tempdir().unwrap();
        fs::set_permissions(top.path(), fs::Permissions::from_mode(0o777)).unwrap();
        fs::create_dir(top.path().join("mnt")).unwrap();
        Self { top }
    }

    fn dir(&self) -> PathBuf {
        self.top.path().join("mnt")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir().join(name)
    }

    fn run(&self) -> PathBuf {
        self.top.path().join("run")
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--exact", "the_daemon", "--ignored", "--nocapture", "--test-threads=1"]);
        command.env("TEST_MOUNT", self.dir()).env("TEST_TOP", self.top.path()).stdin(Stdio::null());
        command
    }

    fn start(&self) {
        let output = self.command().output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(fs::metadata(self.path(".events")).is_ok(), "it answers when the command returns");
    }

    fn refused(&self, command: &mut Command) -> String {
        let Output { status, stderr, .. } = command.output().unwrap();
        assert!(!status.success());
        String::from_utf8_lossy(&stderr).into_owned()
    }

    fn daemon(&self) -> Option<process::ProcessId> {
        PidFile::new(&self.run(), &self.dir()).daemon()
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.daemon().unwrap().tgid).unwrap()), signal).unwrap();
    }

    fn umount(&self) -> Result<(), MountError> {
        umount(&self.dir(), &self.run(), Insistence::Polite, PATIENCE, &|_| {})
    }

    fn events(&self) -> Vec<String> {
        fs::read_to_string(self.path(".events")).unwrap().lines().map(str::to_owned).collect()
    }

    /// Waits for a note: RELEASE and the FLUSH of a dying process come when they like.
    fn await_event(&self, wanted: &str) {
        eventually(wanted, || self.events().iter().any(|event| event == wanted));
    }

    fn mount_table(&self) -> Vec<String> {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let dir = self.dir();
        table.lines().filter(|l| l.contains(dir.to_str().unwrap())).map(str::to_owned).collect()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        while !self.mount_table().is_empty() {
            // Whoever failed may have left files open.
            let gone = Command::new("umount").arg("-l").arg(self.dir()).status();
            if !gone.is_ok_and(|status| status.success()) {
                break;
            }
        }
        if let Some(daemon) = self.daemon() {
            let _ = kill(Pid::from_raw(i32::try_from(daemon.tgid).unwrap()), Signal::SIGKILL);
        }
    }
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn code(result: std::io::Result<impl Sized>) -> Option<i32> {
    result.err().and_then(|error| error.raw_os_error())
}

#[test]
fn files_and_directories() {
    let m = Mounted::new();
    fs::write(m.path("a"), "hello").unwrap();
    assert_eq!(fs::read(m.path("a")).unwrap(), b"hello");
    OpenOptions::new().append(true).open(m.path("a")).unwrap().write_all(b" world").unwrap();
    assert_eq!(fs::read(m.path("a")).unwrap(), b"hello world");
    assert!(m.events().contains(&"write a 6 Call append=true".to_owned()));
    assert_eq!(code(OpenOptions::new().write(true).create_new(true).open(m.path("a"))), Some(libc::EEXIST));

    fs::create_dir(m.path("d")).unwrap();
    fs::write(m.path("d/b"), "b").unwrap();
    assert_eq!(code(fs::remove_dir(m.path("d"))), Some(libc::ENOTEMPTY));
    fs::rename(m.path("d/b"), m.path("b")).unwrap();
    let no_replace =
        renameat2(AT_FDCWD, &m.path("b"), AT_FDCWD, &m.path("a"), RenameFlags::RENAME_NOREPLACE).unwrap_err();
    assert_eq!(no_replace, nix::errno::Errno::EEXIST);
    renameat2(AT_FDCWD, &m.path("b"), AT_FDCWD, &m.path("a"), RenameFlags::RENAME_EXCHANGE).unwrap();
    assert_eq!(fs::read(m.path("a")).unwrap(), b"b");
    fs::remove_dir(m.path("d")).unwrap();
    fs::remove_file(m.path("b")).unwrap();
    assert_eq!(code(fs::metadata(m.path("b"))), Some(libc::ENOENT));
    assert_eq!(code(std::os::unix::fs::symlink("x", m.path("s"))), Some(libc::EPERM));
    assert_eq!(code(fs::hard_link(m.path("a"), m.path("h"))), Some(libc::EPERM));
    let fifo = nix::unistd::mkfifo(&m.path("fifo"), nix::sys::stat::Mode::S_IRUSR).unwrap_err();
    assert_eq!(fifo, nix::errno::Errno::EPERM);

    fs::set_permissions(m.path("a"), fs::Permissions::from_mode(0o640)).unwrap();
    let file = File::options().write(true).open(m.path("a")).unwrap();
    let before_1970 = std::time::UNIX_EPOCH - Duration::from_millis(1500);
    file.set_modified(before_1970).unwrap();
    let metadata = fs::metadata(m.path("a")).unwrap();
    assert_eq!((metadata.mode() & 0o7777, metadata.blksize()), (0o640, 1 << 20));
    assert_eq!(metadata.modified().unwrap(), before_1970);
    file.set_len(10).unwrap();
    let events = m.events();
    assert!(events.contains(&"size b 10 handle=true".to_owned()), "{events:?}");
    nix::unistd::truncate(&m.path("a"), 3).unwrap();
    assert!(m.events().contains(&"size b 3 handle=false".to_owned()));

    let space = nix::sys::statvfs::statvfs(&m.dir()).unwrap();
    assert_eq!((space.blocks(), space.blocks_available(), space.fragment_size()), (1000, 400, 4096));
    drop(file);
    m.umount().unwrap();
}

#[test]
fn long_listings_come_whole() {
    let m = Mounted::new();
    for n in 0..5000 {
        nix::sys::stat::mknod(
            &m.path(&format!("a file with a rather long name {n}")),
            nix::sys::stat::SFlag::S_IFREG,
            nix::sys::stat::Mode::S_IRUSR,
            0,
        )
        .unwrap();
    }
    let mut names: Vec<_> = fs::read_dir(m.dir()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names.len(), 5001);
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 5001);
}

#[test]
fn truncation_arrives_with_the_open() {
    let m = Mounted::new();
    fs::write(m.path("a"), "hello").unwrap();
    drop(File::options().write(true).truncate(true).open(m.path("a")).unwrap());
    assert_eq!(fs::metadata(m.path("a")).unwrap().len(), 0);
    let events = m.events();
    assert!(events.contains(&"open a truncate".to_owned()));
    assert!(!events.iter().any(|event| event.starts_with("size")), "{events:?}");
    m.await_event("release a");
}

#[test]
fn requests_of_a_mebibyte() {
    let m = Mounted::new();
    let data: Vec<u8> = (0..4 * MIB).map(|n| (n / 7 % 251) as u8).collect();
    let mut file = File::options().read(true).write(true).create_new(true).open(m.path("a")).unwrap();
    file.write_all(&data).unwrap();
    let writes: Vec<_> = m.events().into_iter().filter(|event| event.starts_with("write a")).collect();
    // One more when the buffer does not begin at a page.
    assert!(writes.len() <= 5, "{writes:?}");
    assert!(writes.iter().filter(|event| *event == "write a 1048576 Call append=false").count() >= 3, "{writes:?}");
    file.rewind().unwrap();
    let mut back = vec![0; 4 * MIB];
    file.read_exact(&mut back).unwrap();
    assert!(back == data);
    file.sync_data().unwrap();
    assert!(m.events().contains(&"fsync a DataOnly".to_owned()));
}

#[test]
fn shared_mappings_of_direct_files() {
    let m = Mounted::new();
    fs::write(m.path("a"), vec![1; 3 * 4096]).unwrap();
    let script =
        "import mmap,sys\nf=open(sys.argv[1],'r+b')\nm=mmap.mmap(f.fileno(),0)\nm[5000:5005]=b'hello'\nm.flush()\n";
    let status = Command::new("python3").args(["-c", script]).arg(m.path("a")).status().unwrap();
    assert!(status.success());
    assert_eq!(&fs::read(m.path("a")).unwrap()[4999..5006], b"\x01hello\x01");
    assert!(m.events().iter().any(|event| event == "write a 4096 PageCache append=false"), "{:?}", m.events());
}

#[test]
fn holes_and_copies_inside() {
    let m = Mounted::new();
    let mut data = vec![7; 3 * MIB];
    data[MIB..2 * MIB].fill(0);
    fs::write(m.path("a"), &data).unwrap();
    let a = File::options().read(true).write(true).open(m.path("a")).unwrap();
    assert_eq!(lseek(&a, 0, Whence::SeekHole).unwrap(), MIB as i64);
    assert_eq!(lseek(&a, MIB as i64, Whence::SeekData).unwrap(), 2 * MIB as i64);
    assert_eq!(lseek(&a, 3 * MIB as i64, Whence::SeekData).unwrap_err(), nix::errno::Errno::ENXIO);

    // The standard library copies files with copy_file_range(2).
    fs::copy(m.path("a"), m.path("b")).unwrap();
    assert!(fs::read(m.path("b")).unwrap() == data);
    assert_eq!(m.events().iter().filter(|event| event.starts_with(&format!("copy {MIB} of "))).count(), 3);
    assert!(!m.events().iter().any(|event| event.starts_with("write b")));

    let punch = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    fallocate(&a, punch, 10, 20).unwrap();
    fallocate(&a, FallocateFlags::FALLOC_FL_ZERO_RANGE, 3 * MIB as i64 - 5, 10).unwrap();
    assert_eq!(
        fallocate(&a, FallocateFlags::FALLOC_FL_COLLAPSE_RANGE, 0, 4096).unwrap_err(),
        nix::errno::Errno::EOPNOTSUPP
    );
    data[10..30].fill(0);
    data.resize(3 * MIB + 5, 0);
    data[3 * MIB - 5..].fill(0);
    assert!(fs::read(m.path("a")).unwrap() == data);
}

#[test]
fn a_programming_error_costs_one_request() {
    let m = Mounted::new();
    fs::write(m.path("panic"), "x").unwrap();
    for _ in 0..20 {
        assert_eq!(code(fs::read(m.path("panic"))), Some(libc::EIO));
    }
    fs::write(m.path("a"), "still here").unwrap();
    assert_eq!(fs::read(m.path("a")).unwrap(), b"still here");
    m.umount().unwrap();
}

#[test]
fn slow_requests_do_not_hold_up_others() {
    let m = Mounted::new();
    let files: Vec<_> = (0..16).map(|n| File::create(m.path(&format!("sleepy{n}"))).unwrap()).collect();
    let start = Instant::now();
    std::thread::scope(|scope| {
        for file in &files {
            scope.spawn(|| file.sync_all().unwrap());
        }
        std::thread::sleep(Duration::from_millis(100));
        let before = Instant::now();
        fs::write(m.path("quick"), "x").unwrap();
        assert!(before.elapsed() < Duration::from_millis(500), "{:?}", before.elapsed());
    });
    assert!(start.elapsed() < Duration::from_secs(8), "side by side: {:?}", start.elapsed());
}

#[test]
fn pages_are_dropped_on_request() {
    let m = Mounted::new();
    fs::write(m.path("kept"), vec![b'a'; 8192]).unwrap();
    fs::write(m.path("control"), "").unwrap();
    let control = File::options().write(true).open(m.path("control")).unwrap();
    assert_eq!(fs::read(m.path("kept")).unwrap(), vec![b'a'; 8192]);
    control.write_at(b"swap kept b", 0).unwrap();
    assert_eq!(fs::read(m.path("kept")).unwrap(), vec![b'a'; 8192], "the kernel keeps what it read");
    control.write_at(b"drop kept", 0).unwrap();
    assert_eq!(fs::read(m.path("kept")).unwrap(), vec![b'b'; 8192]);
    fs::write(m.path("plain"), vec![b'a'; 8192]).unwrap();
    assert_eq!(fs::read(m.path("plain")).unwrap(), vec![b'a'; 8192]);
    control.write_at(b"swap plain b", 0).unwrap();
    assert_eq!(fs::read(m.path("plain")).unwrap(), vec![b'b'; 8192], "a new open reads anew");
    assert_eq!(code(control.write_at(b"nonsense", 0)), Some(libc::EINVAL));
}

#[test]
fn the_filesystem_sees_who_closes_and_how() {
    let m = Mounted::new();
    let shell = |script: &str, file: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdout(File::create(m.path(file)).unwrap()).stdin(Stdio::piped());
        command.spawn().unwrap()
    };
    let mut child = shell("exit 3", "exits");
    child.wait().unwrap();
    m.await_event("flush exits by sh: Exiting(Code(3))");
    let mut child = shell("exit 0", "succeeds");
    child.wait().unwrap();
    m.await_event("flush succeeds by sh: Exiting(Code(0))");
    let mut child = shell("read x", "killed");
    child.kill().unwrap();
    child.wait().unwrap();
    m.await_event("flush killed by sh: Exiting(Signal(9))");
    let mut child = shell("exec >/dev/null; read x", "closed");
    m.await_event("flush closed by sh: Alive");
    drop(child.stdin.take());
    child.wait().unwrap();
}

/// execve(2) closes what is marked so and waits for our answer, holding a lock that much of /proc waits for: whoever looked
/// there to answer would wait for itself, and nothing but an aborted connection would end it.
#[test]
fn closing_inside_execve_does_not_wait_for_itself() {
    let m = Mounted::new();
    let script = "import os,sys,subprocess\n\
        fd=os.open(sys.argv[1]+'/exec',os.O_WRONLY|os.O_CREAT)\n\
        os.write(fd,b'x')\n\
        if os.fork()==0:\n  os.execv('/bin/true',['true'])\n\
        os.wait()\n\
        os.execv('/bin/true',['true'])\n";
    let mut child = Command::new("python3").args(["-c", script]).arg(m.dir()).spawn().unwrap();
    eventually("both programs ran", || child.try_wait().unwrap().is_some());
    let closes = || m.events().iter().filter(|e| e.starts_with("flush exec by") && e.ends_with("Alive")).count();
    eventually("both closed", || closes() == 2);
}

#[test]
fn the_mount_table_and_read_ahead() {
    let m = Mounted::new();
    let table = m.mount_table();
    assert_eq!(table.len(), 1);
    assert!(table[0].contains(" - fuse.backyfs memory,\\040really "), "{table:?}");
    assert!(table[0].contains("default_permissions,allow_other") && table[0].contains("nosuid,nodev"));
    let device = table[0].split(' ').nth(2).unwrap();
    if let Ok(kib) = fs::read_to_string(format!("/sys/class/bdi/{device}/read_ahead_kb")) {
        assert_eq!(kib.trim(), "4096");
    }
}

#[test]
fn a_dead_daemon_is_cleaned_up_after() {
    let m = Mounted::new();
    let open = File::create(m.path("a")).unwrap();
    m.signal(Signal::SIGKILL);
    eventually("the mount is stale", || code(fs::metadata(m.dir())) == Some(libc::ENOTCONN));
    m.start();
    assert_eq!(m.mount_table().len(), 1, "the stale one is gone");
    drop(open);
    m.signal(Signal::SIGKILL);
    eventually("the mount is stale", || code(fs::metadata(m.dir())) == Some(libc::ENOTCONN));
    m.umount().unwrap();
    assert!(m.mount_table().is_empty());
}

#[test]
fn what_cannot_be_mounted_says_why() {
    let m = Mounted::unmounted();
    let said = m.refused(m.command().env("TEST_FAILURE", "error"));
    assert!(said.contains("failed: the repository cannot be found"), "{said}");
    let said = m.refused(m.command().env("TEST_FAILURE", "panic"));
    assert!(said.contains("before it was ready"), "{said}");
    let said = m.refused(m.command().env("TEST_MOUNT", m.path("nowhere")));
    assert!(said.contains("does not exist"), "{said}");
    fs::write(m.path("file"), "").unwrap();
    assert!(m.refused(&mut m.command()).contains("is not empty"));
    assert!(m.refused(m.command().env("TEST_MOUNT", m.path("file"))).contains("is not a directory"));
    fs::remove_file(m.path("file")).unwrap();
    assert!(m.mount_table().is_empty());
    m.start();
    assert!(m.refused(&mut m.command()).contains("mounted at"), "twice");
    // The same directory by another way.
    std::os::unix::fs::symlink("mnt", m.top.path().join("link")).unwrap();
    assert!(m.refused(m.command().env("TEST_MOUNT", m.top.path().join("link"))).contains("mounted at"));
    assert_eq!(m.mount_table().len(), 1);
}

#[test]
fn signals_end_it_in_order() {
    let m = Mounted::new();
    let daemon = m.daemon().unwrap();
    m.signal(Signal::SIGTERM);
    eventually("the daemon ends", || !process::is_running(daemon));
    assert!(m.mount_table().is_empty());
    assert!(m.top.path().join("drained").exists());

    m.start();
    let daemon = m.daemon().unwrap();
    let mut file = File::create(m.path("a")).unwrap();
    m.signal(Signal::SIGINT);
    eventually("nobody new comes in", || m.mount_table().is_empty());
    file.write_all(b"still").unwrap();
    assert!(process::is_running(daemon), "who has a file open may finish");
    drop(file);
    eventually("the daemon ends", || !process::is_running(daemon));

    m.start();
    let daemon = m.daemon().unwrap();
    let mut file = File::create(m.path("a")).unwrap();
    m.signal(Signal::SIGTERM);
    eventually("the daemon ends all the same", || !process::is_running(daemon));
    assert!(matches!(code(file.write_all(b"late")), Some(libc::ENOTCONN | libc::ECONNABORTED)));
}

#[test]
fn optional_an_aborted_connection_ends_the_daemon_and_the_mount() {
    let m = Mounted::new();
    let daemon = m.daemon().unwrap();
    let table = m.mount_table();
    let minor = table[0].split(' ').nth(2).unwrap().split(':').nth(1).unwrap();
    let abort = format!("/sys/fs/fuse/connections/{minor}/abort");
    if fs::write(&abort, "1").is_err() {
        eprintln!("not tested: fusectl is not mounted here");
        return;
    }
    eventually("the daemon ends", || !process::is_running(daemon));
    assert!(m.mount_table().is_empty());
}

/// Where only root may open the device this cannot be: `unprivileged` in tests/mount gives users a device of their own.
#[test]
fn optional_users_mount_through_fusermount3() {
    const NOBODY: u32 = 65534;
    assert!(nix::unistd::geteuid().is_root(), "this test becomes another user: run it as root");
    if fs::metadata("/dev/fuse").unwrap().mode() & 0o006 != 0o006 {
        eprintln!("not tested: users may not open /dev/fuse here");
        return;
    }
    let m = Mounted::unmounted();
    std::os::unix::fs::chown(m.dir(), Some(NOBODY), Some(NOBODY)).unwrap();
    // The build directory may be closed to others; the daemon needs a program it can run.
    let program = m.top.path().join("program");
    fs::copy(env::current_exe().unwrap(), &program).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new(&program);
    command.args(m.command().get_args()).envs(m.command().get_envs().filter_map(|(k, v)| Some((k, v?))));
    let output = command.env("TEST_PRIVATE", "1").uid(NOBODY).gid(NOBODY).current_dir("/").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(m.mount_table()[0].contains(" - fuse.backyfs memory,\\040really "), "{:?}", m.mount_table());
    let theirs = |script: &str| {
        let mut shell = Command::new("sh");
        shell.args(["-c", script]).current_dir(m.top.path()).uid(NOBODY).gid(NOBODY);
        shell.output().unwrap()
    };
    assert!(theirs("echo x > mnt/a && cat mnt/a && chmod 0 mnt/a && test -e mnt/a").status.success());
    assert_eq!(code(fs::metadata(m.path("a"))), Some(libc::EACCES), "nobody else may, not even root");
    let daemon = m.daemon().unwrap();
    let output = theirs("fusermount3 -u mnt");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    eventually("the daemon ends", || !process::is_running(daemon));
    assert!(m.mount_table().is_empty());
}

/// Prints how fast 1 MiB requests pass (docs/decisions/0010-kernel-edge.md). Run with --ignored --nocapture.
#[test]
#[ignore = "a measurement"]
fn speed_of_the_path() {
    const TOTAL: usize = 4 << 30;
    for threads in ["1", "2", "4", "8"] {
        let m = Mounted::unmounted();
        assert!(m.command().env("TEST_THREADS", threads).output().unwrap().status.success());
        let file = File::options().read(true).write(true).create(true).truncate(false).open(m.path("sink")).unwrap();
        let mut buffer = vec![1u8; MIB];
        for parallel in [1, 4] {
            let rate = |start: Instant| TOTAL as f64 / start.elapsed().as_secs_f64() / 1e9;
            let part = TOTAL / parallel;
            let start = Instant::now();
            std::thread::scope(|scope| {
                for n in 0..parallel {
                    let (file, buffer) = (&file, &buffer);
                    scope.spawn(move || {
                        (0..part)
                            .step_by(MIB)
                            .for_each(|at| file.write_all_at(buffer, (n * part + at) as u64).unwrap());
                    });
                }
            });
            let write = rate(start);
            let start = Instant::now();
            std::thread::scope(|scope| {
                for n in 0..parallel {
                    let file = &file;
                    let mut buffer = buffer.clone();
                    scope.spawn(move || {
                        (0..part)
                            .step_by(MIB)
                            .for_each(|at| file.read_exact_at(&mut buffer, (n * part + at) as u64).unwrap());
                    });
                }
            });
            println!(
                "{threads} request threads, {parallel} clients: write {write:.2} GB/s, read {:.2} GB/s",
                rate(start)
            );
        }
        let mut random = 1u64;
        let start = Instant::now();
        for _ in 0..100_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            file.read_exact_at(&mut buffer[..4096], ((random >> 33) % TOTAL as u64) & !4095).unwrap();
        }
        println!("{threads} request threads: {:.0} reads of 4 KiB per second", 1e5 / start.elapsed().as_secs_f64());
        drop(file);
        m.umount().unwrap();
    }
}
