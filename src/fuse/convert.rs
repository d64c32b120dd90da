//! The kernel's structs as fuser has them, to and from those of `fs::seam`.

use crate::fs::errno::Errno;
use crate::fs::seam::{
    Access, Caching, Caller, CloseNotice, Fallocate, FileAttr, NodeKind, OpenRequest, Opened, RenameMode, SetTime,
    Writes,
};
use crate::words::attribute::Mtime;
use fuser::{FileType, FopenFlags, INodeNo, RenameFlags, Request, TimeOrNow};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub(super) fn caller(request: &Request) -> Caller {
    Caller { uid: request.uid(), gid: request.gid(), pid: request.pid() }
}

pub(super) fn errno(errno: Errno) -> fuser::Errno {
    fuser::Errno::from_i32(errno.code())
}

pub(super) const fn kind(kind: NodeKind) -> FileType {
    match kind {
        NodeKind::Directory => FileType::Directory,
        NodeKind::File => FileType::RegularFile,
        NodeKind::Symlink => FileType::Symlink,
    }
}

pub(super) fn attr(attr: &FileAttr) -> fuser::FileAttr {
    fuser::FileAttr {
        ino: INodeNo(attr.ino.0),
        size: attr.size,
        blocks: attr.blocks512,
        atime: system_time(attr.atime),
        mtime: system_time(attr.mtime),
        ctime: system_time(attr.ctime),
        crtime: UNIX_EPOCH,
        kind: kind(attr.kind),
        perm: attr.perm & 0o7777,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: 0,
        blksize: attr.blksize,
        flags: 0,
    }
}

fn system_time(time: Mtime) -> SystemTime {
    let seconds = Duration::from_secs(time.seconds.unsigned_abs());
    let whole = if time.seconds < 0 { UNIX_EPOCH.checked_sub(seconds) } else { UNIX_EPOCH.checked_add(seconds) };
    whole.and_then(|t| t.checked_add(Duration::from_nanos(time.nanos.into()))).unwrap_or(UNIX_EPOCH)
}

/// fuser 0.18 reads a time before 1970 as `-(seconds) - nanoseconds` where the kernel means `-(seconds) + nanoseconds`; this
/// takes the two numbers apart again as the kernel sent them.
pub(super) fn set_time(time: TimeOrNow) -> SetTime {
    let TimeOrNow::SpecificTime(time) = time else { return SetTime::Now };
    let (negative, distance) = match time.duration_since(UNIX_EPOCH) {
        Ok(after) => (false, after),
        Err(before) => (true, before.duration()),
    };
    let seconds = i64::try_from(distance.as_secs()).unwrap_or(i64::MAX);
    SetTime::Set(Mtime { seconds: if negative { -seconds } else { seconds }, nanos: distance.subsec_nanos() })
}

/// open(2) flags.
pub(super) const fn open_request(flags: i32) -> OpenRequest {
    /// Set by the kernel when execve(2) opens (include/linux/fs.h, `__FMODE_EXEC`).
    const EXEC: i32 = 0x20;
    let access = match flags & libc::O_ACCMODE {
        libc::O_WRONLY => Access::Write,
        libc::O_RDWR => Access::ReadWrite,
        _ => Access::Read,
    };
    OpenRequest {
        access,
        append: flags & libc::O_APPEND != 0,
        truncate: flags & libc::O_TRUNC != 0,
        exclusive: flags & libc::O_EXCL != 0,
        direct: flags & libc::O_DIRECT != 0,
        sync: flags & libc::O_DSYNC != 0,
        exec: flags & EXEC != 0,
    }
}

pub(super) fn open_flags(opened: &Opened) -> FopenFlags {
    let mut flags = match opened.caching {
        Caching::Direct => FopenFlags::FOPEN_DIRECT_IO,
        Caching::Keep => FopenFlags::FOPEN_KEEP_CACHE,
        Caching::Plain => FopenFlags::empty(),
    };
    if opened.writes == Writes::Parallel {
        flags |= FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES;
    }
    if opened.close == CloseNotice::Silent {
        flags |= FopenFlags::FOPEN_NOFLUSH;
    }
    flags
}

pub(super) fn directory_flags(caching: Caching) -> FopenFlags {
    match caching {
        Caching::Keep => FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE,
        Caching::Direct | Caching::Plain => FopenFlags::empty(),
    }
}

pub(super) fn rename_mode(flags: RenameFlags) -> Result<RenameMode, Errno> {
    match flags.bits() {
        0 => Ok(RenameMode::Replace),
        libc::RENAME_NOREPLACE => Ok(RenameMode::NoReplace),
        libc::RENAME_EXCHANGE => Ok(RenameMode::Exchange),
        _ => Err(Errno::EINVAL),
    }
}

pub(super) const fn fallocate(mode: i32) -> Result<Fallocate, Errno> {
    const KEEP: i32 = libc::FALLOC_FL_KEEP_SIZE;
    const PUNCH: i32 = libc::FALLOC_FL_PUNCH_HOLE | KEEP;
    const ZERO: i32 = libc::FALLOC_FL_ZERO_RANGE;
    const ZERO_KEEP: i32 = ZERO | KEEP;
    match mode {
        0 => Ok(Fallocate::Allocate),
        KEEP => Ok(Fallocate::AllocateKeepSize),
        PUNCH => Ok(Fallocate::PunchHole),
        ZERO => Ok(Fallocate::ZeroRange),
        ZERO_KEEP => Ok(Fallocate::ZeroRangeKeepSize),
        _ => Err(Errno::EOPNOTSUPP),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_survive_fuser() {
        // What fuser makes of seconds -5 and 300 ns.
        let read = UNIX_EPOCH - Duration::new(5, 300);
        assert_eq!(set_time(TimeOrNow::SpecificTime(read)), SetTime::Set(Mtime { seconds: -5, nanos: 300 }));
        let shown = system_time(Mtime { seconds: -5, nanos: 300 });
        assert_eq!(shown, UNIX_EPOCH - Duration::from_secs(5) + Duration::from_nanos(300));
        let far = Mtime { seconds: i64::MIN, nanos: 0 };
        assert!(system_time(far) <= UNIX_EPOCH);
        assert_eq!(set_time(TimeOrNow::Now), SetTime::Now);
    }

    #[test]
    fn flags_of_open_and_fallocate() {
        let request = open_request(libc::O_WRONLY | libc::O_TRUNC | libc::O_APPEND | libc::O_LARGEFILE);
        assert!(request.access.writes() && !request.access.reads() && request.truncate && request.append);
        assert!(!request.direct && !request.exclusive && !request.sync && !request.exec);
        assert_eq!(fallocate(3), Ok(Fallocate::PunchHole));
        assert_eq!(fallocate(0x10), Ok(Fallocate::ZeroRange));
        assert_eq!(fallocate(libc::FALLOC_FL_COLLAPSE_RANGE), Err(Errno::EOPNOTSUPP));
        assert_eq!(rename_mode(RenameFlags::RENAME_WHITEOUT), Err(Errno::EINVAL));
    }
}
