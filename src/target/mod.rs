//! Where a repository lives: a place that keeps immutable objects by name.
//!
//! [`Target`] is the contract. [`DirTarget`] keeps it on a filesystem, [`S3Target`] on a server that speaks S3. The others wrap
//! any target: [`RetryTarget`] tries again, [`LimitedTarget`] paces, [`FaultTarget`],
//! [`FlakyTarget`] and [`RecordingTarget`] are for tests.
//! Nothing here knows what the objects mean.

#[cfg(test)]
pub(crate) mod conformance;
mod dir;
mod error;
mod fault;
mod flaky;
mod limits;
#[cfg(test)]
pub(crate) mod memory;
mod recording;
mod requests;
mod retry;
pub mod s3;
mod spec;
#[cfg(test)]
pub(crate) mod through;

pub use dir::{DirTarget, Gate, Step};
pub use error::TargetError;
pub use fault::{Crash, Fault, FaultTarget, Faults};
pub use flaky::{FlakyTarget, Flaw};
pub use limits::{LimitedTarget, Limits, Throttle};
pub use recording::{Call, Operation, RecordingTarget};
pub use requests::{CountingTarget, Request, Requests};
pub use retry::{Patience, RetryTarget};
pub use s3::S3Target;
pub use spec::{OpenOptions, SpecError, TargetSpec, open};

use crate::format::layout::ObjectKey;
use std::sync::Arc;

/// What [`Target::put_new`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// The object is there now and is this caller's.
    Created,
    /// Another object of that name was there already; it is untouched and durable.
    Exists,
}

/// One line of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Its name.
    pub key: ObjectKey,
    /// Bytes of the object. Always known of packs; of others where a listing tells it anyway.
    pub size_bytes: Option<u64>,
}

/// The beginning of a list of everything, as much as one request shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// In the order of keys.
    pub objects: Vec<ObjectInfo>,
    /// There may be more after this name; `None` when there is nothing more.
    pub rest_after: Option<String>,
}

/// How much fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Bytes in all.
    pub total_bytes: u64,
    /// Bytes that this process may still write.
    pub free_bytes: u64,
}

impl Space {
    /// Of a target that has no size, as far as anyone can tell: an exbibyte, of which nothing is used.
    pub const BOUNDLESS: Self = Self { total_bytes: 1 << 60, free_bytes: 1 << 60 };

    /// What to show when `used_bytes` are known to be taken: of a target without a size they are what is used.
    #[must_use]
    pub fn with_used(self, used_bytes: u64) -> Self {
        if self == Self::BOUNDLESS {
            return Self { free_bytes: self.total_bytes.saturating_sub(used_bytes), ..self };
        }
        self
    }
}

/// Whether the promise of [`Target`] about lists and reads holds when several hosts share a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Coherence {
    /// It does.
    Certain,
    /// It may not, for this reason. One host alone may go on; several may miss what the others wrote, and nothing may be
    /// collected.
    Doubtful(String),
}

/// A store of objects. All methods may be called from any number of threads, processes and hosts at once.
///
/// What the protocol of deletion needs (docs/architecture.md): a `list`, `get` or `read_at` that begins after a `put` or `delete`
/// returned, on whatever host, shows its effect. No method answers from a target that is not there: an unmounted directory is
/// [`TargetError::Unreachable`], never an empty list or [`TargetError::NotFound`].
pub trait Target: Send + Sync {
    /// What the target is, in the words of its specification (`dir:/srv/backup`). Does no input or output.
    fn describe(&self) -> String;

    /// Whether hosts that share the target see what the others wrote. Does not wait for a network.
    fn coherence(&self) -> Coherence {
        Coherence::Certain
    }

    /// Makes the target ready to hold a repository; only `init` and `repair` call it, no other method ever makes a directory. Durable
    /// on return; repeating it, also after a crash half way, is harmless.
    ///
    /// # Errors
    /// [`TargetError::Occupied`] when something that is not a repository lies there; nothing was changed then.
    fn prepare(&self) -> Result<(), TargetError>;

    /// Stores the concatenation of `parts` under `key`.
    ///
    /// On return the object is whole, durable (it survives a power loss) and visible to everyone. On an error it is absent, or
    /// present and whole; part of it is never visible. An object of that name is replaced in one step; since objects are
    /// immutable the new one says the same, and repeating a put is harmless. The name of a pack must be the SHA-256 of its bytes: a target
    /// may refuse others.
    ///
    /// # Errors
    /// [`TargetError::NoSpace`] leaves nothing of the object behind.
    fn put(&self, key: &ObjectKey, parts: &[&[u8]]) -> Result<(), TargetError>;

    /// As [`Target::put`], but never replaces: of any number of concurrent callers at most one gets [`Put::Created`].
    ///
    /// # Errors
    /// After an error other than [`TargetError::NoSpace`] the object may be there: ask again with [`Target::get`].
    fn put_new(&self, key: &ObjectKey, parts: &[&[u8]]) -> Result<Put, TargetError>;

    /// The whole object.
    ///
    /// # Errors
    /// [`TargetError::NotFound`] only when the target answers and has no such object.
    fn get(&self, key: &ObjectKey) -> Result<Vec<u8>, TargetError>;

    /// Fills `buf` with the object's bytes from `offset` on.
    ///
    /// # Errors
    /// [`TargetError::Truncated`] when the object ends before `buf` is full (`buf` is undefined then).
    fn read_at(&self, key: &ObjectKey, offset: u64, buf: &mut [u8]) -> Result<(), TargetError>;

    /// Every object whose key starts with `prefix`, in the order of keys. An object put or deleted meanwhile may or may not be
    /// in it; all others are. Unfinished uploads and names that are no keys are not.
    ///
    /// # Errors
    /// When any part of it could not be read: a list is whole or an error.
    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, TargetError>;

    /// Whether a list takes a request for each thousand objects, so that [`Target::list_after`] is worth it.
    fn is_paged(&self) -> bool {
        false
    }

    /// As [`Target::list`], but may leave out keys that do not sort after `after` (which need not exist). Costs less where lists
    /// come in pages.
    ///
    /// # Errors
    /// As [`Target::list`].
    fn list_after(&self, prefix: &str, after: &str) -> Result<Vec<ObjectInfo>, TargetError> {
        let _ = after;
        self.list(prefix)
    }

    /// The first objects whose keys sort after `after`, whatever they begin with: about `wanted` of them, or what one request shows.
    /// A target without pages shows nothing, and says that everything comes later.
    ///
    /// # Errors
    /// As [`Target::list`].
    fn list_page(&self, after: &str, wanted: usize) -> Result<Page, TargetError> {
        let _ = wanted;
        Ok(Page { objects: Vec::new(), rest_after: Some(after.to_owned()) })
    }

    /// Removes the object; one that is absent is fine. On return it is gone, also after a power loss.
    ///
    /// # Errors
    /// After an error the object may or may not be there.
    fn delete(&self, key: &ObjectKey) -> Result<(), TargetError>;

    /// Size and free space.
    ///
    /// # Errors
    /// When the target does not answer.
    fn space(&self) -> Result<Space, TargetError>;
}

impl<T: Target + ?Sized> Target for Arc<T> {
    fn describe(&self) -> String {
        (**self).describe()
    }
    fn coherence(&self) -> Coherence {
        (**self).coherence()
    }
    fn prepare(&self) -> Result<(), TargetError> {
        (**self).prepare()
    }
    fn put(&self, key: &ObjectKey, parts: &[&[u8]]) -> Result<(), TargetError> {
        (**self).put(key, parts)
    }
    fn put_new(&self, key: &ObjectKey, parts: &[&[u8]]) -> Result<Put, TargetError> {
        (**self).put_new(key, parts)
    }
    fn get(&self, key: &ObjectKey) -> Result<Vec<u8>, TargetError> {
        (**self).get(key)
    }
    fn read_at(&self, key: &ObjectKey, offset: u64, buf: &mut [u8]) -> Result<(), TargetError> {
        (**self).read_at(key, offset, buf)
    }
    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, TargetError> {
        (**self).list(prefix)
    }
    fn is_paged(&self) -> bool {
        (**self).is_paged()
    }
    fn list_after(&self, prefix: &str, after: &str) -> Result<Vec<ObjectInfo>, TargetError> {
        (**self).list_after(prefix, after)
    }
    fn list_page(&self, after: &str, wanted: usize) -> Result<Page, TargetError> {
        (**self).list_page(after, wanted)
    }
    fn delete(&self, key: &ObjectKey) -> Result<(), TargetError> {
        (**self).delete(key)
    }
    fn space(&self) -> Result<Space, TargetError> {
        (**self).space()
    }
}
