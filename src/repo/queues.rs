//! How much waits where: queues between the threads of a repository, as numbers for whoever watches.

use crate::repo::Repository;

/// A queue at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queue {
    /// Which, in a word.
    pub name: &'static str,
    /// How much waits: blocks in `pipeline`, packs in `packs`, batches of blocks in `read-ahead`.
    pub waiting: u64,
    /// With how much it is full, and whoever adds to it waits.
    pub limit: u64,
}

impl Repository {
    /// Every queue. Takes the lock of the packer for a moment.
    pub fn queues(&self) -> Vec<Queue> {
        let (packs, packs_limit) = self.core.packer.waiting();
        let (blocks, blocks_limit) = self.pipeline.waiting();
        let (batches, batches_limit) = self.read_ahead.waiting();
        let queue = |name, waiting: usize, limit: usize| Queue { name, waiting: waiting as u64, limit: limit as u64 };
        vec![
            queue("pipeline", blocks, blocks_limit),
            queue("packs", packs, packs_limit),
            queue("read-ahead", batches, batches_limit),
        ]
    }

    /// Bytes of packs in memory, being filled or waiting for the target.
    pub fn held_bytes(&self) -> u64 {
        self.core.packer.held_bytes() as u64
    }
}

#[cfg(test)]
mod tests {
    use crate::repo::testing;

    #[test]
    fn an_idle_repository_has_empty_queues_with_room() {
        let test = testing::create(&testing::small());
        let queues = test.repo.queues();
        assert!(queues.iter().all(|queue| queue.waiting == 0 && queue.limit > 0), "{queues:?}");
        assert_eq!(test.repo.held_bytes(), 0);
    }
}
