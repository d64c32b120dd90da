//! One frame's way: [`Plain`] is compressed to [`Compressed`], which is encrypted to a frame; [`Sealed`] goes back.
//! Everything happens in the buffer that the frame ends up in.

use crate::format::frame::{Compression, FrameHeader, FrameKind, HEADER_LEN, NONCE_LEN, TAG_LEN, split};
use crate::seal::compress;
use crate::seal::derive::Key;
use crate::seal::error::SealError;
use crate::words::hex::hex;
use crate::words::ids::{KeyVersion, RepoId};
use chacha20poly1305::aead::inout::InOutBuf;
use chacha20poly1305::{AeadInOut, KeyInit, Tag, XChaCha20Poly1305, XNonce};

/// A cipher under one key.
pub(super) fn cipher(key: &Key) -> XChaCha20Poly1305 {
    XChaCha20Poly1305::new((&**key).into())
}

/// What an object is and where it belongs: what its ciphertext is bound to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub repo: RepoId,
    pub kind: FrameKind,
    pub id: [u8; 32],
}

/// Bytes to be sealed.
pub(super) struct Plain<'a> {
    pub place: Place,
    pub bytes: &'a [u8],
}

/// A frame in the making: at the end of `out` stand room for a header and the compressed bytes.
pub(super) struct Compressed<'o> {
    place: Place,
    compression: Compression,
    plain_len: u32,
    out: &'o mut Vec<u8>,
    start: usize,
}

impl Plain<'_> {
    /// Compresses into the end of `out`; not at all without a `level`.
    pub(super) fn compress<'o>(
        self,
        level: Option<i32>,
        limit: u32,
        out: &'o mut Vec<u8>,
    ) -> Result<Compressed<'o>, SealError> {
        let (place, found_bytes) = (self.place, self.bytes.len() as u64);
        let too_long = || SealError::TooLong { kind: place.kind, found_bytes, limit_bytes: limit.into() };
        let plain_len = u32::try_from(found_bytes).ok().filter(|len| *len <= limit).ok_or_else(too_long)?;
        let start = out.len();
        out.reserve(HEADER_LEN + self.bytes.len() + TAG_LEN);
        out.resize(start + HEADER_LEN, 0);
        let compression = match level.map(|level| compress::append(self.bytes, level, TAG_LEN, out)) {
            Some(compress::Compressed::Zstd) => Compression::Zstd,
            Some(compress::Compressed::Raw) => Compression::Raw,
            None => {
                out.extend_from_slice(self.bytes);
                Compression::Raw
            }
        };
        Ok(Compressed { place, compression, plain_len, out, start })
    }
}

impl Compressed<'_> {
    /// Encrypts in place and completes the frame. Returns its length.
    pub(super) fn seal(self, cipher: &XChaCha20Poly1305, key_version: KeyVersion, nonce: [u8; NONCE_LEN]) -> usize {
        let Self { place, compression, plain_len, out, start } = self;
        let payload = start + HEADER_LEN;
        let sealed_len =
            u32::try_from(out.len() - payload + TAG_LEN).expect("no longer than the plaintext, which fits");
        let header =
            FrameHeader { kind: place.kind, compression, key_version, plain_len, sealed_len, id: place.id, nonce };
        let tag = cipher
            .encrypt_inout_detached(&XNonce::from(nonce), &header.aad(&place.repo), InOutBuf::from(&mut out[payload..]))
            .expect("the cipher takes up to 256 GiB");
        out[start..payload].copy_from_slice(&header.encode());
        out.extend_from_slice(&tag);
        out.len() - start
    }
}

/// A frame that is intact as far as its header can tell, and is the one asked for.
pub(super) struct Sealed<'a> {
    place: Place,
    header: FrameHeader,
    ciphertext: &'a [u8],
    tag: Tag,
}

impl<'a> Sealed<'a> {
    /// Reads the header and compares it with what is expected there.
    pub(super) fn read(place: Place, limit: u32, frame: &'a [u8]) -> Result<Self, SealError> {
        let (header, sealed) = split(frame)?;
        let kind = place.kind;
        if header.kind != kind {
            return Err(SealError::Kind { expected: kind, found: header.kind });
        }
        if header.id != place.id {
            return Err(SealError::Id { kind, expected: hex(&place.id), found: hex(&header.id) });
        }
        if header.plain_len > limit {
            let found_bytes = header.plain_len.into();
            return Err(SealError::TooLong { kind, found_bytes, limit_bytes: limit.into() });
        }
        let (ciphertext, tag) = sealed.split_last_chunk::<TAG_LEN>().ok_or(SealError::Tag { kind })?;
        Ok(Self { place, header, ciphertext, tag: Tag::from(*tag) })
    }

    /// Which key version it was sealed under.
    pub(super) fn key_version(&self) -> KeyVersion {
        self.header.key_version
    }

    /// Decrypts and decompresses; `out` then holds the plaintext and nothing else, or nothing when this fails.
    pub(super) fn open(self, cipher: &XChaCha20Poly1305, out: &mut Vec<u8>) -> Result<(), SealError> {
        let result = self.open_unclean(cipher, out);
        if result.is_err() {
            out.clear();
        }
        result
    }

    fn open_unclean(self, cipher: &XChaCha20Poly1305, out: &mut Vec<u8>) -> Result<(), SealError> {
        let (kind, plain_len) = (self.place.kind, self.header.plain_len);
        match self.header.compression {
            Compression::Raw => {
                // Nothing is allocated for a frame that is not wholly there: raw, its length is that of its plaintext.
                out.resize(self.ciphertext.len(), 0);
                self.decrypt(cipher, out)
            }
            Compression::Zstd => compress::with_scratch(self.ciphertext.len(), |packed| {
                self.decrypt(cipher, packed)?;
                compress::restore(packed, plain_len as usize, out).map_err(|problem| SealError::Decompress {
                    kind,
                    expected_bytes: plain_len,
                    problem,
                })
            }),
        }
    }

    /// Checks the tag first; only then is anything written to `out`.
    fn decrypt(&self, cipher: &XChaCha20Poly1305, out: &mut [u8]) -> Result<(), SealError> {
        let error = SealError::Tag { kind: self.place.kind };
        let nonce = XNonce::from(self.header.nonce);
        let buffer = InOutBuf::new(self.ciphertext, out).map_err(|_| error.clone())?;
        let aad = self.header.aad(&self.place.repo);
        cipher.decrypt_inout_detached(&nonce, &aad, buffer, &self.tag).map_err(|_| error)
    }
}
