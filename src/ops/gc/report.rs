//! What a collection did, and why it left what it left.

use crate::ops::gc::keepers::Keepers;
use crate::ops::gc::policy::Reason;
use serde::Serialize;

/// Packs that go, or would, for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GoingRow {
    /// Why.
    pub reason: Reason,
    /// How many.
    pub packs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes in them that are needed, and copied.
    pub needed_bytes: u64,
}

/// Packs that stay.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Staying {
    /// Packs that hold enough of what is needed.
    pub packs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Of these, bytes that are not needed: too few to be worth copying the rest.
    pub dead_bytes: u64,
    /// Packs of backups that are under way, or were not finished and may be repeated.
    pub unfinished_packs: u64,
    /// Their bytes.
    pub unfinished_bytes: u64,
    /// When the first of them may go.
    pub unfinished_until: Option<String>,
}

/// See the module. Bytes are those on the target.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Whether this only says what would be done.
    pub dry_run: bool,
    /// Nothing had changed since the last collection.
    pub nothing_new: bool,
    /// Packs that were condemned now, or would be, by reason.
    pub going: Vec<GoingRow>,
    /// What stays, and why.
    pub staying: Staying,
    /// Who needs what stays.
    pub kept_by: Keepers,
    /// Packs that were condemned earlier, by anybody, and still lay there.
    pub resumed_packs: u64,
    /// Packs that were deleted.
    pub deleted_packs: u64,
    /// Their bytes, less what was copied.
    pub freed_bytes: i64,
    /// Blocks copied out of packs that were deleted.
    pub copied_blocks: u64,
    /// Bytes of those.
    pub copied_bytes: u64,
    /// Records that were never confirmed and whose writer is gone.
    pub withdrawn_records: u64,
    /// Versions whose confirmation was lost, each with its name. They stay: `repair` on a host that knows them confirms them again.
    pub unconfirmed: Vec<String>,
    /// By how many index fragments there are fewer.
    pub merged_fragments: u64,
    /// Condemned packs that stay because they hold damaged blocks that are needed, and no other copy is left.
    pub damaged_packs: u64,
    /// Why nothing (more) was deleted, if so.
    pub obstacles: Vec<String>,
}

impl Report {
    /// Adds what an attempt before this one has done already.
    pub(super) fn add(&mut self, before: Option<&Self>) {
        let Some(before) = before else { return };
        self.going.splice(..0, before.going.iter().cloned());
        self.deleted_packs += before.deleted_packs;
        self.freed_bytes += before.freed_bytes;
        self.copied_blocks += before.copied_blocks;
        self.copied_bytes += before.copied_bytes;
        self.withdrawn_records += before.withdrawn_records;
        self.merged_fragments += before.merged_fragments;
        self.nothing_new &= before.going.is_empty();
    }
}
