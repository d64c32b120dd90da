//! Schedules and keep rules as people write them: `[schedule.NAME]` and `[names."PATTERN"]` in the configuration file, and the settings
//! `schedules`, `keep` and `time-zone`, which hold for the names that no pattern matches.

use crate::control::given::SettingsError;
use crate::ops::retain::{Interval, KeepRules, NameRule, Policy, Schedule, Zone, schedule};
use crate::words::name::check_tag;
use std::fmt::Write as _;
use toml::Value;
use toml::de::{DeTable, DeValue};

/// The tables that are read here.
pub const TABLES: [&str; 2] = ["schedule", "names"];

/// Says that something in a line is wrong; the line is told by an offset.
pub type Failed<'a> = dyn Fn(usize, String) -> SettingsError + 'a;

/// Reads the tables of a configuration file.
///
/// # Errors
/// For the first thing that is wrong, with its line.
pub fn read(file: &DeTable<'_>, failed: &Failed<'_>) -> Result<Policy, SettingsError> {
    let mut policy = Policy::default();
    // Names refer to schedules, wherever in the file those stand.
    for (at, name, table) in tables_of(file, "schedule", failed)? {
        let known = policy.schedules.iter().position(|schedule| schedule.name == name);
        let schedule = read_schedule(at, name, table, known.map(|at| &policy.schedules[at]), failed)?;
        match known {
            Some(at) => policy.schedules[at] = schedule,
            None => policy.schedules.push(schedule),
        }
    }
    for (at, pattern, table) in tables_of(file, "names", failed)? {
        if pattern.is_empty() {
            return Err(failed(at, "a pattern of names is empty".to_owned()));
        }
        policy.names.push(read_names(pattern, table, &policy.schedules, failed)?);
    }
    Ok(policy)
}

type Named<'a> = (usize, &'a str, &'a DeTable<'a>);

/// The tables below one of the file, each with its offset and name.
fn tables_of<'a>(file: &'a DeTable<'a>, kind: &str, failed: &Failed<'_>) -> Result<Vec<Named<'a>>, SettingsError> {
    let Some((key, value)) = file.iter().find(|(key, _)| key.get_ref().as_ref() == kind) else { return Ok(Vec::new()) };
    let problem = |at| failed(at, format!("{kind} is made of tables: write for example [{kind}.\"NAME\"]"));
    let DeValue::Table(tables) = value.get_ref() else { return Err(problem(key.span().start)) };
    let named = tables.iter().map(|(name, table)| match table.get_ref() {
        DeValue::Table(table) => Ok((name.span().start, name.get_ref().as_ref(), table)),
        _ => Err(problem(name.span().start)),
    });
    named.collect()
}

fn read_schedule(
    at: usize,
    name: &str,
    table: &DeTable<'_>,
    known: Option<&Schedule>,
    failed: &Failed<'_>,
) -> Result<Schedule, SettingsError> {
    check_tag(name).map_err(|problem| failed(at, problem))?;
    if name.contains(char::is_whitespace) {
        return Err(failed(at, format!("{name:?} cannot be a schedule: it contains white space")));
    }
    let (mut interval, mut keep, mut sla) =
        (known.map(|k| k.interval.clone()), known.map(|k| k.keep), known.map(|k| k.sla.clone()));
    for (key, value) in table {
        let at = key.span().start;
        let span = |value: &DeValue<'_>| -> Result<Interval, SettingsError> {
            let text = value.as_str().ok_or_else(|| failed(at, "write a span of time in quotes, \"6h\"".to_owned()))?;
            text.parse().map_err(|error: crate::ops::retain::interval::IntervalError| failed(at, error.to_string()))
        };
        match key.get_ref().as_ref() {
            "interval" => interval = Some(span(value.get_ref())?),
            "sla" => sla = Some(span(value.get_ref())?),
            "keep" => {
                let number = value.get_ref().as_integer().and_then(|number| number.as_str().parse::<u32>().ok());
                let number = number.filter(|number| *number > 0);
                keep = Some(number.ok_or_else(|| failed(at, "keep takes a number, at least 1".to_owned()))?);
            }
            other => {
                return Err(failed(at, format!("a schedule has interval, keep and sla, and no {other:?}")));
            }
        }
    }
    let missing = |what: &str| failed(at, format!("{what} of the schedule {name:?} is missing"));
    Ok(Schedule {
        name: name.to_owned(),
        interval: interval.ok_or_else(|| missing("interval"))?,
        keep: keep.ok_or_else(|| missing("keep"))?,
        sla: sla.ok_or_else(|| missing("sla"))?,
    })
}

fn read_names(
    pattern: &str,
    table: &DeTable<'_>,
    schedules: &[Schedule],
    failed: &Failed<'_>,
) -> Result<NameRule, SettingsError> {
    let mut rule = NameRule { pattern: pattern.to_owned(), ..NameRule::default() };
    for (key, value) in table {
        let at = key.span().start;
        let text = plain(value.get_ref())
            .ok_or_else(|| failed(at, format!("{} takes a text or a list of texts", key.get_ref())))?;
        match key.get_ref().as_ref() {
            "schedules" => rule.schedules = parse_schedules(&text, schedules).map_err(|problem| failed(at, problem))?,
            "keep" => rule.keep = parse_keep(&text).map_err(|problem| failed(at, problem))?,
            other => return Err(failed(at, format!("names have schedules and keep, and no {other:?}"))),
        }
    }
    Ok(rule)
}

/// A value as it would stand in a flag; a list becomes one with commas.
pub(super) fn plain(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => Some(number.as_str().to_owned()),
        DeValue::Boolean(switch) => Some(switch.to_string()),
        DeValue::Array(items) => {
            let texts: Option<Vec<String>> = items.iter().map(|item| plain(item.get_ref())).collect();
            Some(texts?.join(","))
        }
        _ => None,
    }
}

/// Reads names of schedules, with commas or spaces between them.
///
/// # Errors
/// A sentence that says what is wrong.
pub fn parse_schedules(text: &str, schedules: &[Schedule]) -> Result<Vec<String>, String> {
    let mut found: Vec<String> = Vec::new();
    for name in text.split([',', ' ']).map(str::trim).filter(|name| !name.is_empty()) {
        if !schedules.iter().any(|schedule| schedule.name == name) {
            let known: Vec<&str> = schedules.iter().map(|schedule| schedule.name.as_str()).collect();
            return Err(format!("there is no schedule {name:?}, but {}", known.join(", ")));
        }
        if !found.iter().any(|known| known == name) {
            found.push(name.to_owned());
        }
    }
    Ok(found)
}

/// Reads keep rules; nothing is none.
///
/// # Errors
/// A sentence that says what is wrong.
pub fn parse_keep(text: &str) -> Result<Option<KeepRules>, String> {
    let rules = text.split([',', ' ']).filter(|rule| !rule.is_empty()).collect::<Vec<_>>().join(",");
    if rules.is_empty() {
        return Ok(None);
    }
    rules.parse().map(Some).map_err(|error: crate::ops::retain::keep::KeepError| error.to_string())
}

/// Reads a time zone: a name such as `Europe/Berlin`, or `system`.
///
/// # Errors
/// A sentence that says what is wrong.
pub fn parse_zone(text: &str) -> Result<Zone, String> {
    match text.trim() {
        "system" => Ok(Zone::system()),
        name => Zone::named(name).ok_or_else(|| format!("this machine knows no time zone {name:?}")),
    }
}

/// A policy as settings and tables of a configuration file: schedules and keep rules of the names that no pattern matches, then
/// the text of the tables.
pub fn describe(policy: &Policy) -> (NameRule, String) {
    let rest = policy.names.iter().find(|rule| rule.pattern == "*").cloned().unwrap_or_default();
    let mut text = String::new();
    for schedule in &policy.schedules {
        if schedule::shipped_named(&schedule.name).as_ref() == Some(schedule) {
            continue;
        }
        let (interval, sla) = (Value::from(schedule.interval.to_string()), Value::from(schedule.sla.to_string()));
        let name = Value::from(schedule.name.as_str());
        let _ = writeln!(text, "\n[schedule.{name}]\ninterval = {interval}\nkeep = {}\nsla = {sla}", schedule.keep);
    }
    for rule in policy.names.iter().filter(|rule| rule.pattern != "*") {
        let _ = writeln!(text, "\n[names.{}]", Value::from(rule.pattern.as_str()));
        let _ = writeln!(text, "schedules = {}", Value::from(rule.schedules.clone()));
        if let Some(keep) = &rule.keep {
            let _ = writeln!(text, "keep = {}", Value::from(keep.to_string()));
        }
    }
    (rest, text)
}
