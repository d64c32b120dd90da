//! Every table of the catalog: what its keys and values are, who scans it, and why its keys stand in that order.
//!
//! All integers are big endian, so that the order of bytes is the order of numbers. `time` is a [`Stamp`] as 8 bytes with the
//! sign bit flipped. `uid`, `id` are raw bytes. Names of backups can be longer than an LMDB key (511 bytes), so no key holds
//! one: they are paths in a tree of components.
//!
//! | table | key | value | who scans it, why this order |
//! |---|---|---|---|
//! | `packs` | number u32 | pack id 32, kind u8, state u8, size u64, blocks u32 | `packs` lists them; the last key gives the next number |
//! | `pack_numbers` | pack id 32 | number u32 | absorbing: from a pack to its number; never scanned |
//! | `locations` | block id 32, several values | pack number u32, offset u32, frame length u32, plain length u32 | all values of one block: where are its copies; a fragment is sorted by id before it is put, so neighbours share pages |
//! | `fragments` | fragment id 16 | about how many bytes it has u64 | `known_fragments`, compared with a listing of the target, which is sorted the same way |
//! | `batches` | batch id 16 | | `known_batches` likewise; the fingerprint hashes them in this order |
//! | `condemned` | pack id 32 | | the dump; otherwise looked up when a pack is first heard of |
//! | `checked` | fingerprint 32, depth u8, root id 32 | | never; one list of condemned packs stands together |
//! | `records` | uid 16 | verdict u8, kind u8 (0: only the verdict is known), time 8, record | `records` by kind, `find_by_prefix`: a range of uids is a range of keys |
//! | `entries` | uid 16, lamport u64, entry id 16 | attribute entry | folding one version: the prefix is the version, the rest the order of folding |
//! | `tombstones` | uid 16 | what is left of the version, as on the target; empty when nothing is | `tombstones`, `removed` |
//! | `listed` | kind u8, time 8, uid 16 | the confirmed record with its folded attributes | listings of all versions (or drafts), oldest first, in one pass and without folding |
//! | `nodes` | parent node u64, component | node u64, names u32, children u32 | a directory of names: its children are neighbours in order of bytes; node 0 is the root of versions, 1 of drafts |
//! | `named` | node u64, time 8, uid 16 | standing u8 (1: complete) | the versions of one name, oldest first; the newest complete one from the end |
//! | `tags` | tag, a zero byte, time 8, uid 16 | | the versions of one tag, oldest first; all tags by skipping from one to the next |
//! | `replaced` | fragment id 16 | id 16 of the fragment that holds what it said | never |
//! | `facts` | text | next node number, layout of the catalog, how often the index changed | never |
//! | `damage` | damage report id 16 | the report | `damage_reports`, compared with a listing of the target |
//! | `bad_copies` | block id 32, pack id 32 | origin u8 (0: noted here, 1: reported), text: what is wrong | the bad copies of one block: is it damaged |
//! | `mirror` | node id 32 | 0 and the first 8 bytes of each block id, or level + 1 and the ids of children | `forget_mirrored`; otherwise looked up |
//! | `sightings` | pack id 32 | time i64, the least when something referred to it | `sightings` reads all of it |
//! | `removed` | uid 16, of a draft its id | level u8, root id 32 | `removed_roots` reads all of it |
//! | `scrubbed` | pack id 32 | time 8: when this host last read all of it | `scrubbed`, sorted by time afterwards |
//! | `findings` | uid 16 | text: how this host's last scrub found the version | `found_versions` |
//! | `hidden` | SHA-256 of a name | the name, a zero byte, time 8 and uid 16 of its newest version when it was hidden | `hidden` |
//! | `local` | text | host id, which set is used, what callers keep | never |
//!
//! `mirror`, `sightings`, `removed`, `scrubbed`, `findings`, `hidden`, `local` and those `bad_copies` that were noted here are known on this host only. Everything else
//! follows from the target and is there twice: one set is used, the other is for a rebuild (`rebuild.rs`), and `local` says which
//! is which.
//!
//! [`Stamp`]: crate::words::stamp::Stamp

use heed::types::Bytes;
use heed::{CommitOrAbort, DatabaseFlags, Env, RwTxn, WithoutTls};

/// A table: bytes to bytes; keys and rows have their codecs in [`super::key`] and beside their users.
pub(super) type Table = heed::Database<'static, Bytes, Bytes>;

/// Whether the target can give back what a table holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// It follows from the target: there are two of it, so that one can be made anew while the other is used.
    Derived,
    /// Known here only: there is one.
    Local,
}

macro_rules! tables {
    ($($field:ident $origin:ident $flags:expr;)*) => {
        /// Handles of all tables: the local ones and one set of the derived ones.
        #[derive(Clone, Copy)]
        pub(super) struct Tables {
            $(pub(super) $field: Table,)*
        }

        const SPECS: &[(&str, Origin, DatabaseFlags)] = &[$((stringify!($field), Origin::$origin, $flags),)*];

        impl Tables {
            fn from_array([$($field),*]: [Table; SPECS.len()]) -> Self {
                Self { $($field),* }
            }

            fn derived(&self) -> impl Iterator<Item = Table> {
                let all = [$(self.$field),*];
                all.into_iter().zip(SPECS).filter(|(_, spec)| spec.1 == Origin::Derived).map(|(table, _)| table)
            }
        }
    };
}

tables! {
    packs Derived DatabaseFlags::empty();
    pack_numbers Derived DatabaseFlags::empty();
    locations Derived DatabaseFlags::DUP_SORT.union(DatabaseFlags::DUP_FIXED);
    fragments Derived DatabaseFlags::empty();
    batches Derived DatabaseFlags::empty();
    condemned Derived DatabaseFlags::empty();
    checked Derived DatabaseFlags::empty();
    records Derived DatabaseFlags::empty();
    entries Derived DatabaseFlags::empty();
    tombstones Derived DatabaseFlags::empty();
    listed Derived DatabaseFlags::empty();
    nodes Derived DatabaseFlags::empty();
    named Derived DatabaseFlags::empty();
    tags Derived DatabaseFlags::empty();
    replaced Derived DatabaseFlags::empty();
    facts Derived DatabaseFlags::empty();
    damage Derived DatabaseFlags::empty();
    bad_copies Derived DatabaseFlags::empty();
    mirror Local DatabaseFlags::empty();
    sightings Local DatabaseFlags::empty();
    removed Local DatabaseFlags::empty();
    scrubbed Local DatabaseFlags::empty();
    findings Local DatabaseFlags::empty();
    hidden Local DatabaseFlags::empty();
    local Local DatabaseFlags::empty();
}

impl Tables {
    /// Most tables there are in a catalog.
    pub(super) const COUNT: u32 = 2 * SPECS.len() as u32;

    /// Opens both sets, making what does not exist.
    pub(super) fn open(env: &Env<WithoutTls>) -> heed::Result<[Self; 2]> {
        let sets = env.create_databases_and_commit(env.write_txn()?, |opener, txn| {
            let mut tables = Vec::with_capacity(2 * SPECS.len());
            for set in 0..2 {
                for (name, origin, flags) in SPECS {
                    let name =
                        if set == 1 && *origin == Origin::Derived { format!("{name} 2") } else { (*name).into() };
                    let mut options = opener.database_options().types::<Bytes, Bytes>();
                    tables.push(options.name(&name).flags(*flags).create(txn)?);
                }
            }
            let tables: [_; 2 * SPECS.len()] = tables.try_into().expect("two for each name");
            Ok::<_, heed::Error>(CommitOrAbort::<_, ()>::Commit(tables))
        })?;
        let all = sets.unwrap_commit();
        let (first, second) = all.split_at(SPECS.len());
        let set = |tables: &[Table]| Self::from_array(tables.try_into().expect("one table for each name"));
        Ok([set(first), set(second)])
    }

    /// Empties everything that follows from the target.
    pub(super) fn clear_derived(&self, txn: &mut RwTxn) -> heed::Result<()> {
        self.derived().try_for_each(|table| table.clear(txn))
    }
}

#[cfg(test)]
mod tests {
    use super::SPECS;

    #[test]
    fn the_table_at_the_head_of_this_file_names_every_table() {
        let rows = include_str!("tables.rs").lines().filter_map(|line| line.strip_prefix("//! | `"));
        let documented: Vec<_> = rows.filter_map(|row| row.split('`').next()).collect();
        assert_eq!(documented, SPECS.iter().map(|(name, ..)| *name).collect::<Vec<_>>());
    }
}
