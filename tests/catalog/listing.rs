//! Listings of 10,000 versions: read, not computed.

use crate::samples::{entry, name, record};
use backyfs::catalog::Catalog;
use backyfs::words::attribute::AttributeChange;
use backyfs::words::clock::SystemClock;
use backyfs::words::record::{RecordKind, Verdict};
use std::time::Instant;

pub const VERSIONS: u64 = 10_000;

/// A catalog with many versions of many names; every tenth has entries.
pub fn filled(dir: &std::path::Path) -> Catalog {
    let catalog = Catalog::open(dir, &SystemClock).unwrap();
    let records: Vec<_> = (0..VERSIONS)
        .map(|number| {
            let mut record = record(number, RecordKind::Version, &format!("host{}/vm", number % 100), number as i64);
            record.attributes.tags.insert("daily".into());
            (record, Verdict::Confirmed)
        })
        .collect();
    catalog.put_records(&records).unwrap();
    let entries: Vec<_> =
        (0..VERSIONS / 10).map(|at| entry(at * 10, 1, at, AttributeChange::AddTag("weekly".into()))).collect();
    catalog.add_entries(&entries).unwrap();
    catalog
}

#[test]
fn ten_thousand_versions_are_listed_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = filled(dir.path());
    let mut slowest_ms = 0.0_f64;
    let mut time = |what: &str, job: &dyn Fn() -> usize, count: usize| {
        let start = Instant::now();
        assert_eq!(job(), count, "{what}");
        let took_ms = start.elapsed().as_secs_f64() * 1000.0;
        println!("{what}: {took_ms:.2} ms");
        slowest_ms = slowest_ms.max(took_ms);
    };
    let all = VERSIONS as usize;
    time("version_uids", &|| catalog.version_uids().unwrap().len(), all);
    time("version_summaries", &|| catalog.version_summaries().unwrap().len(), all);
    time("known_records", &|| catalog.known_records().unwrap().len(), all);
    time("find_by_prefix", &|| catalog.find_by_prefix("019a").unwrap().len(), all);
    time("names", &|| catalog.names().unwrap().len(), 100);
    time("children", &|| catalog.children(None).unwrap().len(), 100);
    time("versions_of", &|| catalog.versions_of(&name("host7/vm")).unwrap().len(), all / 100);
    time("tags", &|| catalog.tags().unwrap().len(), 2);
    time("tagged", &|| catalog.tagged("weekly").unwrap().len(), all / 10);
    time("version_summary", &|| catalog.version_summary(catalog.version_uids().unwrap()[77]).is_ok().into(), 1);
    // Loose, for a loaded machine: each takes a few milliseconds.
    assert!(slowest_ms < 1000.0, "{slowest_ms}");
}
