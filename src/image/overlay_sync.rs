//! Making an overlay durable, and keeping its journal short.

use crate::image::overlay::{OverlayError, OverlayFile};
use crate::image::overlay_format::Payload;
use crate::image::overlay_journal::{AppendError, Journal};
use std::io;
use std::sync::atomic::Ordering;

/// Unsynced bytes from which on [`OverlayFile::wants_sync`] says yes.
const SYNC_HINT_BYTES: u64 = 64 << 20;

impl OverlayFile {
    /// Notes that acknowledged content may be lost, which no later sync can make good.
    fn lose(&self, what: &'static str, source: io::Error) -> OverlayError {
        // The first reason stands.
        let _ = self.lost.set(format!("{what}: {source}"));
        OverlayError::Io { uid: self.uid(), what, source }
    }

    /// Whether so much is unsynced that a sync in the background is due.
    pub fn wants_sync(&self) -> bool {
        self.unsynced_bytes.load(Ordering::Relaxed) >= SYNC_HINT_BYTES
    }

    /// Asks the kernel to begin writing the data file to the disk, so that the next [`Self::sync`] has less to wait for.
    /// Promises nothing.
    pub fn start_writeback(&self) {
        if let Err(error) = self.data.start_writeback() {
            tracing::debug!(uid = %self.identity.uid, %error, "no writeback ahead of time");
        }
    }

    /// Everything written and discarded by calls that returned before this one began is durable on return.
    ///
    /// # Errors
    /// A full disk ([`OverlayError::NoSpace`]) can be tried again. After any other failure every write and sync is refused with
    /// [`OverlayError::Lost`].
    pub fn sync(&self) -> Result<(), OverlayError> {
        let mut journal = self.journal.lock();
        self.check_nothing_lost()?;
        let unsynced = self.unsynced_bytes.swap(0, Ordering::AcqRel);
        let dirty = self.bitmap.take_dirty();
        if dirty.is_empty() {
            // Content was rewritten in place, at most. No batch takes note of the time, so the inode must: hence fsync.
            return if unsynced == 0 {
                Ok(())
            } else {
                self.data.sync_all().map_err(|e| self.lose("sync its data", e))
            };
        }
        let mut done = 0;
        while done < dirty.len() {
            if let Err(error) = self.journal_some(&mut journal, &dirty, &mut done) {
                self.bitmap.put_back_dirty(&dirty[done..]);
                self.unsynced_bytes.fetch_add(unsynced.max(1), Ordering::AcqRel);
                return Err(error);
            }
        }
        if journal.is_long(&self.tuning) { self.rewrite_journal(&mut journal) } else { Ok(()) }
    }

    /// Journals as many of the pages from `done` on as make a batch, and moves `done`. The order of its steps is what the first
    /// paragraphs of `overlay` argue about.
    fn journal_some(&self, journal: &mut Journal, dirty: &[u32], done: &mut usize) -> Result<(), OverlayError> {
        let mut payload = Payload::default();
        let mut end = *done;
        while end < dirty.len() && payload.bytes().len() < self.tuning.batch_bytes {
            payload.push(dirty[end], &self.bitmap.page(dirty[end]));
            end += 1;
        }
        self.data.sync_data().map_err(|error| self.lose("sync its data", error))?;
        let mtime = self.data.mtime().map_err(|source| OverlayError::io(self.uid(), "read its time", source))?;
        journal.append(&payload, mtime).map_err(|error| match error {
            AppendError::Unchanged(source) => OverlayError::io(self.uid(), "write its journal", source),
            AppendError::Unknown(source) => self.lose("sync its journal", source),
        })?;
        *done = end;
        Ok(())
    }

    /// Shortens the journal. That it fails for want of space, say, is no error of the sync that called: the journal is whole.
    fn rewrite_journal(&self, journal: &mut Journal) -> Result<(), OverlayError> {
        let rewritten = self.data.mtime().and_then(|mtime| {
            Journal::rewrite(&self.disk, &self.names, &self.identity, &self.bitmap, (mtime, &self.tuning))
        });
        let result = match rewritten {
            Err(error) => Err(AppendError::Unchanged(error)),
            Ok(fresh) => match self.data.sync_data() {
                Err(error) => Err(AppendError::Unknown(error)),
                Ok(()) => journal.replace(fresh, &self.disk, &self.names),
            },
        };
        match result {
            Ok(()) => Ok(()),
            Err(AppendError::Unknown(error)) => Err(self.lose("replace its journal", error)),
            Err(AppendError::Unchanged(error)) => {
                tracing::warn!(uid = %self.identity.uid, %error, "the journal of the overlay could not be shortened");
                journal.postpone_rewriting();
                // An unfinished one would only take space; the next opening removes it too.
                self.disk.remove(&self.names.new_map).or_else(|error| {
                    tracing::debug!(uid = %self.identity.uid, %error, "an unfinished journal stays");
                    Ok(())
                })
            }
        }
    }
}
