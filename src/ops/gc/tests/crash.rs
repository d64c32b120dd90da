//! A collection that dies before and after each of its calls: whoever comes next finds everything acknowledged, and finishes.

use super::lab::{Host, Lab, image, numbers};
use crate::ops::gc::Options;
use crate::target::Crash;
use crate::words::ids::{BlockId, Uid};

struct Scene {
    lab: Lab,
    kept: [(Uid, Vec<u8>); 2],
}

const OPTIONS: Options =
    Options { dry_run: false, dead_percent: 20, unfinished_ms: 0, sharing: crate::ops::gc::Sharing::Unknown };

/// Two versions that stay, one removed that shares packs with one of them, what an unfinished backup stored, a record that was
/// never confirmed, and enough fragments to be merged.
fn scene() -> Scene {
    let lab = Lab::new();
    let one = lab.host("one");
    let (first, second) = (image(&numbers(1..40)), image(&numbers(200..230)));
    let kept = one.back_up("kept", &first).unwrap();
    let gone = one.back_up("gone", &image(&numbers(30..150))).unwrap();
    let other = one.back_up("other", &second).unwrap();
    // Enough of them for merging, without records of their own.
    for seed in 900..904 {
        one.repo.store_block(&image(&[seed]), BlockId::HOLE).unwrap();
        one.repo.flush_packs([]).unwrap();
    }
    one.repo.remove_version(gone.uid).unwrap();
    drop(one);
    let begun = lab.host("begun");
    begun.held.hold_after(0);
    begun.held.release();
    drop(begun);
    unconfirmed(&lab);
    Scene { lab, kept: [(kept.uid, first), (other.uid, second)] }
}

/// Leaves a record without `ok` on the target.
fn unconfirmed(lab: &Lab) {
    let one = lab.host("one");
    let before = crate::target::Target::list(&*lab.memory, "versions/").unwrap().len();
    for at in 0.. {
        let probe = lab.host("probe");
        probe.held.die_after(at, Crash::After);
        let _ = probe.back_up("begun", &image(&numbers(300..310)));
        drop(probe);
        if crate::target::Target::list(&*lab.memory, "versions/").unwrap().len() > before {
            break;
        }
    }
    drop(one);
}

fn verify(host: &Host, scene: &Scene, what: &str) {
    for (uid, bytes) in &scene.kept {
        assert!(host.read(*uid).unwrap_or_else(|error| panic!("{what}: {error}")) == *bytes, "{what}: other bytes");
    }
}

/// Collects on a host that dies at its call `at`; says whether it came to the end.
fn crash(at: u64, how: Crash, expected_bytes: &mut Option<usize>) -> bool {
    let what = format!("crash {how:?} call {at}");
    let scene = scene();
    let lab = &scene.lab;
    let collector = lab.host("probe");
    collector.held.die_after(at, how);
    let done = collector.gc_with(&OPTIONS);
    let died = collector.held.is_dead();
    assert_eq!(done.is_err(), died, "{what}: {done:?}");
    drop(collector);
    verify(&lab.host("fresh"), &scene, &format!("{what}, without a catalog"));
    let again = lab.host("probe");
    verify(&again, &scene, &format!("{what}, with the catalog"));
    let dump = again.repo.catalog().dump().unwrap();
    assert_eq!(dump, lab.host("fresh").repo.catalog().dump().unwrap(), "{what}: the catalogs differ");
    // Either host finishes; then as much space is taken as without the crash, up to the frames of a few small packs.
    let finisher = if at.is_multiple_of(2) { again } else { lab.host("fresh") };
    let report = finisher.gc_with(&OPTIONS).unwrap();
    assert!(report.obstacles.is_empty(), "{what}: {report:?}");
    verify(&finisher, &scene, &format!("{what}, after another collection"));
    let bytes = lab.packs_bytes();
    let expected = *expected_bytes.get_or_insert(bytes);
    assert!(bytes.abs_diff(expected) < expected / 4, "{what}: {bytes} bytes, not {expected}");
    !died
}

fn sweep(how: Crash) {
    // First without a crash, for the bytes.
    let mut expected = None;
    assert!(crash(10_000, how, &mut expected));
    let calls = (0..).find(|at| crash(*at, how, &mut expected)).unwrap_or(0);
    assert!(calls > 60, "the sweep went over {calls} calls only");
}

#[test]
fn a_crash_before_any_call_loses_nothing() {
    sweep(Crash::Before);
}

#[test]
fn a_crash_after_any_call_loses_nothing() {
    sweep(Crash::After);
}
