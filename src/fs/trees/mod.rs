//! `by_version/`, `by_name/`, `by_tag/` and `status/`: every version as files.
//!
//! What is shown is read from the catalog at each call, because another process may have changed it; nothing here asks the
//! target to list or to look. Local state is kept for open versions and overlays only ([`disk::Disk`]).

mod attached;
mod delete;
mod disk;
mod disks;
mod display;
mod handle;
mod limits;
mod names;
mod open;
mod setattr;
mod stat;
mod status;
mod tags;
#[cfg(test)]
mod tests;
mod value;
mod value_handle;
mod versions;

use crate::fs::errno::Errno;
use crate::fs::nodes::{Node, StatusFile, VersionFile};
use crate::fs::seam::{Answer, Caller, KernelCache};
use crate::ops::overlays;
use crate::ops::remove::PROTECT_YOUNGER_DEFAULT;
use crate::repo::Repository;
use crate::target::Limits;
use std::ffi::OsString;
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

pub use status::{Drafts, StatusText};

/// What cannot change is believed this long.
const LONG: Duration = Duration::from_secs(3600);
/// Of what another process or host may remove, and nobody can make into something else.
const BRIEF: Duration = Duration::from_secs(1);

/// What can be set.
#[derive(Debug, Clone)]
pub struct TreesOptions {
    /// Owner of the directories.
    pub uid: u32,
    /// Group of the directories.
    pub gid: u32,
    /// Versions younger than this are not deleted by rmdir.
    pub protect_younger: Duration,
    /// What `status/upload-limit` and `status/download-limit` change.
    pub limits: Arc<Limits>,
}

impl Default for TreesOptions {
    fn default() -> Self {
        let (uid, gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
        Self { uid, gid, protect_younger: PROTECT_YOUNGER_DEFAULT, limits: Arc::default() }
    }
}

/// How often open versions are looked at.
const UPKEEP_EVERY: Duration = Duration::from_secs(2);

/// The trees. See the module.
pub struct Trees {
    repo: Arc<Repository>,
    options: TreesOptions,
    disks: disks::Disks,
    status: status::Status,
    /// Who tried to unlink inside a version.
    unlinkers: delete::Unlinkers,
    handles: open::Handles,
    kernel: Arc<dyn KernelCache>,
}

/// Logs an error of what was tried, and answers its number.
fn failed<E: Display>(what: &'static str) -> impl Fn(E) -> Errno
where
    Errno: From<E>,
{
    move |error| {
        let text = error.to_string();
        let errno = Errno::from(error);
        if errno == Errno::EIO {
            tracing::error!("{what}: {text}");
        } else {
            tracing::info!("{what}: {text}");
        }
        errno
    }
}

impl Trees {
    /// The trees of a repository. `drafts` says what `status/drafts` shows.
    pub fn new(repo: Arc<Repository>, options: TreesOptions, kernel: Arc<dyn KernelCache>, drafts: Drafts) -> Self {
        let disks = disks::Disks::new(Arc::clone(&repo));
        let (unlinkers, handles) = (delete::Unlinkers::default(), open::Handles::default());
        Self { repo, options, disks, status: status::Status::new(drafts), unlinkers, handles, kernel }
    }

    /// Says where the text of a status file comes from. It is made whenever the file is opened or looked at.
    pub fn set_status(&self, file: StatusFile, text: StatusText) {
        self.status.set(file, text);
    }

    /// Puts the pins of this host in order: a state directory that was copied gets its own, and what a crash has left behind without an
    /// overlay goes.
    ///
    /// # Errors
    /// When target or catalog fail; it can be repeated.
    pub fn tidy(&self) -> Answer<()> {
        let pinned = overlays::pin_copied(&self.repo).map_err(failed("pins of copied overlays"))?;
        if pinned > 0 {
            tracing::info!("pinned {pinned} versions below overlays that were copied from another host");
        }
        let dropped = overlays::drop_stale_pins(&self.repo).map_err(failed("removal of old pins"))?;
        if dropped > 0 {
            tracing::info!("removed {dropped} pins without an overlay");
        }
        Ok(())
    }

    /// Starts a thread that keeps versions readable which are open; it ends with the trees.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_upkeep(self: &Arc<Self>) -> std::io::Result<()> {
        let me = Arc::downgrade(self);
        let keep_up = move || {
            while let Some(trees) = me.upgrade() {
                trees.disks.all().iter().for_each(|disk| disk.keep_readable());
                drop(trees);
                std::thread::sleep(UPKEEP_EVERY);
            }
        };
        std::thread::Builder::new().name("readers".into()).spawn(keep_up).map(drop)
    }

    /// Makes durable what was written to overlays.
    pub fn drain(&self) {
        for disk in self.disks.all() {
            // Logged where it failed; nobody waits for an answer.
            let _ = disk.sync();
        }
    }

    /// Finds a name in a directory. The node stands for something that was there just now.
    pub fn lookup(&self, _caller: Caller, parent: &Node, component: &str) -> Answer<Node> {
        self.find(parent, component)
    }

    fn find(&self, parent: &Node, component: &str) -> Answer<Node> {
        if component.len() > crate::words::name::COMPONENT_MAX_BYTES {
            return Err(Errno::ENAMETOOLONG);
        }
        match parent {
            Node::Versions => self.find_version(component),
            Node::Version(uid) => {
                VersionFile::from_file_name(component).map(|file| Node::VersionFile(*uid, file)).ok_or(Errno::ENOENT)
            }
            Node::NameDir(path) => self.lookup_name(path, component),
            Node::Tags => self.lookup_tag(component),
            Node::TagDir(tag, path) => self.lookup_tagged(tag, path, component),
            Node::Status => status::find(component).map(Node::StatusFile).ok_or(Errno::ENOENT),
            Node::Root | Node::IncomingDir(_) => Err(Errno::ENOENT),
            _ => Err(Errno::ENOTDIR),
        }
    }

    /// What a directory holds, versions in the order of their time. Without `.` and `..`.
    pub fn list(&self, dir: &Node) -> Answer<Vec<(OsString, Node)>> {
        match dir {
            Node::Versions => self.list_versions(),
            Node::Version(uid) => {
                self.version(*uid)?;
                let files = VersionFile::ALL.into_iter();
                Ok(files.map(|file| (file.file_name().into(), Node::VersionFile(*uid, file))).collect())
            }
            Node::NameDir(path) => self.list_names(path),
            Node::Tags => self.list_tags(),
            Node::TagDir(tag, path) => self.list_tagged(tag, path),
            Node::Status => {
                Ok(StatusFile::ALL.into_iter().map(|f| (f.file_name().into(), Node::StatusFile(f))).collect())
            }
            Node::Root | Node::IncomingDir(_) => Err(Errno::ENOENT),
            _ => Err(Errno::ENOTDIR),
        }
    }

    /// Where a symbolic link leads.
    pub fn readlink(&self, node: &Node) -> Answer<OsString> {
        match node {
            Node::NameLink(name, _) => Ok(versions::link(self.resolve_link(node)?.uid, 1, name).into()),
            Node::TagLink(_, name, _) => Ok(versions::link(self.resolve_link(node)?.uid, 2, name).into()),
            _ => Err(Errno::EINVAL),
        }
    }

    /// How long a name leads to this node, and how long its attributes hold.
    pub fn ttls(&self, node: &Node) -> (Duration, Duration) {
        let entry = match node {
            Node::Versions | Node::Tags | Node::Status | Node::StatusFile(_) | Node::VersionFile(..) => LONG,
            Node::NameDir(path) if path.is_empty() => LONG,
            // A uid never means another version. Long enough for the several questions that `ls` asks about each.
            Node::Version(_) => BRIEF,
            _ => Duration::ZERO,
        };
        (entry, stat::ttl(node))
    }
}
