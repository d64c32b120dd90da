//! How long versions are kept: pure functions of versions, rules and a moment. Nothing here reads a clock, a catalog or a target.
//!
//! * [`schedule`]: how often a name is to be backed up, and how many of these backups are kept;
//! * [`keep`]: rules that thin out what there is, `latest3,days30`;
//! * [`policy`]: which of these hold for which name;
//! * [`due`]: what a backup made now would be good for;
//! * [`sla`]: which promises are broken, and by how much;
//! * [`expired`]: what may go, and why the rest stays.
//!
//! Spans of hours and less are exact; days, weeks, months and years follow the calendar of the policy's time zone. So a daily backup
//! stays due at the same hour when the clocks change, and a month after January 31st is the last of February.

pub mod due;
pub mod expired;
pub mod interval;
pub mod keep;
#[cfg(test)]
mod keep_tests;
pub mod made;
pub mod policy;
pub mod schedule;
pub mod sla;

pub use interval::{Interval, Zone};
pub use keep::KeepRules;
pub use made::{Made, Standing};
pub use policy::{NameRule, Policy};
pub use schedule::Schedule;
