//! zstd with one context per thread: making one costs more than compressing a small block.

use std::cell::RefCell;
use std::io::Cursor;
use zstd::bulk::{Compressor, Decompressor};

/// Longest scratch buffer that a thread keeps between calls.
const SCRATCH_KEPT_BYTES: usize = 8 << 20;

#[derive(Default)]
struct Contexts {
    compressor: Option<(i32, Compressor<'static>)>,
    decompressor: Option<Decompressor<'static>>,
    scratch: Vec<u8>,
}

thread_local! {
    static CONTEXTS: RefCell<Contexts> = RefCell::default();
}

/// What compressing did to the end of a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compressed {
    /// It did not pay; the plaintext was appended as it is.
    Raw,
    /// A zstd frame was appended.
    Zstd,
}

/// Appends `plain`, compressed if that saves at least a 32nd, else as it is. Writes into `out`'s spare capacity, which is
/// made large enough for the plaintext plus `room` bytes first, so nothing is copied or cleared on the way.
pub fn append(plain: &[u8], level: i32, room: usize, out: &mut Vec<u8>) -> Compressed {
    let start = out.len();
    out.reserve(plain.len() + room);
    let worth_it = plain.len() - plain.len() / 32;
    let packed = CONTEXTS.with_borrow_mut(|contexts| contexts.compress(plain, level, out));
    match packed {
        Some(len) if len < plain.len() && len <= worth_it => Compressed::Zstd,
        _ => {
            // Either it did not shrink enough, or zstd found the space too small for what it made of it.
            out.truncate(start);
            out.extend_from_slice(plain);
            Compressed::Raw
        }
    }
}

/// Replaces what `out` holds by the `plain_len` bytes that `packed` decompresses to. `out` may be left with anything when
/// that fails.
///
/// # Errors
/// What is wrong, as a sentence.
pub fn restore(packed: &[u8], plain_len: usize, out: &mut Vec<u8>) -> Result<(), String> {
    // Not cleared first: growing to a length it had before would zero all of it once more.
    out.resize(plain_len, 0);
    let written = CONTEXTS.with_borrow_mut(|contexts| contexts.decompress(packed, out))?;
    if written == plain_len { Ok(()) } else { Err(format!("it decompresses to {written} bytes")) }
}

/// Runs `work` on a scratch buffer of `len` bytes that the thread keeps; what is in it at first is anything.
pub fn with_scratch<T>(len: usize, work: impl FnOnce(&mut [u8]) -> T) -> T {
    // Taken out, not borrowed: `work` may compress or decompress on this thread.
    let mut scratch = CONTEXTS.with_borrow_mut(|contexts| std::mem::take(&mut contexts.scratch));
    if scratch.len() < len {
        scratch.resize(len, 0);
    }
    let result = work(&mut scratch[..len]);
    if scratch.len() <= SCRATCH_KEPT_BYTES {
        CONTEXTS.with_borrow_mut(|contexts| contexts.scratch = scratch);
    }
    result
}

impl Contexts {
    fn compress(&mut self, plain: &[u8], level: i32, out: &mut Vec<u8>) -> Option<usize> {
        let compressor = match &mut self.compressor {
            Some((current, compressor)) if *current == level => compressor,
            // zstd takes any level and uses the nearest it has.
            other => &mut other.insert((level, Compressor::new(level).ok()?)).1,
        };
        let start = out.len() as u64;
        let mut destination = Cursor::new(out);
        destination.set_position(start);
        compressor.compress_to_buffer(plain, &mut destination).ok()
    }

    fn decompress(&mut self, packed: &[u8], out: &mut [u8]) -> Result<usize, String> {
        let decompressor = match &mut self.decompressor {
            Some(decompressor) => decompressor,
            none => none.insert(Decompressor::new().map_err(|error| error.to_string())?),
        };
        decompressor.decompress_to_buffer(packed, out).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::clock::{Clock, TestClock};
    use crate::words::stamp::Stamp;

    #[test]
    fn what_shrinks_is_compressed_and_comes_back() {
        let plain = b"all work and no play ".repeat(1000);
        for level in [-5, 1, 3, 9] {
            let mut out = b"before".to_vec();
            assert_eq!(append(&plain, level, 16, &mut out), Compressed::Zstd);
            assert!(out.starts_with(b"before") && out.len() < plain.len() / 10);
            let mut back = vec![1; 7];
            restore(&out[6..], plain.len(), &mut back).unwrap();
            assert_eq!(back, plain);
            assert!(restore(&out[6..], plain.len() - 1, &mut back).is_err());
            assert!(restore(&out[6..], plain.len() + 1, &mut back).is_err());
            assert!(restore(&out[6..out.len() - 1], plain.len(), &mut back).is_err());
        }
    }

    #[test]
    fn what_hardly_shrinks_stays_raw() {
        let clock = TestClock::new(Stamp::from_millis(0), 1);
        let mut plain = vec![0; 100_000];
        // All random, then random but for a part a little smaller than a 32nd.
        for zeros in [0, 3000] {
            clock.random(&mut plain[zeros..]);
            plain[..zeros].fill(0);
            let mut out = Vec::new();
            assert_eq!(append(&plain, 3, 16, &mut out), Compressed::Raw);
            assert_eq!(out, plain);
        }
        let mut out = Vec::new();
        assert_eq!(append(&[], 3, 0, &mut out), Compressed::Raw);
        assert_eq!(append(&[7], 3, 0, &mut out), Compressed::Raw);
        assert_eq!(out, [7]);
    }

    #[test]
    fn scratch_may_be_used_while_in_use() {
        let nested = with_scratch(10, |outer| {
            outer.fill(1);
            with_scratch(20, |inner| inner.fill(2));
            outer.to_vec()
        });
        assert_eq!(nested, [1; 10]);
        assert_eq!(with_scratch(SCRATCH_KEPT_BYTES + 1, |scratch| scratch.len()), SCRATCH_KEPT_BYTES + 1);
    }
}
