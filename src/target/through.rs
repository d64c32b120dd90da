//! Targets of tests that do one thing differently, and all else as the target they wrap.

use crate::format::layout::ObjectKey;
use crate::target::{ObjectInfo, Page, Put, Space, Target, TargetError};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

/// As [`Target`], most of whose methods it has; each that is not written asks the target within, but a list after a name, which is a
/// whole list.
pub trait Through: Send + Sync {
    /// The target within.
    fn within(&self) -> &dyn Target;

    fn put(&self, key: &ObjectKey, parts: &[&[u8]]) -> Result<(), TargetError> {
        self.within().put(key, parts)
    }
    fn put_new(&self, key: &ObjectKey, parts: &[&[u8]]) -> Result<Put, TargetError> {
        self.within().put_new(key, parts)
    }
    fn get(&self, key: &ObjectKey) -> Result<Vec<u8>, TargetError> {
        self.within().get(key)
    }
    fn read_at(&self, key: &ObjectKey, offset: u64, buf: &mut [u8]) -> Result<(), TargetError> {
        self.within().read_at(key, offset, buf)
    }
    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, TargetError> {
        self.within().list(prefix)
    }
    fn is_paged(&self) -> bool {
        self.within().is_paged()
    }
    fn list_after(&self, prefix: &str, after: &str) -> Result<Vec<ObjectInfo>, TargetError> {
        let _ = after;
        Through::list(self, prefix)
    }
    fn list_page(&self, after: &str, wanted: usize) -> Result<Page, TargetError> {
        self.within().list_page(after, wanted)
    }
    fn delete(&self, key: &ObjectKey) -> Result<(), TargetError> {
        self.within().delete(key)
    }
}

impl<T: Through> Target for T {
    fn describe(&self) -> String {
        self.within().describe()
    }
    fn prepare(&self) -> Result<(), TargetError> {
        self.within().prepare()
    }
    fn put(&self, key: &ObjectKey, parts: &[&[u8]]) -> Result<(), TargetError> {
        Through::put(self, key, parts)
    }
    fn put_new(&self, key: &ObjectKey, parts: &[&[u8]]) -> Result<Put, TargetError> {
        Through::put_new(self, key, parts)
    }
    fn get(&self, key: &ObjectKey) -> Result<Vec<u8>, TargetError> {
        Through::get(self, key)
    }
    fn read_at(&self, key: &ObjectKey, offset: u64, buf: &mut [u8]) -> Result<(), TargetError> {
        Through::read_at(self, key, offset, buf)
    }
    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, TargetError> {
        Through::list(self, prefix)
    }
    fn is_paged(&self) -> bool {
        Through::is_paged(self)
    }
    fn list_after(&self, prefix: &str, after: &str) -> Result<Vec<ObjectInfo>, TargetError> {
        Through::list_after(self, prefix, after)
    }
    fn list_page(&self, after: &str, wanted: usize) -> Result<Page, TargetError> {
        Through::list_page(self, after, wanted)
    }
    fn delete(&self, key: &ObjectKey) -> Result<(), TargetError> {
        Through::delete(self, key)
    }
    fn space(&self) -> Result<Space, TargetError> {
        self.within().space()
    }
}

/// Of which some objects lie on bad sectors, until they are written anew.
pub struct Worn {
    inner: Arc<dyn Target>,
    bad: Mutex<Vec<ObjectKey>>,
}

impl Worn {
    /// These cannot be read.
    pub fn new(inner: Arc<dyn Target>, bad: Vec<ObjectKey>) -> Arc<Self> {
        Arc::new(Self { inner, bad: Mutex::new(bad) })
    }
}

impl Through for Worn {
    fn within(&self) -> &dyn Target {
        &*self.inner
    }
    fn put(&self, key: &ObjectKey, parts: &[&[u8]]) -> Result<(), TargetError> {
        self.bad.lock().retain(|bad| bad != key);
        self.inner.put(key, parts)
    }
    fn get(&self, key: &ObjectKey) -> Result<Vec<u8>, TargetError> {
        if !self.bad.lock().contains(key) {
            return self.inner.get(key);
        }
        let source = std::io::Error::from_raw_os_error(libc::EIO);
        Err(TargetError::Io { target: self.describe(), action: "reading", key: key.to_string(), source })
    }
}

/// Which holds up the next object of a kind while something happens meanwhile.
pub struct Gate {
    inner: Arc<dyn Target>,
    next: Mutex<Option<Held>>,
}

struct Held {
    prefix: &'static str,
    here: SyncSender<()>,
    go_on: Receiver<()>,
}

impl Gate {
    /// Holds nothing up yet.
    pub fn new(inner: Arc<dyn Target>) -> Arc<Self> {
        Arc::new(Self { inner, next: Mutex::default() })
    }

    /// Runs `action` in a thread, and `meanwhile` in this one once the action puts an object of this prefix. Says whether it did.
    pub fn meanwhile(&self, prefix: &'static str, action: impl FnOnce() + Send, meanwhile: impl FnOnce()) -> bool {
        let (here, arrived) = sync_channel(1);
        let (go_on, wait) = sync_channel(1);
        *self.next.lock() = Some(Held { prefix, here: here.clone(), go_on: wait });
        std::thread::scope(|scope| {
            let acting = scope.spawn(move || {
                action();
                // It may have put none.
                let _ = here.try_send(());
            });
            arrived.recv().expect("the action");
            let is_held = self.next.lock().take().is_none();
            if is_held {
                // Should it panic, whoever is held up is told by the end of this.
                let go_on = go_on;
                meanwhile();
                go_on.send(()).expect("whoever waits");
            }
            acting.join().expect("the action");
            is_held
        })
    }

    fn pass(&self, key: &ObjectKey) {
        let held = self.next.lock().take_if(|held| key.as_str().starts_with(held.prefix));
        if let Some(held) = held {
            held.here.send(()).expect("whoever looks");
            let gone_on = held.go_on.recv_timeout(Duration::from_secs(60));
            gone_on.expect("what happens meanwhile waits for what is held up");
        }
    }
}

impl Through for Gate {
    fn within(&self) -> &dyn Target {
        &*self.inner
    }
    fn put(&self, key: &ObjectKey, parts: &[&[u8]]) -> Result<(), TargetError> {
        self.pass(key);
        self.inner.put(key, parts)
    }
    fn put_new(&self, key: &ObjectKey, parts: &[&[u8]]) -> Result<Put, TargetError> {
        self.pass(key);
        self.inner.put_new(key, parts)
    }
}

/// Whose lists come in pages, so that requests are what counts.
pub struct Paging(pub Arc<dyn Target>);

impl Through for Paging {
    fn within(&self) -> &dyn Target {
        &*self.0
    }
    fn is_paged(&self) -> bool {
        true
    }
}
