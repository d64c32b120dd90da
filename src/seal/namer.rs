//! Names blocks: HMAC-SHA-256 (RFC 2104) with the key already taken in, of one block or of two at once.

use crate::seal::derive::Key;
use crate::seal::sha256_pair::{BLOCK_LEN, State, compress_pair};
use crate::words::ids::BlockId;
use sha2::block_api::compress256;
use zeroize::Zeroizing;

/// What SHA-256 starts from (FIPS 180-4, section 5.3.3).
const INITIAL: State =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];
const INNER_PAD: u8 = 0x36;
const OUTER_PAD: u8 = 0x5c;

/// A key that has been taken into the states which the inner and the outer hash go on from; wiped when dropped.
#[derive(Clone)]
pub(super) struct Namer {
    inner: Zeroizing<State>,
    outer: Zeroizing<State>,
}

impl Namer {
    pub(super) fn new(key: &Key) -> Self {
        let padded = |pad: u8| {
            let mut block = Zeroizing::new([pad; BLOCK_LEN]);
            block.iter_mut().zip(key.iter()).for_each(|(byte, key)| *byte ^= key);
            let mut state = Zeroizing::new(INITIAL);
            compress256(&mut state, &[*block]);
            state
        };
        Self { inner: padded(INNER_PAD), outer: padded(OUTER_PAD) }
    }

    /// The id of a block.
    pub(super) fn name(&self, plain: &[u8]) -> BlockId {
        let (whole, rest) = plain.as_chunks();
        let mut state = *self.inner;
        compress256(&mut state, whole);
        self.finish(state, rest, plain.len())
    }

    /// The ids of two blocks, in little more time than that of one when they are of equal length.
    pub(super) fn name_pair(&self, plain: [&[u8]; 2]) -> [BlockId; 2] {
        if plain[0].len() != plain[1].len() {
            return plain.map(|plain| self.name(plain));
        }
        let [(first, first_rest), (second, second_rest)] = plain.map(<[u8]>::as_chunks);
        let mut states = [*self.inner; 2];
        compress_pair(&mut states, [first, second]);
        [self.finish(states[0], first_rest, plain[0].len()), self.finish(states[1], second_rest, plain[1].len())]
    }

    /// Takes in what is left of a message of `len` bytes, and the outer hash.
    fn finish(&self, mut inner: State, rest: &[u8], len: usize) -> BlockId {
        end_message(&mut inner, rest, len);
        let mut outer = *self.outer;
        end_message(&mut outer, &bytes_of(inner), 32);
        BlockId::from_bytes(bytes_of(outer))
    }
}

/// Takes in the last, partial block of a message of `len` bytes that follows one block of key, and its padding.
fn end_message(state: &mut State, rest: &[u8], len: usize) {
    let bits = (BLOCK_LEN as u64 + len as u64) * 8;
    let mut last = [[0; BLOCK_LEN]; 2];
    let flat = last.as_flattened_mut();
    flat[..rest.len()].copy_from_slice(rest);
    flat[rest.len()] = 0x80;
    let blocks = if rest.len() + 9 > BLOCK_LEN { 2 } else { 1 };
    flat[blocks * BLOCK_LEN - 8..blocks * BLOCK_LEN].copy_from_slice(&bits.to_be_bytes());
    compress256(state, &last[..blocks]);
}

fn bytes_of(state: State) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.as_chunks_mut::<4>().0.iter_mut().zip(state).for_each(|(bytes, word)| *bytes = word.to_be_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use hmac::{Hmac, KeyInit, Mac};
    use proptest::prelude::*;
    use sha2::Sha256;

    fn hmac(key: &[u8; 32], message: &[u8]) -> BlockId {
        let mac = Hmac::<Sha256>::new_from_slice(key).unwrap().chain_update(message);
        BlockId::from_bytes(mac.finalize().into_bytes().into())
    }

    proptest! {
        #[test]
        fn a_name_is_the_hmac(key in any::<[u8; 32]>(), first in proptest::collection::vec(any::<u8>(), 0..400), cut in 0..200_usize) {
            let namer = Namer::new(&Key::new(key));
            prop_assert_eq!(namer.name(&first), hmac(&key, &first));
            let other: Vec<u8> = first.iter().map(|byte| byte ^ 0x55).collect();
            let shorter = &other[..other.len().saturating_sub(cut)];
            for second in [&other[..], shorter] {
                prop_assert_eq!(namer.name_pair([&first, second]), [hmac(&key, &first), hmac(&key, second)]);
            }
        }
    }

    #[test]
    fn every_length_of_the_last_block() {
        let key = [7; 32];
        let namer = Namer::new(&Key::new(key));
        for len in 0..=3 * BLOCK_LEN {
            let message = vec![3; len];
            assert_eq!(namer.name(&message), hmac(&key, &message), "{len} bytes");
        }
    }
}
