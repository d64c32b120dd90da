//! What commands are at work on a repository on this host, for whoever looks: `backyfs status`, `status/progress` of a mount.
//!
//! Each job is a small file in the state directory, rewritten at most once a second, and locked (flock(2)) by the process that works. The
//! lock ends with the process however it ends, so nothing is shown of the dead, and no clock and no process number is trusted for
//! that. Nothing depends on these files: when one cannot be written, the work goes on unseen.

use crate::words::clock::Clock;
use crate::words::stamp::Stamp;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};

/// A file is rewritten no more often than this.
const INTERVAL_MS: i64 = 1000;
/// A file that nobody has locked yet is let be for this long: its process may be about to.
const GRACE_MS: i64 = 60_000;

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the names say it")]
pub enum Unit {
    Bytes,
    Items,
}

/// A job as it is told. The field names are those of `--json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRow {
    /// The process.
    pub pid: u32,
    /// The command.
    pub verb: String,
    /// What it works on.
    pub what: String,
    /// What `done` and `total` count.
    pub unit: Unit,
    /// When it began, in milliseconds since 1970.
    pub started_ms: i64,
    /// When it last said how far it is.
    pub updated_ms: i64,
    /// How far it is.
    pub done: u64,
    /// Of how much; 0 as long as that is not known.
    pub total: u64,
}

impl JobRow {
    /// How much of it is done, 0 to 100.
    pub fn percent(&self) -> Option<u64> {
        (self.total > 0)
            .then(|| u64::try_from(u128::from(self.done.min(self.total)) * 100 / u128::from(self.total)).unwrap_or(100))
    }

    /// How much it did in a second so far.
    pub fn per_second(&self) -> u64 {
        let took = u128::try_from((self.updated_ms - self.started_ms).max(1)).unwrap_or(1);
        u64::try_from(u128::from(self.done) * 1000 / took).unwrap_or(u64::MAX)
    }

    /// Seconds that the rest takes if it goes on so.
    pub fn seconds_left(&self) -> Option<u64> {
        let rate = self.per_second();
        (self.total > 0 && rate > 0).then(|| self.total.saturating_sub(self.done) / rate)
    }
}

/// A job of this process. It is told until it is dropped.
pub struct Job {
    clock: Arc<dyn Clock>,
    file: File,
    path: PathBuf,
    row: JobRow,
    written_ms: AtomicI64,
}

impl Job {
    /// Begins to tell. `state_dir` is that of the repository.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn begin(state_dir: &Path, clock: &Arc<dyn Clock>, verb: &str, what: &str, unit: Unit) -> io::Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let (dir, pid) = (directory(state_dir), std::process::id());
        fs::create_dir_all(&dir)?;
        let path = dir.join(format!("{pid}-{}", NEXT.fetch_add(1, Ordering::Relaxed)));
        // One of that name is of a process that died and had our number.
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(&path)?;
        file.try_lock().map_err(io::Error::from)?;
        let now = clock.now().millis();
        let (verb, what) = (verb.to_owned(), what.to_owned());
        let row = JobRow { pid, verb, what, unit, started_ms: now, updated_ms: now, done: 0, total: 0 };
        let written_ms = AtomicI64::new(now - INTERVAL_MS);
        let job = Self { clock: Arc::clone(clock), file, path, row, written_ms };
        job.write(&job.row)?;
        Ok(job)
    }

    /// So much of so much is done. Costs a look at the clock, but for once a second.
    pub fn progress(&self, done: u64, total: u64) {
        let (now, written) = (self.clock.now().millis(), self.written_ms.load(Ordering::Relaxed));
        // The end is told in any case: what follows it, until all is durable, may take long.
        if now - written < INTERVAL_MS && done != total {
            return;
        }
        // Of several threads one writes.
        let is_ours = self.written_ms.compare_exchange(written, now, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if is_ours && let Err(error) = self.write(&JobRow { done, total, updated_ms: now, ..self.row.clone() }) {
            tracing::debug!("{}: {error}", self.path.display());
        }
    }

    /// A row is far smaller than a page, so that a reader finds the old or the new one; what is left behind it is blank.
    fn write(&self, row: &JobRow) -> io::Result<()> {
        let mut bytes = serde_json::to_vec(row)?;
        bytes.resize(bytes.len().next_multiple_of(64) + 64, b' ');
        self.file.write_all_at(&bytes, 0)?;
        self.file.set_len(bytes.len() as u64)
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

fn directory(state_dir: &Path) -> PathBuf {
    state_dir.join("jobs")
}

/// The jobs at work on this host, in order of their beginning. What the dead left is removed.
///
/// # Errors
/// When the directory cannot be read; one that does not exist is empty.
pub fn list(state_dir: &Path, now: Stamp) -> io::Result<Vec<JobRow>> {
    let entries = match fs::read_dir(directory(state_dir)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut rows = Vec::new();
    for entry in entries {
        let path = entry?.path();
        // One that is gone by now has ended.
        let Ok(mut file) = File::open(&path) else { continue };
        match file.try_lock_shared() {
            Err(fs::TryLockError::WouldBlock) => {
                let mut bytes = Vec::new();
                file.read_to_end(&mut bytes)?;
                rows.extend(serde_json::from_slice::<JobRow>(&bytes).ok());
            }
            Ok(()) if is_old(&file, now) => _ = fs::remove_file(&path),
            _ => {}
        }
    }
    rows.sort_by_key(|row| (row.started_ms, row.pid));
    Ok(rows)
}

fn is_old(file: &File, now: Stamp) -> bool {
    let modified = file.metadata().and_then(|metadata| metadata.modified());
    let since = modified.ok().and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
    since.and_then(|since| i64::try_from(since.as_millis()).ok()).is_some_and(|at| now.millis() - at > GRACE_MS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::clock::{SystemClock, TestClock};

    #[test]
    fn a_job_is_told_while_it_lives() {
        let dir = tempfile::tempdir().unwrap();
        let time = Arc::new(TestClock::new(SystemClock.now(), 1));
        let clock: Arc<dyn Clock> = Arc::clone(&time) as _;
        assert_eq!(list(dir.path(), clock.now()).unwrap(), []);
        let job = Job::begin(dir.path(), &clock, "scrub", "all \"ä\"", Unit::Bytes).unwrap();
        let told = || list(dir.path(), clock.now()).unwrap();
        assert_eq!(
            (told()[0].verb.as_str(), told()[0].what.as_str(), told()[0].percent()),
            ("scrub", "all \"ä\"", None)
        );
        job.progress(10, 100);
        job.progress(20, 100);
        assert_eq!(told()[0].done, 10, "not more often than once a second");
        time.advance_ms(2000);
        job.progress(50, 200);
        let row = told().remove(0);
        assert_eq!((row.done, row.percent(), row.per_second(), row.seconds_left()), (50, Some(25), 25, Some(6)));
        job.progress(200, 200);
        assert_eq!(told()[0].percent(), Some(100));
        drop(job);
        assert_eq!(told(), []);
    }

    #[test]
    fn what_the_dead_left_is_not_told_and_goes() {
        let dir = tempfile::tempdir().unwrap();
        let left = directory(dir.path()).join("1-0");
        fs::create_dir(directory(dir.path())).unwrap();
        fs::write(&left, b"{").unwrap();
        let now = SystemClock.now();
        assert_eq!(list(dir.path(), now).unwrap(), []);
        assert!(left.exists(), "it may be about to be locked");
        assert_eq!(list(dir.path(), now.plus_millis(2 * GRACE_MS)).unwrap(), []);
        assert!(!left.exists());
    }
}
