//! What the kernel asked of the mount: how often, how long it waited, what went wrong.
//!
//! Two looks at the clock and a handful of relaxed additions a request; nothing here waits for anything.

use crate::fs::errno::Errno;
use crate::words::histogram::{Distribution, Histogram};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// The operations of [`crate::fs::seam::Operations`] that are counted.
macro_rules! operations {
    ($($name:ident $text:literal),* $(,)?) => {
        /// What the kernel can ask.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[allow(missing_docs, reason = "the names say it")]
        pub enum Operation { $($name),* }

        impl Operation {
            /// Every operation.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// Its name, as that of the method.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text),* }
            }
        }
    };
}

operations! {
    Lookup "lookup", Forget "forget", Getattr "getattr", Setattr "setattr", Readlink "readlink", Mknod "mknod", Mkdir "mkdir",
    Unlink "unlink", Rmdir "rmdir", Symlink "symlink", Rename "rename", Link "link", Create "create", Open "open", Read "read",
    Write "write", Flush "flush", Release "release", Fsync "fsync", Opendir "opendir", Readdir "readdir",
    Releasedir "releasedir", Fsyncdir "fsyncdir", Statfs "statfs", Access "access", Fallocate "fallocate", Lseek "lseek",
    CopyFileRange "copy_file_range", Ioctl "ioctl",
}

/// Errors that are counted by name; [`OTHER`] stands for the rest.
const NAMED: [Errno; 5] = [Errno::EIO, Errno::ENOSPC, Errno::ETIMEDOUT, Errno::EBUSY, Errno::ENOMEM];
const OTHER: &str = "other";

/// See the module.
#[derive(Debug, Default)]
pub struct Meters {
    meters: [Meter; Operation::ALL.len()],
    read_bytes: AtomicU64,
    written_bytes: AtomicU64,
}

#[derive(Debug, Default)]
struct Meter {
    begun: AtomicU64,
    took: Histogram,
    errors: [AtomicU64; NAMED.len() + 1],
}

/// What was counted of one operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metered {
    /// Which.
    pub operation: Operation,
    /// Requests that were not answered yet.
    pub running: u64,
    /// How long those took that were answered.
    pub took: Distribution,
    /// How many failed, by the name of the error. That something is not there is no failure.
    pub errors: Vec<(&'static str, u64)>,
}

impl Meters {
    /// A request has come.
    pub fn begin(&self, operation: Operation) -> Instant {
        self.meters[operation as usize].begun.fetch_add(1, Ordering::Relaxed);
        Instant::now()
    }

    /// It is answered.
    pub fn end(&self, operation: Operation, began: Instant, error: Option<Errno>) {
        let meter = &self.meters[operation as usize];
        meter.took.observe(began.elapsed());
        // Questions whose answer is no.
        if let Some(error) = error.filter(|error| !matches!(*error, Errno::ENOENT | Errno::ENXIO)) {
            let at = NAMED.iter().position(|named| *named == error).unwrap_or(NAMED.len());
            meter.errors[at].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Bytes were handed to a reader.
    pub fn note_read(&self, bytes: u64) {
        self.read_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes were taken from a writer.
    pub fn note_written(&self, bytes: u64) {
        self.written_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes handed to readers so far.
    pub fn read_bytes(&self) -> u64 {
        self.read_bytes.load(Ordering::Relaxed)
    }

    /// Bytes taken from writers so far.
    pub fn written_bytes(&self) -> u64 {
        self.written_bytes.load(Ordering::Relaxed)
    }

    /// Everything counted, also of operations that nobody asked for.
    pub fn all(&self) -> Vec<Metered> {
        let metered = |(operation, meter): (&Operation, &Meter)| {
            let took = meter.took.distribution();
            // What ends between the two looks would be counted twice otherwise.
            let running = meter.begun.load(Ordering::Relaxed).saturating_sub(took.count);
            let names = NAMED.iter().map(|error| error.name().unwrap_or(OTHER)).chain([OTHER]);
            let errors = names.zip(meter.errors.iter().map(|error| error.load(Ordering::Relaxed))).collect();
            Metered { operation: *operation, running, took, errors }
        };
        Operation::ALL.iter().zip(&self.meters).map(metered).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_what_ended_and_how() {
        let meters = Meters::default();
        let of = |operation: Operation| meters.all().swap_remove(operation as usize);
        assert!(Operation::ALL.iter().enumerate().all(|(at, operation)| *operation as usize == at));
        let began = meters.begin(Operation::Flush);
        assert_eq!((of(Operation::Flush).running, of(Operation::Flush).took.count), (1, 0));
        meters.end(Operation::Flush, began, Some(Errno::EIO));
        let flush = of(Operation::Flush);
        assert_eq!((flush.running, flush.took.count, flush.errors[0]), (0, 1, ("EIO", 1)));
        for error in [Errno::ENOENT, Errno::EPERM] {
            meters.end(Operation::Lookup, meters.begin(Operation::Lookup), Some(error));
        }
        let failed: Vec<_> = of(Operation::Lookup).errors.into_iter().filter(|(_, count)| *count > 0).collect();
        assert_eq!(failed, [("other", 1)]);
    }
}
