//! Learning index fragments, which collections merge.
//!
//! The merged one is durable, and says which ones it replaces, before these are deleted. So a fragment that was known and is gone has
//! its replacement in a list that begins after it was seen to be gone. If it has none there, nobody merged it: the target is not
//! the one it was.

use crate::format::fragment::{self, Fragment};
use crate::format::frame::FrameKind;
use crate::format::layout::{self, ObjectKey};
use crate::repo::learn::Learner;
use crate::repo::rollback::{RolledBack, is_absent};
use crate::repo::{RepoError, object_id};
use crate::words::ids::FragmentId;
use std::collections::BTreeSet;

/// Collections do not merge that fast; a target whose lists go on naming what it has not must not hold us up for ever.
const LOOKS_MAX: u32 = 10;

/// What became of fragments that were listed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Absorbed {
    learnt: usize,
    /// Merged into others after they were listed. Those are in the next list.
    gone: usize,
}

impl Learner<'_> {
    /// Reads index fragments that are new, and says whether there were any.
    pub(super) fn fragments(&mut self) -> Result<bool, RepoError> {
        let (mut learned, mut suspects) = (false, BTreeSet::new());
        for looks in 1.. {
            if looks > 1 {
                self.turn_away(layout::INDEX);
            }
            let (absorbed, absent) = self.look_at_fragments()?;
            learned |= absorbed.learnt > 0;
            if absorbed.gone > 0 && looks < LOOKS_MAX {
                continue;
            }
            if let Some(missing) = absent.intersection(&suspects).next() {
                self.sign(RolledBack::Fragment(*missing));
            } else if !absent.is_empty() && looks < LOOKS_MAX {
                suspects = absent;
                continue;
            }
            break;
        }
        Ok(learned)
    }

    /// Looks once. Also answers one that is known here, certainly not on the target, and merged into none that is known here, if there
    /// are such.
    fn look_at_fragments(&mut self) -> Result<(Absorbed, BTreeSet<FragmentId>), RepoError> {
        let mut missing = self.catalog.known_fragments()?;
        let after = self.core.floor(layout::INDEX, self.look, missing.last().map(FragmentId::as_bytes));
        // Of those that the list would show.
        missing.retain(|id| layout::fragment(*id).as_str() > after.as_str());
        let mut new = Vec::new();
        for info in self.listed(layout::INDEX, &after)? {
            if let Some(id) = layout::parse_fragment(&info.key).filter(|id| !missing.remove(id)) {
                new.push((id, info.key));
            }
        }
        let absorbed = self.absorb(&new)?;
        let (mut merged, mut absent) = (Vec::new(), BTreeSet::new());
        for id in missing {
            if self.catalog.replaced_by(id)?.is_some() {
                merged.push(id);
            } else if is_absent(&*self.core.target, &layout::fragment(id))? {
                // One that another process of this host wrote after the list was read is there.
                absent.insert(id);
                break;
            }
        }
        // What they said stays, and that it is said by another one, which is known and looked for like any.
        self.catalog.forget_fragments(&merged)?;
        Ok((absorbed, absent))
    }

    /// Absorbs every fragment that this learner has not, whatever the catalog says; and says whether there were any, or one that
    /// was merged before it could be read.
    pub(super) fn fragments_anew(&mut self) -> Result<bool, RepoError> {
        let mut new = Vec::new();
        for info in self.core.target.list(layout::INDEX)? {
            let Some(id) = layout::parse_fragment(&info.key).filter(|id| !self.absorbed.contains(id)) else { continue };
            new.push((id, info.key));
        }
        let absorbed = self.absorb(&new)?;
        // One that cannot be read is not asked for again.
        self.absorbed.extend(new.iter().map(|(id, _)| *id));
        Ok(absorbed != Absorbed::default())
    }

    fn absorb(&mut self, new: &[(FragmentId, ObjectKey)]) -> Result<Absorbed, RepoError> {
        let (mut absorbed, mut unreadable) = (Absorbed::default(), self.learned.blind.len());
        let object = |id: &FragmentId| object_id(id.as_bytes(), &[]);
        self.each(FrameKind::Fragment, new, object, |learner, id, key, plain| {
            match plain.map(|plain| fragment::decode(&plain)) {
                Some(Ok(found)) => {
                    learner.catalog.absorb_anew(id, &found.packs)?;
                    learner.catalog.note_replaced(&found.replaces, id)?;
                    learner.absorbed.insert(id);
                    absorbed.learnt += 1;
                }
                Some(Err(error)) => learner.unreadable(key, error),
                // What cannot be read was noted.
                None => absorbed.gone += usize::from(learner.learned.blind.len() == unreadable),
            }
            unreadable = learner.learned.blind.len();
            Ok(())
        })?;
        Ok(absorbed)
    }

    /// Reads one fragment. One that is gone is `None`; one that cannot be understood is `None` and noted.
    pub(super) fn read_fragment(&mut self, id: FragmentId) -> Result<Option<Fragment>, RepoError> {
        let key = layout::fragment(id);
        let Some(plain) = self.fetch(FrameKind::Fragment, &key, object_id(id.as_bytes(), &[]))? else {
            return Ok(None);
        };
        match fragment::decode(&plain) {
            Ok(found) => Ok(Some(found)),
            Err(error) => {
                self.unreadable(&key, error);
                Ok(None)
            }
        }
    }
}
