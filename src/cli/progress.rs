//! Progress: a bar on a terminal, a line now and then elsewhere.

use crate::control::jobs::Job;
use crate::control::sizes::show_bytes;
use crate::repo::Repository;
use crate::words::monitor::{Counter, Monitor};
use indicatif::{ProgressBar, ProgressStyle};
use parking_lot::RwLock;
use std::io::{self, IsTerminal, Write};
use std::sync::Mutex;
use std::time::{Duration, Instant};

pub use crate::control::jobs::Unit;

/// How often a line is printed where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// How progress is shown.
enum Style {
    Hidden,
    Bar(ProgressBar),
    /// When the last line was printed.
    Lines(Unit, Mutex<Instant>),
}

/// A monitor for one command.
pub struct Progress {
    style: Style,
    unit: Unit,
    /// Tells others on this host, too.
    job: RwLock<Option<Job>>,
}

impl Progress {
    /// Shows nothing but warnings.
    pub fn hidden() -> Self {
        Self::new(Style::Hidden, Unit::Items)
    }

    fn new(style: Style, unit: Unit) -> Self {
        Self { style, unit, job: RwLock::default() }
    }

    /// As it is, with nothing shown.
    #[must_use]
    pub fn quiet(unit: Unit) -> Self {
        Self::new(Style::Hidden, unit)
    }

    /// From now on others on this host see that this is at work. When they cannot, the work goes on without.
    pub fn tell(&self, repo: &Repository, verb: &str, what: &str) {
        match Job::begin(repo.state_dir(), repo.clock(), verb, what, self.unit) {
            Ok(job) => *self.job.write() = Some(job),
            Err(error) => tracing::warn!("what is at work is not shown to others: {error}"),
        }
    }

    /// Shows what suits where standard error goes.
    pub fn shown(unit: Unit) -> Self {
        if !io::stderr().is_terminal() {
            return Self::new(Style::Lines(unit, Mutex::new(Instant::now())), unit);
        }
        let template = match unit {
            Unit::Bytes => "{bar:40} {bytes:>10} of {total_bytes}  {bytes_per_sec}  {eta}",
            Unit::Items => "{bar:40} {pos:>10} of {len}  {eta}",
        };
        let bar = ProgressBar::new(0);
        bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self::new(Style::Bar(bar), unit)
    }

    /// Takes the bar away, so that results stand by themselves.
    pub fn finish(&self) {
        if let Style::Bar(bar) = &self.style {
            bar.finish_and_clear();
        }
    }
}

impl Monitor for Progress {
    fn count(&self, _: Counter, _: u64) {}

    fn progress(&self, done: u64, total: u64) {
        if let Some(job) = &*self.job.read() {
            job.progress(done, total);
        }
        match &self.style {
            Style::Hidden => {}
            Style::Bar(bar) => {
                bar.set_length(total);
                bar.set_position(done);
            }
            Style::Lines(unit, last) => {
                let Ok(mut last) = last.lock() else { return };
                if last.elapsed() >= LINE_INTERVAL {
                    *last = Instant::now();
                    let percent = (u128::from(done) * 100).checked_div(u128::from(total)).unwrap_or(100);
                    let total = match unit {
                        Unit::Bytes => show_bytes(total),
                        Unit::Items => total.to_string(),
                    };
                    line(&format!("{percent}% of {total}"));
                }
            }
        }
    }

    fn warn(&self, text: &str) {
        let say = || line(&format!("warning: {text}"));
        match &self.style {
            Style::Bar(bar) => bar.suspend(say),
            _ => say(),
        }
    }
}

/// One line of the program's own on standard error; nobody is left to tell when that is closed.
pub fn line(text: &str) {
    let _ = writeln!(io::stderr(), "backyfs: {text}");
}
