//! What `mount -o remount` may change. A running mount shows its settings as the configuration file would have them; so the same
//! reader tells what options would make of them, and what stays as it is needs no look at the file they once came from.

use crate::control::given::{Key, SettingsError};
use crate::control::settings::Settings;
use crate::control::values::Surroundings;
use std::path::Path;

/// Settings that a running mount can change, by writing to the file of that name in `status/`.
const CHANGEABLE: [Key; 2] = [Key::UploadLimit, Key::DownloadLimit];

/// One setting that options would change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Its name; that of a table with its brackets.
    pub name: String,
    /// Its value now; empty when there is none.
    pub now: String,
    /// Its value then.
    pub then: String,
}

impl Change {
    /// Whether it can be made while it is mounted.
    pub fn is_possible(&self) -> bool {
        CHANGEABLE.iter().any(|key| key.name() == self.name)
    }
}

/// What `options` would change in a mount whose settings are in the file `shown`. Where these once came from (`config`) is no setting.
///
/// # Errors
/// When an option cannot be understood, or the file cannot be read.
pub fn changes(shown: &Path, options: &[String]) -> Result<Vec<Change>, SettingsError> {
    let options: Vec<String> = options.iter().filter(|option| !option.starts_with("config=")).cloned().collect();
    let read = |options: &[String]| {
        let surroundings = Surroundings { variable: &|_| None, is_root: true };
        let flags = [(Key::Config, shown.to_string_lossy().into_owned())];
        Ok::<_, SettingsError>(values(&Settings::resolve(&flags, options, &surroundings)?.describe()))
    };
    let (now, then) = (read(&[])?, read(&options)?);
    let find = |values: &[(String, String)], name: &str| {
        values.iter().find(|(other, _)| other == name).map(|(_, value)| value.clone()).unwrap_or_default()
    };
    let mut names: Vec<&String> = now.iter().chain(&then).map(|(name, _)| name).collect();
    names.sort_unstable();
    names.dedup();
    let change = |name: &String| Change { name: name.clone(), now: find(&now, name), then: find(&then, name) };
    Ok(names.into_iter().map(change).filter(|change| change.now != change.then).collect())
}

/// Names and values of what [`Settings::describe`] shows; a key below a table is `[table] key`.
fn values(text: &str) -> Vec<(String, String)> {
    let mut table = String::new();
    let mut found = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        match line.split_once(" = ") {
            Some((key, value)) => found.push((format!("{table}{key}"), value.to_owned())),
            None => table = format!("{line} "),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_told_and_what_is_the_same_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let (file, shown) = (dir.path().join("c.toml"), dir.path().join("shown"));
        let text = "target = 'dir:/srv/a'\nstate-dir = '/s'\nmemory = '1G'\nprotect-younger = '36h'\nallow-other = true\n\
                    [sources.a]\nkind = 'file'\npath = '/srv'\n[names.'vm*']\nschedules = ['daily']\n";
        std::fs::write(&file, text).unwrap();
        let flags = [(Key::Config, file.to_str().unwrap().to_owned())];
        let surroundings = Surroundings { variable: &|_| None, is_root: true };
        std::fs::write(&shown, Settings::resolve(&flags, &[], &surroundings).unwrap().describe()).unwrap();
        let tell = |options: &[&str]| {
            let options: Vec<_> = options.iter().map(|option| (*option).to_owned()).collect();
            changes(&shown, &options)
        };
        let same = ["target=/srv//a/", "memory=1024M", "config=/gone.toml", "allow-other", "source=a:/srv"];
        assert_eq!(tell(&same).unwrap(), []);
        let told = tell(&["memory=2G", "upload-limit=10M", "source=b:/srv/b"]).unwrap();
        let names: Vec<_> = told.iter().map(|change| (change.name.as_str(), change.is_possible())).collect();
        let sources = [("[sources.b] kind", false), ("[sources.b] path", false)];
        assert_eq!(names, [&sources[..], &[("memory", false), ("upload-limit", true)]].concat());
        assert_eq!((told[3].now.as_str(), told[3].then.as_str()), ("\"none\"", "\"10485760\""));
        assert!(matches!(tell(&["colour=red"]), Err(SettingsError::MountOption(_))));
    }
}
