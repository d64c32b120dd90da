//! What sealing promises, tried from outside.

use super::fuzz::{self, FAST, clock, repository};
use super::keys::{self, Created};
use super::*;
use crate::format::FormatError;
use crate::format::frame::{self, FrameKind, HEADER_LEN, TAG_LEN};
use crate::format::layout::{self, Object};
use crate::format::slot::{Argon2Costs, SLOT_LEN};
use crate::words::geometry::BlockSize;
use crate::words::ids::{BlockId, KeyVersion};
use crate::words::record::BlockKind;
use proptest::prelude::*;

fn sealer() -> &'static Sealer {
    &repository().sealer
}

/// Slots and rings of a repository.
fn keys_of(created: &Created) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let of = |wanted: fn(&Object) -> bool| {
        let wanted = created.keys.iter().filter(move |(key, _)| wanted(&layout::parse(key).unwrap()));
        wanted.map(|(_, bytes)| bytes.clone()).collect()
    };
    (of(|object| matches!(object, Object::Slot(_))), of(|object| matches!(object, Object::Ring(_))))
}

fn unlock(created: &Created, secret: &Secret) -> Result<Sealer, KeyError> {
    let (slots, rings) = keys_of(created);
    keys::unlock(&created.header.1, &slots, &rings, secret, &clock(9))
}

fn plain(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i / 7 % 251) as u8).collect()
}

fn random(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    clock(5).random(&mut bytes);
    bytes
}

#[test]
fn blocks_come_back_appended_one_after_another() {
    let sealer = sealer();
    let mut out = b"pack".to_vec();
    let blocks = [plain(4096), random(4096), plain(BlockSize::MAX.bytes()), random(BlockSize::MAX.bytes()), vec![0; 9]];
    let mut frames = Vec::new();
    for block in &blocks {
        let (start, id) = (out.len(), sealer.data_id(block));
        let len = sealer.seal_block(BlockKind::Data, &id, block, 1, &mut out).unwrap();
        assert_eq!(out.len(), start + len);
        assert!(len <= HEADER_LEN + block.len() + TAG_LEN);
        frames.push((id, start..out.len()));
    }
    assert!(frames[2].1.len() < blocks[2].len() / 4 && frames[3].1.len() == blocks[3].len() + frame::OVERHEAD);
    let mut back = b"old".to_vec();
    for ((id, range), block) in frames.iter().zip(&blocks) {
        sealer.open_block_into(BlockKind::Data, id, &out[range.clone()], &mut back).unwrap();
        assert_eq!(&back, block);
        assert_eq!(sealer.data_id(&back), *id);
    }
}

#[test]
fn sealing_into_reserved_space_does_not_move_it() {
    let block = random(100_000);
    let mut out = Vec::with_capacity(block.len() + frame::OVERHEAD);
    let at = out.as_ptr();
    sealer().seal_block(BlockKind::Data, &BlockId::HOLE, &block, 1, &mut out).unwrap();
    assert_eq!((out.as_ptr(), out.len()), (at, out.capacity()));
}

#[test]
fn too_long_blocks_are_refused_and_leave_nothing() {
    let mut out = b"pack".to_vec();
    let long = vec![0; BlockSize::MAX.bytes() + 1];
    let sealed = sealer().seal_block(BlockKind::Data, &BlockId::HOLE, &long, 1, &mut out);
    assert!(matches!(sealed, Err(SealError::TooLong { found_bytes: 4_194_305, .. })));
    assert!(sealer().seal_block(BlockKind::Map, &BlockId::HOLE, &long[..32_777], 1, &mut out).is_err());
    assert_eq!(out, b"pack");
}

#[test]
fn ids_differ_by_kind_and_by_repository() {
    let other = keys::create(&FAST, &[], &clock(77)).unwrap().sealer;
    let ids = [sealer().data_id(b"x"), sealer().node_id(b"x"), other.data_id(b"x"), sealer().data_id(b"y")];
    for (i, a) in ids.iter().enumerate() {
        assert!(ids[i + 1..].iter().all(|b| a != b));
    }
}

#[test]
fn every_flipped_bit_of_a_frame_is_an_error() {
    let sealer = sealer();
    for bytes in [plain(300), random(40), Vec::new()] {
        let mut frame = sealer.seal_object(FrameKind::Version, [3; 32], &bytes);
        assert_eq!(sealer.open_object(FrameKind::Version, [3; 32], &frame).unwrap(), bytes);
        for bit in 0..frame.len() * 8 {
            frame[bit / 8] ^= 1 << (bit % 8);
            assert!(sealer.open_object(FrameKind::Version, [3; 32], &frame).is_err(), "bit {bit}");
            frame[bit / 8] ^= 1 << (bit % 8);
        }
    }
}

#[test]
fn every_flipped_bit_is_an_error_even_with_a_mended_checksum() {
    let sealer = sealer();
    let good = sealer.seal_object(FrameKind::Version, [3; 32], &plain(300));
    for bit in 0..76 * 8 {
        let mut frame = good.clone();
        frame[bit / 8] ^= 1 << (bit % 8);
        let crc = crc32c::crc32c(&frame[..76]).to_le_bytes();
        frame[76..80].copy_from_slice(&crc);
        // Asked for as what it now says it is.
        let id = frame[20..52].try_into().unwrap();
        let kind = FrameKind::from_number(frame[5]).unwrap_or(FrameKind::Version);
        assert!(sealer.open_object(kind, id, &frame).is_err(), "bit {bit}");
    }
}

#[test]
fn nothing_can_be_moved_to_another_place() {
    let sealer = sealer();
    let frame = sealer.seal_object(FrameKind::Ok, [3; 32], b"");
    let kind = sealer.open_object(FrameKind::Withdrawing, [3; 32], &frame);
    assert_eq!(kind, Err(SealError::Kind { expected: FrameKind::Withdrawing, found: FrameKind::Ok }));
    assert!(matches!(sealer.open_object(FrameKind::Ok, [4; 32], &frame), Err(SealError::Id { .. })));
    let cut = sealer.open_object(FrameKind::Ok, [3; 32], &frame[..frame.len() - 1]);
    assert!(matches!(cut, Err(SealError::Format(FormatError::Truncated { .. }))));
    let longer = sealer.open_object(FrameKind::Ok, [3; 32], &[&frame[..], b"x"].concat());
    assert!(matches!(longer, Err(SealError::Format(FormatError::Trailing { .. }))));
    let other = keys::create(&FAST, &[], &clock(77)).unwrap().sealer;
    assert_eq!(other.open_object(FrameKind::Ok, [3; 32], &frame), Err(SealError::Tag { kind: FrameKind::Ok }));
}

#[test]
fn every_secret_opens_and_others_do_not() {
    let secrets = [Secret::key_file(random(64)), Secret::passphrase("correct horse"), Secret::passphrase("second\n")];
    let created = keys::create(&FAST, &secrets, &clock(3)).unwrap();
    let frame = created.sealer.seal_object(FrameKind::Pin, [1; 32], b"hello");
    let typed = created.recovery.to_string().to_lowercase();
    for secret in secrets.iter().chain([&Secret::passphrase(typed.as_bytes())]) {
        let sealer = unlock(&created, secret).unwrap();
        assert_eq!(sealer.header(), created.sealer.header());
        assert_eq!(sealer.open_object(FrameKind::Pin, [1; 32], &frame).unwrap(), b"hello");
        assert_eq!(sealer.data_id(b"x"), created.sealer.data_id(b"x"));
    }
    let wrong = |secret, tried| {
        let error = unlock(&created, &secret).unwrap_err();
        assert_eq!(error, KeyError::WrongSecret { secret: secret.word(), tried, damaged: 0 });
        assert!(error.to_string().starts_with(&format!("wrong {}", secret.word())), "{error}");
    };
    wrong(Secret::key_file([9; 32]), 1);
    wrong(Secret::passphrase("incorrect horse"), 2);
    wrong(Secret::key_file(typed), 1);
    let other = keys::create(&FAST, &[], &clock(4)).unwrap().recovery;
    wrong(Secret::passphrase(other.to_string()), 3);
}

#[test]
fn a_missing_slot_is_told_from_a_wrong_secret() {
    let error = unlock(repository(), &Secret::passphrase("x")).unwrap_err();
    assert_eq!(error, KeyError::NoSlot { secret: "passphrase", damaged: 0 });
}

#[test]
fn weak_secrets_and_bad_settings_make_no_repository() {
    let weak = keys::create(&FAST, &[Secret::passphrase("")], &clock(3)).err();
    assert!(matches!(weak, Some(KeyError::Weak { .. })));
    let settings = keys::Settings { pack_size_bytes: 1, ..FAST };
    assert!(matches!(keys::create(&settings, &[], &clock(3)).err(), Some(KeyError::Settings(_))));
    let settings = keys::Settings { argon2: Argon2Costs { memory_kib: u32::MAX, passes: 1, lanes: 1 }, ..FAST };
    let costly = keys::create(&settings, &[Secret::passphrase("x")], &clock(3)).err();
    assert!(matches!(costly, Some(KeyError::Argon2(_))));
}

#[test]
fn every_flipped_bit_of_header_slot_or_ring_is_an_error() {
    let secret = Secret::key_file([7; 32]);
    let created = keys::create(&FAST, std::slice::from_ref(&secret), &clock(3)).unwrap();
    let (slots, rings) = keys_of(&created);
    let (header, slot, ring) = (&created.header.1, &slots[..1], &rings[..]);
    let unlock =
        |header: &[u8], slot: &[Vec<u8>], ring: &[Vec<u8>]| keys::unlock(header, slot, ring, &secret, &clock(9));
    assert!(unlock(header, slot, ring).is_ok());
    assert_eq!(slot[0].len(), SLOT_LEN);
    let flips = |bytes: &[u8]| {
        let bytes = bytes.to_vec();
        (0..bytes.len() * 8).map(move |bit| {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            flipped
        })
    };
    assert!(flips(header).all(|header| unlock(&header, slot, ring).is_err()));
    assert!(flips(&slot[0]).all(|slot| unlock(header, &[slot], ring).is_err()));
    assert!(flips(&ring[0]).all(|ring| unlock(header, slot, &[ring]).is_err()));
    // With its checksum mended the header is still not believed.
    for mut header in flips(header).take(160 * 8) {
        let crc = crc32c::crc32c(&header[..160]).to_le_bytes();
        header[160..164].copy_from_slice(&crc);
        assert!(unlock(&header, slot, ring).is_err());
    }
}

#[test]
fn a_tampered_header_is_told_from_a_wrong_secret() {
    let created = repository();
    let mut header = created.header.1.clone();
    header[44] ^= 2;
    let crc = crc32c::crc32c(&header[..160]).to_le_bytes();
    header[160..164].copy_from_slice(&crc);
    let (slots, rings) = keys_of(created);
    let error = keys::unlock(&header, &slots, &rings, &Secret::key_file([7; 32]), &clock(9)).unwrap_err();
    assert_eq!(error, KeyError::HeaderMac { repo: created.sealer.repo() });
}

#[test]
fn what_a_newer_backyfs_made_says_so() {
    let created = repository();
    let (mut slots, rings) = keys_of(created);
    let secret = Secret::key_file([7; 32]);
    let mut header = created.header.1.clone();
    header[8] = 3;
    let error = keys::unlock(&header, &slots, &rings, &secret, &clock(9)).unwrap_err();
    assert!(error.to_string().contains("made by a newer backyfs"), "{error}");
    slots[0][7] = b'2';
    let error = keys::unlock(&created.header.1, &slots, &rings, &secret, &clock(9)).unwrap_err();
    assert!(matches!(&error, KeyError::Slot(FormatError::Newer { .. })), "{error}");
    assert!(error.to_string().contains("made by a newer backyfs"), "{error}");
}

#[test]
fn after_a_new_key_version_both_are_read_and_ids_stay() {
    let created = repository();
    let old = &created.sealer;
    let (version, (key, ring)) = keys::new_version(old);
    assert_eq!((version, key.as_str()), (KeyVersion(2), "keys/ring-00000002"));
    let (_, mut rings) = keys_of(created);
    rings.push(ring);
    let new = old.with_rings(&rings).unwrap();
    assert_eq!((new.keyring().current(), new.keyring().versions().count()), (version, 2));
    assert_eq!(new.data_id(b"x"), old.data_id(b"x"));
    let (before, after) =
        (old.seal_object(FrameKind::Ok, [1; 32], b"a"), new.seal_object(FrameKind::Ok, [1; 32], b"a"));
    assert!(new.open_object(FrameKind::Ok, [1; 32], &before).is_ok());
    assert!(new.open_object(FrameKind::Ok, [1; 32], &after).is_ok());
    let unknown = old.open_object(FrameKind::Ok, [1; 32], &after);
    assert_eq!(unknown, Err(SealError::UnknownKey { kind: FrameKind::Ok, version }));
    // One damaged ring does not take the others along.
    rings[0][90] ^= 1;
    let damaged = old.with_rings(&rings).unwrap();
    assert_eq!(damaged.keyring().unreadable_rings().len(), 1);
    assert!(damaged.open_object(FrameKind::Ok, [1; 32], &after).is_ok());
    assert!(matches!(old.with_rings(&rings[..1]), Err(KeyError::NoRing { found: 1, .. })));
}

#[test]
fn slots_can_be_added() {
    let created = repository();
    let secret = Secret::passphrase("added");
    let (mut slots, rings) = keys_of(created);
    slots.push(keys::new_slot(&created.sealer, &secret, Argon2Costs::CHEAPEST).unwrap().1);
    let (recovery, slot) = keys::new_recovery_slot(&created.sealer).unwrap();
    slots.push(slot.1);
    for secret in [secret, Secret::passphrase(recovery.to_string())] {
        assert!(keys::unlock(&created.header.1, &slots, &rings, &secret, &clock(9)).is_ok());
    }
}

#[test]
fn secrets_are_not_printed() {
    let text = format!("{:?}{:?}{:?}", sealer(), repository().recovery, Secret::key_file([7; 32]));
    assert!(!text.contains("7, 7, 7") && text.len() < 600, "{text}");
}

#[test]
fn a_sealer_is_shared_by_threads() {
    let sealer = sealer();
    std::thread::scope(|scope| {
        for number in 0..4u8 {
            scope.spawn(move || {
                let block = vec![number; 5000];
                let (id, mut out) = (sealer.data_id(&block), Vec::new());
                sealer.seal_block(BlockKind::Data, &id, &block, 1, &mut out).unwrap();
                assert_eq!(sealer.open_block(BlockKind::Data, &id, &out).unwrap(), block);
            });
        }
    });
}

proptest! {
    #[test]
    fn objects_come_back(number in 1u8..=13, id in any::<[u8; 32]>(), plain in prop::collection::vec(0u8..9, 0..999)) {
        let kind = FrameKind::from_number(number).unwrap();
        let frame = sealer().seal_object(kind, id, &plain);
        prop_assert_eq!(sealer().open_object(kind, id, &frame), Ok(plain));
    }

    #[test]
    fn random_bytes_do_not_open(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        fuzz::BODIES.iter().for_each(|(_, body)| body(&bytes));
    }

    #[test]
    fn damaged_frames_do_not_open(len in 0usize..500, at in any::<prop::sample::Index>(), flip in 1u8.., mend: bool) {
        let mut frame = sealer().seal_object(FrameKind::Data, [3; 32], &plain(len));
        let at = at.index(frame.len());
        frame[at] ^= flip;
        if mend {
            let crc = crc32c::crc32c(&frame[..76]).to_le_bytes();
            frame[76..80].copy_from_slice(&crc);
        }
        // Damage of the checksum alone is mended whole.
        prop_assume!(!(mend && (76..80).contains(&at)));
        fuzz::open_frame(&frame);
        fuzz::unlock_anything(&frame);
    }

    #[test]
    fn damaged_keys_do_not_unlock(which in 0usize..3, at in any::<prop::sample::Index>(), flip in 1u8..) {
        let created = repository();
        let mut bytes = if which == 2 { created.header.1.clone() } else { created.keys[which].1.clone() };
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        fuzz::unlock_anything(&bytes);
    }
}
