//! The steps by which a directory changes, as a place for tests to fail them.

use nix::errno::Errno;

/// One system call that changes the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// A directory is made by `prepare`.
    MakeDirectory,
    /// The temporary file of an upload is made.
    Create,
    /// Some of its bytes are written.
    Write,
    /// Its bytes reach the disk.
    SyncData,
    /// It gets its name.
    Rename,
    /// The directory that names it reaches the disk.
    SyncDirectory,
    /// An object is removed.
    Unlink,
    /// The temporary file of a failed upload is removed.
    Discard,
}

/// Is asked before each step. One that refuses every step from some moment on leaves the directory as a crash would.
pub trait Gate: Send + Sync {
    /// # Errors
    /// The step is not taken and fails with this error.
    fn pass(&self, step: Step) -> Result<(), Errno>;
}

/// Lets everything pass.
#[derive(Debug)]
pub(super) struct Open;

impl Gate for Open {
    fn pass(&self, _: Step) -> Result<(), Errno> {
        Ok(())
    }
}
