//! Damage that was found: which copies of which blocks are bad, told to every host.

use crate::words::ids::{BlockId, HostId, PackId};
use crate::words::record::BlockKind;
use crate::words::stamp::Stamp;

/// What one host found wrong with one pack. It speaks of copies, not of blocks: a copy of the same block in another pack is as good
/// as ever, so storing a block anew heals it on every host without anything being taken back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DamageReport {
    /// The pack.
    pub pack: PackId,
    /// Data or map.
    pub kind: BlockKind,
    /// Who found it.
    pub host: HostId,
    /// When, for people.
    pub at: Stamp,
    /// What is wrong, for people.
    pub reason: String,
    /// The blocks whose copy in this pack cannot be read; none when the damage lies between them.
    pub blocks: Vec<BlockId>,
}
