//! Directories, removal, links: what happens to names.

use crate::fs::errno::Errno;
use crate::fs::incoming::Incoming;
use crate::fs::incoming::file::{File, Work};
use crate::fs::incoming::look::join;
use crate::fs::incoming::table::MadeDir;
use crate::fs::nodes::Node;
use crate::fs::process;
use crate::fs::seam::{Answer, Caller};
use crate::image::ImageReader;
use crate::repo::drafts::DraftOwner;
use crate::words::attribute::FileAttributes;
use crate::words::name::{COMPONENT_MAX_BYTES, Name};
use std::sync::Arc;

impl Incoming {
    /// Makes a directory. It lives until the unmount, or for as long as a name lies below it.
    pub fn mkdir(&self, caller: Caller, dir: &str, component: &str, mode: u32) -> Answer<Node> {
        if component.len() > COMPONENT_MAX_BYTES {
            return Err(Errno::ENAMETOOLONG);
        }
        let path = join(dir, component);
        let name = Name::new(&path).map_err(|_| Errno::EINVAL)?;
        if self.is_shown(&name)? || self.is_dir(&path)? {
            return Err(Errno::EEXIST);
        }
        let made = MadeDir { mode: mode & 0o7777, uid: caller.uid, gid: caller.gid };
        self.table.lock().dirs.insert(path.clone(), made);
        Ok(Node::IncomingDir(path))
    }

    /// Removes an empty directory.
    pub fn rmdir(&self, dir: &str, component: &str) -> Answer<()> {
        let path = join(dir, component);
        if Name::new(&path).map(|name| self.is_shown(&name)).map_err(|_| Errno::EINVAL)?? {
            return Err(Errno::ENOTDIR);
        }
        if !self.is_dir(&path)? {
            return Err(Errno::ENOENT);
        }
        if !self.list(&path)?.is_empty() {
            return Err(Errno::ENOTEMPTY);
        }
        self.table.lock().dirs.remove(&path);
        Ok(())
    }

    /// Discards the draft of a name and hides the name until it is published again. Never deletes a version.
    pub fn unlink(&self, dir: &str, component: &str) -> Answer<()> {
        let name = Name::new(&join(dir, component)).map_err(|_| Errno::EINVAL)?;
        if !self.is_shown(&name)? {
            return Err(if self.is_dir(name.as_str())? { Errno::EISDIR } else { Errno::ENOENT });
        }
        let file = self.table.lock().file(&name);
        drop(file.lock_when_closed());
        let _no_commit = file.commit.lock();
        let mut state = file.state.lock();
        if let Some(holder) = state.active_writer(None) {
            let who = holder.opener.map_or_else(|| "a process".to_owned(), process::describe);
            tracing::warn!("{name}: not removed, because {who} is writing it");
            return Err(Errno::EBUSY);
        }
        state.detached = true;
        let work = state.work.take();
        let unused = state.handles.is_empty();
        drop(state);
        self.discard_detached(&file, &name, work)?;
        if self.is_known(&name)? {
            self.repo.catalog().hide_name(&name)?;
        }
        let mut table = self.table.lock();
        table.detach(&name);
        if unused {
            table.drop_file(&file);
        }
        Ok(())
    }

    /// Discards the draft of a file that was detached from its name, with its work: a snapshot of its source goes once no record needs
    /// it. When the records cannot be removed, the file has its name and its work again, as what is detached is stored nowhere.
    pub(super) fn discard_detached(&self, file: &File, name: &Name, work: Option<Work>) -> Answer<()> {
        self.discard_draft(name).inspect_err(|_| {
            let mut state = file.state.lock();
            state.detached = false;
            if state.work.is_none() {
                state.work = work;
            }
        })
    }

    /// Removes the draft records of a name that belong to this mount, or to no other that lives.
    pub(super) fn discard_draft(&self, name: &Name) -> Answer<()> {
        while let Some(record) = self.repo.own_draft(name)? {
            self.repo.discard_draft(&record, DraftOwner::Ours)?;
        }
        Ok(())
    }

    /// Makes a new name of a stored image without moving any data, and publishes it: `ln by_version/U/data incoming/new`.
    pub fn link(
        &self,
        caller: Caller,
        dir: &str,
        component: &str,
        source: &ImageReader,
        attributes: FileAttributes,
    ) -> Answer<Node> {
        let (name, file) = self.make(caller, dir, component, attributes.mode)?;
        if let Some(work) = &mut file.state.lock().work {
            work.attributes = attributes;
        }
        let mut at = 0;
        while at < source.size_bytes() {
            let wanted = source.size_bytes() - at;
            let mut taken = 0;
            self.modify(&file, caller, None, |image, _| {
                taken = image.graft(source, at, at, wanted)?;
                Ok(Some((at, at + taken)))
            })?;
            if taken == 0 {
                return Err(Errno::EIO);
            }
            at += taken;
        }
        if let Some(work) = &mut file.state.lock().work {
            work.attributes = attributes;
        }
        self.commit(&file, super::commit::Purpose::Publish(process::identify(caller.pid)))?;
        self.put_away(&file);
        tracing::debug!("{name}: made by link");
        Ok(Node::IncomingFile(file.number))
    }

    /// Makes an empty file without opening it.
    pub fn mknod(&self, caller: Caller, dir: &str, component: &str, mode: u32) -> Answer<Node> {
        let (_, file) = self.make(caller, dir, component, mode)?;
        Ok(Node::IncomingFile(file.number))
    }

    fn make(&self, caller: Caller, dir: &str, component: &str, mode: u32) -> Answer<(Name, Arc<File>)> {
        let name = self.new_name(dir, component)?;
        if self.is_shown(&name)? {
            return Err(Errno::EEXIST);
        }
        let file = self.table.lock().file(&name);
        self.begin_empty(&mut file.state.lock(), Some((caller, mode)))?;
        Ok((name, file))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::layout::ObjectKey;
    use crate::fs::incoming::testing::{noise, scene_of};
    use crate::repo::testing::{create, open, small};
    use crate::target::through::Through;
    use crate::target::{DirTarget, Put, Target, TargetError};
    use std::sync::atomic::{AtomicBool, Ordering};

    /// Takes and gives up nothing while it is full.
    struct Full(Arc<dyn Target>, AtomicBool);

    impl Full {
        fn check(&self, key: &ObjectKey) -> Result<(), TargetError> {
            if !self.1.load(Ordering::Relaxed) {
                return Ok(());
            }
            let source = std::io::Error::from_raw_os_error(libc::ENOSPC);
            Err(TargetError::Io { target: self.describe(), action: "writing", key: key.to_string(), source })
        }
    }

    impl Through for Full {
        fn within(&self) -> &dyn Target {
            &*self.0
        }
        fn put(&self, key: &ObjectKey, parts: &[&[u8]]) -> Result<(), TargetError> {
            self.check(key)?;
            self.0.put(key, parts)
        }
        fn put_new(&self, key: &ObjectKey, parts: &[&[u8]]) -> Result<Put, TargetError> {
            self.check(key)?;
            self.0.put_new(key, parts)
        }
        fn delete(&self, key: &ObjectKey) -> Result<(), TargetError> {
            self.check(key)?;
            self.0.delete(key)
        }
    }

    #[test]
    fn what_cannot_be_removed_keeps_its_name() {
        let mut world = create(&small());
        let target = Arc::new(Full(Arc::new(DirTarget::open(world.dir.path().join("target"))), AtomicBool::new(false)));
        world.repo = open(Arc::clone(&target) as _, &world.dir.path().join("full"), Arc::default()).unwrap();
        let scene = scene_of(world);
        let bytes = noise(100_000);
        let begun = scene.open("vm", false);
        scene.write(begun, 0, &bytes[..50_000]);
        scene.incoming.make_all_durable().unwrap();
        // Whoever wrote it has closed it, but not finished.
        let file = scene.incoming.by_number(begun.0).unwrap();
        file.state.lock().handles.get_mut(&begun.1).unwrap().active = false;
        target.1.store(true, Ordering::Relaxed);
        assert!(scene.incoming.unlink("", "vm").is_err());
        target.1.store(false, Ordering::Relaxed);
        let again = scene.open("vm", true);
        scene.write(again, 0, &bytes);
        scene.close(again);
        assert!(scene.newest().1 == bytes, "what is copied to the name after that is a version");
        scene.incoming.unlink("", "vm").unwrap();
        assert!(scene.incoming.lookup("", "vm").is_err());
    }
}
