//! The table of names.

use crate::control::glance::overview::NameState;
use crate::control::glance::report::calendar::{Days, STRIP_DAYS};
use crate::control::glance::report::{ago, moment};
use crate::control::glance::{Overview, Sla};
use crate::control::sizes::show_bytes;
use crate::ops::retain::Standing;
use maud::{Markup, html};

/// What stands in the first column, and the class that colours it.
const fn state(sla: Sla) -> (&'static str, &'static str) {
    match sla {
        Sla::Late => ("late", "Late"),
        Sla::Breached => ("breached", "Not as promised"),
        Sla::Met => ("met", "On time"),
        Sla::Unscheduled => ("unscheduled", "No schedule"),
    }
}

pub(super) fn section(overview: &Overview) -> Markup {
    // What needs somebody comes first.
    let mut order: Vec<&NameState> = overview.names.iter().collect();
    order.sort_by_key(|name| name.sla);
    html! {
        section aria-labelledby="names" {
            h2 id="names" { "Names" }
            @if order.is_empty() { p { "None yet. Copy an image into " code { "incoming/" } ", or run " code { "backyfs backup" } "." } }
            @else {
                (tools(overview))
                table.names {
                    caption { "Newest version and versions of the last " (STRIP_DAYS / 7) " weeks; what is late comes first." }
                    thead { tr {
                        th scope="col" { "State" }
                        th scope="col" { "Name" }
                        th scope="col" { "Newest" }
                        th.number scope="col" { "Versions" }
                        th.number scope="col" { "Size" }
                        th scope="col" { span.axis { span { (STRIP_DAYS / 7) " weeks ago" } span { "today" } } }
                    } }
                    tbody id="rows" { @for name in order { (row(name, overview)) } }
                }
                p.legend {
                    span.key.g {} " version " span.key.d {} " damaged " span.key.i {} " incomplete " span.key.n {} " none on that day"
                }
            }
        }
    }
}

/// Filters. They work with the script only, which shows them.
fn tools(overview: &Overview) -> Markup {
    html! {
        div.tools id="tools" hidden {
            label { "Find " input id="find" type="search" placeholder="part of a name" autocomplete="off"; }
            fieldset {
                legend { "Show" }
                label { input type="radio" name="state" value="" checked; " all" }
                @for sla in [Sla::Late, Sla::Breached, Sla::Met, Sla::Unscheduled] {
                    @let (class, word) = state(sla);
                    label { input type="radio" name="state" value=(class); " " (word) " (" (overview.count_names(sla)) ")" }
                }
            }
            p id="found" role="status" {}
        }
    }
}

fn row(name: &NameState, overview: &Overview) -> Markup {
    let (class, word) = state(name.sla);
    let days = Days::new(&name.versions, overview.now, &overview.zone);
    let newest = name.newest();
    let size = name.versions.last().map(|version| show_bytes(version.size_bytes)).unwrap_or_default();
    html! {
        tr.(class) data-days=(days.encoded()) {
            td { span.state { (word) } }
            th scope="row" {
                span.name { (name.name) }
                @if name.versions.is_empty() { span.why { "configured, and never backed up" } }
                @for breach in &name.breaches {
                    span.why { (breach.schedule) ": " (breach.reason) }
                }
            }
            td {
                @match newest {
                    Some(version) => {
                        time datetime=(version.created) title=(moment(version.created)) { (ago(version.created, overview.now)) }
                        @if version.standing == Standing::Damaged { span.why { "damaged" } }
                    }
                    None => "never",
                }
            }
            td.number { span.unit { "versions " } (name.versions.len()) }
            td.number { (size) }
            td.calendar { (days.strip()) }
        }
    }
}
