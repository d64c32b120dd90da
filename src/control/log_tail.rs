//! The last lines of the log, and how many of them were warnings and errors: for `status/log` and the metrics of a mount, which has its
//! log in a file, in a journal, or nowhere.

use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};

/// Lines that are kept.
const LINES_MAX: usize = 500;
/// Bytes of a line that are kept.
const LINE_MAX_BYTES: usize = 2000;

/// See the module.
#[derive(Debug, Default)]
pub struct LogTail {
    lines: Mutex<VecDeque<String>>,
    warnings: AtomicU64,
    errors: AtomicU64,
}

/// What of a line is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Level {
    Error,
    Warning,
    Other,
}

impl LogTail {
    /// Takes what is being logged: lines, each with its end.
    pub fn take(&self, text: &str) {
        let mut lines = self.lines.lock();
        for line in text.lines() {
            if lines.len() == LINES_MAX {
                lines.pop_front();
            }
            lines.push_back(line[..line.floor_char_boundary(LINE_MAX_BYTES)].to_owned());
        }
    }

    /// Counts a line.
    pub fn count(&self, level: Level) {
        match level {
            Level::Error => &self.errors,
            Level::Warning => &self.warnings,
            Level::Other => return,
        }
        .fetch_add(1, Ordering::Relaxed);
    }

    /// Warnings and errors so far.
    pub fn counted(&self) -> (u64, u64) {
        (self.warnings.load(Ordering::Relaxed), self.errors.load(Ordering::Relaxed))
    }

    /// The last lines, oldest first.
    pub fn text(&self) -> String {
        self.lines.lock().iter().flat_map(|line| [line.as_str(), "\n"]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_kept() {
        let tail = LogTail::default();
        (0..LINES_MAX + 3).for_each(|n| tail.take(&format!("line {n}\n")));
        tail.take(&"ä".repeat(LINE_MAX_BYTES));
        let text = tail.text();
        assert_eq!((text.lines().count(), text.lines().next()), (LINES_MAX, Some("line 4")));
        assert_eq!(text.lines().last().map(str::len), Some(LINE_MAX_BYTES));
        [Level::Error, Level::Warning, Level::Error, Level::Other].into_iter().for_each(|level| tail.count(level));
        assert_eq!(tail.counted(), (1, 2));
    }
}
