//! The settings in force, for people.

use crate::control::sizes::show_age;
use crate::control::{Key, Settings, retention};
use crate::target::s3::CredentialSource;
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
        line(Key::ProtectYounger, show_age(self.protect_younger).into());
        let (rest, tables) = retention::describe(&self.policy);
        line(Key::Schedules, rest.schedules.into());
        line(Key::Keep, rest.keep.map(|keep| keep.to_string()).unwrap_or_default().into());
        line(Key::TimeZone, self.policy.zone.name().unwrap_or("system").into());
        line(Key::TemporaryNames, self.temporary.patterns().to_vec().into());
        line(Key::CommitTimeout, format!("{}s", self.commit_timeout.as_secs()).into());
        line(Key::DraftExpireDays, (self.draft_expire.as_secs() / 86_400).to_string().into());
        line(Key::RefreshInterval, format!("{}s", self.refresh_interval.map_or(0, |every| every.as_secs())).into());
        line(Key::CacheSize, self.cache_bytes.to_string().into());
        line(Key::CacheDir, path(&self.cache_dir));
        line(Key::LogFile, path(&self.log_file));
        line(Key::AllowOther, self.allow_other.into());
        let interval = self.gc_interval.map_or_else(|| "never".to_owned(), |every| format!("{}s", every.as_secs()));
        line(Key::GcInterval, interval.into());
        line(Key::GcFreePercent, i64::from(self.gc_free_percent).into());
        let s3 = &self.s3;
        let texts = [
            (Key::S3Endpoint, &s3.endpoint),
            (Key::S3StorageClass, &s3.storage_class),
            (Key::S3Encryption, &s3.encryption),
            (Key::S3KmsKey, &s3.kms_key),
        ];
        for (key, value) in texts {
            if let Some(value) = value {
                line(key, value.clone().into());
            }
        }
        line(Key::S3Region, s3.region.clone().into());
        line(Key::S3Style, super::s3::style_name(s3.style).into());
        // What is in the environment is not part of the configuration.
        if let CredentialSource::File { path: file, config, profile } = &s3.credentials {
            // A profile may stand in the configuration beside it only, which goes without saying.
            if config.is_none() || file.exists() {
                line(Key::S3CredentialsFile, path(file));
            }
            line(Key::S3Profile, profile.clone().into());
        }
        if let Some(file) = &s3.ca_file {
            line(Key::S3CaFile, path(file));
        }
        line(Key::S3Concurrency, (s3.concurrency as i64).into());
        line(Key::S3ConnectTimeout, format!("{}s", s3.connect_timeout.as_secs()).into());
        line(Key::S3Timeout, format!("{}s", s3.timeout.as_secs()).into());
        for (key, throttle) in [(Key::UploadLimit, &self.limits.upload), (Key::DownloadLimit, &self.limits.download)] {
            line(key, throttle.rate().map_or("none".into(), |rate| rate.to_string()).into());
        }
        line(Key::RestoreToSources, self.restore_to_sources.word().into());
        if let CredentialSource::Given(_) = &s3.credentials {
            // A comment: whoever makes this the configuration file has to put in what was masked.
            for key in [Key::S3AccessKey, Key::S3SecretKey] {
                let _ = writeln!(text, "# {} = \"***\"", key.name());
            }
        }
        text += &tables;
        for (name, source) in &self.sources {
            // A name that is no bare key of TOML stands in quotes.
            let bare = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
            let name = if bare { name.clone() } else { Value::from(name.as_str()).to_string() };
            let _ = writeln!(text, "\n[sources.{name}]");
            for (key, value) in source.settings() {
                let _ = writeln!(text, "{key} = {}", Value::from(value));
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::values::Surroundings;

    #[test]
    fn tables_are_shown_as_tables() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("c.toml");
        let surroundings = Surroundings { variable: &|_| None, is_root: true };
        let flags = [(Key::Config, file.to_str().unwrap().to_owned())];
        let text = "[schedule.daily]\nkeep = 3\n[schedule.\"my.own\"]\ninterval = '2w'\nkeep = 4\nsla = '1d'\n\
                    [names.'vm*']\nschedules = ['daily', 'my.own']\nkeep = 'latest3,days4'\n[names.'*']\nschedules = ['weekly']\n";
        std::fs::write(&file, text).unwrap();
        let settings = Settings::resolve(&flags, &[], &surroundings).unwrap();
        let shown = settings.describe();
        assert!(shown.contains("schedules = [\"weekly\"]\n") && shown.contains("[schedule.\"my.own\"]"), "{shown}");
        std::fs::write(&file, &shown).unwrap();
        let again = Settings::resolve(&flags, &[], &surroundings).unwrap();
        assert_eq!(again.describe(), shown);
        let vm = crate::words::name::Name::new("vm1").unwrap();
        assert_eq!(again.policy.schedules_of(&vm), settings.policy.schedules_of(&vm));
        assert_eq!(again.policy.schedules_of(&vm)[0].keep, 3);
    }

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
            text(Key::ProtectYounger, "36h"),
            text(Key::Schedules, "daily,weekly"),
            text(Key::Keep, "latest3,days2"),
            text(Key::TimeZone, "Europe/Berlin"),
            text(Key::TemporaryNames, "*.part,*.tmp"),
            text(Key::CommitTimeout, "90s"),
            text(Key::DraftExpireDays, "4"),
            text(Key::RefreshInterval, "5m"),
            text(Key::CacheSize, "2G"),
            text(Key::CacheDir, "/c"),
            text(Key::AllowOther, "yes"),
            text(Key::S3Endpoint, "http://127.0.0.1:1"),
            text(Key::S3Region, "eu-west-1"),
            text(Key::S3Style, "virtual"),
            text(Key::S3CredentialsFile, "/c"),
            text(Key::S3Profile, "other"),
            text(Key::S3CaFile, "/ca.pem"),
            text(Key::S3StorageClass, "STANDARD_IA"),
            text(Key::S3Encryption, "aws:kms"),
            text(Key::S3KmsKey, "alias/backups"),
            text(Key::S3Concurrency, "3"),
            text(Key::S3ConnectTimeout, "4s"),
            text(Key::S3Timeout, "5s"),
            text(Key::UploadLimit, "10M"),
            text(Key::RestoreToSources, "new"),
        ];
        let sources = "\n[sources.\"a b\"]\nkind = \"file\"\npath = \"/srv\"\n";
        std::fs::write(&file, sources).unwrap();
        let shown = Settings::resolve(&flags, &[], &surroundings).unwrap().describe();
        std::fs::write(&file, &shown).unwrap();
        assert_eq!(Settings::resolve(&flags[..1], &[], &surroundings).unwrap().describe(), shown);
        // `config` says where the file is, two ways to open a repository need not both be set, and a file of credentials stands
        // for access key, secret key and session token.
        assert!(shown.ends_with(sources), "{shown}");
        assert_eq!(shown.lines().count() - sources.lines().count(), Key::ALL.len() - 5, "{shown}");
    }
}
