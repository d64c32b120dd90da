//! What systemd is told of a daemon in the foreground (sd_notify(3), Type=notify). Where nobody asked to be told, nothing happens.

use sd_notify::NotifyState;
use std::path::Path;

/// The mount answers.
pub(super) fn ready(dir: &Path, source: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(&format!("{source} is mounted at {}", dir.display()))]);
}

/// It is going away; what was written is being stored.
pub(super) fn stopping(dir: &Path) {
    tell(&[NotifyState::Stopping, NotifyState::Status(&format!("storing what was written to {}", dir.display()))]);
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!("systemd could not be told: {error}");
    }
}
