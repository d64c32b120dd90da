//! Writing to a destination by several threads for somebody who writes by one, as `cp` does: each write is taken over and answered at
//! once, and done meanwhile.
//!
//! What was taken over and fails is the error of a later write, or of [`Destination::finish`], which waits for all. A write that meets one
//! that is under way waits for that, so the last of several to one place stands, as without this.

use crate::source::{Destination, SourceError};
use crate::words::attribute::FileAttributes;
use crossbeam_channel::{Sender, bounded};
use parking_lot::{Condvar, Mutex};
use std::io;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;

/// Writes under way, and as many that wait. The kernel hands over a mebibyte at most, so this is memory, too.
const THREADS: usize = 4;

type Taken = (u64, Vec<u8>);

/// See the module.
pub struct WriteBehind {
    inner: Arc<dyn Destination>,
    state: Arc<State>,
    /// Nothing after the drop has begun.
    queue: Option<Sender<Taken>>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    flying: Mutex<Flying>,
    landed: Condvar,
}

#[derive(Default)]
struct Flying {
    ranges: Vec<Range<u64>>,
    size_bytes: u64,
    /// The first one that nobody was told yet.
    error: Option<SourceError>,
}

impl State {
    fn land(&self, range: &Range<u64>, done: Result<(), SourceError>) {
        let mut flying = self.flying.lock();
        if let Some(at) = flying.ranges.iter().position(|other| other == range) {
            flying.ranges.swap_remove(at);
        }
        if let Err(error) = done {
            flying.error.get_or_insert(error);
        }
        self.landed.notify_all();
    }

    /// Waits until nothing is under way that meets a range, and tells what went wrong meanwhile.
    fn clear(&self, range: &Range<u64>, then: impl FnOnce(&mut Flying)) -> Result<(), SourceError> {
        let mut flying = self.flying.lock();
        while flying.ranges.iter().any(|other| other.start < range.end && range.start < other.end) {
            self.landed.wait(&mut flying);
        }
        match flying.error.take() {
            Some(error) => Err(error),
            None => {
                then(&mut flying);
                Ok(())
            }
        }
    }
}

impl WriteBehind {
    /// Writes to `inner`.
    ///
    /// # Errors
    /// When threads cannot be started.
    pub fn new(inner: Box<dyn Destination>) -> io::Result<Self> {
        let (inner, state): (Arc<dyn Destination>, Arc<State>) = (Arc::from(inner), Arc::default());
        let (queue, taken) = bounded::<Taken>(THREADS);
        let threads = (0..THREADS).map(|_| {
            let (inner, state, taken) = (Arc::clone(&inner), Arc::clone(&state), taken.clone());
            std::thread::Builder::new().name("write behind".into()).spawn(move || {
                for (offset, data) in taken {
                    // What is not landed would be waited for for ever.
                    let done = catch_unwind(AssertUnwindSafe(|| inner.write(offset, &data)));
                    let done =
                        done.unwrap_or_else(|_| Err(SourceError::Refused(format!("writing at {offset} panicked"))));
                    state.land(&(offset..offset + data.len() as u64), done);
                }
            })
        });
        Ok(Self { threads: threads.collect::<Result<_, _>>()?, inner, state, queue: Some(queue) })
    }

    /// What is written to, when nothing is under way any more: for who has threads of his own.
    ///
    /// # Errors
    /// What went wrong with something that was under way.
    pub fn directly(&self) -> Result<&dyn Destination, SourceError> {
        self.state.clear(&(0..u64::MAX), |_| ())?;
        Ok(&*self.inner)
    }
}

impl Destination for WriteBehind {
    fn is_fresh(&self) -> bool {
        self.inner.is_fresh()
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<(), SourceError> {
        self.state.clear(&(offset..offset + buffer.len() as u64), |_| ())?;
        self.inner.read(offset, buffer)
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), SourceError> {
        let range = offset..offset + data.len() as u64;
        self.state.clear(&range, |flying| flying.ranges.push(range.clone()))?;
        let is_taken = self.queue.as_ref().is_some_and(|queue| queue.send((offset, data.to_vec())).is_ok());
        if !is_taken {
            self.state.land(&range, self.inner.write(offset, data));
        }
        Ok(())
    }

    fn zero(&self, range: &Range<u64>) -> Result<(), SourceError> {
        self.state.clear(range, |_| ())?;
        self.inner.zero(range)
    }

    fn resize(&self, size_bytes: u64) -> Result<(), SourceError> {
        let grows = {
            let mut flying = self.state.flying.lock();
            let before = std::mem::replace(&mut flying.size_bytes, size_bytes);
            before <= size_bytes
        };
        // What grows is in nobody's way: a copy makes its destination grow with each write.
        if grows { self.inner.resize(size_bytes) } else { self.directly()?.resize(size_bytes) }
    }

    fn start_writeback(&self) {
        self.inner.start_writeback();
    }

    fn finish(&self, attributes: &FileAttributes) -> Result<String, SourceError> {
        self.directly()?.finish(attributes)
    }
}

impl Drop for WriteBehind {
    fn drop(&mut self) {
        self.queue = None;
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::attribute::Mtime;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    const PIECE: usize = 1000;

    /// Takes a while for each write.
    #[derive(Default)]
    struct Slow {
        bytes: Mutex<Vec<u8>>,
        now: AtomicUsize,
        most: AtomicUsize,
        /// Writes from here on fail.
        end: Option<u64>,
    }

    impl Destination for Arc<Slow> {
        fn is_fresh(&self) -> bool {
            true
        }
        fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<(), SourceError> {
            let start = usize::try_from(offset).unwrap();
            buffer.copy_from_slice(&self.bytes.lock()[start..start + buffer.len()]);
            Ok(())
        }
        fn write(&self, offset: u64, data: &[u8]) -> Result<(), SourceError> {
            self.most.fetch_max(self.now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(3));
            self.now.fetch_sub(1, Ordering::SeqCst);
            if self.end.is_some_and(|end| offset >= end) {
                return Err(SourceError::Refused(format!("no room at {offset}")));
            }
            let start = usize::try_from(offset).unwrap();
            self.bytes.lock()[start..start + data.len()].copy_from_slice(data);
            Ok(())
        }
        fn zero(&self, range: &Range<u64>) -> Result<(), SourceError> {
            let (start, end) = (usize::try_from(range.start).unwrap(), usize::try_from(range.end).unwrap());
            self.bytes.lock()[start..end].fill(0);
            Ok(())
        }
        fn resize(&self, size_bytes: u64) -> Result<(), SourceError> {
            self.bytes.lock().resize(usize::try_from(size_bytes).unwrap(), 0);
            Ok(())
        }
        fn finish(&self, _: &FileAttributes) -> Result<String, SourceError> {
            assert_eq!(self.now.load(Ordering::SeqCst), 0, "all is written before");
            Ok("done".into())
        }
    }

    fn attributes() -> FileAttributes {
        FileAttributes { mode: 0o600, uid: 0, gid: 0, mtime: Mtime { seconds: 0, nanos: 0 } }
    }

    fn piece(number: usize) -> Vec<u8> {
        vec![u8::try_from(number % 251).unwrap() + 1; PIECE]
    }

    #[test]
    fn several_are_under_way_and_the_last_to_one_place_stands() {
        let slow = Arc::new(Slow::default());
        let behind = WriteBehind::new(Box::new(Arc::clone(&slow))).unwrap();
        for number in 0..60 {
            let offset = (number * PIECE) as u64;
            behind.resize(offset + PIECE as u64).unwrap();
            behind.write(offset, &piece(number)).unwrap();
        }
        assert!(slow.most.load(Ordering::SeqCst) >= 2);
        // Over each other, half by half.
        for number in 60..90 {
            behind.write((number % 3 * PIECE / 2) as u64, &piece(number)).unwrap();
        }
        let mut expected: Vec<u8> = (0..60).flat_map(piece).collect();
        for number in 60..90 {
            let start = number % 3 * PIECE / 2;
            expected[start..start + PIECE].copy_from_slice(&piece(number));
        }
        behind.zero(&(40 * PIECE as u64..41 * PIECE as u64)).unwrap();
        expected[40 * PIECE..41 * PIECE].fill(0);
        let mut read = vec![0; 60 * PIECE];
        behind.read(0, &mut read).unwrap();
        assert!(read == expected);
        behind.write(0, &piece(7)).unwrap();
        behind.resize(500).unwrap();
        assert_eq!(behind.finish(&attributes()).unwrap(), "done");
        assert!(*slow.bytes.lock() == piece(7)[..500]);
    }

    #[test]
    fn what_fails_is_told_before_the_end() {
        let slow = Arc::new(Slow { end: Some(5 * PIECE as u64), ..Slow::default() });
        let behind = WriteBehind::new(Box::new(Arc::clone(&slow))).unwrap();
        behind.resize(100 * PIECE as u64).unwrap();
        let mut told = 0;
        for number in 0..6 {
            told += usize::from(behind.write((number * PIECE) as u64, &piece(number)).is_err());
        }
        let told = told + usize::from(behind.finish(&attributes()).is_err());
        assert_eq!(told, 1);
        assert!((6..100).any(|number| behind.write((number * PIECE) as u64, &piece(number)).is_err()), "soon");
    }
}
