//! The payload of a key ring: the master key of one key version.

use crate::format::FormatError;
use crate::format::bytes::{Reader, Writer};
use crate::words::stamp::Stamp;
use zeroize::Zeroizing;

const WHAT: &str = "key ring";
const LAYOUT: u8 = 1;

/// What a key ring holds.
#[derive(Clone)]
pub struct Ring {
    /// When the key version was made, for people.
    pub created: Stamp,
    /// The master key.
    pub master: Zeroizing<[u8; 32]>,
}

impl Ring {
    /// Encodes it.
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        let mut writer = Writer::with_capacity(48);
        Zeroizing::new(writer.u8(LAYOUT).zeros(7).i64(self.created.millis()).raw(&*self.master).finish())
    }

    /// Decodes one.
    ///
    /// # Errors
    /// When it is damaged or of a newer layout.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(WHAT, bytes);
        reader.layout(LAYOUT)?;
        reader.zeros(7)?;
        let ring = Self { created: Stamp::from_millis(reader.i64()?), master: Zeroizing::new(reader.array()?) };
        reader.end()?;
        Ok(ring)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rings_come_back() {
        let ring = Ring { created: Stamp::from_millis(-5), master: Zeroizing::new([7; 32]) };
        let back = Ring::decode(&ring.encode()).unwrap();
        assert_eq!((back.created, back.master), (ring.created, ring.master));
    }
}
