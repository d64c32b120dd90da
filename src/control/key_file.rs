//! Files that hold a secret. They must be nobody else's business.

use crate::control::SetupError;
use crate::seal::Secret;
use crate::words::clock::Clock;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use zeroize::Zeroizing;

/// Random bytes of a new key file.
const KEY_BYTES: usize = 64;
/// A secret longer than this is something else, and is refused rather than cut.
const SECRET_MAX_BYTES: u64 = 1 << 20;

/// Reads a key file.
///
/// # Errors
/// When it is absent, unreadable, or readable by others.
pub fn read_key(path: &Path) -> Result<Secret, SetupError> {
    read(path).map(|bytes| Secret::key_file(bytes.to_vec()))
}

/// Reads a file with a passphrase.
///
/// # Errors
/// As [`read_key`].
pub fn read_passphrase(path: &Path) -> Result<Secret, SetupError> {
    read(path).map(|bytes| Secret::passphrase(bytes.to_vec()))
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, SetupError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => SetupError::NoSecret { path: path.to_owned() },
        _ => SetupError::Secret { path: path.to_owned(), source },
    };
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    // A pipe (`<(pass show backup)`) has no mode worth looking at.
    if metadata.is_file() && metadata.mode() & 0o077 != 0 {
        return Err(SetupError::Exposed { path: path.to_owned(), mode: metadata.mode() & 0o7777 });
    }
    // Room from the beginning: a vector that grows leaves copies of the secret behind.
    let room = metadata.len().clamp(4096, SECRET_MAX_BYTES) + 2;
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(room).unwrap_or(0)));
    file.take(SECRET_MAX_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > SECRET_MAX_BYTES {
        return Err(SetupError::NotASecret { path: path.to_owned() });
    }
    Ok(bytes)
}

/// Makes a key file of random bytes, durable and readable by its owner only. One that exists is never touched.
///
/// # Errors
/// When it exists or cannot be written.
pub fn create_key(path: &Path, clock: &dyn Clock) -> Result<Secret, SetupError> {
    let mut bytes = Zeroizing::new(vec![0; KEY_BYTES]);
    clock.random(&mut bytes);
    write_new(path, &bytes).map_err(|source| SetupError::Secret { path: path.to_owned(), source })?;
    Ok(Secret::key_file(bytes.to_vec()))
}

/// Writes a new file that only its owner can read, durably, making its directory when needed.
///
/// # Errors
/// When it exists or cannot be written.
pub fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => Path::new("/"),
    };
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::clock::SystemClock;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn keys_are_private_and_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/key");
        assert!(matches!(read_key(&path), Err(SetupError::NoSecret { .. })));
        let key = create_key(&path, &SystemClock).unwrap();
        assert_eq!(read_key(&path).unwrap(), key);
        assert!(create_key(&path, &SystemClock).is_err());
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let refused = read_key(&path).unwrap_err().to_string();
        assert!(refused.contains("chmod 600"), "{refused}");
    }

    #[test]
    fn what_is_too_long_for_a_secret_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk.img");
        write_new(&path, &vec![7; SECRET_MAX_BYTES as usize]).unwrap();
        assert!(read_key(&path).is_ok());
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"7").unwrap();
        assert!(matches!(read_passphrase(&path), Err(SetupError::NotASecret { .. })));
    }
}
