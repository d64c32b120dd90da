//! Little-endian reading and writing. The reader checks every length against the bytes that are left.

use crate::format::FormatError;
use std::fmt::Display;

/// Walks over bytes.
pub(super) struct Reader<'a> {
    what: &'static str,
    all: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Starts at the first byte of an object of kind `what`.
    pub(super) fn new(what: &'static str, all: &'a [u8]) -> Self {
        Self { what, all, at: 0 }
    }

    /// The next `len` bytes.
    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8], FormatError> {
        let truncated = FormatError::Truncated {
            what: self.what,
            needed_bytes: (self.at as u64).saturating_add(len as u64),
            found_bytes: self.all.len() as u64,
        };
        let rest = self.all.get(self.at..).unwrap_or_default();
        let taken = rest.get(..len).ok_or(truncated)?;
        self.at += len;
        Ok(taken)
    }

    /// The next `N` bytes.
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        Ok(self.take(N)?.try_into().expect("take returned N bytes"))
    }

    pub(super) fn u8(&mut self) -> Result<u8, FormatError> {
        self.array().map(|[byte]: [u8; 1]| byte)
    }

    pub(super) fn u32(&mut self) -> Result<u32, FormatError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, FormatError> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn i32(&mut self) -> Result<i32, FormatError> {
        self.array().map(i32::from_le_bytes)
    }

    pub(super) fn i64(&mut self) -> Result<i64, FormatError> {
        self.array().map(i64::from_le_bytes)
    }

    /// A byte that is 0 or 1.
    pub(super) fn flag(&mut self, field: &'static str) -> Result<bool, FormatError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(self.field(field, other, "it must be 0 or 1")),
        }
    }

    /// Padding, which must be zero so that every object has one encoding only.
    pub(super) fn zeros(&mut self, len: usize) -> Result<(), FormatError> {
        match self.take(len)?.iter().find(|&&byte| byte != 0) {
            Some(byte) => Err(self.field("padding", byte, "it must be zero")),
            None => Ok(()),
        }
    }

    /// A u32 length and that many bytes of UTF-8.
    pub(super) fn text(&mut self, field: &'static str) -> Result<&'a str, FormatError> {
        let len = self.u32()? as usize;
        let bytes = self.take(len)?;
        std::str::from_utf8(bytes).map_err(|error| self.field(field, error, "it must be UTF-8"))
    }

    /// A u32 count of items of at least `item_len` bytes each, that many of which must still be there.
    pub(super) fn count(&mut self, item_len: usize) -> Result<usize, FormatError> {
        let count = self.u32()?;
        let needed_bytes = (self.at as u64).saturating_add(u64::from(count).saturating_mul(item_len as u64));
        let found_bytes = self.all.len() as u64;
        if needed_bytes > found_bytes {
            return Err(FormatError::Truncated { what: self.what, needed_bytes, found_bytes });
        }
        Ok(count as usize)
    }

    /// Nothing may be left.
    pub(super) fn end(&self) -> Result<(), FormatError> {
        match self.all.len() - self.at {
            0 => Ok(()),
            left => Err(FormatError::Trailing { what: self.what, extra_bytes: left as u64 }),
        }
    }

    /// An error about a field.
    pub(super) fn field(&self, field: &'static str, value: impl Display, problem: &'static str) -> FormatError {
        FormatError::Field { what: self.what, field, value: value.to_string(), problem }
    }

    /// Reads the layout byte that begins every sealed payload.
    pub(super) fn layout(&mut self, supported: u8) -> Result<(), FormatError> {
        match self.u8()? {
            0 => Err(self.field("layout", 0, "layouts are numbered from 1")),
            version if version > supported => {
                Err(FormatError::Newer { what: self.what, version: version.into(), supported: supported.into() })
            }
            _ => Ok(()),
        }
    }
}

/// Collects bytes.
#[derive(Default)]
pub(super) struct Writer(Vec<u8>);

impl Writer {
    pub(super) fn with_capacity(len: usize) -> Self {
        Self(Vec::with_capacity(len))
    }

    pub(super) fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(super) fn u8(&mut self, value: u8) -> &mut Self {
        self.raw(&[value])
    }

    pub(super) fn u32(&mut self, value: u32) -> &mut Self {
        self.raw(&value.to_le_bytes())
    }

    pub(super) fn u64(&mut self, value: u64) -> &mut Self {
        self.raw(&value.to_le_bytes())
    }

    pub(super) fn i32(&mut self, value: i32) -> &mut Self {
        self.raw(&value.to_le_bytes())
    }

    pub(super) fn i64(&mut self, value: i64) -> &mut Self {
        self.raw(&value.to_le_bytes())
    }

    pub(super) fn zeros(&mut self, len: usize) -> &mut Self {
        self.0.resize(self.0.len() + len, 0);
        self
    }

    pub(super) fn text(&mut self, text: &str) -> &mut Self {
        self.len(text.len()).raw(text.as_bytes())
    }

    /// A length or a count as u32.
    pub(super) fn len(&mut self, len: usize) -> &mut Self {
        self.u32(u32::try_from(len).expect("objects are far smaller than 4 GiB"))
    }

    pub(super) fn written(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn finish(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.0)
    }
}
