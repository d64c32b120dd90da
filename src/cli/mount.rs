//! `mount` and `umount`.

use crate::cli::args::{Mount, Umount};
use crate::cli::progress::line;
use crate::cli::setup::{Context, start_log, tell_recovery};
use crate::control::log_tail::LogTail;
use crate::control::sizes::parse_seconds;
use crate::control::{Settings, session};
use crate::fs::filesystem::{FileSystem, FsOptions};
use crate::fs::incoming::IncomingOptions;
use crate::fs::seam::{KernelCache, Operations};
use crate::fs::sources::SourcesOptions;
use crate::fs::trees::TreesOptions;
use crate::fuse::daemon::{Place, ServeOptions, Served, serve};
use crate::fuse::options::{Audience, MountOptions};
use crate::fuse::{pidfile, umount};
use crate::ops::OpsError;
use crate::target::Coherence;
use crate::words::clock::Clock;
use crate::words::monitor::{Counter, Monitor, Tally};
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
    let mut options = MountOptions::new("backyfs", Audience::Owner);
    let ours: Vec<String> = args.options.iter().flat_map(|list| options.absorb(list)).collect();
    let settings = context.settings(&ours)?;
    if options.source == "backyfs" {
        options.source = settings.target.to_string();
    }
    if settings.allow_other {
        options.audience = Audience::Everyone;
    }
    let tail = Arc::<LogTail>::default();
    start_log(if context.globals.verbose > 0 { "debug" } else { "info,fuser=error" }, Arc::clone(&tail));
    // Whatever can be found wrong by reading is told from here, with its exit code; no thread has been started yet.
    tell_recovery(&settings, session::make_embedded(&settings, &context.clock)?.as_deref());
    session::probe(&settings)?;
    if let Coherence::Doubtful(why) = session::target(&settings)?.coherence() {
        line(&doubt(&why));
    }
    let place =
        if args.foreground { Place::Foreground } else { Place::Background { log: Some(settings.log_file.clone()) } };
    let run_dir = pidfile::run_dir(&settings.state_dir);
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
    repo.refresh()?;
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
    let operations: Arc<dyn Operations> = FileSystem::new(repo, options, kernel)?;
    Ok(operations)
}

/// `backyfs umount`.
///
/// # Errors
/// When it is in use, or its daemon does not end in time.
pub fn umount(context: &Context, args: &Umount) -> anyhow::Result<()> {
    context.log_to_stderr();
    let patience =
        parse_seconds(&args.timeout).map_err(|problem| OpsError::refused(format!("--timeout: {problem}")))?;
    let settings = context.settings(&[])?;
    Ok(umount::umount(&args.dir, &pidfile::run_dir(&settings.state_dir), patience)?)
}
