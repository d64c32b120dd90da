//! The tree as the kernel sees it: inodes, handles, errors. Plain structs in and out.

pub mod errno;
pub mod filesystem;
mod follow;
pub mod incoming;
pub mod meters;
pub mod metrics;
pub mod nodes;
pub mod process;
pub mod process_watch;
pub mod promises;
pub mod seam;
mod seen;
pub mod sources;
pub mod trees;
mod watched;
