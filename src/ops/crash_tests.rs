//! Exhaustive crash sweep: the same work is stopped before and after each of its effects on the target, and on each step of an
//! effect (write, sync, rename, sync of the directory). Then the target is opened as after a power loss: with the catalog that was
//! there, and without one. Nothing acknowledged may be missing, nothing half done may look whole, and both catalogs agree.

use crate::catalog::Version;
use crate::image::{DraftImage, ImageReader};
use crate::ops::commit::{Publication, publish_version};
use crate::repo::testing::{attributes, create, open, small};
use crate::repo::{RepoError, Repository};
use crate::target::{Crash, DirTarget, FaultTarget, Target};
use crate::words::attribute::AttributeChange;
use crate::words::clock::ClockExt;
use crate::words::ids::Uid;
use crate::words::monitor::Tally;
use crate::words::name::Name;
use crate::words::record::{ImageRef, Record, RecordKind};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

/// What was acknowledged before the crash.
#[derive(Default)]
struct Acknowledged {
    versions: BTreeMap<Uid, Vec<u8>>,
    tagged: BTreeSet<Uid>,
    removed: BTreeSet<Uid>,
    draft: Option<Vec<u8>>,
}

/// What the script writes under each name, in order: a version that shows anything else is a wrong byte.
fn contents() -> [Vec<u8>; 3] {
    let text = |seed: u32| (0..90_000u32).flat_map(move |n| (n * seed / 11).to_le_bytes()).collect::<Vec<u8>>();
    let mut changed = text(3);
    changed[200_000..204_000].fill(9);
    changed.truncate(300_001);
    [text(3), changed, text(5)]
}

fn settle(repo: &Arc<Repository>, start: ImageRef, bytes: &[u8]) -> Result<crate::image::Settled, RepoError> {
    let draft = DraftImage::new(Arc::clone(repo), start, Some(start));
    draft.write_at(0, bytes)?;
    draft.truncate(bytes.len() as u64)?;
    draft.settle()
}

fn back_up(repo: &Arc<Repository>, start: ImageRef, bytes: &[u8]) -> Result<Record, RepoError> {
    let publication = Publication { relatives: vec![start], ..Publication::new(attributes("vm")) };
    publish_version(repo, &settle(repo, start, bytes)?, publication)
}

fn keep_draft(repo: &Arc<Repository>, bytes: &[u8], before: Option<&Record>) -> Result<Record, RepoError> {
    let empty = ImageRef::empty(repo.block_size());
    let settled = settle(repo, empty, bytes)?;
    let record = Record {
        uid: repo.clock().uid(),
        kind: RecordKind::Draft,
        created: repo.clock().now(),
        host: repo.host(),
        image: settled.image,
        base: Uid::NIL,
        supersedes: before.map_or(Uid::NIL, |record| record.uid),
        draft: before.map_or_else(|| repo.clock().draft_id(), |record| record.draft),
        start: empty,
        broken: None,
        attributes: attributes("draft"),
        stats: settled.stats,
    };
    repo.publish(&record, &[])?;
    if let Some(before) = before {
        repo.remove_record(RecordKind::Draft, before.uid)?;
    }
    Ok(record)
}

/// The work that is interrupted.
fn script(repo: &Arc<Repository>, done: &mut Acknowledged) -> Result<(), RepoError> {
    let [first, second, third] = contents();
    let one = back_up(repo, ImageRef::empty(repo.block_size()), &first)?;
    done.versions.insert(one.uid, first);
    repo.change_attributes(one.uid, &[AttributeChange::AddTag("kept".into())])?;
    done.tagged.insert(one.uid);
    let draft = keep_draft(repo, &third[..150_000], None)?;
    done.draft = Some(third[..150_000].to_vec());
    let two = back_up(repo, one.image, &second)?;
    done.versions.insert(two.uid, second);
    keep_draft(repo, &third, Some(&draft))?;
    done.draft = Some(third);
    repo.remove_version(one.uid)?;
    done.removed.insert(one.uid);
    Ok(())
}

fn bytes_of(repo: &Arc<Repository>, image: ImageRef) -> Vec<u8> {
    let mut bytes = vec![0; image.size_bytes as usize];
    ImageReader::new(Arc::clone(repo), image, "test").read_at(0, &mut bytes).unwrap();
    bytes
}

fn verify(repo: &Arc<Repository>, done: &Acknowledged, what: &str) {
    let whole = contents();
    let uids = repo.catalog().version_uids().unwrap();
    let shown: BTreeMap<Uid, Version> = uids.into_iter().map(|uid| (uid, repo.version(uid).unwrap())).collect();
    for (uid, version) in &shown {
        assert!(whole.contains(&bytes_of(repo, version.record.image)), "{what}: version {uid} is something half");
        assert!(!done.removed.contains(uid), "{what}: version {uid} was removed");
    }
    // The removal of the first version may have begun: it is the script's last act.
    let maybe_removed =
        |uid: &Uid| done.versions.len() == 2 && done.versions.first_key_value().is_some_and(|v| v.0 == uid);
    for (uid, bytes) in &done.versions {
        match shown.get(uid) {
            Some(version) => assert_eq!(&bytes_of(repo, version.record.image), bytes, "{what}: version {uid}"),
            None => assert!(maybe_removed(uid), "{what}: version {uid} was acknowledged and is gone"),
        }
    }
    for version in done.tagged.iter().filter_map(|uid| shown.get(uid)) {
        assert!(version.attributes.tags.contains("kept"), "{what}: the tag is gone");
    }
    if let Some(bytes) = &done.draft {
        let draft = repo.catalog().draft_of(&Name::new("draft").unwrap()).unwrap();
        let draft = bytes_of(repo, draft.unwrap_or_else(|| panic!("{what}: the draft is gone")).image);
        assert!(draft == *bytes || draft == whole[2], "{what}: the draft has other bytes");
    }
}

/// Opens a catalog again. A worker of the crashed repository may still be on its way out with it.
fn reopen(target: &Arc<dyn Target>, state: &Path) -> Arc<Repository> {
    for _ in 0..500 {
        match open(Arc::clone(target), state, Arc::new(Tally::default())) {
            Ok(repo) => return repo,
            Err(RepoError::Catalog(_)) => std::thread::sleep(std::time::Duration::from_millis(10)),
            Err(error) => panic!("{error}"),
        }
    }
    panic!("the catalog stayed busy")
}

/// Runs the script against a target that stops at effect `at`; says whether it came to the end.
fn crash(at: u64, how: Crash, make: impl Fn(&Path) -> FaultTarget<DirTarget>) -> bool {
    let what = format!("crash {how:?} effect {at}");
    let world = create(&small());
    let (root, state) = (world.dir.path().join("target"), world.dir.path().join("state"));
    drop(world.repo);
    let target = make(&root);
    let faults = Arc::clone(target.faults());
    let target: Arc<dyn Target> = Arc::new(target);
    let repo = reopen(&target, &state);
    let begun = faults.effects();
    faults.crash_at(begun + at, how);
    let mut done = Acknowledged::default();
    let finished = script(&repo, &mut done).is_ok();
    drop(repo);
    let again: Arc<dyn Target> = Arc::new(DirTarget::open(&root));
    let kept = reopen(&again, &state);
    kept.refresh().unwrap();
    verify(&kept, &done, &format!("{what}, with the catalog"));
    let rebuilt = open(again, &world.dir.path().join("other"), Arc::new(Tally::default())).unwrap();
    rebuilt.refresh().unwrap();
    verify(&rebuilt, &done, &format!("{what}, without a catalog"));
    assert_eq!(kept.catalog().dump().unwrap(), rebuilt.catalog().dump().unwrap(), "{what}: the catalogs differ");
    finished && !faults.crashed()
}

fn sweep(how: Crash, make: impl Fn(&Path) -> FaultTarget<DirTarget>) -> u64 {
    (0..).find(|at| crash(*at, how, &make)).unwrap_or(0)
}

#[test]
fn a_crash_before_any_object_loses_nothing_acknowledged() {
    let effects = sweep(Crash::Before, |root| FaultTarget::new(DirTarget::open(root)));
    assert!(effects > 20, "the sweep went over {effects} effects only");
}

#[test]
fn a_crash_after_any_object_loses_nothing_acknowledged() {
    let effects = sweep(Crash::After, |root| FaultTarget::new(DirTarget::open(root)));
    assert!(effects > 20, "the sweep went over {effects} effects only");
}

#[test]
fn a_crash_between_the_steps_of_an_upload_loses_nothing_acknowledged() {
    let steps = sweep(Crash::Before, |root| FaultTarget::over_steps(root));
    assert!(steps > 80, "the sweep went over {steps} steps only");
}
