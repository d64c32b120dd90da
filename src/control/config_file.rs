//! The configuration file: TOML, one key for each setting.

use crate::control::given::{Given, Key, Origin, SettingsError};
use crate::control::retention::{self, plain};
use crate::control::sources_file;
use crate::ops::retain::Policy;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use toml::de::{DeTable, DeValue};

/// Tables, whose keys are settings that begin with the table's name and a dash.
const TABLES: [&str; 1] = ["s3"];

/// What a file says.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ConfigFile {
    /// Settings.
    pub given: Vec<Given>,
    /// Schedules and what holds for names.
    pub retention: Policy,
}

/// Reads a file.
///
/// # Errors
/// When it cannot be read or is no TOML, and for a key that is none: a misspelt setting must not be ignored.
pub fn read(path: &Path) -> Result<ConfigFile, SettingsError> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| SettingsError::FileUnreadable { path: path.to_owned(), problem: error.to_string() })?;
    // Relative paths in it are relative to where it lies.
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let file = parse(&text, &path)?;
    if file.given.iter().any(|given| given.key.is_secret()) {
        let mode = std::fs::metadata(&path).map_or(0, |metadata| metadata.mode() & 0o7777);
        if mode & 0o077 != 0 {
            return Err(SettingsError::Exposed { path, mode });
        }
    }
    Ok(file)
}

fn parse(text: &str, path: &Path) -> Result<ConfigFile, SettingsError> {
    let line_of = |offset: usize| 1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count();
    let failed = |line, problem: String| SettingsError::File { path: path.to_owned(), line, problem };
    let table = DeTable::parse(text).map_err(|error| {
        let line = error.span().map_or(1, |span| line_of(span.start));
        failed(line, error.message().to_owned())
    })?;
    let retention = retention::read(table.get_ref(), &|offset, problem| failed(line_of(offset), problem))?;
    let mut given = Vec::new();
    let mut add = |name: &str, line: usize, value: &DeValue| {
        let known = Key::ALL.into_iter().find(|key| key.name() == name || key.alias() == Some(name));
        let known = known.filter(|key| *key != Key::Config);
        let key = known.ok_or_else(|| failed(line, format!("there is no setting {name:?}")))?;
        let text = plain(value).ok_or_else(|| failed(line, format!("{} takes a text or a number", key.name())))?;
        given.push(Given { key, text, origin: Origin::File { path: path.to_owned(), line } });
        Ok::<(), SettingsError>(())
    };
    for (name, value) in table.get_ref() {
        if retention::TABLES.contains(&name.get_ref().as_ref()) {
            continue;
        }
        let line = line_of(name.span().start);
        match value.get_ref() {
            // Read by itself.
            _ if name.get_ref() == sources_file::KEY => {}
            // `[s3]` with `endpoint` below is `s3-endpoint`.
            DeValue::Table(below) if TABLES.contains(&name.get_ref().as_ref()) => {
                for (inner, value) in below {
                    let line = line_of(inner.span().start);
                    add(&format!("{}-{}", name.get_ref(), inner.get_ref()), line, value.get_ref())?;
                }
            }
            value => add(name.get_ref().as_ref(), line, value)?,
        }
    }
    Ok(ConfigFile { given, retention })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(text: &str) -> String {
        parse(text, Path::new("/c.toml")).unwrap_err().to_string()
    }

    #[test]
    fn all_kinds_of_values() {
        let text =
            "# mine\ntarget = \"dir:/b\"\nmin-age-days = 9\nallow-other = true\ntemporary-names = ['*.a', '*.b']\n";
        let given = parse(text, Path::new("/c.toml")).unwrap().given;
        let find = |key| given.iter().find(|given| given.key == key).unwrap();
        assert_eq!(find(Key::ProtectYounger).text, "9");
        assert_eq!(find(Key::AllowOther).text, "true");
        assert_eq!(find(Key::TemporaryNames).text, "*.a,*.b");
        assert_eq!(find(Key::Target).to_string(), "/c.toml line 2, target");
    }

    #[test]
    fn mistakes_are_named_with_their_line() {
        assert_eq!(errors("target = 'dir:/b'\n\ntraget = 1\n"), "/c.toml line 3: there is no setting \"traget\"");
        assert!(errors("target = \n").starts_with("/c.toml line 1: "));
        assert!(errors("memory = 1\nmemory = 2\n").starts_with("/c.toml line 2: "));
        assert!(errors("[target]\nx = 1\n").contains("takes a text or a number"));
        assert!(errors("config = '/x'\n").contains("no setting"));
        for (text, line, part) in [
            ("memory = 1\n[schedule.daily]\nintervall = '1d'\n", 3, "intervall"),
            ("[schedule.mine]\ninterval = '1d'\nkeep = 3\n", 1, "sla of the schedule \"mine\" is missing"),
            ("[schedule.daily]\nkeep = 0\n", 2, "at least 1"),
            ("[schedule.daily]\nkeep = 2\nsla = '6 parsec'\n", 3, "6 parsec"),
            ("[schedule.'a b']\nkeep = 2\n", 1, "white space"),
            ("[schedule.'a/b']\nkeep = 2\n", 1, "cannot be a tag"),
            ("schedule = 'daily'\n", 1, "made of tables"),
            ("[names.'vm*']\nschedules = ['daily', 'dayly']\n", 2, "no schedule \"dayly\""),
            ("[names.'vm*']\n\nkeep = 'days'\n", 3, "\"days\" is not a keep rule"),
            ("[names]\nvm = 'daily'\n", 2, "made of tables"),
        ] {
            let said = errors(text);
            assert!(said.starts_with(&format!("/c.toml line {line}: ")) && said.contains(part), "{said}");
        }
        assert_eq!(errors("[s3]\nregion = 'x'\nregoin = 'y'\n"), "/c.toml line 3: there is no setting \"s3-regoin\"");
    }
}
