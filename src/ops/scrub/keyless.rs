//! Scrubbing without a key: a pack is named by the hash of its bytes, so whoever can read the target can tell whether each is what
//! was written, for example on the machine that the disks are in.

use crate::format::layout;
use crate::ops::scrub::pace::Pacer;
use crate::ops::scrub::report::BadPack;
use crate::ops::{Interrupt, OpsError};
use crate::repo::RepoError;
use crate::repo::examine::{PackState, hash_pack};
use crate::repo::header::without_header;
use crate::target::{Target, TargetError};
use crate::words::monitor::Monitor;
use crossbeam_channel::bounded;
use serde::Serialize;

/// What a scrub without a key found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct KeylessReport {
    pub packs: u64,
    pub packs_bytes: u64,
    pub packs_read: u64,
    pub bytes_read: u64,
    /// Packs whose bytes are not those that were written.
    pub damaged_packs: Vec<BadPack>,
    /// Packs that could not be read for another reason.
    pub unreadable_packs: Vec<BadPack>,
    /// The last pack in order of names before which all were read: `--after` goes on from there.
    pub reached: Option<String>,
}

/// Where and how fast.
#[derive(Debug, Clone, Default)]
pub struct KeylessOptions {
    /// Bytes a second at most.
    pub rate: Option<u64>,
    /// Threads that read.
    pub threads: usize,
    /// Only packs whose names come after this one.
    pub after: Option<String>,
}

/// Reads packs in order of their names and compares each with its own.
///
/// # Errors
/// When there is no repository, or the target cannot be reached. What was found until it was interrupted is in the answer.
pub fn scrub(
    target: &dyn Target,
    options: &KeylessOptions,
    monitor: &dyn Monitor,
    interrupt: &Interrupt,
) -> Result<(KeylessReport, bool), OpsError> {
    match target.get(&layout::header()) {
        Ok(_) => {}
        Err(TargetError::NotFound { .. }) => match without_header(target) {
            // Packs can be compared with their own names without it.
            RepoError::NoHeader { .. } => monitor.warn("the header of the repository is missing: see `backyfs repair`"),
            error => return Err(error.into()),
        },
        Err(error) => return Err(RepoError::from(error).into()),
    }
    let listed = target.list(layout::PACKS).map_err(RepoError::from)?;
    let mut packs: Vec<_> = listed
        .into_iter()
        .filter_map(|info| Some((layout::parse_pack(&info.key)?, info.key, info.size_bytes.unwrap_or(0))))
        .collect();
    let mut report = KeylessReport { packs: packs.len() as u64, ..KeylessReport::default() };
    report.packs_bytes = packs.iter().map(|(_, _, size_bytes)| size_bytes).sum();
    packs.retain(|(_, key, _)| options.after.as_deref().is_none_or(|after| key.as_str() > after));
    let total: u64 = packs.iter().map(|(_, _, size_bytes)| size_bytes).sum();
    let pacer = Pacer::new(options.rate, *interrupt);
    let (queue, jobs) = bounded(options.threads.max(1));
    let (tell, told) = bounded(64);
    let mut failure = None;
    let mut done = vec![false; packs.len()];
    std::thread::scope(|scope| {
        for _ in 0..options.threads.max(1) {
            let (jobs, tell, pacer) = (jobs.clone(), tell.clone(), &pacer);
            scope.spawn(move || {
                for (number, id, size_bytes) in jobs {
                    let state = hash_pack(target, id, size_bytes, &|bytes| pacer.pass(bytes));
                    let is_end = matches!(state, Ok(PackState::Stopped) | Err(_));
                    if tell.send((number, state)).is_err() || is_end {
                        return;
                    }
                }
            });
        }
        drop((jobs, tell));
        let packs = &packs;
        scope.spawn(move || {
            for (number, (id, _, size_bytes)) in packs.iter().enumerate() {
                // The readers are gone after a failure or an interruption.
                if queue.send((number, *id, *size_bytes)).is_err() {
                    return;
                }
            }
        });
        for (number, state) in told {
            let (pack, size_bytes) = (packs[number].1.to_string(), packs[number].2);
            match state {
                Ok(PackState::Stopped) => continue,
                Ok(PackState::Intact) => {}
                Ok(PackState::Damaged(problem)) => report.damaged_packs.push(BadPack { pack, problem }),
                // Deleted by a collector since the list was read.
                Ok(PackState::Missing) => {}
                Ok(PackState::Unreadable(problem)) => report.unreadable_packs.push(BadPack { pack, problem }),
                Err(error) => {
                    failure.get_or_insert(RepoError::from(error));
                    continue;
                }
            }
            done[number] = true;
            report.packs_read += 1;
            report.bytes_read += size_bytes;
            monitor.progress(report.bytes_read, total);
        }
    });
    if let Some(error) = failure {
        return Err(error.into());
    }
    let reached = done.iter().take_while(|done| **done).count();
    report.reached = reached.checked_sub(1).map(|last| packs[last].1.to_string()).or(options.after.clone());
    Ok((report, reached == packs.len()))
}
