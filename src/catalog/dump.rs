//! Everything in the catalog that follows from the target, as plain values: the oracle that says whether a rebuilt catalog
//! equals the live one.
//!
//! Left out, because the target says nothing of it any more: copies in condemned packs, verdicts and entries whose record is
//! not known, and the order in which things were learnt. What tombstones say, too: when two hosts remove a version at once, each knows
//! its own, and the target the last.

use crate::catalog::error::CatalogError;
use crate::catalog::index::{self, PackSummary};
use crate::catalog::key::{self, Place};
use crate::catalog::lookup;
use crate::catalog::names::{self, Tree};
use crate::catalog::store::Fault;
use crate::catalog::tables::Tables;
use crate::catalog::{Catalog, condemned, damage, stored};
use crate::words::attribute::{AttributeEntry, Attributes};
use crate::words::damage::DamageReport;
use crate::words::ids::{BatchId, BlockId, CondemnedFingerprint, DamageId, FragmentId, PackId, Uid};
use crate::words::name::Name;
use crate::words::record::{Location, Record, Verdict};
use crate::words::stamp::Stamp;
use heed::RoTxn;
use std::collections::{BTreeMap, BTreeSet};

/// What [`Catalog::dump`] returns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatalogDump {
    /// Packs that are not condemned.
    pub packs: BTreeMap<PackId, PackSummary>,
    /// Copies in them, by block.
    pub locations: BTreeMap<BlockId, BTreeSet<Location>>,
    /// Index fragments absorbed.
    pub fragments: BTreeSet<FragmentId>,
    /// Batches absorbed.
    pub batches: BTreeSet<BatchId>,
    /// What they condemn.
    pub condemned: BTreeSet<PackId>,
    /// The name of that list.
    pub fingerprint: CondemnedFingerprint,
    /// Records and verdicts.
    pub records: BTreeMap<Uid, (Record, Verdict)>,
    /// Their entries, in the order of folding.
    pub entries: BTreeMap<Uid, Vec<AttributeEntry>>,
    /// Damage reports.
    pub damage: BTreeMap<DamageId, DamageReport>,
    /// Tombstones.
    pub tombstones: BTreeSet<Uid>,
    /// The index of listings: moment and folded attributes of what is confirmed.
    pub listed: BTreeMap<Uid, (Stamp, Attributes)>,
    /// The index of names of versions.
    pub names: BTreeMap<Name, Vec<(Stamp, Uid)>>,
    /// The index of names of drafts.
    pub drafts: BTreeMap<Name, Vec<(Stamp, Uid)>>,
    /// The index of tags.
    pub tags: BTreeSet<(Vec<u8>, Uid)>,
}

impl Catalog {
    /// Reads all of it at one moment.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn dump(&self) -> Result<CatalogDump, CatalogError> {
        self.store.read(|tables, txn| {
            let (packs, locations) = index_of(tables, txn)?;
            let (records, entries) = records_of(tables, txn)?;
            Ok(CatalogDump {
                packs,
                locations,
                fragments: index::fragments(tables, txn)?,
                batches: condemned::batches(tables, txn)?,
                condemned: condemned::packs(tables, txn)?,
                fingerprint: condemned::fingerprint(tables, txn)?,
                records,
                entries,
                damage: damage::reports(tables, txn)?,
                tombstones: stored::tombstones(tables, txn)?,
                listed: listed_of(tables, txn)?,
                names: names_of(tables, txn, Tree::Versions)?,
                drafts: names_of(tables, txn, Tree::Drafts)?,
                tags: tags_of(tables, txn)?,
            })
        })
    }
}

type Index = (BTreeMap<PackId, PackSummary>, BTreeMap<BlockId, BTreeSet<Location>>);

fn index_of(tables: &Tables, txn: &RoTxn) -> Result<Index, Fault> {
    let mut numbers = BTreeMap::new();
    for row in tables.packs.iter(txn)? {
        let number = u32::from_be_bytes(key::array(row?.0, 0, "packs")?);
        let pack = index::summary(tables, txn, number)?;
        if !pack.condemned {
            numbers.insert(number, pack);
        }
    }
    let mut locations: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for row in tables.locations.iter(txn)? {
        let (id, place) = row?;
        let place = Place::decode(place)?;
        if let Some(pack) = numbers.get(&place.pack) {
            let id = BlockId::from_bytes(key::array(id, 0, "locations")?);
            locations.entry(id).or_default().insert(place.locate(pack.pack));
        }
    }
    Ok((numbers.into_values().map(|pack| (pack.pack, pack)).collect(), locations))
}

type Records = (BTreeMap<Uid, (Record, Verdict)>, BTreeMap<Uid, Vec<AttributeEntry>>);

fn records_of(tables: &Tables, txn: &RoTxn) -> Result<Records, Fault> {
    let (mut all, mut entries) = (BTreeMap::new(), BTreeMap::new());
    for known in stored::known_records(tables, txn)? {
        all.extend(stored::record(tables, txn, known.uid)?.map(|row| (known.uid, row)));
        let of_this = stored::entries(tables, txn, known.uid)?;
        if !of_this.is_empty() {
            entries.insert(known.uid, of_this);
        }
    }
    Ok((all, entries))
}

fn listed_of(tables: &Tables, txn: &RoTxn) -> Result<BTreeMap<Uid, (Stamp, Attributes)>, Fault> {
    let rows = tables.listed.iter(txn)?;
    rows.map(|row| {
        let (key, record) = row?;
        let (created, uid) = key::moment(key, "listed")?;
        Ok((uid, (created, stored::decode(record)?.attributes)))
    })
    .collect()
}

fn names_of(tables: &Tables, txn: &RoTxn, tree: Tree) -> Result<BTreeMap<Name, Vec<(Stamp, Uid)>>, Fault> {
    let names = names::all(tables, txn, tree)?.into_iter();
    names.map(|name| Ok((name.clone(), lookup::named(tables, txn, tree, &name)?))).collect()
}

fn tags_of(tables: &Tables, txn: &RoTxn) -> Result<BTreeSet<(Vec<u8>, Uid)>, Fault> {
    let rows = tables.tags.iter(txn)?;
    rows.map(|row| {
        let key = row?.0;
        let (_, uid) = key::moment(key, "tags")?;
        Ok((key[..key.len() - key::MOMENT_LEN - 1].to_vec(), uid))
    })
    .collect()
}
