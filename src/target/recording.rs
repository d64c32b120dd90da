//! A target that remembers what was asked of it, for tests such as "an unchanged block costs no call".

use crate::format::layout::ObjectKey;
use crate::target::{Coherence, ObjectInfo, Page, Put, Space, Target, TargetError};
use parking_lot::Mutex;

/// Which method.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Operation {
    Prepare,
    Put,
    PutNew,
    Get,
    ReadAt,
    List,
    Delete,
    Space,
}

/// One call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Which method.
    pub operation: Operation,
    /// Key or prefix; empty when the method takes none.
    pub key: String,
    /// Bytes sent (put) or received (get, read_at); number of objects for list.
    pub amount: u64,
    /// Whether it succeeded.
    pub succeeded: bool,
}

/// Passes everything on and records it.
#[derive(Debug)]
pub struct RecordingTarget<T> {
    inner: T,
    calls: Mutex<Vec<Call>>,
}

impl<T: Target> RecordingTarget<T> {
    /// Wraps a target.
    pub fn new(inner: T) -> Self {
        Self { inner, calls: Mutex::default() }
    }

    /// The wrapped target.
    pub fn inner(&self) -> &T {
        &self.inner
    }

    /// All calls in the order in which they returned, which are then forgotten.
    pub fn take(&self) -> Vec<Call> {
        std::mem::take(&mut self.calls.lock())
    }

    /// How many calls of a method there were since the last [`RecordingTarget::take`].
    pub fn count(&self, operation: Operation) -> usize {
        self.calls.lock().iter().filter(|call| call.operation == operation).count()
    }

    /// Sum of the amounts of a method's successful calls on keys that start with `prefix`.
    pub fn amount(&self, operation: Operation, prefix: &str) -> u64 {
        let calls = self.calls.lock();
        let matching = calls.iter().filter(|c| c.succeeded && c.operation == operation && c.key.starts_with(prefix));
        matching.map(|call| call.amount).sum()
    }

    fn record<R>(
        &self,
        operation: Operation,
        key: &str,
        result: Result<R, TargetError>,
        amount: impl Fn(&R) -> usize,
    ) -> Result<R, TargetError> {
        let amount_or_zero = result.as_ref().map_or(0, amount) as u64;
        let call = Call { operation, key: key.to_owned(), amount: amount_or_zero, succeeded: result.is_ok() };
        self.calls.lock().push(call);
        result
    }
}

fn len(parts: &[&[u8]]) -> usize {
    parts.iter().map(|part| part.len()).sum()
}

impl<T: Target> Target for RecordingTarget<T> {
    fn describe(&self) -> String {
        self.inner.describe()
    }
    fn coherence(&self) -> Coherence {
        self.inner.coherence()
    }
    fn prepare(&self) -> Result<(), TargetError> {
        self.record(Operation::Prepare, "", self.inner.prepare(), |()| 0)
    }
    fn put(&self, key: &ObjectKey, parts: &[&[u8]]) -> Result<(), TargetError> {
        self.record(Operation::Put, key.as_str(), self.inner.put(key, parts), |()| len(parts))
    }
    fn put_new(&self, key: &ObjectKey, parts: &[&[u8]]) -> Result<Put, TargetError> {
        self.record(Operation::PutNew, key.as_str(), self.inner.put_new(key, parts), |_| len(parts))
    }
    fn get(&self, key: &ObjectKey) -> Result<Vec<u8>, TargetError> {
        self.record(Operation::Get, key.as_str(), self.inner.get(key), Vec::len)
    }
    fn read_at(&self, key: &ObjectKey, offset: u64, buf: &mut [u8]) -> Result<(), TargetError> {
        let wanted = buf.len();
        self.record(Operation::ReadAt, key.as_str(), self.inner.read_at(key, offset, buf), |()| wanted)
    }
    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, TargetError> {
        self.record(Operation::List, prefix, self.inner.list(prefix), Vec::len)
    }
    fn is_paged(&self) -> bool {
        self.inner.is_paged()
    }
    fn list_after(&self, prefix: &str, after: &str) -> Result<Vec<ObjectInfo>, TargetError> {
        self.record(Operation::List, prefix, self.inner.list_after(prefix, after), Vec::len)
    }
    fn list_page(&self, after: &str, wanted: usize) -> Result<Page, TargetError> {
        self.record(Operation::List, after, self.inner.list_page(after, wanted), |page| page.objects.len())
    }
    fn delete(&self, key: &ObjectKey) -> Result<(), TargetError> {
        self.record(Operation::Delete, key.as_str(), self.inner.delete(key), |()| 0)
    }
    fn space(&self) -> Result<Space, TargetError> {
        self.record(Operation::Space, "", self.inner.space(), |_| 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::{DirTarget, conformance};

    #[test]
    fn it_is_a_target() {
        let dir = tempfile::tempdir().unwrap();
        conformance::check(&RecordingTarget::new(DirTarget::open(dir.path().join("r"))));
    }

    #[test]
    fn calls_and_bytes_are_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let target = RecordingTarget::new(DirTarget::open(dir.path()));
        target.prepare().unwrap();
        let key = ObjectKey::new("index/a").unwrap();
        target.put(&key, &[b"abc", b"de"]).unwrap();
        target.read_at(&key, 1, &mut [0; 3]).unwrap();
        assert!(target.read_at(&key, 1, &mut [0; 9]).is_err());
        assert_eq!((target.amount(Operation::Put, "index/"), target.amount(Operation::Put, "packs/")), (5, 0));
        assert_eq!((target.count(Operation::ReadAt), target.amount(Operation::ReadAt, "")), (2, 3));
        let calls = target.take();
        assert_eq!(calls.len(), 4);
        assert_eq!(calls[1], Call { operation: Operation::Put, key: "index/a".into(), amount: 5, succeeded: true });
        assert!(target.take().is_empty());
    }
}
