//! Map nodes that a walk has met. Memory is bounded however many there are: what is too much lies sorted in files without names
//! in the state directory.

use crate::ops::OpsError;
use crate::repo::{RepoError, Repository};
use crate::words::ids::BlockId;
use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::iter::Peekable;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Memory of one id in a hash table that is growing.
const ENTRY_BYTES: usize = 96;
/// Ids of a file that are read at once. One of so many is kept in memory.
const PAGE_IDS: usize = 256;

/// See the module.
pub struct Visited {
    room: PathBuf,
    recent_max: usize,
    recent: HashSet<BlockId>,
    /// Each is at least twice as long as the next, so there are few.
    runs: Vec<Run>,
}

impl Visited {
    /// Nothing is visited yet.
    pub fn new(repo: &Repository) -> Self {
        // The tests of all that walks do it with files, too.
        let recent_max = if cfg!(test) { 16 } else { repo.memory().block_cache / 4 / ENTRY_BYTES };
        Self::within(repo.state_dir(), recent_max.max(1))
    }

    fn within(room: &Path, recent_max: usize) -> Self {
        Self { room: room.to_owned(), recent_max, recent: HashSet::new(), runs: Vec::new() }
    }

    /// Adds a node, and says whether it is new.
    ///
    /// # Errors
    /// When the state directory cannot be written or read.
    pub fn insert(&mut self, id: BlockId) -> Result<bool, OpsError> {
        if self.contains(&id)? {
            return Ok(false);
        }
        if self.recent.len() >= self.recent_max {
            self.spill().map_err(|error| self.failed(error))?;
        }
        self.recent.insert(id);
        Ok(true)
    }

    /// Whether a node was added.
    ///
    /// # Errors
    /// When the state directory cannot be read.
    pub fn contains(&self, id: &BlockId) -> Result<bool, OpsError> {
        if self.recent.contains(id) {
            return Ok(true);
        }
        for run in &self.runs {
            if run.contains(id).map_err(|error| self.failed(error))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn spill(&mut self) -> io::Result<()> {
        let mut ids: Vec<BlockId> = self.recent.drain().collect();
        ids.sort_unstable();
        self.runs.push(Run::write(&self.room, ids.into_iter().map(Ok))?);
        while let [.., longer, last] = &self.runs[..]
            && longer.count < 2 * last.count
        {
            let merged = Run::write(&self.room, merged(longer, last))?;
            self.runs.truncate(self.runs.len() - 2);
            self.runs.push(merged);
        }
        Ok(())
    }

    fn failed(&self, source: io::Error) -> OpsError {
        RepoError::State { path: self.room.display().to_string(), source: Arc::new(source) }.into()
    }
}

/// Sorted ids in a file.
struct Run {
    file: File,
    count: usize,
    /// The first id of each page.
    firsts: Vec<BlockId>,
}

impl Run {
    fn write(room: &Path, ids: impl Iterator<Item = io::Result<BlockId>>) -> io::Result<Self> {
        let mut file = BufWriter::new(tempfile::tempfile_in(room)?);
        let (mut count, mut firsts) = (0, Vec::new());
        for id in ids {
            let id = id?;
            if count % PAGE_IDS == 0 {
                firsts.push(id);
            }
            file.write_all(id.as_bytes())?;
            count += 1;
        }
        Ok(Self { file: file.into_inner()?, count, firsts })
    }

    fn contains(&self, id: &BlockId) -> io::Result<bool> {
        match self.firsts.partition_point(|first| first <= id) {
            0 => Ok(false),
            after => self.page(after - 1, |ids| ids.binary_search(id.as_bytes()).is_ok()),
        }
    }

    fn page<T>(&self, number: usize, look: impl FnOnce(&[[u8; BlockId::LEN]]) -> T) -> io::Result<T> {
        let first = number * PAGE_IDS;
        let mut page = [[0; BlockId::LEN]; PAGE_IDS];
        let page = &mut page[..PAGE_IDS.min(self.count - first)];
        self.file.read_exact_at(page.as_flattened_mut(), (first * BlockId::LEN) as u64)?;
        Ok(look(page))
    }

    fn ids(&self) -> impl Iterator<Item = io::Result<BlockId>> {
        let ids = |page: &[[u8; BlockId::LEN]]| page.iter().map(|id| Ok(BlockId::from_bytes(*id))).collect();
        (0..self.firsts.len()).flat_map(move |number| self.page(number, ids).unwrap_or_else(|error| vec![Err(error)]))
    }
}

/// The ids of two runs, which share none, in order.
struct Merged<A: Iterator, B: Iterator> {
    one: Peekable<A>,
    other: Peekable<B>,
}

fn merged(one: &Run, other: &Run) -> impl Iterator<Item = io::Result<BlockId>> {
    Merged { one: one.ids().peekable(), other: other.ids().peekable() }
}

impl<A: Iterator<Item = io::Result<BlockId>>, B: Iterator<Item = io::Result<BlockId>>> Iterator for Merged<A, B> {
    type Item = io::Result<BlockId>;

    fn next(&mut self) -> Option<Self::Item> {
        match (self.one.peek(), self.other.peek()) {
            (Some(Ok(one)), Some(Ok(other))) if one > other => self.other.next(),
            (None, _) | (_, Some(Err(_))) => self.other.next(),
            _ => self.one.next(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(number: u16) -> BlockId {
        // Neighbours differ at the end, others at the beginning.
        let mut bytes = [7; BlockId::LEN];
        bytes[0] = (number >> 8) as u8;
        bytes[BlockId::LEN - 1] = number as u8;
        BlockId::from_bytes(bytes)
    }

    proptest! {
        #[test]
        fn it_holds_what_a_set_holds(numbers in proptest::collection::vec(0..3000_u16, 0..4000), recent_max in 1..700_usize) {
            let dir = tempfile::tempdir().unwrap();
            let mut visited = Visited::within(dir.path(), recent_max);
            let mut expected = HashSet::new();
            for number in numbers {
                prop_assert_eq!(visited.insert(id(number)).unwrap(), expected.insert(number));
                prop_assert!(visited.recent.len() <= recent_max);
            }
            for number in 0..3000 {
                prop_assert_eq!(visited.contains(&id(number)).unwrap(), expected.contains(&number));
            }
            prop_assert!(visited.runs.is_sorted_by(|longer, shorter| longer.count >= 2 * shorter.count));
            prop_assert_eq!(visited.runs.iter().map(|run| run.count).sum::<usize>() + visited.recent.len(), expected.len());
            // Nothing has a name, so nothing is left, however this process ends.
            prop_assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        }
    }

    #[test]
    fn without_its_files_it_fails() {
        let mut visited = Visited::within(Path::new("/nowhere"), 1);
        assert!(visited.insert(id(1)).unwrap());
        assert!(visited.insert(id(2)).unwrap_err().to_string().contains("/nowhere"));
    }
}
