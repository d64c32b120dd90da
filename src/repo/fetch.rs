//! Reading many blocks with few requests.
//!
//! A backup lays the blocks of an image into packs in the order in which they were read, so what is read together lies together.
//! A batch of blocks is looked up, sorted by place, and cut into runs: stretches of one pack that are read at once, small gaps
//! included. At a target where a request takes as long as a mebibyte, that is the difference between walking and flying; in a
//! directory it saves system calls. What goes wrong in a run is left to [`Core::read_block`], which knows other copies, reads
//! again, and notes damage.

use crate::format::layout;
use crate::repo::read::Load;
use crate::repo::{Core, RepoError, Repository};
use crate::target::TargetError;
use crate::words::ids::BlockId;
use crate::words::monitor::Counter;
use crate::words::record::{BlockKind, Location};
use crossbeam_channel::{Receiver, Sender, bounded};
use std::cell::RefCell;
use std::sync::Arc;
use std::thread::JoinHandle;

/// The longest gap that is read along.
const GAP_MAX_BYTES: u64 = 128 << 10;
/// The longest run.
const RUN_MAX_BYTES: u64 = 8 << 20;

thread_local! {
    static RUN: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Takes the blocks of a batch, each once, in any order; the number is the place in the batch.
pub type Take<'a> = dyn FnMut(usize, Result<Arc<Vec<u8>>, RepoError>) + 'a;

/// A block to be read, and where.
struct Wanted<'a> {
    at: usize,
    id: BlockId,
    location: Location,
    /// Others who want it wait for us.
    load: Load<'a>,
}

impl Wanted<'_> {
    fn end(&self) -> u64 {
        u64::from(self.location.offset) + u64::from(self.location.frame_len)
    }
}

impl Core {
    /// Reads data blocks; none of them may be a hole.
    pub fn read_blocks(&self, ids: &[BlockId], take: &mut Take<'_>) {
        let mut wanted = Vec::with_capacity(ids.len());
        // What somebody else is reading, what is not on the target yet, and what went wrong. It is waited for only when nobody
        // waits for us any more: two who each hold what the other wants would wait for ever.
        let mut rest = Vec::new();
        for (at, id) in ids.iter().enumerate() {
            if let Some(block) = self.blocks.get(id) {
                self.monitor.count(Counter::CacheHits, 1);
                take(at, Ok(block));
                continue;
            }
            let load = self.loads.begin_now(id);
            let pending = self.packer.pending_in(id);
            if load.is_some()
                && pending.is_none()
                && let Some(plain) = self.block_from_disk(id)
            {
                self.monitor.count(Counter::CacheMisses, 1);
                take(at, Ok(self.keep(*id, plain)));
                continue;
            }
            match (load, pending, self.catalog.locations(id)) {
                (Some(load), None, Ok(locations)) if !locations.is_empty() => {
                    wanted.push(Wanted { at, id: *id, location: locations[0], load });
                }
                _ => rest.push(at),
            }
        }
        wanted.sort_by_key(|wanted| (wanted.location.pack, wanted.location.offset));
        let mut run: Vec<Wanted<'_>> = Vec::new();
        for next in wanted {
            let goes_on = run.first().zip(run.last()).is_some_and(|(first, last)| {
                let (offset, from) = (u64::from(next.location.offset), u64::from(first.location.offset));
                next.location.pack == last.location.pack
                    && offset <= last.end() + GAP_MAX_BYTES
                    && next.end().saturating_sub(from) <= RUN_MAX_BYTES
            });
            if !goes_on {
                self.read_run(std::mem::take(&mut run), take, &mut rest);
            }
            run.push(next);
        }
        self.read_run(run, take, &mut rest);
        for at in rest {
            take(at, self.read_block(&ids[at]));
        }
    }

    /// Reads what lies together.
    fn read_run(&self, run: Vec<Wanted<'_>>, take: &mut Take<'_>, rest: &mut Vec<usize>) {
        let Some(first) = run.first() else { return };
        let (pack, start) = (first.location.pack, u64::from(first.location.offset));
        let end = run.iter().map(Wanted::end).max().unwrap_or(start);
        RUN.with_borrow_mut(|bytes| {
            let len = usize::try_from(end - start).unwrap_or(0);
            if bytes.len() < len {
                bytes.resize(len, 0);
            }
            let bytes = &mut bytes[..len];
            self.monitor.count(Counter::TargetReads, 1);
            if let Err(error) = self.target.read_at(&layout::pack(pack), start, bytes) {
                let is_lost = matches!(error, TargetError::NotFound { .. } | TargetError::Truncated { .. });
                let error = RepoError::from(error);
                for wanted in run {
                    match is_lost {
                        true => rest.push(wanted.at),
                        false => take(wanted.at, Err(error.clone())),
                    }
                }
                return;
            }
            for Wanted { at, id, location, load } in run {
                let from = (u64::from(location.offset) - start) as usize;
                let frame = &bytes[from..from + location.frame_len as usize];
                let mut plain = self.loads.take_spare(self.header.block_size.bytes());
                plain.clear();
                let opened = self.sealer.open_block_into(BlockKind::Data, &id, frame, &mut plain);
                if opened.is_err() || plain.len() != location.plain_len as usize {
                    rest.push(at);
                    continue;
                }
                self.monitor.count(Counter::CacheMisses, 1);
                self.keep_on_disk(&id, frame);
                let block = self.keep(id, plain);
                drop(load);
                take(at, Ok(block));
            }
        });
    }
}

/// Threads that bring blocks into the cache before they are asked for.
pub struct ReadAhead {
    queue: Option<Sender<Vec<BlockId>>>,
    threads: Vec<JoinHandle<()>>,
}

impl ReadAhead {
    /// Starts `threads` readers behind a queue of `depth` batches.
    ///
    /// # Errors
    /// When threads cannot be started.
    pub fn start(core: &Arc<Core>, threads: usize, depth: usize) -> std::io::Result<Self> {
        let (queue, batches) = bounded::<Vec<BlockId>>(depth.max(1));
        let threads = (0..threads.max(1))
            .map(|_| {
                let (core, batches): (_, Receiver<Vec<BlockId>>) = (Arc::clone(core), batches.clone());
                std::thread::Builder::new().name("read-ahead".into()).spawn(move || {
                    for ids in batches {
                        // An error shows when the block is read in earnest.
                        core.read_blocks(&ids, &mut |_, _| ());
                    }
                })
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { queue: Some(queue), threads })
    }

    /// Batches that wait, and how many may.
    pub fn waiting(&self) -> (usize, usize) {
        self.queue.as_ref().map_or((0, 0), |queue| (queue.len(), queue.capacity().unwrap_or(0)))
    }
}

impl Drop for ReadAhead {
    fn drop(&mut self) {
        self.queue = None;
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Repository {
    /// Reads data blocks, neighbours with one request. Every block of `ids`, none of which may be a hole, is handed over once.
    pub fn read_blocks(&self, ids: &[BlockId], take: &mut Take<'_>) {
        self.core.read_blocks(ids, take);
    }

    /// How many threads reading batches keep the target busy.
    pub fn readers(&self) -> usize {
        self.readers
    }

    /// Asks for blocks, none of which may be a hole, to be brought into the cache. Returns at once; says `false` when too much is
    /// asked for already.
    pub fn read_ahead(&self, ids: Vec<BlockId>) -> bool {
        ids.is_empty() || self.read_ahead.queue.as_ref().is_some_and(|queue| queue.try_send(ids).is_ok())
    }
}
