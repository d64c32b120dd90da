//! Gathers sealed blocks into packs and puts them on the target in the background.
//!
//! A block that was appended is *pending* until its pack is durable and in an index fragment: until then it can be read
//! back from here, and be deduplicated against, and whoever relies on it must ask [`Packer::check`] about the pack after a
//! [`Packer::flush`]. When putting a pack fails, its blocks are forgotten at once (nothing new can refer to them) and the
//! failure stays on record under the pack's number, so that every draft that used it learns of it.

use crate::catalog::Catalog;
use crate::format::frame::FrameKind;
use crate::format::layout::{self, ObjectKey};
use crate::format::{fragment, pack};
use crate::repo::buffers::PackBuffer;
use crate::repo::error::RepoError;
use crate::seal::Sealer;
use crate::target::Target;
use crate::words::clock::{Clock, ClockExt};
use crate::words::ids::{BlockId, FragmentId, PackId};
use crate::words::monitor::{Counter, Monitor};
use crate::words::record::{BlockKind, Location, PackContents, PackedBlock};
use parking_lot::{Condvar, Mutex, MutexGuard};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::thread::JoinHandle;

/// Number of a pack within this process; what relies on a pending block remembers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PackNo(u64);

/// Where a block that is not yet indexed can be read.
pub enum Pending {
    /// Its frame.
    Frame(Vec<u8>),
    /// Its pack is on the target already.
    Stored(Location),
}

/// What the packer works with.
pub struct PackerParts {
    /// Where packs go.
    pub target: Arc<dyn Target>,
    /// Seals footers and fragments.
    pub sealer: Arc<Sealer>,
    /// Learns what is durable.
    pub catalog: Arc<Catalog>,
    /// Gives fragment ids.
    pub clock: Arc<dyn Clock>,
    /// Is told of packs.
    pub monitor: Arc<dyn Monitor>,
    /// Size at which a pack is closed.
    pub pack_bytes: usize,
    /// Packs that may wait for the target at once.
    pub uploads_max: usize,
}

/// See the module.
pub struct Packer {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    parts: PackerParts,
    state: Mutex<State>,
    changed: Condvar,
    /// Held while a fragment is written, so that who comes second finds its packs indexed.
    indexing: Mutex<()>,
}

#[derive(Default)]
struct State {
    open: BTreeMap<BlockKind, OpenPack>,
    next_no: u64,
    phases: BTreeMap<PackNo, Phase>,
    queue: VecDeque<PackNo>,
    pending: HashMap<BlockId, PendingAt>,
    unindexed: Vec<(PackNo, PackContents)>,
    spare: Vec<PackBuffer>,
    stopping: bool,
}

#[derive(Clone, Copy)]
struct PendingAt {
    no: PackNo,
    block: PackedBlock,
}

struct OpenPack {
    no: PackNo,
    kind: BlockKind,
    bytes: PackBuffer,
    blocks: Vec<PackedBlock>,
}

enum Phase {
    Open(BlockKind),
    Waiting(Arc<OpenPack>),
    Durable(PackId),
    Failed(RepoError),
}

impl Packer {
    /// Starts the threads that put packs.
    pub fn start(parts: PackerParts) -> Self {
        let uploads = parts.uploads_max.max(1);
        let shared =
            Arc::new(Shared { parts, state: Mutex::default(), changed: Condvar::new(), indexing: Mutex::new(()) });
        let threads = (0..uploads.min(4))
            .map(|_| {
                let shared = Arc::clone(&shared);
                std::thread::Builder::new().name("pack-put".into()).spawn(move || shared.put_packs())
            })
            .filter_map(Result::ok)
            .collect();
        Self { shared, threads }
    }

    /// The pack in which a block is pending.
    pub fn pending_in(&self, id: &BlockId) -> Option<PackNo> {
        self.shared.state.lock().pending.get(id).map(|at| at.no)
    }

    /// Appends a sealed block, unless the same block is pending already. Waits while too many packs wait for the target.
    /// Returns the pack it is in and whether it was added now.
    ///
    /// # Errors
    /// When the footer of a full pack cannot be sealed.
    pub fn append(
        &self,
        kind: BlockKind,
        id: BlockId,
        frame: &[u8],
        plain_len: u32,
    ) -> Result<(PackNo, bool), RepoError> {
        let shared = &self.shared;
        let mut state = shared.state.lock();
        loop {
            if let Some(at) = state.pending.get(&id) {
                return Ok((at.no, false));
            }
            let full = state.open.get(&kind).is_some_and(|open| {
                open.bytes.len() + frame.len() > shared.parts.pack_bytes && !open.blocks.is_empty()
            });
            if full {
                shared.close(&mut state, kind)?;
            }
            if state.open.contains_key(&kind) || shared.waiting(&state) < shared.parts.uploads_max.max(1) {
                break;
            }
            shared.changed.wait(&mut state);
        }
        let open = shared.open(&mut state, kind);
        let no = open.no;
        let offset = u32::try_from(open.bytes.len()).expect("packs are far below 4 GiB");
        let frame_len = u32::try_from(frame.len()).expect("frames are far below 4 GiB");
        let block = PackedBlock { id, offset, frame_len, plain_len };
        open.bytes.append(frame);
        open.blocks.push(block);
        state.pending.insert(id, PendingAt { no, block });
        Ok((no, true))
    }

    /// Where a pending block can be read; `None` when it is not pending.
    pub fn read(&self, id: &BlockId) -> Option<Pending> {
        let state = self.shared.state.lock();
        let at = state.pending.get(id)?;
        let range = at.block.offset as usize..(at.block.offset + at.block.frame_len) as usize;
        match state.phases.get(&at.no)? {
            Phase::Open(kind) => state.open.get(kind).map(|open| Pending::Frame(open.bytes[range].to_vec())),
            Phase::Waiting(waiting) => Some(Pending::Frame(waiting.bytes[range].to_vec())),
            Phase::Durable(pack) => {
                let PackedBlock { offset, frame_len, plain_len, .. } = at.block;
                Some(Pending::Stored(Location { pack: *pack, offset, frame_len, plain_len }))
            }
            Phase::Failed(_) => None,
        }
    }

    /// Closes what is open, waits until everything appended before is on the target or has failed, then makes an index
    /// fragment of what is not yet in one. When it returns `Ok`, every pack number handed out before is durable *and*
    /// indexed, or [`Packer::check`] names its failure.
    ///
    /// # Errors
    /// When the fragment cannot be stored or the catalog cannot take it. The packs stay known and go into the next one.
    pub fn flush(&self) -> Result<(), RepoError> {
        let shared = &self.shared;
        let mut state = shared.state.lock();
        for kind in [BlockKind::Data, BlockKind::Map] {
            shared.close(&mut state, kind)?;
        }
        let end = PackNo(state.next_no);
        while state.phases.range(..end).any(|(_, phase)| matches!(phase, Phase::Open(_) | Phase::Waiting(_))) {
            shared.changed.wait(&mut state);
        }
        drop(state);
        shared.index()
    }

    /// Whether a pack that something relied on has failed.
    ///
    /// # Errors
    /// The failure.
    pub fn check(&self, packs: impl IntoIterator<Item = PackNo>) -> Result<(), RepoError> {
        let state = self.shared.state.lock();
        packs.into_iter().try_for_each(|no| match state.phases.get(&no) {
            Some(Phase::Failed(error)) => Err(error.clone()),
            _ => Ok(()),
        })
    }

    /// Packs that wait for the target, and how many may.
    pub fn waiting(&self) -> (usize, usize) {
        (self.shared.waiting(&self.shared.state.lock()), self.shared.parts.uploads_max.max(1))
    }

    /// Bytes held in memory for packs that are open or wait for the target.
    pub fn held_bytes(&self) -> usize {
        let state = self.shared.state.lock();
        let waiting = state.phases.values().map(|phase| match phase {
            Phase::Waiting(pack) => pack.bytes.len(),
            _ => 0,
        });
        waiting.sum::<usize>() + state.open.values().map(|open| open.bytes.len()).sum::<usize>()
    }
}

impl Drop for Packer {
    fn drop(&mut self) {
        self.shared.state.lock().stopping = true;
        self.shared.changed.notify_all();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn waiting(&self, state: &State) -> usize {
        state.phases.values().filter(|phase| matches!(phase, Phase::Waiting(_))).count()
    }

    fn open<'a>(&self, state: &'a mut State, kind: BlockKind) -> &'a mut OpenPack {
        let State { open, next_no, phases, spare, .. } = state;
        open.entry(kind).or_insert_with(|| {
            let no = PackNo(*next_no);
            *next_no += 1;
            phases.insert(no, Phase::Open(kind));
            let mut bytes = match kind {
                BlockKind::Data => spare.pop().unwrap_or_else(|| PackBuffer::new(self.parts.pack_bytes + (1 << 20))),
                BlockKind::Map => PackBuffer::new(0),
            };
            bytes.clear();
            bytes.append(&pack::header(&self.parts.sealer.repo(), kind));
            OpenPack { no, kind, bytes, blocks: Vec::new() }
        })
    }

    fn close(&self, state: &mut State, kind: BlockKind) -> Result<(), RepoError> {
        let Some(mut open) = state.open.remove(&kind) else { return Ok(()) };
        let footer_offset = u32::try_from(open.bytes.len()).expect("packs are far below 4 GiB");
        let footer = self.parts.sealer.seal_object(FrameKind::PackFooter, [0; 32], &pack::encode_footer(&open.blocks));
        let footer_len = u32::try_from(footer.len()).expect("footers are far below 4 GiB");
        open.bytes.append(&footer);
        open.bytes.append(&pack::trailer(footer_offset, footer_len));
        let no = open.no;
        state.phases.insert(no, Phase::Waiting(Arc::new(open)));
        state.queue.push_back(no);
        self.changed.notify_all();
        Ok(())
    }

    fn put_packs(&self) {
        let mut state = self.state.lock();
        loop {
            let Some(no) = state.queue.pop_front() else {
                if state.stopping {
                    return;
                }
                self.changed.wait(&mut state);
                continue;
            };
            let Some(Phase::Waiting(waiting)) = state.phases.get(&no) else { continue };
            let waiting = Arc::clone(waiting);
            let put = MutexGuard::unlocked(&mut state, || self.put_pack(&waiting));
            match put {
                Ok(pack) => {
                    state.phases.insert(no, Phase::Durable(pack));
                    let size_bytes = waiting.bytes.len() as u64;
                    let blocks = waiting.blocks.clone();
                    state.unindexed.push((no, PackContents { pack, kind: waiting.kind, size_bytes, blocks }));
                }
                Err(error) => {
                    tracing::error!("a pack of {} blocks could not be stored: {error}", waiting.blocks.len());
                    state.pending.retain(|_, at| at.no != no);
                    state.phases.insert(no, Phase::Failed(error));
                }
            }
            if let Some(open) = Arc::into_inner(waiting)
                && open.kind == BlockKind::Data
                && state.spare.len() < self.parts.uploads_max
            {
                state.spare.push(open.bytes);
            }
            self.changed.notify_all();
        }
    }

    fn put_pack(&self, waiting: &OpenPack) -> Result<PackId, RepoError> {
        let pack = PackId::from_bytes(Sha256::digest(&*waiting.bytes).into());
        let key: ObjectKey = layout::pack(pack);
        self.parts.target.put(&key, &[&waiting.bytes])?;
        self.parts.monitor.count(Counter::PacksPut, 1);
        self.parts.monitor.count(Counter::BytesStored, waiting.bytes.len() as u64);
        Ok(pack)
    }

    fn index(&self) -> Result<(), RepoError> {
        let _serial = self.indexing.lock();
        let packs = std::mem::take(&mut self.state.lock().unindexed);
        if packs.is_empty() {
            return Ok(());
        }
        let result = self.put_fragment(packs.iter().map(|(_, contents)| contents.clone()).collect());
        let mut state = self.state.lock();
        if result.is_err() {
            state.unindexed.extend(packs);
            return result;
        }
        for (no, contents) in packs {
            for block in contents.blocks {
                if state.pending.get(&block.id).is_some_and(|at| at.no == no) {
                    state.pending.remove(&block.id);
                }
            }
            state.phases.remove(&no);
        }
        Ok(())
    }

    fn put_fragment(&self, packs: Vec<PackContents>) -> Result<(), RepoError> {
        let parts = &self.parts;
        let id: FragmentId = parts.clock.fragment_id();
        let sealed = parts.sealer.seal_object(
            FrameKind::Fragment,
            crate::repo::object_id(id.as_bytes(), &[]),
            &fragment::encode(&packs),
        );
        parts.target.put(&layout::fragment(id), &[&sealed])?;
        parts.monitor.count(Counter::FragmentsPut, 1);
        Ok(parts.catalog.absorb_fragment(id, &packs)?)
    }
}
