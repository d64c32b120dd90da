//! The command line: translates arguments to verbs and their results to text or JSON.

mod args;
mod args_repair;
mod args_s3;
mod backup_due;
mod change;
mod data;
mod exchange;
mod exit;
mod gc;
mod inspect;
mod key;
mod manuals;
mod mount;
mod output;
mod progress;
mod refresh;
mod remount;
mod repair;
mod retain;
mod scrub;
mod secret;
mod setup;
mod status;

use crate::cli::args::{Arguments, Verb};
use crate::cli::setup::Context;
use clap::Parser;
use std::ffi::OsString;
use std::process::ExitCode;

pub use args::command;

/// Runs the program with its arguments, the first of which is its own name. Errors are printed, never returned.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    setup::hush_panics();
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => return exit::usage(&error),
    };
    let context = Context::new(&arguments.globals);
    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| dispatch(&context, arguments.verb)));
    match done {
        Ok(Ok(code)) => code,
        Ok(Err(error)) => exit::report(&error),
        // The hook has said what happened.
        Err(_) => ExitCode::from(exit::OTHER),
    }
}

fn dispatch(context: &Context, verb: Verb) -> anyhow::Result<ExitCode> {
    let done = |result: anyhow::Result<()>| result.map(|()| ExitCode::SUCCESS);
    match verb {
        Verb::Init(args) => done(setup::init(context, &args)),
        Verb::Mount(args) => done(mount::mount(context, &args)),
        Verb::Umount(args) => done(mount::umount(context, &args)),
        Verb::Status(args) => done(status::status(context, &args)),
        Verb::Refresh => refresh::refresh(context),
        Verb::Backup(args) => data::backup(context, &args),
        Verb::BackupDue(args) => backup_due::backup_due(context, &args),
        Verb::Restore(args) => data::restore(context, &args),
        Verb::Ls(args) => done(inspect::ls(context, &args)),
        Verb::Show(args) => done(inspect::show(context, &args)),
        Verb::Diff(args) => done(inspect::diff(context, &args)),
        Verb::Du(args) => done(inspect::du(context, &args)),
        Verb::Stats(args) => done(inspect::stats(context, &args)),
        Verb::Tag(args) => done(change::tag(context, &args)),
        Verb::Untag(args) => done(change::untag(context, &args)),
        Verb::Expire(args) => done(change::expire(context, &args)),
        Verb::Protect(args) => done(change::protect(context, &args, true)),
        Verb::Unprotect(args) => done(change::protect(context, &args, false)),
        Verb::Rm(args) => done(change::rm(context, &args)),
        Verb::Gc(args) => gc::gc(context, &args),
        Verb::Due(args) => done(retain::due(context, &args)),
        Verb::Sla(args) => retain::sla(context, &args),
        Verb::Prune(args) => done(retain::prune(context, &args)),
        Verb::Adopt(args) => done(refresh::adopt(context, &args)),
        Verb::Export(args) => done(exchange::export(context, &args)),
        Verb::Import(args) => done(exchange::import(context, &args)),
        Verb::Scrub(args) => scrub::scrub(context, &args),
        Verb::Repair(args) => repair::repair(context, &args),
        Verb::Key(args) => done(key::key(context, &args)),
        Verb::Rekey(args) => done(key::rekey(context, &args)),
        Verb::Manuals(args) => done(manuals::manuals(&args)),
        Verb::Rebuild(args) => exchange::rebuild(context, &args),
    }
}
