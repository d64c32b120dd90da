//! Which packs a scrub reads. Pure.
//!
//! The pack is the unit, because it is what is stored: every byte on the target is in exactly one, whoever shares its blocks, and
//! only a pack can be compared with its own name. So that a run of P percent each covers everything in 100 / P runs, the packs that
//! nobody looked at for longest come first, and a run goes on until it has read P percent of all bytes at least.

use crate::words::ids::PackId;
use crate::words::stamp::Stamp;
use std::collections::BTreeMap;

/// A pack that could be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Which.
    pub pack: PackId,
    /// Bytes on the target.
    pub size_bytes: u64,
}

/// Chooses, and orders by when they were last read, those never read first. Packs that this run has read before it was
/// interrupted (`since`) are not read again, and count.
pub fn choose(
    candidates: &[Candidate],
    read: &BTreeMap<PackId, Stamp>,
    percent: Option<u8>,
    since: Stamp,
) -> Vec<Candidate> {
    let is_done = |candidate: &Candidate| read.get(&candidate.pack).is_some_and(|at| *at >= since);
    let total: u64 = candidates.iter().map(|candidate| candidate.size_bytes).sum();
    let wanted = percent.map_or(u128::MAX, |percent| (u128::from(total) * u128::from(percent)).div_ceil(100));
    let done: u64 = candidates.iter().filter(|c| is_done(c)).map(|c| c.size_bytes).sum();
    let mut order: Vec<_> = candidates.iter().filter(|candidate| !is_done(candidate)).copied().collect();
    order.sort_by_key(|candidate| (read.get(&candidate.pack).copied(), candidate.pack));
    let mut bytes = u128::from(done);
    let count = order.iter().take_while(|candidate| {
        let is_wanted = bytes < wanted;
        bytes += u128::from(candidate.size_bytes);
        is_wanted
    });
    let count = count.count();
    order.truncate(count);
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates() -> Vec<Candidate> {
        let pack = |number: u8| PackId::from_bytes([number; 32]);
        (0..40).map(|n| Candidate { pack: pack(n), size_bytes: 1000 + u64::from(n) * 97 % 500 }).collect()
    }

    #[test]
    fn seven_runs_of_sixteen_percent_read_everything_and_begin_anew() {
        let (candidates, mut read) = (candidates(), BTreeMap::new());
        let mut run = |at: i64| {
            let chosen = choose(&candidates, &read, Some(16), Stamp::from_millis(at));
            read.extend(chosen.iter().map(|candidate| (candidate.pack, Stamp::from_millis(at))));
            chosen
        };
        let runs: Vec<Vec<Candidate>> = (1..=8).map(&mut run).collect();
        let total: u64 = candidates.iter().map(|candidate| candidate.size_bytes).sum();
        assert!(runs[0].iter().map(|candidate| candidate.size_bytes).sum::<u64>() * 100 >= total * 16);
        let all: std::collections::BTreeSet<_> = runs[..7].iter().flatten().map(|candidate| candidate.pack).collect();
        assert_eq!(all.len(), candidates.len());
        let lately = |candidate: &Candidate| runs[3..7].iter().any(|run| run.contains(candidate));
        assert!(!runs[7].iter().any(lately), "the eighth reads what was read longest ago");
    }

    #[test]
    fn what_an_interrupted_run_has_read_counts() {
        let candidates = candidates();
        let whole = choose(&candidates, &BTreeMap::new(), Some(50), Stamp::from_millis(10));
        let read: BTreeMap<_, _> = whole[..9].iter().map(|c| (c.pack, Stamp::from_millis(11))).collect();
        assert_eq!(choose(&candidates, &read, Some(50), Stamp::from_millis(10)), whole[9..]);
        assert_eq!(choose(&candidates, &read, None, Stamp::from_millis(10)).len(), candidates.len() - 9);
        assert_eq!(choose(&candidates, &read, None, Stamp::from_millis(12)).len(), candidates.len());
        assert_eq!(choose(&[], &read, Some(16), Stamp::from_millis(10)), []);
    }
}
