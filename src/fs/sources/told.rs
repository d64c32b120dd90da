//! Why something could not be done, for the log; callers get a number only.

use crate::fs::errno::Errno;
use crate::ops::OpsError;

/// Logs why something could not be done, and answers its number.
pub(super) fn told(what: &str, source: &str, path: &str, error: &OpsError) -> Errno {
    tracing::error!("{what} sources/{source}/{path}: {error}");
    Errno::from(error)
}
