//! rename() inside `incoming/`: a draft moves, and is published when it leaves a temporary name; a name moves with all its
//! versions; nothing merges two histories.

use crate::fs::errno::Errno;
use crate::fs::incoming::Incoming;
use crate::fs::incoming::commit::Purpose;
use crate::fs::incoming::file::{File, Work};
use crate::fs::incoming::look::join;
use crate::fs::process;
use crate::fs::seam::{Answer, Caller, RenameMode};
use crate::words::attribute::AttributeChange;
use crate::words::name::{COMPONENT_MAX_BYTES, Name};
use std::sync::Arc;

impl Incoming {
    /// Renames a file or a directory.
    pub fn rename(&self, caller: Caller, from: (&str, &str), to: (&str, &str), mode: RenameMode) -> Answer<()> {
        if mode == RenameMode::Exchange {
            return Err(Errno::EINVAL);
        }
        if to.1.len() > COMPONENT_MAX_BYTES {
            return Err(Errno::ENAMETOOLONG);
        }
        let source = Name::new(&join(from.0, from.1)).map_err(|_| Errno::EINVAL)?;
        let target = Name::new(&join(to.0, to.1)).map_err(|_| Errno::EINVAL)?;
        if source == target {
            return Ok(());
        }
        if self.is_shown(&source)? {
            return self.rename_file(caller, &source, &target, mode);
        }
        if !self.is_dir(source.as_str())? {
            return Err(Errno::ENOENT);
        }
        self.rename_dir(caller, &source, &target)
    }

    fn rename_file(&self, caller: Caller, source: &Name, target: &Name, mode: RenameMode) -> Answer<()> {
        let exists = self.is_shown(target)?;
        if exists && mode == RenameMode::NoReplace {
            return Err(Errno::EEXIST);
        }
        if !exists {
            self.check_collision(target)?;
        }
        let file = self.table.lock().file(source);
        let mut state = file.lock_when_closed();
        let has_draft = self.repo.shown_draft(source)?.is_some();
        if has_draft && state.work.is_none() {
            self.begin_work(&mut state)?;
        }
        let is_draft = has_draft || state.work.as_ref().is_some_and(Work::is_draft);
        drop(state);
        if is_draft {
            self.replace_draft(target)?;
            self.move_file(&file, source, target);
            self.publish_renamed(caller, &file)?;
            return self.hide_rest(source);
        }
        self.move_versions(source, target)?;
        self.replace_draft(target)?;
        self.move_file(&file, source, target);
        self.repo.catalog().unhide_name(target)?;
        Ok(())
    }

    /// What other hosts have under a name that moved away is not shown under it again.
    fn hide_rest(&self, source: &Name) -> Answer<()> {
        if self.repo.own_draft(source)?.is_none() && !self.repo.catalog().drafts_of(source)?.is_empty() {
            self.repo.catalog().hide_name(source)?;
        }
        Ok(())
    }

    /// What is renamed over goes, as the file does that rename(2) replaces; not while somebody writes it.
    fn replace_draft(&self, target: &Name) -> Answer<()> {
        let Some(file) = self.table.lock().peek(target) else { return self.discard_draft(target) };
        drop(file.lock_when_closed());
        let _no_commit = file.commit.lock();
        let mut state = file.state.lock();
        if let Some(holder) = state.active_writer(None) {
            let who = holder.opener.map_or_else(|| "a process".to_owned(), process::describe);
            tracing::warn!("{target}: not replaced, because {who} is writing it");
            return Err(Errno::EBUSY);
        }
        state.detached = true;
        let work = state.work.take();
        drop(state);
        self.discard_detached(&file, target, work)
    }

    fn move_file(&self, file: &Arc<File>, source: &Name, target: &Name) {
        let mut table = self.table.lock();
        table.rename(file.number, source, target);
        file.state.lock().name = target.clone();
    }

    /// A draft under a new name: published if nobody writes it any more, else when its writer closes it. What is not
    /// published is made durable under its new name.
    fn publish_renamed(&self, caller: Caller, file: &Arc<File>) -> Answer<()> {
        let mut state = file.state.lock();
        let busy = state.active_writer(None).is_some();
        if let Some(work) = &mut state.work {
            work.said += u64::from(work.is_changed());
        }
        drop(state);
        let process = process::identify(caller.pid);
        self.commit(file, if busy { Purpose::Durable } else { Purpose::Publish(process) })?;
        self.note_closed(process, file);
        self.put_away(file);
        Ok(())
    }

    fn move_versions(&self, source: &Name, target: &Name) -> Answer<()> {
        if self.is_temporary(target) {
            tracing::warn!("{source}: its versions cannot move to the temporary name {target}");
            return Err(Errno::EPERM);
        }
        let versions = self.repo.catalog().versions_of(source)?;
        if versions.len() > 1 && !self.repo.catalog().versions_of(target)?.is_empty() {
            tracing::warn!("{source} has {} versions and {target} has some too: they are not merged", versions.len());
            return Err(Errno::EEXIST);
        }
        for (_, uid) in versions {
            self.repo.change_attributes(uid, &[AttributeChange::Name(target.clone())])?;
        }
        Ok(())
    }

    /// A directory moves name by name. It stops at the first that cannot; repeating it goes on.
    fn rename_dir(&self, caller: Caller, source: &Name, target: &Name) -> Answer<()> {
        if target.as_str().starts_with(&format!("{source}/")) {
            return Err(Errno::EINVAL);
        }
        if self.is_shown(target)? {
            return Err(Errno::ENOTDIR);
        }
        if self.is_dir(target.as_str())? && !self.list(target.as_str())?.is_empty() {
            return Err(Errno::ENOTEMPTY);
        }
        let prefix = format!("{source}/");
        let mut names: Vec<Name> = self.repo.catalog().names()?;
        names.extend(self.repo.catalog().draft_names()?);
        names
            .extend(self.table.lock().below(source.as_str()).into_iter().filter_map(|(name, _)| Name::new(&name).ok()));
        names.retain(|name| name.as_str().starts_with(&prefix));
        names.sort();
        names.dedup();
        let renamed = |path: &str| format!("{target}{}", &path[source.as_str().len()..]);
        for name in names {
            let to = Name::new(&renamed(name.as_str())).map_err(|_| Errno::ENAMETOOLONG)?;
            if self.is_shown(&name)? {
                self.rename_file(caller, &name, &to, RenameMode::NoReplace)?;
            } else if !self.repo.catalog().versions_of(&name)?.is_empty() {
                // Hidden: it moves, and stays hidden.
                self.move_versions(&name, &to)?;
                self.repo.catalog().unhide_name(&name)?;
                self.repo.catalog().hide_name(&to)?;
            }
        }
        let mut table = self.table.lock();
        let mut moved = table.dirs_below(source.as_str());
        moved.push(source.as_str().to_owned());
        for path in moved {
            if let Some(dir) = table.dirs.remove(&path) {
                table.dirs.insert(renamed(&path), dir);
            }
        }
        Ok(())
    }
}
