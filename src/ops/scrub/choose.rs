//! Which packs a scrub reads. Pure.
//!
//! The pack is the unit, because it is what is stored: every byte on the target is in exactly one, whoever shares its blocks, and
//! only a pack can be compared with its own name. So that a run of P percent each covers everything in 100 / P runs, the packs that
//! nobody looked at for longest come first, and a run goes on until it has read P percent of all bytes at least. What cannot be read
//! counts for nothing, but was looked at: otherwise it would come first each time, and nothing else would ever be read.

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

/// The packs that are still to be read, in order of when somebody last looked at them, those never looked at first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queue {
    order: Vec<Candidate>,
    next: usize,
    wanted_bytes: u128,
}

impl Queue {
    /// `read` says when each was read, `tried` when one was to be read and could not. Packs that this run has read before it was
    /// interrupted (`since`) are not read again, and count.
    pub fn new(
        candidates: &[Candidate],
        read: &BTreeMap<PackId, Stamp>,
        tried: &BTreeMap<PackId, Stamp>,
        percent: Option<u8>,
        since: Stamp,
    ) -> Self {
        let is_done = |candidate: &Candidate| read.get(&candidate.pack).is_some_and(|at| *at >= since);
        let total: u64 = candidates.iter().map(|candidate| candidate.size_bytes).sum();
        let wanted = percent.map_or(u128::MAX, |percent| (u128::from(total) * u128::from(percent)).div_ceil(100));
        let done: u64 = candidates.iter().filter(|c| is_done(c)).map(|c| c.size_bytes).sum();
        let mut order: Vec<_> = candidates.iter().filter(|candidate| !is_done(candidate)).copied().collect();
        let looked_at = |pack: &PackId| read.get(pack).max(tried.get(pack)).copied();
        order.sort_by_key(|candidate| (looked_at(&candidate.pack), candidate.pack));
        Self { order, next: 0, wanted_bytes: wanted.saturating_sub(u128::from(done)) }
    }

    /// The next ones that are enough, each once; none when enough was read or there are no more.
    pub fn next(&mut self) -> Vec<Candidate> {
        let mut bytes = 0;
        let is_wanted = |candidate: &&Candidate| {
            let is_wanted = bytes < self.wanted_bytes;
            bytes += u128::from(candidate.size_bytes);
            is_wanted
        };
        let chosen: Vec<_> = self.order[self.next..].iter().take_while(is_wanted).copied().collect();
        self.next += chosen.len();
        chosen
    }

    /// Of those so many bytes were read.
    pub fn count(&mut self, bytes: u64) {
        self.wanted_bytes = self.wanted_bytes.saturating_sub(u128::from(bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(
        candidates: &[Candidate],
        read: &BTreeMap<PackId, Stamp>,
        percent: Option<u8>,
        since: Stamp,
    ) -> Vec<Candidate> {
        Queue::new(candidates, read, &BTreeMap::new(), percent, since).next()
    }

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

    #[test]
    fn what_cannot_be_read_is_replaced_and_waits_for_its_turn() {
        let (candidates, mut read, mut tried) = (candidates(), BTreeMap::new(), BTreeMap::new());
        let total: u64 = candidates.iter().map(|candidate| candidate.size_bytes).sum();
        let is_unreadable = |candidate: &Candidate| candidate.pack < PackId::from_bytes([20; 32]);
        let mut tries = 0;
        for at in 1..=7 {
            let at = Stamp::from_millis(at);
            let mut queue = Queue::new(&candidates, &read, &tried, Some(16), at);
            let mut bytes = 0;
            loop {
                let chosen = queue.next();
                if chosen.is_empty() {
                    break;
                }
                let (bad, good): (Vec<_>, Vec<_>) = chosen.into_iter().partition(is_unreadable);
                let now = good.iter().map(|candidate| candidate.size_bytes).sum();
                queue.count(now);
                bytes += now;
                tries += bad.len();
                read.extend(good.iter().map(|candidate| (candidate.pack, at)));
                tried.extend(bad.iter().map(|candidate| (candidate.pack, at)));
            }
            assert!(bytes * 100 >= total * 16, "{at}: {bytes}");
        }
        assert_eq!((read.len(), tried.len()), (20, 20), "all was looked at");
        assert!(tries < 5 * 20, "and not each time: {tries}");
    }
}
