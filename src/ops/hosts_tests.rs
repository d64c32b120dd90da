//! Several hosts on one target: each has a catalog and a state directory of its own, none knows of the others but through the
//! target.

use crate::format::frame::FrameKind;
use crate::format::layout::{self, ObjectKey};
use crate::format::{condemned, record};
use crate::image::overlay::OverlayFile;
use crate::image::{DraftImage, ImageReader};
use crate::ops::commit::{Publication, publish_version};
use crate::ops::gc::{Options, gc};
use crate::ops::reading::ReadingPin;
use crate::ops::remove::Consent;
use crate::ops::unfinished::Unfinished;
use crate::ops::{Interrupt, discard, overlays, remove};
use crate::repo::claims::DraftClaims;
use crate::repo::drafts::DraftOwner;
use crate::repo::rebuild::IndexSource;
use crate::repo::testing::{TestRepository, attributes, create, open, put_sealed, small};
use crate::repo::{RepoError, Repository, object_id};
use crate::target::{DirTarget, Target};
use crate::words::attribute::AttributeChange;
use crate::words::clock::ClockExt;
use crate::words::ids::{DraftId, PackId, Uid};
use crate::words::monitor::{Silent, Tally};
use crate::words::name::Name;
use crate::words::record::{ImageRef, Record, RecordKind, Verdict};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Bytes that do not repeat.
pub(super) fn noise(seed: u32, len: usize) -> Vec<u8> {
    let mut state = u64::from(seed) | 1 << 40;
    let step = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as u8
    });
    step.take(len).collect()
}

pub(super) fn settle(repo: &Arc<Repository>, bytes: &[u8]) -> crate::image::Settled {
    let draft = DraftImage::new(Arc::clone(repo), ImageRef::empty(repo.block_size()), None);
    draft.write_at(0, bytes).unwrap();
    draft.settle().unwrap()
}

pub(super) fn publish(repo: &Arc<Repository>, name: &str, bytes: &[u8]) -> Result<Record, RepoError> {
    let publication = Publication::new(attributes(name));
    publish_version(repo, &settle(repo, bytes), publication)
}

pub(super) fn draft_record(repo: &Arc<Repository>, name: &str, bytes: &[u8], draft: DraftId) -> Record {
    let settled = settle(repo, bytes);
    let now = repo.clock().now();
    Record {
        uid: repo.clock().uid(),
        kind: RecordKind::Draft,
        created: now,
        host: repo.host(),
        image: settled.image,
        base: Uid::NIL,
        supersedes: Uid::NIL,
        draft,
        start: ImageRef::empty(repo.block_size()),
        broken: None,
        attributes: attributes(name),
        stats: settled.stats,
    }
}

pub(super) fn content(repo: &Arc<Repository>, uid: Uid) -> Vec<u8> {
    let image = repo.version(uid).unwrap().record.image;
    let mut bytes = vec![0; image.size_bytes as usize];
    ImageReader::new(Arc::clone(repo), image, "test").read_at(0, &mut bytes).unwrap();
    bytes
}

/// Another host on the same target.
pub(super) fn host(world: &TestRepository, state: &str) -> Arc<Repository> {
    let target: Arc<dyn Target> = Arc::new(DirTarget::open(world.dir.path().join("target")));
    let repo = open(target, &world.dir.path().join(state), Arc::new(Tally::default())).unwrap();
    repo.refresh().unwrap();
    repo
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() { copy_tree(&path, &to) } else { assert!(fs::copy(path, to).is_ok()) }
    }
}

#[test]
fn two_hosts_write_at_once_and_agree() {
    let world = create(&small());
    let (one, two) = (Arc::clone(&world.repo), host(&world, "two"));
    assert_ne!(one.host(), two.host());
    let made: Vec<(Uid, Vec<u8>)> = std::thread::scope(|scope| {
        let work = |repo: &Arc<Repository>, number: u32| {
            let repo = Arc::clone(repo);
            scope.spawn(move || {
                let own = format!("own{number}");
                let names = ["same", &own, "same"];
                let made = names.into_iter().zip(0..).map(|(name, n)| {
                    // Half of it is the same on both hosts.
                    let bytes = [noise(n, 100_000), noise(number * 10 + n, 100_000)].concat();
                    (publish(&repo, name, &bytes).unwrap().uid, bytes)
                });
                made.collect::<Vec<_>>()
            })
        };
        let running = [work(&one, 1), work(&two, 2)];
        running.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    one.refresh().unwrap();
    two.refresh().unwrap();
    let third = host(&world, "three");
    for repo in [&one, &two, &third] {
        assert_eq!(repo.catalog().version_uids().unwrap().len(), 6);
        assert_eq!(repo.catalog().versions_of(&Name::new("same").unwrap()).unwrap().len(), 4);
        for (uid, bytes) in &made {
            assert!(content(repo, *uid) == *bytes);
        }
        assert_eq!(repo.catalog().dump().unwrap(), third.catalog().dump().unwrap());
    }
    // Nothing new costs no record and no entry.
    let again = two.refresh().unwrap();
    assert_eq!((again.records, again.entries, again.removed, again.rebuilt), (0, 0, 0, None));
}

#[test]
fn tags_edited_on_two_hosts_fold_alike() {
    let world = create(&small());
    let (one, two) = (Arc::clone(&world.repo), host(&world, "two"));
    let uid = publish(&one, "vm", &noise(1, 5000)).unwrap().uid;
    two.refresh().unwrap();
    let add = |tag: &str| AttributeChange::AddTag(tag.into());
    let remove = |tag: &str| AttributeChange::RemoveTag(tag.into());
    one.change_attributes(uid, &[add("from one"), add("both"), AttributeChange::Protected(true)]).unwrap();
    two.change_attributes(uid, &[add("both"), add("from two"), remove("both")]).unwrap();
    one.change_attributes(uid, &[remove("from one"), add("last")]).unwrap();
    one.refresh().unwrap();
    two.refresh().unwrap();
    let third = host(&world, "three");
    let folded = third.version(uid).unwrap().attributes;
    assert!(folded.tags.contains("from two") && folded.tags.contains("last") && !folded.tags.contains("from one"));
    assert!(folded.protected);
    for repo in [&one, &two] {
        assert_eq!(repo.version(uid).unwrap().attributes, folded);
        assert_eq!(repo.catalog().dump().unwrap(), third.catalog().dump().unwrap());
    }
}

#[test]
fn a_file_and_a_directory_of_one_name_from_two_hosts_both_stay() {
    let world = create(&small());
    let (one, two) = (Arc::clone(&world.repo), host(&world, "two"));
    let file = publish(&one, "a", &noise(1, 5000)).unwrap().uid;
    let below = publish(&two, "a/b", &noise(2, 5000)).unwrap().uid;
    one.refresh().unwrap();
    two.refresh().unwrap();
    for repo in [&one, &two] {
        assert_eq!(repo.resolve("a").unwrap().record.uid, file);
        assert_eq!(repo.resolve("a/b").unwrap().record.uid, below);
        // What stands goes on; what is new is refused.
        publish(repo, "a", &noise(3, 5000)).unwrap();
        publish(repo, "a/b", &noise(4, 5000)).unwrap();
        assert!(matches!(publish(repo, "a/c", &noise(5, 5000)), Err(RepoError::NameCollision { .. })));
    }
}

#[test]
fn what_a_dead_writer_of_another_host_left_unconfirmed_is_never_shown() {
    let world = create(&small());
    let (one, two) = (Arc::clone(&world.repo), host(&world, "two"));
    let shown = publish(&one, "vm", &noise(1, 5000)).unwrap();
    // As if it had died between putting the record and confirming it.
    for kind in [RecordKind::Version, RecordKind::Draft] {
        let dead = Record { uid: one.clock().uid(), kind, host: one.host(), ..shown.clone() };
        let (key, object) = (layout::record(kind, dead.uid), object_id(dead.uid.as_bytes(), &[]));
        put_sealed(&one, FrameKind::from(kind), &key, object, &record::encode(&dead));
        for repo in [&one, &two] {
            repo.refresh().unwrap();
            assert_eq!(repo.catalog().version_uids().unwrap(), [shown.uid]);
            assert_eq!(repo.catalog().drafts().unwrap(), []);
            assert_eq!(repo.catalog().record(dead.uid).unwrap().unwrap().1, Verdict::Pending);
            assert_eq!(repo.resolve("vm").unwrap().record.uid, shown.uid);
        }
    }
}

#[test]
fn a_draft_belongs_to_the_host_that_writes_it() {
    let world = create(&small());
    let (one, two) = (Arc::clone(&world.repo), host(&world, "two"));
    let name = Name::new("vm").unwrap();
    let claim = one.new_draft().unwrap();
    let theirs = draft_record(&one, "vm", &noise(1, 9000), claim.id());
    one.publish(&theirs, &[]).unwrap();
    two.refresh().unwrap();
    assert_eq!(two.owner_of_draft(&theirs).unwrap(), DraftOwner::OtherHost(one.host()));
    assert_eq!(two.own_draft(&name).unwrap(), None);
    assert!(two.take_draft(&name).unwrap().is_none());
    // Without a version of the name it can be read here, and after one it is not in the way.
    assert_eq!(two.shown_draft(&name).unwrap().map(|record| record.uid), Some(theirs.uid));
    publish(&two, "vm", &noise(2, 9000)).unwrap();
    assert_eq!(two.shown_draft(&name).unwrap(), None);
    // Two of one name, one on each host.
    let mine = draft_record(&two, "vm", &noise(3, 9000), two.new_draft().unwrap().id());
    two.publish(&mine, &[]).unwrap();
    one.refresh().unwrap();
    assert_eq!(one.own_draft(&name).unwrap().map(|record| record.uid), Some(theirs.uid));
    assert_eq!(two.own_draft(&name).unwrap().map(|record| record.uid), Some(mine.uid));
    assert!(matches!(two.adopt_draft(theirs.uid), Err(RepoError::DraftExists { .. })));
    // It goes only when somebody insists.
    let spec = theirs.uid.to_string();
    assert!(discard::plan(&two, &spec, Consent::Plain).is_err());
    assert!(two.discard_draft(&mine, DraftOwner::Ours).unwrap());
    let copy = two.adopt_draft(theirs.uid).unwrap();
    assert_eq!((copy.image, copy.host), (theirs.image, two.host()));
    assert_eq!(two.own_draft(&name).unwrap().map(|record| record.uid), Some(copy.uid));
    one.refresh().unwrap();
    assert_eq!(one.own_draft(&name).unwrap().map(|record| record.uid), Some(theirs.uid), "nothing was taken from it");
    discard::plan(&two, &spec, Consent::Forced).unwrap().unwrap().execute(&two).unwrap();
    one.refresh().unwrap();
    assert_eq!(one.own_draft(&name).unwrap(), None);
}

/// A backup under way on a host, which has stored this much.
fn under_way(repo: &Arc<Repository>, name: &str, bytes: &[u8]) -> Unfinished {
    let mut unfinished = Unfinished {
        draft: repo.new_draft().unwrap(),
        name: Name::new(name).unwrap(),
        source: "file /dev/vda".into(),
        snapshot_name: String::new(),
        file: attributes(name).file,
        base: Uid::NIL,
        start: ImageRef::empty(repo.block_size()),
        record: None,
    };
    unfinished.save(repo, &settle(repo, bytes), bytes.len() as u64, "go on", None).unwrap();
    unfinished
}

#[test]
fn an_interrupted_backup_belongs_to_the_host_that_was_at_it() {
    let world = create(&small());
    let (one, two) = (Arc::clone(&world.repo), host(&world, "two"));
    let name = Name::new("vm").unwrap();
    let running = under_way(&one, "vm", &noise(1, 9000));
    let record = running.record.clone().unwrap();
    two.refresh().unwrap();
    let find = |repo: &Repository| Unfinished::find(repo, &name, "file /dev/vda").unwrap();
    assert!(find(&two).is_none(), "the same path is another disk there");
    // While it runs no other process of its host takes its draft for one that was left.
    let beside = DraftClaims::open(one.state_dir()).unwrap();
    assert!(beside.claim(record.draft).unwrap().is_none());
    // Nor are two hosts at the same name in each other's way.
    let other = under_way(&two, "vm", &noise(2, 9000));
    assert!(other.record.is_some());
    publish(&two, "vm", &noise(3, 9000)).unwrap();
    one.refresh().unwrap();
    assert!(one.draft(record.uid).is_ok());
    drop(running);
    let taken = beside.claim(record.draft).unwrap();
    assert!(taken.is_some() && find(&one).is_none());
    drop(taken);
    assert_eq!(find(&one).map(|(found, claim)| (found.uid, claim.id())), Some((record.uid, record.draft)));
}

#[test]
fn what_a_draft_got_after_a_version_of_it_whose_confirmation_was_lost_stays() {
    let world = create(&small());
    let (one, two) = (Arc::clone(&world.repo), host(&world, "two"));
    let claim = one.new_draft().unwrap();
    let before = draft_record(&one, "vm", &noise(1, 9000), claim.id());
    one.publish(&before, &[]).unwrap();
    // It is confirmed, but the writer was told of an error, and knows nothing of it.
    let image = noise(2, 9000);
    let settled = settle(&one, &image);
    let publication = Publication { draft: claim.id(), ..Publication::new(attributes("vm")) };
    let version = publish_version(&one, &settled, publication).unwrap();
    one.catalog().remove_record(version.uid).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(5));
    let after = Record { supersedes: before.uid, ..draft_record(&one, "vm", &noise(3, 9000), claim.id()) };
    one.publish(&after, &[]).unwrap();
    for repo in [&two, &one] {
        repo.refresh().unwrap();
        assert_eq!(repo.catalog().version_uids().unwrap(), [version.uid]);
        let drafts = repo.catalog().drafts().unwrap();
        assert_eq!(drafts.iter().map(|draft| draft.uid).collect::<Vec<_>>(), [after.uid]);
    }
}

#[test]
fn a_host_without_its_catalog_still_knows_its_drafts() {
    let world = create(&small());
    let name = Name::new("vm").unwrap();
    let record = draft_record(&world.repo, "vm", &noise(1, 9000), world.repo.new_draft().unwrap().id());
    world.repo.publish(&record, &[]).unwrap();
    let id = world.repo.host();
    let state = world.repo.state_dir().to_owned();
    let TestRepository { repo, dir, .. } = world;
    drop(repo);
    let target: Arc<dyn Target> = Arc::new(DirTarget::open(dir.path().join("target")));
    // The last thread of the repository may hold it for another moment.
    let catalog = state.join("catalog");
    let gone = (0..500).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(10));
        crate::catalog::Catalog::discard(&catalog).is_ok()
    });
    assert!(gone);
    let again = open(target, &dir.path().join("state"), Arc::new(Tally::default())).unwrap();
    again.refresh().unwrap();
    assert_eq!(again.host(), id);
    assert_eq!(again.own_draft(&name).unwrap().map(|record| record.uid), Some(record.uid));
}

#[test]
fn a_copied_state_directory_is_a_host_of_its_own_and_takes_nothing_from_the_other() {
    let world = create(&small());
    let one = Arc::clone(&world.repo);
    let name = Name::new("vm").unwrap();
    let (shared, later) =
        (publish(&one, "a", &noise(1, 50_000)).unwrap(), publish(&one, "b", &noise(2, 50_000)).unwrap());
    let overlaid = |repo: &Arc<Repository>, version: &Record| {
        let directory = overlays::directory(repo);
        fs::create_dir_all(&directory).unwrap();
        drop(OverlayFile::open_or_create(&directory, version.uid, version.image.size_bytes).unwrap());
    };
    let pinned = |repo: &Arc<Repository>, version: &Record| {
        overlaid(repo, version);
        overlays::pin(repo, &repo.catalog().version_summary(version.uid).unwrap().unwrap()).unwrap();
    };
    pinned(&one, &shared);
    let claim = one.new_draft().unwrap();
    let draft = draft_record(&one, "vm", &noise(3, 9000), claim.id());
    one.publish(&draft, &[]).unwrap();
    // A virtual machine is cloned: everything is copied, also what is running.
    let copied = world.dir.path().join("copied");
    copy_tree(&world.dir.path().join("state"), &copied);
    pinned(&one, &later);
    let tally = Arc::new(Tally::default());
    let target: Arc<dyn Target> = Arc::new(DirTarget::open(world.dir.path().join("target")));
    let two = open(target, &copied, Arc::clone(&tally)).unwrap();
    two.refresh().unwrap();
    assert_ne!(two.host(), one.host());
    assert!(tally.warnings().iter().any(|text| text.contains("copied") && text.contains(&one.host().to_string())));
    // Neither the draft nor the pins of the other are its leftovers.
    assert_eq!(two.own_draft(&name).unwrap(), None);
    assert_eq!(two.owner_of_draft(&draft).unwrap(), DraftOwner::OtherHost(one.host()));
    assert!(!two.discard_draft(&draft, DraftOwner::Ours).unwrap());
    assert_eq!(overlays::drop_stale_pins(&two).unwrap(), 0);
    // What its own copy of an overlay lies on is pinned by itself, once: the other may drop its pin, and the version may go.
    assert_eq!((overlays::pin_copied(&two).unwrap(), overlays::pin_copied(&two).unwrap()), (1, 0));
    assert_eq!(overlays::own_pins(&two).unwrap().iter().map(|pin| pin.base).collect::<Vec<_>>(), [shared.uid]);
    one.refresh().unwrap();
    OverlayFile::remove(&overlays::directory(&one), shared.uid).unwrap();
    assert_eq!(overlays::drop_stale_pins(&one).unwrap(), 1);
    assert_eq!(overlays::own_pins(&one).unwrap().iter().map(|pin| pin.base).collect::<Vec<_>>(), [later.uid]);
    two.refresh().unwrap();
    assert_eq!(overlays::own_pins(&two).unwrap().len(), 1);
    // Both go on.
    publish(&one, "c", &noise(4, 5000)).unwrap();
    publish(&two, "c", &noise(5, 5000)).unwrap();
    drop(claim);
}

/// Puts an old copy of the target back.
fn roll_back(world: &TestRepository, saved: &Path) {
    let target = world.dir.path().join("target");
    fs::remove_dir_all(&target).unwrap();
    copy_tree(saved, &target);
}

#[test]
fn a_target_that_was_rolled_back_is_learnt_anew() {
    let world = create(&small());
    let one = Arc::clone(&world.repo);
    let kept = publish(&one, "kept", &noise(1, 300_000)).unwrap().uid;
    let removed = publish(&one, "removed", &noise(2, 50_000)).unwrap().uid;
    let saved = world.dir.path().join("saved");
    copy_tree(&world.dir.path().join("target"), &saved);
    let lost = publish(&one, "lost", &noise(3, 300_000)).unwrap().uid;
    one.change_attributes(kept, &[AttributeChange::AddTag("lost".into())]).unwrap();
    one.remove_version(removed).unwrap();
    roll_back(&world, &saved);
    let learned = one.refresh().unwrap();
    assert!(learned.rebuilt.is_some());
    let fresh = host(&world, "fresh");
    assert_eq!(one.catalog().dump().unwrap(), fresh.catalog().dump().unwrap());
    // Both may be of the same millisecond.
    let there: BTreeSet<Uid> = one.catalog().version_uids().unwrap().into_iter().collect();
    assert_eq!(there, BTreeSet::from([kept, removed]), "what was deleted later is back, and stays");
    assert!(one.version(lost).is_err() && one.version(kept).unwrap().attributes.tags.is_empty());
    // The blocks that are gone are stored again.
    let again = publish(&one, "lost", &noise(3, 300_000)).unwrap().uid;
    fresh.refresh().unwrap();
    assert!(content(&fresh, again) == noise(3, 300_000));
    assert_eq!(one.refresh().unwrap().rebuilt, None, "once is enough");
}

#[test]
fn a_backup_to_a_rolled_back_target_does_not_rely_on_what_is_gone() {
    let world = create(&small());
    let one = Arc::clone(&world.repo);
    publish(&one, "first", &noise(1, 50_000)).unwrap();
    let saved = world.dir.path().join("saved");
    copy_tree(&world.dir.path().join("target"), &saved);
    let image = noise(3, 300_000);
    publish(&one, "vm", &image).unwrap();
    roll_back(&world, &saved);
    // Nobody has looked at the target since: the blocks seem to be there.
    let again = publish(&one, "vm", &image);
    let fresh = host(&world, "fresh");
    match again {
        Ok(record) => assert!(content(&fresh, record.uid) == image),
        Err(error) => assert!(matches!(error, RepoError::Damaged { .. }), "{error}"),
    }
    let third = publish(&one, "vm", &image).unwrap();
    fresh.refresh().unwrap();
    assert!(content(&fresh, third.uid) == image);
}

#[test]
fn a_condemned_batch_that_vanished_is_noticed_and_what_is_gone_stays_dead() {
    let world = create(&small());
    let (one, two) = (Arc::clone(&world.repo), host(&world, "two"));
    let uid = publish(&one, "vm", &noise(1, 50_000)).unwrap().uid;
    let (gone, there) = (PackId::from_bytes([9; 32]), one.catalog().packs().unwrap()[0].pack);
    let batch = condemn(&one, &[gone, there]);
    two.refresh().unwrap();
    let before = two.catalog().fingerprint().unwrap();
    one.target().delete(&batch).unwrap();
    // Lost together with the verdict of a version: only this host knows that it was confirmed.
    one.target().delete(&layout::ok(uid)).unwrap();
    assert_ne!(two.learn_condemned().unwrap(), before);
    // A collector may be about to delete the one that is there: it is as dead as before.
    assert_eq!(two.catalog().condemned_packs().unwrap(), BTreeSet::from([gone, there]));
    assert_eq!(two.catalog().version_uids().unwrap(), [uid]);
    let three = host(&world, "three");
    assert_eq!(three.catalog().condemned_packs().unwrap(), BTreeSet::from([gone, there]));
    assert!(content(&two, uid) == noise(1, 50_000));
    // What is needed of it is copied out, and then it goes.
    let report = gc(&two, &Options::default(), &Silent, &Interrupt::never()).unwrap();
    assert!(report.obstacles.is_empty() && report.copied_blocks > 0, "{report:?}");
    let stored = two.stored_packs().unwrap();
    assert!(stored.iter().all(|(pack, _)| *pack != there));
    assert!(content(&host(&world, "four"), uid) == noise(1, 50_000));
}

#[test]
fn a_draft_that_became_a_version_of_the_past_is_not_left_behind() {
    let world = create(&small());
    let one = Arc::clone(&world.repo);
    let claim = one.new_draft().unwrap();
    let draft = draft_record(&one, "vm", &noise(1, 9000), claim.id());
    one.publish(&draft, &[]).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(5));
    // A backup that is taken over from elsewhere, as of long ago; whoever made it died before it could remove the draft.
    let created = Some(one.clock().now().plus_millis(-1_000_000_000));
    let publication = Publication { draft: claim.id(), created, ..Publication::new(attributes("vm")) };
    let version = publish_version(&one, &settle(&one, &noise(2, 9000)), publication).unwrap();
    one.refresh().unwrap();
    assert_eq!(one.catalog().drafts().unwrap(), []);
    assert_eq!(one.catalog().version_uids().unwrap(), [version.uid]);
}

#[test]
fn what_one_host_uses_another_does_not_delete_unless_somebody_insists() {
    let world = create(&small());
    let (one, two) = (Arc::clone(&world.repo), host(&world, "two"));
    let uid = publish(&one, "vm", &noise(1, 9000)).unwrap().uid;
    let summary = || one.catalog().version_summary(uid).unwrap().unwrap();
    let options = |consent| remove::Options { consent, protect_younger: std::time::Duration::ZERO, open_handles: 0 };
    let is_refused = |consent| {
        // As every command does first.
        two.refresh().unwrap();
        remove::plan(&two, uid, &options(consent)).is_err()
    };
    assert!(!is_refused(Consent::Plain));
    // A restore, or a file that is open there.
    let reading = ReadingPin::new(&one, &summary());
    assert!(is_refused(Consent::Plain) && !is_refused(Consent::Forced));
    drop(reading);
    assert!(!is_refused(Consent::Plain));
    // Something written over it.
    overlays::pin(&one, &summary()).unwrap();
    assert!(is_refused(Consent::Plain) && !is_refused(Consent::Forced));
    // A host that was not told yet looks at the last moment.
    overlays::unpin(&one, uid).unwrap();
    two.refresh().unwrap();
    let removal = remove::plan(&two, uid, &options(Consent::Plain)).unwrap();
    let reading = ReadingPin::new(&one, &summary());
    assert!(matches!(removal.execute(&two), Err(RepoError::InUseElsewhere { .. })));
    assert!(two.version(uid).is_ok());
    // Who insists deletes it; its blocks stay as long as it is used, and a collection says so.
    let image = two.version(uid).unwrap().record.image;
    remove::plan(&two, uid, &options(Consent::Forced)).unwrap().execute(&two).unwrap();
    let collect = || gc(&two, &Options::default(), &Silent, &Interrupt::never()).unwrap();
    let kept_by = collect().kept_by;
    assert_eq!((kept_by.versions, kept_by.deleted_in_use.len()), (0, 1), "{kept_by:?}");
    let in_use = &kept_by.deleted_in_use[0];
    assert_eq!((&in_use.version, &in_use.host, in_use.is_here), (&uid.to_string(), &one.host().to_string(), false));
    let read = |repo: &Arc<Repository>| {
        let mut bytes = vec![0; image.size_bytes as usize];
        ImageReader::new(Arc::clone(repo), image, "test").read_at(0, &mut bytes).map(|()| bytes)
    };
    assert!(read(&host(&world, "three")).unwrap() == noise(1, 9000));
    drop(reading);
    assert!(collect().kept_by.deleted_in_use.is_empty());
    assert!(read(&host(&world, "four")).is_err());
}

pub(super) fn condemn(repo: &Repository, packs: &[PackId]) -> ObjectKey {
    let batch = repo.clock().batch_id();
    let key = layout::condemned(batch);
    put_sealed(repo, FrameKind::Condemned, &key, object_id(batch.as_bytes(), &[]), &condemned::encode(packs));
    key
}

#[test]
fn blocks_that_another_host_moved_are_found() {
    let world = create(&small());
    let (one, two) = (Arc::clone(&world.repo), host(&world, "two"));
    let image = noise(1, 200_000);
    let uid = publish(&one, "vm", &image).unwrap().uid;
    two.refresh().unwrap();
    // What a collection does: new packs, the old ones condemned, then deleted.
    let old: Vec<PackId> = one.catalog().packs().unwrap().into_iter().map(|pack| pack.pack).collect();
    condemn(&one, &old);
    one.learn_condemned().unwrap();
    one.check_image(&one.version(uid).unwrap().record.image, &[]).unwrap();
    old.iter().for_each(|pack| one.target().delete(&layout::pack(*pack)).unwrap());
    assert!(content(&two, uid) == image);
    assert_eq!(two.catalog().damaged().unwrap(), []);
}

#[test]
fn a_rebuild_beside_readers_and_writers_hides_nothing() {
    let world = create(&small());
    let repo = Arc::clone(&world.repo);
    let first: Vec<Uid> = (0..5).map(|n| publish(&repo, "vm", &noise(n, 60_000)).unwrap().uid).collect();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let shown = repo.catalog().version_uids().unwrap();
                assert!(first.iter().all(|uid| shown.contains(uid)), "{} versions are shown", shown.len());
                assert!(content(&repo, first[0]) == noise(0, 60_000));
            }
        });
        let writer = scope.spawn(|| {
            for n in 10..30 {
                let uid = publish(&repo, "other", &noise(n, 60_000)).unwrap().uid;
                assert!(repo.catalog().version_uids().unwrap().contains(&uid));
            }
        });
        let mut rebuilds = 0;
        while !writer.is_finished() {
            let source = if rebuilds % 2 == 0 { IndexSource::Fragments } else { IndexSource::Packs };
            repo.rebuild(source, &Silent).unwrap();
            rebuilds += 1;
        }
        stop.store(true, Ordering::Relaxed);
        assert!(rebuilds > 2, "{rebuilds}");
    });
    assert_eq!(repo.catalog().version_uids().unwrap().len(), 25);
    let fresh = host(&world, "fresh");
    assert_eq!(repo.catalog().dump().unwrap(), fresh.catalog().dump().unwrap());
}
