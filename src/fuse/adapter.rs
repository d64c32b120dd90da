//! Translates the kernel's requests to `fs::seam::Operations` and its answers back. It decides nothing but which thread
//! does the work.

use crate::fs::errno::Errno;
use crate::fs::meters::{Meters, Operation};
use crate::fs::seam::{
    Answer, COPY_MAX_BYTES, Caching, CopyRange, Fh, Ino, Operations, Seek, SetAttr, SyncScope, WriteOrigin,
    WriteRequest,
};
use crate::fuse::convert;
use crate::fuse::reply::{GENERATION, Listing, attributes, data, empty, entry, written};
use crate::fuse::workers::Workers;
use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, FileHandle, Filesystem, INodeNo, InitFlags, IoctlFlags,
    KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty,
    ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use std::any::Any;
use std::cell::RefCell;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

/// The longest read and write the kernel may send; longer ones gain nothing (docs/decisions/0010-kernel-edge.md).
pub(super) const REQUEST_MAX_BYTES: u32 = 1 << 20;
/// Asynchronous requests (read-ahead, direct AIO) the kernel may have outstanding.
const BACKGROUND_MAX: u16 = 64;

/// What is asked of the kernel at INIT, each where it has it:
/// * O_TRUNC arrives with the open: a truncating writer and a change of size are different things here;
/// * asynchronous direct I/O, parallel lookups and listings;
/// * we take care of set-id bits, so that it does not ask for `security.capability` before every write;
/// * shared mappings of files opened for direct I/O;
/// * no export by NFS: kernel threads close whenever they like.
///
/// Not asked for: the writeback cache (ENOSPC would appear only at close) and SETXATTR_EXT (fuser 0.18 panics on it).
const WANTED: InitFlags = InitFlags::FUSE_ATOMIC_O_TRUNC
    .union(InitFlags::FUSE_ASYNC_DIO)
    .union(InitFlags::FUSE_PARALLEL_DIROPS)
    .union(InitFlags::FUSE_HANDLE_KILLPRIV_V2)
    .union(InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP)
    .union(InitFlags::FUSE_NO_EXPORT_SUPPORT);

thread_local! {
    /// Every request thread reads into a buffer of its own, which it keeps: memory reclaim may be waiting for us.
    static READ_BUFFER: RefCell<Vec<u8>> = RefCell::new(Vec::with_capacity(REQUEST_MAX_BYTES as usize));
}

/// The filesystem as fuser sees it.
pub(super) struct Adapter {
    operations: Arc<dyn Operations>,
    workers: Workers,
}

impl Adapter {
    pub(super) fn new(operations: Arc<dyn Operations>, workers: Workers) -> Self {
        Self { operations, workers }
    }

    /// Runs an operation on a worker and answers from there.
    fn slow<T, R: Send + 'static>(
        &self,
        what: Operation,
        reply: R,
        work: impl FnOnce(&dyn Operations) -> Answer<T> + Send + 'static,
        answer: impl FnOnce(R, Answer<T>) + Send + 'static,
    ) {
        let operations = Arc::clone(&self.operations);
        // Waiting for a worker is waiting, too.
        let began = operations.meters().map(|meters| meters.begin(what));
        self.workers.run(move || answer(reply, metered(&*operations, what, began, work)));
    }

    /// Runs an operation here.
    fn now<T>(&self, what: Operation, work: impl FnOnce(&dyn Operations) -> Answer<T>) -> Answer<T> {
        let began = self.operations.meters().map(|meters| meters.begin(what));
        metered(&*self.operations, what, began, work)
    }

    fn note(&self, note: impl FnOnce(&Meters)) {
        self.operations.meters().map(note).unwrap_or_default();
    }
}

/// Runs an operation and counts how it ended.
fn metered<T>(
    operations: &dyn Operations,
    what: Operation,
    began: Option<Instant>,
    work: impl FnOnce(&dyn Operations) -> Answer<T>,
) -> Answer<T> {
    let answer = guarded(what.name(), || work(operations));
    if let (Some(meters), Some(began)) = (operations.meters(), began) {
        meters.end(what, began, answer.as_ref().err().copied());
    }
    answer
}

/// A programming error in one request must not take the mount down: it is answered with EIO and logged.
pub(super) fn guarded<T>(what: &'static str, work: impl FnOnce() -> Answer<T>) -> Answer<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        tracing::error!("{what} failed on a programming error: {}", panic_text(&*panic));
        Err(Errno::EIO)
    })
}

/// What a panic said.
pub(super) fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

impl Filesystem for Adapter {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let wanted = WANTED & config.capabilities();
        // Each of these answers with the nearest possible value when it refuses, and only what was offered is asked for.
        let _ = config.add_capabilities(wanted);
        let _ = config.set_max_write(REQUEST_MAX_BYTES);
        let _ = config.set_max_background(BACKGROUND_MAX);
        if let Err(nearest) = config.set_max_readahead(4 * REQUEST_MAX_BYTES) {
            let _ = config.set_max_readahead(nearest);
        }
        Ok(())
    }

    fn destroy(&mut self) {
        self.workers.finish();
    }

    fn lookup(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let caller = convert::caller(req);
        if self.operations.may_wait(Ino(parent.0)) {
            let name = name.to_owned();
            return self.slow(Operation::Lookup, reply, move |fs| fs.lookup(caller, Ino(parent.0), &name), entry);
        }
        entry(reply, self.now(Operation::Lookup, |fs| fs.lookup(caller, Ino(parent.0), name)));
    }

    fn forget(&self, _req: &Request, ino: INodeNo, lookups: u64) {
        // Nobody waits for an answer.
        let _ = self.now(Operation::Forget, |fs| {
            fs.forget(Ino(ino.0), lookups);
            Ok(())
        });
    }

    fn getattr(&self, req: &Request, ino: INodeNo, fh: Option<FileHandle>, reply: ReplyAttr) {
        let (caller, fh) = (convert::caller(req), fh.map(|fh| Fh(fh.0)));
        if self.operations.may_wait(Ino(ino.0)) {
            return self.slow(Operation::Getattr, reply, move |fs| fs.getattr(caller, Ino(ino.0), fh), attributes);
        }
        attributes(reply, self.now(Operation::Getattr, |fs| fs.getattr(caller, Ino(ino.0), fh)));
    }

    fn setattr(
        &self,
        req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let (atime, mtime) = (atime.map(convert::set_time), mtime.map(convert::set_time));
        let mode = mode.map(|mode| mode & 0o7777);
        let change = SetAttr { mode, uid, gid, size, atime, mtime, fh: fh.map(|fh| Fh(fh.0)) };
        let caller = convert::caller(req);
        self.slow(Operation::Setattr, reply, move |fs| fs.setattr(caller, Ino(ino.0), change), attributes);
    }

    fn readlink(&self, _req: &Request, ino: INodeNo, reply: ReplyData) {
        match self.now(Operation::Readlink, |fs| fs.readlink(Ino(ino.0))) {
            Ok(target) => reply.data(target.as_bytes()),
            Err(errno) => reply.error(convert::errno(errno)),
        }
    }

    fn mknod(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        _rdev: u32,
        reply: ReplyEntry,
    ) {
        if mode & libc::S_IFMT != libc::S_IFREG {
            return reply.error(convert::errno(Errno::EPERM));
        }
        let (caller, name) = (convert::caller(req), name.to_owned());
        self.slow(Operation::Mknod, reply, move |fs| fs.mknod(caller, Ino(parent.0), &name, mode & 0o7777), entry);
    }

    fn mkdir(&self, req: &Request, parent: INodeNo, name: &OsStr, mode: u32, _umask: u32, reply: ReplyEntry) {
        let (caller, name) = (convert::caller(req), name.to_owned());
        self.slow(Operation::Mkdir, reply, move |fs| fs.mkdir(caller, Ino(parent.0), &name, mode & 0o7777), entry);
    }

    fn unlink(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (caller, name) = (convert::caller(req), name.to_owned());
        self.slow(Operation::Unlink, reply, move |fs| fs.unlink(caller, Ino(parent.0), &name), empty);
    }

    fn rmdir(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (caller, name) = (convert::caller(req), name.to_owned());
        self.slow(Operation::Rmdir, reply, move |fs| fs.rmdir(caller, Ino(parent.0), &name), empty);
    }

    fn symlink(&self, req: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let (caller, name, target) = (convert::caller(req), name.to_owned(), target.to_owned());
        self.slow(Operation::Symlink, reply, move |fs| fs.symlink(caller, Ino(parent.0), &name, &target), entry);
    }

    fn rename(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let mode = match convert::rename_mode(flags) {
            Ok(mode) => mode,
            Err(errno) => return reply.error(convert::errno(errno)),
        };
        let (caller, name, newname) = (convert::caller(req), name.to_owned(), newname.to_owned());
        let work =
            move |fs: &dyn Operations| fs.rename(caller, (Ino(parent.0), &name), (Ino(newparent.0), &newname), mode);
        self.slow(Operation::Rename, reply, work, empty);
    }

    fn link(&self, req: &Request, ino: INodeNo, newparent: INodeNo, newname: &OsStr, reply: ReplyEntry) {
        let (caller, name) = (convert::caller(req), newname.to_owned());
        self.slow(Operation::Link, reply, move |fs| fs.link(caller, Ino(ino.0), Ino(newparent.0), &name), entry);
    }

    fn create(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let (caller, name, request) = (convert::caller(req), name.to_owned(), convert::open_request(flags));
        let work = move |fs: &dyn Operations| fs.create(caller, Ino(parent.0), &name, mode & 0o7777, request);
        self.slow(Operation::Create, reply, work, |reply, answer| match answer {
            Ok((entry, opened)) => {
                // fuser has one time for both here.
                let ttl = entry.entry_ttl.min(entry.attr_ttl);
                let flags = convert::open_flags(&opened);
                reply.created(&ttl, &convert::attr(&entry.attr), GENERATION, FileHandle(opened.fh.0), flags);
            }
            Err(errno) => reply.error(convert::errno(errno)),
        });
    }

    fn open(&self, req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let (caller, request) = (convert::caller(req), convert::open_request(flags.0));
        self.slow(
            Operation::Open,
            reply,
            move |fs| fs.open(caller, Ino(ino.0), request),
            |reply, answer| match answer {
                Ok(opened) => reply.opened(FileHandle(opened.fh.0), convert::open_flags(&opened)),
                Err(errno) => reply.error(convert::errno(errno)),
            },
        );
    }

    fn read(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let (ino, fh, len) = (Ino(ino.0), Fh(fh.0), size as usize);
        if fh.is_slow() {
            let work = move |fs: &dyn Operations| {
                let mut buffer = Vec::with_capacity(len.min(64 << 10));
                fs.read(ino, fh, offset, len, &mut buffer).map(|()| buffer)
            };
            return self.slow(Operation::Read, reply, work, move |reply, answer| match answer {
                Ok(buffer) => data(reply, Ok(()), &buffer, len),
                Err(errno) => data(reply, Err(errno), &[], len),
            });
        }
        READ_BUFFER.with_borrow_mut(|buffer| {
            buffer.clear();
            let answer = self.now(Operation::Read, |fs| fs.read(ino, fh, offset, len, buffer));
            self.note(|meters| meters.note_read(buffer.len() as u64));
            data(reply, answer, buffer, len);
        });
    }

    fn write(
        &self,
        req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let from_cache = write_flags.contains(WriteFlags::FUSE_WRITE_CACHE);
        let origin = if from_cache { WriteOrigin::PageCache } else { WriteOrigin::Call };
        let append = !from_cache && flags.0 & libc::O_APPEND != 0;
        let (ino, fh, caller) = (Ino(ino.0), Fh(fh.0), convert::caller(req));
        if fh.is_slow() && !from_cache {
            let data = data.to_vec();
            let work = move |fs: &dyn Operations| {
                fs.write(WriteRequest { ino, fh, offset, data: &data, origin, append, caller }).map(|len| len as u64)
            };
            return self.slow(Operation::Write, reply, work, written);
        }
        let request = WriteRequest { ino, fh, offset, data, origin, append, caller };
        let answer = self.now(Operation::Write, |fs| fs.write(request).map(|len| len as u64));
        self.note(|meters| meters.note_written(answer.unwrap_or(0)));
        written(reply, answer);
    }

    fn flush(&self, req: &Request, ino: INodeNo, fh: FileHandle, lock_owner: LockOwner, reply: ReplyEmpty) {
        let caller = convert::caller(req);
        self.slow(Operation::Flush, reply, move |fs| fs.flush(caller, Ino(ino.0), Fh(fh.0), lock_owner.0), empty);
    }

    fn release(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        let work = move |fs: &dyn Operations| {
            fs.release(Ino(ino.0), Fh(fh.0));
            Ok(())
        };
        self.slow(Operation::Release, reply, work, empty);
    }

    fn fsync(&self, req: &Request, ino: INodeNo, fh: FileHandle, datasync: bool, reply: ReplyEmpty) {
        let scope = if datasync { SyncScope::DataOnly } else { SyncScope::Everything };
        let caller = convert::caller(req);
        self.slow(Operation::Fsync, reply, move |fs| fs.fsync(caller, Ino(ino.0), Fh(fh.0), scope), empty);
    }

    fn opendir(&self, req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let caller = convert::caller(req);
        let opened = |reply: ReplyOpen, answer: Answer<(Fh, Caching)>| match answer {
            Ok((fh, caching)) => reply.opened(FileHandle(fh.0), convert::directory_flags(caching)),
            Err(errno) => reply.error(convert::errno(errno)),
        };
        if self.operations.may_wait(Ino(ino.0)) {
            return self.slow(Operation::Opendir, reply, move |fs| fs.opendir(caller, Ino(ino.0)), opened);
        }
        opened(reply, self.now(Operation::Opendir, |fs| fs.opendir(caller, Ino(ino.0))));
    }

    fn readdir(&self, _req: &Request, ino: INodeNo, fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let sink = &mut Listing(&mut reply);
        match self.now(Operation::Readdir, |fs| fs.readdir(Ino(ino.0), Fh(fh.0), offset, sink)) {
            Ok(()) => reply.ok(),
            Err(errno) => reply.error(convert::errno(errno)),
        }
    }

    fn releasedir(&self, _req: &Request, ino: INodeNo, fh: FileHandle, _flags: OpenFlags, reply: ReplyEmpty) {
        let closed = self.now(Operation::Releasedir, |fs| {
            fs.releasedir(Ino(ino.0), Fh(fh.0));
            Ok(())
        });
        empty(reply, closed);
    }

    fn fsyncdir(&self, _req: &Request, ino: INodeNo, fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        self.slow(Operation::Fsyncdir, reply, move |fs| fs.fsyncdir(Ino(ino.0), Fh(fh.0)), empty);
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        match self.now(Operation::Statfs, Operations::statfs) {
            Ok(s) => reply.statfs(
                s.blocks,
                s.blocks_free,
                s.blocks_available,
                s.files,
                s.files_free,
                s.block_size,
                s.name_max,
                s.block_size,
            ),
            Err(errno) => reply.error(convert::errno(errno)),
        }
    }

    fn access(&self, req: &Request, ino: INodeNo, mask: AccessFlags, reply: ReplyEmpty) {
        empty(reply, self.now(Operation::Access, |fs| fs.access(convert::caller(req), Ino(ino.0), mask.bits())));
    }

    fn fallocate(
        &self,
        req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let how = match convert::fallocate(mode) {
            Ok(how) => how,
            Err(errno) => return reply.error(convert::errno(errno)),
        };
        let caller = convert::caller(req);
        let work = move |fs: &dyn Operations| fs.fallocate(caller, Ino(ino.0), Fh(fh.0), offset, length, how);
        self.slow(Operation::Fallocate, reply, work, empty);
    }

    fn lseek(&self, _req: &Request, ino: INodeNo, fh: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
        let seek = match whence {
            libc::SEEK_DATA => Seek::Data,
            libc::SEEK_HOLE => Seek::Hole,
            _ => return reply.error(convert::errno(Errno::EINVAL)),
        };
        // A negative offset is past every end (lseek(2): ENXIO).
        let Ok(offset) = u64::try_from(offset) else { return reply.error(convert::errno(Errno::ENXIO)) };
        let found = |reply: ReplyLseek, answer: Answer<u64>| match answer {
            Ok(found) => reply.offset(i64::try_from(found).unwrap_or(i64::MAX)),
            Err(errno) => reply.error(convert::errno(errno)),
        };
        let (ino, fh) = (Ino(ino.0), Fh(fh.0));
        // Where data is only the source knows.
        if fh.is_slow() {
            return self.slow(Operation::Lseek, reply, move |fs| fs.lseek(ino, fh, offset, seek), found);
        }
        found(reply, self.now(Operation::Lseek, |fs| fs.lseek(ino, fh, offset, seek)));
    }

    fn copy_file_range(
        &self,
        req: &Request,
        ino_in: INodeNo,
        fh_in: FileHandle,
        offset_in: u64,
        ino_out: INodeNo,
        fh_out: FileHandle,
        offset_out: u64,
        len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let range = CopyRange {
            ino_in: Ino(ino_in.0),
            fh_in: Fh(fh_in.0),
            offset_in,
            ino_out: Ino(ino_out.0),
            fh_out: Fh(fh_out.0),
            offset_out,
            len: len.min(COPY_MAX_BYTES),
        };
        let caller = convert::caller(req);
        self.slow(Operation::CopyFileRange, reply, move |fs| fs.copy_file_range(caller, range), written);
    }

    /// There are no extended attributes. The kernel believes ENOSYS for good and tells callers EOPNOTSUPP, which spares `ls -l`
    /// three questions a file and every write the one for `security.capability`.
    fn setxattr(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _name: &OsStr,
        _value: &[u8],
        _flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        reply.error(convert::errno(Errno::ENOSYS));
    }

    fn getxattr(&self, _req: &Request, _ino: INodeNo, _name: &OsStr, _size: u32, reply: ReplyXattr) {
        reply.error(convert::errno(Errno::ENOSYS));
    }

    /// An empty list rather than an error: `tar --xattrs` and `rsync -X` then copy without a word.
    fn listxattr(&self, _req: &Request, _ino: INodeNo, size: u32, reply: ReplyXattr) {
        if size == 0 { reply.size(0) } else { reply.data(&[]) }
    }

    fn removexattr(&self, _req: &Request, _ino: INodeNo, _name: &OsStr, reply: ReplyEmpty) {
        reply.error(convert::errno(Errno::ENOSYS));
    }

    fn ioctl(
        &self,
        req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        _flags: IoctlFlags,
        cmd: u32,
        in_data: &[u8],
        out_size: u32,
        reply: ReplyIoctl,
    ) {
        match self.now(Operation::Ioctl, |fs| fs.ioctl(convert::caller(req), Ino(ino.0), Fh(fh.0), cmd, in_data)) {
            Ok(out) => reply.ioctl(0, &out[..out.len().min(out_size as usize)]),
            Err(errno) => reply.error(convert::errno(errno)),
        }
    }
}
