//! Going through all copies of all blocks, a stretch at a time, and taking out those in packs that are gone.
//!
//! Numbers of packs mean something within one transaction only: a rebuild may give the same pack another one. So a stretch brings its
//! packs along, and nothing here is asked for by number.

use crate::catalog::error::CatalogError;
use crate::catalog::index::{self, PackSummary};
use crate::catalog::key::Place;
use crate::catalog::{Catalog, key};
use crate::words::ids::{BlockId, PackId};
use crate::words::record::Location;
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::ops::Bound;

/// Number of a pack in one state of the catalog.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct PackNumber(u32);

/// One copy of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredCopy {
    /// In which pack of the stretch.
    pack: PackNumber,
    place: Place,
}

impl StoredCopy {
    /// Where it is, given its pack's id.
    pub fn location(&self, pack: PackId) -> Location {
        self.place.locate(pack)
    }

    /// Bytes of its frame.
    pub fn frame_len(&self) -> u32 {
        self.place.frame_len
    }
}

/// A stretch of the index: blocks in order, each with all its copies.
#[derive(Debug, Default)]
pub struct Stretch {
    /// The blocks.
    pub blocks: Vec<(BlockId, Vec<StoredCopy>)>,
    /// Where the next stretch begins; `None` at the end.
    pub next: Option<BlockId>,
    packs: HashMap<PackNumber, PackSummary>,
}

impl Stretch {
    /// The pack that holds a copy of this stretch.
    pub fn pack_of(&self, copy: &StoredCopy) -> &PackSummary {
        self.packs.get(&copy.pack).expect("a stretch brings the packs of its copies")
    }
}

/// Blocks of one stretch: so long is a reader in the way of nobody.
const BLOCKS_PER_STRETCH: usize = 20_000;

impl Catalog {
    /// The blocks from `from` on, all copies of each, condemned or not.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn stretch(&self, from: BlockId) -> Result<Stretch, CatalogError> {
        self.store.read(|tables, txn| {
            let range: (Bound<&[u8]>, Bound<&[u8]>) = (Bound::Included(from.as_bytes()), Bound::Unbounded);
            let mut found = Stretch::default();
            for row in tables.locations.range(txn, &range)? {
                let (id, place) = row?;
                let id = BlockId::from_bytes(key::array(id, 0, "locations")?);
                let place = Place::decode(place)?;
                let copy = StoredCopy { pack: PackNumber(place.pack), place };
                let count = found.blocks.len();
                match found.blocks.last_mut() {
                    Some((last, copies)) if *last == id => copies.push(copy),
                    _ if count == BLOCKS_PER_STRETCH => {
                        found.next = Some(id);
                        break;
                    }
                    _ => found.blocks.push((id, vec![copy])),
                }
                if let Entry::Vacant(vacant) = found.packs.entry(copy.pack) {
                    vacant.insert(index::summary(tables, txn, place.pack)?);
                }
            }
            Ok(found)
        })
    }

    /// Forgets all copies in these packs, which are condemned and gone from the target. Should an entry of one arrive again,
    /// it is still known to be condemned.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn purge_copies(&self, packs: &HashSet<PackId>) -> Result<(), CatalogError> {
        let mut from = Some(BlockId::HOLE);
        while let Some(start) = from {
            let stretch = self.stretch(start)?;
            from = stretch.next;
            let copies = stretch.blocks.iter().flat_map(|(id, copies)| copies.iter().map(move |copy| (*id, copy)));
            let gone: Vec<(BlockId, PackId, Place)> = copies
                .map(|(id, copy)| (id, stretch.pack_of(copy).pack, copy.place))
                .filter(|(_, pack, _)| packs.contains(pack))
                .collect();
            if gone.is_empty() {
                continue;
            }
            self.store.write(|tables, txn| {
                for (id, pack, place) in &gone {
                    // What a rebuild fills numbers them otherwise.
                    let Some(number) = index::number_of(tables, txn, pack)? else { continue };
                    let place = Place { pack: number, ..*place };
                    tables.locations.delete_one_duplicate(txn, id.as_bytes(), &place.encode())?;
                }
                Ok(())
            })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::clock::SystemClock;
    use crate::words::record::{BlockKind, PackContents, PackedBlock};

    #[test]
    fn stretches_cover_everything_once_and_purged_copies_are_gone() {
        let dir = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(dir.path(), &SystemClock).unwrap();
        let id = |n: u32| {
            let mut bytes = [1; 32];
            bytes[..4].copy_from_slice(&n.wrapping_mul(2_654_435_761).to_be_bytes());
            BlockId::from_bytes(bytes)
        };
        let pack = |n: u8, blocks: std::ops::Range<u32>| PackContents {
            pack: PackId::from_bytes([n; 32]),
            kind: BlockKind::Data,
            size_bytes: 1 << 20,
            blocks: blocks.map(|b| PackedBlock { id: id(b), offset: b, frame_len: 100, plain_len: 4096 }).collect(),
        };
        catalog.absorb_packs(&[pack(1, 0..30_000), pack(2, 20_000..50_000)]).unwrap();
        let all = || {
            let (mut found, mut from) = (Vec::new(), Some(BlockId::HOLE));
            while let Some(start) = from {
                let stretch = catalog.stretch(start).unwrap();
                assert!(stretch.blocks.len() <= BLOCKS_PER_STRETCH);
                found.extend(stretch.blocks);
                from = stretch.next;
            }
            found
        };
        let before = all();
        assert_eq!((before.len(), before.iter().map(|(_, copies)| copies.len()).sum::<usize>()), (50_000, 60_000));
        assert!(before.windows(2).all(|pair| pair[0].0 < pair[1].0));
        // A rebuild that learnt them in another order meanwhile.
        let rebuild = catalog.rebuild().unwrap();
        rebuild.catalog().absorb_packs(&[pack(2, 20_000..50_000), pack(1, 0..30_000)]).unwrap();
        catalog.purge_copies(&HashSet::from([PackId::from_bytes([1; 32])])).unwrap();
        let after = all();
        assert_eq!((after.len(), after.iter().map(|(_, copies)| copies.len()).sum::<usize>()), (30_000, 30_000));
        rebuild.finish().unwrap();
        let rebuilt = all();
        let ids = |found: &[(BlockId, Vec<StoredCopy>)]| found.iter().map(|(id, _)| *id).collect::<Vec<_>>();
        assert_eq!(ids(&rebuilt), ids(&after));
        assert!(catalog.pack(&PackId::from_bytes([1; 32])).unwrap().is_some());
    }
}
