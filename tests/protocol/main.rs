//! Exhaustive check of the protocol by which packs are deleted: no interleaving of its actors loses anything, and each rule that
//! is taken out does lose something, which is found.
//!
//! `BACKYFS_MODEL=large cargo test --release --test protocol` explores casts that take minutes and gigabytes.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod explore;
mod model;

use explore::{Outcome, explore};
use model::{BLOCK, BOTH, Cast, Protocol, ROOT, Without};

/// Far beyond what any cast reaches that is explored by default.
const STATES_MAX: usize = 20_000_000;
const STATES_MAX_LARGE: usize = 400_000_000;

const NOBODY: Cast = Cast {
    writers: 0,
    collectors: 0,
    finder: false,
    rm: false,
    duplicates: 0,
    flaky: false,
    dies: false,
    goes_on: false,
    based: false,
    cleaner: false,
    merger: false,
    repairer: false,
    packs: &[],
    version: false,
    opening: &[],
};

fn sound(name: &str, cast: Cast) {
    match explore(&Protocol { cast, without: Without::Nothing }, limit()) {
        Outcome::Sound(states) => println!("{name}: {states} states"),
        Outcome::Broken(fault, way) => panic!("{name}: {fault}\n  {}", way.join("\n  ")),
    }
}

fn is_large() -> bool {
    std::env::var("BACKYFS_MODEL").is_ok_and(|size| size == "large")
}

fn limit() -> usize {
    if is_large() { STATES_MAX_LARGE } else { STATES_MAX }
}

/// The loss is found, in the very cast in which the whole protocol loses nothing.
fn lossy(without: Without, cast: Cast) {
    let outcome = explore(&Protocol { cast, without }, limit());
    let Outcome::Broken(fault, way) = outcome else { panic!("without {without:?} nothing is lost: {outcome:?}") };
    println!("without {without:?}: {fault}\n  {}", way.join("\n  "));
    sound(&format!("with {without:?}"), cast);
}

/// The draft of a version that may go.
const BASED: Cast = Cast {
    writers: 1,
    collectors: 1,
    rm: true,
    based: true,
    goes_on: true,
    version: true,
    packs: &[ROOT, BLOCK],
    ..NOBODY
};

/// The record of a version is lost where somebody knew it.
const LOST: Cast =
    Cast { collectors: 1, finder: true, rm: true, repairer: true, version: true, packs: &[BOTH], ..NOBODY };

mod all_rules {
    use super::*;

    #[test]
    fn a_writer_a_collector_a_finder_rm_and_late_arrivals() {
        let cast = Cast { writers: 1, collectors: 1, finder: true, rm: true, duplicates: 2, packs: &[BOTH], ..NOBODY };
        sound("1 writer, 1 collector, finder, rm, duplicates", Cast { version: true, ..cast });
        sound("the same, going on", Cast { goes_on: true, ..cast });
    }

    #[test]
    fn a_writer_and_two_collectors() {
        let cast = Cast { writers: 1, collectors: 2, packs: &[BOTH], ..NOBODY };
        sound("1 writer, 2 collectors", cast);
        sound("1 writer, 2 collectors, root and data apart", Cast { packs: &[ROOT, BLOCK], ..cast });
    }

    #[test]
    fn two_writers_and_a_collector() {
        let cast = Cast { writers: 2, collectors: 1, packs: &[BOTH], ..NOBODY };
        sound("2 writers, 1 collector", cast);
        sound("2 writers, 1 collector, finder", Cast { finder: true, ..cast });
        sound("2 writers, 1 collector, 3 packs", Cast { packs: &[BOTH, ROOT, BLOCK], ..cast });
    }

    #[test]
    fn collectors_among_themselves() {
        let cast = Cast { collectors: 2, version: true, packs: &[BOTH, ROOT, BLOCK], ..NOBODY };
        sound("2 collectors, 3 packs", Cast { rm: true, duplicates: 1, ..cast });
    }

    #[test]
    fn a_draft_that_is_published_and_dropped_by_others() {
        let cast = Cast { writers: 1, goes_on: true, finder: true, cleaner: true, packs: &[BOTH], ..NOBODY };
        sound("1 writer, finder, cleaner", Cast { rm: true, ..cast });
        sound("1 writer, collector, finder, cleaner", Cast { collectors: 1, ..cast });
    }

    #[test]
    fn a_draft_of_a_version_that_is_removed() {
        sound("1 writer, collector, rm, based", BASED);
    }

    #[test]
    fn fragments_are_merged_meanwhile() {
        let cast = Cast { writers: 1, collectors: 1, merger: true, packs: &[BOTH], ..NOBODY };
        sound("1 writer, 1 collector, merger", cast);
        sound("the same, root and data apart, a version", Cast { packs: &[ROOT, BLOCK], version: true, ..cast });
        sound("collector, merger, rm, duplicates", Cast { writers: 0, version: true, rm: true, duplicates: 1, ..cast });
    }

    #[test]
    fn a_lost_version_is_put_back() {
        sound("collector, finder, rm, repairer", LOST);
        sound("the same with a writer", Cast { writers: 1, rm: false, ..LOST });
    }

    #[test]
    fn large_casts_when_asked_for() {
        if !is_large() {
            return;
        }
        sound("2 writers, 2 collectors, rm", Cast { writers: 2, collectors: 2, rm: true, packs: &[BOTH], ..NOBODY });
        sound("2 writers, 2 collectors, apart", Cast { writers: 2, collectors: 2, packs: &[ROOT, BLOCK], ..NOBODY });
        sound(
            "2 writers, 1 collector, 3 packs",
            Cast { writers: 2, collectors: 1, packs: &[BOTH, ROOT, BLOCK], ..NOBODY },
        );
        sound("3 collectors, 3 packs", Cast { collectors: 3, version: true, packs: &[BOTH, ROOT, BLOCK], ..NOBODY });
        sound("1 writer, 2 collectors, rm, based", Cast { collectors: 2, ..BASED });
        let merged = Cast { writers: 1, collectors: 2, merger: true, packs: &[BOTH], ..NOBODY };
        sound("1 writer, 2 collectors, merger", merged);
        sound("the same, root and data apart, rm", Cast { packs: &[ROOT, BLOCK], version: true, rm: true, ..merged });
        sound("1 writer, 2 collectors, finder, repairer", Cast { writers: 1, collectors: 2, ..LOST });
        let everyone =
            Cast { writers: 1, collectors: 2, finder: true, rm: true, duplicates: 1, packs: &[BOTH], ..NOBODY };
        sound("1 writer, 2 collectors, finder, rm, duplicates", everyone);
    }
}

/// Each way to lose data has its test.
mod taken_out {
    use super::*;

    const ONE_EACH: Cast = Cast { writers: 1, collectors: 1, packs: &[BOTH], ..NOBODY };
    const TWO_COLLECT: Cast = Cast { writers: 1, collectors: 2, packs: &[BOTH], ..NOBODY };

    /// A writer relies on a root that is being deleted; another one is about to store that root again, but not the data.
    const ROOT_IS_GOING: &[&str] = &[
        "writer 0 looks what is there",
        "collector 0 chooses 00000001",
        "collector 0 condemns",
        "collector 0 reads the list",
        "collector 0 reads records",
        "collector 0 reads the index",
        "collector 0 reads what it must copy",
        "writer 1 looks what is there",
    ];

    macro_rules! losses {
        ($($name:ident: $rule:ident in $cast:expr;)*) => {
            $(#[test]
            fn $name() {
                lossy(Without::$rule, $cast);
            })*
        };
    }

    losses! {
        fsync_acknowledges_a_draft_without_a_record: Records in ONE_EACH;
        a_record_is_rewritten_in_place: NewRecords in Cast { goes_on: true, finder: true, packs: &[], ..ONE_EACH };
        the_list_is_trimmed: WholeList in ONE_EACH;
        only_new_entries_of_the_list_are_read: ReadingTheWholeList in Cast { packs: &[BOTH, BLOCK], ..TWO_COLLECT };
        batches_are_numbered: UniqueBatches in Cast { packs: &[ROOT, BLOCK], ..TWO_COLLECT };
        a_condemned_pack_is_used_again: DeadForEver in ONE_EACH;
        two_collectors_trust_each_others_pack:
            ListAfterCondemning in Cast { collectors: 2, version: true, packs: &[BOTH, BOTH], ..NOBODY };
        records_are_read_before_condemning: CondemningFirst in ONE_EACH;
        the_index_is_read_before_the_records: RecordsBeforeIndex in Cast { packs: &[], ..ONE_EACH };
        packs_are_deleted_before_their_copies_are_indexed: IndexBeforeDeleting in Cast { version: true, ..ONE_EACH };
        packs_condemned_meanwhile_are_deleted: ListAsRead in TWO_COLLECT;
        a_missing_map_node_of_a_version_is_skipped:
            StoppingForUnreadable in Cast { flaky: true, version: true, packs: &[ROOT, BLOCK], ..ONE_EACH };
        a_missing_map_node_of_a_record_without_ok_is_skipped:
            StoppingForUnreadable in Cast { flaky: true, packs: &[ROOT, BLOCK], ..ONE_EACH };
        what_seems_missing_is_not_looked_for_again: ReadingAgain in Cast { packs: &[ROOT, BLOCK], ..TWO_COLLECT };
        the_index_of_a_check_is_newer_than_its_list: IndexBeforeList in Cast { writers: 2, dies: true, packs: &[ROOT, BLOCK], opening: ROOT_IS_GOING, ..TWO_COLLECT };
        a_check_that_stored_something_is_not_repeated: Repeating in TWO_COLLECT;
        nothing_is_checked: Check in ONE_EACH;
        inherited_blocks_are_believed: CheckOfInherited in ONE_EACH;
        new_blocks_are_believed: CheckOfNew in Cast { packs: &[], ..ONE_EACH };
        a_finder_does_not_look_for_ok: LookForOk in Cast { finder: true, ..ONE_EACH };
        a_writer_does_not_look_for_withdrawing: LookForWithdrawing in Cast { finder: true, ..ONE_EACH };
        an_open_draft_has_no_record_of_its_base: BaseRecord in BASED;
        a_draft_is_dropped_while_its_version_is_withdrawn:
            LookBeforeDropping in Cast { collectors: 0, goes_on: true, finder: true, cleaner: true, ..ONE_EACH };
        fragments_go_before_they_are_merged: MergedFirst in Cast { merger: true, version: true, ..ONE_EACH };
        a_merged_fragment_forgets_condemned_packs:
            EntriesOfTheCondemned in Cast { merger: true, version: true, ..ONE_EACH };
        a_lost_version_keeps_nothing: KeepingTheLost in LOST;
        a_writer_takes_back_what_is_confirmed:
            LeavingWhatIsConfirmed in Cast { collectors: 0, goes_on: true, finder: true, cleaner: true, ..ONE_EACH };
        a_record_is_put_back_before_its_ok: OkFirst in LOST;
        a_removed_version_leaves_no_tombstone: Tombstones in Cast { version: true, rm: true, duplicates: 2, ..ONE_EACH };
    }
}
