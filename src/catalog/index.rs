//! Where blocks are: packs, the copies in them, and which index fragments have been absorbed.

use crate::catalog::error::CatalogError;
use crate::catalog::key::{self, Place};
use crate::catalog::store::Fault;
use crate::catalog::tables::Tables;
use crate::catalog::{Catalog, damage};
use crate::words::ids::{BlockId, FragmentId, PackId};
use crate::words::record::{BlockKind, Location, PackContents, PackedBlock};
use heed::{RoTxn, RwTxn};
use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};

/// Blocks put in one transaction. LMDB keeps every page that a transaction changes in memory, and writes it to a new place:
/// blocks, being named by hashes, change up to one page each, so this bounds memory (to 40 MiB), how long others wait, and by
/// how much the file outgrows its contents. As all blocks of a call are sorted first, each transaction has a stretch of the
/// table to itself, and more of them cost little (measured: 1.3 million blocks a second either way).
const BLOCKS_PER_COMMIT: usize = 10_000;

/// Key of `facts`.
const CHANGES: &[u8] = b"index changes";

/// What the catalog knows of a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackSummary {
    /// The pack.
    pub pack: PackId,
    /// Data or map.
    pub kind: BlockKind,
    /// Bytes of the whole pack.
    pub size_bytes: u64,
    /// Blocks in it.
    pub block_count: u32,
    /// Whether it is condemned.
    pub condemned: bool,
}

impl PackSummary {
    fn encode(&self) -> [u8; 46] {
        let kind = match self.kind {
            BlockKind::Data => 1,
            BlockKind::Map => 2,
        };
        let [size, count] = [&self.size_bytes.to_be_bytes()[..], &self.block_count.to_be_bytes()];
        key::join(&[self.pack.as_bytes(), &[kind, u8::from(self.condemned)], size, count])
    }

    fn decode(row: &[u8]) -> Result<Self, Fault> {
        let [kind, condemned] = key::array(row, 32, "packs")?;
        let kind = match kind {
            1 => BlockKind::Data,
            2 => BlockKind::Map,
            other => return Err(Fault::Corrupt(format!("a pack has kind {other}"))),
        };
        Ok(Self {
            pack: PackId::from_bytes(key::array(row, 0, "packs")?),
            kind,
            size_bytes: u64::from_be_bytes(key::array(row, 34, "packs")?),
            block_count: u32::from_be_bytes(key::array(row, 42, "packs")?),
            condemned: condemned != 0,
        })
    }
}

impl Catalog {
    /// Every copy of a block that is in no condemned pack, lowest pack id first, those known to be bad last.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn locations(&self, id: &BlockId) -> Result<Vec<Location>, CatalogError> {
        self.store.read(|tables, txn| Ok(copies(tables, txn, id)?.live))
    }

    /// Every copy of a block: those of [`Catalog::locations`], then those in condemned packs, which may still be readable.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn all_locations(&self, id: &BlockId) -> Result<Vec<Location>, CatalogError> {
        self.store.read(|tables, txn| {
            let Copies { mut live, condemned } = copies(tables, txn, id)?;
            live.extend(condemned);
            Ok(live)
        })
    }

    /// Whether a block has a copy in a pack that is not condemned.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn has_location(&self, id: &BlockId) -> Result<bool, CatalogError> {
        self.store.read(|tables, txn| has_copy(tables, txn, id))
    }

    /// Whether a block has a copy that is neither in a condemned pack nor known to be bad: only then may anything rely on it anew.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn has_sound_location(&self, id: &BlockId) -> Result<bool, CatalogError> {
        self.store.read(|tables, txn| has_sound_copy(tables, txn, id))
    }

    /// Those of `ids`, in order, that have no copy in a pack that is not condemned. Holes need none. One view of the index
    /// answers for all.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn without_location(&self, ids: &[BlockId]) -> Result<Vec<BlockId>, CatalogError> {
        self.store.read(|tables, txn| {
            let mut missing = Vec::new();
            for id in ids {
                if !id.is_hole() && !has_copy(tables, txn, id)? {
                    missing.push(*id);
                }
            }
            Ok(missing)
        })
    }

    /// Learns what an index fragment says. Absorbing it again changes nothing.
    ///
    /// # Errors
    /// See [`CatalogError`]. The fragment counts as known only when all of it is.
    pub fn absorb_fragment(&self, fragment: FragmentId, packs: &[PackContents]) -> Result<(), CatalogError> {
        if self.knows_fragment(fragment)? {
            return Ok(());
        }
        self.absorb_anew(fragment, packs)
    }

    /// Like [`Catalog::absorb_fragment`], even if it seems to be known.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn absorb_anew(&self, fragment: FragmentId, packs: &[PackContents]) -> Result<(), CatalogError> {
        let size = about_bytes(packs).to_be_bytes();
        self.absorb(packs, |tables, txn| Ok(tables.fragments.put(txn, fragment.as_bytes(), &size)?))
    }

    /// Counts how often locations were added, by whichever process: equal answers mean that none were in between.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn index_changes(&self) -> Result<u64, CatalogError> {
        self.store.read(changes)
    }

    /// Learns what packs hold without a fragment that says so: a rebuild from packs alone.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn absorb_packs(&self, packs: &[PackContents]) -> Result<(), CatalogError> {
        self.absorb(packs, |_, _| Ok(()))
    }

    /// Learns many fragments at once, which is faster than one after the other.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn absorb_fragments(&self, fragments: &[(FragmentId, Vec<PackContents>)]) -> Result<(), CatalogError> {
        let known = self.known_fragments()?;
        let new: Vec<_> = fragments.iter().filter(|(fragment, _)| !known.contains(fragment)).collect();
        let packs: Vec<_> = new.iter().flat_map(|(_, packs)| packs).collect();
        self.absorb(&packs, |tables, txn| {
            for (fragment, packs) in &new {
                tables.fragments.put(txn, fragment.as_bytes(), &about_bytes(packs).to_be_bytes())?;
            }
            Ok(())
        })
    }

    /// Forgets that fragments exist, when they are gone from the target; what they said stays.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn forget_fragments(&self, fragments: &[FragmentId]) -> Result<(), CatalogError> {
        if fragments.is_empty() {
            return Ok(());
        }
        self.store.write(|tables, txn| {
            for fragment in fragments {
                tables.fragments.delete(txn, fragment.as_bytes())?;
            }
            Ok(())
        })
    }

    /// Learns that what `old` said is said by `new` since, so that nobody takes the absence of `old` for a target that was
    /// rolled back.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn note_replaced(&self, old: &[FragmentId], new: FragmentId) -> Result<(), CatalogError> {
        if old.is_empty() {
            return Ok(());
        }
        self.store.write(|tables, txn| {
            old.iter().try_for_each(|old| Ok(tables.replaced.put(txn, old.as_bytes(), new.as_bytes())?))
        })
    }

    /// The fragment that holds what `old` said, when `old` was merged into one.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn replaced_by(&self, old: FragmentId) -> Result<Option<FragmentId>, CatalogError> {
        self.store.read(|tables, txn| {
            let new = tables.replaced.get(txn, old.as_bytes())?;
            new.map(|id| Ok(FragmentId::from_bytes(key::array(id, 0, "replaced")?))).transpose()
        })
    }

    /// Whether a fragment has been absorbed.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn knows_fragment(&self, fragment: FragmentId) -> Result<bool, CatalogError> {
        self.store.read(|tables, txn| Ok(tables.fragments.get(txn, fragment.as_bytes())?.is_some()))
    }

    /// Every fragment absorbed.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn known_fragments(&self) -> Result<BTreeSet<FragmentId>, CatalogError> {
        self.store.read(fragments)
    }

    /// Every fragment absorbed, and about how many bytes it has.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn fragment_sizes(&self) -> Result<Vec<(FragmentId, u64)>, CatalogError> {
        self.store.read(|tables, txn| {
            let rows = tables.fragments.iter(txn)?;
            rows.map(|row| {
                let (id, size) = row?;
                // Earlier catalogs did not note it.
                let size = if size.is_empty() { 0 } else { u64::from_be_bytes(key::array(size, 0, "fragments")?) };
                Ok((FragmentId::from_bytes(key::array(id, 0, "fragments")?), size))
            })
            .collect()
        })
    }

    /// Every pack known, in the order in which they were learnt.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn packs(&self) -> Result<Vec<PackSummary>, CatalogError> {
        self.store.read(|tables, txn| tables.packs.iter(txn)?.map(|row| PackSummary::decode(row?.1)).collect())
    }

    /// What the catalog knows of one pack.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn pack(&self, pack: &PackId) -> Result<Option<PackSummary>, CatalogError> {
        self.store.read(|tables, txn| {
            let Some(number) = number_of(tables, txn, pack)? else { return Ok(None) };
            summary(tables, txn, number).map(Some)
        })
    }

    /// Puts packs and their blocks in bounded transactions, then `last` with the last of them. A crash in between leaves
    /// entries that are true, and absorbing again completes them.
    fn absorb<P: Borrow<PackContents>>(
        &self,
        packs: &[P],
        last: impl Fn(&Tables, &mut RwTxn) -> Result<(), Fault>,
    ) -> Result<(), CatalogError> {
        let mut rows = rows_of(packs);
        // Sorted as the table is, so that consecutive puts fall into the same page.
        rows.sort_unstable_by_key(|(id, place)| (*id, place.pack, place.offset));
        let mut chunks = rows.chunks(BLOCKS_PER_COMMIT).peekable();
        loop {
            let chunk = chunks.next().unwrap_or_default();
            let is_last = chunks.peek().is_none();
            self.store.write(|tables, txn| {
                let changes = changes(tables, txn)? + 1;
                tables.facts.put(txn, CHANGES, &changes.to_be_bytes())?;
                let numbers =
                    packs.iter().map(|pack| enter(tables, txn, pack.borrow())).collect::<Result<Vec<_>, _>>()?;
                for (id, place) in chunk {
                    let place = Place { pack: numbers[place.pack as usize], ..*place };
                    tables.locations.put(txn, id.as_bytes(), &place.encode())?;
                }
                if is_last { last(tables, txn) } else { Ok(()) }
            })?;
            if is_last {
                return Ok(());
            }
        }
    }
}

/// Bytes of a fragment that says what these packs hold, before it is compressed.
fn about_bytes(packs: &[PackContents]) -> u64 {
    packs.iter().map(|pack| 52 + pack.blocks.len() as u64 * 44).sum()
}

fn changes(tables: &Tables, txn: &RoTxn) -> Result<u64, Fault> {
    let count = tables.facts.get(txn, CHANGES)?;
    count.map_or(Ok(0), |count| key::array(count, 0, "facts").map(u64::from_be_bytes))
}

/// New tables go on counting where the old ones were, so that a change is seen as one.
pub(super) fn take_over(old: &Tables, new: &Tables, txn: &mut RwTxn) -> Result<(), Fault> {
    let count = changes(old, txn)?.max(changes(new, txn)?) + 1;
    Ok(new.facts.put(txn, CHANGES, &count.to_be_bytes())?)
}

/// Blocks of packs as rows of `locations`, with the position in `packs` where the pack's number will stand.
fn rows_of<P: Borrow<PackContents>>(packs: &[P]) -> Vec<(BlockId, Place)> {
    let mut rows = Vec::with_capacity(packs.iter().map(|pack| pack.borrow().blocks.len()).sum());
    for (position, pack) in (0..).zip(packs) {
        let stored = pack.borrow().blocks.iter().filter(|block| !block.id.is_hole());
        rows.extend(stored.map(|block| {
            let (offset, frame_len, plain_len) = (block.offset, block.frame_len, block.plain_len);
            (block.id, Place { pack: position, offset, frame_len, plain_len })
        }));
    }
    rows
}

/// The number of a pack, which is entered when it is new.
fn enter(tables: &Tables, txn: &mut RwTxn, contents: &PackContents) -> Result<u32, Fault> {
    if let Some(number) = number_of(tables, txn, &contents.pack)? {
        return Ok(number);
    }
    let number = match tables.packs.last(txn)? {
        None => 0,
        Some((key, _)) => u32::from_be_bytes(key::array(key, 0, "packs")?) + 1,
    };
    let summary = PackSummary {
        pack: contents.pack,
        kind: contents.kind,
        size_bytes: contents.size_bytes,
        block_count: u32::try_from(contents.blocks.len()).unwrap_or(u32::MAX),
        // A condemned pack is dead for ever, whenever its entries arrive.
        condemned: tables.condemned.get(txn, contents.pack.as_bytes())?.is_some(),
    };
    tables.packs.put(txn, &number.to_be_bytes(), &summary.encode())?;
    tables.pack_numbers.put(txn, contents.pack.as_bytes(), &number.to_be_bytes())?;
    Ok(number)
}

/// Marks a pack condemned in its row, when it has one.
pub(super) fn condemn(tables: &Tables, txn: &mut RwTxn, pack: &PackId) -> Result<(), Fault> {
    if let Some(number) = number_of(tables, txn, pack)? {
        let condemned = PackSummary { condemned: true, ..summary(tables, txn, number)? };
        tables.packs.put(txn, &number.to_be_bytes(), &condemned.encode())?;
    }
    Ok(())
}

pub(super) fn fragments(tables: &Tables, txn: &RoTxn) -> Result<BTreeSet<FragmentId>, Fault> {
    let ids = tables.fragments.iter(txn)?;
    ids.map(|row| Ok(FragmentId::from_bytes(key::array(row?.0, 0, "fragments")?))).collect()
}

pub(super) fn number_of(tables: &Tables, txn: &RoTxn, pack: &PackId) -> Result<Option<u32>, Fault> {
    let number = tables.pack_numbers.get(txn, pack.as_bytes())?;
    number.map(|bytes| key::array(bytes, 0, "pack_numbers").map(u32::from_be_bytes)).transpose()
}

/// The row of a pack that something in the catalog points to.
pub(super) fn summary(tables: &Tables, txn: &RoTxn, number: u32) -> Result<PackSummary, Fault> {
    let row = tables.packs.get(txn, &number.to_be_bytes())?;
    PackSummary::decode(row.ok_or_else(|| Fault::Corrupt(format!("pack number {number} has no row")))?)
}

/// The copies of a block, each kind in order of pack, those known to be bad last.
pub(super) struct Copies {
    pub(super) live: Vec<Location>,
    pub(super) condemned: Vec<Location>,
}

pub(super) fn copies(tables: &Tables, txn: &RoTxn, id: &BlockId) -> Result<Copies, Fault> {
    let mut copies = Copies { live: Vec::new(), condemned: Vec::new() };
    for row in tables.locations.get_duplicates(txn, id.as_bytes())?.into_iter().flatten() {
        let place = Place::decode(row?.1)?;
        let pack = summary(tables, txn, place.pack)?;
        let kind = if pack.condemned { &mut copies.condemned } else { &mut copies.live };
        kind.push(place.locate(pack.pack));
    }
    let bad = damage::bad_packs(tables, txn, id)?;
    for kind in [&mut copies.live, &mut copies.condemned] {
        kind.sort_unstable_by_key(|copy| (bad.iter().any(|(pack, _)| *pack == copy.pack), *copy));
    }
    Ok(copies)
}

pub(super) fn has_sound_copy(tables: &Tables, txn: &RoTxn, id: &BlockId) -> Result<bool, Fault> {
    let bad = damage::bad_packs(tables, txn, id)?;
    if bad.is_empty() {
        return has_copy(tables, txn, id);
    }
    let live = copies(tables, txn, id)?.live;
    Ok(live.iter().any(|copy| bad.iter().all(|(pack, _)| *pack != copy.pack)))
}

/// The blocks of packs, from one pass over all copies of all blocks.
pub(super) fn blocks_in(
    tables: &Tables,
    txn: &RoTxn,
    packs: &BTreeSet<PackId>,
) -> Result<BTreeMap<PackId, Vec<PackedBlock>>, Fault> {
    let mut numbers = BTreeMap::new();
    for pack in packs {
        numbers.extend(number_of(tables, txn, pack)?.map(|number| (number, *pack)));
    }
    let mut found: BTreeMap<PackId, Vec<PackedBlock>> = BTreeMap::new();
    if numbers.is_empty() {
        return Ok(found);
    }
    for row in tables.locations.iter(txn)? {
        let (id, place) = row?;
        let Place { pack, offset, frame_len, plain_len } = Place::decode(place)?;
        if let Some(pack) = numbers.get(&pack) {
            let id = BlockId::from_bytes(key::array(id, 0, "locations")?);
            found.entry(*pack).or_default().push(PackedBlock { id, offset, frame_len, plain_len });
        }
    }
    found.values_mut().for_each(|blocks| blocks.sort_unstable_by_key(|block| block.offset));
    Ok(found)
}

fn has_copy(tables: &Tables, txn: &RoTxn, id: &BlockId) -> Result<bool, Fault> {
    for row in tables.locations.get_duplicates(txn, id.as_bytes())?.into_iter().flatten() {
        if !summary(tables, txn, Place::decode(row?.1)?.pack)?.condemned {
            return Ok(true);
        }
    }
    Ok(false)
}
