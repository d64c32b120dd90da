//! A set of blocks that may say yes by mistake, never no: a Bloom filter (Bloom 1970). It fits into the memory budget however many
//! blocks there are; what it wrongly takes for needed is kept this time and, since each run has its own seed, goes another time.

/// Bits for each block when memory allows: one mistake in some four hundred.
const BITS_PER_BLOCK: u64 = 16;
const PROBES: u32 = 4;
const BITS_MIN: u64 = 1 << 16;

/// See the module. Blocks are named by the first eight bytes of their ids.
pub struct Marks {
    words: Vec<u64>,
    mask: u64,
    seed: u64,
}

impl Marks {
    /// For about `blocks` blocks, in at most `memory_bytes`.
    pub fn new(blocks: u64, memory_bytes: usize, seed: u64) -> Self {
        let wanted = blocks.saturating_mul(BITS_PER_BLOCK).clamp(BITS_MIN, 1 << 40);
        // The power of two above what is wanted, or the one below what fits.
        let most = (memory_bytes as u64 * 8).max(BITS_MIN);
        let bits = wanted.next_power_of_two().min(1 << most.ilog2());
        Self { words: vec![0; usize::try_from(bits / 64).unwrap_or(usize::MAX)], mask: bits - 1, seed }
    }

    /// Adds a block.
    pub fn mark(&mut self, block: u64) {
        let (mut at, step) = self.start(block);
        for _ in 0..PROBES {
            let bit = at & self.mask;
            self.words[(bit / 64) as usize] |= 1 << (bit % 64);
            at = at.wrapping_add(step);
        }
    }

    /// Whether it was added; sometimes yes although it was not.
    pub fn has(&self, block: u64) -> bool {
        let (mut at, step) = self.start(block);
        (0..PROBES).all(|_| {
            let bit = at & self.mask;
            at = at.wrapping_add(step);
            self.words[(bit / 64) as usize] >> (bit % 64) & 1 == 1
        })
    }

    fn start(&self, block: u64) -> (u64, u64) {
        let first = mix(block ^ self.seed);
        // An odd step visits every bit.
        (first, mix(first) | 1)
    }
}

/// The finalizer of SplitMix64 (Steele, Lea, Flood 2014).
fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_never_forgets_and_seldom_invents() {
        let mut marks = Marks::new(100_000, 64 << 20, 7);
        (0..100_000).for_each(|block| marks.mark(block));
        assert!((0..100_000).all(|block| marks.has(block)));
        let invented = (100_000..300_000).filter(|block| marks.has(*block)).count();
        assert!(invented < 2000, "{invented} of 200000");
    }

    #[test]
    fn with_too_little_memory_it_invents_more_and_still_never_forgets() {
        let mut marks = Marks::new(1 << 40, 10_000, 7);
        (0..100_000).for_each(|block| marks.mark(block));
        assert!((0..100_000).all(|block| marks.has(block)));
        assert_eq!(marks.words.len() * 8, 8192);
    }
}
