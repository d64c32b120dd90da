//! The tables `[sources.NAME]` of the configuration file: what stands below `sources/` in the mount, and what commands call
//! `NAME:VOLUME`.
//!
//! ```toml
//! [sources.images]
//! kind = "file"
//! path = "/srv/images"
//! ```

use crate::control::given::SettingsError;
use crate::source::Collection;
use crate::source::lvm::Group;
use crate::source::rbd::Pool;
use crate::source::volume::check_snapshot_prefix;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use toml::de::{DeTable, DeValue};

/// The key that the tables stand under.
pub const KEY: &str = "sources";

/// The sources by their names.
pub type Sources = BTreeMap<String, Collection>;

/// Whether a mount may write below `sources/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestoreToSources {
    /// Never.
    No,
    /// What does not exist yet.
    New,
    /// What exists, too.
    Force,
}

impl RestoreToSources {
    /// As it is written.
    pub const fn word(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::New => "new",
            Self::Force => "force",
        }
    }
}

/// Reads what `word` says.
///
/// # Errors
/// When it is none of the words.
pub fn parse_restore(text: &str) -> Result<RestoreToSources, String> {
    let all = [RestoreToSources::No, RestoreToSources::New, RestoreToSources::Force];
    let found = all.into_iter().find(|consent| consent.word() == text.trim());
    found.ok_or_else(|| format!("{text:?} is none of no, new and force"))
}

/// Reads the tables of a file.
///
/// # Errors
/// When the file cannot be read, or a table says something that is not understood; the error names the line.
pub fn read(path: &Path) -> Result<Sources, SettingsError> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| SettingsError::FileUnreadable { path: path.to_owned(), problem: error.to_string() })?;
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    parse(&text, &path)
}

/// Reads the mount option `source=NAME:KIND:WHAT`: what a table says with nothing but what it must say.
///
/// # Errors
/// When it is not understood.
pub fn parse_option(text: &str) -> Result<(String, Collection), SettingsError> {
    let failed = |problem: String| SettingsError::MountSource { text: text.to_owned(), problem };
    let form = || failed("write NAME:file:/DIR, NAME:rbd:POOL[/NAMESPACE] or NAME:lvm:GROUP".into());
    let (name, what) = text.split_once(':').ok_or_else(form)?;
    if !is_name(name) {
        return Err(failed(format!("{name:?} cannot be the name of a source")));
    }
    let collection = match what.split_once(':') {
        _ if what.starts_with('/') => Collection::File { root: what.into() },
        Some(("file", path)) if path.starts_with('/') => Collection::File { root: path.into() },
        Some(("lvm", group)) if !group.is_empty() => Collection::Lvm(Group::new(group)),
        Some(("rbd", pool)) if !pool.is_empty() => {
            let (pool, namespace) = pool.split_once('/').unwrap_or((pool, ""));
            Collection::Rbd(Pool::new(pool, namespace))
        }
        _ => return Err(form()),
    };
    Ok((name.to_owned(), collection))
}

/// Whether it can be the name of a directory, and a command can tell it from a path.
fn is_name(component: &str) -> bool {
    !component.is_empty() && !component.contains(['/', ':', '\0']) && ![".", ".."].contains(&component)
}

/// One table, read key by key: what is left over at the end is a mistake.
struct Table<'a> {
    path: &'a Path,
    line: usize,
    values: BTreeMap<String, (String, usize)>,
}

fn parse(text: &str, path: &Path) -> Result<Sources, SettingsError> {
    let line_of = |offset: usize| 1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count();
    let failed = |line, problem: String| SettingsError::File { path: path.to_owned(), line, problem };
    let table = DeTable::parse(text).map_err(|error| {
        let line = error.span().map_or(1, |span| line_of(span.start));
        failed(line, error.message().to_owned())
    })?;
    let mut sources = Sources::new();
    let Some((key, tables)) = table.get_ref().iter().find(|(key, _)| key.get_ref() == KEY) else { return Ok(sources) };
    let wrong = |line| failed(line, "sources are tables: write [sources.NAME]".into());
    let DeValue::Table(tables) = tables.get_ref() else { return Err(wrong(line_of(key.span().start))) };
    for (name, fields) in tables {
        let line = line_of(name.span().start);
        let DeValue::Table(fields) = fields.get_ref() else { return Err(wrong(line)) };
        let component = name.get_ref();
        if !is_name(component) {
            return Err(failed(line, format!("{component:?} cannot be the name of a source")));
        }
        let mut values = BTreeMap::new();
        for (key, value) in fields {
            let line = line_of(key.span().start);
            let text = match value.get_ref() {
                DeValue::String(text) => text.to_string(),
                DeValue::Integer(number) => number.as_str().to_owned(),
                DeValue::Boolean(switch) => switch.to_string(),
                _ => return Err(failed(line, format!("{} takes a text or a number", key.get_ref()))),
            };
            values.insert(key.get_ref().to_string(), (text, line));
        }
        let collection = Table { path, line, values }.collection()?;
        sources.insert(component.to_string(), collection);
    }
    Ok(sources)
}

impl Table<'_> {
    fn failed(&self, line: usize, problem: String) -> SettingsError {
        SettingsError::File { path: self.path.to_owned(), line, problem }
    }

    fn take(&mut self, key: &str) -> Option<String> {
        self.values.remove(key).map(|(text, _)| text)
    }

    fn need(&mut self, key: &str) -> Result<String, SettingsError> {
        let text = self.take(key).filter(|text| !text.is_empty());
        text.ok_or_else(|| self.failed(self.line, format!("this source needs {key} = \"...\"")))
    }

    /// A path; a relative one starts where the file lies.
    fn path(&mut self, key: &str) -> Result<PathBuf, SettingsError> {
        let text = self.need(key)?;
        Ok(self.path.parent().unwrap_or(Path::new("/")).join(text))
    }

    fn snapshot_prefix(&mut self) -> Result<String, SettingsError> {
        let Some((prefix, line)) = self.values.remove("snapshot-prefix") else { return Ok(String::new()) };
        check_snapshot_prefix(&prefix).map_err(|problem| self.failed(line, problem))?;
        Ok(prefix)
    }

    fn collection(mut self) -> Result<Collection, SettingsError> {
        let kind_line = self.values.get("kind").map_or(self.line, |(_, line)| *line);
        let collection = match self.need("kind")?.as_str() {
            "file" => Collection::File { root: self.path("path")? },
            "lvm" => Collection::Lvm(Group {
                group: self.need("group")?,
                snapshot_size: self.take("snapshot-size"),
                snapshot_prefix: self.snapshot_prefix()?,
                thin_pool: self.take("thin-pool"),
            }),
            "rbd" => Collection::Rbd(Pool {
                pool: self.need("pool")?,
                namespace: self.take("namespace").unwrap_or_default(),
                conf: if self.values.contains_key("conf") { Some(self.path("conf")?) } else { None },
                user: self.take("user"),
                snapshot_prefix: self.snapshot_prefix()?,
            }),
            other => return Err(self.failed(kind_line, format!("{other:?} is no kind of source: file, lvm, rbd"))),
        };
        match self.values.first_key_value() {
            Some((key, (_, line))) => Err(self.failed(*line, format!("a source of this kind has no {key:?}"))),
            None => Ok(collection),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(text: &str) -> String {
        parse(text, Path::new("/etc/c.toml")).unwrap_err().to_string()
    }

    #[test]
    fn tables_become_collections() {
        let text = "memory = 1\n[sources.images]\nkind = 'file'\npath = 'srv'\n[sources.disk]\nkind = 'file'\npath = '/dev/sda'\n";
        let sources = parse(text, Path::new("/etc/c.toml")).unwrap();
        assert_eq!(sources["images"], Collection::File { root: "/etc/srv".into() });
        assert_eq!(sources["disk"], Collection::File { root: "/dev/sda".into() });
        let ceph = "[sources.ceph]\nkind = 'rbd'\npool = 'vms'\nuser = 'backup'\nconf = 'ceph.conf'\nsnapshot-prefix = 'nightly-'\n";
        let pool = Pool {
            conf: Some("/etc/ceph.conf".into()),
            user: Some("backup".into()),
            snapshot_prefix: "nightly-".into(),
            ..Pool::new("vms", "")
        };
        assert_eq!(parse(ceph, Path::new("/etc/c.toml")).unwrap()["ceph"], Collection::Rbd(pool));
        assert!(parse("memory = 1\n", Path::new("/c")).unwrap().is_empty());
    }

    #[test]
    fn an_option_is_a_short_table() {
        let parsed = |text: &str| parse_option(text).map_err(|error| error.to_string());
        let file = |root: &str| Collection::File { root: root.into() };
        assert_eq!(parsed("images:/srv"), Ok(("images".into(), file("/srv"))));
        assert_eq!(parsed("images:file:/srv/a:b"), Ok(("images".into(), file("/srv/a:b"))));
        let table = parse("[sources.c]\nkind = 'rbd'\npool = 'vms'\nnamespace = 'x'\n", Path::new("/c")).unwrap();
        assert_eq!(parsed("c:rbd:vms/x").unwrap().1, table["c"]);
        let table = parse("[sources.v]\nkind = 'lvm'\ngroup = 'vg0'\n", Path::new("/c")).unwrap();
        assert_eq!(parsed("v:lvm:vg0").unwrap().1, table["v"]);
        for wrong in ["images", "/srv", "a/b:/srv", ":/srv", "a:srv", "a:file:srv", "a:tape:x", "a:rbd:"] {
            assert!(parsed(wrong).unwrap_err().starts_with("mount option source="), "{wrong}");
        }
    }

    #[test]
    fn mistakes_are_named_with_their_line() {
        assert!(errors("sources = 1\n").starts_with("/etc/c.toml line 1: sources are tables"));
        assert!(errors("\n[sources.a]\nkind = 'tape'\n").starts_with("/etc/c.toml line 3: \"tape\" is no kind"));
        assert!(errors("\n[sources.a]\nkind = 'file'\n").starts_with("/etc/c.toml line 2: this source needs path"));
        let extra = errors("[sources.a]\nkind = 'file'\npath = '/x'\npool = 'y'\n");
        assert!(extra.contains("line 4: a source of this kind has no \"pool\""), "{extra}");
        assert!(errors("[sources.\"a/b\"]\nkind = 'file'\npath = '/x'\n").contains("cannot be the name"));
    }
}
