//! Names of backups: paths below `incoming/`, and which of them are temporary.

use std::fmt;

/// The name of a backup: one or more components separated by `/`. No component is empty, `.` or `..`, none is longer
/// than 255 bytes, none contains NUL or a newline; the whole is at most 4000 bytes of UTF-8.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} cannot be the name of a backup: {problem}")]
pub struct NameError {
    /// The text as given.
    pub text: String,
    /// What is wrong.
    pub problem: &'static str,
}

/// Longest component, in bytes (NAME_MAX).
pub const COMPONENT_MAX_BYTES: usize = 255;
/// Longest name, in bytes (below PATH_MAX).
pub const NAME_MAX_BYTES: usize = 4000;

impl Name {
    /// Checks a text.
    ///
    /// # Errors
    /// When it breaks a rule of [`Name`].
    pub fn new(text: &str) -> Result<Self, NameError> {
        let error = |problem| NameError { text: text.to_owned(), problem };
        if text.is_empty() {
            return Err(error("it is empty"));
        }
        if text.len() > NAME_MAX_BYTES {
            return Err(error("it is longer than 4000 bytes"));
        }
        text.split('/').try_for_each(|component| check_component(component).map_err(error))?;
        Ok(Self(text.to_owned()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its components.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('/')
    }

    /// Its last component.
    pub fn last(&self) -> &str {
        self.components().next_back().unwrap_or_default()
    }

    /// The name of the directory it lies in; `None` at the top.
    pub fn parent(&self) -> Option<&str> {
        self.0.rsplit_once('/').map(|(parent, _)| parent)
    }

    /// Whether one of the two would have to be a file and a directory at once: `a` and `a/b`.
    pub fn collides_with(&self, other: &Self) -> bool {
        let below = |short: &str, long: &str| long.strip_prefix(short).is_some_and(|rest| rest.starts_with('/'));
        below(&self.0, &other.0) || below(&other.0, &self.0)
    }
}

/// Checks one path component.
///
/// # Errors
/// What is wrong with it.
pub fn check_component(component: &str) -> Result<(), &'static str> {
    match component {
        "" => Err("a part of it is empty"),
        "." | ".." => Err("a part of it is . or .."),
        _ if component.len() > COMPONENT_MAX_BYTES => Err("a part of it is longer than 255 bytes"),
        _ if component.contains(['\0', '\n']) => Err("it contains NUL or a newline"),
        _ => Ok(()),
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Checks a tag: one path component of at most 200 bytes without a comma.
///
/// # Errors
/// What is wrong with it, as a sentence.
pub fn check_tag(tag: &str) -> Result<(), String> {
    let problem = match check_component(tag) {
        Err(problem) => problem,
        Ok(()) if tag.len() > 200 => "it is longer than 200 bytes",
        Ok(()) if tag.contains(['/', ',']) => "it contains / or a comma",
        Ok(()) if tag.trim() != tag => "it begins or ends with white space",
        Ok(()) => return Ok(()),
    };
    Err(format!("{tag:?} cannot be a tag: {problem}"))
}

/// Which names are temporary: copies to them are kept, but become versions only when renamed.
#[derive(Debug, Clone, Default)]
pub struct TemporaryNames {
    patterns: Vec<String>,
}

impl TemporaryNames {
    /// `patterns`: globs with `*` and `?`, matched against every component.
    pub fn new(patterns: Vec<String>) -> Self {
        Self { patterns }
    }

    /// The globs.
    pub fn patterns(&self) -> &[String] {
        &self.patterns
    }

    /// Whether a component starts with a dot or matches a pattern.
    pub fn matches(&self, name: &Name) -> bool {
        name.components().any(|c| c.starts_with('.') || self.patterns.iter().any(|p| glob(p.as_bytes(), c.as_bytes())))
    }
}

/// Matches `*` (any bytes, `/` too) and `?` (one byte) against the whole text.
pub fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if p < pattern.len() && pattern[p] == b'*' {
            star = Some((p, t));
            p += 1;
        } else if p < pattern.len() && (pattern[p] == b'?' || pattern[p] == text[t]) {
            (p, t) = (p + 1, t + 1);
        } else if let Some((at, matched)) = star {
            star = Some((at, matched + 1));
            (p, t) = (at + 1, matched + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|&b| b == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_odd_parts() {
        for good in ["vm1", "host1/disks/vm.img", "with space", "latest", "2026-01-01T00:00:00Z", "Ünï·çødé-名前"]
        {
            assert!(Name::new(good).is_ok(), "{good}");
        }
        let long = "x".repeat(256);
        for bad in ["", "/", "a//b", "/a", "a/", ".", "a/../b", long.as_str(), "a\nb", "a\0"] {
            assert!(Name::new(bad).is_err(), "{bad:?}");
        }
        assert!(Name::new(&"x".repeat(255)).is_ok());
    }

    #[test]
    fn a_file_and_a_directory_collide() {
        let name = |t| Name::new(t).unwrap();
        assert!(name("a").collides_with(&name("a/b/c")) && name("a/b").collides_with(&name("a")));
        assert!(!name("a").collides_with(&name("ab")) && !name("a").collides_with(&name("a")));
    }

    #[test]
    fn temporary_names_by_dot_and_pattern() {
        let names = TemporaryNames::new(vec!["*.part".into()]);
        let is = |t| names.matches(&Name::new(t).unwrap());
        assert!(is(".vm1.Xq3f") && is("host1/.vm") && is(".d/vm") && is("x.part"));
        assert!(!is("vm1") && !is("part") && !is("x.parts"));
        assert!(glob(b"a*b?c*", b"axxbyc") && !glob(b"a*b?c", b"axxbc"));
    }
}
