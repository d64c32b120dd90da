//! How the repository grew: a chart for the images, one for what they took. Each has a scale of its own, since the one is a multiple
//! of the other; the figures stand below as a table.

use crate::control::glance::Overview;
use crate::control::glance::overview::Day;
use crate::control::glance::report::day;
use crate::control::sizes::show_bytes;
use maud::{Markup, html};
use std::fmt::Write as _;

/// Points of a chart at most; more days are thinned out.
const POINTS_MAX: usize = 400;
/// Lines of the table at most.
const LINES_MAX: usize = 14;
/// Units of the picture.
const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 160.0;

pub(super) fn section(overview: &Overview) -> Markup {
    let days = &overview.growth;
    html! {
        section aria-labelledby="growth" {
            h2 id="growth" { "Growth" }
            @match (days.first(), days.last()) {
                (Some(first), Some(last)) => {
                    div.charts {
                        (chart("Images of all versions", "logical", days, |day| day.logical_bytes))
                        (chart("Stored by backups", "stored", days, |day| day.stored_bytes))
                    }
                    p.note { "From " (day(first.number)) " to " (day(last.number)) ". Images shrink when versions are deleted. "
                        "Stored is what backups added to the target, compressed; what became free since is not taken off." }
                    (table(days))
                }
                _ => p { "Nothing was backed up yet." },
            }
        }
    }
}

/// At most `count` of the days, evenly, with the last.
fn thinned(days: &[Day], count: usize) -> Vec<Day> {
    let step = days.len().div_ceil(count).max(1);
    let skip = (days.len() - 1) % step;
    days.iter().skip(skip).step_by(step).copied().collect()
}

fn chart(title: &str, class: &str, days: &[Day], value: fn(&Day) -> u64) -> Markup {
    let points = thinned(days, POINTS_MAX);
    let most = points.iter().map(value).max().unwrap_or(0);
    let span = (points.len() - 1).max(1) as f64;
    let mut line = String::new();
    for (at, point) in points.iter().enumerate() {
        let x = at as f64 / span * WIDTH;
        let y = HEIGHT - value(point) as f64 / most.max(1) as f64 * HEIGHT;
        let _ = write!(line, "{}{x:.1} {y:.1}", if at == 0 { 'M' } else { 'L' });
    }
    if points.len() == 1 {
        line.push_str(&format!("H{WIDTH}"));
    }
    let last = points.last().map_or(0, value);
    let label = format!(
        "{title}: {} on {}, at most {}",
        show_bytes(last),
        day(points[points.len() - 1].number),
        show_bytes(most)
    );
    html! {
        figure {
            figcaption { (title) " " b { (show_bytes(last)) } }
            svg.(class) viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } preserveAspectRatio="none" role="img" aria-label=(label) {
                path.area d={ (line) "V" (HEIGHT) "H0Z" } {}
                path.line d=(line) {}
            }
            div.axis { span { (day(points[0].number)) } span { "highest " (show_bytes(most)) } span { (day(points[points.len() - 1].number)) } }
        }
    }
}

fn table(days: &[Day]) -> Markup {
    html! {
        details {
            summary { "The same as a table" }
            table {
                thead { tr { th scope="col" { "Day" } th.number scope="col" { "Images" } th.number scope="col" { "Stored" } } }
                tbody {
                    @for point in thinned(days, LINES_MAX).iter().rev() {
                        tr { th scope="row" { (day(point.number)) } td.number { (show_bytes(point.logical_bytes)) } td.number { (show_bytes(point.stored_bytes)) } }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thinning_keeps_the_last_day() {
        let days: Vec<Day> = (0..1000).map(|number| Day { number, logical_bytes: 0, stored_bytes: 0 }).collect();
        for count in [1, 7, 400, 2000] {
            let kept = thinned(&days, count);
            assert!(kept.len() <= count && kept.last().map(|day| day.number) == Some(999), "{count}: {}", kept.len());
        }
        assert_eq!(thinned(&days[..1], 14).len(), 1);
    }
}
