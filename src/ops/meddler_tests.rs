//! A target between a host and what it is told: another process does something in the middle of a check, or nothing may be deleted.

use crate::format::layout::{self, ObjectKey};
use crate::image::ImageReader;
use crate::ops::commit::{Publication, publish_version};
use crate::ops::hosts_tests::{condemn, content, draft_record, host, noise, publish, settle};
use crate::ops::remove::{self, Consent, Options};
use crate::repo::RepoError;
use crate::repo::testing::{attributes, create, open, small};
use crate::target::through::Through;
use crate::target::{DirTarget, ObjectInfo, Target, TargetError};
use crate::words::attribute::AttributeChange;
use crate::words::clock::ClockExt;
use crate::words::ids::PackId;
use crate::words::monitor::{Counter, Tally};
use crate::words::record::{BlockKind, PackContents, RecordKind};
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Lets another process of this host learn something between two requests of a check.
struct Meddler {
    inner: DirTarget,
    /// Done once, after the condemned list was read.
    deed: parking_lot::Mutex<Option<Box<dyn FnOnce() + Send>>>,
    lists: std::sync::atomic::AtomicUsize,
    /// Whether it may delete.
    deletes: bool,
    /// Whether it says nothing of who withdraws.
    is_mute: AtomicBool,
}

impl Through for Meddler {
    fn within(&self) -> &dyn Target {
        &self.inner
    }
    fn get(&self, key: &ObjectKey) -> Result<Vec<u8>, TargetError> {
        if self.is_mute.load(Ordering::Relaxed) && key.as_str().starts_with(layout::WITHDRAWING) {
            let (target, source) = (self.describe(), std::io::Error::other("no answer"));
            return Err(TargetError::Denied { target, action: "reading", key: key.to_string(), source });
        }
        self.inner.get(key)
    }
    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, TargetError> {
        let listed = self.inner.list(prefix);
        if prefix == layout::CONDEMNED {
            self.lists.fetch_add(1, Ordering::Relaxed);
            if let Some(deed) = self.deed.lock().take() {
                deed();
            }
        }
        listed
    }
    fn delete(&self, key: &ObjectKey) -> Result<(), TargetError> {
        if self.deletes {
            return self.inner.delete(key);
        }
        let (target, source) = (self.describe(), std::io::Error::other("look, do not touch"));
        Err(TargetError::Denied { target, action: "deleting", key: key.to_string(), source })
    }
}

#[test]
fn a_check_does_not_trust_what_another_process_learnt_after_it_read_the_list() {
    let world = create(&small());
    let root = world.dir.path().join("target");
    let meddler = Arc::new(Meddler {
        inner: DirTarget::open(&root),
        deed: parking_lot::Mutex::default(),
        lists: std::sync::atomic::AtomicUsize::new(0),
        deletes: true,
        is_mute: AtomicBool::new(false),
    });
    let repo = open(Arc::clone(&meddler) as _, &world.dir.path().join("two"), Arc::new(Tally::default())).unwrap();
    repo.refresh().unwrap();
    let image = settle(&repo, &noise(1, 200_000)).image;
    // All copies of its blocks are condemned, so the check would store them again ...
    let packs = repo.catalog().packs().unwrap();
    let old: Vec<PackId> = packs.iter().map(|pack| pack.pack).collect();
    condemn(&repo, &old);
    // ... did not another process learn, just after this one has read the list, of copies in a pack that is condemned by then.
    let dead = PackId::from_bytes([7; 32]);
    let contents: Vec<PackContents> = old
        .iter()
        .zip(&packs)
        .map(|(pack, summary)| PackContents {
            pack: if summary.kind == BlockKind::Map { PackId::from_bytes([8; 32]) } else { dead },
            ..repo.inspect_pack(*pack, summary.size_bytes).unwrap()
        })
        .collect();
    let other = Arc::clone(&world.repo);
    let catalog = repo.catalog().clone();
    let fragment = repo.clock().fragment_id();
    *meddler.deed.lock() = Some(Box::new(move || {
        condemn(&other, &[dead, PackId::from_bytes([8; 32])]);
        catalog.absorb_anew(fragment, &contents).unwrap();
    }));
    repo.check_image(&image, &[]).unwrap();
    assert!(meddler.lists.load(Ordering::Relaxed) >= 2, "the list is read again");
    let fresh = host(&world, "fresh");
    fresh.check_image(&image, &[]).unwrap();
    let mut bytes = vec![0; 200_000];
    old.iter().for_each(|pack| fresh.target().delete(&layout::pack(*pack)).unwrap());
    ImageReader::new(Arc::clone(&fresh), image, "test").read_at(0, &mut bytes).unwrap();
    assert!(bytes == noise(1, 200_000));
    assert_eq!(world.tally.get(Counter::Damage), 0);
}

#[test]
fn who_may_not_delete_sees_and_restores_all_the_same() {
    let world = create(&small());
    let one = Arc::clone(&world.repo);
    let kept = publish(&one, "kept", &noise(1, 50_000)).unwrap().uid;
    let removed = publish(&one, "removed", &noise(2, 50_000)).unwrap();
    let draft = draft_record(&one, "vm", &noise(3, 9000), one.new_draft().unwrap().id());
    one.publish(&draft, &[]).unwrap();
    // Both were cut short: a removal after its tombstone, and the end of a draft after its version.
    let file = world.dir.path().join("target").join(layout::record(RecordKind::Version, removed.uid).as_str());
    let saved = fs::read(&file).unwrap();
    one.remove_version(removed.uid).unwrap();
    fs::write(&file, saved).unwrap();
    let settled = settle(&one, &noise(3, 9000));
    let publication = Publication { draft: draft.draft, ..Publication::new(attributes("vm")) };
    let version = publish_version(&one, &settled, publication).unwrap().uid;
    let target = Meddler {
        inner: DirTarget::open(world.dir.path().join("target")),
        deed: parking_lot::Mutex::default(),
        lists: std::sync::atomic::AtomicUsize::new(0),
        deletes: false,
        is_mute: AtomicBool::new(false),
    };
    let reader = open(Arc::new(target), &world.dir.path().join("reader"), Arc::new(Tally::default())).unwrap();
    for _ in 0..2 {
        reader.refresh().unwrap();
        assert_eq!(reader.catalog().version_uids().unwrap(), [kept, version]);
        assert_eq!(reader.catalog().drafts().unwrap(), []);
        assert!(content(&reader, kept) == noise(1, 50_000));
    }
    assert!(file.exists());
}

#[test]
fn a_version_that_its_writer_cannot_be_sure_of_is_left_to_others_with_the_draft_before_it() {
    for withdrawn in [false, true] {
        let world = create(&small());
        let meddler = Arc::new(Meddler {
            inner: DirTarget::open(world.dir.path().join("target")),
            deed: parking_lot::Mutex::default(),
            lists: std::sync::atomic::AtomicUsize::new(0),
            deletes: true,
            is_mute: AtomicBool::new(false),
        });
        let repo = open(Arc::clone(&meddler) as _, &world.dir.path().join("two"), Arc::new(Tally::default())).unwrap();
        let claim = repo.new_draft().unwrap();
        let draft = draft_record(&repo, "vm", &noise(1, 9000), claim.id());
        repo.publish(&draft, &[]).unwrap();
        // `ok` arrives, and whether somebody withdraws cannot be asked any more.
        meddler.is_mute.store(true, Ordering::Relaxed);
        let publication = Publication { draft: claim.id(), ..Publication::new(attributes("vm")) };
        assert!(publish_version(&repo, &settle(&repo, &noise(1, 9000)), publication).is_err());
        meddler.is_mute.store(false, Ordering::Relaxed);
        let confirmed = meddler.list(layout::OK).unwrap();
        let uid =
            confirmed.iter().filter_map(|info| layout::parse_verdict(&info.key)).find(|uid| *uid != draft.uid).unwrap();
        assert!(meddler.get(&layout::record(RecordKind::Version, uid)).is_ok(), "others may rely on it");
        if withdrawn {
            meddler.put(&layout::withdrawing(uid), &[b"a finder was at it"]).unwrap();
        }
        let other = host(&world, "other");
        assert!(content(&other, uid) == noise(1, 9000));
        let is_left = meddler.get(&layout::record(RecordKind::Draft, draft.uid)).is_ok();
        assert_eq!(is_left, withdrawn, "a draft goes only when what it became is certain to stay");
    }
}

#[test]
fn protection_by_another_host_counts_at_the_last_moment() {
    let world = create(&small());
    let version = publish(&world.repo, "vm", &noise(1, 9000)).unwrap();
    let other = host(&world, "other");
    let options = Options { consent: Consent::Forced, protect_younger: Duration::ZERO, open_handles: 0 };
    let removal = remove::plan(&world.repo, version.uid, &options).unwrap();
    other.change_attributes(version.uid, &[AttributeChange::Protected(true)]).unwrap();
    assert!(matches!(removal.execute(&world.repo), Err(RepoError::Protected { .. })));
    assert!(world.repo.version(version.uid).unwrap().attributes.protected);
}

/// Answers a question of before once more.
struct Echo {
    inner: DirTarget,
    once: AtomicBool,
}

impl Through for Echo {
    fn within(&self) -> &dyn Target {
        &self.inner
    }
    fn get(&self, key: &ObjectKey) -> Result<Vec<u8>, TargetError> {
        let is_asked = key.as_str().starts_with(layout::WITHDRAWING);
        let stale = layout::header();
        self.inner.get(if is_asked && self.once.swap(false, Ordering::Relaxed) { &stale } else { key })
    }
}

#[test]
fn an_answer_to_another_question_withdraws_nothing() {
    let world = create(&small());
    let inner = DirTarget::open(world.dir.path().join("target"));
    let echo = Arc::new(Echo { inner, once: AtomicBool::new(true) });
    let repo = open(Arc::clone(&echo) as _, &world.dir.path().join("echo"), Arc::default()).unwrap();
    let version = publish(&repo, "vm", &noise(1, 50_000)).unwrap().uid;
    assert!(!echo.once.load(Ordering::Relaxed) && repo.version(version).is_ok());
}
