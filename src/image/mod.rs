//! One open virtual disk: a stored image being read, an image being written, or a private overlay over a version.

pub mod draft;
#[cfg(test)]
mod draft_tests;
pub mod overlay;
mod overlay_bitmap;
mod overlay_disk;
mod overlay_error;
#[cfg(test)]
mod overlay_file_tests;
mod overlay_format;
mod overlay_free;
mod overlay_journal;
mod overlay_lock;
mod overlay_page;
#[cfg(test)]
mod overlay_simulation;
mod overlay_sync;
#[cfg(test)]
mod overlay_tests;
mod overlay_unfreed;
mod overlay_write;
pub mod ranges;
pub mod reader;
pub mod tree;

pub use draft::{DraftImage, IMAGE_MAX_BYTES, Settled};
pub use reader::ImageReader;
