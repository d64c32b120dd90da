//! Finding confirmed versions and drafts by name, tag, or the beginning of a uid.

use crate::catalog::error::CatalogError;
use crate::catalog::key::{self, RecordRow};
use crate::catalog::names::{self, Child, Tree};
use crate::catalog::store::Fault;
use crate::catalog::tables::Tables;
use crate::catalog::{Catalog, listed, stored};
use crate::words::ids::Uid;
use crate::words::name::{Name, check_tag};
use crate::words::record::{Record, RecordKind, Verdict};
use crate::words::stamp::Stamp;
use heed::RoTxn;
use std::ops::Bound;

impl Catalog {
    /// The confirmed versions of a name, oldest first.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn versions_of(&self, name: &Name) -> Result<Vec<(Stamp, Uid)>, CatalogError> {
        self.store.read(|tables, txn| named(tables, txn, Tree::Versions, name))
    }

    /// The confirmed versions of a name from one moment to another (both included), oldest first. Costs what it returns.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn versions_between(&self, name: &Name, first: Stamp, last: Stamp) -> Result<Vec<(Stamp, Uid)>, CatalogError> {
        self.store.read(|tables, txn| {
            let Some(node) = names::find(tables, txn, Tree::Versions, name)? else { return Ok(Vec::new()) };
            let from = key::named(node, first, Uid::NIL);
            let to = key::named(node, last, Uid::from_bytes([u8::MAX; Uid::LEN]));
            let range: (Bound<&[u8]>, Bound<&[u8]>) = (Bound::Included(&from), Bound::Included(&to));
            let rows = tables.named.range(txn, &range)?;
            rows.map(|row| key::moment(row?.0, "named")).collect()
        })
    }

    /// The newest confirmed version of a name that is not incomplete.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn newest_complete(&self, name: &Name) -> Result<Option<Uid>, CatalogError> {
        self.store.read(|tables, txn| newest(tables, txn, Tree::Versions, name, |standing| standing == [1]))
    }

    /// The newest confirmed version of a name, incomplete or not.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn newest(&self, name: &Name) -> Result<Option<Uid>, CatalogError> {
        self.store.read(|tables, txn| newest(tables, txn, Tree::Versions, name, |_| true))
    }

    /// Whether a name has confirmed versions.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn name_exists(&self, name: &Name) -> Result<bool, CatalogError> {
        self.store.read(|tables, txn| Ok(names::find(tables, txn, Tree::Versions, name)?.is_some()))
    }

    /// A name with confirmed versions that cannot stand beside `name`: one is a directory above the other.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn collision(&self, name: &Name) -> Result<Option<Name>, CatalogError> {
        self.store.read(|tables, txn| names::collision(tables, txn, Tree::Versions, name))
    }

    /// Every name that has confirmed versions, in order of components.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn names(&self) -> Result<Vec<Name>, CatalogError> {
        self.store.read(|tables, txn| names::all(tables, txn, Tree::Versions))
    }

    /// What lies in a directory of names (`None`: the top), in order of bytes; empty when there is none of that name.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn children(&self, dir: Option<&str>) -> Result<Vec<Child>, CatalogError> {
        self.store.read(|tables, txn| names::children(tables, txn, Tree::Versions, dir))
    }

    /// What stands at a path of names: a name, a directory of names, or both; `None` when neither. Costs the same however
    /// many names there are.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn place(&self, path: &str) -> Result<Option<Child>, CatalogError> {
        self.store.read(|tables, txn| names::place(tables, txn, Tree::Versions, path))
    }

    /// The newest confirmed draft record of a name, with its attributes as they stand.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn draft_of(&self, name: &Name) -> Result<Option<Record>, CatalogError> {
        self.store.read(|tables, txn| {
            let Some(uid) = newest(tables, txn, Tree::Drafts, name, |_| true)? else { return Ok(None) };
            listed::get(tables, txn, uid)
        })
    }

    /// All confirmed draft records, oldest first, with their attributes as they stand.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn drafts(&self) -> Result<Vec<Record>, CatalogError> {
        self.store.read(|tables, txn| {
            let rows = tables.listed.prefix_iter(txn, &[key::kind_byte(RecordKind::Draft)])?;
            rows.map(|row| stored::decode(row?.1)).collect()
        })
    }

    /// The uids of all confirmed draft records of a name, oldest first.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn drafts_of(&self, name: &Name) -> Result<Vec<(Stamp, Uid)>, CatalogError> {
        self.store.read(|tables, txn| named(tables, txn, Tree::Drafts, name))
    }

    /// Every name that has confirmed draft records, in order of components.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn draft_names(&self) -> Result<Vec<Name>, CatalogError> {
        self.store.read(|tables, txn| names::all(tables, txn, Tree::Drafts))
    }

    /// Like [`Catalog::children`], for the names of drafts.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn draft_children(&self, dir: Option<&str>) -> Result<Vec<Child>, CatalogError> {
        self.store.read(|tables, txn| names::children(tables, txn, Tree::Drafts, dir))
    }

    /// Every tag of a confirmed version, in order of bytes.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn tags(&self) -> Result<Vec<String>, CatalogError> {
        self.store.read(|tables, txn| {
            let mut tags: Vec<String> = Vec::new();
            let mut from = vec![0];
            // From the first key of one tag to the first key of the next: the cost follows tags, not versions.
            while let Some((key, _)) = tables.tags.get_greater_than_or_equal_to(txn, &from)? {
                let end = key.len().checked_sub(key::MOMENT_LEN + 1);
                let tag = end.and_then(|end| key.get(..end)).and_then(|tag| std::str::from_utf8(tag).ok());
                let tag = tag.ok_or_else(|| Fault::Corrupt("a key of tags is none".to_owned()))?;
                from = [tag.as_bytes(), &[1]].concat();
                tags.push(tag.to_owned());
            }
            Ok(tags)
        })
    }

    /// The confirmed versions that carry a tag, oldest first.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn tagged(&self, tag: &str) -> Result<Vec<Uid>, CatalogError> {
        if check_tag(tag).is_err() {
            return Ok(Vec::new());
        }
        self.store.read(|tables, txn| {
            let rows = tables.tags.prefix_iter(txn, &key::tag_prefix(tag))?;
            rows.map(|row| Ok(key::moment(row?.0, "tags")?.1)).collect()
        })
    }

    /// The confirmed versions whose uid, as printed, begins with `prefix`, in order of uid.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn find_by_prefix(&self, prefix: &str) -> Result<Vec<Uid>, CatalogError> {
        let prefix = prefix.to_ascii_lowercase();
        let Some(first) = smallest_uid(&prefix) else { return Ok(Vec::new()) };
        self.store.read(|tables, txn| {
            let range: (Bound<&[u8]>, Bound<&[u8]>) = (Bound::Included(first.as_bytes()), Bound::Unbounded);
            let mut found = Vec::new();
            for row in tables.records.range(txn, &range)? {
                let (uid, row) = row?;
                let uid = Uid::from_bytes(key::array(uid, 0, "records")?);
                if !uid.to_string().starts_with(&prefix) {
                    break;
                }
                if let RecordRow { verdict: Verdict::Confirmed, record: Some((RecordKind::Version, ..)) } =
                    RecordRow::decode(row)?
                {
                    found.push(uid);
                }
            }
            Ok(found)
        })
    }
}

/// The smallest uid whose text begins with `prefix`; `None` when no uid's does.
fn smallest_uid(prefix: &str) -> Option<Uid> {
    const SMALLEST: &str = "00000000-0000-0000-0000-000000000000";
    let text = format!("{prefix}{}", SMALLEST.get(prefix.len()..)?);
    text.parse().ok()
}

/// Versions (or drafts) of a name, oldest first.
pub(super) fn named(tables: &Tables, txn: &RoTxn, tree: Tree, name: &Name) -> Result<Vec<(Stamp, Uid)>, Fault> {
    let Some(node) = names::find(tables, txn, tree, name)? else { return Ok(Vec::new()) };
    let rows = tables.named.prefix_iter(txn, &node.to_be_bytes())?;
    rows.map(|row| key::moment(row?.0, "named")).collect()
}

/// The newest version of a name and its moment.
pub(super) fn newest_moment(tables: &Tables, txn: &RoTxn, name: &Name) -> Result<Option<(Stamp, Uid)>, Fault> {
    let Some(node) = names::find(tables, txn, Tree::Versions, name)? else { return Ok(None) };
    let last = tables.named.rev_prefix_iter(txn, &node.to_be_bytes())?.next();
    last.map(|row| key::moment(row?.0, "named")).transpose()
}

fn newest(
    tables: &Tables,
    txn: &RoTxn,
    tree: Tree,
    name: &Name,
    wanted: impl Fn(&[u8]) -> bool,
) -> Result<Option<Uid>, Fault> {
    let Some(node) = names::find(tables, txn, tree, name)? else { return Ok(None) };
    for row in tables.named.rev_prefix_iter(txn, &node.to_be_bytes())? {
        let (key, standing) = row?;
        if wanted(standing) {
            return Ok(Some(key::moment(key, "named")?.1));
        }
    }
    Ok(None)
}
