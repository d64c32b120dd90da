//! Making, unlocking and adding keys. The root key is random and never leaves memory unwrapped; secrets only wrap it, so
//! they can be added and taken away without touching anything that is sealed.

use crate::format::FormatError;
use crate::format::layout::{self, Object, ObjectKey};
use crate::format::repository::{FORMAT_VERSION, RepositoryHeader, UncheckedHeader};
use crate::format::slot::{Argon2Costs, Slot, SlotKind};
use crate::seal::derive::{self, Key, derive};
use crate::seal::error::KeyError;
use crate::seal::keyring::{Keyring, seal_ring};
use crate::seal::recovery::RecoveryKey;
use crate::seal::sealer::Sealer;
use crate::seal::secret::Secret;
use crate::seal::wrap::{unwrap, wrap};
use crate::words::clock::{Clock, ClockExt};
use crate::words::geometry::BlockSize;
use crate::words::ids::{KeyVersion, RepoId};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::sync::Arc;

/// An object to be written: its name and its bytes.
pub type NewObject = (ObjectKey, Vec<u8>);

/// What can be chosen for a new repository.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Bytes per block.
    pub block_size: BlockSize,
    /// zstd level of blocks.
    pub zstd_level: i32,
    /// Packs are closed when they reach this many bytes.
    pub pack_size_bytes: u64,
    /// Costs of stretching passphrases.
    pub argon2: Argon2Costs,
}

/// The objects of a new repository.
pub struct Created {
    /// To be written first: slots and the first key ring, and their second copies.
    pub keys: Vec<NewObject>,
    /// To be written then, and only if there is none: with it the repository exists.
    pub header: NewObject,
    /// To be written last.
    pub spare_header: NewObject,
    /// To be shown once; it is stored nowhere.
    pub recovery: RecoveryKey,
    /// The repository, unlocked.
    pub sealer: Sealer,
}

/// Makes a repository that each of `secrets`, and a recovery key, opens.
///
/// # Errors
/// When a secret protects nothing, or the settings are out of range.
pub fn create(settings: &Settings, secrets: &[Secret], clock: &Arc<dyn Clock>) -> Result<Created, KeyError> {
    secrets.iter().try_for_each(Secret::check)?;
    let header = RepositoryHeader {
        format_version: FORMAT_VERSION,
        repo: clock.repo_id(),
        created: clock.now(),
        block_size: settings.block_size,
        zstd_level: settings.zstd_level,
        pack_size_bytes: settings.pack_size_bytes,
    };
    let mut root = Key::default();
    clock.random(&mut *root);
    let header_bytes = header.encode(|bytes| header_mac(&root, &header.repo, bytes).finalize().into_bytes().into());
    // What could not be read again must not be made.
    UncheckedHeader::decode(&header_bytes).map_err(KeyError::Settings)?;
    let ring = seal_ring(&root, header.repo, KeyVersion::FIRST, &**clock);
    let keyring = Keyring::new(header, root, std::slice::from_ref(&ring))?;
    let sealer = Sealer::new(keyring, clock.clone());

    // First what two that are made at once would both call the same.
    let mut keys = vec![(layout::ring(KeyVersion::FIRST), ring)];
    for secret in secrets {
        keys.push(new_slot(&sealer, secret, settings.argon2)?);
    }
    let (recovery, slot) = new_recovery_slot(&sealer)?;
    keys.push(slot);
    let twin = |(key, bytes): &NewObject| Some((layout::parse(key)?.twin()?.key(), bytes.clone()));
    let twins: Vec<NewObject> = keys.iter().filter_map(twin).collect();
    keys.extend(twins);
    let spare_header = (Object::SpareHeader.key(), header_bytes.clone());
    Ok(Created { keys, header: (layout::header(), header_bytes), spare_header, recovery, sealer })
}

/// Unlocks a repository with a secret, given the bytes of its header, of all its key slots and of all its key rings.
/// Damaged slots and rings are passed over as long as one that is needed is left.
///
/// # Errors
/// [`KeyError`] says which of these it was: no repository, newer, damaged, tampered with, or the wrong secret.
pub fn unlock(
    header: &[u8],
    slots: &[Vec<u8>],
    rings: &[Vec<u8>],
    secret: &Secret,
    clock: &Arc<dyn Clock>,
) -> Result<Sealer, KeyError> {
    let unchecked = UncheckedHeader::decode(header)?;
    let repo = unchecked.claimed_repo();
    let root = open_slots(repo, slots, secret)?;
    let header = unchecked
        .check(|bytes, mac| header_mac(&root, &repo, bytes).verify_slice(mac).is_ok())
        .ok_or(KeyError::HeaderMac { repo })?;
    Ok(Sealer::new(Keyring::new(header, root, rings)?, clock.clone()))
}

/// Whether `header` is the header of the repository that is unlocked.
///
/// # Errors
/// What is wrong with it.
pub fn check_header(sealer: &Sealer, header: &[u8]) -> Result<(), KeyError> {
    let unchecked = UncheckedHeader::decode(header)?;
    let repo = unchecked.claimed_repo();
    let keyring = sealer.keyring();
    let checked =
        unchecked.check(|bytes, mac| header_mac(keyring.root(), &sealer.repo(), bytes).verify_slice(mac).is_ok());
    checked.filter(|header| header == sealer.header()).map(drop).ok_or(KeyError::HeaderMac { repo })
}

/// The header of a repository as a format before wrote it.
#[cfg(test)]
pub(crate) fn header_in_format(sealer: &Sealer, format_version: u32) -> Vec<u8> {
    let (header, root) = (sealer.header(), sealer.keyring().root().clone());
    let mac = |bytes: &[u8]| header_mac(&root, &header.repo, bytes).finalize().into_bytes().into();
    RepositoryHeader { format_version, ..header.clone() }.encode(mac)
}

fn header_mac(root: &Key, repo: &RepoId, bytes: &[u8]) -> Hmac<Sha256> {
    let key = derive(root, repo, derive::HEADER_MAC);
    Hmac::<Sha256>::new_from_slice(&*key).expect("HMAC takes keys of any length").chain_update(bytes)
}

fn open_slots(repo: RepoId, slots: &[Vec<u8>], secret: &Secret) -> Result<Key, KeyError> {
    let recovery = match secret {
        Secret::Passphrase(text) => RecoveryKey::parse(text),
        Secret::KeyFile(_) => None,
    };
    let (mut tried, mut damaged, mut newer) = (0, 0, None);
    for bytes in slots {
        let slot = match Slot::decode(bytes) {
            Ok(slot) => slot,
            Err(error) => {
                damaged += 1;
                newer = newer.or(matches!(error, FormatError::Newer { .. }).then_some(error));
                continue;
            }
        };
        let secret = match (slot.kind, secret, &recovery) {
            (SlotKind::KeyFile, Secret::KeyFile(bytes), _)
            | (SlotKind::Passphrase(_), Secret::Passphrase(bytes), _) => bytes,
            (SlotKind::Recovery, _, Some(recovery)) => recovery.bytes(),
            _ => continue,
        };
        if slot.repo != repo {
            damaged += 1;
            continue;
        }
        tried += 1;
        if let Some(root) = unwrap(&slot, secret)? {
            return Ok(root);
        }
    }
    match (newer, tried) {
        (Some(newer), _) => Err(KeyError::Slot(newer)),
        (None, 0) => Err(KeyError::NoSlot { secret: secret.word(), damaged }),
        (None, _) => Err(KeyError::WrongSecret { secret: secret.word(), tried, damaged }),
    }
}

/// Whether `secret` opens a slot, given its bytes. A damaged one opens to nobody.
///
/// # Errors
/// When the passphrase cannot be stretched.
pub fn opens(sealer: &Sealer, slot: &[u8], secret: &Secret) -> Result<bool, KeyError> {
    match open_slots(sealer.repo(), &[slot.to_vec()], secret) {
        Ok(root) => Ok(root == *sealer.keyring().root()),
        Err(error @ KeyError::Argon2(_)) => Err(error),
        Err(_) => Ok(false),
    }
}

/// A further slot, for another secret.
///
/// # Errors
/// When the secret protects nothing, or the costs are out of range.
pub fn new_slot(sealer: &Sealer, secret: &Secret, costs: Argon2Costs) -> Result<NewObject, KeyError> {
    secret.check()?;
    let (kind, bytes) = match secret {
        Secret::KeyFile(bytes) => (SlotKind::KeyFile, bytes),
        Secret::Passphrase(bytes) => (SlotKind::Passphrase(costs), bytes),
    };
    slot_object(sealer, kind, bytes)
}

/// A new recovery key and its slot.
///
/// # Errors
/// None in practice.
pub fn new_recovery_slot(sealer: &Sealer) -> Result<(RecoveryKey, NewObject), KeyError> {
    let recovery = RecoveryKey::generate(&**sealer.clock());
    let slot = slot_object(sealer, SlotKind::Recovery, recovery.bytes())?;
    Ok((recovery, slot))
}

fn slot_object(sealer: &Sealer, kind: SlotKind, secret: &[u8]) -> Result<NewObject, KeyError> {
    let slot = wrap(sealer.keyring().root(), sealer.repo(), kind, secret, &**sealer.clock())?;
    Ok((layout::slot(slot.id), slot.encode().to_vec()))
}

/// The key ring of the next key version. It is to be written only if there is none of that name; then the rings are read
/// anew ([`Sealer::with_rings`]), by this host and by every other.
pub fn new_version(sealer: &Sealer) -> (KeyVersion, NewObject) {
    let version = KeyVersion(sealer.keyring().current().0.saturating_add(1));
    let ring = seal_ring(sealer.keyring().root(), sealer.repo(), version, &**sealer.clock());
    (version, (layout::ring(version), ring))
}
