//! Which threads are worth telling of.

use std::collections::{BTreeMap, BTreeSet};

use super::Waiting;
use super::depends::Depends;
use super::holders::Candidate;
use super::lock::{Lock, Named};
use super::thread::{ThreadIx, Threads};
use super::work::Flush;
use crate::event::TaskState;

/// Everybody who waits or holds somebody up, and all uninterruptible sleepers, explained or not.
pub fn involved(
    waits: &BTreeMap<ThreadIx, Waiting>,
    depends: &[Depends],
    locks: &BTreeMap<u64, Lock>,
    candidates: &[Candidate],
    threads: &Threads,
    own: u32,
) -> BTreeSet<ThreadIx> {
    let sleepers = threads.iter().filter(|(_, thread)| {
        let uninterruptible = matches!(thread.state(), TaskState::Uninterruptible | TaskState::InIo);
        uninterruptible && thread.record.task.tgid != own
    });
    let owners = locks.values().filter_map(|lock| match lock.owner {
        Named::Thread(owner) => Some(owner),
        _ => None,
    });
    let mut involved: BTreeSet<ThreadIx> = sleepers.map(|(ix, _)| ix).collect();
    involved.extend(waits.keys());
    involved.extend(
        depends
            .iter()
            .flat_map(|depends| [Some(depends.thread), depends.on])
            .flatten(),
    );
    involved.extend(owners);
    involved.extend(candidates.iter().map(|candidate| candidate.thread));
    involved
}

/// Drops the waits of interruptible sleepers, unless they stand in a queue with others or hold somebody up: such sleeps may last
/// for ever by design. Returns everybody who holds somebody up.
pub fn relevant(
    waits: &mut BTreeMap<ThreadIx, Waiting>,
    locks: &BTreeMap<u64, Lock>,
    candidates: &[Candidate],
    flushes: &[Flush],
    threads: &Threads,
    all: bool,
) -> BTreeSet<ThreadIx> {
    let interruptible = |ix| threads.get(ix).is_some_and(|t| t.state() == TaskState::Interruptible);
    let mut blocking: BTreeSet<ThreadIx> = flushes.iter().filter_map(|flush| flush.on).collect();
    let mut kept: BTreeSet<ThreadIx> = waits.keys().copied().filter(|&ix| all || !interruptible(ix)).collect();
    loop {
        let contended: BTreeSet<u64> = waits
            .values()
            .filter(|w| kept.contains(&w.thread))
            .map(|w| w.lock)
            .collect();
        for (_, lock) in locks.iter().filter(|(lock, _)| contended.contains(lock)) {
            if let Named::Thread(owner) = lock.owner {
                blocking.insert(owner);
            }
        }
        blocking.extend(
            candidates
                .iter()
                .filter(|c| contended.contains(&c.lock))
                .map(|c| c.thread),
        );
        let before = kept.len();
        kept.extend(
            waits
                .values()
                .filter(|w| contended.contains(&w.lock) || blocking.contains(&w.thread))
                .map(|w| w.thread),
        );
        if kept.len() == before {
            break;
        }
    }
    waits.retain(|ix, _| kept.contains(ix));
    blocking
}
