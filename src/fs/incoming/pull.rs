//! Copies from `sources/`, which the daemon does itself.

use crate::fs::incoming::Incoming;
use crate::fs::incoming::file::Origin;
use crate::fs::seam::{Answer, Caller, Fh};
use crate::image::DraftImage;
use crate::ops::snapshots::Session;
use crate::words::name::Name;
use crate::words::record::Record;
use std::sync::Arc;

/// Where a copy goes.
pub struct PullInto<'a> {
    /// Who copies.
    pub caller: Caller,
    /// To which file.
    pub number: u64,
    /// Through which handle.
    pub fh: Fh,
    /// Where in it.
    pub offset: u64,
    /// From where in the source.
    pub from: u64,
    /// From which source.
    pub session: &'a Arc<Session>,
}

impl Incoming {
    /// Runs a copy from a source. `copy` writes into the image and answers how much; it gets the name, and the record of the draft
    /// that this one replaces or goes on from.
    ///
    /// # Errors
    /// What `copy` answers, which sticks; EBADF when the handle cannot write.
    pub fn pull(
        &self,
        into: &PullInto<'_>,
        copy: impl FnOnce(&Arc<DraftImage>, &Name, Option<&Record>) -> Answer<u64>,
    ) -> Answer<u64> {
        use crate::fs::errno::Errno;
        let file = self.by_number(into.number)?;
        let state = file.state.lock();
        if !state.handles.get(&into.fh).is_some_and(|handle| handle.writes) {
            return Err(Errno::EBADF);
        }
        let name = state.name.clone();
        let left = state.work.as_ref().and_then(|work| work.record.clone());
        let begun = state.work.as_ref().map_or(0, |work| work.begun);
        let is_alone = state.writing == 0;
        drop(state);
        let mut copied = 0;
        let mut target = None;
        let mut changes = 0;
        self.modify(&file, into.caller, Some(into.fh), |image, _| {
            copied = copy(image, &name, left.as_ref())?;
            changes = image.changes();
            target = Some(Arc::clone(image));
            Ok(Some((into.offset, into.offset + copied)))
        })?;
        let mut state = file.state.lock();
        let Some(work) = target.as_ref().and_then(|image| state.work_of(image)) else { return Ok(copied) };
        let goes_on = |origin: &Origin| {
            Arc::ptr_eq(&origin.session, into.session) && origin.reached == into.offset && origin.begun == begun
        };
        let begins = into.offset == 0 && work.origin.is_none();
        let before = work.origin.take();
        let is_copy = is_alone
            && work.begun == begun + 1
            && into.from == into.offset
            && (before.as_ref().is_some_and(goes_on) || begins);
        work.origin = is_copy.then(|| Origin {
            session: Arc::clone(into.session),
            reached: into.offset + copied,
            begun: work.begun,
            changes,
        });
        drop(state);
        // The end of a session may remove a snapshot: not under a lock.
        drop(before);
        Ok(copied)
    }
}
