//! The settings in force, for people.

use crate::control::{Key, Settings};
use std::fmt::Write as _;
use toml::Value;

impl Settings {
    /// One setting a line, as the configuration file would have it. Secrets are in files that are only named.
    pub fn describe(&self) -> String {
        let mut text = String::new();
        let mut line = |key: Key, value: Value| {
            let _ = writeln!(text, "{} = {value}", key.name());
        };
        let path = |path: &std::path::Path| Value::from(path.to_string_lossy().into_owned());
        line(Key::Target, self.target.to_string().into());
        line(Key::StateDir, path(&self.state_dir));
        for (key, file) in [(Key::KeyFile, &self.key_file), (Key::PassphraseFile, &self.passphrase_file)] {
            if let Some(file) = file {
                line(key, path(file));
            }
        }
        line(Key::Memory, self.memory_bytes.to_string().into());
        line(Key::MinAgeDays, i64::from(self.min_age_days).into());
        line(Key::TemporaryNames, self.temporary.patterns().to_vec().into());
        line(Key::CommitTimeout, format!("{}s", self.commit_timeout.as_secs()).into());
        line(Key::DraftExpireDays, (self.draft_expire.as_secs() / 86_400).to_string().into());
        line(Key::LogFile, path(&self.log_file));
        line(Key::AllowOther, self.allow_other.into());
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::settings::Surroundings;

    #[test]
    fn what_is_shown_can_be_the_configuration_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("c.toml");
        let surroundings = Surroundings { variable: &|_| None, is_root: true };
        let text = |key, text: &str| (key, text.to_owned());
        let flags = [
            text(Key::Config, file.to_str().unwrap()),
            text(Key::Target, "dir:/a \"b\""),
            text(Key::PassphraseFile, "/p"),
            text(Key::Memory, "100M"),
            text(Key::MinAgeDays, "3"),
            text(Key::TemporaryNames, "*.part,*.tmp"),
            text(Key::CommitTimeout, "90s"),
            text(Key::DraftExpireDays, "4"),
            text(Key::AllowOther, "yes"),
        ];
        std::fs::write(&file, "").unwrap();
        let shown = Settings::resolve(&flags, &[], &surroundings).unwrap().describe();
        std::fs::write(&file, &shown).unwrap();
        assert_eq!(Settings::resolve(&flags[..1], &[], &surroundings).unwrap().describe(), shown);
        // `config` says where the file is, and two ways to open a repository need not both be set.
        assert_eq!(shown.lines().count(), Key::ALL.len() - 2, "{shown}");
    }
}
