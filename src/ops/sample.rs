//! A look at blocks that are said to be unchanged: whoever tracks changes may be wrong (a hint of another disk, a snapshot of
//! another day, a bug of the difference), and a backup that believes it is silently wrong from then on.

use crate::image::ImageReader;
use crate::ops::OpsError;
use crate::repo::Repository;
use crate::source::blocks::Runs;
use crate::source::{Content, Source};
use crate::words::ids::{BlockId, Uid};
use crate::words::zero::is_zero;
use std::collections::BTreeSet;
use std::ops::Range;

/// Blocks looked at of each kind: anywhere, where the base holds data, and beside what changed.
const OF_EACH_KIND: u64 = 8;

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
    let chosen = choose(repo, base, unchanged)?;
    let block = repo.block_size().bytes_u64();
    let mut buffer = vec![0; repo.block_size().bytes()];
    let (mut compared, mut unread) = (0, None);
    for index in &chosen {
        let offset = index * block;
        let len = usize::try_from((source.size_bytes() - offset).min(block)).unwrap_or(0);
        buffer[len..].fill(0);
        match source.read_at(offset, &mut buffer[..len]) {
            Ok(()) => {}
            Err(error) if error.is_bad_medium() => {
                source.check()?;
                tracing::warn!("{error}; what the base holds there stays");
                unread = Some(error);
                continue;
            }
            Err(error) => return Err(error.into()),
        }
        compared += 1;
        let id = if is_zero(&buffer) { BlockId::HOLE } else { repo.data_id(&buffer) };
        if id != base.block_id(*index)? {
            return Err(OpsError::Differs { what: source.describe(), offset, base: uid.to_string() });
        }
    }
    // Who can read nothing has compared nothing.
    match unread {
        Some(error) if compared == 0 => Err(error.into()),
        _ => Ok(compared),
    }
}

fn choose(repo: &Repository, base: &ImageReader, unchanged: &[Range<u64>]) -> Result<BTreeSet<u64>, OpsError> {
    let size = repo.block_size();
    let block = size.bytes_u64();
    let runs: Vec<Range<u64>> = unchanged
        .iter()
        .map(|run| size.index_of(run.start)..size.count(run.end))
        .filter(|run| !run.is_empty())
        .collect();
    // How many blocks lie before each run.
    let mut total = 0;
    let before: Vec<u64> = runs
        .iter()
        .map(|run| {
            total += run.end - run.start;
            total - (run.end - run.start)
        })
        .collect();
    if total <= 3 * OF_EACH_KIND {
        return Ok(runs.into_iter().flatten().collect());
    }
    let random = |below: u64| {
        let mut bytes = [0; 8];
        repo.clock().random(&mut bytes);
        u64::from_le_bytes(bytes) % below
    };
    let nth = |number: u64| {
        let run = before.partition_point(|count| *count <= number) - 1;
        runs[run].start + (number - before[run])
    };
    let mut chosen = BTreeSet::new();
    for _ in 0..OF_EACH_KIND {
        chosen.insert(nth(random(total)));
        // Holes are compared above; most of many disks is holes, so data is looked for.
        if let Some(at) = base.next_data(nth(random(total)) * block)? {
            let index = size.index_of(at);
            let run = runs.partition_point(|run| run.end <= index);
            chosen.extend(runs.get(run).filter(|run| run.contains(&index)).map(|_| index));
        }
        let run = &runs[usize::try_from(random(runs.len() as u64)).unwrap_or(0)];
        chosen.insert(if random(2) == 0 { run.start } else { run.end - 1 });
    }
    Ok(chosen)
}
