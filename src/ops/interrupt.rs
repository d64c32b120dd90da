//! Asking a long verb to stop at the next safe place.

use crate::ops::OpsError;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A flag that is raised once; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Shares a flag that something else raises, for example a signal handler.
    pub fn new(flag: Arc<AtomicBool>) -> Self {
        Self(flag)
    }

    /// Asks to stop.
    pub fn raise(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// # Errors
    /// [`OpsError::Interrupted`] once the flag is raised.
    pub fn check(&self) -> Result<(), OpsError> {
        if self.0.load(Ordering::Relaxed) { Err(OpsError::Interrupted) } else { Ok(()) }
    }
}
