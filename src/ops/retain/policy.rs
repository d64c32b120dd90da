//! Which schedules and keep rules hold for which name.

use crate::ops::retain::{KeepRules, Schedule, Zone};
use crate::words::name::{Name, glob};

/// What holds for the names that match a pattern.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NameRule {
    /// Matches whole names: `*` any bytes, `/` too, `?` one.
    pub pattern: String,
    /// Names of schedules, each of which the policy has.
    pub schedules: Vec<String>,
    /// Keep rules for versions without an expiry.
    pub keep: Option<KeepRules>,
}

impl NameRule {
    /// How much of a name the pattern says: whether all of it, and how many bytes.
    fn precision(&self) -> (bool, usize) {
        let wild = self.pattern.bytes().filter(|byte| matches!(byte, b'*' | b'?')).count();
        (wild == 0, self.pattern.len() - wild)
    }

    /// The one name it matches, when it has no `*` or `?`.
    pub fn only_name(&self) -> Option<Name> {
        if self.precision().0 { Name::new(&self.pattern).ok() } else { None }
    }
}

/// The rules of a configuration. Without any, nothing is tagged, expires or is thinned out by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Every schedule there is, whether or not a name has it.
    pub schedules: Vec<Schedule>,
    /// What holds for names, in the order of the configuration.
    pub names: Vec<NameRule>,
    /// What days and months mean.
    pub zone: Zone,
}

impl Default for Policy {
    fn default() -> Self {
        Self { schedules: super::schedule::shipped(), names: Vec::new(), zone: Zone::utc() }
    }
}

impl Policy {
    /// What holds for a name: the pattern that says most of it wins, an exact one before all others; among equals the first.
    pub fn rule(&self, name: &Name) -> Option<&NameRule> {
        let matching = self.names.iter().filter(|rule| glob(rule.pattern.as_bytes(), name.as_str().as_bytes()));
        matching.fold(None, |best: Option<&NameRule>, rule| match best {
            Some(best) if best.precision() >= rule.precision() => Some(best),
            _ => Some(rule),
        })
    }

    /// The schedules of a name, in the order in which its rule lists them.
    pub fn schedules_of(&self, name: &Name) -> Vec<&Schedule> {
        let named = |wanted: &String| self.schedules.iter().find(|schedule| schedule.name == *wanted);
        self.rule(name).map(|rule| rule.schedules.iter().filter_map(named).collect()).unwrap_or_default()
    }

    /// Names that are spelled out and have schedules: they are to be backed up, whether or not they have a version.
    pub fn names_to_back_up(&self) -> impl Iterator<Item = Name> {
        self.names.iter().filter(|rule| !rule.schedules.is_empty()).filter_map(NameRule::only_name)
    }

    /// The keep rules of a name.
    pub fn keep_of(&self, name: &Name) -> Option<&KeepRules> {
        self.rule(name)?.keep.as_ref()
    }

    /// Whether a tag is that of a schedule.
    pub fn is_schedule(&self, tag: &str) -> bool {
        self.schedules.iter().any(|schedule| schedule.name == tag)
    }

    /// Whether any name can have a schedule.
    pub fn tags_anything(&self) -> bool {
        self.names.iter().any(|rule| !rule.schedules.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(pattern: &str, schedules: &[&str]) -> NameRule {
        let schedules = schedules.iter().map(|name| (*name).to_owned()).collect();
        NameRule { pattern: pattern.to_owned(), schedules, keep: None }
    }

    #[test]
    fn the_pattern_that_says_most_wins() {
        let names = vec![
            rule("*", &["weekly"]),
            rule("vm*", &["daily"]),
            rule("vm-test*", &[]),
            rule("vm-test-1", &["hourly", "daily"]),
            rule("*/db", &["monthly"]),
        ];
        let policy = Policy { names, ..Policy::default() };
        let of = |name: &str| -> Vec<String> {
            policy.schedules_of(&Name::new(name).unwrap()).iter().map(|schedule| schedule.name.clone()).collect()
        };
        assert_eq!(of("other"), ["weekly"]);
        assert_eq!(of("vm1/disk"), ["daily"]);
        assert_eq!(of("vm-test-2"), [""; 0]);
        assert_eq!(of("vm-test-1"), ["hourly", "daily"]);
        assert_eq!(of("host/db"), ["monthly"]);
        assert!(policy.tags_anything() && !Policy::default().tags_anything());
        assert_eq!(policy.names[3].only_name(), Some(Name::new("vm-test-1").unwrap()));
        assert_eq!(policy.names[1].only_name(), None);
    }
}
