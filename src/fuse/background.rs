//! Going into the background: the parent stays until the mount answers, so that its exit code tells the truth.

use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, chdir, dup2_stderr, dup2_stdin, dup2_stdout, fork, setsid};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// What the child sends when it is ready. Anything else is the text of an error.
const READY: &[u8] = b"\0ready";

/// The two sides after the fork.
pub(super) enum Side {
    /// The process the user started.
    Parent(Parent),
    /// The daemon.
    Child(Child),
}

pub(super) struct Parent {
    child: Pid,
    news: UnixStream,
}

pub(super) struct Child {
    news: UnixStream,
    log: Option<PathBuf>,
}

/// Forks. The child works in the root directory; its standard streams and its process group stay until it is ready. With the
/// streams it can still complain. The group matters to automounts: while one waits for us to mount, the kernel lets only its own
/// process group look at the mountpoint, and anyone else, a daemon in a session of its own too, waits until it is mounted.
/// Its arguments stay as they are.
///
/// The caller has started no threads: the child has only the one that forked.
pub(super) fn split(log: Option<PathBuf>) -> io::Result<Side> {
    let log = log.map(std::path::absolute).transpose()?;
    let (ours, theirs) = UnixStream::pair()?;
    // SAFETY: no other thread runs (the caller's promise), so no lock is held that the child would miss.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok(Side::Parent(Parent { child, news: ours })),
        ForkResult::Child => {
            drop(ours);
            chdir("/")?;
            Ok(Side::Child(Child { news: theirs, log }))
        }
    }
}

impl Parent {
    /// Waits until the daemon is ready, and answers its pid; or the text of what went wrong.
    pub(super) fn wait(mut self) -> Result<u32, String> {
        let mut said = Vec::new();
        // An error is the end of the conversation as much as its end is.
        let _ = self.news.read_to_end(&mut said);
        if said == READY {
            return Ok(u32::try_from(self.child.as_raw()).unwrap_or(0));
        }
        let ended = waitpid(self.child, None);
        Err(match (said.is_empty(), ended) {
            (false, _) => String::from_utf8_lossy(&said).into_owned(),
            (true, Ok(WaitStatus::Signaled(_, signal, _))) => {
                format!("the daemon was killed by {signal} before it was ready")
            }
            (true, Ok(WaitStatus::Exited(_, code))) => {
                format!("the daemon exited with code {code} before it was ready")
            }
            (true, _) => "the daemon died before it was ready".to_owned(),
        })
    }
}

impl Child {
    /// Lets go of the terminal, then lets the parent exit with success.
    pub(super) fn ready(mut self) -> io::Result<()> {
        setsid()?;
        redirect(self.log.as_deref())?;
        self.news.write_all(READY)
    }

    /// Lets the parent exit with this error.
    pub(super) fn fail(mut self, text: &str) {
        // When the parent is gone, nobody wants to know.
        let _ = self.news.write_all(text.as_bytes());
        let _ = self.news.shutdown(Shutdown::Both);
        let _ = redirect(None);
    }
}

fn redirect(log: Option<&Path>) -> io::Result<()> {
    let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    let output: File = match log {
        Some(path) => OpenOptions::new().append(true).create(true).open(path)?,
        None => null.try_clone()?,
    };
    dup2_stdin(&null)?;
    dup2_stdout(&output)?;
    dup2_stderr(&output)?;
    Ok(())
}
