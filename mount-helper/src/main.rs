//! What mount(8) and umount(8) call for backyfs: one program under the names `mount.backyfs`, `mount.fuse.backyfs`, `umount.backyfs`
//! and `umount.fuse.backyfs`. It translates their conventions (mount(8), "External helpers") to those of `backyfs`, and decides
//! nothing else. Its exit codes are those of mount(8).

mod invocation;
mod options;
mod program;

use crate::invocation::{Invocation, Mount, Umount};
use std::process::ExitCode;

/// mount(8), umount(8): incorrect invocation.
const USAGE: u8 = 1;
/// mount(8), umount(8): it failed.
const FAILURE: u8 = 32;

fn main() -> ExitCode {
    let mut arguments = std::env::args();
    let name = arguments.next().unwrap_or_default();
    let name = name.rsplit('/').next().unwrap_or_default().to_owned();
    let arguments: Vec<String> = arguments.collect();
    let done = match invocation::parse(&name, &arguments) {
        Ok(Invocation::Mount(mount)) => run_mount(&mount),
        Ok(Invocation::Umount(umount)) => run_umount(&umount),
        Ok(Invocation::Version) => {
            println!("{name} {}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
        Err(problem) => {
            eprintln!("{name}: {problem}");
            return ExitCode::from(USAGE);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            // Without a text `backyfs` itself has said it.
            if !problem.is_empty() {
                eprintln!("{name}: {problem}");
            }
            ExitCode::from(FAILURE)
        }
    }
}

fn run_mount(mount: &Mount) -> Result<(), String> {
    let list = options::translate(&mount.source, &mount.options)?;
    let arguments = ["mount", "--from-fstab", "-o", &list, "--", &mount.dir];
    program::run(&arguments, mount.how)
}

fn run_umount(umount: &Umount) -> Result<(), String> {
    let mut arguments = vec!["umount", "--from-fstab"];
    match (umount.is_forced, umount.is_lazy) {
        // umount(8) takes both; cutting off includes taking it out of sight.
        (true, _) => arguments.push("--force"),
        (false, true) => arguments.push("--lazy"),
        (false, false) => {}
    }
    arguments.extend(["--", &umount.dir]);
    program::run(&arguments, umount.how)
}
