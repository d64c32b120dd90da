//! Hash, compress, encrypt: from plaintext to sealed frames and back, and the keys that do it. docs/format.md says what
//! is derived from what.

pub mod compress;
pub mod derive;
pub mod error;
mod frame;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
pub mod keyring;
pub mod keys;
mod namer;
pub mod recovery;
pub mod sealer;
pub mod secret;
mod sha256_pair;
#[cfg(test)]
mod tests;
mod wrap;

pub use error::{KeyError, SealError};
pub use keyring::Keyring;
pub use sealer::Sealer;
pub use secret::Secret;
