//! Asking for a passphrase on the terminal, without showing it.

use crate::ops::OpsError;
use crate::seal::Secret;
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use zeroize::Zeroizing;

/// Longer than anybody types.
const LINE_MAX_BYTES: usize = 4096;

/// Asks for a new passphrase, twice.
///
/// # Errors
/// When there is no terminal, or the two differ.
pub fn ask_new_passphrase() -> Result<Secret, OpsError> {
    let failed = |error: io::Error| {
        OpsError::refused(format!("no passphrase can be asked for ({error}): name a file with --new-passphrase-file"))
    };
    let mut terminal = OpenOptions::new().read(true).write(true).open("/dev/tty").map_err(failed)?;
    let first = ask(&mut terminal, "New passphrase: ").map_err(failed)?;
    let second = ask(&mut terminal, "Again: ").map_err(failed)?;
    if *first != *second {
        return Err(OpsError::refused("the two passphrases differ: nothing was changed"));
    }
    Ok(Secret::passphrase(first.to_vec()))
}

/// Shows nothing of what is typed until it is dropped.
struct Hidden<'a> {
    terminal: &'a File,
    before: Termios,
}

impl<'a> Hidden<'a> {
    fn new(terminal: &'a File) -> io::Result<Self> {
        let before = tcgetattr(terminal)?;
        let mut hidden = before.clone();
        hidden.local_flags.remove(LocalFlags::ECHO);
        hidden.local_flags.insert(LocalFlags::ECHONL);
        tcsetattr(terminal, SetArg::TCSAFLUSH, &hidden)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Hidden<'_> {
    fn drop(&mut self) {
        // The terminal may be gone.
        let _ = tcsetattr(self.terminal, SetArg::TCSAFLUSH, &self.before);
    }
}

fn ask(terminal: &mut File, prompt: &str) -> io::Result<Zeroizing<Vec<u8>>> {
    terminal.write_all(prompt.as_bytes())?;
    let _hidden = Hidden::new(&*terminal)?;
    // Room from the beginning: growing would leave copies behind.
    let mut line = Zeroizing::new(Vec::with_capacity(LINE_MAX_BYTES));
    let mut byte = Zeroizing::new([0]);
    let mut input = &*terminal;
    while input.read(&mut *byte)? == 1 && byte[0] != b'\n' {
        if line.len() == LINE_MAX_BYTES {
            return Err(io::Error::other("it is too long"));
        }
        line.push(byte[0]);
    }
    Ok(line)
}
