//! chmod, chown, truncate and utimes in the trees.

use crate::fs::errno::Errno;
use crate::fs::nodes::{Node, StatusFile, VersionFile};
use crate::fs::seam::{Answer, Caller, SetAttr};
use crate::fs::trees::handle::TreeHandle;
use crate::fs::trees::{Trees, failed, limits};
use crate::words::attribute::AttributeChange;
use crate::words::ids::Uid;

impl Trees {
    /// Changes what can be changed. Mode and owner belong to the version and are set through `data`; times are accepted and
    /// not kept, because `data` shows its last write and everything else the backup's time.
    ///
    /// # Errors
    /// EPERM for what stays as it is.
    pub fn setattr(&self, _caller: Caller, node: &Node, change: &SetAttr) -> Answer<()> {
        if let Node::StatusFile(file) = node {
            return self.setattr_status(*file, change);
        }
        let Node::VersionFile(uid, file) = node else { return Err(Errno::EPERM) };
        if let Some(size) = change.size {
            let handle = change.fh.map(|fh| self.handles.get(fh)).transpose()?;
            self.set_size(*uid, *file, handle.as_deref(), size)?;
        }
        let wants_owner = change.mode.is_some() || change.uid.is_some() || change.gid.is_some();
        match file {
            VersionFile::Data if wants_owner => self.set_owner(*uid, change),
            _ if wants_owner => Err(Errno::EPERM),
            _ => Ok(()),
        }
    }

    /// Shells truncate before they write; that alone changes nothing.
    fn setattr_status(&self, file: StatusFile, change: &SetAttr) -> Answer<()> {
        let wants_owner = change.mode.is_some() || change.uid.is_some() || change.gid.is_some();
        if wants_owner || limits::throttle(&self.options.limits, file).is_none() {
            return Err(Errno::EPERM);
        }
        if let (Some(size), Some(fh)) = (change.size, change.fh)
            && let TreeHandle::Limit(limit) = &*self.handles.get(fh)?
        {
            limit.set_len(size)?;
        }
        Ok(())
    }

    fn set_size(&self, uid: Uid, file: VersionFile, handle: Option<&TreeHandle>, size: u64) -> Answer<()> {
        match (file, handle) {
            (VersionFile::Data, _) if size == self.version(uid)?.image.size_bytes => Ok(()),
            (_, Some(TreeHandle::Value(value))) => value.set_len(size),
            (VersionFile::Data | VersionFile::Original, _) => Err(Errno::EPERM),
            (VersionFile::Created | VersionFile::Size | VersionFile::Stats, _) => Err(Errno::EPERM),
            // Truncating a value does nothing until something is written.
            _ => Ok(()),
        }
    }

    fn set_owner(&self, uid: Uid, change: &SetAttr) -> Answer<()> {
        let file = self.version(uid)?.attributes.file;
        let mut changes = Vec::new();
        changes.extend(change.mode.map(|mode| AttributeChange::Mode(mode & 0o7777)));
        if change.uid.is_some() || change.gid.is_some() {
            let (uid, gid) = (change.uid.unwrap_or(file.uid), change.gid.unwrap_or(file.gid));
            changes.push(AttributeChange::Owner { uid, gid });
        }
        self.repo.change_attributes(uid, &changes).map_err(failed("change of mode or owner"))?;
        self.kernel.drop_attributes(Node::Version(uid).ino());
        VersionFile::ALL.into_iter().for_each(|file| self.kernel.drop_attributes(Node::VersionFile(uid, file).ino()));
        Ok(())
    }
}
