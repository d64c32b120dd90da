//! Reading blocks and map nodes: cache, then what is pending here, then the target; any readable copy will do.

use crate::format::layout;
use crate::format::node::MapNode;
use crate::repo::learn::Learner;
use crate::repo::packer::Pending;
use crate::repo::reread::REREADS;
use crate::repo::{Core, RepoError, Repository};
use crate::seal::SealError;
use crate::words::ids::{BlockId, PackId};
use crate::words::monitor::Counter;
use crate::words::record::{BlockKind, Location};
use parking_lot::{Condvar, Mutex};
use std::cell::RefCell;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A block that is gone makes the index be asked for it no more often than this.
const LEARN_AGAIN_AFTER: Duration = Duration::from_secs(1);

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

    pub(super) fn read_into(&self, kind: BlockKind, id: &BlockId, plain: &mut Vec<u8>) -> Result<(), RepoError> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            match self.packer.read(id) {
                Some(Pending::Frame(frame)) => {
                    plain.clear();
                    return self
                        .sealer
                        .open_block_into(kind, id, &frame, plain)
                        .map_err(RepoError::seal(format!("block {id}")));
                }
                Some(Pending::Stored(location)) => {
                    return match self.try_copies(kind, id, &[location], plain)? {
                        Tried { read: true, .. } => Ok(()),
                        tried => Err(self.damaged(id, tried)),
                    };
                }
                None => {}
            }
            if self.read_cached(kind, id, plain) {
                return Ok(());
            }
            let copies = self.catalog.all_locations(id)?;
            // Between a look at what is pending and a look at the catalog a block may move from the one to the other, so an
            // absent block is looked for once more.
            if copies.is_empty() && attempt == 1 {
                continue;
            }
            let tried = self.try_copies(kind, id, &copies, plain)?;
            // A collector may have moved the block to another pack and deleted this one.
            if tried.is_gone() {
                self.learn_places(&tried)?;
            }
            if tried.read {
                self.note_bad(id, &tried.bad);
                return Ok(());
            }
            // Whoever learnt of another copy since: this, another thread, another process.
            if self.catalog.all_locations(id)?.iter().all(|copy| copies.contains(copy)) {
                return Err(self.damaged(id, tried));
            }
        }
    }

    /// Learns where collectors have put blocks since. A collector indexes what it moves before it deletes a pack, so a pack that is
    /// found gone is reason to look at once, but only the first time: then it serves all its blocks. Otherwise not many times a
    /// second. Who comes while another looks waits for what that finds.
    fn learn_places(&self, tried: &Tried) -> Result<(), RepoError> {
        let mut sought = self.loads.sought.lock();
        let gone = tried.bad.iter().filter(|(_, error)| error.is_gone()).map(|(location, _)| location.pack);
        let news: Vec<PackId> = gone.filter(|pack| !sought.packs.contains(pack)).collect();
        if !news.is_empty() || sought.last.is_none_or(|at| at.elapsed() >= LEARN_AGAIN_AFTER) {
            let mut learner = Learner::new(self, &self.catalog);
            learner.fragments()?;
            // Which packs are dead matters to who writes. A reader takes whatever can be read.
            if let Err(error) = learner.condemned() {
                tracing::debug!("the list of condemned packs: {error}");
            }
            sought.last = Some(Instant::now());
            sought.packs.extend(news);
        }
        Ok(())
    }

    /// Reads a block from the cache on disk. Only what proves to be that block counts.
    fn read_cached(&self, kind: BlockKind, id: &BlockId, plain: &mut Vec<u8>) -> bool {
        let Some(cache) = &self.disk_cache else { return false };
        let found = FRAME.with_borrow_mut(|frame| {
            if !cache.get(id, frame) {
                return false;
            }
            plain.clear();
            let opened = self.sealer.open_block_into(kind, id, frame, plain);
            if let Err(error) = &opened {
                tracing::debug!("block {id} in the cache: {error}");
                cache.forget(id);
            }
            opened.is_ok()
        });
        self.monitor.count(if found { Counter::DiskCacheHits } else { Counter::DiskCacheMisses }, 1);
        found
    }

    /// A data block from the cache on disk.
    pub(super) fn block_from_disk(&self, id: &BlockId) -> Option<Vec<u8>> {
        self.disk_cache.as_ref()?;
        let mut plain = self.loads.take_spare(self.header.block_size.bytes());
        if self.read_cached(BlockKind::Data, id, &mut plain) {
            return Some(plain);
        }
        self.loads.spare.lock().push(plain);
        None
    }

    /// Offers a frame that proved good to the cache on disk.
    pub(super) fn keep_on_disk(&self, id: &BlockId, frame: &[u8]) {
        if let Some(cache) = &self.disk_cache {
            cache.keep(id, frame);
        }
    }

    /// Tries one copy after the other. A target out of reach is not damage.
    fn try_copies(
        &self,
        kind: BlockKind,
        id: &BlockId,
        copies: &[Location],
        plain: &mut Vec<u8>,
    ) -> Result<Tried, RepoError> {
        let mut tried = Tried::default();
        for location in copies {
            let mut read = self.read_copy(kind, id, location, plain);
            // Bytes may have been changed on their way here, or be the answer to another question. Reading again tells that from
            // damage, which stays.
            for _ in 0..REREADS {
                if matches!(read, Ok(()) | Err(RepoError::Target(_))) {
                    break;
                }
                read = self.read_copy(kind, id, location, plain);
            }
            match read {
                Ok(()) => {
                    tried.read = true;
                    break;
                }
                Err(error @ RepoError::Target(_)) if !is_loss(&error) => return Err(error),
                Err(error) => tried.bad.push((*location, error)),
            }
        }
        Ok(tried)
    }

    fn damaged(&self, id: &BlockId, tried: Tried) -> RepoError {
        self.note_bad(id, &tried.bad);
        self.monitor.count(Counter::Damage, 1);
        let problems = tried.bad.iter().map(|(location, error)| problem(location, error));
        let detail = match tried.bad.is_empty() {
            true => "the index knows no copy of it".to_owned(),
            false => problems.collect::<Vec<_>>().join("; "),
        };
        RepoError::Damaged { id: *id, detail }
    }

    /// Remembers bad copies, even where another is good: nothing may come to rely on them alone. Copies in condemned packs may
    /// go at any time; that is no damage.
    fn note_bad(&self, id: &BlockId, bad: &[(Location, RepoError)]) {
        for (location, error) in bad {
            let noted = self.catalog.is_condemned(&location.pack).and_then(|condemned| {
                if condemned {
                    Ok(())
                } else {
                    self.catalog.note_bad(&location.pack, &[(*id, problem(location, error))])
                }
            });
            if let Err(error) = noted {
                tracing::error!("block {id} is damaged, but that could not be noted: {error}");
            }
        }
    }

    pub(super) fn read_copy(
        &self,
        kind: BlockKind,
        id: &BlockId,
        location: &Location,
        plain: &mut Vec<u8>,
    ) -> Result<(), RepoError> {
        self.monitor.count(Counter::TargetReads, 1);
        FRAME.with_borrow_mut(|frame| {
            let len = location.frame_len as usize;
            if frame.len() < len {
                frame.resize(len, 0);
            }
            let frame = &mut frame[..len];
            self.target.read_at(&layout::pack(location.pack), u64::from(location.offset), frame)?;
            plain.clear();
            let mut opened = self.sealer.open_block_into(kind, id, frame, plain);
            if matches!(opened, Err(SealError::UnknownKey { .. })) && self.learn_ring_in_use() {
                opened = self.sealer.open_block_into(kind, id, frame, plain);
            }
            opened.map_err(RepoError::seal("not authentic"))?;
            if plain.len() != location.plain_len as usize {
                let text = format!("{} bytes where the index says {}", plain.len(), location.plain_len);
                return Err(RepoError::Damaged { id: *id, detail: text });
            }
            self.keep_on_disk(id, frame);
            Ok(())
        })
    }
}

/// What became of the copies of a block.
#[derive(Default)]
struct Tried {
    /// Whether one was good.
    read: bool,
    /// Those that were not, and why.
    bad: Vec<(Location, RepoError)>,
}

impl Tried {
    /// Whether a pack is not there, or none is known: others may know more.
    fn is_gone(&self) -> bool {
        self.bad.iter().any(|(_, error)| error.is_gone()) || (!self.read && self.bad.is_empty())
    }
}

fn problem(location: &Location, error: &RepoError) -> String {
    format!("{} offset {}: {error}", layout::pack(location.pack), location.offset)
}

/// Whether an error of the target means that this copy is lost, not that the target is out of reach.
pub(super) fn is_loss(error: &RepoError) -> bool {
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
    sought: Mutex<Sought>,
}

/// When blocks were looked for in the index of the target.
#[derive(Default)]
struct Sought {
    last: Option<Instant>,
    /// Packs that were found gone; the index was read after that.
    packs: HashSet<PackId>,
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
