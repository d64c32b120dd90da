//! The settings in force, for people.

use crate::control::Settings;
use std::fmt::Write as _;

impl Settings {
    /// One setting a line, as the configuration file would have it. Secrets are in files that are only named.
    pub fn describe(&self) -> String {
        let mut text = String::new();
        let mut line = |key: &str, value: &dyn std::fmt::Display| {
            let _ = writeln!(text, "{key} = {value}");
        };
        line("target", &self.target);
        line("state-dir", &self.state_dir.display());
        for (key, file) in [("key-file", &self.key_file), ("passphrase-file", &self.passphrase_file)] {
            if let Some(file) = file {
                line(key, &file.display());
            }
        }
        line("memory", &self.memory_bytes);
        line("min-age-days", &self.min_age_days);
        line("commit-timeout", &format_args!("{}s", self.commit_timeout.as_secs()));
        line("draft-expire-days", &(self.draft_expire.as_secs() / 86_400));
        line("log-file", &self.log_file.display());
        line("allow-other", &self.allow_other);
        text
    }
}
