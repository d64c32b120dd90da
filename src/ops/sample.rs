//! A look at blocks that are said to be unchanged: whoever tracks changes may be wrong (a hint of another disk, a snapshot of
//! another day, a bug of the difference), and a backup that believes it is silently wrong from then on.

use crate::image::ImageReader;
use crate::ops::{OpsError, unchanged};
use crate::repo::{RepoError, Repository};
use crate::source::blocks::Runs;
use crate::source::{Content, Source};
use crate::words::geometry::{BlockSize, FANOUT};
use crate::words::ids::{BlockId, Uid};
use crate::words::zero::is_zero;
use std::collections::BTreeSet;
use std::ops::Range;

/// Blocks looked at of each kind: anywhere, where the base holds data, and beside what changed.
const OF_EACH_KIND: u64 = 8;

/// Leaves of the base's map that are looked into where each costs a request.
const LEAVES: usize = 3;

/// The blocks to look at.
#[derive(Default)]
struct Chosen {
    /// Compared with what the base's map says of them.
    by_map: BTreeSet<u64>,
    /// Looked up: what the base has there is known, so what is not known differs.
    by_index: BTreeSet<u64>,
}

/// The blocks in a range of a source that are said not to have changed, as runs of bytes in order.
///
/// # Errors
/// When the source does not know.
pub fn unchanged_runs(repo: &Repository, source: &dyn Source, range: Range<u64>) -> Result<Vec<Range<u64>>, OpsError> {
    let mut unchanged = Vec::new();
    for run in Runs::new(source, repo.block_size(), range) {
        let run = run?;
        if run.content == Content::Unchanged {
            unchanged.push(run.range);
        }
    }
    Ok(unchanged)
}

/// Compares a sample of unchanged blocks with the base; all of them when they are few. Returns how many. A bad sector among them
/// says nothing of who tracks changes, and what the base has of it is all there is.
///
/// # Errors
/// [`OpsError::Differs`] with the first offset where they differ.
pub fn check(
    repo: &Repository,
    source: &dyn Source,
    base: &ImageReader,
    uid: Uid,
    unchanged: &[Range<u64>],
) -> Result<usize, OpsError> {
    let Chosen { by_map, by_index } = choose(repo, base, unchanged)?;
    let block = repo.block_size().bytes_u64();
    let mut buffer = vec![0; repo.block_size().bytes()];
    let (mut compared, mut read, mut unread) = (0, 0, None);
    for index in by_map.union(&by_index) {
        let offset = index * block;
        let len = usize::try_from((source.size_bytes() - offset).min(block)).unwrap_or(0);
        buffer[len..].fill(0);
        match source.read_at(offset, &mut buffer[..len]) {
            Ok(()) => read += 1,
            Err(error) if error.is_bad_medium() => {
                source.check()?;
                tracing::warn!("{error}; what the base holds there stays");
                unread = Some(error);
                continue;
            }
            Err(error) => return Err(error.into()),
        }
        let id = if is_zero(&buffer) { BlockId::HOLE } else { repo.data_id(&buffer) };
        if !by_map.contains(index) {
            // Zeros are everywhere and tell nothing.
            if id.is_hole() {
                continue;
            }
            if repo.catalog().has_sound_location(&id).map_err(RepoError::from)? {
                compared += 1;
                continue;
            }
        }
        compared += 1;
        if id != base.block_id(*index)? {
            return Err(OpsError::Differs { what: source.describe(), offset, base: uid.to_string() });
        }
    }
    // Who can read nothing has compared nothing.
    match unread {
        Some(error) if read == 0 => Err(error.into()),
        _ => Ok(compared),
    }
}

/// Blocks that did not change, to draw from.
struct Lots<'a> {
    repo: &'a Repository,
    /// Ranges of blocks, in order.
    runs: Vec<Range<u64>>,
    /// How many blocks lie before each.
    before: Vec<u64>,
    total: u64,
}

impl<'a> Lots<'a> {
    fn new(repo: &'a Repository, runs: Vec<Range<u64>>) -> Self {
        let mut total = 0;
        let count = |run: &Range<u64>| {
            total += run.end - run.start;
            total - (run.end - run.start)
        };
        let before = runs.iter().map(count).collect();
        Self { repo, runs, before, total }
    }

    fn of(repo: &'a Repository, size: BlockSize, unchanged: &[Range<u64>]) -> Self {
        let blocks = unchanged.iter().map(|run| size.index_of(run.start)..size.count(run.end));
        Self::new(repo, blocks.filter(|run| !run.is_empty()).collect())
    }

    /// Those of them that the same leaf of the map covers as `index`.
    fn beside(&self, index: u64) -> Self {
        let leaf = index / FANOUT * FANOUT..(index / FANOUT + 1) * FANOUT;
        let first = self.runs.partition_point(|run| run.end <= leaf.start);
        let near = self.runs[first..].iter().take_while(|run| run.start < leaf.end);
        Self::new(self.repo, near.map(|run| run.start.max(leaf.start)..run.end.min(leaf.end)).collect())
    }

    fn random(&self, below: u64) -> u64 {
        let mut bytes = [0; 8];
        self.repo.clock().random(&mut bytes);
        u64::from_le_bytes(bytes) % below
    }

    fn draw(&self) -> u64 {
        let number = self.random(self.total);
        let run = self.before.partition_point(|count| *count <= number) - 1;
        self.runs[run].start + (number - self.before[run])
    }

    /// The first or the last block of a run.
    fn draw_edge(&self) -> u64 {
        let run = &self.runs[usize::try_from(self.random(self.runs.len() as u64)).unwrap_or(0)];
        if self.random(2) == 0 { run.start } else { run.end - 1 }
    }

    /// The first block with data from a drawn one on, if that did not change either.
    fn draw_data(&self, base: &ImageReader) -> Result<Option<u64>, OpsError> {
        let size = base.image().block_size;
        let Some(at) = base.next_data(self.draw() * size.bytes_u64())? else { return Ok(None) };
        let index = size.index_of(at);
        let run = self.runs.partition_point(|run| run.end <= index);
        Ok(self.runs.get(run).filter(|run| run.contains(&index)).map(|_| index))
    }
}

fn choose(repo: &Repository, base: &ImageReader, unchanged: &[Range<u64>]) -> Result<Chosen, OpsError> {
    let size = repo.block_size();
    let lots = Lots::of(repo, size, unchanged);
    let mut chosen = Chosen::default();
    if lots.total <= 3 * OF_EACH_KIND {
        chosen.by_map.extend(lots.runs.into_iter().flatten());
    } else if unchanged::asks_the_index(repo) {
        // Each leaf of the map is a request: three are drawn, with data if there are such.
        for _ in 0..LEAVES {
            let near = lots.draw();
            let with_data = base.next_data(near / FANOUT * FANOUT * size.bytes_u64())?;
            let leaf = with_data.map(|at| lots.beside(size.index_of(at)));
            let leaf = leaf.filter(|leaf| leaf.total > 0).unwrap_or_else(|| lots.beside(near));
            let mut data = Vec::new();
            for index in leaf.runs.iter().cloned().flatten() {
                // The leaf is in memory by now.
                if !base.block_id(index)?.is_hole() {
                    data.push(index);
                }
            }
            let data = Lots::new(repo, data.into_iter().map(|index| index..index + 1).collect());
            let of_data = if data.total > 0 { &data } else { &leaf };
            let half = OF_EACH_KIND / 2;
            chosen.by_map.extend((0..half).map(|_| of_data.draw()).chain((0..half).map(|_| leaf.draw())));
        }
        // What lies beside a change lies mostly below a leaf that the change needs, too; the two ends of the image do not.
        let ends = [0, base.image().block_count() - 1];
        let edges = (0..OF_EACH_KIND).map(|_| lots.draw_edge());
        chosen.by_map.extend(edges.filter(|edge| !ends.contains(edge)));
        chosen.by_index.extend((0..OF_EACH_KIND).map(|_| lots.draw()));
    } else {
        for _ in 0..OF_EACH_KIND {
            // Holes are compared, too; most of many disks is holes, so data is looked for.
            chosen.by_map.extend([lots.draw(), lots.draw_edge()]);
            chosen.by_map.extend(lots.draw_data(base)?);
        }
    }
    Ok(chosen)
}
