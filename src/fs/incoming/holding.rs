//! What a draft was made from stays while it is written, whoever deletes it: blocks that are the base's are taken over by their
//! ids, and a copy of hours must not fail at its end because a collection took them meanwhile (docs/architecture.md).
//!
//! A pin on the target says so. It is published beside the writer, who never waits for it, once a draft has been changed for a
//! moment: a short copy asks the target for nothing more. What is acknowledged does not rely on it, since every commit checks all
//! that it refers to.

use crate::fs::incoming::Incoming;
use crate::fs::incoming::commit::attributes;
use crate::ops::overlays::Pinned;
use crate::ops::reading::{PIN_AFTER, ReadingPin};
use crate::words::ids::{BlockId, DraftId};
use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

/// An image that a draft inherits from, by the root of its map.
type Inherited = (DraftId, BlockId);

/// See the module.
#[derive(Default)]
pub(super) struct Held {
    /// What was inherited at the last look.
    seen: HashSet<Inherited>,
    pins: HashMap<Inherited, ReadingPin>,
}

impl Incoming {
    /// Starts to hold; it ends with the tree.
    pub(super) fn start_holding(self: &Arc<Self>) -> std::io::Result<()> {
        let me = Arc::downgrade(self);
        std::thread::Builder::new().name("hold-bases".into()).spawn(move || keep_holding(&me)).map(drop)
    }

    /// Pins what drafts have inherited since the last look, and lets go of what none does any more.
    fn hold(&self) {
        let mut held = self.held.lock();
        let inherited = self.inherited();
        held.pins.retain(|key, _| inherited.contains_key(key));
        for (key, what) in &inherited {
            if self.stopping.load(Ordering::Relaxed) {
                return;
            }
            // At the first look it may be over in a moment.
            if held.seen.contains(key) && !held.pins.contains_key(key) {
                held.pins.insert(*key, ReadingPin::of(&self.repo, what));
            }
        }
        held.seen = inherited.into_keys().collect();
    }

    /// Lets go of everything. When the target did not take the drafts it is not asked to drop pins either: that would only wait once
    /// more for each.
    pub(super) fn let_go(&self, answers: bool) {
        if answers {
            *self.held.lock() = Held::default();
        } else if let Some(mut held) = self.held.try_lock() {
            std::mem::take(&mut *held).pins.into_values().for_each(ReadingPin::leave);
        }
    }

    fn inherited(&self) -> HashMap<Inherited, Pinned> {
        let files = self.table.lock().files();
        let mut inherited = HashMap::new();
        for file in files {
            let state = file.state.lock();
            let Some(work) = state.work.as_ref().filter(|work| work.is_changed() && work.error.is_none()) else {
                continue;
            };
            for image in
                work.image.inherits().chain([work.start]).chain(work.before).filter(|image| !image.root.is_hole())
            {
                let attributes = attributes(&state.name, work, String::new());
                let what = Pinned { version: work.base, image, attributes };
                inherited.insert((work.draft.id(), image.root), what);
            }
        }
        inherited
    }
}

fn keep_holding(me: &Weak<Incoming>) {
    loop {
        std::thread::sleep(PIN_AFTER);
        let Some(incoming) = me.upgrade() else { return };
        if incoming.stopping.load(Ordering::Relaxed) {
            return;
        }
        incoming.hold();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::incoming::testing::{Scene, noise, scene, scene_of};
    use crate::ops::overlays::own_pins;
    use crate::repo::testing::{create, open, small};
    use crate::target::DirTarget;
    use crate::target::through::Paging;
    use std::time::{Duration, Instant};

    #[test]
    fn what_is_changed_in_place_survives_the_loss_of_its_base() {
        let scene = scene();
        let mut bytes = noise(300_000);
        let handle = scene.open("vm", false);
        scene.write(handle, 0, &bytes);
        scene.close(handle);
        let (base, _) = scene.newest();
        let handle = scene.open("vm", false);
        scene.write(handle, 5000, b"changed");
        bytes[5000..5007].copy_from_slice(b"changed");
        // One look sees that it was changed, the next that it still is.
        scene.incoming.hold();
        assert_eq!(own_pins(&scene.world.repo).unwrap().len(), 0, "short work asks for nothing");
        scene.incoming.hold();
        assert_eq!(own_pins(&scene.world.repo).unwrap().len(), 1);
        scene.lose(base);
        scene.write(handle, 150_000, b"again");
        bytes[150_000..150_005].copy_from_slice(b"again");
        scene.close(handle);
        assert!(scene.newest().1 == bytes);
        scene.incoming.hold();
        assert_eq!(own_pins(&scene.world.repo).unwrap().len(), 0, "the version stands for it now");
    }

    #[test]
    fn so_does_what_is_copied_over_it_again() {
        copied_over_again(&scene());
        // Where it is not compared with the base, but found in the index.
        let mut world = create(&small());
        let target = Paging(Arc::new(DirTarget::open(world.dir.path().join("target"))));
        world.repo = open(Arc::new(target), &world.dir.path().join("paged"), Arc::default()).unwrap();
        copied_over_again(&scene_of(world));
    }

    fn copied_over_again(scene: &Scene) {
        let bytes = noise(300_000);
        let handle = scene.open("vm", false);
        scene.write(handle, 0, &bytes);
        scene.close(handle);
        let (base, _) = scene.newest();
        let handle = scene.open("vm", true);
        scene.write(handle, 0, &bytes[..100_000]);
        (0..2).for_each(|_| scene.incoming.hold());
        scene.lose(base);
        scene.write(handle, 100_000, &bytes[100_000..]);
        scene.close(handle);
        let (copy, content) = scene.newest();
        assert!(copy != base && content == bytes);
    }

    #[test]
    fn nothing_is_left_at_the_end() {
        let scene = scene();
        let handle = scene.open("vm", false);
        scene.write(handle, 0, &noise(50_000));
        scene.close(handle);
        let handle = scene.open("vm", false);
        scene.write(handle, 9, b"x");
        scene.incoming.start_upkeep().unwrap();
        let patience = Instant::now();
        while own_pins(&scene.world.repo).unwrap().is_empty() {
            assert!(patience.elapsed() < Duration::from_secs(20), "it is pinned by itself");
            std::thread::sleep(Duration::from_millis(50));
        }
        scene.incoming.drain();
        assert_eq!(own_pins(&scene.world.repo).unwrap().len(), 0);
    }
}
