//! Making the catalog anew from the target, beside whoever uses the old one; see [`crate::catalog::Rebuild`] for how.

use crate::catalog::{Catalog, Rebuild};
use crate::format::frame::FrameKind;
use crate::format::{condemned, layout};
use crate::repo::learn::{Learned, Learner};
use crate::repo::rollback::{RolledBack, is_absent};
use crate::repo::{RepoError, Repository, object_id};
use crate::words::clock::ClockExt;
use crate::words::ids::{BatchId, PackId, Uid};
use crate::words::monitor::{Monitor, Silent};
use crate::words::record::{PackContents, Verdict};
use std::collections::BTreeSet;

/// Where the index is learnt from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IndexSource {
    /// Index fragments; only packs that none of them names are looked into.
    Fragments,
    /// The footer of every pack, whatever fragments say: `--from-packs`.
    Packs,
}

/// Packs that one fragment of a rebuild speaks of.
const PACKS_PER_FRAGMENT: usize = 256;

/// What the catalog knew before something was found to be missing.
struct Before {
    confirmed: Vec<Uid>,
    condemned: BTreeSet<PackId>,
    batches: BTreeSet<BatchId>,
}

/// What a rebuild found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rebuilt {
    /// Records and entries, and what could not be read.
    pub learned: Learned,
    /// Packs on the target.
    pub packs: u64,
    /// Of these, packs that no index fragment described; a fragment was written for them.
    pub packs_indexed: u64,
}

impl Repository {
    /// Learns the catalog anew and then uses that. What is local (overlays, hidden names, known damage) stays. Until it is
    /// whole, this and every other process goes on with the old one.
    ///
    /// Packs that no fragment names are left by a writer that died before it indexed them. They become known to every host by
    /// a new fragment: were they known here only, a version could come to rely on a block that nobody else finds.
    ///
    /// # Errors
    /// When the target cannot be reached or the catalog fails. It can be repeated.
    pub fn rebuild(&self, source: IndexSource, monitor: &dyn Monitor) -> Result<Rebuilt, RepoError> {
        let rebuild = self.catalog().rebuild()?;
        let before = self.before();
        if let Err(error) = &before {
            self.monitor().warn(&format!("what the old catalog knew is not taken over: {error}"));
        }
        self.rebuild_into(rebuild, source, before.ok().as_ref(), monitor)
    }

    /// Rebuilds because of a sign that the target is not the one it was, unless another process has done so meanwhile.
    pub(super) fn rebuild_after(&self, sign: &RolledBack) -> Result<Option<Learned>, RepoError> {
        let rebuild = self.catalog().rebuild()?;
        // While this waited for its turn another process may have done it.
        let is_expected = match sign {
            RolledBack::Fragment(id) => self.catalog().knows_fragment(*id)?,
            RolledBack::Batch(id) => self.catalog().known_batches()?.contains(id),
        };
        if !is_expected {
            return Ok(None);
        }
        self.monitor().warn(&format!(
            "the target was put back to an earlier state or has lost objects, for {sign} is missing; the catalog is made anew \
             from what is there"
        ));
        let before = self.before()?;
        let mut learned = self.rebuild_into(rebuild, IndexSource::Fragments, Some(&before), &Silent)?.learned;
        learned.rebuilt = Some(sign.to_string());
        Ok(Some(learned))
    }

    fn rebuild_into(
        &self,
        rebuild: Rebuild,
        source: IndexSource,
        before: Option<&Before>,
        monitor: &dyn Monitor,
    ) -> Result<Rebuilt, RepoError> {
        let mut learner = Learner::new(&self.core, rebuild.catalog());
        learner.records()?;
        learner.fragments_anew()?;
        learner.condemned_past_damage()?;
        let mut rebuilt = Rebuilt::default();
        self.learn_packs(&rebuild, source, monitor, &mut rebuilt, &mut learner)?;
        // That may have taken long. What processes of this host put meanwhile is in both sets of tables already; this is what
        // others put.
        learner.records()?;
        while learner.fragments_anew()? {}
        learner.damage()?;
        learner.condemned_past_damage()?;
        learner.verdicts()?;
        if let Some(before) = before {
            self.keep_known(&rebuild, before, &mut learner.learned)?;
        }
        rebuilt.learned = learner.learned;
        rebuild.finish()?;
        Ok(rebuilt)
    }

    /// Something is missing on the target, perhaps more than was noticed; a rebuild must not forget what nobody else may know. That a
    /// record was confirmed stays true while it is there, and one that is gone is remembered as lost. Packs that were condemned
    /// stay dead for ever, gone or not: fragments that name them are still there, and a collector somewhere may be about to delete
    /// those that are. What is needed of them is copied out by the next check or collection.
    fn keep_known(&self, rebuild: &Rebuild, before: &Before, learned: &mut Learned) -> Result<(), RepoError> {
        let catalog = rebuild.catalog();
        for uid in &before.confirmed {
            match catalog.record(*uid)? {
                Some(_) => catalog.set_verdict(*uid, Verdict::Confirmed)?,
                None => learned.unreadable.extend(self.core.note_lost(*uid)?),
            }
        }
        let known = catalog.condemned_packs()?;
        let dead: Vec<PackId> = before.condemned.difference(&known).copied().collect();
        if !dead.is_empty() {
            let batch = self.core.clock.batch_id();
            let object = object_id(batch.as_bytes(), &[]);
            let sealed = self.core.sealer.seal_object(FrameKind::Condemned, object, &condemned::encode(&dead));
            self.core.target.put(&layout::condemned(batch), &[&sealed])?;
            // Into both sets of tables.
            self.core.catalog.absorb_batch(batch, &dead)?;
        }
        // One that is there and cannot be read any more was read once: it need not be read again, and a repair can write it anew.
        let all: Vec<PackId> = before.condemned.iter().copied().collect();
        for batch in before.batches.difference(&catalog.known_batches()?) {
            if !is_absent(&*self.core.target, &layout::condemned(*batch))? {
                catalog.absorb_batch(*batch, &all)?;
            }
        }
        Ok(())
    }

    /// What nobody else may know, should the target have lost it.
    fn before(&self) -> Result<Before, RepoError> {
        Ok(Before {
            confirmed: self.confirmed_records()?,
            condemned: self.catalog().condemned_packs()?,
            batches: self.catalog().known_batches()?,
        })
    }

    fn confirmed_records(&self) -> Result<Vec<Uid>, RepoError> {
        let known = self.catalog().known_records()?.into_iter();
        let confirmed = known.filter(|record| record.verdict == Verdict::Confirmed);
        Ok(confirmed.map(|record| record.uid).collect())
    }

    fn learn_packs(
        &self,
        rebuild: &Rebuild,
        source: IndexSource,
        monitor: &dyn Monitor,
        rebuilt: &mut Rebuilt,
        learner: &mut Learner<'_>,
    ) -> Result<(), RepoError> {
        let catalog = rebuild.catalog();
        let stored = self.stored_packs()?;
        rebuilt.packs = stored.len() as u64;
        let mut found: Vec<PackContents> = Vec::new();
        for (done, (id, size_bytes)) in stored.into_iter().enumerate() {
            monitor.progress(done as u64, rebuilt.packs);
            let known = catalog.pack(&id)?;
            let condemned = catalog.is_condemned(&id)?;
            if condemned || (known.is_some() && source == IndexSource::Fragments) {
                continue;
            }
            match self.inspect_pack(id, size_bytes) {
                // What fragments say is true as far as it goes; a pack of which they say all needs no new one.
                Ok(pack) if known.is_some() && is_described(catalog, &pack)? => {}
                Ok(pack) => found.push(pack),
                Err(error @ (RepoError::Format { .. } | RepoError::Seal { .. })) => {
                    learner.learned.unreadable.push(error.to_string());
                }
                Err(error) if error.is_gone() => {}
                Err(error) => return Err(error),
            }
            // They are not kept until the end: the blocks of all packs may be more than memory holds.
            if found.len() == PACKS_PER_FRAGMENT {
                rebuilt.packs_indexed += self.index_found(&mut found)?;
            }
        }
        rebuilt.packs_indexed += self.index_found(&mut found)?;
        monitor.progress(rebuilt.packs, rebuilt.packs);
        Ok(())
    }

    fn index_found(&self, found: &mut Vec<PackContents>) -> Result<u64, RepoError> {
        let count = found.len() as u64;
        if count > 0 {
            self.index_packs(found)?;
            found.clear();
        }
        Ok(count)
    }
}

/// Whether every block of a pack is known to lie where it lies.
fn is_described(catalog: &Catalog, pack: &PackContents) -> Result<bool, RepoError> {
    for block in &pack.blocks {
        let known = catalog.all_locations(&block.id)?;
        let here = (pack.pack, block.offset, block.frame_len);
        if !known.iter().any(|known| (known.pack, known.offset, known.frame_len) == here) {
            return Ok(false);
        }
    }
    Ok(true)
}
