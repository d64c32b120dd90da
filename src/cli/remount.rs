//! `mount -o remount`.

use crate::control::remount::{Change, changes};
use crate::fuse::mount::{self, MountError};
use crate::fuse::options::{Audience, MountOptions};
use crate::fuse::remount;
use crate::ops::OpsError;
use anyhow::Context as _;
use std::fs;
use std::path::Path;

/// Changes what can be changed of the mount at `dir`: flags of the mount and limits of bandwidth. Nothing changes when one thing
/// cannot.
///
/// # Errors
/// What cannot be changed, and why.
pub fn run(dir: &Path, options: &MountOptions, ours: &[String]) -> anyhow::Result<()> {
    let dir = mount::resolve(dir)?;
    let (entry, _) = mount::find(&dir)?.ok_or_else(|| MountError::NotMounted(dir.clone()))?;
    let status = dir.join("status");
    let changes = changes(&status.join("config"), ours)?;
    let refused = |what: &str, now: &str, then: &str| {
        OpsError::refused(format!(
            "{what} is {now} and cannot become {then} while it is mounted: unmount {dir} and mount it again",
            dir = dir.display()
        ))
    };
    if let Some(Change { name, now, then }) = changes.iter().find(|change| !change.is_possible()) {
        return Err(refused(name, if now.is_empty() { "not set" } else { now }, then).into());
    }
    if options.audience == Audience::Everyone && remount::audience(&entry) == Audience::Owner {
        return Err(refused("allow_other", "off", "on").into());
    }
    // First what may be refused, because somebody writes.
    remount::set_flags(&dir, options)?;
    // Limits are files, which can be written only while it is writable.
    match options.is_read_only() && !changes.is_empty() {
        true => remount::while_writable(&dir, options, || set_limits(&status, &changes))?,
        false => set_limits(&status, &changes),
    }
}

fn set_limits(status: &Path, changes: &[Change]) -> anyhow::Result<()> {
    for change in changes {
        let path = status.join(&change.name);
        fs::write(&path, format!("{}\n", change.then.trim_matches('"'))).with_context(|| path.display().to_string())?;
    }
    Ok(())
}
