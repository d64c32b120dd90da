//! Damage that was found, as all hosts know of it: reports on the target.
//!
//! A report names copies, not blocks. So it is never wrong later: a block that is stored anew has another copy, in another pack,
//! which no report names. Two hosts that report the same say it twice, which is harmless. A report is taken back, by deleting it,
//! only after the pack was read from end to end and found good, or a newer report of the same pack says all that is still true. Losing
//! a report costs caution, not data: the next read or scrub finds the damage again.

use crate::format::frame::FrameKind;
use crate::format::{damage, layout};
use crate::repo::learn::Learner;
use crate::repo::rollback::is_absent;
use crate::repo::{Core, RepoError, Repository, object_id};
use crate::words::clock::ClockExt;
use crate::words::damage::DamageReport;
use crate::words::ids::{BlockId, DamageId, PackId};
use crate::words::record::BlockKind;
use std::collections::{BTreeMap, BTreeSet};

/// Longest reason in a report, in bytes.
const REASON_MAX_BYTES: usize = 1000;

impl Repository {
    /// Makes the reports about a pack say exactly this: these of its blocks are bad, for this reason, or nothing is (no reason). Writes
    /// only what is not on the target yet. Says whether anything of it is news.
    ///
    /// # Errors
    /// When target or catalog fail. It can be repeated.
    pub fn settle_damage(
        &self,
        pack: PackId,
        kind: BlockKind,
        reason: Option<&str>,
        blocks: &BTreeSet<BlockId>,
    ) -> Result<bool, RepoError> {
        let core = &self.core;
        let mut old: BTreeMap<DamageId, DamageReport> = core.catalog.damage_reports()?;
        old.retain(|_, report| report.pack == pack);
        let said: BTreeSet<BlockId> = old.values().flat_map(|report| report.blocks.iter().copied()).collect();
        let is_said = said == *blocks && old.is_empty() != reason.is_some();
        if let Some(reason) = reason.filter(|_| !is_said) {
            core.report(pack, kind, reason, blocks)?;
        }
        if !is_said {
            for id in old.into_keys() {
                core.target.delete(&layout::damage(id))?;
                core.catalog.forget_damage(id)?;
            }
            core.catalog.forget_noted(&pack, blocks)?;
        }
        Ok(reason.is_some() && !is_said)
    }

    /// Reports what was noted on this host while reading and is not on the target yet. Says how many packs it concerns.
    ///
    /// # Errors
    /// When target or catalog fail. It can be repeated.
    pub fn report_noted(&self) -> Result<usize, RepoError> {
        let core = &self.core;
        let mut noted: BTreeMap<PackId, (String, BTreeSet<BlockId>)> = BTreeMap::new();
        for copy in core.catalog.bad_copies()?.into_iter().filter(|copy| !copy.is_reported) {
            noted.entry(copy.pack).or_insert_with(|| (copy.reason, BTreeSet::new())).1.insert(copy.block);
        }
        let mut reported = 0;
        for (pack, (reason, blocks)) in noted {
            // A pack that is condemned since is nobody's concern any more.
            let known = core.catalog.pack(&pack)?.filter(|pack| !pack.condemned);
            match known {
                Some(known) => core.report(pack, known.kind, &reason, &blocks)?,
                None => core.catalog.forget_noted(&pack, &BTreeSet::new())?,
            }
            reported += usize::from(known.is_some());
        }
        Ok(reported)
    }

    /// Deletes reports about packs that are condemned: dead packs have no damage.
    ///
    /// # Errors
    /// When target or catalog fail. It can be repeated.
    pub fn drop_stale_damage(&self) -> Result<(), RepoError> {
        let core = &self.core;
        for (id, report) in core.catalog.damage_reports()? {
            if core.catalog.is_condemned(&report.pack)? {
                core.target.delete(&layout::damage(id))?;
                core.catalog.forget_damage(id)?;
            }
        }
        Ok(())
    }
}

impl Core {
    fn report(&self, pack: PackId, kind: BlockKind, reason: &str, blocks: &BTreeSet<BlockId>) -> Result<(), RepoError> {
        let id = self.clock.damage_id();
        let reason = reason[..reason.floor_char_boundary(REASON_MAX_BYTES)].to_owned();
        let blocks = blocks.iter().copied().collect();
        let report = DamageReport { pack, kind, host: self.host, at: self.clock.now(), reason, blocks };
        let object = object_id(id.as_bytes(), &[]);
        let sealed = self.sealer.seal_object(FrameKind::Damage, object, &damage::encode(&report));
        self.target.put(&layout::damage(id), &[&sealed])?;
        Ok(self.catalog.absorb_damage(id, &report)?)
    }
}

impl Learner<'_> {
    /// Learns reports that are new, and forgets those that were taken back.
    pub(super) fn damage(&mut self) -> Result<(), RepoError> {
        let mut known: BTreeSet<DamageId> = self.catalog.damage_reports()?.into_keys().collect();
        for info in self.listed(layout::DAMAGE, "")? {
            let Some(id) = layout::parse_damage(&info.key) else { continue };
            if known.remove(&id) {
                continue;
            }
            let object = object_id(id.as_bytes(), &[]);
            let Some(plain) = self.fetch(FrameKind::Damage, &info.key, object)? else { continue };
            match damage::decode(&plain) {
                Ok(report) => self.catalog.absorb_damage(id, &report)?,
                Err(error) => self.learned.unreadable.push(format!("{}: {error}", info.key)),
            }
        }
        for id in known {
            // One that another process of this host wrote after the list was read is there.
            if is_absent(&*self.core.target, &layout::damage(id))? {
                self.catalog.forget_damage(id)?;
            }
        }
        Ok(())
    }
}
