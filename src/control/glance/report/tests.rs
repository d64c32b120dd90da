//! The page says what there is, holds whatever a name is made of, and is made fast without the target.

use super::*;
use crate::control::glance::gather;
use crate::control::glance::metrics;
use crate::control::glance::openmetrics::Exposition;
use crate::control::glance::overview::DAY_MS;
use crate::ops::retain::{NameRule, Policy};
use crate::repo::testing::{TestRepository, create, small};
use crate::words::attribute::{Attributes, FileAttributes, Mtime, Validity};
use crate::words::clock::ClockExt;
use crate::words::ids::{DraftId, HostId, Uid};
use crate::words::monitor::Counter;
use crate::words::name::Name;
use crate::words::record::{ImageRef, Record, RecordKind, Stats, Verdict};
use std::collections::BTreeSet;
use std::time::Duration;

const GIB: u64 = 1 << 30;

/// A version made some days ago, as if it had been backed up.
fn version(test: &TestRepository, name: &str, days_ago: i64, validity: Validity) -> (Record, Verdict) {
    let created = test.repo.clock().now().plus_millis(-days_ago * DAY_MS - 60_000);
    let image = ImageRef { size_bytes: 10 * GIB, ..ImageRef::empty(test.repo.block_size()) };
    let attributes = Attributes {
        name: Name::new(name).unwrap(),
        snapshot_name: String::new(),
        tags: BTreeSet::from(["daily".to_owned()]),
        expire: None,
        protected: false,
        validity,
        file: FileAttributes { mode: 0o600, uid: 0, gid: 0, mtime: Mtime { seconds: 0, nanos: 0 } },
    };
    let stats = Stats { written_bytes: 10 * GIB, new_bytes: GIB, stored_bytes: GIB / 2, ..Stats::default() };
    let record = Record {
        uid: test.repo.clock().uid_at(created),
        kind: RecordKind::Version,
        created,
        host: HostId::NIL,
        image,
        base: Uid::NIL,
        supersedes: Uid::NIL,
        draft: DraftId::NIL,
        start: image,
        broken: None,
        attributes,
        stats,
    };
    (record, Verdict::Confirmed)
}

fn daily() -> Policy {
    let rule = NameRule { pattern: "*".into(), schedules: vec!["daily".into()], keep: None };
    Policy { names: vec![rule], ..Policy::default() }
}

fn overview(test: &TestRepository) -> Overview {
    gather(&test.repo, &daily(), Duration::from_secs(6 * 86_400)).unwrap()
}

#[test]
fn a_repository_without_a_backup_says_so() {
    let test = create(&small());
    let page = page(&overview(&test), &[]);
    assert!(page.contains("There is no backup yet.") && page.contains("This host has not scrubbed yet"));
    assert!(page.contains("Nothing is being done") && page.starts_with("<!DOCTYPE html>"));
}

#[test]
fn names_show_how_they_do_and_cannot_become_part_of_the_page() {
    let test = create(&small());
    let mut records: Vec<_> = (0..20).map(|day| version(&test, "good", day, Validity::Valid)).collect();
    records.push(version(&test, "late </script><img src=x onerror=alert(1)>&", 5, Validity::Valid));
    records.push(version(&test, "hit", 0, Validity::Valid));
    records.push(version(&test, "hit", 1, Validity::Invalid("rot".into())));
    test.repo.catalog().put_records(&records).unwrap();
    let overview = overview(&test);
    assert_eq!((overview.count_names(Sla::Late), overview.count_names(Sla::Met)), (1, 2));
    assert_eq!((overview.deduplication_ratio(), overview.compression_ratio()), (10.0, 2.0));
    let page = page(&overview, &[]);
    assert!(page.contains("<title>backyfs: 1 late, 1 damaged</title>"), "{}", &page[..600]);
    assert!(page.contains("1 of 3 names is late, 1 version is damaged."));
    assert!(!page.contains("<img") && page.contains("late &lt;/script&gt;&lt;img src=x onerror=alert(1)&gt;&amp;"));
    // What is late comes first; its reason stands beside it.
    assert!(page.find("late &lt;/script").unwrap() < page.find(">good<").unwrap());
    assert!(page.contains("daily: late by"));
    assert!(page.contains("data-days=\".351g20\""), "twenty days, the last of them today");
    for (part, title) in PARTS {
        assert!(page.contains(&format!("<h2 id=\"{part}\">{title}</h2>")), "{part}");
    }
    // Nothing is loaded from anywhere.
    for reference in ["src=\"", "href=\"http", "url(", "@import", "import("] {
        assert!(!page.contains(reference), "{reference}");
    }
}

#[test]
fn growth_counts_what_is_there_and_all_that_was_stored() {
    let test = create(&small());
    let records: Vec<_> = (0..3).map(|day| version(&test, "vm", day, Validity::Valid)).collect();
    test.repo.catalog().put_records(&records).unwrap();
    let growth = overview(&test).growth;
    let told: Vec<_> = growth.iter().map(|day| (day.logical_bytes / GIB, day.stored_bytes * 2 / GIB)).collect();
    assert!(told == [(10, 1), (20, 2), (30, 3)] || told == [(10, 1), (20, 2), (30, 3), (30, 3)], "{told:?}");
}

/// How long this thread has computed. Unlike a clock on the wall it says the same on a machine that is busy with something else.
fn computed() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is valid for the call, which fills it (clock_gettime(2)).
    assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) }, 0);
    Duration::new(u64::try_from(time.tv_sec).unwrap(), u32::try_from(time.tv_nsec).unwrap())
}

#[test]
fn two_thousand_names_take_less_than_a_second_and_no_target() {
    let test = create(&small());
    let of_name = |n: usize| (0..9).map(move |day| (format!("host{}/vm{n}", n % 50), day));
    let records: Vec<_> =
        (0..2000).flat_map(of_name).map(|(name, day)| version(&test, &name, day, Validity::Valid)).collect();
    test.repo.catalog().put_records(&records).unwrap();
    let target = test.dir.path().join("target");
    std::fs::rename(&target, target.with_extension("away")).unwrap();
    let began = computed();
    let gathered = overview(&test);
    let (gathering, began) = (computed() - began, computed());
    let page = page(&gathered, &[]);
    let (paging, began) = (computed() - began, computed());
    let mut text = Exposition::default();
    metrics::repository(&mut text, &gathered);
    let text = text.finish();
    let measuring = computed() - began;
    println!(
        "gathered in {gathering:?}, {} bytes of page in {paging:?}, {} of metrics in {measuring:?}",
        page.len(),
        text.len()
    );
    assert_eq!((gathered.names.len(), page.matches("<tr class=\"met\"").count()), (2000, 2000));
    assert_eq!(text.matches("\nbackyfs_newest_version_age_seconds{").count(), 2000);
    assert!(gathering + paging < Duration::from_secs(1), "{gathering:?}, {paging:?}");
    assert!(gathering + measuring < Duration::from_secs(1), "{gathering:?}, {measuring:?}");
    assert_eq!(test.tally.get(Counter::TargetReads), 0);
}
