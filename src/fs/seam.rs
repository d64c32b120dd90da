//! Where the kernel's requests enter the filesystem: plain structs in, plain structs out, no kernel and no FUSE in sight.
//! `fuse` translates requests to [`Operations`]; tests call it directly.

use crate::fs::errno::Errno;
use crate::fs::meters::Meters;
use crate::words::attribute::Mtime;
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::time::Duration;

/// What every operation answers.
pub type Answer<T> = Result<T, Errno>;

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// The *thread* that asks (`fs::process` maps it to its process); 0 when the kernel itself asks, or a process in a
    /// pid namespace we cannot see.
    pub pid: u32,
}

/// An inode number, stable while mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ino(pub u64);

impl Ino {
    /// The root directory.
    pub const ROOT: Self = Self(1);
}

/// An open handle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fh(pub u64);

impl Fh {
    const SLOW: u64 = 1 << 63;

    /// A handle whose reads and writes may take long (they change the repository, or wait for the kernel): they are run
    /// on worker threads, never on those that serve ordinary requests.
    pub const fn slow(number: u64) -> Self {
        Self(number | Self::SLOW)
    }

    /// Whether it was made by [`Fh::slow`].
    pub const fn is_slow(self) -> bool {
        self.0 & Self::SLOW != 0
    }
}

/// What a node of the tree is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum NodeKind {
    Directory,
    File,
    Symlink,
}

/// What `stat` shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileAttr {
    /// Which inode.
    pub ino: Ino,
    /// Bytes.
    pub size: u64,
    /// Bytes really held, in units of 512. `cp` takes a file whose blocks cover its size for one without holes.
    pub blocks512: u64,
    /// Last access.
    pub atime: Mtime,
    /// Last change of the content.
    pub mtime: Mtime,
    /// Last change of the inode.
    pub ctime: Mtime,
    /// Directory, file or symbolic link.
    pub kind: NodeKind,
    /// Permission bits (07777).
    pub perm: u16,
    /// Links.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// The size tools should read and write in; 1 MiB makes `cp` fast.
    pub blksize: u32,
}

impl FileAttr {
    /// A directory whose times are all `time`. Its links are not counted: 1 says so (find and others go by it).
    pub fn directory(ino: Ino, time: Mtime, perm: u16, uid: u32, gid: u32) -> Self {
        let (size, blksize) = (4096, 4096);
        let (atime, mtime, ctime, kind) = (time, time, time, NodeKind::Directory);
        Self { ino, size, blocks512: 8, atime, mtime, ctime, kind, perm, nlink: 1, uid, gid, blksize }
    }
}

/// Attributes and how long the kernel may believe them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attr {
    /// The attributes.
    pub attr: FileAttr,
    /// How long they hold.
    pub ttl: Duration,
}

/// The answer to a lookup. Each one counts as one lookup until `forget`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// The attributes.
    pub attr: FileAttr,
    /// How long the name leads to this inode.
    pub entry_ttl: Duration,
    /// How long the attributes hold.
    pub attr_ttl: Duration,
}

/// What the kernel's page cache does for a handle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caching {
    /// Every read and write comes here (FOPEN_DIRECT_IO). Sizes need not be known in advance.
    Direct,
    /// Pages stay from one open to the next (FOPEN_KEEP_CACHE): for what changes only through this mount.
    Keep,
    /// Cached while open, dropped at the next open.
    Plain,
}

/// Whether direct writes of one inode may run side by side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Writes {
    Parallel,
    Serial,
}

/// Whether each close() is announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseNotice {
    /// FLUSH at each close().
    Flush,
    /// Only the last one, as RELEASE: for handles that cannot write.
    Silent,
}

/// An opened file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened {
    /// The handle.
    pub fh: Fh,
    /// How the page cache treats it.
    pub caching: Caching,
    /// Only matters with [`Caching::Direct`].
    pub writes: Writes,
    /// Whether FLUSH is wanted.
    pub close: CloseNotice,
}

/// What a file is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Access {
    Read,
    Write,
    ReadWrite,
}

impl Access {
    /// Whether the handle may write.
    pub const fn writes(self) -> bool {
        matches!(self, Self::Write | Self::ReadWrite)
    }

    /// Whether the handle may read.
    pub const fn reads(self) -> bool {
        matches!(self, Self::Read | Self::ReadWrite)
    }
}

/// How a file is opened, from the flags of open(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenRequest {
    /// Read, write or both.
    pub access: Access,
    /// O_APPEND.
    pub append: bool,
    /// O_TRUNC; it arrives with the open, never as a separate change of size.
    pub truncate: bool,
    /// O_EXCL.
    pub exclusive: bool,
    /// O_DIRECT.
    pub direct: bool,
    /// O_SYNC or O_DSYNC.
    pub sync: bool,
    /// Opened by execve(2).
    pub exec: bool,
}

/// A time to set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum SetTime {
    Set(Mtime),
    Now,
}

/// What to change; `None` leaves it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SetAttr {
    /// Permission bits (07777).
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Size in bytes.
    pub size: Option<u64>,
    /// Access time.
    pub atime: Option<SetTime>,
    /// Modification time.
    pub mtime: Option<SetTime>,
    /// Through which handle (ftruncate); `None` by path. Times and modes never carry one.
    pub fh: Option<Fh>,
}

/// What happens when the new name exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RenameMode {
    /// It is replaced.
    Replace,
    /// EEXIST.
    NoReplace,
    /// The two change places.
    Exchange,
}

/// Where written bytes come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteOrigin {
    /// A write(2), by this caller and handle.
    Call,
    /// Dirty pages of a shared mapping: caller and handle are guesses of the kernel, only the inode counts. Must be served
    /// without waiting for any other request.
    PageCache,
}

/// A write.
#[derive(Debug, Clone, Copy)]
pub struct WriteRequest<'a> {
    /// Which file.
    pub ino: Ino,
    /// Through which handle.
    pub fh: Fh,
    /// Where.
    pub offset: u64,
    /// What.
    pub data: &'a [u8],
    /// From a call or from the page cache.
    pub origin: WriteOrigin,
    /// O_APPEND at the time of the call; `offset` is then the size the kernel believes in.
    pub append: bool,
    /// Who; pid 0 when from the page cache.
    pub caller: Caller,
}

/// Whether a sync covers the data alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum SyncScope {
    DataOnly,
    Everything,
}

/// fallocate(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fallocate {
    /// Mode 0: reserves, and grows the file to cover the range.
    Allocate,
    /// FALLOC_FL_KEEP_SIZE: reserves without growing.
    AllocateKeepSize,
    /// PUNCH_HOLE | KEEP_SIZE: zeroes what lies inside the file.
    PunchHole,
    /// ZERO_RANGE: zeroes, and grows the file to cover the range.
    ZeroRange,
    /// ZERO_RANGE | KEEP_SIZE.
    ZeroRangeKeepSize,
}

/// lseek(2) among data and holes; the other kinds never leave the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Seek {
    Data,
    Hole,
}

/// Source and destination of copy_file_range(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CopyRange {
    /// Source file.
    pub ino_in: Ino,
    /// Source handle.
    pub fh_in: Fh,
    /// Source offset.
    pub offset_in: u64,
    /// Destination file.
    pub ino_out: Ino,
    /// Destination handle.
    pub fh_out: Fh,
    /// Destination offset.
    pub offset_out: u64,
    /// Bytes wanted; fewer may be answered. At most [`COPY_MAX_BYTES`].
    pub len: u64,
}

/// The longest copy one answer can report (its field has 32 bits), rounded down to 4 KiB.
pub const COPY_MAX_BYTES: u64 = (u32::MAX as u64) & !4095;

/// statfs(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Statfs {
    /// Bytes of one unit of the following.
    pub block_size: u32,
    /// Units in all.
    pub blocks: u64,
    /// Units free.
    pub blocks_free: u64,
    /// Units free to those who are not root.
    pub blocks_available: u64,
    /// Inodes in all.
    pub files: u64,
    /// Inodes free.
    pub files_free: u64,
    /// Longest name.
    pub name_max: u32,
}

/// Takes directory entries until it is full.
pub trait DirSink {
    /// Offers one entry. `next_offset` is where a later readdir goes on after it (never 0). `.` and `..` are entries like
    /// any other, and the filesystem offers them.
    #[must_use]
    fn push(&mut self, ino: Ino, kind: NodeKind, name: &OsStr, next_offset: u64) -> Room;
}

/// Whether the last entry went in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// It did.
    Taken,
    /// It did not; stop, the kernel will ask again from its offset.
    Full,
}

/// What the filesystem can ask of the kernel. May be called from any thread, also while serving a request: the notice is
/// sent by a thread that serves none.
pub trait KernelCache: Send + Sync {
    /// Drops the cached pages and attributes of an inode, and returns when that is done. Dirty pages are written first,
    /// as [`WriteOrigin::PageCache`]; the caller holds no lock such a write needs, and runs on no thread that serves
    /// ordinary requests (give the handle a [`Fh::slow`] number).
    ///
    /// # Errors
    /// ETIMEDOUT when the kernel did not finish in time; ENOSYS when nothing is mounted.
    fn drop_pages(&self, ino: Ino) -> Answer<()>;

    /// Drops the attributes of an inode, without waiting.
    fn drop_attributes(&self, ino: Ino);

    /// Drops a name from a directory's cache, without waiting.
    fn drop_name(&self, parent: Ino, name: &OsStr);
}

/// The filesystem. Every method may be called from many threads at once; a panic is answered with EIO and logged.
///
/// Which thread calls: `lookup`, `forget`, `getattr`, `readlink`, `access`, `statfs`, directory reading, `lseek`, `read` and
/// `write` on one of a few request threads, so they should not wait long (a read of a cold block is fine). Everything else
/// (and what [`Operations::may_wait`] or a [`Fh::slow`] handle names) runs on a worker and may wait for the target.
pub trait Operations: Send + Sync + 'static {
    /// Whether looking at an inode, or at what is in it, may wait for another machine. Must not wait itself.
    fn may_wait(&self, _ino: Ino) -> bool {
        false
    }

    /// Finds a name in a directory.
    fn lookup(&self, caller: Caller, parent: Ino, name: &OsStr) -> Answer<Entry>;

    /// Takes back `lookups` of the answers that led to this inode.
    fn forget(&self, ino: Ino, lookups: u64);

    /// stat(2).
    fn getattr(&self, caller: Caller, ino: Ino, fh: Option<Fh>) -> Answer<Attr>;

    /// chmod, chown, truncate, utimes.
    fn setattr(&self, caller: Caller, ino: Ino, change: SetAttr) -> Answer<Attr>;

    /// Where a symbolic link leads.
    fn readlink(&self, ino: Ino) -> Answer<OsString>;

    /// mkdir(2); `mode` has the umask applied.
    fn mkdir(&self, caller: Caller, parent: Ino, name: &OsStr, mode: u32) -> Answer<Entry>;

    /// mknod(2) of a regular file.
    fn mknod(&self, caller: Caller, parent: Ino, name: &OsStr, mode: u32) -> Answer<Entry>;

    /// unlink(2).
    fn unlink(&self, caller: Caller, parent: Ino, name: &OsStr) -> Answer<()>;

    /// rmdir(2).
    fn rmdir(&self, caller: Caller, parent: Ino, name: &OsStr) -> Answer<()>;

    /// symlink(2).
    fn symlink(&self, _caller: Caller, _parent: Ino, _name: &OsStr, _target: &Path) -> Answer<Entry> {
        Err(Errno::EPERM)
    }

    /// rename(2).
    fn rename(&self, caller: Caller, from: (Ino, &OsStr), to: (Ino, &OsStr), mode: RenameMode) -> Answer<()>;

    /// link(2).
    fn link(&self, caller: Caller, ino: Ino, parent: Ino, name: &OsStr) -> Answer<Entry>;

    /// Makes (or, when it exists and O_EXCL is not set, opens) a file and opens it; `mode` has the umask applied.
    fn create(
        &self,
        caller: Caller,
        parent: Ino,
        name: &OsStr,
        mode: u32,
        request: OpenRequest,
    ) -> Answer<(Entry, Opened)>;

    /// open(2).
    fn open(&self, caller: Caller, ino: Ino, request: OpenRequest) -> Answer<Opened>;

    /// Appends at most `len` bytes from `offset` to `buffer`, which comes empty; fewer only at the end of the file.
    fn read(&self, ino: Ino, fh: Fh, offset: u64, len: usize, buffer: &mut Vec<u8>) -> Answer<()>;

    /// Writes, and answers how much.
    fn write(&self, request: WriteRequest<'_>) -> Answer<usize>;

    /// A close() of one of the handle's descriptors. `caller` is the thread that closes, perhaps dying; `lock_owner` tells
    /// descriptor tables apart.
    fn flush(&self, caller: Caller, ino: Ino, fh: Fh, lock_owner: u64) -> Answer<()>;

    /// The last close(): the handle is gone. Nobody sees an error.
    fn release(&self, ino: Ino, fh: Fh);

    /// fsync(2), fdatasync(2).
    fn fsync(&self, caller: Caller, ino: Ino, fh: Fh, scope: SyncScope) -> Answer<()>;

    /// Opens a directory: what it holds now is what this handle will list, so offsets stay good. [`Caching::Keep`] lets the
    /// kernel keep the listing for later opens.
    fn opendir(&self, caller: Caller, ino: Ino) -> Answer<(Fh, Caching)>;

    /// Lists from `offset` (0 is the start) until the sink is full.
    fn readdir(&self, ino: Ino, fh: Fh, offset: u64, sink: &mut dyn DirSink) -> Answer<()>;

    /// Closes a directory.
    fn releasedir(&self, ino: Ino, fh: Fh);

    /// fsync(2) of a directory.
    fn fsyncdir(&self, _ino: Ino, _fh: Fh) -> Answer<()> {
        Ok(())
    }

    /// statfs(2).
    fn statfs(&self) -> Answer<Statfs>;

    /// access(2) (not asked when the kernel checks permissions itself).
    fn access(&self, _caller: Caller, _ino: Ino, _mask: i32) -> Answer<()> {
        Ok(())
    }

    /// fallocate(2).
    fn fallocate(&self, caller: Caller, ino: Ino, fh: Fh, offset: u64, len: u64, how: Fallocate) -> Answer<()>;

    /// lseek(2): the next data or hole at or after `offset`.
    fn lseek(&self, ino: Ino, fh: Fh, offset: u64, seek: Seek) -> Answer<u64>;

    /// copy_file_range(2): answers how much, perhaps less than asked for.
    fn copy_file_range(&self, caller: Caller, range: CopyRange) -> Answer<u64>;

    /// ioctl(2).
    fn ioctl(&self, _caller: Caller, _ino: Ino, _fh: Fh, _command: u32, _input: &[u8]) -> Answer<Vec<u8>> {
        Err(Errno::ENOTTY)
    }

    /// Where requests are counted, if they are.
    fn meters(&self) -> Option<&Meters> {
        None
    }

    /// Makes durable what was acknowledged and finishes background work. Called before the mount is given up on a signal,
    /// and again after the last request; requests may still arrive while the first call runs and after it.
    fn drain(&self);
}
