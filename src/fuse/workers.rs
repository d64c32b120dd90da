//! Threads for requests that may take long, so that those waiting for the target never keep others from being served.
//!
//! The queue needs no bound of its own: a process has one request outstanding, so it is never longer than there are
//! processes waiting, and a job holds no data beyond a small write.

use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// A worker without work ends after this.
const IDLE: Duration = Duration::from_secs(30);

type Job = Box<dyn FnOnce() + Send>;

/// A pool that grows with its load, up to a limit.
#[derive(Clone)]
pub struct Workers {
    shared: Arc<Shared>,
}

struct Shared {
    limit: usize,
    state: Mutex<State>,
    /// A job was queued.
    work: Condvar,
    /// A job or a thread ended.
    rest: Condvar,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Job>,
    threads: usize,
    idle: usize,
    running: usize,
}

impl Workers {
    /// At most `limit` threads, at least one.
    pub fn new(limit: usize) -> Self {
        let shared =
            Shared { limit: limit.max(1), state: Mutex::default(), work: Condvar::new(), rest: Condvar::new() };
        Self { shared: Arc::new(shared) }
    }

    /// Runs a job soon. When the system gives no thread at all, it runs here.
    pub fn run(&self, job: impl FnOnce() + Send + 'static) {
        let mut state = self.shared.state.lock();
        state.queue.push_back(Box::new(job));
        if state.idle >= state.queue.len() {
            self.shared.work.notify_one();
            return;
        }
        if state.threads < self.shared.limit {
            state.threads += 1;
            drop(state);
            let shared = Arc::clone(&self.shared);
            let started = thread::Builder::new().name("worker".to_owned()).spawn(move || shared.serve());
            let Err(error) = started else { return };
            tracing::warn!("no thread for a request: {error}");
            state = self.shared.state.lock();
            state.threads -= 1;
            if state.threads > 0 {
                return;
            }
            let Some(job) = state.queue.pop_front() else { return };
            state.running += 1;
            drop(state);
            self.shared.execute(job);
        }
    }

    /// Waits until every job given so far has ended.
    pub fn finish(&self) {
        let mut state = self.shared.state.lock();
        while !state.queue.is_empty() || state.running > 0 {
            self.shared.rest.wait(&mut state);
        }
    }
}

impl fmt::Debug for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.shared.state.lock();
        f.debug_struct("Workers").field("threads", &state.threads).field("queued", &state.queue.len()).finish()
    }
}

impl Shared {
    fn serve(&self) {
        let mut state = self.state.lock();
        loop {
            if let Some(job) = state.queue.pop_front() {
                state.running += 1;
                drop(state);
                self.execute(job);
                state = self.state.lock();
                continue;
            }
            state.idle += 1;
            let timed_out = self.work.wait_for(&mut state, IDLE).timed_out();
            state.idle -= 1;
            if timed_out && state.queue.is_empty() {
                state.threads -= 1;
                return;
            }
        }
    }

    fn execute(&self, job: Job) {
        // Jobs answer for their own panics; this keeps the count right whatever happens.
        if catch_unwind(AssertUnwindSafe(job)).is_err() {
            tracing::error!("a request failed on a programming error");
        }
        self.state.lock().running -= 1;
        self.rest.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn jobs_run_side_by_side_up_to_the_limit_and_survive_panics() {
        let workers = Workers::new(4);
        let together = Arc::new(Barrier::new(4));
        let done = Arc::new(AtomicUsize::new(0));
        for _ in 0..4 {
            let (together, done) = (Arc::clone(&together), Arc::clone(&done));
            workers.run(move || {
                together.wait();
                done.fetch_add(1, Ordering::SeqCst);
            });
        }
        workers.finish();
        assert_eq!(done.load(Ordering::SeqCst), 4);
        workers.run(|| panic!("on purpose"));
        for _ in 0..100 {
            let done = Arc::clone(&done);
            workers.run(move || {
                done.fetch_add(1, Ordering::SeqCst);
            });
        }
        workers.finish();
        assert_eq!(done.load(Ordering::SeqCst), 104);
        assert!(workers.shared.state.lock().threads <= 4);
    }
}
