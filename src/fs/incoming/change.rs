//! chmod, chown, utimes and truncate.

use crate::fs::errno::Errno;
use crate::fs::incoming::Incoming;
use crate::fs::incoming::commit::Purpose;
use crate::fs::incoming::file::File;
use crate::fs::incoming::table::MadeDir;
use crate::fs::process;
use crate::fs::seam::{Answer, Caller, Fh, SetAttr, SetTime};
use crate::image::IMAGE_MAX_BYTES;
use crate::words::attribute::{AttributeChange, FileAttributes, Mtime};
use std::sync::Arc;

impl Incoming {
    /// Changes a file. A size is a change of content; the rest are attributes of the draft, else of the newest version.
    pub fn setattr(&self, caller: Caller, number: u64, change: &SetAttr) -> Answer<()> {
        let file = self.by_number(number)?;
        if let Some(size) = change.size {
            self.set_size(caller, &file, size, change.fh)?;
        }
        self.set_attributes(&file, change)
    }

    /// Changes a directory; it is remembered until the unmount.
    pub fn setattr_dir(&self, path: &str, change: &SetAttr) -> Answer<()> {
        if change.size.is_some() {
            return Err(Errno::EISDIR);
        }
        let fallback = MadeDir { mode: 0o755, uid: self.options.uid, gid: self.options.gid };
        let mut table = self.table.lock();
        if path.is_empty() {
            return Ok(());
        }
        let dir = table.dirs.entry(path.to_owned()).or_insert(fallback);
        dir.mode = change.mode.map_or(dir.mode, |mode| mode & 0o7777);
        (dir.uid, dir.gid) = (change.uid.unwrap_or(dir.uid), change.gid.unwrap_or(dir.gid));
        Ok(())
    }

    /// Through a handle it joins the draft; by path it commits at once, unless a writer is at work.
    fn set_size(&self, caller: Caller, file: &Arc<File>, size: u64, fh: Option<Fh>) -> Answer<()> {
        if size > IMAGE_MAX_BYTES {
            return Err(Errno::EFBIG);
        }
        let mut state = file.state.lock();
        let name = state.name.clone();
        let before = {
            // Asking for the present size of what is whole is no change, and begins nothing.
            self.drop_stale_work(&mut state)?;
            let work = self.begin_work(&mut state)?;
            if let Some(error) = work.error {
                return Err(error);
            }
            work.image.size_bytes()
        };
        drop(state);
        if size != before {
            self.modify(file, caller, fh, |image, _| {
                image.truncate(size)?;
                // Zeros behind the end are no continuation, and what was cut off is looked at below.
                Ok(None)
            })?;
        }
        let mut state = file.state.lock();
        if let Some(work) = &mut state.work
            && work.broken.as_ref().is_some_and(|broken| size <= broken.at || (size == before && fh.is_none()))
        {
            tracing::info!("{name}: whole again, because it was truncated to {size} bytes");
            work.broken = None;
            work.said += 1;
        }
        let joins = fh.is_some() || state.active_writer(None).is_some();
        drop(state);
        if !joins {
            let process = process::identify(caller.pid);
            self.commit(file, Purpose::Publish(process))?;
            self.put_away(file);
        }
        Ok(())
    }

    fn set_attributes(&self, file: &Arc<File>, change: &SetAttr) -> Answer<()> {
        let now = self.repo.clock().now();
        let mtime = change.mtime.map(|time| match time {
            SetTime::Set(mtime) => mtime,
            SetTime::Now => Mtime::from(now),
        });
        if change.mode.is_none() && change.uid.is_none() && change.gid.is_none() && mtime.is_none() {
            return Ok(());
        }
        let apply = |attributes: &mut FileAttributes| {
            attributes.mode = change.mode.map_or(attributes.mode, |mode| mode & 0o7777);
            attributes.uid = change.uid.unwrap_or(attributes.uid);
            attributes.gid = change.gid.unwrap_or(attributes.gid);
            attributes.mtime = mtime.unwrap_or(attributes.mtime);
        };
        let mut state = file.state.lock();
        if state.work.is_none() && self.repo.shown_draft(&state.name)?.is_some() {
            self.begin_work(&mut state)?;
        }
        if let Some(work) = state.work.as_mut() {
            apply(&mut work.attributes);
            work.mtime_set = mtime.is_some();
            if work.is_draft() {
                return Ok(());
            }
        }
        let name = state.name.clone();
        drop(state);
        let Some(newest) = self.newest(&name)? else { return Ok(()) };
        let before = newest.attributes.file;
        let mut after = before;
        apply(&mut after);
        let mut changes = Vec::new();
        if after.mode != before.mode {
            changes.push(AttributeChange::Mode(after.mode));
        }
        if (after.uid, after.gid) != (before.uid, before.gid) {
            changes.push(AttributeChange::Owner { uid: after.uid, gid: after.gid });
        }
        if after.mtime != before.mtime {
            changes.push(AttributeChange::Mtime(after.mtime));
        }
        self.repo.change_attributes(newest.record.uid, &changes)?;
        Ok(())
    }
}
