//! SHA-256 of two messages at once. The instructions of one message wait for one another four cycles at a time while the unit
//! that runs them could begin a new one every two; a second message fills the gaps, so two take little longer than one.
//! docs/decisions/0011-two-hashes-at-once.md has the figures. Elsewhere, and on other processors, sha2 does the work.

use sha2::block_api::compress256;

/// Bytes that SHA-256 takes at a time.
pub(super) const BLOCK_LEN: usize = 64;

/// A chaining value: eight words, as FIPS 180-4 names them a to h.
pub(super) type State = [u32; 8];

/// Takes equally many blocks into each of two states.
///
/// # Panics
/// When the numbers of blocks differ.
pub(super) fn compress_pair(states: &mut [State; 2], blocks: [&[[u8; BLOCK_LEN]]; 2]) {
    assert_eq!(blocks[0].len(), blocks[1].len(), "a pair is of equal length");
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("sha") && is_x86_feature_detected!("sse4.1") && is_x86_feature_detected!("ssse3") {
        // SAFETY: the processor has just said that it knows these instructions.
        unsafe { x86::compress_pair(states, blocks) };
        return;
    }
    for (state, blocks) in states.iter_mut().zip(blocks) {
        compress256(state, blocks);
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{BLOCK_LEN, State};
    use std::arch::x86_64::{
        __m128i, _mm_add_epi32, _mm_alignr_epi8, _mm_blend_epi16, _mm_loadu_si128, _mm_set_epi64x,
        _mm_sha256msg1_epu32, _mm_sha256msg2_epu32, _mm_sha256rnds2_epu32, _mm_shuffle_epi8, _mm_shuffle_epi32,
        _mm_storeu_si128,
    };

    /// The round constants of FIPS 180-4, section 4.2.2, four to a register.
    #[repr(align(16))]
    struct Constants([u32; 64]);

    #[rustfmt::skip]
    static K: Constants = Constants([
        0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5, 0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5,
        0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3, 0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174,
        0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc, 0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da,
        0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7, 0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967,
        0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13, 0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85,
        0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3, 0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070,
        0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5, 0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3,
        0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208, 0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2,
    ]);

    /// A chaining value in the order the instructions want.
    #[derive(Clone, Copy)]
    struct Lane {
        abef: __m128i,
        cdgh: __m128i,
    }

    #[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
    fn load(state: &State) -> Lane {
        // SAFETY: both halves lie within the state; the loads ask for no alignment.
        let (dcba, hgfe) =
            unsafe { (_mm_loadu_si128(state.as_ptr().cast()), _mm_loadu_si128(state.as_ptr().add(4).cast())) };
        let cdab = _mm_shuffle_epi32(dcba, 0xB1);
        let efgh = _mm_shuffle_epi32(hgfe, 0x1B);
        Lane { abef: _mm_alignr_epi8(cdab, efgh, 8), cdgh: _mm_blend_epi16(efgh, cdab, 0xF0) }
    }

    #[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
    fn store(lane: Lane, state: &mut State) {
        let feba = _mm_shuffle_epi32(lane.abef, 0x1B);
        let dchg = _mm_shuffle_epi32(lane.cdgh, 0xB1);
        // SAFETY: both halves lie within the state; the stores ask for no alignment.
        unsafe {
            _mm_storeu_si128(state.as_mut_ptr().cast(), _mm_blend_epi16(feba, dchg, 0xF0));
            _mm_storeu_si128(state.as_mut_ptr().add(4).cast(), _mm_alignr_epi8(dchg, feba, 8));
        }
    }

    /// Words 4 * `index` to 4 * `index` + 3 of a block.
    #[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
    fn words(block: &[u8; BLOCK_LEN], index: usize) -> __m128i {
        let big_endian = _mm_set_epi64x(0x0c0d_0e0f_0809_0a0b, 0x0405_0607_0001_0203);
        let quarter = &block[16 * index..16 * index + 16];
        // SAFETY: the quarter is 16 bytes long; the load asks for no alignment.
        _mm_shuffle_epi8(unsafe { _mm_loadu_si128(quarter.as_ptr().cast()) }, big_endian)
    }

    /// Four rounds with the words `w`.
    #[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
    fn rounds(lane: &mut Lane, w: __m128i, k: __m128i) {
        let wk = _mm_add_epi32(w, k);
        lane.cdgh = _mm_sha256rnds2_epu32(lane.cdgh, lane.abef, wk);
        lane.abef = _mm_sha256rnds2_epu32(lane.abef, lane.cdgh, _mm_shuffle_epi32(wk, 0x0E));
    }

    /// The four words that follow the sixteen in `w`, of which the oldest are in `w[0]`.
    #[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
    fn next_words(w: [__m128i; 4]) -> __m128i {
        let sum = _mm_add_epi32(_mm_sha256msg1_epu32(w[0], w[1]), _mm_alignr_epi8(w[3], w[2], 4));
        _mm_sha256msg2_epu32(sum, w[3])
    }

    #[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
    pub(super) fn compress_pair(states: &mut [State; 2], blocks: [&[[u8; BLOCK_LEN]]; 2]) {
        let mut a = load(&states[0]);
        let mut b = load(&states[1]);
        // SAFETY: 16 aligned groups of four words each are in the table.
        let k = |group: usize| unsafe { _mm_loadu_si128(K.0[4 * group..4 * group + 4].as_ptr().cast()) };
        for (block_a, block_b) in blocks[0].iter().zip(blocks[1]) {
            let (start_a, start_b) = (a, b);
            let mut w_a = [words(block_a, 0), words(block_a, 1), words(block_a, 2), words(block_a, 3)];
            let mut w_b = [words(block_b, 0), words(block_b, 1), words(block_b, 2), words(block_b, 3)];
            // The window of sixteen words turns instead of moving: group g is in place g modulo 4.
            macro_rules! turn {
                ($group:expr) => {
                    rounds(&mut a, w_a[$group % 4], k($group));
                    rounds(&mut b, w_b[$group % 4], k($group));
                };
            }
            macro_rules! extend_and_turn {
                ($group:expr) => {
                    w_a[$group % 4] = next_words([
                        w_a[$group % 4],
                        w_a[($group + 1) % 4],
                        w_a[($group + 2) % 4],
                        w_a[($group + 3) % 4],
                    ]);
                    w_b[$group % 4] = next_words([
                        w_b[$group % 4],
                        w_b[($group + 1) % 4],
                        w_b[($group + 2) % 4],
                        w_b[($group + 3) % 4],
                    ]);
                    turn!($group);
                };
            }
            turn!(0);
            turn!(1);
            turn!(2);
            turn!(3);
            extend_and_turn!(4);
            extend_and_turn!(5);
            extend_and_turn!(6);
            extend_and_turn!(7);
            extend_and_turn!(8);
            extend_and_turn!(9);
            extend_and_turn!(10);
            extend_and_turn!(11);
            extend_and_turn!(12);
            extend_and_turn!(13);
            extend_and_turn!(14);
            extend_and_turn!(15);
            a = Lane { abef: _mm_add_epi32(a.abef, start_a.abef), cdgh: _mm_add_epi32(a.cdgh, start_a.cdgh) };
            b = Lane { abef: _mm_add_epi32(b.abef, start_b.abef), cdgh: _mm_add_epi32(b.cdgh, start_b.cdgh) };
        }
        store(a, &mut states[0]);
        store(b, &mut states[1]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_does_what_sha2_does(
            states in any::<[[u32; 8]; 2]>(),
            blocks in proptest::collection::vec((any::<[u8; 32]>(), any::<[u8; 32]>()), 0..20),
        ) {
            let fill = |half: &[u8; 32], salt: u8| -> [u8; BLOCK_LEN] {
                std::array::from_fn(|i| half[i % 32] ^ (i as u8).wrapping_mul(salt))
            };
            let first: Vec<_> = blocks.iter().map(|(one, _)| fill(one, 7)).collect();
            let second: Vec<_> = blocks.iter().map(|(_, other)| fill(other, 13)).collect();
            let mut pair = states;
            compress_pair(&mut pair, [&first, &second]);
            let mut single = states;
            compress256(&mut single[0], &first);
            compress256(&mut single[1], &second);
            prop_assert_eq!(pair, single);
        }
    }
}
