//! What every target must do, wrapped or not: one suite for all of them.

use crate::format::layout::{self, ObjectKey};
use crate::target::{ObjectInfo, Put, Target, TargetError};
use crate::words::ids::PackId;
use sha2::{Digest, Sha256};

fn key(text: &str) -> ObjectKey {
    ObjectKey::new(text).unwrap()
}

fn listed(target: &dyn Target, prefix: &str) -> Vec<(String, u64)> {
    let infos = target.list(prefix).unwrap();
    let size = |info: &ObjectInfo| match info.size_bytes {
        Some(size_bytes) => size_bytes,
        None if info.key.as_str().starts_with(layout::PACKS) => panic!("{} without its size", info.key),
        None => target.get(&info.key).unwrap().len() as u64,
    };
    infos.iter().map(|info| (info.key.as_str().to_owned(), size(info))).collect()
}

fn absent<T: std::fmt::Debug>(result: Result<T, TargetError>, wanted: &ObjectKey) {
    match result {
        Err(TargetError::NotFound { key, .. }) => assert_eq!(&key, wanted),
        other => panic!("expected NotFound of {wanted}, got {other:?}"),
    }
}

/// Runs the suite on a target that was never prepared.
pub(crate) fn check(target: &dyn Target) {
    preparing(target);
    whole_objects(target);
    parts_of_objects(target);
    listing(target);
    paging(target);
    deleting(target);
    only_one_creates(target);
    side_by_side(target);
    let space = target.space().unwrap();
    assert!(space.free_bytes <= space.total_bytes && space.total_bytes > 0, "{space:?}");
    assert!(!target.describe().is_empty());
}

fn preparing(target: &dyn Target) {
    assert!(target.put(&key("index/early"), &[b"x"]).is_err(), "nothing is made before prepare");
    target.prepare().unwrap();
    target.prepare().unwrap();
    assert_eq!(listed(target, ""), []);
    absent(target.get(&layout::header()), &layout::header());
    absent(target.get(&key("versions/x")), &key("versions/x"));
    target.put(&layout::header(), &[b"header"]).unwrap();
    target.prepare().unwrap();
    assert_eq!(target.get(&layout::header()).unwrap(), b"header");
    assert_eq!(listed(target, ""), [(layout::HEADER.to_owned(), 6)]);
}

fn whole_objects(target: &dyn Target) {
    let big: Vec<u8> = (0..33u32 << 18).flat_map(u32::to_le_bytes).collect();
    let pack = layout::pack(PackId::from_bytes(Sha256::digest(&big).into()));
    target.put(&pack, &[&big[..5], &[], &big[5..9_000_000], &big[9_000_000..]]).unwrap();
    assert!(target.get(&pack).unwrap() == big);
    // The same again is harmless, also while read.
    target.put(&pack, &[&big]).unwrap();
    assert_eq!(listed(target, "packs/"), [(pack.as_str().to_owned(), big.len() as u64)]);
    let many: Vec<&[u8]> = big[..5000].chunks(1).collect();
    target.put(&key("index/many"), &many).unwrap();
    assert_eq!(target.get(&key("index/many")).unwrap(), &big[..5000]);
    for parts in [&[][..], &[&[][..], &[]]] {
        target.put(&key("ok/empty"), parts).unwrap();
        assert_eq!(target.get(&key("ok/empty")).unwrap(), b"");
    }
    absent(target.get(&key("ok/other")), &key("ok/other"));
    absent(target.get(&key("packs/00/none")), &key("packs/00/none"));
}

fn parts_of_objects(target: &dyn Target) {
    let object = key("drafts/d");
    target.put(&object, &[b"0123456789"]).unwrap();
    let mut buf = [0; 4];
    target.read_at(&object, 3, &mut buf).unwrap();
    assert_eq!(&buf, b"3456");
    target.read_at(&object, 6, &mut buf).unwrap();
    assert_eq!(&buf, b"6789");
    target.read_at(&object, 10, &mut []).unwrap();
    for offset in [7, 10, 1 << 40] {
        match target.read_at(&object, offset, &mut buf) {
            Err(TargetError::Truncated { key, offset: at, wanted_bytes: 4, size_bytes: 10, .. }) => {
                assert_eq!((&key, at), (&object, offset));
            }
            other => panic!("expected Truncated, got {other:?}"),
        }
    }
    absent(target.read_at(&key("drafts/none"), 0, &mut buf), &key("drafts/none"));
}

fn listing(target: &dyn Target) {
    for name in ["attributes/b.1", "attributes/a.2", "attributes/a.1", "attributes/ab.1"] {
        target.put(&key(name), &[name.as_bytes()]).unwrap();
    }
    let names = |prefix: &str| listed(target, prefix).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    assert_eq!(names("attributes/"), ["attributes/a.1", "attributes/a.2", "attributes/ab.1", "attributes/b.1"]);
    assert_eq!(names("attributes/a."), ["attributes/a.1", "attributes/a.2"]);
    assert_eq!(names("attributes/c"), [""; 0]);
    assert_eq!(names("pins/"), [""; 0]);
    let packs = names("packs/");
    let [pack] = &packs[..] else { panic!("{packs:?}") };
    for beginning in ["packs/".len() + 1, "packs/xx/".len()] {
        assert_eq!(names(&pack[..beginning]), packs);
    }
    let elsewhere = if pack.starts_with("packs/00") { "packs/01/" } else { "packs/00/" };
    assert_eq!(names(elsewhere), [""; 0]);
    let all = names("");
    assert!(all.is_sorted() && all.len() == 9, "{all:?}");
}

/// Page after page everything is shown, once and in order, however long a page is asked to be.
fn paging(target: &dyn Target) {
    let all: Vec<ObjectKey> = target.list("").unwrap().into_iter().map(|info| info.key).collect();
    assert!(all.len() >= 3);
    for wanted in [1, 2, 1000] {
        let (mut shown, mut after) = (Vec::new(), String::new());
        for _ in 0..=all.len() {
            let page = target.list_page(&after, wanted).unwrap();
            assert!(page.objects.len() <= wanted);
            shown.extend(page.objects.into_iter().map(|info| info.key));
            match page.rest_after {
                // A target without pages shows nothing, for ever.
                Some(rest) if rest == after => break,
                Some(rest) => after = rest,
                None => break,
            }
        }
        assert_eq!(shown, if target.is_paged() { all.clone() } else { Vec::new() }, "pages of {wanted}");
    }
    if target.is_paged() {
        let page = target.list_page(all[0].as_str(), 1).unwrap();
        assert_eq!(page.objects.first().map(|info| &info.key), all.get(1), "a page begins behind a name");
    }
}

fn deleting(target: &dyn Target) {
    let object = key("attributes/a.1");
    target.delete(&object).unwrap();
    absent(target.get(&object), &object);
    target.delete(&object).unwrap();
    assert_eq!(target.list("attributes/a.").unwrap().len(), 1);
    target.put(&object, &[b"again"]).unwrap();
    assert_eq!(target.get(&object).unwrap(), b"again");
}

fn only_one_creates(target: &dyn Target) {
    let object = key("condemned/one");
    let writers: [&[u8]; 4] = [b"0000", b"11", b"2222222", b"3"];
    let puts: Vec<_> = std::thread::scope(|scope| {
        let threads = writers.map(|bytes| scope.spawn(|| target.put_new(&key("condemned/one"), &[bytes]).unwrap()));
        threads.map(|thread| thread.join().unwrap()).into()
    });
    let winner = puts.iter().position(|&put| put == Put::Created).unwrap();
    assert_eq!(puts.iter().filter(|&&put| put == Put::Created).count(), 1);
    assert_eq!(target.get(&object).unwrap(), writers[winner]);
    assert_eq!(target.put_new(&object, &[b"late"]).unwrap(), Put::Exists);
    assert_eq!(target.get(&object).unwrap(), writers[winner]);
}

fn side_by_side(target: &dyn Target) {
    std::thread::scope(|scope| {
        for thread in 0..4u8 {
            scope.spawn(move || {
                for n in 0..8u8 {
                    let (own, shared) = (key(&format!("pins/{thread}-{n}")), key(&format!("pins/shared-{n}")));
                    target.put(&own, &[&[thread; 1000]]).unwrap();
                    target.put(&shared, &[&[n; 70_000]]).unwrap();
                    // Replaced by others all the time, never seen in part.
                    assert!(target.get(&shared).unwrap() == [n; 70_000]);
                    if n % 2 == 1 {
                        target.delete(&own).unwrap();
                    }
                }
            });
        }
    });
    assert_eq!(target.list("pins/").unwrap().len(), 8 + 4 * 4);
}
