//! Counting what is asked of a target, as a bill of the provider would: lists by their pages, repetitions too.

use crate::format::layout::ObjectKey;
use crate::target::{Coherence, ObjectInfo, Page, Put, Space, Target, TargetError};
use crate::words::histogram::{Distribution, Histogram};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Request {
    Put,
    Get,
    List,
    Delete,
}

impl Request {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Put, Self::Get, Self::List, Self::Delete];

    /// A word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Get => "get",
            Self::List => "list",
            Self::Delete => "delete",
        }
    }
}

/// Sums since the start of the process.
#[derive(Debug, Default)]
pub struct Requests {
    asked: [AtomicU64; 4],
    failed: [AtomicU64; 4],
    took: [Histogram; 4],
    sent_bytes: AtomicU64,
    received_bytes: AtomicU64,
}

impl Requests {
    /// Counts a request that is made now.
    pub fn note(&self, request: Request) {
        self.asked[request as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts one that got no good answer.
    pub fn note_failed(&self, request: Request) {
        self.failed[request as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts how long one waited for its answer, good or not.
    pub fn note_took(&self, request: Request, took: Duration) {
        self.took[request as usize].observe(took);
    }

    /// How many of a kind got no good answer.
    pub fn failed(&self, request: Request) -> u64 {
        self.failed[request as usize].load(Ordering::Relaxed)
    }

    /// How long those of a kind took.
    pub fn took(&self, request: Request) -> Distribution {
        self.took[request as usize].distribution()
    }

    /// Contents of objects that went to the target.
    pub fn sent_bytes(&self) -> u64 {
        self.sent_bytes.load(Ordering::Relaxed)
    }

    /// Contents of objects that came from it.
    pub fn received_bytes(&self) -> u64 {
        self.received_bytes.load(Ordering::Relaxed)
    }

    /// Counts contents of objects on their way to the target.
    pub fn note_sent(&self, bytes: u64) {
        self.sent_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts contents of objects that came from it.
    pub fn note_received(&self, bytes: u64) {
        self.received_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// How often a kind was asked.
    pub fn count(&self, request: Request) -> u64 {
        self.asked[request as usize].load(Ordering::Relaxed)
    }

    /// How often anything was asked.
    pub fn total(&self) -> u64 {
        Request::ALL.into_iter().map(|request| self.count(request)).sum()
    }

    /// Every sum with a name.
    pub fn all(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("RequestsPut", self.count(Request::Put)),
            ("RequestsGet", self.count(Request::Get)),
            ("RequestsList", self.count(Request::List)),
            ("RequestsDelete", self.count(Request::Delete)),
            ("RequestsFailed", Request::ALL.into_iter().map(|request| self.failed(request)).sum()),
            ("RequestBytesSent", self.sent_bytes()),
            ("RequestBytesReceived", self.received_bytes()),
        ]
    }
}

/// Counts the calls of a target whose calls are requests.
pub struct CountingTarget<T> {
    inner: T,
    requests: Arc<Requests>,
}

impl<T: Target> CountingTarget<T> {
    /// Wraps a target.
    pub fn new(inner: T, requests: Arc<Requests>) -> Self {
        Self { inner, requests }
    }

    fn count<R>(&self, request: Request, ask: impl FnOnce(&T) -> Result<R, TargetError>) -> Result<R, TargetError> {
        let began = Instant::now();
        let result = ask(&self.inner);
        self.requests.note(request);
        self.requests.note_took(request, began.elapsed());
        // That something is not there is a good answer.
        if !matches!(result, Ok(_) | Err(TargetError::NotFound { .. })) {
            self.requests.note_failed(request);
        }
        result
    }

    fn sent<R>(&self, parts: &[&[u8]], ask: impl FnOnce(&T) -> Result<R, TargetError>) -> Result<R, TargetError> {
        self.requests.note_sent(parts.iter().map(|part| part.len() as u64).sum());
        self.count(Request::Put, ask)
    }
}

impl<T: Target> Target for CountingTarget<T> {
    fn describe(&self) -> String {
        self.inner.describe()
    }
    fn coherence(&self) -> Coherence {
        self.inner.coherence()
    }
    fn prepare(&self) -> Result<(), TargetError> {
        self.count(Request::Put, super::Target::prepare)
    }
    fn put(&self, key: &ObjectKey, parts: &[&[u8]]) -> Result<(), TargetError> {
        self.sent(parts, |inner| inner.put(key, parts))
    }
    fn put_new(&self, key: &ObjectKey, parts: &[&[u8]]) -> Result<Put, TargetError> {
        self.sent(parts, |inner| inner.put_new(key, parts))
    }
    fn get(&self, key: &ObjectKey) -> Result<Vec<u8>, TargetError> {
        let bytes = self.count(Request::Get, |inner| inner.get(key))?;
        self.requests.note_received(bytes.len() as u64);
        Ok(bytes)
    }
    fn read_at(&self, key: &ObjectKey, offset: u64, buf: &mut [u8]) -> Result<(), TargetError> {
        self.count(Request::Get, |inner| inner.read_at(key, offset, buf))?;
        self.requests.note_received(buf.len() as u64);
        Ok(())
    }
    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, TargetError> {
        self.count(Request::List, |inner| inner.list(prefix))
    }
    fn is_paged(&self) -> bool {
        self.inner.is_paged()
    }
    fn list_after(&self, prefix: &str, after: &str) -> Result<Vec<ObjectInfo>, TargetError> {
        self.count(Request::List, |inner| inner.list_after(prefix, after))
    }
    fn list_page(&self, after: &str, wanted: usize) -> Result<Page, TargetError> {
        self.count(Request::List, |inner| inner.list_page(after, wanted))
    }
    fn delete(&self, key: &ObjectKey) -> Result<(), TargetError> {
        self.count(Request::Delete, |inner| inner.delete(key))
    }
    fn space(&self) -> Result<Space, TargetError> {
        self.inner.space()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::{DirTarget, conformance};

    #[test]
    fn it_is_a_target_and_counts() {
        let dir = tempfile::tempdir().unwrap();
        let requests = Arc::<Requests>::default();
        let target = CountingTarget::new(DirTarget::open(dir.path().join("r")), Arc::clone(&requests));
        conformance::check(&target);
        let before = (requests.count(Request::Put), requests.count(Request::Get), requests.total());
        let key = ObjectKey::new("ok/x").unwrap();
        target.put(&key, &[b"ab", b"c"]).unwrap();
        target.get(&key).unwrap();
        target.read_at(&key, 0, &mut [0; 2]).unwrap();
        assert!(target.get(&ObjectKey::new("ok/none").unwrap()).is_err());
        let after = (requests.count(Request::Put), requests.count(Request::Get), requests.total());
        assert_eq!((after.0 - before.0, after.1 - before.1, after.2 - before.2), (1, 3, 4));
        assert!(requests.all().iter().any(|(name, sum)| *name == "RequestsPut" && *sum == after.0));
        assert!(Request::ALL.into_iter().all(|request| requests.took(request).count == requests.count(request)));
        assert_eq!(requests.failed(Request::Delete), 0);
    }
}
