//! Decoded blocks and map nodes, kept within a fixed number of bytes; least recently used ones go first.

use crate::words::ids::BlockId;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Maps ids to decoded contents. Values are shared, so a reader keeps what it holds while the cache forgets it.
pub struct BlockCache<V> {
    inner: Mutex<Inner<V>>,
    limit_bytes: usize,
}

struct Inner<V> {
    entries: HashMap<BlockId, Slot<V>>,
    order: BTreeMap<u64, BlockId>,
    tick: u64,
    held_bytes: usize,
}

struct Slot<V> {
    value: Arc<V>,
    bytes: usize,
    tick: u64,
}

impl<V> BlockCache<V> {
    /// A cache that holds at most `limit_bytes` of values (as told at insertion).
    pub fn new(limit_bytes: usize) -> Self {
        let inner = Inner { entries: HashMap::new(), order: BTreeMap::new(), tick: 0, held_bytes: 0 };
        Self { inner: Mutex::new(inner), limit_bytes }
    }

    /// Looks a value up and marks it as used.
    pub fn get(&self, id: &BlockId) -> Option<Arc<V>> {
        let mut inner = self.inner.lock();
        inner.tick += 1;
        let now = inner.tick;
        let slot = inner.entries.get_mut(id)?;
        let before = std::mem::replace(&mut slot.tick, now);
        let value = Arc::clone(&slot.value);
        inner.order.remove(&before);
        inner.order.insert(now, *id);
        Some(value)
    }

    /// Whether a value is held, without marking it as used.
    pub fn contains(&self, id: &BlockId) -> bool {
        self.inner.lock().entries.contains_key(id)
    }

    /// Adds a value of `bytes`. Returns a value that fell out and is held by nobody else, for reuse of its memory.
    pub fn insert(&self, id: BlockId, value: Arc<V>, bytes: usize) -> Option<V> {
        let mut inner = self.inner.lock();
        inner.tick += 1;
        let tick = inner.tick;
        if let Some(old) = inner.entries.insert(id, Slot { value, bytes, tick }) {
            inner.order.remove(&old.tick);
            inner.held_bytes -= old.bytes;
        }
        inner.order.insert(tick, id);
        inner.held_bytes += bytes;
        let mut freed = None;
        while inner.held_bytes > self.limit_bytes {
            let Some((_, oldest)) = inner.order.pop_first() else { break };
            if let Some(slot) = inner.entries.remove(&oldest) {
                inner.held_bytes -= slot.bytes;
                freed = Arc::into_inner(slot.value).or(freed);
            }
        }
        freed
    }

    /// Forgets one value.
    pub fn remove(&self, id: &BlockId) {
        let mut inner = self.inner.lock();
        if let Some(slot) = inner.entries.remove(id) {
            inner.order.remove(&slot.tick);
            inner.held_bytes -= slot.bytes;
        }
    }

    /// Bytes held now.
    pub fn held_bytes(&self) -> usize {
        self.inner.lock().held_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u8) -> BlockId {
        BlockId::from_bytes([n; 32])
    }

    #[test]
    fn the_least_recently_used_goes_first() {
        let cache = BlockCache::new(3);
        for n in 1..=3 {
            cache.insert(id(n), Arc::new(n), 1);
        }
        assert_eq!(cache.get(&id(1)).as_deref(), Some(&1));
        assert_eq!(cache.insert(id(4), Arc::new(4), 1), Some(2));
        assert!(cache.contains(&id(1)) && !cache.contains(&id(2)));
        cache.insert(id(1), Arc::new(9), 2);
        assert_eq!(cache.held_bytes(), 3);
        cache.remove(&id(1));
        assert_eq!((cache.held_bytes(), cache.get(&id(1))), (1, None));
    }
}
