//! A view of a thin pool's metadata that stands still while `thin_delta` reads it. A pool can have only one.
//!
//! Backups on this machine wait for each other by a lock on a mark in `/run`. Whoever finds a mark that nobody holds and that is not
//! empty comes after a crash and releases what that left; a view that somebody else holds is left alone.

use crate::source::SourceError;
use crate::source::lvm::tools::run;
use nix::fcntl::{Flock, FlockArg};
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

/// Where only root may write, and what a new boot finds empty.
const MARKS: &str = "/run";

/// See the module. It ends when it is dropped.
pub struct MetadataView {
    pool: String,
    mark: Flock<File>,
}

impl MetadataView {
    /// Waits for its turn and takes it, by the name of the pool's device. `None` when somebody else has one.
    ///
    /// # Errors
    /// When the mark cannot be written.
    pub fn take(pool: &str) -> Result<Option<Self>, SourceError> {
        let path = Path::new(MARKS).join(format!("backyfs-{pool}.metadata-view"));
        let failed = |source| SourceError::Open { what: path.display().to_string(), source };
        let mark = File::options().read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
        let mark = Flock::lock(mark, FlockArg::LockExclusive).map_err(|(_, errno)| failed(io::Error::from(errno)))?;
        if mark.metadata().map_err(failed)?.len() > 0 {
            tracing::warn!("{pool}: the view of its metadata that a crash left is released");
            // It may have ended before it took one.
            let _ = message(pool, "release_metadata_snap");
            mark.set_len(0).map_err(failed)?;
        }
        (&*mark).write_all(b"taken\n").map_err(failed)?;
        match message(pool, "reserve_metadata_snap") {
            Ok(()) => Ok(Some(Self { pool: pool.to_owned(), mark })),
            Err(error) => {
                mark.set_len(0).map_err(failed)?;
                tracing::warn!(
                    "everything is read, because what has changed cannot be asked: {error}; if nobody uses the view of the \
                     metadata, release it with dmsetup message {pool} 0 release_metadata_snap"
                );
                Ok(None)
            }
        }
    }
}

impl Drop for MetadataView {
    fn drop(&mut self) {
        let released = message(&self.pool, "release_metadata_snap");
        // The mark stays when it could not be released: the next one tries again.
        if let Err(error) = released
            .and_then(|()| self.mark.set_len(0).map_err(|source| SourceError::Open { what: self.pool.clone(), source }))
        {
            tracing::warn!("the view of the metadata stays for now: {error}");
        }
    }
}

fn message(pool: &str, text: &str) -> Result<(), SourceError> {
    run("dmsetup", &["message", pool, "0", text]).map(drop)
}
