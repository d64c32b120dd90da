//! The part of a scrub that reads: packs, on as many threads as there are cores.

use crate::ops::OpsError;
use crate::ops::scrub::choose::Candidate;
use crate::ops::scrub::pace::Pacer;
use crate::ops::scrub::report::{BadPack, DamagedPack};
use crate::ops::scrub::tried::Tried;
use crate::repo::examine::PackState;
use crate::repo::{RepoError, Repository};
use crate::words::ids::{BlockId, PackId};
use crate::words::monitor::Monitor;
use crate::words::record::{BlockKind, PackedBlock};
use crossbeam_channel::{RecvTimeoutError, bounded};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How often what was read is noted: a kill costs no more than this.
const NOTE_EVERY: Duration = Duration::from_secs(2);
/// Blocks of damaged packs that are looked up in the index at once.
const BLOCKS_AT_ONCE: u64 = 500_000;

/// What reading packs has shown.
#[derive(Debug, Default)]
pub(super) struct PacksRead {
    /// Packs that were read; not those that could not be.
    pub(super) read: u64,
    /// Bytes of these.
    pub(super) bytes: u64,
    /// Packs that were read now, and are intact.
    pub(super) intact: BTreeSet<PackId>,
    /// Packs that are not intact.
    pub(super) suspects: BTreeMap<PackId, PackState>,
    /// Whether it was stopped before all were read.
    pub(super) stopped: bool,
}

impl PacksRead {
    /// Adds what reading others has shown.
    pub(super) fn add(&mut self, more: Self) {
        self.read += more.read;
        self.bytes += more.bytes;
        self.intact.extend(more.intact);
        self.suspects.extend(more.suspects);
        self.stopped |= more.stopped;
    }
}

/// Reads packs and notes which were read and are intact, and which could not be read. `done_bytes` of `total_bytes` were read before.
pub(super) fn read(
    repo: &Repository,
    chosen: &[Candidate],
    (done_bytes, total_bytes): (u64, u64),
    tried: &mut Tried,
    pacer: &Pacer,
    threads: usize,
    monitor: &dyn Monitor,
) -> Result<PacksRead, OpsError> {
    let mut result = PacksRead::default();
    let failed = AtomicBool::new(false);
    let mut failure = None;
    std::thread::scope(|scope| {
        let (queue, jobs) = bounded::<Candidate>(threads);
        let (tell, told) = bounded(threads * 4);
        for _ in 0..threads.max(1) {
            let (jobs, tell, failed) = (jobs.clone(), tell.clone(), &failed);
            scope.spawn(move || {
                for job in jobs {
                    if failed.load(Ordering::Relaxed) {
                        continue;
                    }
                    let state = repo.examine_pack(job.pack, job.size_bytes, &|bytes| pacer.pass(bytes));
                    if tell.send((job, state)).is_err() {
                        return;
                    }
                }
            });
        }
        drop((jobs, tell));
        let feeder = scope.spawn({
            let failed = &failed;
            move || {
                for job in chosen {
                    if failed.load(Ordering::Relaxed) || queue.send(*job).is_err() {
                        return;
                    }
                }
            }
        });
        let (mut intact, mut unread) = (Vec::new(), Vec::new());
        loop {
            let news = told.recv_timeout(NOTE_EVERY);
            if intact.len() + unread.len() >= 64 || (news.is_err() && !(intact.is_empty() && unread.is_empty())) {
                let now = repo.clock().now();
                let rows: Vec<_> = std::mem::take(&mut intact).into_iter().map(|pack| (pack, now)).collect();
                let noted = repo.catalog().set_scrubbed(&rows).map_err(RepoError::from);
                let noted = noted.and_then(|()| tried.note(repo, std::mem::take(&mut unread), now));
                if let Err(error) = noted {
                    failure.get_or_insert(OpsError::from(error));
                    failed.store(true, Ordering::Relaxed);
                }
            }
            let (job, state) = match news {
                Ok(news) => news,
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => break,
            };
            match state {
                Ok(PackState::Stopped) => {
                    result.stopped = true;
                    failed.store(true, Ordering::Relaxed);
                    continue;
                }
                Ok(PackState::Intact) => {
                    result.intact.insert(job.pack);
                    intact.push(job.pack);
                }
                Ok(state @ (PackState::Missing | PackState::Unreadable(_))) => {
                    unread.push(job.pack);
                    result.suspects.insert(job.pack, state);
                    continue;
                }
                Ok(state) => drop(result.suspects.insert(job.pack, state)),
                Err(error) => {
                    failure.get_or_insert(error.into());
                    failed.store(true, Ordering::Relaxed);
                    continue;
                }
            }
            result.read += 1;
            result.bytes += job.size_bytes;
            monitor.progress(done_bytes + result.bytes, total_bytes);
        }
        let _ = feeder.join();
    });
    failure.map_or(Ok(result), Err)
}

/// What became of packs that are not intact.
#[derive(Debug, Default)]
pub(super) struct Settled {
    pub(super) damaged: Vec<DamagedPack>,
    pub(super) unreadable: Vec<BadPack>,
}

/// Finds out which blocks of damaged packs are bad, and reports them to all hosts. Packs that a collector has condemned meanwhile
/// are nobody's concern.
pub(super) fn settle(
    repo: &Repository,
    suspects: &BTreeMap<PackId, PackState>,
    may_be_deleted: bool,
    pacer: &Pacer,
) -> Result<Settled, OpsError> {
    let mut settled = Settled::default();
    let catalog = repo.catalog();
    let mut suspects: Vec<(PackId, &PackState)> = suspects.iter().map(|(pack, state)| (*pack, state)).collect();
    while !suspects.is_empty() {
        let (mut count, mut taken) = (0, 0);
        for (pack, _) in &suspects {
            let known = catalog.pack(pack).map_err(RepoError::from)?;
            count += u64::from(known.map_or(0, |known| known.block_count));
            if taken > 0 && count > BLOCKS_AT_ONCE {
                break;
            }
            taken += 1;
        }
        let group: Vec<_> = suspects.drain(..taken).collect();
        let packs: BTreeSet<PackId> = group.iter().map(|(pack, _)| *pack).collect();
        let mut blocks = catalog.blocks_in(&packs).map_err(RepoError::from)?;
        for (pack, state) in group {
            if catalog.is_condemned(&pack).map_err(RepoError::from)? {
                continue;
            }
            let blocks = blocks.remove(&pack).unwrap_or_default();
            let name = crate::format::layout::pack(pack).to_string();
            let problem = match state {
                PackState::Damaged(problem) => problem.clone(),
                PackState::Missing if !may_be_deleted => "it is missing".to_owned(),
                PackState::Missing => {
                    let problem = "it is missing, or was deleted: a list of deleted packs cannot be read".to_owned();
                    settled.unreadable.push(BadPack { pack: name, problem });
                    continue;
                }
                PackState::Unreadable(problem) => {
                    settled.unreadable.push(BadPack { pack: name, problem: problem.clone() });
                    continue;
                }
                PackState::Intact | PackState::Stopped => continue,
            };
            settled.damaged.push(settle_one(repo, pack, problem, &blocks, pacer)?);
        }
    }
    Ok(settled)
}

fn settle_one(
    repo: &Repository,
    pack: PackId,
    problem: String,
    blocks: &[PackedBlock],
    pacer: &Pacer,
) -> Result<DamagedPack, OpsError> {
    let catalog = repo.catalog();
    let kind = catalog.pack(&pack).map_err(RepoError::from)?.map_or(BlockKind::Data, |known| known.kind);
    let tried = repo.examine_copies(pack, kind, blocks, &|bytes| pacer.pass(bytes))?;
    let bad = tried.ok_or(OpsError::Interrupted)?;
    let ids: BTreeSet<BlockId> = bad.keys().copied().collect();
    let name = crate::format::layout::pack(pack).to_string();
    let is_news = repo.settle_damage(pack, kind, Some(&format!("{name}: {problem}")), &ids)?;
    catalog.set_scrubbed(&[(pack, repo.clock().now())]).map_err(RepoError::from)?;
    let mut lost_blocks = 0;
    for id in &ids {
        lost_blocks += u64::from(catalog.is_damaged(id).map_err(RepoError::from)?);
    }
    Ok(DamagedPack { pack: name, problem, bad_blocks: ids.len() as u64, lost_blocks, is_news })
}
