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
    MinAgeDays,
    TemporaryNames,
    CommitTimeout,
    DraftExpireDays,
    LogFile,
    AllowOther,
}

impl Key {
    /// Every one.
    pub const ALL: [Self; 12] = [
        Self::Config,
        Self::Target,
        Self::StateDir,
        Self::KeyFile,
        Self::PassphraseFile,
        Self::Memory,
        Self::MinAgeDays,
        Self::TemporaryNames,
        Self::CommitTimeout,
        Self::DraftExpireDays,
        Self::LogFile,
        Self::AllowOther,
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
            Self::MinAgeDays => "min-age-days",
            Self::TemporaryNames => "temporary-names",
            Self::CommitTimeout => "commit-timeout",
            Self::DraftExpireDays => "draft-expire-days",
            Self::LogFile => "log-file",
            Self::AllowOther => "allow-other",
        }
    }

    /// The environment variable.
    pub fn variable(self) -> String {
        format!("BACKYFS_{}", self.name().replace('-', "_").to_ascii_uppercase())
    }

    /// The setting of a name. fstab habits are met half way: `_` stands for `-`.
    pub fn from_name(name: &str) -> Option<Self> {
        let name = name.replace('_', "-");
        Self::ALL.into_iter().find(|key| key.name() == name)
    }

    /// Whether it is the path of something: a relative one is taken from where it is written.
    pub const fn is_path(self) -> bool {
        matches!(self, Self::Config | Self::StateDir | Self::KeyFile | Self::PassphraseFile | Self::LogFile)
    }
}

/// Where a setting was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// `--name`.
    Flag,
    /// `-o name=`.
    MountOption,
    /// `BACKYFS_NAME`.
    Environment,
    /// The configuration file.
    File {
        /// Which.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
    },
}

/// A setting as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// Which.
    pub key: Key,
    /// Its value.
    pub text: String,
    /// Where.
    pub origin: Origin,
}

impl fmt::Display for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.key.name();
        match &self.origin {
            Origin::Flag => write!(f, "--{name}"),
            Origin::MountOption => write!(f, "mount option {name}"),
            Origin::Environment => f.write_str(&self.key.variable()),
            Origin::File { path, line } => write!(f, "{} line {line}, {name}", path.display()),
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
    #[error("mount option {0:?} is not known (see `backyfs mount --help`)")]
    MountOption(String),
    #[error("there is no home directory to keep local state in: set --state-dir or HOME")]
    NoHome,
}
