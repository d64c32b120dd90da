//! Who writes, and whether it is dying: what `/proc` tells of the thread behind a request (proc_pid_stat(5)).
//!
//! The kernel closes a dead process's files, so a killed `cp` sends the same FLUSH as a finished one. The thread that sends
//! it is then already exiting, and its exit code is known: that is the difference. Verified on Linux 6.18: after `kill -9`
//! the code is 9, after `_exit(3)` it is 768 (3 << 8), and a thread that calls close() is not exiting at all.
//!
//! # What must not be read when
//!
//! A FLUSH also comes from inside execve(2), when it closes what is marked close-on-exec: every program that keeps a file
//! open here and starts another sends one. The kernel then holds `exec_update_lock` of that process until we answer, and
//! reading its `stat` or its links in /proc waits for that lock: a deadlock that no signal ends. So [`closer`], made for
//! FLUSH, first reads `status`, which takes no such lock. A thread that still has memory of its own is not exiting (the
//! kernel gives up the memory first and the files after it), and one that has none is not in execve, so `stat` is safe then.
//! [`opener`] reads `stat` at once. It is for requests that a running thread waits for in a system call of its own: OPEN,
//! CREATE, WRITE, SETATTR; never for FLUSH, RELEASE or READ (execve reads programs).

use std::fmt;
use std::fs;
use std::io;

/// The thread is on its way out (include/linux/sched.h).
const PF_EXITING: u64 = 0x0000_0004;
/// It was ended by a signal; also set on the other threads of a process that simply exits.
const PF_SIGNALED: u64 = 0x0000_0400;
/// It belongs to the kernel.
const PF_KTHREAD: u64 = 0x0020_0000;

/// A process: its number and the moment it started, so that a number used again is another process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessId {
    /// Thread group, what people call pid.
    pub tgid: u32,
    /// Clock ticks after boot when it started.
    pub start_ticks: u64,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// With this code; 0 is success.
    Code(u8),
    /// By this signal.
    Signal(u8),
}

impl Exit {
    /// From a status as wait(2) has it.
    pub const fn from_status(status: i32) -> Self {
        match (status & 0x7f) as u8 {
            0 => Self::Code(((status >> 8) & 0xff) as u8),
            signal => Self::Signal(signal),
        }
    }

    /// Whether it succeeded.
    pub const fn is_success(self) -> bool {
        matches!(self, Self::Code(0))
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Code(code) => write!(f, "exited with code {code}"),
            Self::Signal(signal) => match nix::sys::signal::Signal::try_from(i32::from(signal)) {
                Ok(name) => write!(f, "was killed by {name}"),
                Err(_) => write!(f, "was killed by signal {signal}"),
            },
        }
    }
}

/// Whether a thread is on its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It runs: what it does, it does because its program says so.
    Alive,
    /// It is exiting, and this is how.
    Exiting(Exit),
    /// It is exiting; we may not read how, but a signal played a part.
    UnreadableSignalled,
    /// It is exiting; we may not read how.
    Unreadable,
}

impl Ending {
    /// Why what this thread closes now cannot be taken for finished; `None` when it can.
    pub fn failure(self) -> Option<String> {
        match self {
            Self::Exiting(exit) if !exit.is_success() => Some(exit.to_string()),
            Self::UnreadableSignalled => Some("was killed, or exited with other threads running".to_owned()),
            Self::Alive | Self::Exiting(_) | Self::Unreadable => None,
        }
    }
}

/// User program or kernel thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum TaskKind {
    Program,
    Kernel,
}

/// Who opens or writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opener {
    /// The process.
    pub process: ProcessId,
    /// Its command name.
    pub name: String,
    /// A thread of the kernel closes whenever it likes.
    pub kind: TaskKind,
}

/// Who closes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closer {
    /// Its thread group. Compared with that of an opener without the start time, which cannot be had here: the number
    /// would have to come round to a process that inherited the very descriptor.
    pub tgid: u32,
    /// Its command name.
    pub name: String,
    /// A thread of the kernel closes whenever it likes.
    pub kind: TaskKind,
    /// Whether it is dying.
    pub ending: Ending,
}

impl Closer {
    /// Whether it belongs to this process.
    pub fn is_of(&self, process: ProcessId) -> bool {
        self.tgid == process.tgid
    }
}

impl fmt::Display for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]", self.name, self.process.tgid)
    }
}

impl fmt::Display for Closer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]", self.name, self.tgid)
    }
}

/// Looks at the thread behind an OPEN, CREATE, WRITE or SETATTR, by the number the request carries. `None` when it is gone,
/// or 0, or in a pid namespace we do not see.
pub fn opener(thread: u32) -> Option<Opener> {
    let tgid = Status::read(thread)?.tgid;
    let stat = Stat::read(tgid)?;
    Some(Opener { process: ProcessId { tgid, start_ticks: stat.start_ticks }, kind: stat.kind(), name: stat.name })
}

/// The process of an [`opener`].
pub fn identify(thread: u32) -> Option<ProcessId> {
    opener(thread).map(|opener| opener.process)
}

/// Looks at the thread behind a FLUSH. `None` as for [`opener`].
pub fn closer(thread: u32) -> Option<Closer> {
    let status = Status::read(thread)?;
    let (kind, ending) = match status.memory {
        Memory::Present => (TaskKind::Program, Ending::Alive),
        Memory::GivenUp => Stat::read(thread).map(|stat| (stat.kind(), stat.ending(thread)))?,
    };
    // A thread may call itself what it likes; people know the process by its leader's name.
    Some(Closer { tgid: status.tgid, name: command_name(status.tgid).unwrap_or_default(), kind, ending })
}

/// For messages: `dd[1234]`. Takes no lock of the process.
pub fn describe(process: ProcessId) -> String {
    format!("{}[{}]", command_name(process.tgid).as_deref().unwrap_or("process"), process.tgid)
}

fn command_name(process: u32) -> Option<String> {
    let name = fs::read(format!("/proc/{process}/comm")).ok()?;
    Some(String::from_utf8_lossy(&name).trim_end_matches('\n').to_owned())
}

/// Whether the process still runs (one that waits to be reaped does not). Waits while it is in execve(2).
pub fn is_running(process: ProcessId) -> bool {
    Stat::read(process.tgid).is_some_and(|stat| stat.start_ticks == process.start_ticks && !stat.is_zombie())
}

/// How a process ended that its parent has not reaped yet.
pub(in crate::fs) enum Remains {
    /// It ended like this.
    Exit(Exit),
    /// It is there, but we may not read how it ended.
    Hidden,
    /// It has been reaped, or the number is another's.
    Gone,
}

/// Looks at a process that has ended.
pub(in crate::fs) fn remains(process: ProcessId) -> Remains {
    let Some(stat) = Stat::read(process.tgid).filter(|stat| stat.start_ticks == process.start_ticks) else {
        return Remains::Gone;
    };
    match stat.exit(process.tgid) {
        Some(exit) if stat.is_zombie() => Remains::Exit(exit),
        _ => Remains::Hidden,
    }
}

/// The fields of `/proc/<thread>/stat` that matter here.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    name: String,
    state: u8,
    flags: u64,
    start_ticks: u64,
    /// As wait(2) has it; 0 also when we may not read it.
    exit_status: i32,
}

impl Stat {
    fn read(thread: u32) -> Option<Self> {
        if thread == 0 {
            return None;
        }
        Self::parse(&fs::read(format!("/proc/{thread}/stat")).ok()?)
    }

    /// The name stands in brackets and may itself hold brackets, spaces and bytes that are no text; the last bracket ends it.
    fn parse(line: &[u8]) -> Option<Self> {
        let open = line.iter().position(|&b| b == b'(')?;
        let close = line.iter().rposition(|&b| b == b')')?;
        let name = String::from_utf8_lossy(line.get(open + 1..close)?).into_owned();
        let rest = std::str::from_utf8(line.get(close + 1..)?).ok()?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        // The first after the name is field 3 of the manual page.
        let field = |number: usize| fields.get(number - 3).copied();
        Some(Self {
            name,
            state: *field(3)?.as_bytes().first()?,
            flags: field(9)?.parse().ok()?,
            start_ticks: field(22)?.parse().ok()?,
            exit_status: field(52)?.parse().ok()?,
        })
    }

    fn kind(&self) -> TaskKind {
        if self.flags & PF_KTHREAD != 0 { TaskKind::Kernel } else { TaskKind::Program }
    }

    fn is_zombie(&self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x')
    }

    fn ending(&self, thread: u32) -> Ending {
        if self.flags & PF_EXITING == 0 {
            return Ending::Alive;
        }
        match self.exit(thread) {
            Some(exit) => Ending::Exiting(exit),
            None if self.flags & PF_SIGNALED != 0 => Ending::UnreadableSignalled,
            None => Ending::Unreadable,
        }
    }

    /// A code of 0 counts only when we may read codes at all; `exe` asks for the same right (ptrace(2), read access) and
    /// answers EACCES without it.
    fn exit(&self, thread: u32) -> Option<Exit> {
        let denied = || {
            let exe = fs::read_link(format!("/proc/{thread}/exe"));
            exe.is_err_and(|e| e.kind() == io::ErrorKind::PermissionDenied)
        };
        (self.exit_status != 0 || !denied()).then(|| Exit::from_status(self.exit_status))
    }
}

/// What `/proc/<thread>/status` tells without taking a lock of the process.
struct Status {
    tgid: u32,
    memory: Memory,
}

/// Whether a thread has an address space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Memory {
    Present,
    /// It is exiting and beyond that point, or it never had one: a thread of the kernel.
    GivenUp,
}

impl Status {
    fn read(thread: u32) -> Option<Self> {
        if thread == 0 {
            return None;
        }
        let text = fs::read(format!("/proc/{thread}/status")).ok()?;
        let line = |name: &[u8]| text.split(|&b| b == b'\n').find_map(|line| line.strip_prefix(name));
        let tgid = std::str::from_utf8(line(b"Tgid:")?).ok()?.trim().parse().ok()?;
        let memory = if line(b"VmSize:").is_some() { Memory::Present } else { Memory::GivenUp };
        Some(Self { tgid, memory })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn statuses_as_wait_has_them() {
        assert_eq!(Exit::from_status(0), Exit::Code(0));
        assert_eq!(Exit::from_status(768), Exit::Code(3));
        assert_eq!(Exit::from_status(9), Exit::Signal(9));
        assert_eq!(Exit::from_status(0x80 | 11), Exit::Signal(11), "with a core dump");
        assert_eq!(Exit::Signal(9).to_string(), "was killed by SIGKILL");
        assert_eq!(Exit::Code(3).to_string(), "exited with code 3");
    }

    #[test]
    fn names_with_brackets_do_not_confuse() {
        let fields: Vec<String> = (3..=52).map(|n| if n == 3 { "Z".into() } else { n.to_string() }).collect();
        let stat = Stat::parse(format!("12 (a) b (c) {}\n", fields.join(" ")).as_bytes()).unwrap();
        let expected = Stat { name: "a) b (c".into(), state: b'Z', flags: 9, start_ticks: 22, exit_status: 52 };
        assert_eq!(stat, expected);
        assert_eq!(Stat::parse(b"12 (x) R 1 2"), None);
        assert_eq!(Stat::parse(b")("), None);
    }

    #[test]
    fn a_thread_is_found_to_belong_to_its_process() {
        let own = opener(std::process::id()).unwrap();
        // A scoped thread joins at the end of the scope, so its /proc entry lives while we look.
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let tid = u32::try_from(nix::unistd::gettid().as_raw()).unwrap();
                assert_ne!(tid, std::process::id());
                assert_eq!(opener(tid).unwrap(), own);
                assert_eq!(own.kind, TaskKind::Program);
                let closer = closer(tid).unwrap();
                assert_eq!((closer.tgid, &closer.name, closer.ending), (own.process.tgid, &own.name, Ending::Alive));
            });
        });
        assert!(is_running(own.process));
        assert!(!is_running(ProcessId { start_ticks: own.process.start_ticks + 1, ..own.process }));
        assert_eq!((opener(0), closer(0)), (None, None));
        let kthreadd = opener(2).filter(|found| found.name == "kthreadd");
        assert!(kthreadd.is_none_or(|found| found.kind == TaskKind::Kernel), "where it is seen");
    }

    #[test]
    fn a_process_that_waits_to_be_reaped_shows_how_it_ended() {
        let mut child = Command::new("sh").args(["-c", "exit 3"]).stdin(Stdio::null()).spawn().unwrap();
        let process = opener(child.id()).unwrap().process;
        let exit = (0..500).find_map(|_| match remains(process) {
            Remains::Exit(exit) => Some(exit),
            _ => {
                std::thread::sleep(std::time::Duration::from_millis(10));
                None
            }
        });
        assert_eq!(exit, Some(Exit::Code(3)));
        let dying = closer(child.id()).unwrap();
        assert_eq!(dying.ending, Ending::Exiting(Exit::Code(3)));
        assert_eq!(dying.ending.failure().as_deref(), Some("exited with code 3"));
        assert!(!is_running(process));
        child.wait().unwrap();
        assert!(matches!(remains(process), Remains::Gone));
        assert_eq!(describe(process), format!("process[{}]", process.tgid));
    }
}
