//! The edge to the kernel: mounting, the daemon, and the translation of requests. Decides nothing about files.

mod adapter;
mod background;
mod convert;
pub mod daemon;
pub mod fstab;
pub mod ground;
mod holders;
mod invalidator;
pub mod mount;
pub mod mountinfo;
pub mod options;
pub mod pidfile;
pub mod remount;
mod reply;
pub mod umount;
mod utab;
mod workers;

pub use holders::Holders;
