//! What can be done to a repository: one verb, one file. What destroys is planned first, then executed.

pub mod backup;
pub mod commit;
pub mod compare;
#[cfg(test)]
mod crash_tests;
pub mod destination;
pub mod error;
mod interrupt;
pub mod label;
pub mod listing;
pub mod overlays;
mod page_cache;
pub mod rebuild;
pub mod remove;
pub mod restore;
pub mod scrub;
pub mod source;
pub mod status;
pub mod transfer;
pub mod usage;
pub mod walk;

pub use error::{Failure, OpsError};
pub use interrupt::Interrupt;
