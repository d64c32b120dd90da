//! What can be done to a repository: one verb, one file. What destroys is planned first, then executed.

pub mod automatic;
pub mod backup;
pub mod base;
#[cfg(test)]
mod cache_tests;
pub mod commit;
pub mod compare;
#[cfg(test)]
mod crash_tests;
pub mod discard;
pub mod due;
pub mod error;
#[cfg(test)]
mod flaky_tests;
pub mod gc;
#[cfg(test)]
mod hosts_tests;
mod interrupt;
pub mod label;
pub mod listing;
#[cfg(test)]
mod matrix_tests;
#[cfg(test)]
mod meddler_tests;
pub mod migrate;
pub mod overlays;
pub mod prune;
pub mod pull;
#[cfg(test)]
mod pull_tests;
pub mod reading;
pub mod rebuild;
pub mod remove;
pub mod repair;
#[cfg(test)]
mod request_tests;
pub mod restore;
pub mod retain;
pub mod sample;
pub mod scrub;
pub mod sla;
pub mod snapshots;
#[cfg(test)]
mod start_tests;
pub mod statistics;
pub mod status;
pub mod transfer;
pub mod unchanged;
pub mod unfinished;
pub mod usage;
mod visited;
pub mod walk;

pub use error::{Failure, OpsError};
pub use interrupt::Interrupt;
