//! What listings show: confirmed versions and drafts with their folded attributes, indexed by time, name and tag.
//!
//! [`insert`] and [`remove`] run in the transaction that changes a record, a verdict or an entry, so that no process ever sees
//! one without the other.

use crate::catalog::error::CatalogError;
use crate::catalog::key;
use crate::catalog::names::{self, Tree};
use crate::catalog::store::Fault;
use crate::catalog::tables::Tables;
use crate::catalog::{Catalog, attributes, records};
use crate::format;
use crate::words::attribute::Attributes;
use crate::words::ids::{HostId, Uid};
use crate::words::name::check_tag;
use crate::words::record::{ImageRef, Record, RecordKind, Stats, Verdict};
use crate::words::stamp::Stamp;
use heed::{RoTxn, RwTxn};
use std::ops::Bound;

/// A confirmed version as a listing shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionSummary {
    /// Which.
    pub uid: Uid,
    /// Moment of publication.
    pub created: Stamp,
    /// The host that wrote it.
    pub host: HostId,
    /// The image.
    pub image: ImageRef,
    /// The version it was made from, or nil.
    pub base: Uid,
    /// The version it replaces, or nil.
    pub supersedes: Uid,
    /// Attributes as they stand.
    pub attributes: Attributes,
    /// What it cost.
    pub stats: Stats,
}

impl VersionSummary {
    /// From a record whose attributes are the folded ones.
    fn from_listed(record: Record) -> Self {
        let Record { uid, created, host, image, base, supersedes, attributes, stats, .. } = record;
        Self { uid, created, host, image, base, supersedes, attributes, stats }
    }
}

impl Catalog {
    /// The uids of all confirmed versions, oldest first.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn version_uids(&self) -> Result<Vec<Uid>, CatalogError> {
        self.store.read(|tables, txn| {
            let rows = tables.listed.prefix_iter(txn, &[key::kind_byte(RecordKind::Version)])?;
            rows.map(|row| Ok(key::moment(row?.0, "listed")?.1)).collect()
        })
    }

    /// The newest of all confirmed versions.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn newest_version(&self) -> Result<Option<(Stamp, Uid)>, CatalogError> {
        self.store.read(|tables, txn| {
            let row = tables.listed.rev_prefix_iter(txn, &[key::kind_byte(RecordKind::Version)])?.next();
            row.map(|row| key::moment(row?.0, "listed")).transpose()
        })
    }

    /// All confirmed versions, oldest first.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn version_summaries(&self) -> Result<Vec<VersionSummary>, CatalogError> {
        self.versions_after(None, usize::MAX)
    }

    /// At most `limit` confirmed versions that come after the given one (which need not exist any more) in order of time.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn versions_after(
        &self,
        after: Option<(Stamp, Uid)>,
        limit: usize,
    ) -> Result<Vec<VersionSummary>, CatalogError> {
        let kind = key::kind_byte(RecordKind::Version);
        let (first, end) = ([kind], [kind + 1]);
        let after = after.map(|(created, uid)| key::listed(RecordKind::Version, created, uid));
        let start = after.as_ref().map_or(Bound::Included(&first[..]), |key| Bound::Excluded(&key[..]));
        let range: (Bound<&[u8]>, Bound<&[u8]>) = (start, Bound::Excluded(&end));
        self.store.read(|tables, txn| {
            let rows = tables.listed.range(txn, &range)?.take(limit);
            rows.map(|row| Ok(VersionSummary::from_listed(records::decode(row?.1)?))).collect()
        })
    }

    /// One confirmed version; `None` when it is not that.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn version_summary(&self, uid: Uid) -> Result<Option<VersionSummary>, CatalogError> {
        self.store.read(|tables, txn| {
            let version = get(tables, txn, uid)?.filter(|record| record.kind == RecordKind::Version);
            Ok(version.map(VersionSummary::from_listed))
        })
    }
}

/// The key under which a record is listed when it is.
fn key_of(tables: &Tables, txn: &RoTxn, uid: Uid) -> Result<Option<[u8; 25]>, Fault> {
    let record = records::row(tables, txn, uid)?.and_then(|row| row.record);
    Ok(record.map(|(kind, created, _)| key::listed(kind, created, uid)))
}

/// A listed record with its folded attributes.
pub(super) fn get(tables: &Tables, txn: &RoTxn, uid: Uid) -> Result<Option<Record>, Fault> {
    let Some(key) = key_of(tables, txn, uid)? else { return Ok(None) };
    tables.listed.get(txn, &key)?.map(records::decode).transpose()
}

/// Lists a record anew after anything about it has changed, when it is to be listed at all.
pub(super) fn insert(tables: &Tables, txn: &mut RwTxn, uid: Uid) -> Result<(), Fault> {
    remove(tables, txn, uid)?;
    let Some((mut record, Verdict::Confirmed)) = records::record(tables, txn, uid)? else { return Ok(()) };
    let Some(tree) = tree_of(record.kind) else { return Ok(()) };
    record.attributes = attributes::folded(tables, txn, &record)?;
    let key = key::listed(record.kind, record.created, uid);
    tables.listed.put(txn, &key, &format::record::encode(&record))?;
    let node = names::add(tables, txn, tree, &record.attributes.name)?;
    let complete = record.attributes.validity.is_complete();
    tables.named.put(txn, &key::named(node, record.created, uid), &[u8::from(complete)])?;
    for tag in tags_of(&record) {
        tables.tags.put(txn, &key::tag(tag, record.created, uid), &[])?;
    }
    Ok(())
}

/// Takes a record out of all listings.
pub(super) fn remove(tables: &Tables, txn: &mut RwTxn, uid: Uid) -> Result<(), Fault> {
    let Some(key) = key_of(tables, txn, uid)? else { return Ok(()) };
    let Some(record) = tables.listed.get(txn, &key)?.map(records::decode).transpose()? else { return Ok(()) };
    let Some(tree) = tree_of(record.kind) else { return Ok(()) };
    let node = names::remove(tables, txn, tree, &record.attributes.name)?;
    tables.named.delete(txn, &key::named(node, record.created, uid))?;
    for tag in tags_of(&record) {
        tables.tags.delete(txn, &key::tag(tag, record.created, uid))?;
    }
    tables.listed.delete(txn, &key)?;
    Ok(())
}

fn tree_of(kind: RecordKind) -> Option<Tree> {
    match kind {
        RecordKind::Version => Some(Tree::Versions),
        RecordKind::Draft => Some(Tree::Drafts),
        RecordKind::Pin => None,
    }
}

/// The tags under which a record is found: versions only, and only what is a tag (a key has room for no more).
fn tags_of(record: &Record) -> impl Iterator<Item = &str> {
    let tags = record.attributes.tags.iter().map(String::as_str);
    tags.filter(|tag| record.kind == RecordKind::Version && check_tag(tag).is_ok())
}
