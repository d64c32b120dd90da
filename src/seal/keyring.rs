//! The keys of an unlocked repository: the root key and the master key of each key version, with everything that derives
//! from them.

use crate::format::frame::{FrameKind, NO_ID, PLAIN_MAX_BYTES};
use crate::format::repository::RepositoryHeader;
use crate::format::ring::Ring;
use crate::seal::derive::{self, Key, derive};
use crate::seal::error::{KeyError, SealError};
use crate::seal::frame::{Place, Plain, Sealed, cipher};
use crate::seal::namer::Namer;
use crate::words::clock::Clock;
use crate::words::ids::{BlockId, KeyVersion, RepoId};
use chacha20poly1305::XChaCha20Poly1305;
use std::collections::BTreeMap;
use std::fmt;
use zeroize::Zeroizing;

/// The ciphers of one key version.
#[derive(Clone)]
struct VersionKeys {
    data: XChaCha20Poly1305,
    map: XChaCha20Poly1305,
    meta: XChaCha20Poly1305,
}

impl VersionKeys {
    fn new(master: &Key, repo: &RepoId) -> Self {
        let cipher = |purpose| cipher(&derive(master, repo, purpose));
        Self { data: cipher(derive::SEAL_DATA), map: cipher(derive::SEAL_MAP), meta: cipher(derive::SEAL_META) }
    }
}

/// All keys of one repository; wiped when dropped.
#[derive(Clone)]
pub struct Keyring {
    header: RepositoryHeader,
    root: Key,
    data_namer: Namer,
    map_namer: Namer,
    versions: BTreeMap<KeyVersion, VersionKeys>,
    current: KeyVersion,
    unreadable_rings: Vec<String>,
}

impl Keyring {
    /// Opens the key rings with the root key.
    ///
    /// # Errors
    /// [`KeyError::NoRing`] when not one of them opens. Others that do not are in [`Self::unreadable_rings`].
    pub(super) fn new(header: RepositoryHeader, root: Key, rings: &[Vec<u8>]) -> Result<Self, KeyError> {
        let repo = header.repo;
        let ring_cipher = cipher(&derive(&root, &repo, derive::SEAL_RING));
        let mut versions = BTreeMap::new();
        let mut unreadable_rings = Vec::new();
        for ring in rings {
            match open_ring(&ring_cipher, repo, ring) {
                Ok((version, master)) => drop(versions.insert(version, VersionKeys::new(&master, &repo))),
                Err(problem) => unreadable_rings.push(problem),
            }
        }
        let no_ring = || KeyError::NoRing {
            found: rings.len(),
            problem: unreadable_rings.last().cloned().unwrap_or_else(|| "there is none".to_owned()),
        };
        let current = *versions.last_key_value().ok_or_else(no_ring)?.0;
        let data_namer = Namer::new(&derive(&root, &repo, derive::ID_DATA));
        let map_namer = Namer::new(&derive(&root, &repo, derive::ID_MAP));
        Ok(Self { header, root, data_namer, map_namer, versions, current, unreadable_rings })
    }

    /// The header, checked.
    pub fn header(&self) -> &RepositoryHeader {
        &self.header
    }

    /// The key version that new objects are sealed under.
    pub fn current(&self) -> KeyVersion {
        self.current
    }

    /// The key versions that can be opened, oldest first.
    pub fn versions(&self) -> impl Iterator<Item = KeyVersion> + '_ {
        self.versions.keys().copied()
    }

    /// What is wrong with the key rings that could not be read, for a person to see.
    pub fn unreadable_rings(&self) -> &[String] {
        &self.unreadable_rings
    }

    /// These key versions and those of `other`, whose newest is the current one if it is newer.
    pub(super) fn joined(&self, other: &Self) -> Self {
        let mut joined = self.clone();
        joined.versions.extend(other.versions.iter().map(|(version, keys)| (*version, keys.clone())));
        joined.current = self.current.max(other.current);
        joined.unreadable_rings.clone_from(&other.unreadable_rings);
        joined
    }

    pub(super) fn root(&self) -> &Key {
        &self.root
    }

    pub(super) fn data_id(&self, plain: &[u8]) -> BlockId {
        self.data_namer.name(plain)
    }

    pub(super) fn data_id_pair(&self, plain: [&[u8]; 2]) -> [BlockId; 2] {
        self.data_namer.name_pair(plain)
    }

    pub(super) fn node_id(&self, plain: &[u8]) -> BlockId {
        self.map_namer.name(plain)
    }

    /// The cipher for objects of a kind under a key version.
    pub(super) fn cipher(&self, kind: FrameKind, version: KeyVersion) -> Result<&XChaCha20Poly1305, SealError> {
        let keys = self.versions.get(&version).ok_or(SealError::UnknownKey { kind, version })?;
        Ok(match kind {
            FrameKind::Data => &keys.data,
            FrameKind::Map => &keys.map,
            _ => &keys.meta,
        })
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let versions: Vec<_> = self.versions.keys().collect();
        f.debug_struct("Keyring").field("header", &self.header).field("versions", &versions).finish_non_exhaustive()
    }
}

/// Makes the key ring of a key version: a fresh master key, sealed under the root key.
pub(super) fn seal_ring(root: &Key, repo: RepoId, version: KeyVersion, clock: &dyn Clock) -> Vec<u8> {
    let mut master = Key::default();
    clock.random(&mut *master);
    let plain = Ring { created: clock.now(), master }.encode();
    let mut nonce = [0; 24];
    clock.random(&mut nonce);
    let mut out = Vec::new();
    Plain { place: ring_place(repo), bytes: &plain }
        .compress(None, PLAIN_MAX_BYTES, &mut out)
        .expect("a ring is a few bytes long")
        .seal(&cipher(&derive(root, &repo, derive::SEAL_RING)), version, nonce);
    out
}

fn open_ring(cipher: &XChaCha20Poly1305, repo: RepoId, bytes: &[u8]) -> Result<(KeyVersion, Key), String> {
    let sealed = Sealed::read(ring_place(repo), PLAIN_MAX_BYTES, bytes).map_err(|error| error.to_string())?;
    let version = sealed.key_version();
    let problem = |error: &dyn fmt::Display| format!("key ring {version}: {error}");
    let mut plain = Zeroizing::new(Vec::new());
    sealed.open(cipher, &mut plain).map_err(|error| problem(&error))?;
    let ring = Ring::decode(&plain).map_err(|error| problem(&error))?;
    Ok((version, ring.master))
}

const fn ring_place(repo: RepoId) -> Place {
    Place { repo, kind: FrameKind::KeyRing, id: NO_ID }
}
