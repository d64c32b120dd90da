//! Tells how writers end. A tool may close what it wrote and fail after it: `cp` closes after a read error and exits 1, `dd`
//! closes on SIGINT and then dies of it. So somebody has to wait for the exit of processes that are not our children.
//!
//! A pidfd becomes readable when the process has ended, and reports a hang-up when its parent has reaped it. Before it is
//! reaped, `/proc` shows the exit code to those who may read it; afterwards the pidfd itself does (PIDFD_GET_INFO with
//! PIDFD_INFO_EXIT, Linux 6.15). Between them one of the two always answers, whatever the parent does in the meantime. On an
//! older kernel a process that is reaped before we looked stays [`Outcome::Unknown`].

use crate::fs::process::{self, Exit, ProcessId, Remains};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::fmt;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How a watched process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Like this.
    Exited(Exit),
    /// It is gone, and nobody may tell how.
    Unknown,
}

type Callback = Box<dyn FnOnce(Outcome) + Send>;

/// Watches processes until they end; one thread for all of them.
pub struct ProcessWatch {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// One watch; dropping it takes the callback back.
#[must_use = "dropping it ends the watch"]
pub struct Watch {
    shared: Arc<Shared>,
    process: ProcessId,
    number: u64,
}

struct Shared {
    state: Mutex<State>,
    /// One byte wakes the thread; when the pipe is full it is awake anyway.
    wake: UnixStream,
}

#[derive(Default)]
struct State {
    next_number: u64,
    watched: HashMap<ProcessId, Watched>,
    stopping: bool,
}

struct Watched {
    pidfd: Option<Arc<OwnedFd>>,
    awaits: Awaits,
    callbacks: Vec<(u64, Callback)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Awaits {
    Exit,
    /// It has ended, but only the pidfd may tell how, once it is reaped.
    Reaping,
}

impl ProcessWatch {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system is out of descriptors or threads.
    pub fn start() -> io::Result<Self> {
        let (wake, woken) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        woken.set_nonblocking(true)?;
        let shared = Arc::new(Shared { state: Mutex::default(), wake });
        let watching = Arc::clone(&shared);
        let thread = thread::Builder::new().name("process-watch".to_owned()).spawn(move || watching.run(woken))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Calls back once, from the watching thread, when the process has ended; soon when it already has. To be called where
    /// [`process::opener`] may be, that is before anything is closed: it looks at the process in the same way.
    pub fn watch(&self, process: ProcessId, callback: impl FnOnce(Outcome) + Send + 'static) -> Watch {
        let mut state = loop {
            // Looking may wait for the process, so it is done without the lock.
            let known = self.shared.state.lock().watched.contains_key(&process);
            let pidfd = if known { None } else { open_pidfd(process).map(Arc::new) };
            let mut state = self.shared.state.lock();
            if known && !state.watched.contains_key(&process) {
                continue;
            }
            state.watched.entry(process).or_insert_with(|| Watched {
                pidfd,
                awaits: Awaits::Exit,
                callbacks: Vec::new(),
            });
            break state;
        };
        let number = state.next_number;
        state.next_number += 1;
        let watched = state.watched.get_mut(&process).expect("it was put there under this lock");
        watched.callbacks.push((number, Box::new(callback)));
        drop(state);
        self.shared.wake();
        Watch { shared: Arc::clone(&self.shared), process, number }
    }

    /// How many processes are watched.
    pub fn watched_count(&self) -> usize {
        self.shared.state.lock().watched.len()
    }
}

impl Drop for ProcessWatch {
    fn drop(&mut self) {
        self.shared.state.lock().stopping = true;
        self.shared.wake();
        if let Some(thread) = self.thread.take().filter(|t| t.thread().id() != thread::current().id()) {
            drop(thread.join());
        }
    }
}

impl fmt::Debug for ProcessWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessWatch").field("watched_count", &self.watched_count()).finish()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        let Some(watched) = state.watched.get_mut(&self.process) else { return };
        let position = watched.callbacks.iter().position(|(number, _)| *number == self.number);
        // What a callback owns may watch in turn when dropped, so it is dropped after the lock.
        let taken = position.map(|at| watched.callbacks.swap_remove(at));
        let ended = if watched.callbacks.is_empty() { state.watched.remove(&self.process) } else { None };
        drop(state);
        drop((taken, ended));
        self.shared.wake();
    }
}

impl Shared {
    fn wake(&self) {
        // A full pipe means that a wake-up is pending already.
        let _ = (&self.wake).write(&[0]);
    }

    fn run(&self, woken: UnixStream) {
        while self.wait(&woken) {
            drain(&woken);
            for (callback, outcome) in self.ended() {
                callback(outcome);
            }
        }
    }

    /// Sleeps until something may have happened. `false` when it is time to stop.
    fn wait(&self, woken: &UnixStream) -> bool {
        let (pidfds, soon) = {
            let state = self.state.lock();
            if state.stopping {
                return false;
            }
            let fds: Vec<_> = state.watched.values().map(|w| (w.pidfd.clone(), w.awaits)).collect();
            // Kernels before 6.9 do not report the hang-up: then we look now and again.
            let soon = fds.iter().any(|(_, awaits)| *awaits == Awaits::Reaping);
            (fds, soon)
        };
        let mut polled = vec![PollFd::new(woken.as_fd(), PollFlags::POLLIN)];
        polled.extend(pidfds.iter().filter_map(|(fd, awaits)| {
            // POLLHUP is reported without being asked for.
            let events = if *awaits == Awaits::Exit { PollFlags::POLLIN } else { PollFlags::empty() };
            fd.as_ref().map(|fd| PollFd::new(fd.as_fd(), events))
        }));
        let timeout = if soon { PollTimeout::from(500u16) } else { PollTimeout::NONE };
        // An interrupted poll just looks again.
        let _ = poll(&mut polled, timeout);
        true
    }

    /// Takes out those that have ended.
    fn ended(&self) -> Vec<(Callback, Outcome)> {
        let mut state = self.state.lock();
        let mut calls = Vec::new();
        let mut gone = Vec::new();
        for (process, watched) in &mut state.watched {
            if let Some(outcome) = watched.look(*process) {
                gone.push(*process);
                calls.extend(watched.callbacks.drain(..).map(|(_, callback)| (callback, outcome)));
            }
        }
        for process in gone {
            state.watched.remove(&process);
        }
        calls
    }
}

impl Watched {
    /// Whether the process has ended, and how.
    fn look(&mut self, process: ProcessId) -> Option<Outcome> {
        // Without a descriptor it was gone when we came, or the kernel is older than 5.3.
        let Some(pidfd) = self.pidfd.clone() else { return Some(Outcome::Unknown) };
        let mut polled = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
        if !matches!(poll(&mut polled, PollTimeout::ZERO), Ok(1)) {
            return None;
        }
        match process::remains(process) {
            Remains::Exit(exit) => Some(Outcome::Exited(exit)),
            Remains::Hidden => {
                self.awaits = Awaits::Reaping;
                None
            }
            Remains::Gone => Some(exit_of_reaped(&pidfd).map_or(Outcome::Unknown, Outcome::Exited)),
        }
    }
}

fn drain(woken: &UnixStream) {
    let mut bytes = [0; 64];
    while matches!((&*woken).read(&mut bytes), Ok(n) if n == bytes.len()) {}
}

/// Waits until a process has ended and its number is free again, at most for `patience`. Answers whether it has ended.
pub fn wait_until_gone(process: ProcessId, patience: Duration) -> bool {
    /// How long a parent may take to reap its child before we stop caring.
    const REAPING: Duration = Duration::from_secs(10);
    let Some(pidfd) = open_pidfd(process) else { return !process::is_running(process) };
    let patience_ms = i32::try_from(patience.as_millis()).unwrap_or(i32::MAX);
    let mut polled = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
    let ended = matches!(poll(&mut polled, PollTimeout::try_from(patience_ms).unwrap_or(PollTimeout::MAX)), Ok(1));
    let deadline = Instant::now() + REAPING;
    while ended && !matches!(process::remains(process), Remains::Gone) && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(2));
    }
    ended
}

/// A descriptor for the process itself, not for whoever has its number later.
fn open_pidfd(process: ProcessId) -> Option<OwnedFd> {
    // SAFETY: pidfd_open(2) takes two integers and touches no memory of ours.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, process.tgid, 0) };
    let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0)?;
    // SAFETY: the call has just made this descriptor, and nobody else knows it.
    let pidfd = unsafe { OwnedFd::from_raw_fd(fd) };
    // Looked at after opening: if the number still belongs to the same process now, it did when we opened it.
    (!matches!(process::remains(process), Remains::Gone)).then_some(pidfd)
}

/// What the kernel keeps with a pidfd after the process has been reaped.
fn exit_of_reaped(pidfd: &OwnedFd) -> Option<Exit> {
    // SAFETY: the struct is made of integers, for which zeros are valid.
    let mut info: libc::pidfd_info = unsafe { std::mem::zeroed() };
    info.mask = u64::from(libc::PIDFD_INFO_EXIT);
    // SAFETY: the request number says how large the struct is, and it lives until the call returns.
    let result = unsafe { libc::ioctl(pidfd.as_raw_fd(), libc::PIDFD_GET_INFO, &raw mut info) };
    let known = result == 0 && info.mask & u64::from(libc::PIDFD_INFO_EXIT) != 0;
    known.then(|| Exit::from_status(info.exit_code))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command, Stdio};
    use std::sync::mpsc::{self, Receiver};

    const PATIENCE: Duration = Duration::from_secs(10);

    fn child(script: &str) -> Child {
        Command::new("sh").args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap()
    }

    fn follow(watch: &ProcessWatch, child: &Child) -> (Watch, Receiver<Outcome>) {
        let (send, receive) = mpsc::channel();
        let process = process::opener(child.id()).unwrap().process;
        (watch.watch(process, move |outcome| send.send(outcome).unwrap()), receive)
    }

    fn descriptors() -> usize {
        std::fs::read_dir("/proc/self/fd")
            .unwrap()
            .filter(|e| {
                let link = std::fs::read_link(e.as_ref().unwrap().path());
                link.is_ok_and(|l| l.to_string_lossy().contains("pidfd"))
            })
            .count()
    }

    #[test]
    fn tells_codes_and_signals_of_reaped_processes_and_zombies() {
        let watch = ProcessWatch::start().unwrap();
        // `read` keeps the child alive until its standard input is closed.
        for (script, expected) in [("read x; exit 3", Exit::Code(3)), ("read x; exit 0", Exit::Code(0))] {
            let mut process = child(script);
            let (_watch, outcome) = follow(&watch, &process);
            drop(process.stdin.take());
            assert_eq!(outcome.recv_timeout(PATIENCE), Ok(Outcome::Exited(expected)), "a zombie of {script}");
            process.wait().unwrap();
        }
        let mut process = child("read x");
        let (_watch, outcome) = follow(&watch, &process);
        process.kill().unwrap();
        process.wait().unwrap();
        assert_eq!(outcome.recv_timeout(PATIENCE), Ok(Outcome::Exited(Exit::Signal(9))));
        assert_eq!(watch.watched_count(), 0);
    }

    #[test]
    fn the_pidfd_tells_after_the_process_was_reaped() {
        let mut process = child("read x; exit 7");
        let id = process::opener(process.id()).unwrap().process;
        let pidfd = open_pidfd(id).unwrap();
        drop(process.stdin.take());
        assert_eq!(process.wait().unwrap().code(), Some(7));
        // Before Linux 6.15 nothing is kept.
        assert!(matches!(exit_of_reaped(&pidfd), Some(Exit::Code(7)) | None));
        assert!(open_pidfd(id).is_none(), "its number is nobody's");
        let watch = ProcessWatch::start().unwrap();
        let (send, outcome) = mpsc::channel();
        let _watch = watch.watch(id, move |o| send.send(o).unwrap());
        assert_eq!(outcome.recv_timeout(PATIENCE), Ok(Outcome::Unknown), "we came too late");
    }

    #[test]
    fn a_process_with_threads_ends_when_the_last_does() {
        let script =
            "import threading,sys,os\nt=threading.Thread(target=sys.stdin.read)\nt.start()\nt.join()\nos._exit(0)";
        let mut process = Command::new("python3").args(["-c", script]).stdin(Stdio::piped()).spawn().unwrap();
        let watch = ProcessWatch::start().unwrap();
        let (_watch, outcome) = follow(&watch, &process);
        assert!(outcome.recv_timeout(Duration::from_millis(200)).is_err());
        drop(process.stdin.take());
        assert_eq!(outcome.recv_timeout(PATIENCE), Ok(Outcome::Exited(Exit::Code(0))));
        process.wait().unwrap();
    }

    #[test]
    fn a_dropped_watch_is_silent_and_leaves_no_descriptor() {
        let watch = ProcessWatch::start().unwrap();
        let mut process = child("read x");
        let (first, first_outcome) = follow(&watch, &process);
        let (second, second_outcome) = follow(&watch, &process);
        assert_eq!(watch.watched_count(), 1, "one descriptor for both");
        drop(first);
        assert_eq!(watch.watched_count(), 1);
        drop(process.stdin.take());
        assert!(second_outcome.recv_timeout(PATIENCE).is_ok());
        assert!(first_outcome.try_recv().is_err());
        drop(second);
        process.wait().unwrap();
        let mut other = child("read x");
        let id = process::opener(other.id()).unwrap().process;
        let kept = watch.watch(id, |_| panic!("it was taken back"));
        drop(kept);
        other.kill().unwrap();
        other.wait().unwrap();
        assert_eq!(watch.watched_count(), 0);
        drop(watch);
        // Other tests of this process hold some of their own, but not for long.
        assert!((0..500).any(|_| {
            std::thread::sleep(Duration::from_millis(20));
            descriptors() == 0
        }));
    }
}
