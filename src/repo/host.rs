//! Who this host is: an id that stands in the records it writes.
//!
//! It lies in a file of its own beside the catalog, because it must outlive that: a host that lost its catalog, or discarded it
//! because it was damaged, still knows its drafts and pins by their host. Made once, before anything is written under it.
//!
//! Two hosts must not have one id: each would take the drafts and pins of the other for its own leftovers, and remove them. That is
//! what a state directory does that is copied, or a virtual machine that is cloned with it. So beside the id stands where it was made:
//! machine and directory. Whoever finds itself elsewhere takes a new id, which is always safe: what the old one wrote stays,
//! as that of any other host, until somebody says what is to become of it. A directory that was only moved cannot be told from a
//! copy; it becomes a new host too. The ids it had before are kept, because what they pinned for overlays in this directory must be
//! pinned anew.

use crate::words::hex::hex;
use crate::words::ids::HostId;
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::fs::{self, File, Metadata};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::UNIX_EPOCH;

const FILE_NAME: &str = "host";
/// Locked while the file is looked at, so that processes that come at once agree.
const LOCK_NAME: &str = "host.lock";
/// What machines are called, by systemd and by hypervisors. The second is for root only.
const MACHINE_FILES: [(&str, &str); 2] =
    [("machine", "/etc/machine-id"), ("product", "/sys/class/dmi/id/product_uuid")];
const BEFORE: &str = "before";

/// Who this host is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    /// In records that are written from now on.
    pub(super) id: HostId,
    /// What it was called before, in directories this one is a copy of; the latest last.
    pub(super) before: Vec<HostId>,
    /// Whether it took a new id just now.
    pub(super) is_renamed: bool,
}

/// What tells one place from another: names with values that stay as long as the machine and the directory are the same ones.
/// What cannot be known here is left out, and says nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place(Vec<(&'static str, String)>);

impl Place {
    /// Of a directory on this machine.
    fn of(state_dir: &Path) -> io::Result<Self> {
        let machine = MACHINE_FILES.iter().filter_map(|(name, path)| {
            let text = fs::read_to_string(path).ok()?;
            let text = text.trim();
            // machine-id(5) asks that it is not spread as it is.
            let hidden = Sha256::new().chain_update("backyfs").chain_update(text).finalize();
            // Before its first boot is over a machine is "uninitialized".
            (text.len() >= 32).then(|| (*name, hex(&hidden[..16])))
        });
        let directory = fs::metadata(state_dir)?;
        Ok(Self(machine.chain([("directory", directory_of(&directory))]).collect()))
    }

    /// Whether this may be the place of which `noted` was written.
    fn may_be(&self, noted: &[(String, String)]) -> bool {
        self.0.iter().all(|(name, value)| noted.iter().all(|(other, then)| other != name || then == value))
    }
}

/// A copy is another inode, born at another time. Numbers of devices change from boot to boot and say nothing.
fn directory_of(directory: &Metadata) -> String {
    let born = directory.created().ok().and_then(|born| born.duration_since(UNIX_EPOCH).ok());
    match born.filter(|born| !born.is_zero()) {
        Some(born) => format!("{}-{}.{:09}", directory.ino(), born.as_secs(), born.subsec_nanos()),
        None => directory.ino().to_string(),
    }
}

/// The identity in a state directory: `first` when there is none yet, what `other` makes when the directory is a copy.
///
/// # Errors
/// When the file cannot be read or made, or holds no id.
pub(super) fn identity(state_dir: &Path, first: HostId, other: impl FnOnce() -> HostId) -> io::Result<Identity> {
    identity_at(state_dir, &Place::of(state_dir)?, first, other)
}

fn identity_at(state_dir: &Path, place: &Place, first: HostId, other: impl FnOnce() -> HostId) -> io::Result<Identity> {
    let path = state_dir.join(FILE_NAME);
    // Nearly always everything is as it was, and nothing is to be written.
    if let Some(noted) = Noted::read(&path)?
        && place.may_be(&noted.place)
        && place.0.iter().all(|(name, _)| noted.place.iter().any(|(other, _)| other == name))
    {
        return Ok(Identity { id: noted.id, before: noted.before, is_renamed: false });
    }
    let lock = File::options().write(true).create(true).truncate(false).open(state_dir.join(LOCK_NAME))?;
    lock.lock()?;
    let identity = match Noted::read(&path)? {
        None => Identity { id: first, before: Vec::new(), is_renamed: false },
        // A fact that was not known before is noted beside the others.
        Some(noted) if place.may_be(&noted.place) => {
            let identity = Identity { id: noted.id, before: noted.before, is_renamed: false };
            let more = noted.place.into_iter().filter(|(name, _)| place.0.iter().all(|(other, _)| other != name));
            write(state_dir, &identity, place, more.collect())?;
            return Ok(identity);
        }
        Some(mut noted) => {
            noted.before.push(noted.id);
            Identity { id: other(), before: noted.before, is_renamed: true }
        }
    };
    write(state_dir, &identity, place, Vec::new())?;
    Ok(identity)
}

/// What the file says.
struct Noted {
    id: HostId,
    place: Vec<(String, String)>,
    before: Vec<HostId>,
}

impl Noted {
    fn read(path: &Path) -> io::Result<Option<Self>> {
        let text = match fs::read_to_string(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            text => text?,
        };
        let broken = |error: &dyn std::fmt::Display| io::Error::other(format!("{}: {error}", path.display()));
        let mut lines = text.lines();
        let id = lines.next().unwrap_or_default().trim_end().parse().map_err(|error| broken(&error))?;
        let mut noted = Self { id, place: Vec::new(), before: Vec::new() };
        for line in lines {
            match line.split_once(' ') {
                Some((BEFORE, id)) => noted.before.push(id.parse().map_err(|error| broken(&error))?),
                Some((name, value)) => noted.place.push((name.to_owned(), value.to_owned())),
                None => return Err(broken(&"a line is cut short")),
            }
        }
        Ok(Some(noted))
    }
}

/// Replaces the file in one step, durably: from then on records are written under this id. Under the lock.
fn write(state_dir: &Path, identity: &Identity, place: &Place, more: Vec<(String, String)>) -> io::Result<()> {
    let mut text = format!("{}\n", identity.id);
    let known = place.0.iter().map(|(name, value)| (*name, value.as_str()));
    for (name, value) in known.chain(more.iter().map(|(name, value)| (name.as_str(), value.as_str()))) {
        let _ = writeln!(text, "{name} {value}");
    }
    for id in &identity.before {
        let _ = writeln!(text, "{BEFORE} {id}");
    }
    let new = state_dir.join(format!("{FILE_NAME}.new"));
    let mut file = File::create(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, state_dir.join(FILE_NAME))?;
    File::open(state_dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(number: u8) -> HostId {
        HostId::from_bytes([number; 16])
    }

    fn place(facts: &[(&'static str, &str)]) -> Place {
        Place(facts.iter().map(|(name, value)| (*name, (*value).to_owned())).collect())
    }

    #[test]
    fn the_first_id_stands() {
        let dir = tempfile::tempdir().unwrap();
        let first = identity(dir.path(), host(1), || host(9)).unwrap();
        assert_eq!(first, Identity { id: host(1), before: Vec::new(), is_renamed: false });
        assert_eq!(identity(dir.path(), host(9), || host(2)).unwrap(), first);
        fs::write(dir.path().join(FILE_NAME), "nonsense\n").unwrap();
        assert!(identity(dir.path(), host(9), || host(2)).is_err());
    }

    #[test]
    fn a_copy_is_another_host_and_knows_what_it_was() {
        let (dir, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        identity(dir.path(), host(1), || host(9)).unwrap();
        fs::copy(dir.path().join(FILE_NAME), copy.path().join(FILE_NAME)).unwrap();
        let copied = identity(copy.path(), host(9), || host(2)).unwrap();
        assert_eq!(copied, Identity { id: host(2), before: vec![host(1)], is_renamed: true });
        let again = identity(copy.path(), host(9), || host(3)).unwrap();
        assert_eq!(again, Identity { is_renamed: false, ..copied });
        assert_eq!(identity(dir.path(), host(9), || host(3)).unwrap().id, host(1));
        // A copy of the copy remembers both; a directory that was renamed where it lies is none.
        let third = tempfile::tempdir().unwrap();
        fs::copy(copy.path().join(FILE_NAME), third.path().join(FILE_NAME)).unwrap();
        assert_eq!(identity(third.path(), host(9), || host(4)).unwrap().before, [host(1), host(2)]);
        let (before, after) = (third.path().join("x"), third.path().join("y"));
        fs::create_dir(&before).unwrap();
        identity(&before, host(5), || host(9)).unwrap();
        fs::rename(&before, &after).unwrap();
        assert_eq!(identity(&after, host(9), || host(6)).unwrap().id, host(5));
    }

    #[test]
    fn a_clone_of_the_machine_is_another_host_and_what_is_not_known_says_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let at = |facts: &[(&'static str, &str)], fresh| {
            identity_at(dir.path(), &place(facts), host(9), || host(fresh)).unwrap().id
        };
        // As written by versions that did not note the place.
        fs::write(dir.path().join(FILE_NAME), format!("{}\n", host(1))).unwrap();
        assert_eq!(at(&[("machine", "a"), ("directory", "5")], 2), host(1));
        // Root sees more, and others do not make it forget that.
        assert_eq!(at(&[("machine", "a"), ("product", "p"), ("directory", "5")], 2), host(1));
        assert_eq!(at(&[("machine", "a"), ("directory", "5")], 2), host(1));
        assert_eq!(at(&[("directory", "5")], 2), host(1));
        assert_eq!(at(&[("machine", "a"), ("product", "q"), ("directory", "5")], 3), host(3));
        assert_eq!(at(&[("machine", "b"), ("directory", "5")], 4), host(4));
        assert_eq!(at(&[("machine", "b"), ("directory", "6")], 5), host(5));
    }

    #[test]
    fn processes_that_come_at_once_agree() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        for round in 0..20u8 {
            fs::write(dir.join(FILE_NAME), format!("{}\ndirectory elsewhere\n", host(200))).unwrap();
            let ids: Vec<Identity> = std::thread::scope(|scope| {
                let jobs: Vec<_> = (0..8)
                    .map(|n| scope.spawn(move || identity(dir, host(9), || host(round * 8 + n)).unwrap()))
                    .collect();
                jobs.into_iter().map(|job| job.join().unwrap()).collect()
            });
            assert!(ids.iter().all(|found| found.id == ids[0].id), "{ids:?}");
            assert_eq!(ids.iter().filter(|found| found.is_renamed).count(), 1);
        }
    }
}
