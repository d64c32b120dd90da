//! Open files of `sources/`, and what is done through handles.

use crate::control::jobs::{Job, Unit};
use crate::control::sources_file::RestoreToSources;
use crate::fs::errno::Errno;
use crate::fs::nodes::Node;
use crate::fs::process::{self, Opener};
use crate::fs::seam::{
    Access, Answer, Caching, Caller, CloseNotice, Fallocate, Fh, OpenRequest, Opened, Seek, SetAttr, SetTime,
    WriteRequest, Writes,
};
use crate::fs::sources::copy::Reading;
use crate::fs::sources::restoring::Restoring;
use crate::fs::sources::told::told;
use crate::fs::sources::{Handle, Key, Sources, join};
use crate::ops::snapshots::Session;
use crate::source::Content;
use crate::source::destination::Consent;
use crate::words::attribute::{FileAttributes, Mtime};
use parking_lot::Mutex;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A place in the table of what is being made, kept from others while it is opened. It is free again when that fails.
struct Place<'a> {
    sources: &'a Sources,
    key: Key,
}

impl<'a> Place<'a> {
    fn take(sources: &'a Sources, source: &str, path: &str) -> Answer<Self> {
        let key = (source.to_owned(), path.to_owned());
        match sources.restoring.lock().entry(key.clone()) {
            Entry::Occupied(_) => Err(Errno::EBUSY),
            Entry::Vacant(place) => {
                place.insert(None);
                Ok(Self { sources, key })
            }
        }
    }

    fn fill(self, made: Arc<Restoring>) -> Arc<Restoring> {
        self.sources.restoring.lock().insert(self.key.clone(), Some(Arc::clone(&made)));
        made
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut restoring = self.sources.restoring.lock();
        if restoring.get(&self.key).is_some_and(Option::is_none) {
            restoring.remove(&self.key);
        }
    }
}

impl Sources {
    /// open(2).
    ///
    /// # Errors
    /// EROFS when the mount may not restore, EEXIST for what exists and may not be overwritten, EPERM for writing into the
    /// middle of something.
    pub fn open(&self, caller: Caller, node: &Node, request: &OpenRequest) -> Answer<Opened> {
        let Node::SourceFile(source, path) = node else { return Err(Errno::EISDIR) };
        let handle = match request.access {
            Access::Read => {
                let recipe = self.collection(source)?.recipe(path);
                let session =
                    Session::now(&self.repo, &recipe).map_err(|error| told("opening", source, path, &error))?;
                Handle::Reading(Arc::new(Reading { session: Arc::new(session), trail: Mutex::default() }))
            }
            // A volume is restored as a whole or not at all.
            Access::Write | Access::ReadWrite if !request.truncate => return Err(Errno::EPERM),
            Access::Write | Access::ReadWrite => Handle::Restoring(self.restore(caller, source, path, 0o600)?),
        };
        Ok(self.opened(handle, request.access))
    }

    /// Makes a file: a volume that is to be restored.
    ///
    /// # Errors
    /// As [`Sources::open`].
    pub fn create(
        &self,
        caller: Caller,
        parent: &Node,
        component: &str,
        mode: u32,
        request: &OpenRequest,
    ) -> Answer<(Node, Opened)> {
        let Node::SourceDir(source, dir) = parent else { return Err(Errno::EPERM) };
        let path = join(dir, component);
        let handle = Handle::Restoring(self.restore(caller, source, &path, mode)?);
        Ok((Node::SourceFile(source.clone(), path), self.opened(handle, request.access)))
    }

    fn opened(&self, handle: Handle, access: Access) -> Opened {
        // Reads and writes may wait for a disk or a cluster: never on a thread that serves others.
        let fh = Fh::slow(self.next_fh.fetch_add(1, Ordering::Relaxed));
        self.handles.write().insert(fh, handle);
        let close = if access.writes() { CloseNotice::Flush } else { CloseNotice::Silent };
        Opened { fh, caching: Caching::Direct, writes: Writes::Parallel, close }
    }

    fn restore(&self, caller: Caller, source: &str, path: &str, mode: u32) -> Answer<Arc<Restoring>> {
        let collection = self.collection(source)?;
        let place = Place::take(self, source, path)?;
        let consent = match (self.options.restore, collection.find(path)?) {
            (RestoreToSources::No, _) => return Err(Errno::EROFS),
            (RestoreToSources::New, Some(_)) => {
                tracing::warn!("sources/{source}/{path} exists: mount with restore-to-sources=force to overwrite it");
                return Err(Errno::EEXIST);
            }
            // It is looked at again when it is made: somebody may make it meanwhile.
            (RestoreToSources::New, None) => Consent::None,
            (RestoreToSources::Force, _) => Consent::Force,
        };
        let now = Mtime::from(self.repo.clock().now());
        let attributes = FileAttributes { mode: mode & 0o7777, uid: caller.uid, gid: caller.gid, mtime: now };
        let opener = process::opener(caller.pid).map(|opener: Opener| opener.process);
        let volume = format!("{source}/{path}");
        let job = Job::begin(self.repo.state_dir(), self.repo.clock(), "restore", &volume, Unit::Bytes)
            .inspect_err(|error| tracing::warn!("what is at work is not shown to others: {error}"));
        let made = Restoring::begin(&collection.recipe(path), place.key.clone(), attributes, opener, consent, job.ok())
            .map_err(|error| told("restoring", source, path, &error.into()))?;
        Ok(place.fill(Arc::new(made)))
    }

    pub(super) fn handle(&self, fh: Fh) -> Answer<Handle> {
        self.handles.read().get(&fh).cloned().ok_or(Errno::EBADF)
    }

    /// What a handle writes to.
    pub(super) fn restoring_of(&self, fh: Fh) -> Answer<Arc<Restoring>> {
        match self.handle(fh)? {
            Handle::Restoring(restoring) => Ok(restoring),
            Handle::Reading(_) => Err(Errno::EBADF),
        }
    }

    /// Appends at most `len` bytes from `offset` to `buffer`, which comes empty; fewer only at the end.
    ///
    /// # Errors
    /// Those of the source.
    pub fn read(&self, fh: Fh, offset: u64, len: usize, buffer: &mut Vec<u8>) -> Answer<()> {
        let (size, reading) = match self.handle(fh)? {
            Handle::Reading(reading) => (reading.session.source().size_bytes(), reading),
            Handle::Restoring(restoring) => return restoring.read(offset, len, buffer),
        };
        let left = usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX);
        buffer.resize(len.min(left), 0);
        if buffer.is_empty() {
            return Ok(());
        }
        reading.session.source().read_at(offset, buffer).map_err(|error| {
            tracing::error!("{error}");
            Errno::from(&error)
        })
    }

    /// Writes, and answers how much.
    ///
    /// # Errors
    /// Those of the destination; they stick.
    pub fn write(&self, request: &WriteRequest<'_>) -> Answer<usize> {
        self.restoring_of(request.fh)?.write(request.offset, request.data)
    }

    /// lseek(2) among data and holes.
    ///
    /// # Errors
    /// ENXIO when there is none.
    pub fn lseek(&self, fh: Fh, offset: u64, seek: Seek) -> Answer<u64> {
        let Handle::Reading(reading) = self.handle(fh)? else { return Err(Errno::EINVAL) };
        let source = reading.session.source();
        let mut at = offset;
        while at < source.size_bytes() {
            let extent = source.extent_at(at)?;
            let is_hole = extent.content == Content::Hole;
            if is_hole == (seek == Seek::Hole) {
                return Ok(at);
            }
            at = extent.range.end;
        }
        if seek == Seek::Hole && offset < at { Ok(at) } else { Err(Errno::ENXIO) }
    }

    /// truncate, chmod, chown and utimes: of what is being made.
    ///
    /// # Errors
    /// EPERM for everything else.
    pub fn setattr(&self, node: &Node, change: &SetAttr) -> Answer<()> {
        let Node::SourceFile(source, path) = node else { return Err(Errno::EPERM) };
        let restoring = self.being_made(source, path).ok_or(Errno::EPERM)?;
        if let Some(size) = change.size {
            restoring.resize(size)?;
        }
        restoring.change_attributes(|attributes| {
            attributes.mode = change.mode.map_or(attributes.mode, |mode| mode & 0o7777);
            attributes.uid = change.uid.unwrap_or(attributes.uid);
            attributes.gid = change.gid.unwrap_or(attributes.gid);
            if let Some(SetTime::Set(mtime)) = change.mtime {
                attributes.mtime = mtime;
            }
        });
        Ok(())
    }

    /// fallocate(2) on what is being made.
    ///
    /// # Errors
    /// Those of the destination.
    pub fn fallocate(&self, fh: Fh, offset: u64, len: u64, how: Fallocate) -> Answer<()> {
        let restoring = self.restoring_of(fh)?;
        let end = offset.checked_add(len).ok_or(Errno::EFBIG)?;
        if matches!(how, Fallocate::Allocate | Fallocate::ZeroRange) && end > restoring.size_bytes() {
            restoring.resize(end)?;
        }
        match how {
            Fallocate::Allocate | Fallocate::AllocateKeepSize => Ok(()),
            Fallocate::PunchHole | Fallocate::ZeroRange | Fallocate::ZeroRangeKeepSize => restoring.zero(offset, end),
        }
    }

    /// A close(): what was written is durable, and has its name, when it answers.
    ///
    /// # Errors
    /// Those of the destination.
    pub fn flush(&self, caller: Caller, fh: Fh) -> Answer<()> {
        match self.handle(fh)? {
            Handle::Reading(_) => Ok(()),
            Handle::Restoring(restoring) => restoring.closed(process::closer(caller.pid).as_ref()),
        }
    }

    /// fsync(2).
    ///
    /// # Errors
    /// Those of the destination.
    pub fn fsync(&self, fh: Fh) -> Answer<()> {
        match self.handle(fh)? {
            Handle::Reading(_) => Ok(()),
            Handle::Restoring(restoring) => restoring.check().and_then(|()| restoring.destination().map(drop)),
        }
    }

    /// The last close().
    pub fn release(&self, fh: Fh) {
        let handle = self.handles.write().remove(&fh);
        if let Some(Handle::Restoring(restoring)) = &handle {
            self.restoring.lock().remove(restoring.key());
        }
        // A snapshot goes here, if nobody needs it, and no lock is held.
        drop(handle);
    }
}
