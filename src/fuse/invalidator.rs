//! Notices to the kernel: drop these pages, forget that name.
//!
//! A notice waits for the kernel's locks on the inode, and those may be held by a request that waits for us. So notices
//! are sent only by a thread that serves no request.

use crate::fs::errno::Errno;
use crate::fs::seam::{Answer, Ino, KernelCache};
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use fuser::{INodeNo, Notifier};
use std::ffi::{OsStr, OsString};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// How long one notice may take; longer means that writing back dirty pages hangs.
const PATIENCE: Duration = Duration::from_secs(20);

/// Hands notices to the thread that sends them.
#[derive(Debug)]
pub struct Invalidator {
    notices: Sender<Notice>,
    // Notices given before the mount exists wait here.
    taken: Receiver<Notice>,
    bound: AtomicBool,
}

#[derive(Debug)]
enum Notice {
    Pages(Ino, Sender<Answer<()>>),
    Attributes(Ino),
    Name(Ino, OsString),
    Stop,
}

impl Default for Invalidator {
    fn default() -> Self {
        let (notices, taken) = unbounded();
        Self { notices, taken, bound: AtomicBool::new(false) }
    }
}

impl Invalidator {
    /// Starts sending.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(super) fn bind(&self, notifier: Notifier) -> io::Result<()> {
        let taken = self.taken.clone();
        thread::Builder::new().name("invalidator".to_owned()).spawn(move || {
            for notice in taken.iter().take_while(|notice| !matches!(notice, Notice::Stop)) {
                send(&notifier, notice);
            }
        })?;
        self.bound.store(true, Ordering::Release);
        Ok(())
    }

    /// Ends the thread, and with it its hold on the device.
    pub(super) fn unbind(&self) {
        self.bound.store(false, Ordering::Release);
        // Cannot fail: this object holds a receiver.
        let _ = self.notices.send(Notice::Stop);
    }
}

fn send(notifier: &Notifier, notice: Notice) {
    let sent = match notice {
        Notice::Pages(ino, answer) => {
            let sent = notifier.inval_inode(INodeNo(ino.0), 0, 0);
            // Who asked may have given up waiting.
            let _ = answer.send(sent.map_err(Errno::from));
            return;
        }
        // A negative offset leaves the pages alone.
        Notice::Attributes(ino) => notifier.inval_inode(INodeNo(ino.0), -1, 0),
        Notice::Stop => return,
        Notice::Name(parent, name) => notifier.inval_entry(INodeNo(parent.0), &name),
    };
    if let Err(error) = sent {
        tracing::debug!("the kernel did not take a notice: {error}");
    }
}

impl KernelCache for Invalidator {
    fn drop_pages(&self, ino: Ino) -> Answer<()> {
        if !self.bound.load(Ordering::Acquire) {
            return Err(Errno::ENOSYS);
        }
        let (answer, answered) = bounded(1);
        self.notices.send(Notice::Pages(ino, answer)).map_err(|_| Errno::ENOSYS)?;
        answered.recv_timeout(PATIENCE).map_err(|_| Errno::ETIMEDOUT)?
    }

    fn drop_attributes(&self, ino: Ino) {
        // Cannot fail: this object holds a receiver.
        let _ = self.notices.send(Notice::Attributes(ino));
    }

    fn drop_name(&self, parent: Ino, name: &OsStr) {
        let _ = self.notices.send(Notice::Name(parent, name.to_owned()));
    }
}
