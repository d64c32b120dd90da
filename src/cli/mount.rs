//! `mount` and `umount`.

use crate::cli::args::{Mount, Umount};
use crate::cli::progress::line;
use crate::cli::remount;
use crate::cli::setup::{Context, hold_log, release_log, start_log, tell_recovery};
use crate::control::given::Key;
use crate::control::log_tail::LogTail;
use crate::control::sizes::parse_seconds;
use crate::control::{Settings, SetupError, session};
use crate::fs::filesystem::{FileSystem, FsOptions};
use crate::fs::incoming::IncomingOptions;
use crate::fs::seam::{KernelCache, Operations};
use crate::fs::sources::SourcesOptions;
use crate::fs::trees::TreesOptions;
use crate::fuse::daemon::{Place, ServeOptions, Served, serve};
use crate::fuse::fstab::{self, FstabLine};
use crate::fuse::mount::{self, Liveness, MountError};
use crate::fuse::options::{Audience, MountOptions};
use crate::fuse::umount::{self, Insistence};
use crate::fuse::{ground, pidfile};
use crate::ops::gc::auto::Schedule;
use crate::ops::{OpsError, gc, scrub};
use crate::target::{Coherence, TargetSpec};
use crate::words::clock::Clock;
use crate::words::monitor::{Counter, Monitor, Tally};
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

/// After this it is told what is waited for.
const SILENCE: Duration = Duration::from_secs(2);

/// What the daemon counts, and tells its log.
struct DaemonMonitor(Arc<Tally>);

impl Monitor for DaemonMonitor {
    fn count(&self, counter: Counter, amount: u64) {
        self.0.count(counter, amount);
    }

    fn warn(&self, text: &str) {
        tracing::warn!("{text}");
    }
}

/// `backyfs mount`: returns when the mount answers; in the daemon, when it is gone.
///
/// # Errors
/// When there is no mount.
pub fn mount(context: &Context, args: &Mount) -> anyhow::Result<()> {
    let mut options = MountOptions::new("", Audience::Owner);
    let given = args.options.iter().flat_map(|list| options.absorb(list));
    let (waits, ours): (Vec<String>, Vec<String>) = given.partition(|option| wait_option(option).is_some());
    if options.is_remount() {
        return remount::run(&args.dir, &options, &ours);
    }
    let settings = context.settings(&ours).map_err(|error| placed(error, args, &options.source))?;
    let wait = waits.last().and_then(|option| wait_option(option)).unwrap_or(&args.wait_for_target);
    let patience = parse_seconds(wait).map_err(|problem| OpsError::refused(format!("wait-for-target: {problem}")))?;
    if options.source.is_empty() {
        options.source = settings.target.to_string();
    }
    if settings.allow_other {
        options.audience = Audience::Everyone;
    }
    options.needs_network |= matches!(settings.target, TargetSpec::S3(_));
    let tail = Arc::<LogTail>::default();
    start_log(if context.globals.verbose > 0 { "debug" } else { "info,fuser=error" }, Arc::clone(&tail));
    if context.globals.verbose == 0 && !args.foreground {
        // Whoever waits for the mount is told in plain lines; the log is the daemon's.
        hold_log();
    }
    // Whatever can be found wrong by reading is told from here, with its exit code; no thread has been started yet.
    ground::await_mounts(&needed(&settings), patience, &line)?;
    tell_recovery(&settings, session::make_embedded(&settings, &context.clock)?.as_deref());
    telling_of_waits(&settings, context.globals.quiet, || session::probe(&settings))
        .map_err(|error| placed(error, args, &options.source))?;
    check_writable(&settings, &options);
    if let Coherence::Doubtful(why) = session::target(&settings)?.coherence() {
        line(&doubt(&why));
    }
    let place =
        if args.foreground { Place::Foreground } else { Place::Background { log: Some(settings.log_file.clone()) } };
    let run_dir = pidfile::run_dir().unwrap_or_else(|| pidfile::run_dir_below(&settings.state_dir));
    let mut serve_options = ServeOptions::new(&args.dir, options, &run_dir, place);
    serve_options.detached = release_log;
    let clock = Arc::clone(&context.clock);
    let (log_file, quiet) = (settings.log_file.clone(), context.globals.quiet || context.globals.json);
    tell_of_dead(&args.dir);
    if let Served::Ready(pid) = serve(serve_options, move |kernel| make(&settings, &clock, tail, kernel))?
        && !quiet
        && context.globals.verbose > 0
    {
        line(&format!("mounted at {}; daemon {pid}, log {}", args.dir.display(), log_file.display()));
    }
    Ok(())
}

/// The value of the option that says how long to wait for the target's filesystem. It concerns nobody but this command.
fn wait_option(option: &str) -> Option<&str> {
    option.strip_prefix("wait-for-target=").or_else(|| option.strip_prefix("wait_for_target="))
}

/// Says once what is waited for when `work` takes long. The thread that does so is gone when this returns.
fn telling_of_waits<T>(settings: &Settings, quiet: bool, work: impl FnOnce() -> T) -> T {
    let (done, is_done) = mpsc::channel::<()>();
    let tell = move || {
        if is_done.recv_timeout(SILENCE) == Err(mpsc::RecvTimeoutError::Timeout) && !quiet {
            line(&format!("waiting for {} to answer", settings.target));
        }
    };
    thread::scope(|scope| {
        // Without a thread to tell it, it is waited for in silence.
        let teller = thread::Builder::new().spawn_scoped(scope, tell);
        let result = work();
        drop(done);
        // A scope waits for what its threads do, not until they have ended; and what follows forks.
        let _ = teller.map(thread::ScopedJoinHandle::join);
        result
    })
}

/// A mistake in a mount option, with the line of fstab that it stands in. There may be several for one directory: `source` says which.
fn placed(error: SetupError, args: &Mount, source: &str) -> anyhow::Error {
    let Some(option) = error.mount_option().filter(|_| args.from_fstab) else { return error.into() };
    let Ok(dir) = mount::resolve(&args.dir) else { return error.into() };
    match blamed(&fstab::lines(), &dir, source, &option) {
        Some(number) => OpsError::refused(format!("{} line {number}, {error}", fstab::FSTAB)).into(),
        None => error.into(),
    }
}

/// The number of the line of `dir` that says `option`, the one of `source` before others.
fn blamed(lines: &[FstabLine], dir: &Path, source: &str, option: &str) -> Option<usize> {
    let option = spelt(option);
    // The target may be its first field.
    let is_first = |line: &FstabLine| option == ("target".to_owned(), line.source.as_str());
    let says = |line: &&FstabLine| is_first(line) || line.options.iter().any(|other| spelt(other) == option);
    let lines = lines.iter().filter(|line| line.mountpoint == dir).filter(says);
    lines.min_by_key(|line| line.source != source).map(|line| line.number)
}

/// Name and text of an option, spelt in one way.
fn spelt(option: &str) -> (String, &str) {
    let (name, text) = option.split_once('=').unwrap_or((option, "yes"));
    (Key::from_name(name).map_or_else(|| name.replace('_', "-"), |key| key.name().to_owned()), text)
}

/// What is cleaned up before anything is mounted.
fn tell_of_dead(dir: &Path) {
    let found = mount::resolve(dir).and_then(|dir| mount::find(&dir));
    if let Ok(Some((entry, Liveness::Stale))) = found {
        line(&format!("{} was left by a daemon that died: unmounting it", entry.mountpoint.display()));
    }
}

/// What a mount stands on.
fn needed(settings: &Settings) -> Vec<&Path> {
    let target = match &settings.target {
        TargetSpec::Dir(path) => Some(path),
        TargetSpec::S3(_) => None,
    };
    let keys = [&settings.key_file, &settings.passphrase_file];
    let paths = [target, Some(&settings.state_dir)].into_iter().chain(keys.map(Option::as_ref));
    paths.flatten().map(PathBuf::as_path).collect()
}

/// A directory that takes no objects is good for restores; somebody who meant to make backups should hear of it now.
fn check_writable(settings: &Settings, options: &MountOptions) {
    let TargetSpec::Dir(path) = &settings.target else { return };
    if !options.is_read_only() && !is_writable(path) {
        line(&format!(
            "warning: {} cannot be written to: nothing can be backed up; mount with ro to be sure",
            path.display()
        ));
    }
}

fn is_writable(path: &Path) -> bool {
    use nix::unistd::{AccessFlags, access};
    access(path, AccessFlags::W_OK | AccessFlags::X_OK).is_ok()
}

/// What to do about a target that several hosts should not share as it is.
fn doubt(why: &str) -> String {
    format!(
        "warning: {why}: a host may not see what others wrote to this target. When several hosts share it by NFS, mount it with \
         actimeo=0,lookupcache=none"
    )
}

/// Runs in the daemon.
fn make(
    settings: &Settings,
    clock: &Arc<dyn Clock>,
    log: Arc<LogTail>,
    kernel: Arc<dyn KernelCache>,
) -> anyhow::Result<Arc<dyn Operations>> {
    let tally = Arc::new(Tally::default());
    let monitor: Arc<dyn Monitor> = Arc::new(DaemonMonitor(Arc::clone(&tally)));
    let repo = session::open(settings, clock, &monitor)?;
    if let Coherence::Doubtful(why) = repo.coherence() {
        tracing::warn!("{}", doubt(&why));
    }
    scrub::learn_to_read(&repo)?;
    let (uid, gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    let options = FsOptions {
        incoming: IncomingOptions {
            temporary: settings.temporary.clone(),
            commit_timeout: settings.commit_timeout,
            draft_expire: settings.draft_expire,
            policy: Arc::new(settings.policy.clone()),
            uid,
            gid,
        },
        trees: TreesOptions {
            uid,
            gid,
            protect_younger: settings.protect_younger,
            limits: Arc::clone(&settings.limits),
        },
        sources: SourcesOptions {
            configured: settings.sources.clone(),
            restore: settings.restore_to_sources,
            uid,
            gid,
        },
        settings: settings.clone(),
        refresh_interval: settings.refresh_interval,
        tally,
        log,
    };
    let schedule = Schedule { interval: settings.gc_interval, free_percent: settings.gc_free_percent };
    let unfinished_ms = i64::try_from(settings.draft_expire.as_millis()).unwrap_or(i64::MAX);
    gc::auto::start(&repo, schedule, gc::Options { unfinished_ms, ..gc::Options::default() })?;
    let operations: Arc<dyn Operations> = FileSystem::new(repo, options, kernel)?;
    Ok(operations)
}

/// The settings that a line of fstab has for the mount.
fn options_of(args: &Umount) -> Vec<String> {
    let (lines, dir) = (fstab::lines(), mount::resolve(&args.dir).ok().filter(|_| args.from_fstab));
    let line = lines.into_iter().find(|line| Some(&line.mountpoint) == dir.as_ref());
    let mut known = MountOptions::new("", Audience::Owner);
    let options = line.map(|line| line.options).unwrap_or_default();
    options.into_iter().filter(|option| !known.take(option) && wait_option(option).is_none()).collect()
}

/// `backyfs umount`.
///
/// # Errors
/// When it is in use, or its daemon does not end in time.
pub fn umount(context: &Context, args: &Umount) -> anyhow::Result<()> {
    context.log_to_stderr();
    let patience =
        parse_seconds(&args.timeout).map_err(|problem| OpsError::refused(format!("--timeout: {problem}")))?;
    let run_dir = match pidfile::run_dir() {
        Some(dir) => dir,
        None => pidfile::run_dir_below(&context.settings(&options_of(args))?.state_dir),
    };
    let how = match (args.lazy, args.force) {
        (true, _) => Insistence::Lazy,
        (_, true) => Insistence::Forced,
        _ => Insistence::Polite,
    };
    let done = umount::umount(&args.dir, &run_dir, how, patience, &line);
    if let Err(error @ MountError::Busy { .. }) = done {
        let dir = args.dir.display();
        return Err(OpsError::refused(format!(
            "{error}: end them first, or let them finish out of sight with `umount -l {dir}`, or cut them off with `umount -f {dir}`"
        ))
        .into());
    }
    Ok(done?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_is_blamed_that_says_it() {
        let line = |number, source: &str, options: &[&str]| FstabLine {
            number,
            source: source.to_owned(),
            mountpoint: PathBuf::from("/b"),
            fs_type: "backyfs".to_owned(),
            options: options.iter().map(|&option| option.to_owned()).collect(),
        };
        let lines = [
            line(1, "dir:/old", &["noauto", "memory=1G", "key-file=/k"]),
            line(2, "dir:/new", &["memory=1M", "key_file=/k", "min_age_days=x"]),
        ];
        let blamed = |source: &str, option: &str| blamed(&lines, Path::new("/b"), source, option);
        assert_eq!(blamed("dir:/new", "memory=1M"), Some(2));
        assert_eq!([blamed("dir:/old", "key-file=/k"), blamed("dir:/new", "key-file=/k")], [Some(1), Some(2)]);
        assert_eq!(blamed("", "protect-younger=x"), Some(2));
        assert_eq!([blamed("", "target=dir:/new"), blamed("", "target=dir:/other")], [Some(2), None]);
        assert_eq!(blamed("dir:/new", "memory=2M"), None);
    }
}
