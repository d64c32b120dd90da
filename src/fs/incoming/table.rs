//! Which names have been seen, under which number, and which directories were made.

use crate::fs::incoming::file::File;
use crate::words::name::Name;
use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

/// A directory that was made with mkdir. It lives until the unmount; directories of names need no entry.
#[derive(Debug, Clone, Copy)]
pub struct MadeDir {
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// See the module.
#[derive(Default)]
pub struct Table {
    numbers: BTreeMap<String, u64>,
    files: HashMap<u64, Arc<File>>,
    /// Directories by path.
    pub dirs: BTreeMap<String, MadeDir>,
    next: u64,
}

impl Table {
    /// The file of a name, which gets a number if it has none.
    pub fn file(&mut self, name: &Name) -> Arc<File> {
        if let Some(file) = self.peek(name) {
            return file;
        }
        self.next += 1;
        let file = File::new(self.next, name.clone());
        self.numbers.insert(name.as_str().to_owned(), file.number);
        self.files.insert(file.number, Arc::clone(&file));
        file
    }

    /// The file of a name that has been seen.
    pub fn peek(&self, name: &Name) -> Option<Arc<File>> {
        self.numbers.get(name.as_str()).and_then(|number| self.files.get(number)).cloned()
    }

    /// The file of a number.
    pub fn by_number(&self, number: u64) -> Option<Arc<File>> {
        self.files.get(&number).cloned()
    }

    /// Parts a name from its file; the file stays reachable by number until [`Table::drop_file`].
    pub fn detach(&mut self, name: &Name) {
        self.numbers.remove(name.as_str());
    }

    /// Gives a file another name; what had that name is parted from it.
    pub fn rename(&mut self, number: u64, from: &Name, to: &Name) {
        self.numbers.remove(from.as_str());
        self.numbers.insert(to.as_str().to_owned(), number);
    }

    /// Forgets a file that nothing refers to.
    pub fn drop_file(&mut self, file: &File) {
        self.files.remove(&file.number);
    }

    /// Every file seen.
    pub fn files(&self) -> Vec<Arc<File>> {
        self.files.values().cloned().collect()
    }

    /// Files seen below a directory (`""` is the root), with their names.
    pub fn below(&self, dir: &str) -> Vec<(String, Arc<File>)> {
        below(&self.numbers, dir)
            .filter_map(|(name, number)| Some((name.clone(), Arc::clone(self.files.get(number)?))))
            .collect()
    }

    /// Directories made below a directory.
    pub fn dirs_below(&self, dir: &str) -> Vec<String> {
        below(&self.dirs, dir).map(|(path, _)| path.clone()).collect()
    }
}

/// Entries whose key lies below a directory.
fn below<'a, V>(map: &'a BTreeMap<String, V>, dir: &str) -> impl Iterator<Item = (&'a String, &'a V)> {
    let prefix = if dir.is_empty() { String::new() } else { format!("{dir}/") };
    let start = Bound::Included(prefix.clone());
    map.range((start, Bound::Unbounded)).take_while(move |(key, _)| key.starts_with(&prefix))
}
