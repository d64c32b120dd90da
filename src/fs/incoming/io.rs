//! Reading and writing through handles.

use crate::fs::errno::Errno;
use crate::fs::incoming::Incoming;
use crate::fs::incoming::file::{File, FileState, Work};
use crate::fs::process::{self, ProcessId};
use crate::fs::seam::{Answer, Caller, Fallocate, Fh, Seek, WriteOrigin, WriteRequest};
use crate::image::{DraftImage, IMAGE_MAX_BYTES, ImageReader};
use crate::words::attribute::Mtime;
use std::sync::Arc;

/// What a handle shows.
enum Shown {
    Work(Arc<DraftImage>),
    Version(Arc<ImageReader>),
    Nothing,
}

/// What [`Incoming::graft`] takes from.
pub struct GraftSource<'a> {
    /// The image.
    pub reader: &'a ImageReader,
    /// Where in it.
    pub offset: u64,
}

impl Incoming {
    /// Reads.
    pub fn read(&self, number: u64, fh: Fh, offset: u64, len: usize, buffer: &mut Vec<u8>) -> Answer<()> {
        let file = self.by_number(number)?;
        let shown = Self::shown(&file.state.lock(), fh);
        buffer.resize(len, 0);
        let got = match shown {
            Shown::Work(image) => image.read_at(offset, buffer)?,
            Shown::Version(version) => {
                let len = version.size_bytes().saturating_sub(offset).min(len as u64) as usize;
                version.read_at(offset, &mut buffer[..len])?;
                len
            }
            // What it showed is gone. An end of file here would pass for a shorter file.
            Shown::Nothing => return Err(Errno::EIO),
        };
        buffer.truncate(got);
        Ok(())
    }

    fn shown(state: &FileState, fh: Fh) -> Shown {
        let handle = state.handles.get(&fh);
        if let Some(version) = handle.filter(|handle| handle.pinned).and_then(|handle| handle.version.as_ref()) {
            return Shown::Version(Arc::clone(version));
        }
        match (&state.work, handle.and_then(|handle| handle.version.as_ref())) {
            (Some(work), _) => Shown::Work(Arc::clone(&work.image)),
            (None, Some(version)) => Shown::Version(Arc::clone(version)),
            (None, None) => Shown::Nothing,
        }
    }

    /// Writes. The offset of an appending handle is the end.
    pub fn write(&self, number: u64, request: &WriteRequest<'_>) -> Answer<usize> {
        let file = self.by_number(number)?;
        let fh = (request.origin == WriteOrigin::Call).then_some(request.fh);
        if fh.is_some_and(|fh| !file.state.lock().handles.get(&fh).is_some_and(|handle| handle.writes)) {
            return Err(Errno::EBADF);
        }
        self.modify(&file, request.caller, fh, |image, append| {
            let offset = if append || request.append { image.size_bytes() } else { request.offset };
            let end = offset.checked_add(request.data.len() as u64).filter(|end| *end <= IMAGE_MAX_BYTES);
            let end = end.ok_or(Errno::EFBIG)?;
            image.write_at(offset, request.data)?;
            Ok(Some((offset, end)))
        })?;
        Ok(request.data.len())
    }

    /// Reserves, zeroes or punches.
    pub fn fallocate(&self, caller: Caller, number: u64, fh: Fh, offset: u64, len: u64, how: Fallocate) -> Answer<()> {
        let file = self.by_number(number)?;
        let end = offset.checked_add(len).filter(|end| *end <= IMAGE_MAX_BYTES).ok_or(Errno::EFBIG)?;
        let grows = matches!(how, Fallocate::Allocate | Fallocate::ZeroRange);
        let zeroes = !matches!(how, Fallocate::Allocate | Fallocate::AllocateKeepSize);
        if !zeroes && !grows {
            // Space is reserved nowhere: the target says what it has when it is written to.
            return Ok(());
        }
        self.modify(&file, caller, Some(fh), |image, _| {
            if zeroes {
                image.punch(offset, len)?;
            }
            if grows && end > image.size_bytes() {
                image.truncate(end)?;
            }
            // Room that was made is nothing that was written.
            Ok(zeroes.then_some((offset, end)))
        })
    }

    /// Finds data and holes.
    pub fn lseek(&self, number: u64, fh: Fh, offset: u64, seek: Seek) -> Answer<u64> {
        let file = self.by_number(number)?;
        let shown = Self::shown(&file.state.lock(), fh);
        let size = match &shown {
            Shown::Work(image) => image.size_bytes(),
            Shown::Version(version) => version.size_bytes(),
            Shown::Nothing => 0,
        };
        if offset >= size {
            return Err(Errno::ENXIO);
        }
        match (shown, seek) {
            (Shown::Work(image), Seek::Data) => image.next_data(offset)?.ok_or(Errno::ENXIO),
            (Shown::Work(image), Seek::Hole) => Ok(image.next_hole(offset)?),
            (Shown::Version(version), Seek::Data) => version.next_data(offset)?.ok_or(Errno::ENXIO),
            (Shown::Version(version), Seek::Hole) => Ok(version.next_hole(offset)?),
            (Shown::Nothing, _) => Err(Errno::ENXIO),
        }
    }

    /// A stored image to copy from, if this name shows one without changes.
    pub fn reader_for_copy(&self, number: u64, fh: Fh) -> Answer<Option<Arc<ImageReader>>> {
        let file = self.by_number(number)?;
        match Self::shown(&file.state.lock(), fh) {
            Shown::Version(version) => Ok(Some(version)),
            _ => Ok(None),
        }
    }

    /// Takes a range from a stored image without moving its data, where blocks allow it; a rest is copied. Returns how much
    /// was taken.
    pub fn graft(
        &self,
        caller: Caller,
        number: u64,
        fh: Fh,
        source: &GraftSource<'_>,
        offset: u64,
        len: u64,
    ) -> Answer<u64> {
        /// What is copied the slow way at once, where source and destination do not lie on blocks alike.
        const COPIED_MAX: u64 = 4 << 20;
        let file = self.by_number(number)?;
        let len = len.min(source.reader.size_bytes().saturating_sub(source.offset));
        if len == 0 {
            return Ok(0);
        }
        let mut taken = 0;
        self.modify(&file, caller, Some(fh), |image, _| {
            taken = image.graft(source.reader, source.offset, offset, len)?;
            if taken == 0 {
                taken = len.min(COPIED_MAX);
                let mut bytes = vec![0; taken as usize];
                source.reader.read_at(source.offset, &mut bytes)?;
                image.write_at(offset, &bytes)?;
            }
            Ok(Some((offset, offset + taken)))
        })?;
        Ok(taken)
    }

    /// Runs a change of the content: begins the work if need be, lets an error stick, notes who wrote how far. `change` gets
    /// the image and whether the handle appends, and says which range it went over with
    /// content, if it did.
    pub(super) fn modify(
        &self,
        file: &Arc<File>,
        caller: Caller,
        fh: Option<Fh>,
        change: impl FnOnce(&Arc<DraftImage>, bool) -> Answer<Option<(u64, u64)>>,
    ) -> Answer<()> {
        self.modify_from(file, caller, fh, |_, _| (), change)
    }

    /// As [`Self::modify`]. `begin` gets the work when the change has been counted, with the lock held in which it was, and whether no
    /// other change is running.
    pub(super) fn modify_from(
        &self,
        file: &Arc<File>,
        caller: Caller,
        fh: Option<Fh>,
        begin: impl FnOnce(&mut Work, bool),
        change: impl FnOnce(&Arc<DraftImage>, bool) -> Answer<Option<(u64, u64)>>,
    ) -> Answer<()> {
        let mut state = file.state.lock();
        let process = writer_of(&mut state, fh, caller);
        if let Err(error) = self.first_change(&mut state, process) {
            // What comes after it must not pass for all.
            if let Some(work) = &mut state.work {
                Work::fail(work, error);
            }
            return Err(error);
        }
        let append = fh.and_then(|fh| state.handles.get(&fh)).is_some_and(|handle| handle.append);
        let is_alone = state.writing == 0;
        let work = state.work.as_mut().ok_or(Errno::EIO)?;
        if let Some(error) = work.error {
            return Err(error);
        }
        // Before the first byte of it: whoever looks meanwhile must not take it for somebody else's.
        work.begun += 1;
        begin(work, is_alone);
        let image = Arc::clone(&work.image);
        state.writing += 1;
        drop(state);
        let changed = change(&image, append);
        let mut state = file.state.lock();
        state.writing -= 1;
        if state.writing == 0 {
            file.quiet.notify_all();
        }
        let now = self.repo.clock().now();
        let name = state.name.clone();
        let ours = state.work.as_mut().filter(|work| Arc::ptr_eq(&work.image, &image));
        match changed {
            Ok(range) => {
                if let Some(work) = ours {
                    if let Some((from, to)) = range {
                        work.mend(from, to);
                    }
                    work.writers.extend(process);
                    work.attributes.mtime = Mtime::from(now);
                    work.mtime_set = false;
                }
                if let Some(handle) = fh.and_then(|fh| state.handles.get_mut(&fh)) {
                    handle.reached = range.map_or(handle.reached, |(_, to)| to);
                    handle.active = true;
                }
                Ok(())
            }
            Err(error) => {
                // EFBIG and the like changed nothing; everything else may have.
                if error != Errno::EFBIG
                    && let Some(work) = ours
                {
                    tracing::error!("{name}: writing failed with {error}; it fails until it is opened anew");
                    Work::fail(work, error);
                }
                Err(error)
            }
        }
    }
}

impl Work {
    /// From now on everything fails.
    pub(super) fn fail(work: &mut Self, error: Errno) {
        work.error.get_or_insert(error);
    }
}

/// The process behind a write. Looking at /proc for each would cost more than the write, so the last thread is remembered.
fn writer_of(state: &mut FileState, fh: Option<Fh>, caller: Caller) -> Option<ProcessId> {
    let handle = fh.and_then(|fh| state.handles.get_mut(&fh))?;
    if let Some((thread, process)) = handle.last_writer
        && thread == caller.pid
    {
        return Some(process);
    }
    let process = process::identify(caller.pid)?;
    handle.last_writer = Some((caller.pid, process));
    Some(process)
}
