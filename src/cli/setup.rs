//! From arguments to an open repository, and making one.

use crate::cli::args::{Globals, Init};
use crate::cli::output;
use crate::cli::progress::{self, Progress, Unit};
use crate::control::log_tail::{Level, LogTail};
use crate::control::session::{self, Parameters};
use crate::control::sizes::parse_bytes;
use crate::control::values::Surroundings;
use crate::control::{Settings, SetupError};
use crate::ops::{Interrupt, OpsError, scrub};
use crate::repo::Repository;
use crate::words::clock::{Clock, SystemClock};
use crate::words::geometry::BlockSize;
use crate::words::monitor::Monitor;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use parking_lot::Mutex;
use serde_json::json;
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tracing_subscriber::fmt::MakeWriter;

/// What every command needs.
pub struct Context {
    /// Flags.
    pub globals: Globals,
    /// The clock.
    pub clock: Arc<dyn Clock>,
}

/// An open repository and who watches the work on it.
pub struct Open {
    /// The repository.
    pub repo: Arc<Repository>,
    /// Shows progress.
    pub progress: Arc<Progress>,
    /// What is in force.
    pub settings: Settings,
}

impl Context {
    /// For a command with these flags; nothing is read or opened yet.
    pub fn new(globals: &Globals) -> Self {
        Self { globals: globals.clone(), clock: Arc::new(SystemClock) }
    }

    /// What is in force.
    ///
    /// # Errors
    /// When something cannot be understood.
    pub fn settings(&self, mount_options: &[String]) -> Result<Settings, SetupError> {
        let surroundings = Surroundings { variable: &variable, is_root: nix::unistd::geteuid().is_root() };
        Ok(Settings::resolve(&self.globals.settings(), mount_options, &surroundings)?)
    }

    /// Opens the repository and learns what other hosts did.
    ///
    /// # Errors
    /// When it cannot be opened, or the target fails.
    pub fn open(&self) -> anyhow::Result<Open> {
        self.open_with(Progress::hidden(), session::open)
    }

    /// As [`Context::open`], for work on many things, which takes long.
    ///
    /// # Errors
    /// As [`Context::open`].
    pub fn open_with_items(&self) -> anyhow::Result<Open> {
        self.open_with(self.progress(Unit::Items), session::open)
    }

    /// As [`Context::open`], for work on images, which takes long.
    ///
    /// # Errors
    /// As [`Context::open`].
    pub fn open_for_work(&self) -> anyhow::Result<Open> {
        self.open_with(self.progress(Unit::Bytes), session::open)
    }

    /// As [`Context::open_for_work`]; the embedded repository is made when it is meant and not there.
    ///
    /// # Errors
    /// As [`Context::open`].
    pub fn open_or_make(&self) -> anyhow::Result<Open> {
        self.open_with(self.progress(Unit::Bytes), |settings, clock, monitor| {
            let recovery_file = session::make_embedded(settings, clock)?;
            tell_recovery(settings, recovery_file.as_deref());
            session::open(settings, clock, monitor)
        })
    }

    /// As [`Context::open_for_work`], without learning what other hosts did: a scrub does that itself, past whatever is damaged.
    ///
    /// # Errors
    /// When the repository cannot be opened.
    pub fn open_for_scrub(&self) -> anyhow::Result<Open> {
        self.open_unlearnt(Unit::Bytes, session::open)
    }

    fn open_with(
        &self,
        progress: Progress,
        open: impl FnOnce(&Settings, &Arc<dyn Clock>, &Arc<dyn Monitor>) -> Result<Arc<Repository>, SetupError>,
    ) -> anyhow::Result<Open> {
        self.log_to_stderr();
        default_broken_pipe();
        let settings = self.settings(&[])?;
        let progress = Arc::new(progress);
        let monitor: Arc<dyn Monitor> = Arc::clone(&progress) as _;
        let repo = open(&settings, &self.clock, &monitor)?;
        scrub::learn_to_read(&repo)?;
        Ok(Open { repo, progress, settings })
    }

    /// Opens the repository as it is, to learn its catalog anew.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open_for_rebuild(&self) -> anyhow::Result<Open> {
        self.open_unlearnt(Unit::Items, session::open_for_rebuild)
    }

    /// As [`Context::open_for_scrub`], with `open` to open it.
    ///
    /// # Errors
    /// What `open` says.
    pub fn open_unlearnt(
        &self,
        unit: Unit,
        open: impl FnOnce(&Settings, &Arc<dyn Clock>, &Arc<dyn Monitor>) -> Result<Arc<Repository>, SetupError>,
    ) -> anyhow::Result<Open> {
        self.log_to_stderr();
        default_broken_pipe();
        let settings = self.settings(&[])?;
        let progress = Arc::new(self.progress(unit));
        let monitor: Arc<dyn Monitor> = Arc::clone(&progress) as _;
        let repo = open(&settings, &self.clock, &monitor)?;
        Ok(Open { repo, progress, settings })
    }

    /// Progress as the flags want it.
    pub fn progress(&self, unit: Unit) -> Progress {
        if self.globals.quiet { Progress::quiet(unit) } else { Progress::shown(unit) }
    }

    /// Logs what was asked for; by default nothing, as a command says what happens by itself.
    pub fn log_to_stderr(&self) {
        let level = match self.globals.verbose {
            0 => "off",
            1 => "info",
            _ => "debug",
        };
        start_log(level, Arc::default());
    }
}

/// Writes the log to standard error, and its last lines into memory.
struct TailedStderr(Arc<LogTail>);

/// One line on its way.
struct TailedLine<'a> {
    tail: &'a LogTail,
    level: Level,
}

/// What is kept of the log while it is held back, at most.
const HELD_MAX_BYTES: usize = 256 << 10;
/// The log while it is held back: what is no error, and so no business of who waits for the mount. Otherwise nothing.
static HELD: Mutex<Option<Vec<u8>>> = Mutex::new(None);

/// From now on only errors are logged to standard error; the rest waits for [`release_log`]. Not when somebody asked for a log.
pub fn hold_log() {
    if std::env::var_os("BACKYFS_LOG").is_none_or(|asked| asked.is_empty()) {
        *HELD.lock() = Some(Vec::new());
    }
}

/// Writes what was held back, and from now on everything.
pub fn release_log() {
    if let Some(held) = HELD.lock().take() {
        let _ = io::Write::write_all(&mut io::stderr(), &held);
    }
}

impl io::Write for TailedLine<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.tail.take(&String::from_utf8_lossy(bytes));
        match &mut *HELD.lock() {
            Some(held) if self.level != Level::Error => {
                let room = HELD_MAX_BYTES.saturating_sub(held.len());
                held.extend_from_slice(if bytes.len() <= room { bytes } else { &[] });
            }
            // Whoever closed it wants no log; that is no reason to end.
            _ => drop(io::Write::write_all(&mut io::stderr(), bytes)),
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::Write::flush(&mut io::stderr())
    }
}

impl<'a> MakeWriter<'a> for TailedStderr {
    type Writer = TailedLine<'a>;

    fn make_writer(&'a self) -> Self::Writer {
        TailedLine { tail: &self.0, level: Level::Other }
    }

    fn make_writer_for(&'a self, metadata: &tracing::Metadata<'_>) -> Self::Writer {
        let level = match *metadata.level() {
            tracing::Level::ERROR => Level::Error,
            tracing::Level::WARN => Level::Warning,
            _ => Level::Other,
        };
        self.0.count(level);
        TailedLine { tail: &self.0, level }
    }
}

/// A variable of the environment. mount(8) takes HOME away from what it calls for users, so that one has another place to be found in.
fn variable(name: &str) -> Option<OsString> {
    let home = || nix::unistd::User::from_uid(nix::unistd::getuid()).ok().flatten().map(|user| user.dir.into());
    std::env::var_os(name).or_else(|| if name == "HOME" { home() } else { None })
}

/// Starts logging to standard error, and to `tail`; `BACKYFS_LOG` has the last word.
pub fn start_log(level: &str, tail: Arc<LogTail>) {
    let asked = std::env::var("BACKYFS_LOG").unwrap_or_default();
    let filter = match asked.as_str() {
        "" => tracing_subscriber::EnvFilter::new(level),
        directives => tracing_subscriber::EnvFilter::try_new(directives).unwrap_or_else(|error| {
            progress::line(&format!("BACKYFS_LOG={directives}: {error}; logging at {level} instead"));
            tracing_subscriber::EnvFilter::new(level)
        }),
    };
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(TailedStderr(tail)).with_ansi(false);
    // A second start, in tests, changes nothing.
    let _ = log.with_target(false).try_init();
}

/// Says where the recovery key of a repository that was made just now is.
pub fn tell_recovery(settings: &Settings, recovery_file: Option<&std::path::Path>) {
    if let Some(path) = recovery_file {
        progress::line(&format!(
            "a new repository was made at {}; its recovery key is in {}: keep it on paper or elsewhere, for without it \
             and without the key file nobody can read these backups",
            settings.target,
            path.display()
        ));
    }
}

/// `backyfs ls | head` ends quietly. The daemon does not do this: it must survive whoever closes a pipe.
pub fn default_broken_pipe() {
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: no handler is installed, only the default action.
    let _ = unsafe { sigaction(Signal::SIGPIPE, &default) };
}

/// A programming error is told in one line, too.
pub fn hush_panics() {
    std::panic::set_hook(Box::new(|info| {
        let text = info.payload().downcast_ref::<&str>().copied().map(str::to_owned);
        let text = text.or_else(|| info.payload().downcast_ref::<String>().cloned()).unwrap_or_default();
        let place = info.location().map(|at| format!(" ({}:{})", at.file(), at.line())).unwrap_or_default();
        progress::line(&format!("internal error: {text}{place}; please report it"));
    }));
}

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

extern "C" fn on_signal(_: libc::c_int) {
    INTERRUPTED.store(true, Ordering::Relaxed);
}

/// From now on the first SIGINT, SIGTERM or SIGHUP asks the work to stop; the second ends the program.
pub fn interrupt() -> Interrupt {
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let action = SigAction::new(SigHandler::Handler(on_signal), SaFlags::SA_RESETHAND, SigSet::empty());
        // SAFETY: the handler only stores to an atomic, which is async-signal-safe (signal-safety(7)).
        let _ = unsafe { sigaction(signal, &action) };
    }
    Interrupt::new(&INTERRUPTED)
}

/// `backyfs init`.
///
/// # Errors
/// When there is a repository already, or none can be made.
pub fn init(context: &Context, args: &Init) -> anyhow::Result<()> {
    context.log_to_stderr();
    default_broken_pipe();
    let settings = context.settings(&[])?;
    let refused = |flag: &str, problem: String| OpsError::refused(format!("--{flag}: {problem}"));
    let block_size = parse_bytes(&args.block_size).map_err(|problem| refused("block-size", problem))?;
    let parameters = Parameters {
        block_size: BlockSize::new(block_size).map_err(|error| refused("block-size", error.to_string()))?,
        zstd_level: args.zstd_level,
        pack_size_bytes: parse_bytes(&args.pack_size).map_err(|problem| refused("pack-size", problem))?,
    };
    let made = session::init(&settings, &parameters, &context.clock)?;
    if context.globals.json {
        let key_file: Option<PathBuf> = made.new_key_file;
        let recovery = made.recovery.to_string();
        output::json(&json!({"target": made.target, "recovery_key": recovery, "new_key_file": key_file}))?;
        return Ok(());
    }
    let mut text = format!("A repository was made at {}.\n", made.target);
    if let Some(path) = &made.new_key_file {
        text.push_str(&format!("Its key was made, too: {}. Keep a copy of it elsewhere.\n", path.display()));
    }
    text.push_str(&format!(
        "\nRecovery key, shown this once:\n\n    {}\n\n\
         Write it down. It opens the repository when the key or passphrase is lost; when both are lost, the backups are lost.\n\
         To use it, put it in a file and name that with --passphrase-file.\n",
        made.recovery
    ));
    output::print(&text)?;
    Ok(())
}
