//! A reader written from docs/format.md alone. It uses nothing of the crate, on purpose: what it can read, anybody can.

use argon2::{Algorithm, Argon2, Params, Version};
use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// Objects by name.
pub type Target = BTreeMap<String, Vec<u8>>;
type Key = [u8; 32];

/// What opens a slot.
pub enum Secret {
    KeyFile(Vec<u8>),
    Passphrase(String),
    Recovery(String),
}

/// The keys of a repository of one key version.
pub struct Keys {
    repo: [u8; 16],
    block_size: usize,
    pub root: Key,
    master: Key,
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn hkdf(secret: &[u8], salt: &[u8], info: &str) -> Key {
    let mut key = [0; 32];
    Hkdf::<Sha256>::new(Some(salt), secret).expand(info.as_bytes(), &mut key).unwrap();
    key
}

fn hmac(key: &Key, message: &[u8]) -> Key {
    let mac = <Hmac<Sha256> as hmac::KeyInit>::new_from_slice(key).unwrap();
    mac.chain_update(message).finalize().into_bytes().into()
}

fn decrypt(key: &Key, nonce: &[u8], aad: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
    let nonce = XNonce::from(<[u8; 24]>::try_from(nonce).unwrap());
    XChaCha20Poly1305::new(key.into()).decrypt(&nonce, Payload { msg: sealed, aad }).ok()
}

/// Section "Repository header", "Key slots", "Key rings".
pub fn unlock(target: &Target, secret: &Secret) -> Keys {
    let header = &target["backyfs.repository"];
    assert_eq!(&header[..8], b"backyfs\0");
    assert_eq!((u32_at(header, 8), u32_at(header, 12)), (2, 196));
    let repo: [u8; 16] = header[16..32].try_into().unwrap();
    assert_eq!(crc32c::crc32c(&header[..160]), u32_at(header, 160));

    let slots = target.iter().filter(|(name, _)| name.starts_with("keys/slot-"));
    let root: Key = slots.filter_map(|(_, slot)| open_slot(slot, secret)).next().expect("a slot that opens");
    assert_eq!(hmac(&hkdf(&root, &repo, "backyfs/1/header"), &header[..164]), header[164..]);

    let ring_key = hkdf(&root, &repo, "backyfs/1/seal/ring");
    let ring = open_frame(&ring_key, &repo, 13, [0; 32], &target["keys/ring-00000001"]);
    let master = ring[16..48].try_into().unwrap();
    Keys { repo, block_size: u32_at(header, 40) as usize, root, master }
}

fn open_slot(slot: &[u8], secret: &Secret) -> Option<Key> {
    assert_eq!(&slot[..8], b"bkySLOT1");
    assert_eq!(crc32c::crc32c(&slot[..168]), u32_at(slot, 168));
    let salt = &slot[64..96];
    let input = match (slot[40], secret) {
        (1, Secret::Passphrase(text)) => {
            let params = Params::new(u32_at(slot, 44), u32_at(slot, 48), u32_at(slot, 52), Some(32)).unwrap();
            let mut stretched = vec![0; 32];
            let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
            argon2.hash_password_into(text.as_bytes(), salt, &mut stretched).unwrap();
            stretched
        }
        (2, Secret::KeyFile(bytes)) => bytes.clone(),
        (3, Secret::Recovery(text)) => recovery_bytes(text),
        _ => return None,
    };
    let key = hkdf(&input, salt, "backyfs/1/slot");
    decrypt(&key, &slot[96..120], &slot[..96], &slot[120..168]).map(|root| root.try_into().unwrap())
}

/// Crockford's base 32 of 22 secret bytes and 3 check bytes.
fn recovery_bytes(text: &str) -> Vec<u8> {
    let alphabet = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    let values = text.chars().filter(|c| *c != '-').map(|c| alphabet.find(c).unwrap());
    let bits: Vec<_> = values.flat_map(|v| (0..5).rev().map(move |bit| v >> bit & 1)).collect();
    let mut bytes: Vec<_> =
        bits.chunks(8).map(|bits| bits.iter().fold(0, |byte, bit| byte << 1 | *bit as u8)).collect();
    let check = bytes.split_off(22);
    assert_eq!(Sha256::digest([b"backyfs recovery key", &bytes[..]].concat())[..3], check);
    bytes
}

/// Section "Sealed frame".
fn open_frame(key: &Key, repo: &[u8; 16], kind: u8, id: [u8; 32], frame: &[u8]) -> Vec<u8> {
    assert_eq!(&frame[..4], b"bkyF");
    assert_eq!((frame[4], frame[5], frame[7], u32_at(frame, 8)), (1, kind, 0, 1));
    assert_eq!(frame[20..52], id);
    assert_eq!(crc32c::crc32c(&frame[..76]), u32_at(frame, 76));
    assert_eq!(frame.len(), 80 + u32_at(frame, 16) as usize);
    let aad = [repo, &frame[..52]].concat();
    let packed = decrypt(key, &frame[52..76], &aad, &frame[80..]).expect("an authentic frame");
    let plain = match frame[6] {
        0 => packed,
        1 => zstd::decode_all(&packed[..]).unwrap(),
        other => panic!("compression {other}"),
    };
    assert_eq!(plain.len(), u32_at(frame, 12) as usize);
    plain
}

impl Keys {
    fn sealing(&self, purpose: &str) -> Key {
        hkdf(&self.master, &self.repo, &format!("backyfs/1/seal/{purpose}"))
    }

    fn object(&self, kind: u8, id: &[u8], bytes: &[u8]) -> Vec<u8> {
        let mut padded = [0; 32];
        padded[..id.len()].copy_from_slice(id);
        open_frame(&self.sealing("meta"), &self.repo, kind, padded, bytes)
    }

    /// Every derived key, by its name in the example.
    pub fn derived(&self) -> Vec<(&'static str, Key)> {
        let root = |info| hkdf(&self.root, &self.repo, info);
        vec![
            ("header key", root("backyfs/1/header")),
            ("ring key", root("backyfs/1/seal/ring")),
            ("data id key", root("backyfs/1/id/data")),
            ("map id key", root("backyfs/1/id/map")),
            ("master key", self.master),
            ("data key", self.sealing("data")),
            ("map key", self.sealing("map")),
            ("meta key", self.sealing("meta")),
        ]
    }

    /// Section "Packs": every block of every pack, by kind and id.
    fn blocks(&self, target: &Target) -> BTreeMap<(u8, Key), Vec<u8>> {
        let mut blocks = BTreeMap::new();
        for (name, pack) in target.iter().filter(|(name, _)| name.starts_with("packs/")) {
            let digest = Sha256::digest(pack).iter().map(|b| format!("{b:02x}")).collect::<String>();
            assert_eq!(*name, format!("packs/{}/{digest}", &digest[..2]));
            assert_eq!((&pack[..8], &pack[8..24]), (&b"bkyPACK1"[..], &self.repo[..]));
            let (kind, end) = (pack[24], pack.len() - 16);
            assert_eq!(&pack[end + 8..], b"bkyPEND1");
            let (at, len) = (u32_at(pack, end) as usize, u32_at(pack, end + 4) as usize);
            let footer = self.object(9, &[], &pack[at..at + len]);
            assert_eq!(footer.len(), 4 + 44 * u32_at(&footer, 0) as usize);
            for entry in footer[4..].chunks(44) {
                let id: Key = entry[..32].try_into().unwrap();
                let (at, len) = (u32_at(entry, 32) as usize, u32_at(entry, 36) as usize);
                let (seal, name) = if kind == 1 { ("data", "id/data") } else { ("map", "id/map") };
                let plain = open_frame(&self.sealing(seal), &self.repo, kind, id, &pack[at..at + len]);
                assert_eq!(hmac(&hkdf(&self.root, &self.repo, &format!("backyfs/1/{name}")), &plain), id);
                blocks.insert((kind, id), plain);
            }
        }
        blocks
    }
}

/// Sections "Records" and "Block map": the image of the only confirmed version, whose name must be `name`.
pub fn restore(target: &Target, keys: &Keys, name: &str) -> Vec<u8> {
    let (key, record) = target.iter().find(|(key, _)| key.starts_with("versions/")).expect("a version");
    let uid = &record[20..36];
    assert!(target.contains_key(&key.replace("versions/", "ok/")));
    let record = keys.object(3, uid, record);
    assert_eq!((record[0], record[1], &record[8..24]), (1, 1, uid));
    let image = &record[48..48 + 56];
    let (block_size, size) = (u32_at(image, 0) as usize, u64_at(image, 8));
    assert_eq!(block_size, keys.block_size);
    let name_at = 48 + 56 + 48 + 56 + 1;
    assert_eq!(u32_at(&record, name_at) as usize, name.len());
    assert_eq!(&record[name_at + 4..name_at + 4 + name.len()], name.as_bytes());

    let blocks = size.div_ceil(block_size as u64);
    let mut level = 0;
    while 1024u64.pow(level + 1) < blocks {
        level += 1;
    }
    let mut bytes = vec![0; blocks as usize * block_size];
    let stored = keys.blocks(target);
    fill(&stored, image[24..56].try_into().unwrap(), level as u8, &mut bytes, block_size);
    bytes.truncate(size as usize);
    bytes
}

fn fill(stored: &BTreeMap<(u8, Key), Vec<u8>>, id: Key, level: u8, out: &mut [u8], block_size: usize) {
    if id == [0; 32] {
        return;
    }
    let node = &stored[&(2, id)];
    assert_eq!((node[0], node.len()), (level, 8 + 32 * u32_at(node, 4) as usize));
    let span = block_size * 1024usize.pow(level.into());
    for (child, part) in node[8..].chunks(32).zip(out.chunks_mut(span)) {
        let child: Key = child.try_into().unwrap();
        match level {
            0 if child == [0; 32] => {}
            0 => part.copy_from_slice(&stored[&(1, child)]),
            _ => fill(stored, child, level - 1, part, block_size),
        }
    }
}
