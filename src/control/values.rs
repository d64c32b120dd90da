//! The first that was said about each setting, and how its text is read.

use crate::control::given::{Given, Key, Origin, SettingsError};
use crate::control::sources_file;
use crate::control::{retention, sizes};
use crate::repo::MemoryPlan;
use crate::repo::disk_cache::DiskCache;
use crate::target::TargetSpec;
use crate::target::s3::Style;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What the settings are read from, beside flags and mount options.
pub struct Surroundings<'a> {
    /// Environment variables.
    pub variable: &'a dyn Fn(&str) -> Option<OsString>,
    /// Whether the defaults are those of the system or of a user.
    pub is_root: bool,
}

pub(super) fn home(surroundings: &Surroundings, variable: &str, below: &str) -> Option<PathBuf> {
    let absolute = |name| (surroundings.variable)(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute(variable).or_else(|| absolute("HOME").map(|home| home.join(below)))
}

/// The first that was said about each setting, checked.
pub(super) struct Values<'a>(BTreeMap<Key, &'a Given>);

impl<'a> Values<'a> {
    /// Of layers in order of precedence.
    pub(super) fn new(layers: &'a [Given]) -> Result<Self, SettingsError> {
        let mut values = BTreeMap::new();
        for given in layers {
            check(given)?;
            values.entry(given.key).or_insert(given);
        }
        Ok(Self(values))
    }

    pub(super) fn get<T>(
        &self,
        key: Key,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, SettingsError> {
        let Some(given) = self.0.get(&key) else { return Ok(None) };
        let failed = |problem| SettingsError::Value { given: Box::new((*given).clone()), problem };
        parse(&given.text).map(Some).map_err(failed)
    }

    /// A text, not to be empty.
    pub(super) fn text(&self, key: Key) -> Result<Option<String>, SettingsError> {
        self.get(key, parse_text)
    }

    pub(super) fn path(&self, key: Key) -> Result<Option<PathBuf>, SettingsError> {
        let Some(given) = self.0.get(&key) else { return Ok(None) };
        let failed = |problem: String| SettingsError::Value { given: Box::new((*given).clone()), problem };
        if given.text.is_empty() {
            return Err(failed("the path is empty".into()));
        }
        let path = match &given.origin {
            Origin::File { path, .. } => path.parent().unwrap_or(Path::new("/")).join(&given.text),
            _ => PathBuf::from(&given.text),
        };
        std::path::absolute(path).map(Some).map_err(|error| failed(error.to_string()))
    }
}

/// Reads a value only to see that it can be read.
fn check(given: &Given) -> Result<(), SettingsError> {
    let text = given.text.as_str();
    let checked = match given.key {
        Key::Target => parse_target(text).map(drop),
        Key::Memory => parse_memory(text).map(drop),
        Key::ProtectYounger => sizes::parse_age(text).map(drop),
        Key::Keep => retention::parse_keep(text).map(drop),
        Key::TimeZone => retention::parse_zone(text).map(drop),
        Key::DraftExpireDays => parse_days(text).map(drop),
        Key::TemporaryNames => parse_patterns(text).map(drop),
        Key::CommitTimeout => parse_timeout(text).map(drop),
        Key::RefreshInterval => parse_interval(text).map(drop),
        Key::CacheSize => parse_cache(text).map(drop),
        Key::AllowOther => parse_switch(text).map(drop),
        Key::GcInterval => parse_interval(text).map(drop),
        Key::GcFreePercent => parse_percent(text).map(drop),
        Key::RestoreToSources => sources_file::parse_restore(text).map(drop),
        Key::UploadLimit | Key::DownloadLimit => parse_rate(text).map(drop),
        Key::S3Style => parse_style(text).map(drop),
        Key::S3Encryption => parse_encryption(text).map(drop),
        Key::S3Concurrency => parse_concurrency(text).map(drop),
        Key::S3ConnectTimeout | Key::S3Timeout => parse_timeout(text).map(drop),
        Key::S3Endpoint
        | Key::S3Region
        | Key::S3AccessKey
        | Key::S3SecretKey
        | Key::S3Profile
        | Key::S3StorageClass
        | Key::S3KmsKey => parse_text(text).map(drop),
        key if key.is_path() && text.is_empty() => Err("the path is empty".into()),
        _ => Ok(()),
    };
    checked.map_err(|problem| SettingsError::Value { given: Box::new(given.clone()), problem })
}

/// What servers know is left to them; what none can know is a typing error.
pub(super) fn parse_encryption(text: &str) -> Result<String, String> {
    match text {
        "AES256" | "aws:kms" | "aws:kms:dsse" => Ok(text.to_owned()),
        _ => Err("write AES256, aws:kms or aws:kms:dsse".to_owned()),
    }
}

pub(super) fn parse_target(text: &str) -> Result<TargetSpec, String> {
    text.parse().map_err(|error: crate::target::SpecError| error.to_string())
}

pub(super) fn parse_memory(text: &str) -> Result<u64, String> {
    match sizes::parse_bytes(text)? {
        bytes if bytes < MemoryPlan::MIN_BYTES => Err(format!("{text} is too little: at least 64M")),
        bytes => Ok(bytes),
    }
}

pub(super) fn parse_days(text: &str) -> Result<u32, String> {
    text.trim().parse().map_err(|_| format!("{text:?} is not a number of days"))
}

pub(super) fn parse_patterns(text: &str) -> Result<Vec<String>, String> {
    let patterns = text.split(',').map(|pattern| pattern.trim().to_owned()).filter(|pattern| !pattern.is_empty());
    let patterns: Vec<String> = patterns.collect();
    match patterns.iter().find(|pattern| pattern.contains('/') || pattern.bytes().all(|byte| byte == b'*')) {
        Some(bad) => Err(format!("{bad:?} is no pattern of names: write for example *.part")),
        None => Ok(patterns),
    }
}

/// Bytes a second; `None` for no limit.
///
/// # Errors
/// A sentence that says what is wrong.
pub fn parse_rate(text: &str) -> Result<Option<u64>, String> {
    match text.trim() {
        "none" | "unlimited" | "0" => Ok(None),
        text => match sizes::parse_bytes(text.strip_suffix("/s").unwrap_or(text))? {
            rate if rate < 1024 => Err(format!("{text} is too little: at least 1K a second, or none")),
            rate => Ok(Some(rate)),
        },
    }
}

pub(super) fn parse_text(text: &str) -> Result<String, String> {
    match text.trim() {
        "" => Err("it is empty".into()),
        text => Ok(text.to_owned()),
    }
}

pub(super) fn parse_timeout(text: &str) -> Result<Duration, String> {
    match sizes::parse_seconds(text)? {
        Duration::ZERO => Err("a commit takes longer than no time at all".into()),
        timeout => Ok(timeout),
    }
}

/// A time, or that there is none: zero and `never`.
pub(super) fn parse_interval(text: &str) -> Result<Option<Duration>, String> {
    let text = text.trim();
    if text == "never" {
        return Ok(None);
    }
    let interval = match text.strip_suffix('d') {
        Some(days) => {
            let days: u32 = days.parse().map_err(|_| format!("{text:?} is no time: write for example 12h or 1d"))?;
            Duration::from_secs(u64::from(days) * 86_400)
        }
        None => sizes::parse_seconds(text)?,
    };
    Ok(Some(interval).filter(|interval| !interval.is_zero()))
}

pub(super) fn parse_percent(text: &str) -> Result<u8, String> {
    let percent = text.trim().trim_end_matches('%').parse().ok().filter(|percent| *percent <= 100);
    percent.ok_or_else(|| format!("{text:?} is not a number of percent"))
}

/// Zero turns it off.
pub(super) fn parse_cache(text: &str) -> Result<u64, String> {
    match sizes::parse_bytes(text)? {
        bytes if (1..DiskCache::MIN_BYTES).contains(&bytes) => {
            Err(format!("{text} is too little: at least 64M, or 0 for none"))
        }
        bytes => Ok(bytes),
    }
}

pub(super) fn parse_switch(text: &str) -> Result<bool, String> {
    match text.trim() {
        "1" | "yes" | "true" | "on" => Ok(true),
        "0" | "no" | "false" | "off" => Ok(false),
        other => Err(format!("{other:?} is neither yes nor no")),
    }
}

pub(super) fn parse_style(text: &str) -> Result<Style, String> {
    match text.trim() {
        "auto" => Ok(Style::Auto),
        "path" => Ok(Style::Path),
        "virtual" => Ok(Style::Virtual),
        other => Err(format!("{other:?} is neither auto, path nor virtual")),
    }
}

pub(super) fn parse_concurrency(text: &str) -> Result<usize, String> {
    match text.trim().parse() {
        Ok(number @ 1..=64) => Ok(number),
        _ => Err(format!("{text:?} is no number from 1 to 64")),
    }
}
