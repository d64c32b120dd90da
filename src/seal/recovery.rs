//! The recovery key: shown once, written on paper, typed in when everything else is lost.

use crate::words::clock::Clock;
use sha2::{Digest, Sha256};
use std::fmt;
use zeroize::Zeroizing;

/// Random bytes of a recovery key: far beyond guessing, so it needs no stretching.
pub const RECOVERY_LEN: usize = 22;
const CHECK_LEN: usize = 3;
const LETTERS: usize = (RECOVERY_LEN + CHECK_LEN) * 8 / 5;
const GROUP: usize = 5;
/// Crockford's base 32: no letter looks like another.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const _: () = assert!(LETTERS == 40 && LETTERS.is_multiple_of(GROUP));

/// A recovery key; prints as eight groups of five letters. Wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct RecoveryKey(Zeroizing<[u8; RECOVERY_LEN]>);

impl RecoveryKey {
    /// A fresh one.
    pub fn generate(clock: &dyn Clock) -> Self {
        let mut bytes = Zeroizing::new([0; RECOVERY_LEN]);
        clock.random(&mut *bytes);
        Self(bytes)
    }

    /// The secret bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        &*self.0
    }

    /// Reads what a person typed: any case, `O` for `0`, `I` and `L` for `1`, spaces and hyphens anywhere. `None` when it is
    /// none or has a typing error.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let letters = text.iter().filter(|b| !b.is_ascii_whitespace() && **b != b'-');
        let mut bits = Zeroizing::new([0u8; RECOVERY_LEN + CHECK_LEN]);
        let mut count = 0;
        for letter in letters {
            let letter = match letter.to_ascii_uppercase() {
                b'O' => b'0',
                b'I' | b'L' => b'1',
                other => other,
            };
            let value = ALPHABET.iter().position(|&b| b == letter)? as u8;
            if count == LETTERS {
                return None;
            }
            for bit in 0..5 {
                let at = count * 5 + bit;
                bits[at / 8] |= (value >> (4 - bit) & 1) << (7 - at % 8);
            }
            count += 1;
        }
        let (secret, check) = bits.split_first_chunk()?;
        let key = Self(Zeroizing::new(*secret));
        (count == LETTERS && key.check() == check).then_some(key)
    }

    /// Notices typing errors; tells nothing useful about the key.
    fn check(&self) -> [u8; CHECK_LEN] {
        let digest = Sha256::new().chain_update("backyfs recovery key").chain_update(&self.0[..]).finalize();
        *digest.first_chunk().expect("a digest has 32 bytes")
    }
}

impl fmt::Display for RecoveryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = Zeroizing::new([&self.0[..], &self.check()].concat());
        for number in 0..LETTERS {
            if number > 0 && number % GROUP == 0 {
                f.write_str("-")?;
            }
            let value = (0..5)
                .map(|bit| number * 5 + bit)
                .fold(0, |value, at| value << 1 | usize::from(all[at / 8] >> (7 - at % 8) & 1));
            write!(f, "{}", char::from(ALPHABET[value]))?;
        }
        Ok(())
    }
}

impl fmt::Debug for RecoveryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RecoveryKey")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::clock::TestClock;
    use crate::words::stamp::Stamp;

    fn key(seed: u64) -> RecoveryKey {
        RecoveryKey::generate(&TestClock::new(Stamp::from_millis(0), seed))
    }

    #[test]
    fn it_can_be_typed_in_again() {
        for seed in 0..50 {
            let key = key(seed);
            let text = key.to_string();
            assert_eq!(text.len(), 40 + 7);
            assert_eq!(RecoveryKey::parse(text.as_bytes()), Some(key.clone()));
            let sloppy = text.to_lowercase().replace('-', " ").replace('0', "o").replace('1', "l");
            assert_eq!(RecoveryKey::parse(sloppy.as_bytes()), Some(key));
        }
    }

    #[test]
    fn typing_errors_are_noticed() {
        let text = key(1).to_string();
        for at in 0..text.len() {
            let mut wrong = text.clone().into_bytes();
            if wrong[at] != b'-' {
                wrong[at] = if wrong[at] == b'7' { b'8' } else { b'7' };
                assert_eq!(RecoveryKey::parse(&wrong), None, "letter {at}");
            }
        }
        for wrong in ["", "correct horse battery staple", &text[1..], &format!("{text}0")] {
            assert_eq!(RecoveryKey::parse(wrong.as_bytes()), None, "{wrong}");
        }
    }
}
