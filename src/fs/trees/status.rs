//! `status/`: text that is made when it is looked at.

use crate::fs::incoming::DraftSummary;
use crate::fs::nodes::StatusFile;
use crate::fs::seam::Answer;
use crate::fs::trees::{Trees, limits};
use crate::image::overlay::OverlayFile;
use crate::ops::{overlays, scrub};
use crate::words::stamp::Stamp;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// Makes the text of a file.
pub type StatusText = Box<dyn Fn() -> String + Send + Sync>;

/// Says which drafts there are.
pub type Drafts = Box<dyn Fn() -> Answer<Vec<DraftSummary>> + Send + Sync>;

/// A text that is made of everything is made no more often than this for those who only ask how long it is, and for whoever opens it
/// right after asking: some programs read as much as they were told there is.
const LOOK: Duration = Duration::from_secs(5);
const OPEN: Duration = Duration::from_millis(200);

/// What a text is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To be read.
    Open,
    /// To be measured.
    Look,
}

/// Where the texts come from that are not made here.
pub(super) struct Status {
    drafts: Drafts,
    sources: [OnceLock<StatusText>; StatusFile::ALL.len()],
    made: Mutex<HashMap<StatusFile, (Instant, Arc<String>)>>,
}

impl Status {
    pub(super) fn new(drafts: Drafts) -> Self {
        Self { drafts, sources: Default::default(), made: Mutex::default() }
    }

    /// Sets the source of a file that is not made here; the first stands.
    pub(super) fn set(&self, file: StatusFile, text: StatusText) {
        let _ = self.sources[file as usize].set(text);
    }

    fn made(&self, file: StatusFile) -> String {
        self.sources[file as usize].get().map(|text| text()).unwrap_or_default()
    }

    /// A text that costs a look at everything.
    fn large(&self, file: StatusFile, purpose: Purpose) -> Arc<String> {
        let lasting = if purpose == Purpose::Open { OPEN } else { LOOK };
        let known = self.made.lock().get(&file).cloned();
        if let Some((_, text)) = known.filter(|(at, _)| at.elapsed() < lasting) {
            return text;
        }
        // Not under the lock: who looks at another file does not wait.
        let text = Arc::new(self.made(file));
        self.made.lock().insert(file, (Instant::now(), Arc::clone(&text)));
        text
    }

    fn drafts_text(&self) -> String {
        let drafts = match (self.drafts)() {
            Ok(drafts) => drafts,
            Err(error) => return format!("the drafts cannot be listed: {error}\n"),
        };
        let lines = drafts.into_iter();
        lines.map(|draft| format!("{} {} {}\n", draft.size_bytes, draft.name, draft.state)).collect()
    }
}

/// The file of a name.
pub(super) fn find(component: &str) -> Option<StatusFile> {
    StatusFile::ALL.into_iter().find(|file| file.file_name() == component)
}

impl Trees {
    pub(super) fn status_text(&self, file: StatusFile, purpose: Purpose) -> Arc<String> {
        let text = match file {
            StatusFile::Metrics | StatusFile::Report => return self.status.large(file, purpose),
            StatusFile::Drafts => self.status.drafts_text(),
            StatusFile::Overlays => self.overlays_text(),
            StatusFile::Scrub => self.scrub_text(),
            StatusFile::UploadLimit | StatusFile::DownloadLimit => {
                limits::throttle(&self.options.limits, file).map(limits::text).unwrap_or_default()
            }
            _ => self.status.made(file),
        };
        Arc::new(text)
    }

    /// What the last scrub of this host found.
    fn scrub_text(&self) -> String {
        match scrub::report::last(&self.repo) {
            Ok(Some(report)) => report.text(),
            Ok(None) => "this host has not scrubbed yet: run `backyfs scrub`\n".to_owned(),
            Err(error) => format!("the last scrub cannot be shown: {error}\n"),
        }
    }

    /// One line for each overlay of this host: uid, bytes written, last write, name. One that cannot be opened is listed too.
    fn overlays_text(&self) -> String {
        let listed = OverlayFile::list(&overlays::directory(&self.repo)).unwrap_or_else(|error| {
            tracing::error!("the overlays cannot be listed: {error}");
            Vec::new()
        });
        let mut text = String::new();
        for (uid, local_bytes) in listed {
            let Ok(version) = self.version(uid) else {
                let _ = writeln!(text, "{uid} ? ? ({local_bytes} bytes of an overlay whose version is gone)");
                continue;
            };
            let name = &version.attributes.name;
            let deleted = if self.is_orphan(uid).unwrap_or(false) { " (deleted by another host)" } else { "" };
            let Some(disk) = self.disks.existing(&version) else { continue };
            if let Err(error) = disk.check_usable() {
                let _ = writeln!(text, "{uid} ? ? {name}{deleted} (cannot be opened: {error})");
                continue;
            }
            let written = disk.last_write().map(|at| {
                let millis = at.seconds.saturating_mul(1000).saturating_add(i64::from(at.nanos / 1_000_000));
                Stamp::from_millis(millis).to_seconds_text()
            });
            let written = written.as_deref().unwrap_or("never");
            let _ = writeln!(text, "{uid} {} {written} {name}{deleted}", disk.overlay_bytes());
        }
        text
    }
}
