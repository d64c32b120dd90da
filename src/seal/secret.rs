//! What a person keeps to open a repository.

use crate::seal::KeyError;
use std::fmt;
use zeroize::Zeroizing;

/// A secret that opens key slots; wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// The bytes of a key file.
    KeyFile(Zeroizing<Vec<u8>>),
    /// A passphrase. One that parses as a recovery key opens the recovery slot too.
    Passphrase(Zeroizing<Vec<u8>>),
}

impl Secret {
    /// Fewest bytes of a key file: it is not stretched, so it must be random.
    pub const KEY_FILE_MIN_BYTES: usize = 32;

    /// The contents of a key file, used as they are.
    pub fn key_file(bytes: impl Into<Vec<u8>>) -> Self {
        Self::KeyFile(Zeroizing::new(bytes.into()))
    }

    /// A passphrase. One newline at the end, which editors leave in files, is not part of it.
    pub fn passphrase(bytes: impl Into<Vec<u8>>) -> Self {
        let mut bytes = Zeroizing::new(bytes.into());
        let end = [&b"\r\n"[..], b"\n"].into_iter().find(|end| bytes.ends_with(end)).unwrap_or_default();
        let len = bytes.len() - end.len();
        bytes.truncate(len);
        Self::Passphrase(bytes)
    }

    /// `key file` or `passphrase`.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::KeyFile(_) => "key file",
            Self::Passphrase(_) => "passphrase",
        }
    }

    /// Refuses what protects nothing.
    pub(super) fn check(&self) -> Result<(), KeyError> {
        let problem = match self {
            Self::KeyFile(bytes) if bytes.len() < Self::KEY_FILE_MIN_BYTES => "it has fewer than 32 bytes",
            Self::Passphrase(bytes) if bytes.is_empty() => "it is empty",
            _ => return Ok(()),
        };
        Err(KeyError::Weak { secret: self.word(), problem })
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({})", self.word())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_newline_is_not_part_of_a_passphrase() {
        for text in ["horse", "horse\n", "horse\r\n"] {
            assert_eq!(Secret::passphrase(text), Secret::passphrase("horse"));
        }
        for text in ["horse\n\n", "horse\r", " horse"] {
            assert_ne!(Secret::passphrase(text), Secret::passphrase("horse"));
        }
        assert!(!format!("{:?}", Secret::passphrase("horse")).contains("horse"));
    }

    #[test]
    fn secrets_that_protect_nothing_are_refused() {
        assert!(Secret::passphrase("\n").check().is_err());
        assert!(Secret::key_file([7; 31]).check().is_err());
        assert!(Secret::key_file([7; 32]).check().is_ok() && Secret::passphrase("x").check().is_ok());
    }
}
