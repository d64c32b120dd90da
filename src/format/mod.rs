//! Bytes to types and back. Everything here is pure; docs/format.md has the tables.
//!
//! No decoder panics and none trusts a length: it is compared with the bytes at hand before anything is allocated, and every
//! input that decodes encodes back to the same bytes.

pub mod attribute;
mod bytes;
pub mod condemned;
pub mod damage;
pub mod error;
pub mod fragment;
pub mod frame;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
pub mod layout;
pub mod node;
pub mod pack;
pub mod record;
pub mod removed;
pub mod repository;
pub mod ring;
#[cfg(test)]
mod samples;
pub mod slot;

pub use error::FormatError;
