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
        drop(state);
        let in_place = into.from == into.offset;
        let (mut begun, mut may_be_copy) = (0, false);
        let mut copied = 0;
        let mut target = None;
        let mut changes = 0;
        self.modify_from(
            &file,
            into.caller,
            Some(into.fh),
            |work, is_alone| {
                begun = work.begun;
                may_be_copy = in_place && is_alone;
                let goes_on = |origin: &&mut Origin| {
                    may_be_copy
                        && origin.begun + 1 == begun
                        && origin.reached == into.offset
                        && Arc::ptr_eq(&origin.session, into.session)
                };
                // It stays the beginning of the source while this part of it is written behind.
                if let Some(origin) = work.origin.as_mut().filter(goes_on) {
                    origin.begun = begun;
                }
            },
            |image, _| {
                copied = copy(image, &name, left.as_ref())?;
                changes = image.changes();
                target = Some(Arc::clone(image));
                Ok(Some((into.offset, into.offset + copied)))
            },
        )?;
        let mut state = file.state.lock();
        let Some(work) = target.as_ref().and_then(|image| state.work_of(image)) else { return Ok(copied) };
        let before = work.origin.take();
        // Where it goes on from, if it does not begin one.
        let since = match &before {
            Some(origin) => (origin.begun == begun).then_some(origin.since),
            None => (into.offset == 0).then_some(begun),
        };
        work.origin = since.filter(|_| may_be_copy && work.begun == begun).map(|since| Origin {
            session: Arc::clone(into.session),
            reached: into.offset + copied,
            since,
            begun,
            changes,
        });
        drop(state);
        // The end of a session may remove a snapshot: not under a lock.
        drop(before);
        Ok(copied)
    }
}
