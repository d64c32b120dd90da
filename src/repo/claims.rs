//! Whose draft is whose. A draft belongs to the host that writes it (its record says which) and, on that host, to the process
//! that holds its claim: two mounts of one host write the same name side by side, each in a draft of its own.
//!
//! A claim is a lock on one byte of a file in the state directory, at an offset made of the draft's id. The kernel drops it
//! when the process ends, however that ends, so no clock and no pid is trusted to tell whether a writer lives. Open file
//! description locks (fcntl(2)): they conflict between processes, and between two openings in one process as well.

use crate::words::ids::DraftId;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

/// The file whose bytes are locked; it stays empty.
const FILE_NAME: &str = "drafts.lock";

/// The claims of one process.
#[derive(Debug)]
pub struct DraftClaims {
    file: File,
    /// How many [`ClaimedDraft`]s of this process share each lock: unlocking one must not unlock the others.
    held: Mutex<HashMap<DraftId, usize>>,
}

/// A draft that nobody else continues, discards or lets expire while this exists.
#[derive(Debug)]
pub struct ClaimedDraft {
    id: DraftId,
    claims: Arc<DraftClaims>,
}

impl DraftClaims {
    /// The claims below a state directory.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn open(state_dir: &Path) -> io::Result<Arc<Self>> {
        let path = state_dir.join(FILE_NAME);
        let file = File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        Ok(Arc::new(Self { file, held: Mutex::default() }))
    }

    /// Claims a draft; `None` while another process has it.
    ///
    /// # Errors
    /// When the filesystem of the state directory does not lock. Nothing may be taken for unclaimed then.
    pub fn claim(self: &Arc<Self>, id: DraftId) -> io::Result<Option<ClaimedDraft>> {
        let mut held = self.held.lock();
        let shares = held.entry(id).or_insert(0);
        if *shares == 0 {
            match fcntl(&self.file, FcntlArg::F_OFD_SETLK(&byte_of(id, libc::F_WRLCK))) {
                Ok(_) => {}
                Err(Errno::EAGAIN | Errno::EACCES) => {
                    held.remove(&id);
                    return Ok(None);
                }
                Err(errno) => {
                    held.remove(&id);
                    return Err(errno.into());
                }
            }
        }
        *shares += 1;
        Ok(Some(ClaimedDraft { id, claims: Arc::clone(self) }))
    }

    /// Whether another process has a draft.
    ///
    /// # Errors
    /// As [`DraftClaims::claim`].
    pub fn is_elsewhere(&self, id: DraftId) -> io::Result<bool> {
        let mut lock = byte_of(id, libc::F_WRLCK);
        fcntl(&self.file, FcntlArg::F_OFD_GETLK(&mut lock))?;
        Ok(i32::from(lock.l_type) != libc::F_UNLCK)
    }
}

impl ClaimedDraft {
    /// Which.
    pub fn id(&self) -> DraftId {
        self.id
    }
}

impl Clone for ClaimedDraft {
    fn clone(&self) -> Self {
        *self.claims.held.lock().entry(self.id).or_insert(0) += 1;
        Self { id: self.id, claims: Arc::clone(&self.claims) }
    }
}

impl Drop for ClaimedDraft {
    fn drop(&mut self) {
        let mut held = self.claims.held.lock();
        let Some(shares) = held.get_mut(&self.id) else { return };
        *shares -= 1;
        if *shares == 0 {
            held.remove(&self.id);
            // Under the lock of the table: who claims it again right now must not be unlocked.
            if let Err(errno) = fcntl(&self.claims.file, FcntlArg::F_OFD_SETLK(&byte_of(self.id, libc::F_UNLCK))) {
                tracing::warn!("draft {} stays claimed until this process ends: {errno}", self.id);
            }
        }
    }
}

/// The byte that stands for a draft. The last eight bytes of an id are random but for two bits, and offsets are positive.
fn byte_of(id: DraftId, kind: i32) -> libc::flock {
    let random = u64::from_be_bytes(id.as_bytes()[8..].try_into().expect("eight of sixteen bytes"));
    let offset = i64::try_from(random & (u64::MAX >> 2)).expect("62 bits fit");
    libc::flock { l_type: kind as i16, l_whence: libc::SEEK_SET as i16, l_start: offset, l_len: 1, l_pid: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draft_is_claimed_once_and_free_after_its_last_share() {
        let dir = tempfile::tempdir().unwrap();
        let (one, other) = (DraftClaims::open(dir.path()).unwrap(), DraftClaims::open(dir.path()).unwrap());
        let (draft, second) = (DraftId::from_bytes([0xff; 16]), DraftId::from_bytes([3; 16]));
        let claim = one.claim(draft).unwrap().unwrap();
        assert!(other.claim(draft).unwrap().is_none() && other.is_elsewhere(draft).unwrap());
        assert!(!one.is_elsewhere(draft).unwrap(), "it is our own");
        assert!(other.claim(second).unwrap().is_some());
        let share = claim.clone();
        let again = one.claim(draft).unwrap().unwrap();
        drop((claim, again));
        assert!(other.claim(draft).unwrap().is_none());
        drop(share);
        let theirs = other.claim(draft).unwrap().unwrap();
        assert_eq!(theirs.id(), draft);
        assert!(one.claim(draft).unwrap().is_none());
    }

    #[test]
    fn a_claim_ends_with_its_holder() {
        let dir = tempfile::tempdir().unwrap();
        let (one, other) = (DraftClaims::open(dir.path()).unwrap(), DraftClaims::open(dir.path()).unwrap());
        let draft = DraftId::from_bytes([9; 16]);
        let claim = one.claim(draft).unwrap().unwrap();
        drop(one);
        assert!(other.is_elsewhere(draft).unwrap());
        drop(claim);
        assert!(!other.is_elsewhere(draft).unwrap());
    }
}
