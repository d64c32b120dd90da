//! `rekey --migrate`: everything that is sealed under old key versions is sealed anew.
//!
//! ```text
//! for every record: walk its map; what has a copy under old key versions only is stored again          (long; killable, resumable)
//! condemn the old packs -> list of condemned -> records -> index -> check every record                   (as a collection does)
//! seal every other object anew under its name
//! say what is left under old versions: packs that wait for a collection, things that are damaged
//! ```
//!
//! It needs no memory of how far it came: what has a copy under the newest version is done. Backups, reads and collections go on beside
//! it. Deleting the condemned packs is a collection's work.

use crate::format::layout;
use crate::ops::error::is_damage;
use crate::ops::visited::Visited;
use crate::ops::{Interrupt, OpsError};
use crate::repo::migrate::SealedUnder;
use crate::repo::{RepoError, Repository};
use crate::words::ids::{BlockId, KeyVersion, PackId};
use crate::words::monitor::Monitor;
use crate::words::record::{BlockKind, ImageRef, RecordKind};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// How much time's work a kill may cost.
const INDEX_INTERVAL: Duration = Duration::from_secs(30);

/// What was done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Migrated {
    /// The key version that everything is to be sealed under.
    pub key_version: u32,
    /// Blocks and map nodes that were stored again.
    pub blocks: u64,
    /// Packs that were condemned: a collection deletes them.
    pub condemned_packs: u64,
    /// Other objects that were sealed anew.
    pub objects: u64,
    /// Old key versions that nothing is sealed under any more.
    pub unused: Vec<u32>,
    /// Old key versions that something is sealed under still, with an example.
    pub needed: Vec<String>,
}

/// Migrates as far as it can.
///
/// # Errors
/// When target or catalog fail, or it was interrupted. It can be repeated and goes on where it was.
pub fn migrate(repo: &Repository, monitor: &dyn Monitor, interrupt: &Interrupt) -> Result<Migrated, OpsError> {
    repo.refresh()?;
    let current = repo.key_version();
    let mut migrated = Migrated { key_version: current.0, ..Migrated::default() };
    if repo.key_versions().len() > 1 {
        let old = old_packs(repo, current, interrupt)?;
        let mut work = Work {
            repo,
            interrupt,
            old: &old,
            seen: Visited::new(repo),
            stuck: BTreeSet::new(),
            blocks: 0,
            indexed: Instant::now(),
        };
        let copied = work.copy_all(monitor);
        // What was stored must be found again, also after an interruption.
        repo.flush_packs([])?;
        copied?;
        migrated.blocks = work.blocks;
        let going: Vec<PackId> = old.difference(&work.stuck).copied().collect();
        if !going.is_empty() {
            repo.condemn(&going)?;
            check_everything(repo, interrupt)?;
            migrated.condemned_packs = going.len() as u64;
        }
        migrated.objects = reseal_objects(repo, interrupt)?;
        let needed = needed(repo, current, interrupt)?;
        let old = repo.key_versions().into_iter().filter(|version| *version < current);
        migrated.unused = old.filter(|version| !needed.contains_key(version)).map(|version| version.0).collect();
        migrated.needed = needed.into_iter().map(|(version, what)| format!("key version {version}: {what}")).collect();
    }
    Ok(migrated)
}

/// Packs of the index that are sealed under an older version and not condemned.
fn old_packs(repo: &Repository, current: KeyVersion, interrupt: &Interrupt) -> Result<BTreeSet<PackId>, OpsError> {
    let mut old = BTreeSet::new();
    for pack in repo.catalog().packs().map_err(RepoError::from)?.into_iter().filter(|pack| !pack.condemned) {
        interrupt.check()?;
        match repo.pack_sealed_under(pack.pack)? {
            SealedUnder::Version(version) if version >= current => {}
            SealedUnder::None => {}
            SealedUnder::Version(_) | SealedUnder::Unknown => drop(old.insert(pack.pack)),
        }
    }
    Ok(old)
}

fn images(repo: &Repository) -> Result<Vec<ImageRef>, OpsError> {
    let mut images = Vec::new();
    for kind in [RecordKind::Version, RecordKind::Draft, RecordKind::Pin] {
        let records = repo.catalog().records(kind).map_err(RepoError::from)?;
        images.extend(records.into_iter().flat_map(|(record, _)| [record.image, record.start]));
    }
    Ok(images)
}

struct Work<'a> {
    repo: &'a Repository,
    interrupt: &'a Interrupt,
    old: &'a BTreeSet<PackId>,
    seen: Visited,
    /// Old packs with something that is needed and cannot be read: they stay, as they may be mended.
    stuck: BTreeSet<PackId>,
    blocks: u64,
    indexed: Instant,
}

impl Work<'_> {
    fn copy_all(&mut self, monitor: &dyn Monitor) -> Result<(), OpsError> {
        let images = images(self.repo)?;
        for (done, image) in images.iter().enumerate() {
            monitor.progress(done as u64, images.len() as u64);
            self.node(image.root, image.depth().root_level())?;
        }
        Ok(())
    }

    fn node(&mut self, id: BlockId, level: u8) -> Result<(), OpsError> {
        self.interrupt.check()?;
        if id.is_hole() || !self.seen.insert(id)? {
            return Ok(());
        }
        let node = match self.repo.read_node(&id) {
            Ok(node) => node,
            Err(error) if is_damage(&error) => return self.stick(&id),
            Err(error) => return Err(error.into()),
        };
        self.block(BlockKind::Map, &id)?;
        for child in node.ids().iter().filter(|child| !child.is_hole()) {
            match level {
                0 => self.block(BlockKind::Data, child)?,
                level => self.node(*child, level - 1)?,
            }
        }
        Ok(())
    }

    fn block(&mut self, kind: BlockKind, id: &BlockId) -> Result<(), OpsError> {
        let copies = self.repo.catalog().locations(id).map_err(RepoError::from)?;
        if copies.iter().any(|copy| !self.old.contains(&copy.pack)) {
            return Ok(());
        }
        match self.repo.reseal_block(kind, id) {
            Ok(_) => self.blocks += 1,
            Err(error) if is_damage(&error) => return self.stick(id),
            Err(error) => return Err(error.into()),
        }
        if self.indexed.elapsed() >= INDEX_INTERVAL {
            self.repo.flush_packs([])?;
            self.indexed = Instant::now();
        }
        Ok(())
    }

    fn stick(&mut self, id: &BlockId) -> Result<(), OpsError> {
        let copies = self.repo.catalog().locations(id).map_err(RepoError::from)?;
        self.stuck.extend(copies.into_iter().map(|copy| copy.pack));
        Ok(())
    }
}

/// As a collection does after it has condemned: the list, the records, the index, and for each record a check, which stores again what
/// has no copy elsewhere. Whatever this does not reach, a collection copies before it deletes.
fn check_everything(repo: &Repository, interrupt: &Interrupt) -> Result<(), OpsError> {
    repo.learn_condemned()?;
    repo.refresh_everything()?;
    for image in images(repo)? {
        interrupt.check()?;
        match repo.check_image(&image, &[]) {
            Ok(_) => {}
            Err(error) if is_damage(&error) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

const OBJECTS: [&str; 10] = [
    layout::INDEX,
    layout::VERSIONS,
    layout::DRAFTS,
    layout::PINS,
    layout::ATTRIBUTES,
    layout::OK,
    layout::WITHDRAWING,
    layout::TOMBSTONES,
    layout::CONDEMNED,
    layout::DAMAGE,
];

fn reseal_objects(repo: &Repository, interrupt: &Interrupt) -> Result<u64, OpsError> {
    let mut resealed = 0;
    for prefix in OBJECTS {
        for info in repo.target().list(prefix).map_err(RepoError::from)? {
            interrupt.check()?;
            match repo.reseal_object(&info.key) {
                Ok(rewritten) => resealed += u64::from(rewritten),
                // A damaged one is for a repair; its key version stays.
                Err(error) if is_damage(&error) => tracing::warn!("{error}"),
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(resealed)
}

/// Old key versions that something is sealed under, by one example each.
fn needed(
    repo: &Repository,
    current: KeyVersion,
    interrupt: &Interrupt,
) -> Result<BTreeMap<KeyVersion, String>, OpsError> {
    let mut needed: BTreeMap<KeyVersion, String> = BTreeMap::new();
    let mut note = |name: String, under: SealedUnder| {
        // What is damaged may be under any of them.
        let versions = match under {
            SealedUnder::Version(version) => vec![version],
            SealedUnder::None => Vec::new(),
            SealedUnder::Unknown => repo.key_versions(),
        };
        for version in versions.into_iter().filter(|version| *version < current) {
            needed.entry(version).or_insert(name.clone());
        }
    };
    for (pack, _) in repo.stored_packs()? {
        interrupt.check()?;
        note(layout::pack(pack).to_string(), repo.pack_sealed_under(pack)?);
    }
    for prefix in OBJECTS {
        for info in repo.target().list(prefix).map_err(RepoError::from)? {
            interrupt.check()?;
            note(info.key.to_string(), repo.object_sealed_under(&info.key)?);
        }
    }
    Ok(needed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::scrub::tests::{Action, World, act, scrub_all, unreadable};
    use crate::words::attribute::AttributeChange;
    use crate::words::monitor::Silent;
    use std::sync::atomic::{AtomicBool, Ordering};

    fn run(repo: &Repository) -> Migrated {
        migrate(repo, &Silent, &Interrupt::never()).unwrap()
    }

    /// What a collection does at the end.
    fn delete_condemned(world: &World) -> usize {
        let condemned = world.repo().catalog().condemned_packs().unwrap();
        let there =
            condemned.iter().filter(|pack| std::fs::remove_file(world.file(layout::pack(**pack).as_str())).is_ok());
        there.count()
    }

    #[test]
    fn another_host_learns_a_new_key_version_when_it_reads_and_when_it_publishes() {
        let world = World::new();
        let (reader, writer) = (world.other_host(), world.other_host());
        assert_eq!(world.repo().rekey().unwrap(), KeyVersion(2));
        assert!(scrub_all(world.repo()).damaged_objects.is_empty());
        std::fs::write(world.path("new.img"), b"sealed under the new key").unwrap();
        let uid = world.back_up("new");
        assert_eq!((reader.key_version(), writer.key_version()), (KeyVersion(1), KeyVersion(1)));
        reader.refresh().unwrap();
        assert_eq!((unreadable(&reader, uid), reader.key_version()), (vec![], KeyVersion(2)));
        let old = writer.catalog().version_summaries().unwrap()[0].clone();
        crate::ops::overlays::pin(&writer, &old).unwrap();
        assert_eq!(writer.key_version(), KeyVersion(2));
        // Both at once: two numbers, and everybody knows both.
        assert_eq!((writer.rekey().unwrap(), reader.rekey().unwrap()), (KeyVersion(3), KeyVersion(4)));
        assert_eq!(world.other_host().key_versions().len(), 4);
        assert!(
            world.repo().catalog().version_uids().unwrap().iter().all(|uid| unreadable(world.repo(), *uid).is_empty())
        );
    }

    #[test]
    fn everything_is_sealed_anew_and_nothing_is_left_under_the_old_key() {
        let world = World::new();
        assert_eq!(run(world.repo()), Migrated { key_version: 1, ..Migrated::default() });
        let before = world.other_host().catalog().version_summaries().unwrap();
        world.repo().rekey().unwrap();
        let first = run(world.repo());
        assert!(first.blocks > 300 && first.condemned_packs > 3 && first.objects > 5, "{first:?}");
        assert!(first.unused.is_empty() && first.needed[0].contains("packs/"), "{first:?}");
        assert!(delete_condemned(&world) > 3);
        let second = run(world.repo());
        assert_eq!((second.blocks, second.condemned_packs, second.objects), (0, 0, 0), "{second:?}");
        assert_eq!((second.unused, second.needed), (vec![1], vec![]));
        let other = world.other_host();
        assert_eq!(other.catalog().version_summaries().unwrap(), before);
        assert!(before.iter().all(|version| unreadable(&other, version.uid).is_empty()));
        assert!(!scrub_all(world.repo()).is_damage());
    }

    #[test]
    fn killed_half_way_it_goes_on_and_what_is_damaged_stays_where_it_is() {
        static STOP: AtomicBool = AtomicBool::new(false);
        struct StopAtSecond;
        impl Monitor for StopAtSecond {
            fn count(&self, _: crate::words::monitor::Counter, _: u64) {}
            fn progress(&self, done: u64, _: u64) {
                STOP.store(done >= 2, Ordering::Relaxed);
            }
        }
        let world = World::new();
        let damaged = world.packs(BlockKind::Data)[0].clone();
        act(&world, Action::Flip(100), &damaged, &[]);
        let report = scrub_all(world.repo());
        world.repo().rekey().unwrap();
        let stopped = migrate(world.repo(), &StopAtSecond, &Interrupt::new(&STOP));
        assert!(matches!(stopped, Err(OpsError::Interrupted)));
        let uid = world.repo().catalog().version_uids().unwrap()[0];
        world.repo().change_attributes(uid, &[AttributeChange::AddTag("meanwhile".into())]).unwrap();
        let rest = run(world.repo());
        assert!(rest.blocks > 0 && rest.blocks < 350, "what was done is not done again: {rest:?}");
        delete_condemned(&world);
        assert!(world.file(&damaged).exists(), "it may be mended one day");
        assert_eq!(run(world.repo()).needed.len(), 1);
        let other = world.other_host();
        let lost = report.findings.iter().map(|finding| finding.lost_bytes / 4096).sum::<u64>();
        let bad: usize = other.catalog().version_uids().unwrap().iter().map(|uid| unreadable(&other, *uid).len()).sum();
        assert_eq!(bad as u64, lost);
    }
}
