//! Targets for tests of the repository: one in memory, and a wrapper in which a host can be held up at any call.

use crate::format::layout::{self, ObjectKey};
use crate::target::{Coherence, Crash, ObjectInfo, Page, Put, Space, Target, TargetError};
use parking_lot::{Condvar, Mutex};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Names in an answer of a server, at most.
pub(crate) const PAGE_MAX: usize = 1000;

/// What a target holds at a moment.
pub(crate) type Saved = BTreeMap<ObjectKey, Arc<Vec<u8>>>;

/// Objects in memory. Keeps what was ever put, so that a test can let a put arrive once more, much later.
#[derive(Debug, Default)]
pub(crate) struct MemoryTarget {
    prepared: AtomicBool,
    paged: AtomicBool,
    doubtful: AtomicBool,
    objects: Mutex<Saved>,
    history: Mutex<Vec<(ObjectKey, Arc<Vec<u8>>)>>,
}

impl MemoryTarget {
    /// Everything that was ever put under keys with this prefix, in order.
    pub(crate) fn history(&self, prefix: &str) -> Vec<(ObjectKey, Arc<Vec<u8>>)> {
        self.history.lock().iter().filter(|(key, _)| key.as_str().starts_with(prefix)).cloned().collect()
    }

    /// Lets a put arrive again, as a network that repeats requests may do.
    pub(crate) fn repeat(&self, (key, bytes): (ObjectKey, Arc<Vec<u8>>)) {
        self.objects.lock().insert(key, bytes);
    }

    /// Changes an object behind everybody's back.
    pub(crate) fn damage(&self, key: &ObjectKey, change: impl FnOnce(&mut Vec<u8>)) {
        let mut objects = self.objects.lock();
        let mut bytes = objects.get(key).expect("the object is there").to_vec();
        change(&mut bytes);
        objects.insert(key.clone(), Arc::new(bytes));
    }

    /// What there is, for putting it back.
    pub(crate) fn save(&self) -> Saved {
        self.objects.lock().clone()
    }

    /// Puts everything back to an earlier state.
    pub(crate) fn put_back(&self, saved: Saved) {
        *self.objects.lock() = saved;
    }

    /// From now on its lists come in pages, and begin where they are asked to.
    pub(crate) fn set_paged(&self) {
        self.paged.store(true, Ordering::Relaxed);
    }

    /// From now on nobody can be sure to see what others write.
    pub(crate) fn set_doubtful(&self) {
        self.doubtful.store(true, Ordering::Relaxed);
    }

    /// Bytes of all objects with this prefix.
    pub(crate) fn bytes_below(&self, prefix: &str) -> usize {
        let objects = self.objects.lock();
        objects.iter().filter(|(key, _)| key.as_str().starts_with(prefix)).map(|(_, bytes)| bytes.len()).sum()
    }

    fn object(&self, key: &ObjectKey) -> Result<Arc<Vec<u8>>, TargetError> {
        let found = self.objects.lock().get(key).cloned();
        found.ok_or_else(|| TargetError::NotFound { target: self.describe(), key: key.clone() })
    }

    fn check(&self, key: &str) -> Result<(), TargetError> {
        let absent = || TargetError::from_errno(self.describe(), "reaching", key, nix::errno::Errno::ENODEV);
        if self.prepared.load(Ordering::Relaxed) { Ok(()) } else { Err(absent()) }
    }
}

impl Target for MemoryTarget {
    fn describe(&self) -> String {
        "memory".into()
    }
    fn coherence(&self) -> Coherence {
        match self.doubtful.load(Ordering::Relaxed) {
            true => Coherence::Doubtful("it remembers lists".into()),
            false => Coherence::Certain,
        }
    }
    fn prepare(&self) -> Result<(), TargetError> {
        let foreign = |key: &ObjectKey| {
            let top = key.as_str().split('/').next().unwrap_or_default();
            !layout::directories().iter().any(|dir| dir == top) && key.as_str() != layout::HEADER
        };
        match self.objects.lock().keys().find(|key| foreign(key)) {
            Some(key) => Err(TargetError::Occupied { target: self.describe(), found: key.to_string() }),
            None => {
                self.prepared.store(true, Ordering::Relaxed);
                Ok(())
            }
        }
    }
    fn put(&self, key: &ObjectKey, parts: &[&[u8]]) -> Result<(), TargetError> {
        self.check(key.as_str())?;
        let bytes = Arc::new(parts.concat());
        self.history.lock().push((key.clone(), Arc::clone(&bytes)));
        self.objects.lock().insert(key.clone(), bytes);
        Ok(())
    }
    fn put_new(&self, key: &ObjectKey, parts: &[&[u8]]) -> Result<Put, TargetError> {
        self.check(key.as_str())?;
        let mut objects = self.objects.lock();
        if objects.contains_key(key) {
            return Ok(Put::Exists);
        }
        let bytes = Arc::new(parts.concat());
        self.history.lock().push((key.clone(), Arc::clone(&bytes)));
        objects.insert(key.clone(), bytes);
        Ok(Put::Created)
    }
    fn get(&self, key: &ObjectKey) -> Result<Vec<u8>, TargetError> {
        Ok(self.object(key)?.to_vec())
    }
    fn read_at(&self, key: &ObjectKey, offset: u64, buf: &mut [u8]) -> Result<(), TargetError> {
        let object = self.object(key)?;
        let (wanted_bytes, size_bytes) = (buf.len() as u64, object.len() as u64);
        let truncated =
            || TargetError::Truncated { target: self.describe(), key: key.clone(), offset, wanted_bytes, size_bytes };
        let rest = object.get(offset as usize..).unwrap_or_default();
        buf.copy_from_slice(rest.get(..buf.len()).ok_or_else(truncated)?);
        Ok(())
    }
    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, TargetError> {
        let objects = self.objects.lock();
        let found = objects.iter().filter(|(key, _)| key.as_str().starts_with(prefix));
        Ok(found.map(|(key, bytes)| ObjectInfo { key: key.clone(), size_bytes: Some(bytes.len() as u64) }).collect())
    }
    fn is_paged(&self) -> bool {
        self.paged.load(Ordering::Relaxed)
    }
    fn list_after(&self, prefix: &str, after: &str) -> Result<Vec<ObjectInfo>, TargetError> {
        let mut listed = self.list(prefix)?;
        listed.retain(|info| !self.is_paged() || info.key.as_str() > after);
        Ok(listed)
    }
    fn list_page(&self, after: &str, wanted: usize) -> Result<Page, TargetError> {
        if !self.is_paged() {
            return Ok(Page { objects: Vec::new(), rest_after: Some(after.to_owned()) });
        }
        let mut objects = self.list_after("", after)?;
        let is_all = objects.len() <= wanted.min(PAGE_MAX);
        objects.truncate(wanted.min(PAGE_MAX));
        let last = objects.last().map_or(after, |info| info.key.as_str()).to_owned();
        Ok(Page { objects, rest_after: (!is_all).then_some(last) })
    }
    fn delete(&self, key: &ObjectKey) -> Result<(), TargetError> {
        self.objects.lock().remove(key);
        Ok(())
    }
    fn space(&self) -> Result<Space, TargetError> {
        Ok(Space { total_bytes: 1 << 40, free_bytes: 1 << 40 })
    }
}

#[derive(Debug, Default)]
struct Held {
    calls: u64,
    hold_at: Option<u64>,
    holding: bool,
    die_at: Option<(u64, Crash)>,
    dead: bool,
}

/// One host's way to a target. Calls are counted; at a chosen one the host stands still until it is let go, or dies there.
pub(crate) struct HeldTarget {
    inner: Arc<dyn Target>,
    held: Mutex<Held>,
    changed: Condvar,
}

impl HeldTarget {
    pub(crate) fn new(inner: Arc<dyn Target>) -> Arc<Self> {
        Arc::new(Self { inner, held: Mutex::default(), changed: Condvar::new() })
    }

    /// The call of this number from now on (0 is the next) is where the host stops.
    pub(crate) fn hold_after(&self, calls: u64) {
        let mut held = self.held.lock();
        held.hold_at = Some(held.calls + calls);
    }

    /// Waits until the host stands still, or `done` says that it never will.
    pub(crate) fn wait_until_held(&self, done: impl Fn() -> bool) -> bool {
        let mut held = self.held.lock();
        loop {
            if held.holding || done() {
                return held.holding;
            }
            self.changed.wait_for(&mut held, std::time::Duration::from_millis(1));
        }
    }

    /// Lets the host go on.
    pub(crate) fn release(&self) {
        self.held.lock().hold_at = None;
        self.changed.notify_all();
    }

    /// The host dies now: the call it stands at and all others fail.
    pub(crate) fn kill(&self) {
        let mut held = self.held.lock();
        (held.dead, held.hold_at) = (true, None);
        self.changed.notify_all();
    }

    /// It dies at the call of this number from now on, before or after what that does.
    pub(crate) fn die_after(&self, calls: u64, crash: Crash) {
        let mut held = self.held.lock();
        held.die_at = Some((held.calls + calls, crash));
    }

    /// Whether it died.
    pub(crate) fn is_dead(&self) -> bool {
        self.held.lock().dead
    }

    fn call<T>(
        &self,
        action: &'static str,
        key: &str,
        call: impl FnOnce() -> Result<T, TargetError>,
    ) -> Result<T, TargetError> {
        let died = || TargetError::from_errno(self.describe(), action, key, nix::errno::Errno::ENOTCONN);
        let mut held = self.held.lock();
        let number = held.calls;
        held.calls += 1;
        while held.hold_at.is_some_and(|at| at <= number) {
            held.holding = true;
            self.changed.notify_all();
            self.changed.wait(&mut held);
        }
        held.holding = false;
        let happens = !held.dead;
        if let Some((_, crash)) = held.die_at.filter(|(at, _)| *at <= number) {
            let was_alive = !std::mem::replace(&mut held.dead, true);
            drop(held);
            if was_alive && crash == Crash::After {
                let _ = call();
            }
            return Err(died());
        }
        drop(held);
        if happens { call() } else { Err(died()) }
    }
}

impl Target for HeldTarget {
    fn describe(&self) -> String {
        self.inner.describe()
    }
    fn coherence(&self) -> Coherence {
        self.inner.coherence()
    }
    fn prepare(&self) -> Result<(), TargetError> {
        self.inner.prepare()
    }
    fn put(&self, key: &ObjectKey, parts: &[&[u8]]) -> Result<(), TargetError> {
        self.call("writing", key.as_str(), || self.inner.put(key, parts))
    }
    fn put_new(&self, key: &ObjectKey, parts: &[&[u8]]) -> Result<Put, TargetError> {
        self.call("writing", key.as_str(), || self.inner.put_new(key, parts))
    }
    fn get(&self, key: &ObjectKey) -> Result<Vec<u8>, TargetError> {
        self.call("reading", key.as_str(), || self.inner.get(key))
    }
    fn read_at(&self, key: &ObjectKey, offset: u64, buf: &mut [u8]) -> Result<(), TargetError> {
        self.call("reading", key.as_str(), || self.inner.read_at(key, offset, buf))
    }
    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, TargetError> {
        self.call("listing", prefix, || self.inner.list(prefix))
    }
    fn is_paged(&self) -> bool {
        self.inner.is_paged()
    }
    fn list_after(&self, prefix: &str, after: &str) -> Result<Vec<ObjectInfo>, TargetError> {
        self.call("listing", prefix, || self.inner.list_after(prefix, after))
    }
    fn list_page(&self, after: &str, wanted: usize) -> Result<Page, TargetError> {
        self.call("listing", after, || self.inner.list_page(after, wanted))
    }
    fn delete(&self, key: &ObjectKey) -> Result<(), TargetError> {
        self.call("deleting", key.as_str(), || self.inner.delete(key))
    }
    fn space(&self) -> Result<Space, TargetError> {
        self.inner.space()
    }
}

#[test]
fn both_are_targets() {
    crate::target::conformance::check(&MemoryTarget::default());
    crate::target::conformance::check(&*HeldTarget::new(Arc::new(MemoryTarget::default())));
}
