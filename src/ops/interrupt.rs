//! Asking a long verb to stop at the next safe place.

use crate::ops::OpsError;
use std::sync::atomic::{AtomicBool, Ordering};

/// A flag that is raised once, for example by a signal.
#[derive(Debug, Clone, Copy)]
pub struct Interrupt(&'static AtomicBool);

impl Interrupt {
    /// One that nobody raises.
    pub fn never() -> Self {
        static NEVER: AtomicBool = AtomicBool::new(false);
        Self(&NEVER)
    }

    /// Watches a flag that something else raises.
    pub fn new(flag: &'static AtomicBool) -> Self {
        Self(flag)
    }

    /// # Errors
    /// [`OpsError::Interrupted`] once the flag is raised.
    pub fn check(&self) -> Result<(), OpsError> {
        if self.0.load(Ordering::Relaxed) { Err(OpsError::Interrupted) } else { Ok(()) }
    }
}
