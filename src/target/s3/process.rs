//! Keys that a program prints (AWS SDKs Reference Guide: "Process credential provider").

use crate::target::s3::credentials::Issued;
use crate::target::s3::issuer::Answer;
use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

const WHO: &str = "credential_process";
/// It may ask a service, or an agent that unlocks something; not a person.
const PATIENCE: Duration = Duration::from_secs(60);
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);
const ANSWER_MAX_BYTES: u64 = 1 << 20;

/// Runs it and gets keys.
///
/// # Errors
/// A sentence. What it printed is left out, also what it said of its troubles: both may hold secrets.
pub(super) fn issue(command: &str) -> Result<Issued, String> {
    let mut child = Command::new("/bin/sh")
        .args(["-c", command])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("{WHO} cannot be started: {error}"))?;
    let mut output = child.stdout.take().expect("it was piped");
    let reader = std::thread::spawn(move || {
        let mut text = Zeroizing::new(Vec::new());
        output.by_ref().take(ANSWER_MAX_BYTES).read_to_end(&mut text).map(|_| text)
    });
    let began = Instant::now();
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if began.elapsed() < PATIENCE => std::thread::sleep(BETWEEN_LOOKS),
            waited => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(match waited {
                    Err(error) => format!("{WHO} cannot be waited for: {error}"),
                    Ok(_) => format!("{WHO} did not end within {} s", PATIENCE.as_secs()),
                });
            }
        }
    };
    if !status.success() {
        return Err(format!("{WHO} failed ({status}): run it by hand to see why"));
    }
    match reader.join() {
        Ok(Ok(text)) => Answer::parse(WHO, &text),
        _ => Err(format!("{WHO} could not be read")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_prints_keys_or_is_named() {
        let json = r#"{"Version": 1, "AccessKeyId": "A", "SecretAccessKey": "geheim", "SessionToken": "t"}"#;
        assert_eq!(issue(&format!("echo '{json}'")).unwrap().keys.access_key, "A");
        for (command, part) in [
            ("echo geheim >&2; exit 3", "exit status: 3"),
            ("echo geheim", "did not answer with keys"),
            ("/none/geheim", "failed"),
        ] {
            let error = issue(command).unwrap_err();
            assert!(error.contains(part) && !error.contains("geheim"), "{error}");
        }
    }
}
