//! Every global setting, and the places it can be written in: a flag beats a mount option beats an environment variable
//! beats the configuration file beats the default. docs/commands.md has the table.

use crate::control::config_file::{self, ConfigFile};
use crate::control::given::{Given, Key, Origin, SettingsError};
use crate::control::sources_file::{RestoreToSources, Sources, parse_restore};
use crate::control::values::{self, Surroundings, Values, home};
use crate::control::{retention, s3, sizes, sources_file};
use crate::ops::remove::PROTECT_YOUNGER_DEFAULT;
use crate::ops::retain::{KeepRules, NameRule, Policy, Zone};
use crate::repo::MemoryPlan;
use crate::repo::disk_cache::CacheSettings;
use crate::target::s3::Settings as S3Settings;
use crate::target::{Limits, OpenOptions, Requests, TargetSpec};
use crate::words::name::TemporaryNames;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Settings, each in force.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where the repository is.
    pub target: TargetSpec,
    /// Whether no target was named: the repository in the state directory is used, and made when it is needed.
    pub embedded: bool,
    /// Where local state is kept.
    pub state_dir: PathBuf,
    /// Opens the repository.
    pub key_file: Option<PathBuf>,
    /// Opens it, too.
    pub passphrase_file: Option<PathBuf>,
    /// Memory for caches and buffers, in bytes.
    pub memory_bytes: u64,
    /// Younger versions are not deleted without force.
    pub protect_younger: Duration,
    /// Schedules and keep rules.
    pub policy: Policy,
    /// Names that become versions only when renamed.
    pub temporary: TemporaryNames,
    /// A commit that takes longer fails.
    pub commit_timeout: Duration,
    /// Drafts that were never published expire after this.
    pub draft_expire: Duration,
    /// How often a mount learns what other hosts did; `None`: only when it is told to.
    pub refresh_interval: Option<Duration>,
    /// Bytes of the cache on the local disk; 0: there is none.
    pub cache_bytes: u64,
    /// Where it lies.
    pub cache_dir: PathBuf,
    /// Where the daemon writes its log.
    pub log_file: PathBuf,
    /// Whether other users may use the mount.
    pub allow_other: bool,
    /// How often a mount collects; `None`: only when told to.
    pub gc_interval: Option<Duration>,
    /// A mount also collects when less than this share of the target is free; 0: never for that reason.
    pub gc_free_percent: u8,
    /// Whether a mount may write below `sources/`.
    pub restore_to_sources: RestoreToSources,
    /// What stands below `sources/`.
    pub sources: Sources,
    /// How to get to S3.
    pub s3: S3Settings,
    /// Bandwidth. Can be changed while it is in use.
    pub limits: Arc<Limits>,
    /// Counts what is asked of the target.
    pub requests: Arc<Requests>,
    /// Where the paths of secrets and certificates were written, so that an error can say it.
    pub origins: Vec<Given>,
}

/// Paths of what is looked for only later; see [`Settings::origins`].
const PLACED: [Key; 4] = [Key::KeyFile, Key::PassphraseFile, Key::S3CredentialsFile, Key::S3CaFile];

/// How often a mount collects unless told otherwise.
pub const GC_INTERVAL_DEFAULT: Duration = Duration::from_secs(24 * 3600);
/// Below which share of free space it does.
pub const GC_FREE_PERCENT_DEFAULT: u8 = 10;

impl Settings {
    /// How targets are opened.
    pub fn target_options(&self) -> OpenOptions {
        OpenOptions {
            s3: self.s3.clone(),
            limits: Arc::clone(&self.limits),
            requests: Arc::clone(&self.requests),
            patience: self.commit_timeout,
        }
    }

    /// Finds out what is in force.
    ///
    /// # Errors
    /// When something written cannot be understood, wherever it stands and whether or not it is overruled.
    pub fn resolve(
        flags: &[(Key, String)],
        mount_options: &[String],
        surroundings: &Surroundings,
    ) -> Result<Self, SettingsError> {
        let mut layers: Vec<Given> = Vec::new();
        let flag = |(key, text): &(Key, String)| Given { key: *key, text: text.clone(), origin: Origin::Flag };
        layers.extend(flags.iter().map(flag));
        let mut mounted_sources = Sources::new();
        // Of one that is there twice mount(8) means the last.
        for option in mount_options.iter().rev() {
            match option.strip_prefix("source=") {
                Some(text) => {
                    let (name, source) = sources_file::parse_option(text)?;
                    mounted_sources.entry(name).or_insert(source);
                }
                None => layers.push(mount_option(option)?),
            }
        }
        if let Some(open) = layers.iter().find(|given| given.key.is_secret()) {
            return Err(SettingsError::SecretInTheOpen(open.to_string()));
        }
        for key in Key::ALL {
            let set = |name: String| {
                let text = (surroundings.variable)(&name).filter(|text| !text.is_empty());
                text.map(|text| (name, text))
            };
            if let Some((variable, text)) = key.variables().find_map(set) {
                let text = text.to_string_lossy().into_owned();
                layers.push(Given { key, text, origin: Origin::Environment(variable) });
            }
        }
        let config = layers.iter().find(|given| given.key == Key::Config).map(|given| PathBuf::from(&given.text));
        let config = config.or_else(|| default_config(surroundings).filter(|path| path.exists()));
        let (file, mut sources) = match config {
            Some(path) => (config_file::read(&path)?, sources_file::read(&path)?),
            None => (ConfigFile::default(), Sources::new()),
        };
        sources.extend(mounted_sources);
        layers.extend(file.given);
        Ok(Self { sources, ..from_values(&Values::new(&layers)?, surroundings, file.retention)? })
    }
}

impl Settings {
    /// The cache on the local disk, if one is wanted.
    pub fn cache(&self) -> Option<CacheSettings> {
        let (dir, limit_bytes) = (self.cache_dir.clone(), self.cache_bytes);
        (limit_bytes > 0).then_some(CacheSettings { dir, limit_bytes })
    }
}

fn mount_option(option: &str) -> Result<Given, SettingsError> {
    let (name, text) = option.split_once('=').unwrap_or((option, "yes"));
    let key = Key::from_name(name).ok_or_else(|| SettingsError::MountOption(option.to_owned()))?;
    Ok(Given { key, text: text.to_owned(), origin: Origin::MountOption })
}

fn default_config(surroundings: &Surroundings) -> Option<PathBuf> {
    if surroundings.is_root {
        return Some("/etc/backyfs.toml".into());
    }
    home(surroundings, "XDG_CONFIG_HOME", ".config").map(|dir| dir.join("backyfs.toml"))
}

fn default_state_dir(surroundings: &Surroundings) -> Option<PathBuf> {
    if surroundings.is_root {
        return Some("/var/lib/backyfs".into());
    }
    home(surroundings, "XDG_STATE_HOME", ".local/state").map(|dir| dir.join("backyfs"))
}

fn from_values(values: &Values<'_>, surroundings: &Surroundings, tables: Policy) -> Result<Settings, SettingsError> {
    let state_dir = values.path(Key::StateDir)?.or_else(|| default_state_dir(surroundings));
    let state_dir = state_dir.ok_or(SettingsError::NoHome)?;
    let target = values.get(Key::Target, values::parse_target)?;
    let passphrase_file = values.path(Key::PassphraseFile)?;
    let key_file = match (values.path(Key::KeyFile)?, &passphrase_file) {
        (None, None) => Some(state_dir.join("key")),
        (given, _) => given,
    };
    let days = |days: u32| Duration::from_secs(u64::from(days) * 24 * 60 * 60);
    Ok(Settings {
        embedded: target.is_none(),
        target: target.unwrap_or_else(|| TargetSpec::Dir(state_dir.join("repository"))),
        key_file,
        passphrase_file,
        memory_bytes: values.get(Key::Memory, values::parse_memory)?.unwrap_or(MemoryPlan::DEFAULT_BYTES),
        protect_younger: values.get(Key::ProtectYounger, sizes::parse_age)?.unwrap_or(PROTECT_YOUNGER_DEFAULT),
        policy: policy(values, tables)?,
        temporary: TemporaryNames::new(values.get(Key::TemporaryNames, values::parse_patterns)?.unwrap_or_default()),
        commit_timeout: values.get(Key::CommitTimeout, values::parse_timeout)?.unwrap_or(Duration::from_secs(600)),
        draft_expire: days(values.get(Key::DraftExpireDays, values::parse_days)?.unwrap_or(7)),
        refresh_interval: values
            .get(Key::RefreshInterval, values::parse_interval)?
            .unwrap_or(Some(Duration::from_secs(60))),
        cache_bytes: values.get(Key::CacheSize, values::parse_cache)?.unwrap_or(0),
        cache_dir: values.path(Key::CacheDir)?.unwrap_or_else(|| state_dir.join("cache")),
        log_file: values.path(Key::LogFile)?.unwrap_or_else(|| state_dir.join("backyfs.log")),
        allow_other: values.get(Key::AllowOther, values::parse_switch)?.unwrap_or(false),
        gc_interval: values.get(Key::GcInterval, values::parse_interval)?.unwrap_or(Some(GC_INTERVAL_DEFAULT)),
        gc_free_percent: values.get(Key::GcFreePercent, values::parse_percent)?.unwrap_or(GC_FREE_PERCENT_DEFAULT),
        restore_to_sources: values.get(Key::RestoreToSources, parse_restore)?.unwrap_or(RestoreToSources::No),
        sources: Sources::new(),
        s3: s3::settings(values, surroundings)?,
        limits: limits(values)?,
        requests: Arc::default(),
        origins: values.origins(&PLACED),
        state_dir,
    })
}

/// The tables of the file, and the settings for names that none of them matches.
fn policy(values: &Values<'_>, mut policy: Policy) -> Result<Policy, SettingsError> {
    policy.zone = values.get(Key::TimeZone, retention::parse_zone)?.unwrap_or_else(Zone::system);
    let schedules = values.get(Key::Schedules, |text| retention::parse_schedules(text, &policy.schedules))?;
    let keep: Option<Option<KeepRules>> = values.get(Key::Keep, retention::parse_keep)?;
    if schedules.is_some() || keep.is_some() {
        let (schedules, keep) = (schedules.unwrap_or_default(), keep.flatten());
        policy.names.push(NameRule { pattern: "*".to_owned(), schedules, keep });
    }
    Ok(policy)
}

fn limits(values: &Values<'_>) -> Result<Arc<Limits>, SettingsError> {
    let limits = Limits::default();
    limits.upload.set(values.get(Key::UploadLimit, values::parse_rate)?.flatten());
    limits.download.set(values.get(Key::DownloadLimit, values::parse_rate)?.flatten());
    Ok(Arc::new(limits))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsString;
    use std::path::Path;

    fn resolve(
        flags: &[(Key, &str)],
        options: &[&str],
        variables: &[(&str, &str)],
        is_root: bool,
    ) -> Result<Settings, SettingsError> {
        let flags: Vec<_> = flags.iter().map(|(key, text)| (*key, (*text).to_owned())).collect();
        let options: Vec<_> = options.iter().map(|text| (*text).to_owned()).collect();
        let variable = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, text)| OsString::from(text));
        Settings::resolve(&flags, &options, &Surroundings { variable: &variable, is_root })
    }

    #[test]
    fn every_place_in_its_rank() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("c.toml");
        std::fs::write(&file, "memory = \"100M\"\ntarget = 'dir:/file'\nkey-file = 'key'\nmin-age-days = 3\n").unwrap();
        let config = file.to_str().unwrap();
        let env = [("BACKYFS_MEMORY", "200M"), ("BACKYFS_CONFIG", config)];
        let option = ["memory=350M", "memory=300M", "allow_other"];
        let flag = [(Key::Memory, "400M")];
        let memory = |settings: Result<Settings, SettingsError>| settings.unwrap().memory_bytes >> 20;
        assert_eq!(memory(resolve(&flag, &option, &env, true)), 400);
        assert_eq!(memory(resolve(&[], &option, &env, true)), 300);
        assert_eq!(memory(resolve(&[], &[], &env, true)), 200);
        let last = resolve(&[], &[], &env[1..], true).unwrap();
        assert_eq!(last.memory_bytes >> 20, 100);
        assert_eq!(
            (last.target.to_string(), last.protect_younger.as_secs() / 86_400, last.embedded),
            ("dir:/file".into(), 3, false)
        );
        assert_eq!(last.key_file, Some(dir.path().join("key")));
    }

    #[test]
    fn defaults_need_nothing() {
        let user = resolve(&[], &[], &[("HOME", "/u"), ("XDG_CONFIG_HOME", "/none")], false).unwrap();
        assert_eq!(user.state_dir, Path::new("/u/.local/state/backyfs"));
        assert_eq!(user.target.to_string(), "dir:/u/.local/state/backyfs/repository");
        assert_eq!(user.key_file, Some(user.state_dir.join("key")));
        assert!(user.embedded && !user.allow_other);
        assert!(matches!(resolve(&[], &[], &[], false), Err(SettingsError::NoHome)));
        let secret = resolve(&[(Key::PassphraseFile, "/p"), (Key::StateDir, "/s")], &[], &[], false).unwrap();
        assert_eq!(secret.key_file, None);
    }

    #[test]
    fn errors_name_the_place() {
        let text = |result: Result<Settings, SettingsError>| result.unwrap_err().to_string();
        let state = (Key::StateDir, "/s");
        assert!(
            text(resolve(&[(Key::Memory, "1M"), state], &[], &[], false)).starts_with("--memory: 1M is too little")
        );
        let wrong = text(resolve(&[state], &[], &[("BACKYFS_TARGET", "ftp:x")], false));
        assert!(wrong.starts_with("BACKYFS_TARGET: "), "{wrong}");
        assert!(text(resolve(&[state], &["colour=red"], &[], false)).contains("\"colour=red\" is not known"));
        assert!(text(resolve(&[state, (Key::Config, "/none.toml")], &[], &[], false)).contains("/none.toml"));
        let overruled = [("BACKYFS_MEMORY", "much"), ("BACKYFS_STATE_DIR", "/s")];
        assert!(resolve(&[(Key::Memory, "100M")], &[], &overruled, false).is_err());
    }
}
