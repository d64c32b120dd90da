//! `mount` and `umount`.

use crate::cli::args::{Mount, Umount};
use crate::cli::progress::line;
use crate::cli::remount;
use crate::cli::setup::{Context, start_log, tell_recovery};
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
use crate::fuse::mount::{self, MountError};
use crate::fuse::options::{Audience, MountOptions};
use crate::fuse::umount::{self, Insistence};
use crate::fuse::{ground, pidfile};
use crate::ops::gc::auto::Schedule;
use crate::ops::{OpsError, gc, scrub};
use crate::target::{Coherence, TargetSpec};
use crate::words::clock::Clock;
use crate::words::monitor::{Counter, Monitor, Tally};
use std::path::{Path, PathBuf};
use std::sync::Arc;

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
    let settings = context.settings(&ours).map_err(|error| placed(error, args))?;
    let wait = waits.last().and_then(|option| wait_option(option)).unwrap_or(&args.wait_for_target);
    let patience = parse_seconds(wait).map_err(|problem| OpsError::refused(format!("wait-for-target: {problem}")))?;
    if options.source.is_empty() {
        options.source = settings.target.to_string();
    }
    if settings.allow_other {
        options.audience = Audience::Everyone;
    }
    let tail = Arc::<LogTail>::default();
    start_log(if context.globals.verbose > 0 { "debug" } else { "info,fuser=error" }, Arc::clone(&tail));
    // Whatever can be found wrong by reading is told from here, with its exit code; no thread has been started yet.
    ground::await_mounts(&needed(&settings), patience, &line)?;
    tell_recovery(&settings, session::make_embedded(&settings, &context.clock)?.as_deref());
    session::probe(&settings)?;
    check_writable(&settings, &options);
    if let Coherence::Doubtful(why) = session::target(&settings)?.coherence() {
        line(&doubt(&why));
    }
    let place =
        if args.foreground { Place::Foreground } else { Place::Background { log: Some(settings.log_file.clone()) } };
    let run_dir = pidfile::run_dir().unwrap_or_else(|| pidfile::run_dir_below(&settings.state_dir));
    let serve_options = ServeOptions::new(&args.dir, options, &run_dir, place);
    let clock = Arc::clone(&context.clock);
    let (log_file, quiet) = (settings.log_file.clone(), context.globals.quiet || context.globals.json);
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

/// A mistake in a mount option, with the line of fstab that it stands in.
fn placed(error: SetupError, args: &Mount) -> anyhow::Error {
    let SetupError::Settings(settings) = &error else { return error.into() };
    let Some(option) = settings.mount_option().filter(|_| args.from_fstab) else { return error.into() };
    let Ok(dir) = mount::resolve(&args.dir) else { return error.into() };
    let key = |option: &str| option.split('=').next().unwrap_or(option).replace('_', "-");
    // The target may be its first field.
    let holds =
        |line: &FstabLine| key(&option) == "target" || line.options.iter().any(|other| key(other) == key(&option));
    match fstab::lines().iter().find(|line| line.mountpoint == dir && holds(line)) {
        Some(line) => OpsError::refused(format!("{} line {}, {settings}", fstab::FSTAB, line.number)).into(),
        None => error.into(),
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
