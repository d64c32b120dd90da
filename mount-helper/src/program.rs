//! Finding and running `backyfs`.

use crate::invocation::How;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where packages and administrators put it; mount(8) may run with a PATH that lacks the second.
const USUAL: [&str; 2] = ["/usr/bin/backyfs", "/usr/local/bin/backyfs"];

/// Runs `backyfs` and waits for it. What it says goes where ours goes.
///
/// # Errors
/// A sentence when it could not be run; nothing when it failed, since then it has said why.
pub fn run(arguments: &[&str], how: How) -> Result<(), String> {
    let program = find().ok_or("there is no program `backyfs` beside this one, in /usr/bin, /usr/local/bin or PATH")?;
    if how.is_verbose {
        println!("{} {}", program.display(), arguments.join(" "));
    }
    if how.is_fake {
        return Ok(());
    }
    let ended = Command::new(&program).args(arguments).status();
    match ended {
        Ok(status) if status.success() => Ok(()),
        Ok(status) if status.code().is_some() => Err(String::new()),
        Ok(status) => Err(format!("{} was ended by a signal ({status})", program.display())),
        Err(error) => Err(format!("{}: {error}", program.display())),
    }
}

/// The one beside this program, wherever links to it lie; then the usual ones.
fn find() -> Option<PathBuf> {
    let beside = std::env::current_exe().ok().and_then(|own| Some(own.parent()?.join("backyfs")));
    let in_path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&in_path).filter(|dir| dir.is_absolute()).map(|dir| dir.join("backyfs"));
    let candidates = beside.into_iter().chain(USUAL.map(PathBuf::from)).chain(in_path);
    candidates.into_iter().find(|path| is_program(path))
}

fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}
