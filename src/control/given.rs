//! A setting as somebody wrote it: which, its text, and where. [`crate::control::settings`] says what is in force.

use std::fmt;
use std::path::PathBuf;

/// One setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Key {
    Config,
    Target,
    StateDir,
    KeyFile,
    PassphraseFile,
    Memory,
    ProtectYounger,
    Schedules,
    Keep,
    TimeZone,
    TemporaryNames,
    CommitTimeout,
    DraftExpireDays,
    RefreshInterval,
    CacheSize,
    CacheDir,
    LogFile,
    AllowOther,
    GcInterval,
    GcFreePercent,
    S3Endpoint,
    S3Region,
    S3Style,
    S3AccessKey,
    S3SecretKey,
    S3SessionToken,
    S3CredentialsFile,
    S3Profile,
    S3CaFile,
    S3StorageClass,
    S3Encryption,
    S3KmsKey,
    S3Concurrency,
    S3ConnectTimeout,
    S3Timeout,
    UploadLimit,
    DownloadLimit,
    RestoreToSources,
}

impl Key {
    /// Every one.
    pub const ALL: [Self; 38] = [
        Self::Config,
        Self::Target,
        Self::StateDir,
        Self::KeyFile,
        Self::PassphraseFile,
        Self::Memory,
        Self::ProtectYounger,
        Self::Schedules,
        Self::Keep,
        Self::TimeZone,
        Self::TemporaryNames,
        Self::CommitTimeout,
        Self::DraftExpireDays,
        Self::RefreshInterval,
        Self::CacheSize,
        Self::CacheDir,
        Self::LogFile,
        Self::AllowOther,
        Self::GcInterval,
        Self::GcFreePercent,
        Self::S3Endpoint,
        Self::S3Region,
        Self::S3Style,
        Self::S3AccessKey,
        Self::S3SecretKey,
        Self::S3SessionToken,
        Self::S3CredentialsFile,
        Self::S3Profile,
        Self::S3CaFile,
        Self::S3StorageClass,
        Self::S3Encryption,
        Self::S3KmsKey,
        Self::S3Concurrency,
        Self::S3ConnectTimeout,
        Self::S3Timeout,
        Self::UploadLimit,
        Self::DownloadLimit,
        Self::RestoreToSources,
    ];

    /// As in the configuration file, as a flag (after `--`) and as a mount option (before `=`).
    pub const fn name(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Target => "target",
            Self::StateDir => "state-dir",
            Self::KeyFile => "key-file",
            Self::PassphraseFile => "passphrase-file",
            Self::Memory => "memory",
            Self::ProtectYounger => "protect-younger",
            Self::Schedules => "schedules",
            Self::Keep => "keep",
            Self::TimeZone => "time-zone",
            Self::TemporaryNames => "temporary-names",
            Self::CommitTimeout => "commit-timeout",
            Self::DraftExpireDays => "draft-expire-days",
            Self::RefreshInterval => "refresh-interval",
            Self::CacheSize => "cache-size",
            Self::CacheDir => "cache-dir",
            Self::LogFile => "log-file",
            Self::AllowOther => "allow-other",
            Self::GcInterval => "gc-interval",
            Self::GcFreePercent => "gc-free-percent",
            Self::S3Endpoint => "s3-endpoint",
            Self::S3Region => "s3-region",
            Self::S3Style => "s3-style",
            Self::S3AccessKey => "s3-access-key",
            Self::S3SecretKey => "s3-secret-key",
            Self::S3SessionToken => "s3-session-token",
            Self::S3CredentialsFile => "s3-credentials-file",
            Self::S3Profile => "s3-profile",
            Self::S3CaFile => "s3-ca-file",
            Self::S3StorageClass => "s3-storage-class",
            Self::S3Encryption => "s3-encryption",
            Self::S3KmsKey => "s3-kms-key",
            Self::S3Concurrency => "s3-concurrency",
            Self::S3ConnectTimeout => "s3-connect-timeout",
            Self::S3Timeout => "s3-timeout",
            Self::UploadLimit => "upload-limit",
            Self::DownloadLimit => "download-limit",
            Self::RestoreToSources => "restore-to-sources",
        }
    }

    /// Another name that it goes by.
    pub const fn alias(self) -> Option<&'static str> {
        match self {
            Self::ProtectYounger => Some("min-age-days"),
            _ => None,
        }
    }

    /// The environment variables, the proper one first.
    pub fn variables(self) -> impl Iterator<Item = String> {
        let names = std::iter::once(self.name()).chain(self.alias());
        names.map(|name| format!("BACKYFS_{}", name.replace('-', "_").to_ascii_uppercase()))
    }

    /// The setting of a name. fstab habits are met half way: `_` stands for `-`.
    pub fn from_name(name: &str) -> Option<Self> {
        let name = name.replace('_', "-");
        Self::ALL.into_iter().find(|key| key.name() == name || key.alias() == Some(&*name))
    }

    /// Whether it is the path of something: a relative one is taken from where it is written.
    pub const fn is_path(self) -> bool {
        matches!(
            self,
            Self::Config
                | Self::StateDir
                | Self::KeyFile
                | Self::PassphraseFile
                | Self::CacheDir
                | Self::LogFile
                | Self::S3CredentialsFile
                | Self::S3CaFile
        )
    }

    /// Whether its value is nobody's business: it is never shown, and not taken where `ps` and /proc/mounts would show it.
    pub const fn is_secret(self) -> bool {
        matches!(self, Self::S3SecretKey | Self::S3SessionToken)
    }
}

/// Where a setting was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// `--name`.
    Flag,
    /// `-o name=`.
    MountOption,
    /// A variable of this name.
    Environment(String),
    /// The configuration file.
    File {
        /// Which.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
    },
}

/// A setting as written.
#[derive(Clone, PartialEq, Eq)]
pub struct Given {
    /// Which.
    pub key: Key,
    /// Its value.
    pub text: String,
    /// Where.
    pub origin: Origin,
}

impl fmt::Debug for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = if self.key.is_secret() { "..." } else { &self.text };
        write!(f, "{self} = {text:?}")
    }
}

impl fmt::Display for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.key.name();
        match &self.origin {
            Origin::Flag => write!(f, "--{name}"),
            Origin::MountOption => write!(f, "mount option {name}"),
            Origin::Environment(variable) => f.write_str(variable),
            Origin::File { path, line } => write!(f, "{} line {line}, {name}", path.display()),
        }
    }
}

impl SettingsError {
    /// The mount option that is to blame, if one is: `name=text` or `name`.
    pub fn mount_option(&self) -> Option<String> {
        match self {
            Self::Value { given, .. } if given.origin == Origin::MountOption => {
                Some(format!("{}={}", given.key.name(), given.text))
            }
            Self::MountOption(option) => Some(option.clone()),
            Self::MountSource { text, .. } => Some(format!("source={text}")),
            _ => None,
        }
    }
}

/// Why the settings cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum SettingsError {
    #[error("{given}: {problem}")]
    Value { given: Box<Given>, problem: String },
    #[error("{path} line {line}: {problem}", path = .path.display())]
    File { path: PathBuf, line: usize, problem: String },
    #[error("the configuration file {path} cannot be read: {problem}", path = .path.display())]
    FileUnreadable { path: PathBuf, problem: String },
    #[error("{0}: a secret would be seen by everyone there; write it in a file only you can read")]
    SecretInTheOpen(String),
    #[error("{path} holds secrets and can be read by others (mode {mode:04o}): run `chmod 600 {path}` first", path = .path.display())]
    Exposed { path: PathBuf, mode: u32 },
    #[error("mount option {0:?} is not known (see `backyfs mount --help`)")]
    MountOption(String),
    #[error("mount option source={text}: {problem}")]
    MountSource { text: String, problem: String },
    #[error("there is no home directory to keep local state in: set --state-dir or HOME")]
    NoHome,
}
