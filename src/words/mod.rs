//! The vocabulary every other layer speaks: identifiers, geometry, versions and their attributes, names,
//! the clock and the monitor. Pure types without I/O; nothing here imports from another layer.

pub mod attribute;
pub mod clock;
pub mod damage;
pub mod geometry;
pub mod hex;
pub mod histogram;
pub mod ids;
pub mod monitor;
pub mod mount_table;
pub mod name;
pub mod record;
pub mod stamp;
pub mod zero;
