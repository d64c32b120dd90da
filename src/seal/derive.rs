//! One key per purpose, derived with HKDF-SHA-256 (RFC 5869). The salt is the repository id, so the same secret bytes in two
//! repositories give unrelated keys.

use crate::words::ids::RepoId;
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

/// A secret key; wiped when dropped.
pub type Key = Zeroizing<[u8; 32]>;

/// From the root key: names data blocks. It outlives every rekeying, or blocks would be stored again after each.
pub const ID_DATA: &str = "backyfs/1/id/data";
/// From the root key: names map nodes.
pub const ID_MAP: &str = "backyfs/1/id/map";
/// From the root key: authenticates the repository header.
pub const HEADER_MAC: &str = "backyfs/1/header";
/// From the root key: seals key rings.
pub const SEAL_RING: &str = "backyfs/1/seal/ring";
/// From a master key: seals data blocks.
pub const SEAL_DATA: &str = "backyfs/1/seal/data";
/// From a master key: seals map nodes.
pub const SEAL_MAP: &str = "backyfs/1/seal/map";
/// From a master key: seals everything else.
pub const SEAL_META: &str = "backyfs/1/seal/meta";
/// From a secret and a slot's salt: wraps the root key.
pub const SLOT: &str = "backyfs/1/slot";

/// Derives the key for a purpose within a repository.
pub fn derive(key: &Key, repo: &RepoId, purpose: &str) -> Key {
    derive_salted(&**key, repo.as_bytes(), purpose)
}

/// HKDF-SHA-256 of 32 bytes.
pub(super) fn derive_salted(secret: &[u8], salt: &[u8], purpose: &str) -> Key {
    let mut key = Key::default();
    Hkdf::<Sha256>::new(Some(salt), secret)
        .expand(purpose.as_bytes(), &mut *key)
        .expect("32 bytes are within what HKDF gives");
    key
}
