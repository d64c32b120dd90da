//! A target that fails when told to. Deterministic: effects are numbered in the order in which they begin.

use crate::format::layout::ObjectKey;
use crate::target::dir::{Gate, Step};
use crate::target::{Coherence, DirTarget, ObjectInfo, Page, Put, Space, Target, TargetError};
use nix::errno::Errno;
use parking_lot::Mutex;
use std::path::PathBuf;
use std::sync::Arc;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing more fits (ENOSPC); reading and deleting go on.
    NoSpace,
    /// Every call fails with EIO.
    Io,
    /// The target is gone; every call fails as unreachable.
    Vanished,
}

impl Fault {
    fn errno(self) -> Errno {
        match self {
            Self::NoSpace => Errno::ENOSPC,
            Self::Io => Errno::EIO,
            Self::Vanished => Errno::ENOTCONN,
        }
    }
}

/// On which side of the effect the machine stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crash {
    /// The effect does not happen.
    Before,
    /// It happens, and nobody hears of it. Steps of a directory know only `Before`: after one is before the next.
    After,
}

#[derive(Debug, Default)]
struct State {
    effects: u64,
    crash: Option<(u64, Crash)>,
    crashed: bool,
    once: Option<(u64, Fault)>,
    switched: Option<Fault>,
}

/// The switches of a [`FaultTarget`]. An effect is a `put`, `put_new` or `delete`, or, with [`FaultTarget::over_steps`], each
/// [`Step`] of one.
#[derive(Debug, Default)]
pub struct Faults(Mutex<State>);

impl Faults {
    /// Effects begun so far; the next one has this number.
    pub fn effects(&self) -> u64 {
        self.0.lock().effects
    }

    /// At effect number `effect` everything stops: from then on each call fails, reads too, as after a crash.
    pub fn crash_at(&self, effect: u64, crash: Crash) {
        self.0.lock().crash = Some((effect, crash));
    }

    /// Whether that moment has come.
    pub fn crashed(&self) -> bool {
        self.0.lock().crashed
    }

    /// Effect number `effect` fails, those after it do not.
    pub fn fail_once(&self, effect: u64, fault: Fault) {
        self.0.lock().once = Some((effect, fault));
    }

    /// Everything that begins from now on fails so, until this is called with `None`.
    pub fn switch(&self, fault: Option<Fault>) {
        self.0.lock().switched = fault;
    }

    /// Counts an effect and says what becomes of it.
    fn begin(&self, adds: bool) -> Result<Ends, Errno> {
        let mut state = self.0.lock();
        state.check(adds)?;
        let number = state.effects;
        state.effects += 1;
        match (state.once, state.crash) {
            (Some((at, fault)), _) if at == number => Err(fault.errno()),
            (_, Some((at, crash))) if at <= number => {
                state.crashed = true;
                if crash == Crash::Before { Err(Fault::Vanished.errno()) } else { Ok(Ends::Unheard) }
            }
            _ => Ok(Ends::Well),
        }
    }

    fn look(&self) -> Result<(), Errno> {
        self.0.lock().check(false)
    }
}

impl State {
    fn check(&self, adds: bool) -> Result<(), Errno> {
        match self.switched {
            _ if self.crashed => Err(Fault::Vanished.errno()),
            Some(Fault::NoSpace) if !adds => Ok(()),
            Some(fault) => Err(fault.errno()),
            None => Ok(()),
        }
    }
}

enum Ends {
    Well,
    Unheard,
}

impl Gate for Faults {
    fn pass(&self, step: Step) -> Result<(), Errno> {
        let adds = matches!(step, Step::MakeDirectory | Step::Create | Step::Write);
        self.begin(adds).and_then(|ends| match ends {
            Ends::Well => Ok(()),
            Ends::Unheard => Err(Fault::Vanished.errno()),
        })
    }
}

/// Where effects are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Counted {
    /// Here, one for each call.
    Calls,
    /// By the gate of the directory inside.
    Steps,
}

/// Passes everything on until told to fail.
pub struct FaultTarget<T> {
    inner: T,
    faults: Arc<Faults>,
    counted: Counted,
}

impl<T: Target> FaultTarget<T> {
    /// Wraps a target; every call that changes it is one effect.
    pub fn new(inner: T) -> Self {
        Self { inner, faults: Arc::default(), counted: Counted::Calls }
    }

    /// The switches.
    pub fn faults(&self) -> &Arc<Faults> {
        &self.faults
    }

    /// The wrapped target.
    pub fn inner(&self) -> &T {
        &self.inner
    }

    fn error(&self, action: &'static str, key: &str, errno: Errno) -> TargetError {
        TargetError::from_errno(self.inner.describe(), action, key, errno)
    }

    fn effect<R>(
        &self,
        (action, key, adds): (&'static str, &ObjectKey, bool),
        call: impl FnOnce() -> Result<R, TargetError>,
    ) -> Result<R, TargetError> {
        let begun = match self.counted {
            Counted::Calls => self.faults.begin(adds),
            Counted::Steps => self.faults.look().map(|()| Ends::Well),
        };
        match begun.map_err(|errno| self.error(action, key.as_str(), errno))? {
            Ends::Well => call(),
            Ends::Unheard => {
                // Whatever came of it, the caller's machine is down by now.
                let _ = call();
                Err(self.error(action, key.as_str(), Fault::Vanished.errno()))
            }
        }
    }

    fn look<R>(
        &self,
        action: &'static str,
        key: &str,
        call: impl FnOnce() -> Result<R, TargetError>,
    ) -> Result<R, TargetError> {
        self.faults.look().map_err(|errno| self.error(action, key, errno))?;
        call()
    }
}

impl FaultTarget<DirTarget> {
    /// A directory whose every step (temporary file, write, sync, rename, sync of the directory) is one effect.
    pub fn over_steps(root: impl Into<PathBuf>) -> Self {
        let faults = Arc::<Faults>::default();
        Self { inner: DirTarget::open_gated(root, faults.clone()), faults, counted: Counted::Steps }
    }
}

impl<T: Target> Target for FaultTarget<T> {
    fn describe(&self) -> String {
        self.inner.describe()
    }
    fn coherence(&self) -> Coherence {
        self.inner.coherence()
    }
    fn prepare(&self) -> Result<(), TargetError> {
        self.look("preparing", "it", || self.inner.prepare())
    }
    fn put(&self, key: &ObjectKey, parts: &[&[u8]]) -> Result<(), TargetError> {
        self.effect(("writing", key, true), || self.inner.put(key, parts))
    }
    fn put_new(&self, key: &ObjectKey, parts: &[&[u8]]) -> Result<Put, TargetError> {
        self.effect(("writing", key, true), || self.inner.put_new(key, parts))
    }
    fn get(&self, key: &ObjectKey) -> Result<Vec<u8>, TargetError> {
        self.look("reading", key.as_str(), || self.inner.get(key))
    }
    fn read_at(&self, key: &ObjectKey, offset: u64, buf: &mut [u8]) -> Result<(), TargetError> {
        self.look("reading", key.as_str(), || self.inner.read_at(key, offset, buf))
    }
    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, TargetError> {
        self.look("listing", prefix, || self.inner.list(prefix))
    }
    fn is_paged(&self) -> bool {
        self.inner.is_paged()
    }
    fn list_after(&self, prefix: &str, after: &str) -> Result<Vec<ObjectInfo>, TargetError> {
        self.look("listing", prefix, || self.inner.list_after(prefix, after))
    }
    fn list_page(&self, after: &str, wanted: usize) -> Result<Page, TargetError> {
        self.look("listing", after, || self.inner.list_page(after, wanted))
    }
    fn delete(&self, key: &ObjectKey) -> Result<(), TargetError> {
        self.effect(("deleting", key, false), || self.inner.delete(key))
    }
    fn space(&self) -> Result<Space, TargetError> {
        self.look("asking the size of", "it", || self.inner.space())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::conformance;

    fn key(text: &str) -> ObjectKey {
        ObjectKey::new(text).unwrap()
    }

    #[test]
    fn without_faults_it_is_a_target() {
        let dir = tempfile::tempdir().unwrap();
        conformance::check(&FaultTarget::new(DirTarget::open(dir.path().join("calls"))));
        conformance::check(&FaultTarget::over_steps(dir.path().join("steps")));
    }

    #[test]
    fn a_crash_stops_everything_before_or_after_its_effect() {
        for (crash, there) in [(Crash::Before, false), (Crash::After, true)] {
            let dir = tempfile::tempdir().unwrap();
            let target = FaultTarget::new(DirTarget::open(dir.path()));
            target.prepare().unwrap();
            target.faults().crash_at(1, crash);
            target.put(&key("ok/a"), &[b"a"]).unwrap();
            assert!(matches!(target.put(&key("ok/b"), &[b"b"]), Err(TargetError::Unreachable { .. })));
            assert!(target.faults().crashed());
            assert!(target.delete(&key("ok/a")).is_err() && target.get(&key("ok/a")).is_err());
            assert!(target.list("ok/").is_err() && target.space().is_err());
            assert_eq!(target.inner().get(&key("ok/b")).is_ok(), there);
            assert!(target.inner().get(&key("ok/a")).is_ok());
        }
    }

    #[test]
    fn switches_go_on_and_off() {
        let dir = tempfile::tempdir().unwrap();
        let target = FaultTarget::new(DirTarget::open(dir.path()));
        target.prepare().unwrap();
        target.put(&key("ok/a"), &[b"a"]).unwrap();
        target.faults().switch(Some(Fault::NoSpace));
        assert!(matches!(target.put(&key("ok/b"), &[]), Err(TargetError::NoSpace { .. })));
        assert!(target.get(&key("ok/a")).is_ok() && target.delete(&key("ok/a")).is_ok());
        target.faults().switch(Some(Fault::Io));
        assert!(matches!(target.list("ok/"), Err(TargetError::Io { .. })));
        target.faults().switch(Some(Fault::Vanished));
        assert!(matches!(target.get(&key("ok/a")), Err(TargetError::Unreachable { .. })));
        target.faults().switch(None);
        target.put(&key("ok/b"), &[]).unwrap();
        target.faults().fail_once(target.faults().effects() + 1, Fault::Io);
        target.put(&key("ok/c"), &[]).unwrap();
        assert!(target.put(&key("ok/d"), &[]).is_err());
        target.put(&key("ok/d"), &[]).unwrap();
    }

    #[test]
    fn a_crash_at_any_step_of_an_upload_leaves_all_or_nothing() {
        let object = vec![7u8; 9 << 20];
        let mut outcomes = Vec::new();
        for step in 0.. {
            let dir = tempfile::tempdir().unwrap();
            DirTarget::open(dir.path()).prepare().unwrap();
            let target = FaultTarget::over_steps(dir.path());
            target.faults().crash_at(step, Crash::Before);
            let acknowledged = target.put(&key("index/a"), &[&object]).is_ok();
            drop(target);
            let after = DirTarget::open(dir.path());
            let there = match after.get(&key("index/a")) {
                Ok(bytes) => {
                    assert_eq!(bytes, object);
                    true
                }
                Err(TargetError::NotFound { .. }) => false,
                Err(other) => panic!("{other}"),
            };
            assert!(there || !acknowledged, "lost at step {step}");
            // A process that another test just forked may have the lock for a moment longer.
            let swept = (0..500).any(|_| {
                std::thread::sleep(std::time::Duration::from_millis(5));
                drop(DirTarget::open(dir.path()));
                std::fs::read_dir(dir.path().join("tmp")).unwrap().count() == 0
            });
            assert!(swept, "step {step}");
            outcomes.push((there, acknowledged));
            if acknowledged {
                break;
            }
        }
        // Create, three writes, sync, rename: nothing there. The sync of the directory: there, unacknowledged. Then all is well.
        assert_eq!(outcomes, [vec![(false, false); 6], vec![(true, false), (true, true)]].concat());
    }
}
