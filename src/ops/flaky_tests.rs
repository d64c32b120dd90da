//! A repository on a target that flaws a quarter of its answers: everything succeeds, nothing is wrong, nothing is called damaged.

use crate::image::ImageReader;
use crate::ops::Interrupt;
use crate::ops::backup::{Backup, backup};
use crate::ops::rebuild::{IndexSource, rebuild};
use crate::repo::testing;
use crate::source::Recipe;
use crate::target::{DirTarget, FlakyTarget, Patience, RetryTarget, Target};
use crate::words::attribute::AttributeChange;
use crate::words::clock::{Clock, SystemClock, TestClock};
use crate::words::monitor::{Counter, Silent};
use crate::words::name::Name;
use crate::words::stamp::Stamp;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// `BACKYFS_TEST_SEED` repeats a day.
fn seed() -> u64 {
    let given = std::env::var("BACKYFS_TEST_SEED").ok().and_then(|text| text.parse().ok());
    let seed = given.unwrap_or_else(|| {
        let mut random = [0; 4];
        SystemClock.random(&mut random);
        u32::from_le_bytes(random).into()
    });
    println!("seed {seed} (repeat with BACKYFS_TEST_SEED={seed})");
    seed
}

#[test]
fn a_bad_day_changes_nothing() {
    let seed = seed();
    let test = testing::create(&testing::small());
    let dir = test.dir.path();
    let inner = Arc::new(FlakyTarget::new(DirTarget::open(dir.join("target")), seed, 25));
    let patience = Patience { usual: Duration::from_secs(60), first: Duration::from_secs(60) };
    let clock = Arc::new(TestClock::new(Stamp::from_millis(0), seed));
    let target: Arc<dyn Target> = Arc::new(RetryTarget::new(Arc::clone(&inner), patience).with_clock(clock));
    let tally = Arc::default();
    let repo = testing::open(Arc::clone(&target), &dir.join("other"), Arc::clone(&tally)).unwrap();
    repo.refresh().unwrap();
    let source = dir.join("source");
    let mut bytes = vec![0; 900_000];
    let random = TestClock::new(Stamp::from_millis(0), seed);
    for version in 0..3 {
        random.random(&mut bytes[version * 200_000..][..300_000]);
        std::fs::write(&source, &bytes).unwrap();
        let job = Backup::new(Recipe::File { path: source.clone() }, Name::new("vm").unwrap());
        let record = backup(&repo, &job, &Silent, &Interrupt::never()).unwrap().record;
        repo.change_attributes(record.uid, &[AttributeChange::AddTag("kept".into())]).unwrap();
    }
    // Another host, which knows nothing yet and reads everything.
    drop(repo);
    let repo = testing::open(target, &dir.join("third"), Arc::clone(&tally)).unwrap();
    let rebuilt = rebuild(&repo, IndexSource::Packs, &Silent).unwrap();
    assert_eq!(rebuilt.unreadable, [""; 0]);
    let versions = repo.catalog().version_uids().unwrap();
    assert_eq!(versions.len(), 3);
    for uid in &versions {
        assert_eq!(repo.version(*uid).unwrap().attributes.tags, BTreeSet::from(["kept".to_owned()]));
    }
    let image = repo.version(versions[2]).unwrap().record.image;
    let mut read = vec![0; bytes.len()];
    for (at, part) in read.chunks_mut(100_000).enumerate() {
        ImageReader::new(Arc::clone(&repo), image, "test").read_at(at as u64 * 100_000, part).unwrap();
    }
    assert!(read == bytes, "restored bytes");
    assert_eq!(tally.get(Counter::Damage), 0, "what went wrong on the way is not damage");
    assert!(repo.catalog().damaged().unwrap().is_empty());
    let met: u64 = inner.met().values().sum();
    assert!(met > 20, "too good a day to mean anything: {:?}", inner.met());
}
