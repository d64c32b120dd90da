//! How it is found out which blocks are those of the version before.

use crate::image::Settled;
use crate::ops::compare::compare;
use crate::repo::Repository;
use crate::words::record::ImageRef;

/// Whether what comes is looked up in the index, and not compared with the version before while it comes. Comparing costs a request for each
/// node of that version's map and spares a look at the index for each block: requests are what a bucket makes one wait and pay for,
/// while an index may be larger than the memory beside a directory.
pub fn asks_the_index(repo: &Repository) -> bool {
    repo.target().is_paged()
}

/// Finds out which of the blocks that were known are those of the base, for the statistics. Parts of the map that are the same are not read.
pub fn tell_unchanged(repo: &Repository, base: &ImageRef, settled: &mut Settled) {
    if base.block_size != settled.image.block_size {
        return;
    }
    // What the base was is of no importance any more, should its map be damaged.
    let Ok(changed) = compare(repo, base, &settled.image) else { return };
    let block = settled.image.block_size.bytes_u64();
    let there = changed.iter().filter(|range| range.exists);
    let changed: u64 = there.map(|range| range.length.div_ceil(block)).sum();
    let unchanged = settled.image.allocated_blocks.saturating_sub(changed) * block;
    let stats = &mut settled.stats;
    let unchanged = unchanged.min(stats.deduplicated_bytes);
    stats.deduplicated_bytes -= unchanged;
    stats.unchanged_bytes += unchanged;
}
