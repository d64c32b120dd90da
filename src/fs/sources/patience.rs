//! Asking what may never answer: a cluster that is out of reach must not take the threads that serve everybody else with it.

use crate::fs::errno::Errno;
use crate::fs::seam::Answer;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::{Arc, mpsc};
use std::time::Duration;

/// How long a look at a source may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Questions to one source that wait at the same time. More are answered with an error at once.
const WAITING_MAX: usize = 8;

/// See the module.
#[derive(Default)]
pub(super) struct Patience {
    waiting: Arc<Mutex<HashMap<String, usize>>>,
}

impl Patience {
    /// Asks a source. A question to one that may hang is asked on a thread of its own, which is left behind when it does.
    ///
    /// # Errors
    /// What the question answers; ETIMEDOUT when it does not.
    pub(super) fn ask<T: Send + 'static>(
        &self,
        source: &str,
        may_hang: bool,
        question: impl FnOnce() -> Answer<T> + Send + 'static,
    ) -> Answer<T> {
        if !may_hang {
            return question();
        }
        {
            let mut waiting = self.waiting.lock();
            let count = waiting.entry(source.to_owned()).or_default();
            if *count >= WAITING_MAX {
                return Err(Errno::ETIMEDOUT);
            }
            *count += 1;
        }
        let (answer, answered) = mpsc::sync_channel(1);
        let (waiting, name) = (Arc::clone(&self.waiting), source.to_owned());
        let ask = move || {
            let said = question();
            if let Some(count) = waiting.lock().get_mut(&name) {
                *count -= 1;
            }
            // Nobody may be waiting any more.
            let _ = answer.send(said);
        };
        if std::thread::Builder::new().name("source".into()).spawn(ask).is_err() {
            if let Some(count) = self.waiting.lock().get_mut(source) {
                *count -= 1;
            }
            return Err(Errno::EAGAIN);
        }
        answered.recv_timeout(PATIENCE).unwrap_or_else(|_| {
            tracing::error!("source {source} did not answer within {PATIENCE:?}");
            Err(Errno::ETIMEDOUT)
        })
    }
}
