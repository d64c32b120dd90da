//! What can be done to a repository: one verb, one file. What destroys is planned first, then executed.

pub mod commit;
#[cfg(test)]
mod crash_tests;
pub mod overlays;
pub mod remove;
