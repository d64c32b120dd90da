//! `status/metrics`, `report.html`, `progress` and `log`: where what they show comes from.

use crate::control::Settings;
use crate::control::glance::metrics::Process;
use crate::control::glance::overview::Unfinished;
use crate::control::glance::{Overview, gather, progress, report};
use crate::control::jobs::{self, JobRow};
use crate::control::log_tail::LogTail;
use crate::fs::incoming::Incoming;
use crate::fs::meters::Meters;
use crate::fs::metrics;
use crate::fs::nodes::StatusFile;
use crate::fs::seen::Seen;
use crate::fs::trees::Trees;
use crate::ops::OpsError;
use crate::ops::retain::Policy;
use crate::repo::Repository;
use crate::words::monitor::Tally;
use crate::words::stamp::Stamp;
use std::sync::Arc;

/// All that is watched.
pub struct Watched {
    /// The repository.
    pub repo: Arc<Repository>,
    /// Its unfinished copies.
    pub incoming: Arc<Incoming>,
    /// What is promised of names.
    pub policy: Arc<Policy>,
    /// The settings in force.
    pub settings: Settings,
    /// Blocks and packs.
    pub tally: Arc<Tally>,
    /// Requests of the kernel.
    pub meters: Arc<Meters>,
    /// The log.
    pub log: Arc<LogTail>,
    /// What the target said of its size.
    pub seen: Arc<Seen>,
    /// When the mount was made.
    pub started: Stamp,
}

impl Watched {
    /// Lets the files be made when they are looked at.
    pub fn serve(self, trees: &Trees) {
        let watched = Arc::new(self);
        let of = Arc::clone(&watched);
        trees.set_status(StatusFile::Metrics, Box::new(move || of.metrics()));
        let of = Arc::clone(&watched);
        trees.set_status(StatusFile::Report, Box::new(move || of.report()));
        let of = Arc::clone(&watched);
        trees.set_status(StatusFile::Progress, Box::new(move || progress::text(&of.jobs(), &of.drafts(), of.now())));
        trees.set_status(StatusFile::Log, Box::new(move || watched.log.text()));
    }

    fn now(&self) -> Stamp {
        self.repo.clock().now()
    }

    /// What the mount knows is better than what the catalog does: drafts as they are now, and how full the target is.
    fn overview(&self) -> Result<Overview, OpsError> {
        let overview = gather(&self.repo, &self.policy, self.settings.protect_younger)?;
        Ok(Overview { drafts: self.drafts(), space: self.seen.space(), ..overview })
    }

    fn drafts(&self) -> Vec<Unfinished> {
        let drafts = self.incoming.drafts().unwrap_or_else(|error| {
            tracing::error!("the drafts cannot be listed: {error}");
            Vec::new()
        });
        let unfinished = drafts.into_iter().map(|draft| Unfinished {
            name: draft.name,
            size_bytes: draft.size_bytes,
            state: draft.state,
            is_broken: draft.is_broken,
        });
        unfinished.collect()
    }

    fn jobs(&self) -> Vec<JobRow> {
        jobs::list(self.repo.state_dir(), self.now()).unwrap_or_else(|error| {
            tracing::error!("the jobs cannot be listed: {error}");
            Vec::new()
        })
    }

    fn metrics(&self) -> String {
        let process = Process {
            started: self.started,
            tally: &self.tally,
            requests: &self.settings.requests,
            queues: self.repo.queues(),
            held_bytes: self.repo.held_bytes(),
            logged: self.log.counted(),
        };
        metrics::text(&process, &self.meters, &self.overview())
    }

    fn report(&self) -> String {
        match self.overview() {
            Ok(overview) => report::page(&overview, &self.jobs()),
            Err(error) => report::failure(&error.to_string()),
        }
    }
}
