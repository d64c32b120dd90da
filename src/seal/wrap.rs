//! Wraps the root key under a secret.

use crate::format::frame::TAG_LEN;
use crate::format::slot::{Argon2Costs, SALT_LEN, Slot, SlotKind, WRAPPED_LEN};
use crate::seal::derive::{self, Key, derive_salted};
use crate::seal::error::KeyError;
use crate::seal::frame::cipher;
use crate::words::clock::{Clock, ClockExt};
use crate::words::ids::RepoId;
use argon2::{Algorithm, Argon2, Params, Version};
use chacha20poly1305::aead::inout::InOutBuf;
use chacha20poly1305::{AeadInOut, Tag, XNonce};
use zeroize::Zeroizing;

/// A slot of a kind that `secret` opens.
pub(super) fn wrap(
    root: &Key,
    repo: RepoId,
    kind: SlotKind,
    secret: &[u8],
    clock: &dyn Clock,
) -> Result<Slot, KeyError> {
    let (mut salt, mut nonce) = ([0; SALT_LEN], [0; 24]);
    clock.random(&mut salt);
    clock.random(&mut nonce);
    let (id, created) = (clock.slot_id(), clock.now());
    let mut slot = Slot { repo, id, kind, created, salt, nonce, wrapped: [0; WRAPPED_LEN] };
    let key = wrapping_key(&slot, secret)?;
    let mut sealed = Key::clone(root);
    let tag = cipher(&key)
        .encrypt_inout_detached(&XNonce::from(nonce), &slot.aad(), InOutBuf::from(&mut sealed[..]))
        .expect("the cipher takes 32 bytes");
    let (ciphertext, tag_place) = slot.wrapped.split_at_mut(WRAPPED_LEN - TAG_LEN);
    ciphertext.copy_from_slice(&*sealed);
    tag_place.copy_from_slice(&tag);
    Ok(slot)
}

/// The root key, when `secret` opens the slot.
pub(super) fn unwrap(slot: &Slot, secret: &[u8]) -> Result<Option<Key>, KeyError> {
    let key = wrapping_key(slot, secret)?;
    let (ciphertext, tag) = slot.wrapped.split_last_chunk::<TAG_LEN>().expect("the tag is a part of it");
    let mut root = Key::default();
    let buffer = InOutBuf::new(ciphertext, &mut root[..]).expect("both have 32 bytes");
    let opened = cipher(&key).decrypt_inout_detached(&XNonce::from(slot.nonce), &slot.aad(), buffer, &Tag::from(*tag));
    Ok(opened.is_ok().then_some(root))
}

fn wrapping_key(slot: &Slot, secret: &[u8]) -> Result<Key, KeyError> {
    match slot.kind {
        SlotKind::Passphrase(costs) => {
            let stretched = stretch(secret, &slot.salt, costs)?;
            Ok(derive_salted(&*stretched, &slot.salt, derive::SLOT))
        }
        SlotKind::KeyFile | SlotKind::Recovery => Ok(derive_salted(secret, &slot.salt, derive::SLOT)),
    }
}

/// Argon2id, version 0x13 (RFC 9106).
fn stretch(passphrase: &[u8], salt: &[u8], costs: Argon2Costs) -> Result<Zeroizing<[u8; 32]>, KeyError> {
    let problem = |error: argon2::Error| KeyError::Argon2(error.to_string());
    if !costs.are_valid() {
        return Err(KeyError::Argon2(format!("{costs:?} are beyond the limits")));
    }
    let params = Params::new(costs.memory_kib, costs.passes, costs.lanes, Some(32)).map_err(problem)?;
    let mut stretched = Zeroizing::new([0; 32]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(passphrase, salt, &mut *stretched)
        .map_err(problem)?;
    Ok(stretched)
}
