//! The write pipeline: one worker a core takes blocks from a bounded queue, stores them and reports where they went.

use crate::repo::buffers::PooledBuffer;
use crate::repo::store::Placed;
use crate::repo::{Core, RepoError, Repository};
use crate::words::ids::BlockId;
use crossbeam_channel::{Receiver, Sender, bounded};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;

/// Takes the outcome of a job. Called from a worker; must not wait for the pipeline.
pub trait BlockSink: Send + Sync {
    /// Block `index` in the state it had at `sequence` has been placed, or could not be.
    fn placed(&self, index: u64, sequence: u64, outcome: Result<Placed, RepoError>);
}

/// A whole block to be stored.
pub struct BlockJob {
    /// Its position, handed back.
    pub index: u64,
    /// Which state of the block this is, handed back.
    pub sequence: u64,
    /// Its contents: exactly one block.
    pub block: Arc<PooledBuffer>,
    /// What is known of its name.
    pub naming: Naming,
    /// Who wants to know.
    pub sink: Arc<dyn BlockSink>,
}

/// What is known of the name of a block that is to be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Naming {
    /// Nothing; it is likely to equal this one, at its position in an earlier version.
    Compare(BlockId),
    /// It was named and looked for, and was not found.
    Missed(BlockId),
}

/// See the module.
pub struct Pipeline {
    queue: Option<Sender<BlockJob>>,
    workers: Vec<JoinHandle<()>>,
}

impl Pipeline {
    /// Starts `workers` threads behind a queue of `depth` blocks.
    ///
    /// # Errors
    /// When threads cannot be started.
    pub fn start(core: &Arc<Core>, workers: usize, depth: usize) -> std::io::Result<Self> {
        let (queue, jobs) = bounded(depth.max(1));
        let workers = (0..workers.max(1))
            .map(|_| {
                let (core, jobs): (_, Receiver<BlockJob>) = (Arc::clone(core), jobs.clone());
                std::thread::Builder::new().name("pipeline".into()).spawn(move || work(&core, &jobs))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { queue: Some(queue), workers })
    }

    /// Blocks that wait, and how many may.
    pub fn waiting(&self) -> (usize, usize) {
        self.queue.as_ref().map_or((0, 0), |queue| (queue.len(), queue.capacity().unwrap_or(0)))
    }
}

fn work(core: &Core, jobs: &Receiver<BlockJob>) {
    for job in jobs {
        // What has its name gains nothing from company, and another worker may take the second.
        let second = if matches!(job.naming, Naming::Compare(_)) { jobs.try_recv().ok() } else { None };
        match second {
            Some(second) => work_pair(core, job, second),
            None => work_one(core, &job),
        }
    }
}

fn work_one(core: &Core, job: &BlockJob) {
    let stored = guarded(|| match job.naming {
        Naming::Compare(base) => core.store_block(&job.block, base),
        Naming::Missed(id) => core.store_new(&job.block, id),
    });
    job.sink.placed(job.index, job.sequence, stored.unwrap_or(Err(RepoError::Stopped)));
}

/// Two blocks that were both waiting: to name them together is faster than one after the other.
fn work_pair(core: &Core, first: BlockJob, second: BlockJob) {
    let (Naming::Compare(one), Naming::Compare(other)) = (first.naming, second.naming) else {
        work_one(core, &first);
        return work_one(core, &second);
    };
    let stored = guarded(|| core.store_pair([(&first.block, one), (&second.block, other)]));
    let stored = stored.unwrap_or([Err(RepoError::Stopped), Err(RepoError::Stopped)]);
    for (job, outcome) in [first, second].into_iter().zip(stored) {
        job.sink.placed(job.index, job.sequence, outcome);
    }
}

/// A panic must reach the writer as an error: a job that vanished would leave its close() waiting for ever.
fn guarded<T>(store: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(store)).ok()
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        self.queue = None;
        // The last owner of the repository may be the sink of a job, which a worker drops: it cannot wait for itself.
        let own = std::thread::current().id();
        for worker in self.workers.drain(..).filter(|worker| worker.thread().id() != own) {
            let _ = worker.join();
        }
    }
}

impl Repository {
    /// Hands a block to the pipeline; waits while its queue is full. Do not hold a lock that the sink takes.
    ///
    /// # Errors
    /// When the pipeline has ended.
    pub fn submit(&self, job: BlockJob) -> Result<(), RepoError> {
        let queue = self.pipeline.queue.as_ref().ok_or(RepoError::Stopped)?;
        queue.send(job).map_err(|_| RepoError::Stopped)
    }
}
