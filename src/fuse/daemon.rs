//! Serving a mount: from the checks before it to the last request.
//!
//! ```text
//! check the mountpoint -> fork -> make the filesystem -> mount -> session threads -> "ready"
//!   -> umount(2) by anyone, or a signal: drain, unmount -> last requests -> drain -> exit
//! ```
//!
//! The order at the start is that of safety: whatever can fail does so before anything is mounted, and the user's command
//! exits with success only when the mount answers.

use crate::fs::process_watch;
use crate::fs::seam::{KernelCache, Operations};
use crate::fuse::adapter::{Adapter, guarded, panic_text};
use crate::fuse::background::{self, Side};
use crate::fuse::invalidator::Invalidator;
use crate::fuse::mount::{self, Detach, Liveness, MountError};
use crate::fuse::mountinfo;
use crate::fuse::notify;
use crate::fuse::options::{FS_TYPE, MountOptions};
use crate::fuse::pidfile::{HeldPidFile, PidFile};
use crate::fuse::utab;
use crate::fuse::workers::Workers;
use fuser::{Config, Session, SessionACL};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How long a daemon whose mount is gone already may take to finish before a new one refuses to start.
const PREDECESSOR_PATIENCE: Duration = Duration::from_secs(60);

/// What to serve, where and how.
#[derive(Debug, Clone)]
pub struct ServeOptions {
    /// Where to mount.
    pub mountpoint: PathBuf,
    /// What the kernel is told.
    pub mount: MountOptions,
    /// Where pid files live; see [`crate::fuse::pidfile::run_dir`].
    pub run_dir: PathBuf,
    /// In the background or not.
    pub place: Place,
    /// Threads that serve ordinary requests.
    pub request_threads: usize,
    /// Most threads for requests that may wait for the target.
    pub worker_threads: usize,
    /// How far the kernel reads ahead for sequential readers.
    pub read_ahead_kib: u32,
    /// After a signal: how long those who have files open may go on before they are cut off.
    pub farewell: Duration,
    /// Called in a daemon in the background as soon as its output goes to the log and nobody waits for it any more.
    pub detached: fn(),
}

impl ServeOptions {
    /// What suits most.
    pub fn new(mountpoint: &Path, mount: MountOptions, run_dir: &Path, place: Place) -> Self {
        Self {
            mountpoint: mountpoint.to_owned(),
            mount,
            run_dir: run_dir.to_owned(),
            place,
            request_threads: 4,
            worker_threads: 32,
            read_ahead_kib: 4096,
            farewell: Duration::from_secs(10),
            detached: || {},
        }
    }
}

/// Where the daemon runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In the calling process.
    Foreground,
    /// In a child of it; its output goes to a file or nowhere.
    Background {
        /// Opened for appending.
        log: Option<PathBuf>,
    },
}

/// Which side of the story the caller finds itself on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Served {
    /// The caller is the process the user started: the mount answers, and this is the pid of its daemon.
    Ready(u32),
    /// The caller is the daemon: the mount is gone, everything is durable, and the process should exit.
    Ended,
}

/// Why there is no mount.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum DaemonError {
    #[error(transparent)]
    Mount(#[from] MountError),
    #[error("{0}")]
    Filesystem(String),
    /// Told by the daemon before it ended; or how it ended.
    #[error("{0}")]
    Daemon(String),
    #[error("cannot {what}")]
    System { what: &'static str, source: io::Error },
}

fn system(what: &'static str) -> impl FnOnce(io::Error) -> DaemonError {
    move |source| DaemonError::System { what, source }
}

/// Mounts and serves what `make` makes. `make` runs in the daemon, after signals are blocked and before anything is
/// mounted; it may start threads, and the caller of `serve` must not have. Paths it uses are absolute: the daemon works in
/// the root directory.
///
/// # Errors
/// When the mount does not come about. In the background the text of the daemon's error arrives here, and the daemon, whose
/// own call returns the same error, exits silently.
pub fn serve<E: std::fmt::Display>(
    options: ServeOptions,
    make: impl FnOnce(Arc<dyn KernelCache>) -> Result<Arc<dyn Operations>, E>,
) -> Result<Served, DaemonError> {
    let dir = mount::resolve(&options.mountpoint)?;
    let pid_file = PidFile::new(&options.run_dir, &dir);
    await_predecessor(&pid_file, &dir)?;
    mount::prepare(&dir)?;
    let log = match &options.place {
        Place::Foreground => {
            let ready = || {
                notify::ready(&dir, &options.mount.source);
                Ok(())
            };
            return run(&dir, &options, &pid_file, make, ready).map(|()| Served::Ended);
        }
        Place::Background { log } => log.clone(),
    };
    match background::split(log).map_err(system("start the daemon"))? {
        Side::Parent(parent) => {
            let pid = parent.wait().map_err(DaemonError::Daemon)?;
            match mount::find(&dir)? {
                Some((_, Liveness::Alive)) => Ok(Served::Ready(pid)),
                _ => Err(DaemonError::Daemon("the daemon died as soon as it was ready".to_owned())),
            }
        }
        Side::Child(child) => {
            let mut child = Some(child);
            let ready = || child.take().map_or(Ok(()), background::Child::ready).inspect(|()| (options.detached)());
            let result = run(&dir, &options, &pid_file, make, ready);
            if let (Err(error), Some(child)) = (&result, child) {
                child.fail(&chain(error));
            }
            result.map(|()| Served::Ended)
        }
    }
}

/// An error with its causes, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// A daemon whose mount was taken away by umount(8) may still be writing: it is waited for. One that is mounted is not.
fn await_predecessor(pid_file: &PidFile, dir: &Path) -> Result<(), DaemonError> {
    let Some(daemon) = pid_file.daemon() else { return Ok(()) };
    let mounted = mountinfo::mount_at(dir).map_err(system("read the mount table"))?;
    if mounted.is_some_and(|entry| entry.fs_type == FS_TYPE) {
        return Err(MountError::AlreadyMounted(dir.to_owned()).into());
    }
    if process_watch::wait_until_gone(daemon, PREDECESSOR_PATIENCE) {
        return Ok(());
    }
    Err(MountError::StillRunning { dir: dir.to_owned(), pid: daemon.tgid }.into())
}

fn run<E: std::fmt::Display>(
    dir: &Path,
    options: &ServeOptions,
    pid_file: &PidFile,
    make: impl FnOnce(Arc<dyn KernelCache>) -> Result<Arc<dyn Operations>, E>,
    ready: impl FnOnce() -> io::Result<()>,
) -> Result<(), DaemonError> {
    let signals = take_signals().map_err(system("take over signals"))?;
    become_io_flusher();
    let held = pid_file.hold(dir).map_err(system("write the pid file"))?;
    let held: HeldPidFile = held.ok_or_else(|| MountError::AlreadyMounted(dir.to_owned()))?;
    let invalidator = Arc::new(Invalidator::default());
    let cache: Arc<dyn KernelCache> = Arc::clone(&invalidator) as _;
    let operations = make(cache).map_err(|error| DaemonError::Filesystem(error.to_string()))?;
    let serving = Serving::start(dir, options, &operations, &invalidator)?;
    utab::note(dir, FS_TYPE, &options.mount);
    if let Err(error) = ready() {
        // Whoever waited for the mount is gone, or will be told that there is none.
        detach_at_once(dir);
        return Err(system("leave the terminal")(error));
    }
    tracing::info!("mounted at {}", dir.display());
    let end = serving.until_the_end(&signals, &operations, options.farewell);
    if end == End::Unmounted {
        notify::stopping(dir);
        serving.leave();
        drain(&*operations);
        tracing::info!("unmounted from {}", dir.display());
    } else {
        tracing::warn!("leaving {} while it is in use", dir.display());
    }
    drop(held);
    Ok(())
}

/// From now on signals arrive only where they are asked for; threads started later inherit that.
fn take_signals() -> io::Result<SignalFd> {
    let mut set = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        set.add(signal);
    }
    set.thread_block()?;
    Ok(SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?)
}

/// Memory that we need while the kernel waits for us to write back pages must not wait for that in turn
/// (PR_SET_IO_FLUSHER(2const)). Needs CAP_SYS_RESOURCE; without it we go on.
fn become_io_flusher() {
    /// include/uapi/linux/prctl.h; libc has it for Android only.
    const PR_SET_IO_FLUSHER: libc::c_int = 57;
    // SAFETY: prctl with these arguments touches no memory.
    if unsafe { libc::prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0) } != 0 {
        tracing::debug!("not an I/O flusher: {}", io::Error::last_os_error());
    }
}

fn drain(operations: &dyn Operations) {
    // What went wrong is in the log; there is nobody left to tell.
    let _ = guarded("drain", || {
        operations.drain();
        Ok(())
    });
}

fn detach_at_once(dir: &Path) {
    if let Err(error) = mount::detach(dir, Detach::Lazily) {
        tracing::error!("{}", chain(&error));
    }
}

/// How serving ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Every request has been answered and the kernel sends no more.
    Unmounted,
    /// Somebody still uses it, and we were told to go.
    CutOff,
}

/// A running session.
struct Serving {
    dir: PathBuf,
    /// The mount's device number, to recognise it without touching it.
    device: Option<String>,
    invalidator: Arc<Invalidator>,
    session: JoinHandle<()>,
    /// Reads as ended when the session has.
    ended: UnixStream,
}

impl Serving {
    fn start(
        dir: &Path,
        options: &ServeOptions,
        operations: &Arc<dyn Operations>,
        invalidator: &Arc<Invalidator>,
    ) -> Result<Self, DaemonError> {
        let (ended, running) = UnixStream::pair().map_err(system("make a socket"))?;
        let device = mount::attach(dir, &options.mount)?;
        let started = Self::start_session(device, running, options, operations, invalidator);
        let session = started.inspect_err(|_| detach_at_once(dir))?;
        mount::widen_read_ahead(dir, options.read_ahead_kib);
        let device = mountinfo::mount_at(dir).ok().flatten().map(|entry| entry.device);
        Ok(Self { dir: dir.to_owned(), device, invalidator: Arc::clone(invalidator), session, ended })
    }

    fn start_session(
        device: std::os::fd::OwnedFd,
        running: UnixStream,
        options: &ServeOptions,
        operations: &Arc<dyn Operations>,
        invalidator: &Invalidator,
    ) -> Result<JoinHandle<()>, DaemonError> {
        let adapter = Adapter::new(Arc::clone(operations), Workers::new(options.worker_threads));
        let mut config = Config::default();
        config.n_threads = Some(options.request_threads.max(1));
        config.clone_fd = true;
        // The kernel itself keeps others out where they are not welcome.
        let session = Session::from_fd(adapter, device, SessionACL::All, config);
        let session = session.map_err(system("speak to the kernel"))?;
        invalidator.bind(session.notifier()).map_err(system("start a thread"))?;
        let serve = move || {
            match catch_unwind(AssertUnwindSafe(|| session.run())) {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!("the session ended on an error: {error}"),
                Err(panic) => tracing::error!("the session ended on a programming error: {}", panic_text(&*panic)),
            }
            drop(running);
        };
        thread::Builder::new().name("session".to_owned()).spawn(serve).map_err(system("start a thread"))
    }

    /// Sleeps until the session ends. The first signal drains and unmounts, the second gives up waiting.
    fn until_the_end(&self, signals: &SignalFd, operations: &Arc<dyn Operations>, farewell: Duration) -> End {
        let mut leaving: Option<JoinHandle<()>> = None;
        let mut deadline: Option<Instant> = None;
        loop {
            let mut polled =
                [PollFd::new(self.ended.as_fd(), PollFlags::POLLIN), PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
            let timeout = if leaving.is_some() { PollTimeout::from(100u16) } else { PollTimeout::NONE };
            // An interrupted poll just looks again.
            let _ = poll(&mut polled, timeout);
            if polled[0].any() == Some(true) {
                return End::Unmounted;
            }
            if let Ok(Some(signal)) = signals.read_signal() {
                tracing::info!("signal {}: finishing", signal.ssi_signo);
                if leaving.is_some() {
                    detach_at_once(&self.dir);
                    return End::CutOff;
                }
                notify::stopping(&self.dir);
                leaving = Some(self.start_leaving(Arc::clone(operations)));
            }
            if leaving.as_ref().is_some_and(JoinHandle::is_finished) {
                let deadline = *deadline.get_or_insert_with(|| Instant::now() + farewell);
                if Instant::now() >= deadline {
                    return End::CutOff;
                }
            }
        }
    }

    /// Draining may take long, and the second signal must be heard meanwhile.
    fn start_leaving(&self, operations: Arc<dyn Operations>) -> JoinHandle<()> {
        let dir = self.dir.clone();
        thread::spawn(move || {
            drain(&*operations);
            match mount::detach(&dir, Detach::WhenIdle) {
                Ok(()) | Err(MountError::NotMounted(_)) => return,
                Err(error) => tracing::warn!("{}; taking it away from new users", chain(&error)),
            }
            detach_at_once(&dir);
        })
    }

    /// After the session: a connection that was aborted (umount -f, or a failed session) leaves a mount nobody serves.
    fn leave(self) {
        let Self { dir, device, invalidator, session, ended: _ } = self;
        invalidator.unbind();
        // Its panics were caught and logged inside.
        let _ = session.join();
        let now = mountinfo::mount_at(&dir).ok().flatten().filter(|entry| entry.fs_type == FS_TYPE);
        if now.is_some_and(|entry| Some(entry.device) == device) {
            tracing::warn!("the connection for {} was cut: unmounting it", dir.display());
            detach_at_once(&dir);
        }
    }
}
