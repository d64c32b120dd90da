//! The LMDB environment below the catalog: opening it, transactions, growth, and what is done when it fails.
//!
//! **Durability.** `MDB_NOMETASYNC`: a commit writes the changed pages, waits for them with one fdatasync, then writes the meta
//! page that makes them the current state and does not wait for that. After a power cut either meta page is a whole state
//! whose pages were all synced before it was written, and LMDB takes the newer one: the catalog is intact and at most its last
//! commit is undone. Everything derived from the target is then learnt again by the next refresh, which is why half the cost
//! of a commit may be saved. A page freed by commit N is reused by N+2 at the earliest, and the fdatasync of N+1 has carried
//! the meta page of N to the disk by then, so the older state is never overwritten while it may be needed. What no target
//! holds (hidden names, damage, the host id) is written by [`Store::write_durably`], which waits for the meta page too.
//! `MDB_NOSYNC` would let the kernel write a meta page before the pages it points to: a power cut could leave garbage.
//! `MDB_WRITEMAP` would turn a full disk into SIGBUS and let a stray pointer of this process write into the catalog.
//!
//! **Size.** The map has a fixed size in each process. A transaction that does not fit fails with `MDB_MAP_FULL`, one that
//! begins after another process has grown the file beyond our map fails with `MDB_MAP_RESIZED`. Remapping moves the addresses
//! that open transactions of this process hold, so every transaction runs under a read guard of `gate` and remapping
//! takes the write guard. Both failures leave nothing behind; the job is run again, so jobs must be repeatable.
//! No job may call the store again: a second guard in one thread can deadlock with a waiting writer.
//!
//! **Processes.** LMDB locks by thread and process: a process must not fork and use the catalog in the child. A reader or
//! writer that was killed leaves a slot or a lock behind; the locks are robust mutexes, the slots are cleared on open.
//!
//! **Threads.** Reader slots belong to transactions (`MDB_NOTLS`), not to threads: LMDB gives a thread's slot back when the thread ends, in
//! memory that closing the environment unmaps, and a thread may still be ending when all its work is done and the last user closes it.

use crate::catalog::error::CatalogError;
use crate::catalog::tables::Tables;
use heed::{Env, EnvFlags, EnvOpenOptions, MdbError, RoTxn, RwTxn, WithoutTls};
use nix::fcntl::{FallocateFlags, FcntlArg, fallocate, fcntl};
use parking_lot::RwLock;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Address space of a new catalog. It costs nothing until used, and doubles when it is full.
pub(super) const INITIAL_MAP_BYTES: usize = 256 << 20;
/// Concurrent read transactions of all processes together.
const READERS_MAX: u32 = 1024;
/// How often one call remaps or reopens before it gives up: doubling this often is beyond any address space.
const RECOVERIES_MAX: u32 = 40;
/// How many pages at the end of the file may never have been written.
const UNWRITTEN_PAGES_MAX: u64 = 64;
/// A short write reads as EIO from LMDB; with less than this free it was a full disk.
const FULL_BELOW_BYTES: u64 = 1 << 20;

/// Why a job failed, inside of this layer.
#[derive(Debug)]
pub(super) enum Fault {
    /// LMDB or the system below it.
    Lmdb(heed::Error),
    /// What was read makes no sense.
    Corrupt(String),
    /// The tables being rebuilt are not being rebuilt any more.
    GivenUp,
}

impl From<heed::Error> for Fault {
    fn from(error: heed::Error) -> Self {
        Self::Lmdb(error)
    }
}

struct Opened {
    env: Env<WithoutTls>,
    sets: [Tables; 2],
}

/// Which set of derived tables a job is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// The one that is used. While a rebuild goes on, what is written goes into both.
    Used,
    /// The one that a rebuild fills.
    Rebuilt,
}

/// What `local` says about the sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sets {
    /// Which is used.
    pub(super) used: u8,
    /// Whether the other is being filled.
    pub(super) rebuilding: bool,
}

impl Sets {
    const KEY: &'static [u8] = b"sets";

    /// Reads it; a new catalog uses the first.
    pub(super) fn get(tables: &Tables, txn: &RoTxn) -> Result<Self, Fault> {
        match tables.local.get(txn, Self::KEY)? {
            None => Ok(Self { used: 0, rebuilding: false }),
            Some(&[used @ 0..=1, rebuilding @ 0..=1]) => Ok(Self { used, rebuilding: rebuilding == 1 }),
            Some(_) => Err(Fault::Corrupt("it does not say which tables are used".to_owned())),
        }
    }

    /// Writes it.
    pub(super) fn put(self, tables: &Tables, txn: &mut RwTxn) -> Result<(), Fault> {
        Ok(tables.local.put(txn, Self::KEY, &[self.used, u8::from(self.rebuilding)])?)
    }
}

/// An open environment and its tables.
pub(super) struct Store {
    dir: PathBuf,
    initial_map_bytes: usize,
    /// `None` after a failure that only closing and opening again can mend.
    gate: RwLock<Option<Opened>>,
}

impl Store {
    /// Opens the catalog in `dir`, making both when they do not exist.
    pub(super) fn open(dir: &Path, initial_map_bytes: usize) -> Result<Self, CatalogError> {
        let store = Self { dir: dir.to_owned(), initial_map_bytes, gate: RwLock::new(None) };
        store.reopen()?;
        Ok(store)
    }

    /// Where it lies.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Runs `job` in a read transaction on a set of tables.
    pub(super) fn read<T>(
        &self,
        side: Side,
        job: impl Fn(&Tables, &RoTxn) -> Result<T, Fault>,
    ) -> Result<T, CatalogError> {
        self.attempt(|opened| {
            let txn = opened.env.read_txn()?;
            let (tables, _) = opened.choose(side, &txn)?;
            job(tables, &txn)
        })
    }

    /// Runs `job` in a write transaction and commits it; nothing of it remains when it fails. While a rebuild goes on, a job on
    /// the tables that are used is run on the others as well, so that nothing is lost when they take over.
    pub(super) fn write<T>(
        &self,
        side: Side,
        job: impl Fn(&Tables, &mut RwTxn) -> Result<T, Fault>,
    ) -> Result<T, CatalogError> {
        self.attempt(|opened| {
            let mut txn = opened.env.write_txn()?;
            let (tables, also) = opened.choose(side, &txn)?;
            let value = job(tables, &mut txn)?;
            if let Some(also) = also {
                job(also, &mut txn)?;
            }
            txn.commit()?;
            Ok(value)
        })
    }

    /// Runs `job` on local tables and waits until no power cut can undo it.
    pub(super) fn write_durably<T>(
        &self,
        job: impl Fn(&Tables, &mut RwTxn) -> Result<T, Fault>,
    ) -> Result<T, CatalogError> {
        self.attempt(|opened| {
            let mut txn = opened.env.write_txn()?;
            let (tables, _) = opened.choose(Side::Used, &txn)?;
            let value = job(tables, &mut txn)?;
            txn.commit()?;
            opened.env.force_sync()?;
            Ok(value)
        })
    }

    /// Runs a job that changes which set is used; it is given both.
    pub(super) fn switch<T>(
        &self,
        job: impl Fn(&[Tables; 2], &mut RwTxn) -> Result<T, Fault>,
    ) -> Result<T, CatalogError> {
        self.attempt(|opened| {
            let mut txn = opened.env.write_txn()?;
            let value = job(&opened.sets, &mut txn)?;
            txn.commit()?;
            Ok(value)
        })
    }

    /// Bytes of the file and of the map.
    pub(super) fn sizes(&self) -> Result<(u64, u64), CatalogError> {
        self.attempt(|opened| Ok((opened.env.real_disk_size()?, opened.env.info().map_size as u64)))
    }

    fn attempt<T>(&self, job: impl Fn(&Opened) -> Result<T, Fault>) -> Result<T, CatalogError> {
        for _ in 0..RECOVERIES_MAX {
            let guard = self.gate.read();
            let Some(opened) = guard.as_ref() else {
                drop(guard);
                self.reopen()?;
                continue;
            };
            let fault = match job(opened) {
                Ok(value) => return Ok(value),
                Err(fault) => fault,
            };
            let map_bytes = opened.env.info().map_size;
            drop(guard);
            self.recover(fault, map_bytes)?;
        }
        Err(CatalogError::Busy {
            path: self.dir.clone(),
            problem: "other processes make it grow faster than it is read",
        })
    }

    /// Does what lets the failed job be run again; otherwise says what failed. `map_bytes` is what the job ran with.
    fn recover(&self, fault: Fault, map_bytes: usize) -> Result<(), CatalogError> {
        match fault {
            Fault::Lmdb(heed::Error::Mdb(MdbError::MapFull)) => self.remap(map_bytes, map_bytes.saturating_mul(2)),
            // Zero takes the size that the process which has grown the file wrote into it.
            Fault::Lmdb(heed::Error::Mdb(MdbError::MapResized)) => self.remap(map_bytes, 0),
            // A meta page could not be written. LMDB refuses everything until the environment is opened anew.
            Fault::Lmdb(heed::Error::Mdb(MdbError::Panic)) => self.reopen(),
            // Slots of processes that were killed.
            Fault::Lmdb(heed::Error::Mdb(MdbError::ReadersFull)) if self.clear_stale_readers() > 0 => Ok(()),
            fault => Err(self.describe(fault)),
        }
    }

    fn clear_stale_readers(&self) -> usize {
        let gate = self.gate.read();
        gate.as_ref().and_then(|opened| opened.env.clear_stale_readers().ok()).unwrap_or(0)
    }

    /// Changes the size of the map, unless another thread has done it since it was `seen_bytes`.
    fn remap(&self, seen_bytes: usize, wanted_bytes: usize) -> Result<(), CatalogError> {
        let mut gate = self.gate.write();
        let Some(opened) = gate.as_ref().filter(|opened| opened.env.info().map_size == seen_bytes) else {
            return Ok(());
        };
        // SAFETY: no transaction of this process is active: each one lives inside a read guard of `gate`.
        let resized = unsafe { opened.env.resize(wanted_bytes) };
        resized.map_err(|error| {
            // The old map is gone. The next call opens the environment again.
            *gate = None;
            self.describe(error.into())
        })
    }

    fn reopen(&self) -> Result<(), CatalogError> {
        let mut gate = self.gate.write();
        // Closed first: the same environment must not be open twice in one process.
        *gate = None;
        *gate = Some(Opened::open(&self.dir, self.initial_map_bytes).map_err(|fault| self.describe(fault))?);
        Ok(())
    }

    /// The fault as callers see it.
    pub(super) fn describe(&self, fault: Fault) -> CatalogError {
        let path = self.dir.clone();
        let problem = match fault {
            Fault::Corrupt(problem) => problem,
            Fault::GivenUp => return CatalogError::Busy { path, problem: "another process has ended this rebuild" },
            Fault::Lmdb(heed::Error::Io(source)) if is_full(&source, &path) => return CatalogError::NoSpace { path },
            Fault::Lmdb(heed::Error::Io(source)) => return CatalogError::Io { path, source },
            Fault::Lmdb(heed::Error::EnvAlreadyOpened) => {
                return CatalogError::Busy { path, problem: "it is already open in this process" };
            }
            Fault::Lmdb(heed::Error::Mdb(MdbError::ReadersFull)) => {
                return CatalogError::Busy { path, problem: "all 1024 reader slots are taken" };
            }
            Fault::Lmdb(error) => error.to_string(),
        };
        CatalogError::Corrupt { path, problem }
    }
}

impl Opened {
    fn open(dir: &Path, initial_map_bytes: usize) -> Result<Self, Fault> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(heed::Error::Io)?;
        let mut options = EnvOpenOptions::new().read_txn_without_tls();
        options.max_readers(READERS_MAX).max_dbs(Tables::COUNT);
        // SAFETY: the flags keep the file consistent (see the head of this file); the lock file stays in use. The file is
        // private (mode 0600) and changed only through LMDB.
        let env = unsafe { options.flags(EnvFlags::NO_META_SYNC | EnvFlags::NO_READ_AHEAD).open(dir)? };
        lengthen(&env)?;
        env.clear_stale_readers()?;
        if env.info().map_size < initial_map_bytes {
            // SAFETY: the environment was opened just now and has no transaction yet.
            unsafe { env.resize(initial_map_bytes)? };
        }
        let sets = loop {
            match Tables::open(&env) {
                // SAFETY: the failed transaction has ended, and nobody else knows this environment yet.
                Err(heed::Error::Mdb(MdbError::MapResized)) => unsafe { env.resize(0)? },
                // SAFETY: likewise.
                Err(heed::Error::Mdb(MdbError::MapFull)) => unsafe { env.resize(env.info().map_size * 2)? },
                sets => break sets?,
            }
        };
        Ok(Self { env, sets })
    }

    /// The tables of a side, and those to which a change of them goes as well.
    fn choose(&self, side: Side, txn: &RoTxn) -> Result<(&Tables, Option<&Tables>), Fault> {
        let Sets { used, rebuilding } = Sets::get(&self.sets[0], txn)?;
        let (used, other) = (&self.sets[usize::from(used)], &self.sets[usize::from(1 - used)]);
        match side {
            Side::Used => Ok((used, rebuilding.then_some(other))),
            Side::Rebuilt if rebuilding => Ok((other, None)),
            Side::Rebuilt => Err(Fault::GivenUp),
        }
    }
}

/// Makes a file that lacks pages at its end as long as its meta page says: reading a page beyond the end of a mapped file would kill the
/// process with SIGBUS. A few may be missing lawfully, since LMDB does not write pages that a transaction took and gave back; a file that
/// lacks more was cut off, and reading the empty pages would end the process. Never shortens, never overwrites, whatever
/// other processes do.
fn lengthen(env: &Env<WithoutTls>) -> Result<(), Fault> {
    let page_bytes = u64::from(env.unnamed_database_stat().page_size);
    let wanted_bytes = (env.info().last_page_number as u64 + 1) * page_bytes;
    let found_bytes = env.real_disk_size()?;
    if found_bytes + UNWRITTEN_PAGES_MAX * page_bytes < wanted_bytes {
        return Err(Fault::Corrupt(format!("it is cut off: {found_bytes} bytes of {wanted_bytes}")));
    }
    if found_bytes < wanted_bytes {
        let file = env.try_clone_inner_file()?;
        let last =
            i64::try_from(wanted_bytes - 1).map_err(|_| Fault::Corrupt("it claims an absurd size".to_owned()))?;
        fallocate(file, FallocateFlags::empty(), last, 1).map_err(|errno| heed::Error::Io(errno.into()))?;
    }
    Ok(())
}

/// Whether an error means that the disk is full. LMDB reports a short write, which is how a disk fills up, as EIO.
fn is_full(error: &io::Error, dir: &Path) -> bool {
    match error.raw_os_error() {
        Some(libc::ENOSPC | libc::EDQUOT) => true,
        Some(libc::EIO) => nix::sys::statvfs::statvfs(dir)
            .is_ok_and(|fs| fs.blocks_available().saturating_mul(fs.fragment_size()) < FULL_BELOW_BYTES),
        _ => false,
    }
}

/// Deletes the catalog in `dir`, damaged or not, so that it can be built again.
///
/// # Errors
/// [`CatalogError::Busy`] when it is open in this or another process; [`CatalogError::Io`].
pub(super) fn discard(dir: &Path) -> Result<(), CatalogError> {
    let path = dir.to_owned();
    let busy = |problem| CatalogError::Busy { path: dir.to_owned(), problem };
    let io = |source| CatalogError::Io { path: dir.to_owned(), source };
    if path.canonicalize().is_ok_and(|path| heed::env_closing_event(path).is_some()) {
        return Err(busy("it is open in this process"));
    }
    match File::options().write(true).open(path.join("lock.mdb")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(io(error)),
        Ok(lock) => {
            // Every process that has the environment open holds a shared lock on the first byte of this file.
            let whole = libc::flock { l_type: libc::F_WRLCK as i16, l_whence: 0, l_start: 0, l_len: 0, l_pid: 0 };
            fcntl(&lock, FcntlArg::F_OFD_SETLK(&whole)).map_err(|_| busy("another process has it open"))?;
            remove(&path.join("data.mdb")).and_then(|()| remove(&path.join("lock.mdb"))).map_err(io)?;
        }
    }
    remove(&path.join("data.mdb")).map_err(io)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_environment_that_had_to_be_closed_is_opened_by_the_next_call() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), INITIAL_MAP_BYTES).unwrap();
        store.write(Side::Used, |tables, txn| Ok(tables.local.put(txn, b"k", b"v")?)).unwrap();
        *store.gate.write() = None;
        let value = store.read(Side::Used, |tables, txn| Ok(tables.local.get(txn, b"k")?.map(<[u8]>::to_vec))).unwrap();
        assert_eq!(value.as_deref(), Some(&b"v"[..]));
        store.recover(Fault::Lmdb(heed::Error::Mdb(MdbError::Panic)), 0).unwrap();
        store.write(Side::Used, |tables, txn| Ok(tables.local.put(txn, b"k", b"w")?)).unwrap();
    }

    #[test]
    fn a_failed_job_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), INITIAL_MAP_BYTES).unwrap();
        let failed = store.write(Side::Used, |tables, txn| {
            tables.local.put(txn, b"k", b"v")?;
            Err::<(), _>(Fault::Corrupt("half way".to_owned()))
        });
        assert!(matches!(failed, Err(CatalogError::Corrupt { .. })));
        assert!(store.read(Side::Used, |tables, txn| Ok(tables.local.get(txn, b"k")?.is_none())).unwrap());
    }

    #[test]
    fn threads_may_end_while_it_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        for _ in 0..3000 {
            let store = Store::open(dir.path(), INITIAL_MAP_BYTES).unwrap();
            // A scope waits for the work of its threads, not for what they do when they end.
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        store.read(Side::Used, |tables, txn| Ok(tables.local.get(txn, b"k")?.is_none())).unwrap()
                    });
                }
            });
        }
    }
}
