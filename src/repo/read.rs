//! Reading blocks and map nodes: cache, then what is pending here, then the target; any readable copy will do.

use crate::format::layout;
use crate::format::node::MapNode;
use crate::repo::look::Look;
use crate::repo::packer::Pending;
use crate::repo::{Core, RepoError, Repository};
use crate::seal::SealError;
use crate::words::ids::BlockId;
use crate::words::monitor::Counter;
use crate::words::record::{BlockKind, Location};
use parking_lot::{Condvar, Mutex};
use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt::Write as _;
use std::sync::Arc;

/// How often what is not authentic is read again before it counts as damaged.
pub(super) const REREADS: usize = 2;

thread_local! {
    static FRAME: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Core {
    /// Reads a data block: exactly one block of plaintext.
    pub fn read_block(&self, id: &BlockId) -> Result<Arc<Vec<u8>>, RepoError> {
        let _load = loop {
            if let Some(block) = self.blocks.get(id) {
                self.monitor.count(Counter::CacheHits, 1);
                return Ok(block);
            }
            // Only one thread decodes a block; the others wait for it and look again.
            if let Some(load) = self.loads.begin(id) {
                break load;
            }
        };
        self.monitor.count(Counter::CacheMisses, 1);
        let mut plain = self.loads.take_spare(self.header.block_size.bytes());
        self.read_into(BlockKind::Data, id, &mut plain)?;
        Ok(self.keep(*id, plain))
    }

    /// Puts a decoded block into the cache; what falls out gives its memory to the next.
    pub(super) fn keep(&self, id: BlockId, plain: Vec<u8>) -> Arc<Vec<u8>> {
        let block = Arc::new(plain);
        if let Some(freed) = self.blocks.insert(id, Arc::clone(&block), block.capacity()) {
            let mut spare = self.loads.spare.lock();
            if spare.len() < 8 {
                spare.push(freed);
            }
        }
        block
    }

    /// Reads a map node.
    pub fn read_node(&self, id: &BlockId) -> Result<Arc<MapNode>, RepoError> {
        if let Some(node) = self.nodes.get(id) {
            return Ok(node);
        }
        let mut plain = Vec::new();
        self.read_into(BlockKind::Map, id, &mut plain)?;
        let node = MapNode::decode(&plain).map_err(RepoError::format(format!("map node {id}")))?;
        let node = Arc::new(node);
        self.nodes.insert(*id, Arc::clone(&node), plain.len() + 64);
        Ok(node)
    }

    fn read_into(&self, kind: BlockKind, id: &BlockId, plain: &mut Vec<u8>) -> Result<(), RepoError> {
        // Between a look at what is pending and a look at the catalog a block may move from the one to the other, so an
        // absent block is looked for once more.
        for _ in 0..2 {
            match self.packer.read(id) {
                Some(Pending::Frame(frame)) => {
                    plain.clear();
                    return self
                        .sealer
                        .open_block_into(kind, id, &frame, plain)
                        .map_err(RepoError::seal(format!("block {id}")));
                }
                Some(Pending::Stored(location)) => return self.read_copies(kind, id, [location], plain),
                None => {}
            }
            let copies = self.catalog.all_locations(id)?;
            if !copies.is_empty() {
                return self.read_copies(kind, id, copies, plain);
            }
        }
        // A look at what is new may have missed the fragment that knows it: look at everything before saying that it is lost.
        if self.target.is_paged() && self.learn_fragments(Look::Everything, &mut Vec::new())? {
            let copies = self.catalog.all_locations(id)?;
            if !copies.is_empty() {
                return self.read_copies(kind, id, copies, plain);
            }
        }
        Err(RepoError::Damaged { id: *id, detail: "the index knows no copy of it".into() })
    }

    /// Tries one copy after the other. Bad ones are remembered, even where another is good: nothing may come to rely on them alone. A
    /// target out of reach is not damage.
    fn read_copies(
        &self,
        kind: BlockKind,
        id: &BlockId,
        copies: impl IntoIterator<Item = Location>,
        plain: &mut Vec<u8>,
    ) -> Result<(), RepoError> {
        let mut detail = String::new();
        for location in copies {
            let mut read = self.read_copy(kind, id, &location, plain);
            // Bytes may have been changed on their way here, or be the answer to another question. Reading again tells that from
            // damage, which stays.
            for _ in 0..REREADS {
                if matches!(read, Ok(()) | Err(RepoError::Target(_))) {
                    break;
                }
                read = self.read_copy(kind, id, &location, plain);
            }
            match read {
                Ok(()) => return Ok(()),
                Err(error @ RepoError::Target(_)) if !is_loss(&error) => return Err(error),
                Err(error) => {
                    let problem = format!("{} offset {}: {error}", layout::pack(location.pack), location.offset);
                    self.note_bad(id, &location, &problem);
                    let comma = if detail.is_empty() { "" } else { "; " };
                    let _ = write!(detail, "{comma}{problem}");
                }
            }
        }
        self.monitor.count(Counter::Damage, 1);
        Err(RepoError::Damaged { id: *id, detail })
    }

    /// Copies in condemned packs may go at any time; that is no damage.
    fn note_bad(&self, id: &BlockId, location: &Location, problem: &str) {
        let noted = self.catalog.is_condemned(&location.pack).and_then(|condemned| {
            if condemned { Ok(()) } else { self.catalog.note_bad(&location.pack, &[(*id, problem.to_owned())]) }
        });
        if let Err(error) = noted {
            tracing::error!("block {id} is damaged, but that could not be noted: {error}");
        }
    }

    fn read_copy(
        &self,
        kind: BlockKind,
        id: &BlockId,
        location: &Location,
        plain: &mut Vec<u8>,
    ) -> Result<(), RepoError> {
        self.monitor.count(Counter::TargetReads, 1);
        FRAME.with_borrow_mut(|frame| {
            frame.resize(location.frame_len as usize, 0);
            self.target.read_at(&layout::pack(location.pack), u64::from(location.offset), frame)?;
            plain.clear();
            let mut opened = self.sealer.open_block_into(kind, id, frame, plain);
            if matches!(opened, Err(SealError::UnknownKey { .. })) && self.learn_rings().unwrap_or(false) {
                opened = self.sealer.open_block_into(kind, id, frame, plain);
            }
            opened.map_err(RepoError::seal("not authentic"))?;
            if plain.len() != location.plain_len as usize {
                let text = format!("{} bytes where the index says {}", plain.len(), location.plain_len);
                return Err(RepoError::Damaged { id: *id, detail: text });
            }
            Ok(())
        })
    }
}

/// Whether an error of the target means that this copy is lost, not that the target is out of reach.
fn is_loss(error: &RepoError) -> bool {
    use crate::target::TargetError;
    match error {
        RepoError::Target(error) => matches!(**error, TargetError::NotFound { .. } | TargetError::Truncated { .. }),
        _ => true,
    }
}

/// Which blocks are being decoded now, and memory to decode into.
#[derive(Default)]
pub struct Loads {
    active: Mutex<HashSet<BlockId>>,
    finished: Condvar,
    spare: Mutex<Vec<Vec<u8>>>,
}

/// Ends the load when dropped, whether it succeeded or not.
pub(super) struct Load<'a> {
    loads: &'a Loads,
    id: BlockId,
}

impl Loads {
    /// Memory to decode a block into.
    pub(super) fn take_spare(&self, block_bytes: usize) -> Vec<u8> {
        self.spare.lock().pop().unwrap_or_else(|| Vec::with_capacity(block_bytes))
    }

    /// Begins a load, unless one is under way.
    pub(super) fn begin_now(&self, id: &BlockId) -> Option<Load<'_>> {
        self.active.lock().insert(*id).then(|| Load { loads: self, id: *id })
    }

    /// Begins a load; or waits until the one under way has ended and returns `None`.
    fn begin(&self, id: &BlockId) -> Option<Load<'_>> {
        let mut active = self.active.lock();
        if active.insert(*id) {
            return Some(Load { loads: self, id: *id });
        }
        while active.contains(id) {
            self.finished.wait(&mut active);
        }
        None
    }
}

impl Drop for Load<'_> {
    fn drop(&mut self) {
        self.loads.active.lock().remove(&self.id);
        self.loads.finished.notify_all();
    }
}

impl Repository {
    /// Reads a data block, one block size long.
    ///
    /// # Errors
    /// [`RepoError::Damaged`] when no copy is readable, [`RepoError::Target`] when the target cannot be reached.
    pub fn read_block(&self, id: &BlockId) -> Result<Arc<Vec<u8>>, RepoError> {
        self.core.read_block(id)
    }

    /// Reads a map node.
    ///
    /// # Errors
    /// As [`Repository::read_block`].
    pub fn read_node(&self, id: &BlockId) -> Result<Arc<MapNode>, RepoError> {
        self.core.read_node(id)
    }
}
