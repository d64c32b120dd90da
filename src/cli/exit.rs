//! Exit codes and the one sentence an error is told in.

use crate::control::SetupError;
use crate::format::layout;
use crate::ops::error::failure_of;
use crate::ops::remove::RemoveError;
use crate::ops::{Failure, OpsError};
use crate::repo::RepoError;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::process::ExitCode;

/// Refused, not set up, or not understood.
pub const REFUSED: u8 = 1;
/// `sla`: a backup is late.
pub const LATE: u8 = 3;
/// `sla`: nothing is late, but a schedule was not met.
pub const UNMET: u8 = 4;
/// The source of a backup cannot be read.
pub const SOURCE: u8 = 5;
/// The target failed.
pub const TARGET: u8 = 6;
/// Damage was found.
pub const DAMAGE: u8 = 20;
/// Anything else.
pub const OTHER: u8 = 100;
/// Stopped by a signal.
pub const INTERRUPTED: u8 = 130;

/// The code of a kind of failure.
pub const fn code(failure: Failure) -> u8 {
    match failure {
        Failure::Refused => REFUSED,
        Failure::Source => SOURCE,
        Failure::Target => TARGET,
        Failure::Damage => DAMAGE,
        Failure::Other => OTHER,
        Failure::Interrupted => INTERRUPTED,
    }
}

/// Prints what clap has to say: help and the version are no errors.
pub fn usage(error: &clap::Error) -> ExitCode {
    // Nobody is left to tell when even this cannot be printed.
    let _ = error.print();
    if error.use_stderr() { ExitCode::from(REFUSED) } else { ExitCode::SUCCESS }
}

/// Prints an error and gives its code.
pub fn report(error: &anyhow::Error) -> ExitCode {
    // `backyfs ls | head`: who reads has seen enough.
    let piped = error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe);
    if piped {
        return ExitCode::SUCCESS;
    }
    let text = sentence(error);
    let _ = writeln!(io::stderr(), "backyfs: {text}");
    if failure(error) == Some(Failure::Damage) && text.starts_with(layout::CONDEMNED) {
        let _ = writeln!(
            io::stderr(),
            "backyfs: without that list of condemned packs nothing is published or deleted: `backyfs repair` on a host that knows it \
             puts it back; when none does, `backyfs repair --give-up` goes on without it"
        );
    }
    if error.chain().any(|cause| matches!(repo_error(cause), Some(RepoError::Key(error)) if error.is_damage())) {
        let advice = "`backyfs repair` on a host that has used the repository puts header and key rings back";
        let _ = writeln!(io::stderr(), "backyfs: {advice}");
    }
    ExitCode::from(code_of(error))
}

/// The code of an error.
pub fn code_of(error: &anyhow::Error) -> u8 {
    failure(error).map_or(REFUSED, code)
}

/// An error with its causes on one line, each said once.
pub fn sentence(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            let _ = write!(text, ": {cause}");
        }
    }
    text.replace('\n', " ")
}

/// The error of the repository that a cause is or carries.
fn repo_error<'a>(cause: &'a (dyn std::error::Error + 'static)) -> Option<&'a RepoError> {
    if let Some(error) = cause.downcast_ref::<RepoError>() {
        return Some(error);
    }
    match (cause.downcast_ref::<RemoveError>(), cause.downcast_ref::<SetupError>()) {
        (Some(RemoveError::Repo(error)), _) | (_, Some(SetupError::Repo(error))) => Some(error),
        _ => None,
    }
}

fn failure(error: &anyhow::Error) -> Option<Failure> {
    error.chain().find_map(|cause| {
        if let Some(error) = cause.downcast_ref::<OpsError>() {
            return Some(error.failure());
        }
        repo_error(cause).map(failure_of).or_else(|| cause.downcast_ref::<io::Error>().map(|_| Failure::Other))
    })
}
