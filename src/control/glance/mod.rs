//! The state of a repository at a glance: gathered once from the catalog, shown as metrics, as a page, and as text for people.
//!
//! [`Overview`] is what there is to say; [`overview::gather`] asks the catalog for it and nothing else, so a target that does not answer
//! keeps nobody from looking. The other files are pure: an overview in, a text out.

pub mod metrics;
pub mod openmetrics;
pub mod overview;
pub mod progress;
pub mod report;

pub use overview::{NameState, Overview, Sla, gather};
