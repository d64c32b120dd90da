//! What scrubs have read, and how long ago: a map of the packs in the order in which they were learnt.

use crate::control::glance::Overview;
use crate::control::glance::overview::{DAY_MS, PackState};
use crate::control::glance::report::{ago, moment};
use crate::words::stamp::Stamp;
use maud::{Markup, html};
use std::fmt::Write as _;

/// Cells of the map at most; more packs share them.
const CELLS_MAX: usize = 600;
const COLUMNS: usize = 50;

/// What a cell shows: the worst of its packs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Cell {
    Week,
    Month,
    Quarter,
    Old,
    Never,
    Damaged,
}

impl Cell {
    const ALL: [Self; 6] = [Self::Week, Self::Month, Self::Quarter, Self::Old, Self::Never, Self::Damaged];

    fn of(pack: &PackState, now: Stamp) -> Self {
        let Some(read) = pack.read.filter(|_| !pack.is_damaged) else {
            return if pack.is_damaged { Self::Damaged } else { Self::Never };
        };
        match (now.millis() - read.millis()) / DAY_MS {
            ..=7 => Self::Week,
            8..=30 => Self::Month,
            31..=90 => Self::Quarter,
            _ => Self::Old,
        }
    }

    const fn class(self) -> &'static str {
        match self {
            Self::Week => "s1",
            Self::Month => "s2",
            Self::Quarter => "s3",
            Self::Old => "s4",
            Self::Never => "n",
            Self::Damaged => "d",
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Week => "within a week",
            Self::Month => "within a month",
            Self::Quarter => "within a quarter",
            Self::Old => "longer ago",
            Self::Never => "never",
            Self::Damaged => "damaged",
        }
    }
}

pub(super) fn section(overview: &Overview) -> Markup {
    let cells: Vec<Cell> = overview.packs.iter().map(|pack| Cell::of(pack, overview.now)).collect();
    html! {
        section aria-labelledby="scrub" {
            h2 id="scrub" { "Scrub" }
            (last(overview))
            @if !cells.is_empty() {
                (map(&cells))
                p.legend {
                    @for cell in Cell::ALL {
                        @let count = cells.iter().filter(|c| **c == cell).count();
                        span.key.(cell.class()) {} " " (cell.word()) " (" (count) ") "
                    }
                }
                p.note { "A square is " @if cells.len() > CELLS_MAX { "the worst of about " (cells.len().div_ceil(CELLS_MAX)) " packs" } @else { "a pack" }
                    ", in the order in which this host learnt of them. It shows when this host last read it from end to end." }
            }
        }
    }
}

fn last(overview: &Overview) -> Markup {
    let Some(report) = &overview.scrub else {
        return html! { p { "This host has not scrubbed yet: run " code { "backyfs scrub" } "." } };
    };
    let finished = report.finished.as_deref().and_then(|at| Stamp::parse(at, overview.now).ok());
    let found = report.damaged_packs.len() + report.unreadable_packs.len() + report.damaged_objects.len();
    html! {
        p {
            "The last scrub (" (report.what) ") "
            @match finished {
                Some(at) => { "ended " time datetime=(at) title=(moment(at)) { (ago(at, overview.now)) } },
                None => "was interrupted",
            }
            ", read " (report.packs_read) " of " (report.packs) " packs and " (report.objects_read) " other objects, and found "
            @if found == 0 { "no damage." } @else { b.bad { (found) " of them damaged." } }
            @if let Some(oldest) = overview.oldest_scrub() { " The pack that it has not read for longest was read " (ago(oldest, overview.now)) "." }
        }
    }
}

/// At most [`CELLS_MAX`] cells: neighbours share one, which shows the worst.
fn gathered(cells: &[Cell]) -> Vec<Cell> {
    let each = cells.len().div_ceil(CELLS_MAX).max(1);
    cells.chunks(each).filter_map(|chunk| chunk.iter().max().copied()).collect()
}

fn map(cells: &[Cell]) -> Markup {
    let shown = gathered(cells);
    let columns = COLUMNS.min(shown.len());
    let rows = shown.len().div_ceil(columns);
    let read = cells.iter().filter(|cell| !matches!(cell, Cell::Never | Cell::Damaged)).count();
    html! {
        svg.map viewBox={ "0 0 " (COLUMNS) " " (rows) } role="img" aria-label={ (read) " of " (cells.len()) " packs were read and are good" } {
            @for cell in Cell::ALL {
                @let path = path(&shown, cell, columns);
                @if !path.is_empty() { path class=(cell.class()) d=(path) {} }
            }
        }
    }
}

fn path(shown: &[Cell], wanted: Cell, columns: usize) -> String {
    let places = shown.iter().enumerate().filter(|(_, cell)| **cell == wanted);
    places.fold(String::new(), |mut path, (at, _)| {
        let _ = write!(path, "M{} {}h.9v.9h-.9z", at % columns, at / columns);
        path
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packs_that_share_a_cell_show_the_worst() {
        let now = Stamp::from_millis(100 * DAY_MS);
        let pack = |read: Option<i64>, is_damaged| PackState {
            size_bytes: 1,
            read: read.map(|day| Stamp::from_millis(day * DAY_MS)),
            is_damaged,
        };
        let cells: Vec<Cell> = [pack(Some(99), false), pack(Some(60), false), pack(None, false), pack(Some(99), true)]
            .iter()
            .map(|pack| Cell::of(pack, now))
            .collect();
        assert_eq!(cells, [Cell::Week, Cell::Quarter, Cell::Never, Cell::Damaged]);
        let many: Vec<Cell> = cells.iter().cycle().take(4 * CELLS_MAX).copied().collect();
        assert_eq!(gathered(&many), vec![Cell::Damaged; CELLS_MAX]);
        assert_eq!(gathered(&cells), cells);
        assert_eq!(path(&cells, Cell::Never, 2), "M0 1h.9v.9h-.9z");
    }
}
