//! Is a piece of memory all zero?

/// One page of zeros. It stays in the first-level cache, so comparing with it reads memory once.
static ZEROS: [u8; 4096] = [0; 4096];

/// Whether every byte is zero. Stops at the first page that is not; the comparison is the C library's `memcmp`, so it is as
/// fast in unoptimised builds.
pub fn is_zero(bytes: &[u8]) -> bool {
    bytes.chunks(ZEROS.len()).all(|page| page == &ZEROS[..page.len()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_a_single_bit_anywhere() {
        assert!(is_zero(&[]));
        let mut bytes = vec![0; 3 * 4096 + 17];
        assert!(is_zero(&bytes));
        for at in 0..bytes.len() {
            bytes[at] = 1 << (at % 8);
            assert!(!is_zero(&bytes), "byte {at}");
            bytes[at] = 0;
        }
    }
}
