//! How fast a scrub reads, and when it stops.

use crate::ops::Interrupt;
use parking_lot::Mutex;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

/// How long a wait lasts before it is asked again whether to stop.
const SLICE: Duration = Duration::from_millis(100);

/// A limit that all threads of a scrub share.
pub struct Pacer {
    bytes_per_second: Option<u64>,
    interrupt: Interrupt,
    /// When the next read may begin.
    next: Mutex<Instant>,
}

impl Pacer {
    /// As fast as it goes, or at most so many bytes a second.
    pub fn new(bytes_per_second: Option<u64>, interrupt: Interrupt) -> Self {
        Self { bytes_per_second, interrupt, next: Mutex::new(Instant::now()) }
    }

    /// Waits until so many bytes may be read.
    pub fn pass(&self, bytes: u64) -> ControlFlow<()> {
        let begin = self.bytes_per_second.map(|rate| {
            let took = Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64);
            let mut next = self.next.lock();
            let begin = (*next).max(Instant::now());
            *next = begin + took;
            begin
        });
        loop {
            if self.interrupt.check().is_err() {
                return ControlFlow::Break(());
            }
            match begin.and_then(|begin| begin.checked_duration_since(Instant::now())) {
                Some(left) if !left.is_zero() => std::thread::sleep(left.min(SLICE)),
                _ => return ControlFlow::Continue(()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[test]
    fn threads_share_the_limit_and_stop_at_once() {
        static STOP: AtomicBool = AtomicBool::new(false);
        let pacer = Pacer::new(Some(10_000), Interrupt::new(&STOP));
        let begun = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| assert!(pacer.pass(1000).is_continue()));
            }
        });
        assert!(begun.elapsed() >= Duration::from_millis(200), "the third begins after the first two");
        assert!(pacer.pass(100_000_000).is_continue());
        STOP.store(true, Ordering::Relaxed);
        assert!(pacer.pass(1).is_break());
    }
}
