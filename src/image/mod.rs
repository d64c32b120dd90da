//! One open virtual disk: a stored image being read, an image being written, or a private overlay over a version.

pub mod draft;
pub mod ranges;
pub mod reader;
pub mod tree;

pub use draft::{DraftImage, IMAGE_MAX_BYTES, Settled};
pub use reader::ImageReader;
