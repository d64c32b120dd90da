//! The sealer: names, seals and opens everything of one unlocked repository. Cheap to clone, shared by all threads.

use crate::format::frame::{FrameKind, NONCE_LEN, PLAIN_MAX_BYTES};
use crate::format::node::NODE_MAX_BYTES;
use crate::format::repository::RepositoryHeader;
use crate::seal::error::{KeyError, SealError};
use crate::seal::frame::{Place, Plain, Sealed};
use crate::seal::keyring::Keyring;
use crate::words::clock::Clock;
use crate::words::geometry::BlockSize;
use crate::words::ids::{BlockId, RepoId};
use crate::words::record::BlockKind;
use parking_lot::RwLock;
use std::fmt;
use std::sync::Arc;

/// zstd level of everything that is no block: small, and written once.
const OBJECT_LEVEL: i32 = 3;

/// Names, seals and opens.
#[derive(Clone)]
pub struct Sealer {
    /// As it was unlocked: header, root key and names never change.
    keyring: Arc<Keyring>,
    /// With the key versions that were learnt since; all clones share it.
    live: Arc<RwLock<Arc<Keyring>>>,
    clock: Arc<dyn Clock>,
}

impl Sealer {
    pub(super) fn new(keyring: Keyring, clock: Arc<dyn Clock>) -> Self {
        let keyring = Arc::new(keyring);
        Self { live: Arc::new(RwLock::new(Arc::clone(&keyring))), keyring, clock }
    }

    /// Another sealer with the key rings read anew: after a rekey, by whomever.
    ///
    /// # Errors
    /// [`KeyError::NoRing`] when none of them opens.
    pub fn with_rings(&self, rings: &[Vec<u8>]) -> Result<Self, KeyError> {
        let keyring = Keyring::new(self.header().clone(), self.keyring.root().clone(), rings)?;
        Ok(Self::new(keyring, self.clock.clone()))
    }

    /// Takes over the key rings of another sealer of the same repository: from now on this one and its clones seal under the newest
    /// of them, and open all of them. Key versions that only this one knows stay as long as it lives.
    pub fn adopt(&self, other: &Self) {
        let mut live = self.live.write();
        *live = Arc::new(live.joined(&other.keyring()));
    }

    /// Its keys, as they are now.
    pub fn keyring(&self) -> Arc<Keyring> {
        Arc::clone(&self.live.read())
    }

    /// The repository's header, checked.
    pub fn header(&self) -> &RepositoryHeader {
        self.keyring.header()
    }

    /// The repository.
    pub fn repo(&self) -> RepoId {
        self.header().repo
    }

    pub(super) fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// The id of a data block.
    pub fn data_id(&self, plain: &[u8]) -> BlockId {
        self.keyring.data_id(plain)
    }

    /// The ids of two data blocks, faster than one after the other.
    pub fn data_id_pair(&self, plain: [&[u8]; 2]) -> [BlockId; 2] {
        self.keyring.data_id_pair(plain)
    }

    /// The id of an encoded map node.
    pub fn node_id(&self, plain: &[u8]) -> BlockId {
        self.keyring.node_id(plain)
    }

    /// The id of a block of a kind.
    pub fn block_id(&self, kind: BlockKind, plain: &[u8]) -> BlockId {
        match kind {
            BlockKind::Data => self.data_id(plain),
            BlockKind::Map => self.node_id(plain),
        }
    }

    /// Appends the frame of a block to `out`, compressed with zstd at `level` when that pays. Returns its length.
    ///
    /// # Errors
    /// [`SealError::TooLong`] when `plain` is longer than any block of its kind; `out` is unchanged then.
    pub fn seal_block(
        &self,
        kind: BlockKind,
        id: &BlockId,
        plain: &[u8],
        level: i32,
        out: &mut Vec<u8>,
    ) -> Result<usize, SealError> {
        self.seal(self.block_place(kind, id), plain, level, block_limit(kind), out)
    }

    /// The plaintext of a block, from exactly its frame.
    ///
    /// # Errors
    /// When it is not the intact, authentic frame of that block.
    pub fn open_block(&self, kind: BlockKind, id: &BlockId, frame: &[u8]) -> Result<Vec<u8>, SealError> {
        let mut plain = Vec::new();
        self.open_block_into(kind, id, frame, &mut plain)?;
        Ok(plain)
    }

    /// Replaces what `plain` holds by the plaintext of a block; it is empty after an error.
    ///
    /// # Errors
    /// When it is not the intact, authentic frame of that block.
    pub fn open_block_into(
        &self,
        kind: BlockKind,
        id: &BlockId,
        frame: &[u8],
        plain: &mut Vec<u8>,
    ) -> Result<(), SealError> {
        self.open(self.block_place(kind, id), block_limit(kind), frame, plain)
    }

    /// The frame of an object that is no block. `id` is what [`crate::format::frame`] says for its kind.
    ///
    /// # Panics
    /// When `plain` is longer than [`PLAIN_MAX_BYTES`], which is far beyond what fits in the memory of whoever made it.
    pub fn seal_object(&self, kind: FrameKind, id: [u8; 32], plain: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        self.seal(self.place(kind, id), plain, OBJECT_LEVEL, PLAIN_MAX_BYTES, &mut out)
            .expect("objects are split long before the limit");
        out.shrink_to_fit();
        out
    }

    /// The plaintext of an object that is no block, from exactly its frame.
    ///
    /// # Errors
    /// When it is not the intact, authentic frame of that object.
    pub fn open_object(&self, kind: FrameKind, id: [u8; 32], bytes: &[u8]) -> Result<Vec<u8>, SealError> {
        let mut plain = Vec::new();
        self.open(self.place(kind, id), PLAIN_MAX_BYTES, bytes, &mut plain)?;
        Ok(plain)
    }

    fn place(&self, kind: FrameKind, id: [u8; 32]) -> Place {
        Place { repo: self.repo(), kind, id }
    }

    fn block_place(&self, kind: BlockKind, id: &BlockId) -> Place {
        self.place(kind.into(), *id.as_bytes())
    }

    fn seal(&self, place: Place, plain: &[u8], level: i32, limit: u32, out: &mut Vec<u8>) -> Result<usize, SealError> {
        let keyring = self.keyring();
        let version = keyring.current();
        let cipher = keyring.cipher(place.kind, version)?;
        // 192 random bits: no two of them ever meet, however many hosts seal under one key (draft-irtf-cfrg-xchacha-03).
        let mut nonce = [0; NONCE_LEN];
        self.clock.random(&mut nonce);
        Ok(Plain { place, bytes: plain }.compress(Some(level), limit, out)?.seal(cipher, version, nonce))
    }

    fn open(&self, place: Place, limit: u32, frame: &[u8], out: &mut Vec<u8>) -> Result<(), SealError> {
        out.truncate(limit as usize);
        let keyring = self.keyring();
        let opened = Sealed::read(place, limit, frame)
            .and_then(|sealed| Ok((keyring.cipher(place.kind, sealed.key_version())?, sealed)))
            .and_then(|(cipher, sealed)| sealed.open(cipher, out));
        if opened.is_err() {
            out.clear();
        }
        opened
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sealer").field(&self.keyring).finish()
    }
}

const fn block_limit(kind: BlockKind) -> u32 {
    match kind {
        BlockKind::Data => BlockSize::MAX.bytes() as u32,
        BlockKind::Map => NODE_MAX_BYTES as u32,
    }
}
