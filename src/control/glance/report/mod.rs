//! `report.html`: the state of a repository as one page that needs nothing else: no server, no other file, no script but its own.
//!
//! What it says it says in words as well as in colours, and without the script too, which only filters and unfolds.

mod calendar;
mod growth;
mod names;
mod scrub;

use crate::control::glance::overview::Unfinished;
use crate::control::glance::progress::lasting;
use crate::control::glance::{Overview, Sla};
use crate::control::jobs::{JobRow, Unit};
use crate::control::sizes::show_bytes;
use crate::ops::retain::Standing;
use crate::words::stamp::Stamp;
use maud::{DOCTYPE, Markup, PreEscaped, html};

const CSS: &str = include_str!("page.css");
const JS: &str = include_str!("page.js");

/// Nothing is loaded from anywhere, whatever a name contains.
const POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";

/// The sections, by the ids of their headings.
const PARTS: [(&str, &str); 6] = [
    ("numbers", "In numbers"),
    ("damage", "Damage"),
    ("jobs", "Running now"),
    ("names", "Names"),
    ("growth", "Growth"),
    ("scrub", "Scrub"),
];

/// Lines of a list before it is cut.
const LIST_MAX: usize = 50;

/// The page.
pub fn page(overview: &Overview, jobs: &[JobRow]) -> String {
    let (late, damaged) = (overview.count_names(Sla::Late), overview.count(Standing::Damaged));
    let title = match (late, damaged) {
        (0, 0) => format!("backyfs: {} names, all well", overview.names.len()),
        (late, 0) => format!("backyfs: {late} late"),
        (late, damaged) => format!("backyfs: {late} late, {damaged} damaged"),
    };
    let body = html! {
        header {
            h1 { "Backups" }
            p { "of " code { (overview.target) } ", as host " code { (overview.host) } " saw them at "
                time datetime=(overview.now) data-today=(overview.zone.position(overview.now).day) { (moment(overview.now)) } "." }
            (verdict(overview))
            nav aria-label="Parts of this page" {
                @for (part, title) in PARTS { a href={ "#" (part) } { (title) } " " }
            }
        }
        main id="main" {
            (tiles(overview))
            (damage(overview))
            (activity(jobs, &overview.drafts, overview.now))
            (names::section(overview))
            (growth::section(overview))
            (scrub::section(overview))
        }
        footer { "backyfs " (env!("CARGO_PKG_VERSION")) ", repository " code { (overview.repository) }
            ". Days are of " (overview.zone.name().unwrap_or("the system's time zone")) ". Made when it was read; load it again for what is new." }
    };
    document(&title, &body)
}

/// The page when nothing can be told.
pub fn failure(problem: &str) -> String {
    let body = html! {
        header { h1 { "Backups" } }
        main id="main" { p.verdict.bad { "The state of the repository cannot be told: " (problem) } }
    };
    document("backyfs: cannot be told", &body)
}

fn document(title: &str, body: &Markup) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                meta name="color-scheme" content="light dark";
                title { (title) }
                style { (PreEscaped(CSS)) }
            }
            body {
                a.skip href="#main" { "To the content" }
                (body)
                script { (PreEscaped(JS)) }
            }
        }
    };
    page.into_string()
}

/// The one sentence that whoever looks for a second should read.
fn verdict(overview: &Overview) -> Markup {
    let (late, damaged) = (overview.count_names(Sla::Late), overview.count(Standing::Damaged));
    let mut problems = Vec::new();
    if late > 0 {
        problems.push(format!(
            "{late} of {} names {} late",
            overview.names.len(),
            if late == 1 { "is" } else { "are" }
        ));
    }
    if damaged > 0 {
        problems.push(format!("{damaged} {} damaged", if damaged == 1 { "version is" } else { "versions are" }));
    }
    if !overview.damaged.is_empty() {
        let blocks = overview.damaged.len();
        problems.push(format!("{blocks} {} no good copy", if blocks == 1 { "block has" } else { "blocks have" }));
    }
    if overview.names.is_empty() {
        return html! { p.verdict { "There is no backup yet." } };
    }
    match problems.is_empty() {
        true => html! { p.verdict.good { "All is well: nothing is late, no damage is known." } },
        false => html! { p.verdict.bad { (problems.join(", ")) "." } },
    }
}

fn tiles(overview: &Overview) -> Markup {
    let times = |ratio: f64| if ratio == 0.0 { "–".to_owned() } else { format!("{ratio:.1} : 1") };
    let versions = overview.versions().count();
    let incomplete = overview.count(Standing::Incomplete);
    let tile = |term: &str, value: String, note: String| {
        html! { div { dt { (term) } dd { (value) } dd.note { (note) } } }
    };
    let free = overview.space.map_or_else(String::new, |space| {
        format!("{} of {} free", show_bytes(space.free_bytes), show_bytes(space.total_bytes))
    });
    html! {
        section aria-labelledby="numbers" {
            h2 id="numbers" { "In numbers" }
            dl.tiles {
                (tile("Names", overview.names.len().to_string(), format!("{} on time", overview.count_names(Sla::Met))))
                (tile("Versions", versions.to_string(), format!("{incomplete} incomplete, {} deleted", overview.removed)))
                (tile("Images", show_bytes(overview.logical_bytes()), "of all versions together".into()))
                (tile("On the target", show_bytes(overview.packs_bytes()), free))
                (tile("Deduplication", times(overview.deduplication_ratio()), "bytes backed up to bytes that were new".into()))
                (tile("Compression", times(overview.compression_ratio()), "new bytes to bytes stored".into()))
            }
        }
    }
}

fn activity(jobs: &[JobRow], drafts: &[Unfinished], now: Stamp) -> Markup {
    html! {
        section aria-labelledby="jobs" {
            h2 id="jobs" { "Running now" }
            @if jobs.is_empty() && drafts.is_empty() { p { "Nothing is being done, and no copy is unfinished." } }
            ul.jobs {
                @for job in jobs { (self::job(job, now)) }
                @for draft in drafts.iter().take(LIST_MAX) {
                    li { span.(if draft.is_broken { "bad" } else { "" }) { (if draft.is_broken { "Broken copy " } else { "Copy " }) }
                        b { (draft.name) } ", " (show_bytes(draft.size_bytes)) " so far: " (draft.state) }
                }
                (more(drafts.len()))
            }
        }
    }
}

fn job(job: &JobRow, now: Stamp) -> Markup {
    let amount = |count: u64| match job.unit {
        Unit::Bytes => show_bytes(count),
        Unit::Items => count.to_string(),
    };
    let since = u64::try_from((now.millis() - job.started_ms) / 1000).unwrap_or(0);
    html! {
        li {
            b { (job.verb) " " (job.what) } " for " (lasting(since))
            @if let Some(percent) = job.percent() {
                progress max="100" value=(percent) aria-label=(format!("{} {}", job.verb, job.what)) { (percent) "%" }
                (percent) "% of " (amount(job.total)) ", " (amount(job.per_second())) "/s"
                @if let Some(left) = job.seconds_left() { ", " (lasting(left)) " left" }
            }
        }
    }
}

fn damage(overview: &Overview) -> Markup {
    let hit: Vec<_> =
        overview.names.iter().filter(|n| n.versions.iter().any(|v| v.standing == Standing::Damaged)).collect();
    html! {
        section aria-labelledby="damage" {
            h2 id="damage" { "Damage" }
            @if hit.is_empty() && overview.damaged.is_empty() { p.good { "None is known." } }
            @if !hit.is_empty() {
                ul {
                    @for state in hit.iter().take(LIST_MAX) {
                        @let bad: Vec<_> = state.versions.iter().filter(|v| v.standing == Standing::Damaged).collect();
                        li { b { (state.name) } ": " (bad.len()) " of " (state.versions.len()) " versions, the newest of "
                            (bad.last().map(|v| moment(v.created)).unwrap_or_default()) }
                    }
                    (more(hit.len()))
                }
            }
            @if !overview.damaged.is_empty() {
                details {
                    summary { (overview.damaged.len()) " blocks have no good copy. A backup of the same content stores them anew and heals every version." }
                    ul {
                        @for (block, why) in overview.damaged.iter().take(LIST_MAX) { li { code { (block) } ": " (why) } }
                        (more(overview.damaged.len()))
                    }
                }
            }
        }
    }
}

/// The end of a list that was cut.
fn more(len: usize) -> Markup {
    html! { @if len > LIST_MAX { li { "and " (len - LIST_MAX) " more" } } }
}

/// `2026-11-22 18:31 UTC`.
fn moment(at: Stamp) -> String {
    let text = at.to_seconds_text();
    format!("{} {} UTC", &text[..10], &text[11..16])
}

/// A day, counted from 1970-01-01.
fn day(number: i64) -> String {
    let text = Stamp::from_millis(number.saturating_mul(super::overview::DAY_MS)).to_seconds_text();
    text[..10].to_owned()
}

/// How long ago, in words.
fn ago(at: Stamp, now: Stamp) -> String {
    match u64::try_from(now.millis() - at.millis()) {
        Ok(..60_000) => "just now".to_owned(),
        Ok(millis) => format!("{} ago", lasting(millis / 1000)),
        Err(_) => "in the future".to_owned(),
    }
}

#[cfg(test)]
mod tests;
