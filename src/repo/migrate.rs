//! Rewriting what is sealed under old key versions.
//!
//! Packs are never rewritten: their blocks are stored again, in new packs, and the old packs are condemned, as with any
//! compaction. Other objects keep their names; the same content is put under the same name, sealed anew, which replaces it in one
//! step. Nothing that was deleted in between comes back to life: a removed record has a tombstone, and the rest is superseded.

use crate::format::frame::{FrameHeader, FrameKind};
use crate::format::layout::{self, Object, ObjectKey};
use crate::format::pack;
use crate::repo::packer::PackNo;
use crate::repo::{RepoError, Repository, object_id};
use crate::target::TargetError;
use crate::words::ids::{BlockId, KeyVersion, PackId};
use crate::words::record::BlockKind;

/// What stands under a key version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SealedUnder {
    /// This one.
    Version(KeyVersion),
    /// It is no sealed object, or gone.
    None,
    /// It cannot be told: damaged.
    Unknown,
}

impl Repository {
    /// The key version of a pack: that of its first block, because versions only rise while a pack is filled.
    ///
    /// # Errors
    /// When the target cannot be reached.
    pub fn pack_sealed_under(&self, pack: PackId) -> Result<SealedUnder, RepoError> {
        let mut bytes = [0; crate::format::frame::HEADER_LEN];
        match self.core.target.read_at(&layout::pack(pack), pack::HEADER_LEN as u64, &mut bytes) {
            Ok(()) => {
                Ok(FrameHeader::decode(&bytes).map_or(SealedUnder::Unknown, |h| SealedUnder::Version(h.key_version)))
            }
            Err(TargetError::NotFound { .. }) => Ok(SealedUnder::None),
            Err(TargetError::Truncated { .. }) => Ok(SealedUnder::Unknown),
            Err(error) => Err(error.into()),
        }
    }

    /// The key version of an object that is no pack.
    ///
    /// # Errors
    /// When the target cannot be reached.
    pub fn object_sealed_under(&self, key: &ObjectKey) -> Result<SealedUnder, RepoError> {
        Ok(match sealed_kind(key) {
            None => SealedUnder::None,
            Some(_) => match self.core.target.get(key) {
                Ok(bytes) => FrameHeader::decode(&bytes)
                    .map_or(SealedUnder::Unknown, |header| SealedUnder::Version(header.key_version)),
                Err(TargetError::NotFound { .. }) => SealedUnder::None,
                Err(error) => return Err(error.into()),
            },
        })
    }

    /// Seals an object under the newest key version, if it is not yet. Says whether it was rewritten.
    ///
    /// # Errors
    /// When it does not open, or the target fails. Then it is as it was.
    pub fn reseal_object(&self, key: &ObjectKey) -> Result<bool, RepoError> {
        let core = &self.core;
        let Some((kind, id)) = sealed_kind(key) else { return Ok(false) };
        let bytes = match core.target.get(key) {
            Ok(bytes) => bytes,
            Err(TargetError::NotFound { .. }) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        let header = FrameHeader::decode(&bytes).map_err(RepoError::format(key.as_str()))?;
        if header.key_version >= core.sealer.keyring().current() {
            return Ok(false);
        }
        let plain = core.open_object(kind, id, &bytes).map_err(RepoError::seal(key.as_str()))?;
        let sealed = core.sealer.seal_object(kind, id, &plain);
        // Deleted since it was read: putting it would bring it back.
        match core.target.get(key) {
            Ok(_) => core.target.put(key, &[&sealed])?,
            Err(TargetError::NotFound { .. }) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        Ok(true)
    }

    /// Stores a block again under the newest key version, whatever copies there are.
    ///
    /// # Errors
    /// [`RepoError::Damaged`] when no copy can be read; when target or catalog fail.
    pub fn reseal_block(&self, kind: BlockKind, id: &BlockId) -> Result<PackNo, RepoError> {
        let core = &self.core;
        let (plain, mut frame) = match kind {
            BlockKind::Data => (core.read_block(id)?.to_vec(), Vec::new()),
            BlockKind::Map => (core.read_node(id)?.encode(), Vec::new()),
        };
        let level = core.header.zstd_level;
        core.sealer.seal_block(kind, id, &plain, level, &mut frame).map_err(RepoError::seal(format!("block {id}")))?;
        let plain_len = u32::try_from(plain.len()).expect("a block is at most 4 MiB");
        Ok(core.packer.append(kind, *id, &frame, plain_len)?.0)
    }
}

/// How an object is sealed: its kind and the id of its frame. `None` for what is not sealed under a key version.
fn sealed_kind(key: &ObjectKey) -> Option<(FrameKind, [u8; 32])> {
    let plain = |kind, id: &[u8; 16]| Some((kind, object_id(id, &[])));
    match layout::parse(key)? {
        Object::Fragment(id) => plain(FrameKind::Fragment, id.as_bytes()),
        Object::Record(kind, uid) => plain(FrameKind::from(kind), uid.as_bytes()),
        Object::Ok(uid) => plain(FrameKind::Ok, uid.as_bytes()),
        Object::Withdrawing(uid) => plain(FrameKind::Withdrawing, uid.as_bytes()),
        Object::Tombstone(uid) => plain(FrameKind::Tombstone, uid.as_bytes()),
        Object::Attribute(uid, entry) => Some((FrameKind::Attribute, object_id(uid.as_bytes(), entry.as_bytes()))),
        Object::Condemned(id) => plain(FrameKind::Condemned, id.as_bytes()),
        Object::Damage(id) => plain(FrameKind::Damage, id.as_bytes()),
        Object::Header | Object::Slot(_) | Object::Ring(_) | Object::Pack(_) => None,
        Object::SpareHeader | Object::SpareSlot(_) | Object::SpareRing(_) => None,
    }
}
