//! The tree of names: components under numbered nodes, because a whole name does not fit into a key.
//!
//! A node exists while it is the end of at least one name or has children; its row counts both, so that listing a directory
//! reads nothing but the rows it lists.

use crate::catalog::key;
use crate::catalog::store::Fault;
use crate::catalog::tables::Tables;
use crate::words::name::{Name, check_component};
use heed::{RoTxn, RwTxn};

/// Which tree: the number of its root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tree {
    /// Names that have confirmed versions.
    Versions = 0,
    /// Names that have confirmed draft records.
    Drafts = 1,
}

const FIRST_FREE_NODE: u64 = 2;
const NEXT_NODE: &[u8] = b"next node";

/// Row of `nodes`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Node {
    number: u64,
    /// How many versions (or drafts) have the name that ends here.
    names: u32,
    /// How many nodes lie directly below.
    children: u32,
}

impl Node {
    fn encode(self) -> [u8; 16] {
        key::join(&[&self.number.to_be_bytes(), &self.names.to_be_bytes(), &self.children.to_be_bytes()])
    }

    fn decode(row: &[u8]) -> Result<Self, Fault> {
        Ok(Self {
            number: u64::from_be_bytes(key::array(row, 0, "nodes")?),
            names: u32::from_be_bytes(key::array(row, 8, "nodes")?),
            children: u32::from_be_bytes(key::array(row, 12, "nodes")?),
        })
    }
}

/// One entry of a directory of names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Child {
    /// The component.
    pub component: String,
    /// Whether a name ends here.
    pub is_name: bool,
    /// Whether names lie below. Both can be true, when two hosts made `a` and `a/b` at the same time.
    pub is_dir: bool,
}

fn node_key(parent: u64, component: &str) -> Vec<u8> {
    [&parent.to_be_bytes(), component.as_bytes()].concat()
}

fn node(tables: &Tables, txn: &RoTxn, parent: u64, component: &str) -> Result<Option<Node>, Fault> {
    tables.nodes.get(txn, &node_key(parent, component))?.map(Node::decode).transpose()
}

fn walk(tables: &Tables, txn: &RoTxn, tree: Tree, path: &str) -> Result<Option<Node>, Fault> {
    let mut found = Node { number: tree as u64, names: 0, children: 0 };
    for component in path.split('/').filter(|component| !component.is_empty()) {
        match node(tables, txn, found.number, component)? {
            Some(below) => found = below,
            None => return Ok(None),
        }
    }
    Ok(Some(found))
}

/// The node at which a name ends.
pub(super) fn find(tables: &Tables, txn: &RoTxn, tree: Tree, name: &Name) -> Result<Option<u64>, Fault> {
    let end = walk(tables, txn, tree, name.as_str())?;
    Ok(end.filter(|node| node.names > 0).map(|node| node.number))
}

/// What stands at a path: a name, a directory of names, or both.
pub(super) fn place(tables: &Tables, txn: &RoTxn, tree: Tree, path: &str) -> Result<Option<Child>, Fault> {
    if path.split('/').any(|component| check_component(component).is_err()) {
        return Ok(None);
    }
    let component = path.rsplit('/').next().unwrap_or_default().to_owned();
    let found = walk(tables, txn, tree, path)?;
    Ok(found.map(|node| Child { component, is_name: node.names > 0, is_dir: node.children > 0 }))
}

/// Counts one more version of a name, making its nodes as needed; the number of its node.
pub(super) fn add(tables: &Tables, txn: &mut RwTxn, tree: Tree, name: &Name) -> Result<u64, Fault> {
    let mut parent = tree as u64;
    let mut above: Option<(Vec<u8>, Node)> = None;
    for component in name.components() {
        let key = node_key(parent, component);
        let found = match node(tables, txn, parent, component)? {
            Some(found) => found,
            None => {
                if let Some((key, node)) = above {
                    tables.nodes.put(txn, &key, &Node { children: node.children + 1, ..node }.encode())?;
                }
                let made = Node { number: next_number(tables, txn)?, names: 0, children: 0 };
                tables.nodes.put(txn, &key, &made.encode())?;
                made
            }
        };
        parent = found.number;
        above = Some((key, found));
    }
    let (key, end) = above.expect("a name has at least one component");
    tables.nodes.put(txn, &key, &Node { names: end.names + 1, ..end }.encode())?;
    Ok(end.number)
}

/// Counts one version of a name less, and removes the nodes that stand for nothing then.
pub(super) fn remove(tables: &Tables, txn: &mut RwTxn, tree: Tree, name: &Name) -> Result<u64, Fault> {
    let lost = || Fault::Corrupt(format!("the name {name} is not in the tree of names"));
    let mut path = Vec::new();
    let mut parent = tree as u64;
    for component in name.components() {
        let found = node(tables, txn, parent, component)?.ok_or_else(lost)?;
        path.push((node_key(parent, component), found));
        parent = found.number;
    }
    let mut dropped_child = false;
    for (key, mut node) in path.into_iter().rev() {
        if dropped_child {
            node.children = node.children.checked_sub(1).ok_or_else(lost)?;
        } else {
            node.names = node.names.checked_sub(1).ok_or_else(lost)?;
        }
        if node.names > 0 || node.children > 0 {
            tables.nodes.put(txn, &key, &node.encode())?;
            break;
        }
        tables.nodes.delete(txn, &key)?;
        dropped_child = true;
    }
    Ok(parent)
}

fn next_number(tables: &Tables, txn: &mut RwTxn) -> Result<u64, Fault> {
    let number = match tables.facts.get(txn, NEXT_NODE)? {
        None => FIRST_FREE_NODE,
        Some(bytes) => u64::from_be_bytes(key::array(bytes, 0, "facts")?),
    };
    tables.facts.put(txn, NEXT_NODE, &(number + 1).to_be_bytes())?;
    Ok(number)
}

/// The entries of a directory, in order of bytes.
pub(super) fn children(tables: &Tables, txn: &RoTxn, tree: Tree, dir: Option<&str>) -> Result<Vec<Child>, Fault> {
    let Some(dir) = walk(tables, txn, tree, dir.unwrap_or(""))? else { return Ok(Vec::new()) };
    let below = below(tables, txn, dir.number)?.into_iter();
    Ok(below.map(|(component, node)| Child { component, is_name: node.names > 0, is_dir: node.children > 0 }).collect())
}

fn below(tables: &Tables, txn: &RoTxn, parent: u64) -> Result<Vec<(String, Node)>, Fault> {
    let mut found = Vec::new();
    for row in tables.nodes.prefix_iter(txn, &parent.to_be_bytes())? {
        let (key, row) = row?;
        let component = std::str::from_utf8(&key[8..]).map_err(|_| Fault::Corrupt("a name is not UTF-8".to_owned()))?;
        found.push((component.to_owned(), Node::decode(row)?));
    }
    Ok(found)
}

/// Every name of a tree, in order of components.
pub(super) fn all(tables: &Tables, txn: &RoTxn, tree: Tree) -> Result<Vec<Name>, Fault> {
    let mut names = Vec::new();
    collect(tables, txn, tree as u64, "", &mut |path| {
        names.push(Name::new(path).map_err(|error| Fault::Corrupt(error.to_string()))?);
        Ok(Walk::On)
    })?;
    Ok(names)
}

/// A name that would have to be a directory because of `name`, or `name` because of it.
pub(super) fn collision(tables: &Tables, txn: &RoTxn, tree: Tree, name: &Name) -> Result<Option<Name>, Fault> {
    let mut path = String::new();
    let mut at = Node { number: tree as u64, names: 0, children: 0 };
    for component in name.components() {
        if at.names > 0 {
            return Name::new(&path).map(Some).map_err(|error| Fault::Corrupt(error.to_string()));
        }
        let Some(below) = node(tables, txn, at.number, component)? else { return Ok(None) };
        if !path.is_empty() {
            path.push('/');
        }
        path.push_str(component);
        at = below;
    }
    let mut found = None;
    collect(tables, txn, at.number, &path, &mut |path| {
        found = Some(Name::new(path).map_err(|error| Fault::Corrupt(error.to_string()))?);
        Ok(Walk::Enough)
    })?;
    Ok(found)
}

#[derive(PartialEq, Eq)]
enum Walk {
    On,
    Enough,
}

/// Visits every name below a node, depth first. Without recursion: a name has up to 2000 components.
fn collect(
    tables: &Tables,
    txn: &RoTxn,
    node: u64,
    path: &str,
    visit: &mut dyn FnMut(&str) -> Result<Walk, Fault>,
) -> Result<(), Fault> {
    let mut pending = vec![(path.to_owned(), Node { number: node, names: 0, children: 1 })];
    while let Some((path, node)) = pending.pop() {
        if node.names > 0 && visit(&path)? == Walk::Enough {
            return Ok(());
        }
        if node.children > 0 {
            let separator = if path.is_empty() { "" } else { "/" };
            let below = below(tables, txn, node.number)?.into_iter().rev();
            pending.extend(below.map(|(component, node)| (format!("{path}{separator}{component}"), node)));
        }
    }
    Ok(())
}
