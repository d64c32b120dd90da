//! The notes of mount(8): `/run/mount/utab`. umount(8), run by root, looks at the mount table only for what has a note there; for
//! anything else it asks the kernel what kind of filesystem it is, hears `fuse` without a subtype, and does not find our helper, which
//! waits until everything is durable.

use crate::fuse::options::MountOptions;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Stdio};

const UTAB: &str = "/run/mount/utab";
/// An option that means nothing. mount(8) keeps notes only of what has options that are not the kernel's.
const NOTE: &str = "x-backyfs";
/// The same of what needs the network. When mount(8) has called us, it finds our note and makes none of its own, so ours must
/// hold the option that `umount -a -O _netdev`, findmnt(8) and systemd look for.
const NETWORK_NOTE: &str = "x-backyfs,_netdev";

/// Has mount(8) make a note of the mount at `dir` (a resolved path), unless it has one. Where that does not work, umount(8) returns
/// before the daemon has ended, and nothing else is lost.
pub(super) fn note(dir: &Path, fs_type: &str, options: &MountOptions) {
    if !nix::unistd::geteuid().is_root() || has_note(&fs::read(UTAB).unwrap_or_default(), dir) {
        return;
    }
    let note = if options.needs_network { NETWORK_NOTE } else { NOTE };
    let mut command = Command::new("mount");
    // Neither mounts anything nor calls a helper, nor looks at the directory.
    command
        .args(["--fake", "--internal-only", "--no-canonicalize", "-t", fs_type, "-o", note, "--"])
        .arg(&options.source)
        .arg(dir);
    let done = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !done.as_ref().is_ok_and(std::process::ExitStatus::success) {
        tracing::debug!("mount(8) took no note of {}: {done:?}", dir.display());
    }
}

fn has_note(utab: &[u8], dir: &Path) -> bool {
    // As mount(8) writes paths: space, tab, newline and backslash in octal.
    let mut field = b"TARGET=".to_vec();
    for &byte in dir.as_os_str().as_bytes() {
        match byte {
            b' ' | b'\t' | b'\n' | b'\\' => field.extend(format!("\\{byte:03o}").bytes()),
            byte => field.push(byte),
        }
    }
    utab.split(|&byte| byte == b'\n').any(|line| line.split(|&byte| byte == b' ').any(|other| other == field))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_of_one_directory() {
        let utab = b"SRC=dir:/x TARGET=/m ROOT=/ OPTS=_netdev\nSRC=none TARGET=/a\\040b ROOT=/ OPTS=x-backyfs\n";
        let noted = |dir: &str| has_note(utab, Path::new(dir));
        assert_eq!([noted("/m"), noted("/a b"), noted("/m/n"), noted("/a")], [true, true, false, false]);
    }
}
