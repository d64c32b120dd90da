//! Following the other hosts: now and then a mount learns what they did.
//!
//! Nothing else has to be told: what the trees show is read from the catalog at each call, directories, links and missing names
//! are not kept by the kernel, and attributes for a second only. So what another process of this host learns or does is seen at
//! once, too.

use crate::fs::seen::Seen;
use crate::repo::Repository;
use crossbeam_channel::{RecvTimeoutError, Sender, bounded};
use std::io;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

/// Learns until it is dropped.
pub(super) struct Follower {
    /// The thread ends when this is gone.
    _stop: Option<Sender<()>>,
}

impl Follower {
    /// Learns every `interval`; not at all when there is none.
    pub(super) fn start(repo: &Arc<Repository>, seen: &Arc<Seen>, interval: Option<Duration>) -> io::Result<Self> {
        let Some(interval) = interval else { return Ok(Self { _stop: None }) };
        let (stop, stopped) = bounded::<()>(0);
        let (repo, seen) = (Arc::downgrade(repo), Arc::clone(seen));
        thread::Builder::new().name("follower".to_owned()).spawn(move || {
            let mut working = true;
            note_space(&repo, &seen);
            while stopped.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
                let Some(now_working) = follow(&repo, working) else { return };
                working = now_working;
                note_space(&repo, &seen);
            }
        })?;
        Ok(Self { _stop: Some(stop) })
    }
}

/// Learns once, and says whether that worked; `None` when there is nothing left to learn for. A target that stays away is
/// told of once.
fn follow(repo: &Weak<Repository>, worked: bool) -> Option<bool> {
    let repo = repo.upgrade()?;
    match repo.refresh() {
        Ok(learned) => {
            if !worked {
                tracing::info!("other hosts are heard of again");
            }
            if learned.records + learned.removed + learned.entries > 0 {
                tracing::debug!("of other hosts: {learned:?}");
            }
            Some(true)
        }
        Err(error) => {
            if worked {
                tracing::warn!("not all that other hosts do is seen here for now: {error}");
            }
            Some(false)
        }
    }
}

/// How full the target is, is asked for beside what other hosts did.
fn note_space(repo: &Weak<Repository>, seen: &Seen) {
    if let Some(Ok(space)) = repo.upgrade().map(|repo| repo.space()) {
        seen.note(space);
    }
}
