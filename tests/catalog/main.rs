//! The catalog against a model, across processes, while it grows, and on a full disk.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod growth;
mod listing;
mod model;
mod rules;
mod samples;
mod shared;
mod speed;
