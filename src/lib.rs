//! backyfs: a filesystem for backups of disks.
//!
//! Copying an image into the mounted `incoming/` is the backup. Blocks are deduplicated, compressed, sealed and packed;
//! a version is a Merkle tree of block ids under one immutable record. Each module below imports only from those above it;
//! `tests/architecture.rs` holds them to it, docs/architecture.md explains them.

pub mod words;

pub mod format;

pub mod seal;
pub mod source;
pub mod target;

pub mod catalog;

pub mod repo;

pub mod image;

pub mod ops;

pub mod control;

pub mod fs;

pub mod fuse;

pub mod cli;
