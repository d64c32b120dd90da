//! `by_version/`: which versions there are.

use crate::catalog::VersionSummary;
use crate::fs::errno::Errno;
use crate::fs::nodes::Node;
use crate::fs::seam::Answer;
use crate::fs::trees::Trees;
use crate::ops::overlays;
use crate::words::ids::Uid;
use crate::words::name::Name;
use crate::words::record::Record;
use crate::words::stamp::Stamp;
use std::collections::HashSet;
use std::ffi::OsString;

/// Where a link leads that lies `above` directories and its name's own below the root.
pub(super) fn link(uid: Uid, above: usize, name: &Name) -> String {
    format!("{}by_version/{uid}", "../".repeat(above + name.components().count()))
}

/// What is known of a version that another host deleted, from the pin of our overlay.
fn from_pin(pin: Record) -> VersionSummary {
    let created = Stamp::from_millis(pin.base.millis());
    let Record { base: uid, host, image, attributes, stats, .. } = pin;
    VersionSummary { uid, created, host, image, base: Uid::NIL, supersedes: Uid::NIL, attributes, stats }
}

impl Trees {
    /// A version that can be seen: a confirmed one, or one that another host deleted while it is overlaid here.
    pub fn version(&self, uid: Uid) -> Answer<VersionSummary> {
        if let Some(version) = self.repo.catalog().version_summary(uid)? {
            return Ok(version);
        }
        if !overlays::exists(&self.repo, uid) {
            return Err(Errno::ENOENT);
        }
        overlays::pins_of(&self.repo, uid)?.pop().map(from_pin).ok_or(Errno::ENOENT)
    }

    /// Whether a version is seen only because it is overlaid here.
    pub(super) fn is_orphan(&self, uid: Uid) -> Answer<bool> {
        Ok(self.repo.catalog().version_summary(uid)?.is_none())
    }

    pub(super) fn find_version(&self, component: &str) -> Answer<Node> {
        let uid: Uid = component.parse().map_err(|_| Errno::ENOENT)?;
        // One spelling each: `by_version/` shows lower case.
        if uid.to_string() != component {
            return Err(Errno::ENOENT);
        }
        self.version(uid).map(|version| Node::Version(version.uid))
    }

    pub(super) fn list_versions(&self) -> Answer<Vec<(OsString, Node)>> {
        let mut uids = self.repo.catalog().version_uids()?;
        let known: HashSet<Uid> = uids.iter().copied().collect();
        let pinned: HashSet<Uid> = overlays::own_pins(&self.repo)?.into_iter().map(|pin| pin.base).collect();
        let is_orphan = |uid: &Uid| !known.contains(uid) && overlays::exists(&self.repo, *uid);
        uids.extend(pinned.into_iter().filter(is_orphan));
        Ok(uids.into_iter().map(|uid| (uid.to_string().into(), Node::Version(uid))).collect())
    }
}
