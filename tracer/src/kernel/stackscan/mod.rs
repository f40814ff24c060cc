//! Explains threads that were blocked before anybody watched: from their kernel stacks and the words of the locks.
//!
//! No event tells what a sleeping thread waits for, but its stack does. Whoever waits for a lock keeps a record on its stack that
//! is linked into the lock's wait list; the end of the list lies in the lock; the lock's owner word names the holder. Newer
//! kernels name the lock in the `task_struct`. Everything is copied by BPF programs and judged here: bytes in, observations out,
//! nothing that needs a kernel to be tested.
//!
//! Stacks and lists may change while they are read. So each list is walked round and every step checked ([`ring`]), and at the
//! end every waiter's switch count is read again: what was said of a thread that has run meanwhile is dropped. So are names, which a
//! thread may get while it sleeps.

pub mod code;
mod completer;
mod depends;
mod direct;
mod draining;
mod holders;
mod involved;
mod lock;
mod memory;
mod queue;
mod record;
pub mod ring;
mod settle;
mod stop;
#[cfg(test)]
pub mod tests;
mod thread;
mod work;

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;

pub use code::CodeMap;
pub use depends::Depends;
pub use holders::Candidate;
pub use lock::{Lock, Named};
pub use memory::{Memory, Words, is_pointer};
pub use thread::{Thread, ThreadError, ThreadIx, Threads};

use self::direct::Direct;
use self::draining::Draining;
use self::holders::Wanted;
use self::queue::Lists;
use self::record::Queue;
use super::offsets::KernelOffsets;
use crate::event::{Evidence, LockKind, Mode, Owner, Queued, TaskState};
use crate::ids::{Nanos, Timestamp};
use crate::owner_word;

/// An owner that started this long after the first waiter fell asleep cannot have taken the lock: an unlock wakes the waiter.
const IMPOSSIBLE_OWNER: Nanos = Nanos::from_secs(1);

/// What is known of the running kernel.
pub struct Kernel<'k> {
    /// Where its fields are.
    pub offsets: &'k KernelOffsets,
    /// `task_struct.blocked_on` points to a mutex.
    pub blocked_on_mutex: bool,
    /// What its functions wait for.
    pub code: &'k CodeMap,
    /// Whether an address is a static object.
    pub is_static: &'k dyn Fn(u64) -> bool,
    /// The process that looks, which is left out.
    pub own: u32,
    /// The clock of the events.
    pub clock: &'k dyn Fn() -> Timestamp,
    /// Also tell of interruptible sleepers that hold nobody up.
    pub all: bool,
}

/// A thread that waits for a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Who.
    pub thread: ThreadIx,
    /// Address of the lock.
    pub lock: u64,
    /// Its kind.
    pub kind: LockKind,
    /// Wanted how.
    pub mode: Mode,
    /// Place on its wait list.
    pub queued: Queued,
    /// Who says so.
    pub evidence: Evidence,
}

/// What was found in one walk over all threads.
#[derive(Debug, Default)]
pub struct Found {
    /// Waits for locks.
    pub waits: Vec<Waiting>,
    /// The locks waited for.
    pub locks: BTreeMap<u64, Lock>,
    /// Possible holders of locks that do not record theirs.
    pub candidates: Vec<Candidate>,
    /// Waits for something else.
    pub depends: Vec<Depends>,
    /// The functions that busy workers execute.
    pub work: BTreeMap<ThreadIx, u64>,
    /// Threads whose wait list was changing or corrupt.
    pub changing: usize,
    /// Threads to be told of: those who wait, who hold somebody up, and who sleep uninterruptibly.
    pub involved: BTreeSet<ThreadIx>,
    /// Those of them that slept or waited when they were written down, and have run since: nothing follows from their stacks.
    pub restless: BTreeSet<ThreadIx>,
    /// Names of those of them that were still there at `time`.
    pub comms: BTreeMap<ThreadIx, [u8; 16]>,
    /// When everything had been read and the last look began: up to then those who are not restless had not run.
    pub time: Timestamp,
}

/// Explains the threads of one walk.
///
/// # Errors
/// When kernel memory cannot be read at all.
pub fn scan(threads: &Threads, kernel: &Kernel<'_>, memory: &mut dyn Memory) -> Result<Found> {
    let (o, code) = (kernel.offsets, kernel.code);
    let mut words = Words::new(memory);
    let lists = queue::read(threads, o, code, &mut words)?;
    let direct = direct::read(threads, o, kernel.blocked_on_mutex, code, &mut words)?;
    let draining = draining::draining(threads, o, code, &mut words)?;
    let mut waits = waits(&lists, &direct, &draining);
    // A field says what a thread waited for until it runs again: of one that was woken, it may say what is over.
    waits.retain(|ix, wait| wait.queued != Queued::Unknown || threads.get(*ix).is_some_and(Thread::is_asleep));
    let mut kinds = lock::Kinds::new();
    for wait in waits.values() {
        let kind = kinds.entry(wait.lock).or_insert(wait.kind);
        // Some of its waiters tell more of its kind than others.
        *kind = wait.kind.max(*kind);
    }
    for wait in waits.values_mut() {
        wait.kind = kinds.get(&wait.lock).copied().unwrap_or(wait.kind);
    }
    let mut locks = lock::read(&kinds, threads, o, &mut words)?;
    refuse_impossible_owners(&mut locks, &waits, threads);
    let candidates = holders::search(&wanted(&locks, &waits, kernel), threads, o, code, kernel.own);
    let workers = work::workers(threads, o, &mut words)?;
    let on = |queue: Queue| -> Vec<(ThreadIx, u64)> {
        let queued = lists.queued.iter().filter(|q| q.queue == queue);
        queued.map(|q| (q.thread, q.object)).collect()
    };
    let (completions, wait_queues) = (on(Queue::Completion), on(Queue::Event));
    let mut flushes = work::flushes(threads, &workers, o, code, &mut words)?;
    flushes.extend(work::queue_flushes(
        &completions,
        threads,
        &workers,
        o,
        code,
        &mut words,
    )?);
    let mut found = Found {
        work: workers
            .values()
            .filter(|w| w.function != 0)
            .map(|w| (w.thread, w.function))
            .collect(),
        ..Found::default()
    };
    let completers = completer::completers(&completions, threads, o, code, &mut words)?;
    let mut blocking = involved::relevant(&mut waits, &locks, &candidates, &flushes, threads, kernel.all);
    blocking.extend(completions.iter().filter_map(|(_, at)| completers.get(at)));
    let sleepers = threads
        .iter()
        .filter(|(ix, thread)| {
            let sleeps = match thread.state() {
                TaskState::Uninterruptible | TaskState::InIo => true,
                TaskState::Interruptible | TaskState::Stopped => blocking.contains(ix),
                _ => false,
            };
            sleeps && !waits.contains_key(ix) && thread.record.task.tgid != kernel.own
        })
        .map(|(ix, _)| ix)
        .collect();
    found.depends = depends::depends(
        &sleepers,
        depends::Known {
            stops: &stop::stops(&sleepers, threads, o, &mut words)?,
            flushes: &flushes,
            completions: &completions,
            completers: &completers,
            wait_queues: &wait_queues,
        },
        threads,
        code,
    );
    found.changing = lists.open.iter().filter(|ix| !waits.contains_key(ix)).count();
    found.involved = involved::involved(&waits, &found.depends, &locks, &candidates, threads, kernel.own);
    let waiters = waits
        .keys()
        .copied()
        .chain(found.depends.iter().map(|d| d.thread))
        .collect();
    found.time = (kernel.clock)();
    let settled = settle::settle(&found.involved, &waiters, threads, o, &mut words)?;
    (found.restless, found.comms) = (settled.restless, settled.comms);
    found.waits = waits
        .into_values()
        .filter(|wait| !found.restless.contains(&wait.thread))
        .collect();
    found
        .depends
        .retain(|depends| !found.restless.contains(&depends.thread));
    let contended: BTreeSet<u64> = found.waits.iter().map(|wait| wait.lock).collect();
    found.candidates = candidates.into_iter().filter(|c| contended.contains(&c.lock)).collect();
    found.locks = locks;
    found.locks.retain(|lock, _| contended.contains(lock));
    Ok(found)
}

/// One wait for each thread, by the best evidence there is.
fn waits(lists: &Lists, direct: &[Direct], draining: &[Draining]) -> BTreeMap<ThreadIx, Waiting> {
    let mut waits = BTreeMap::new();
    for queued in &lists.queued {
        let Queue::Lock(kind) = queued.queue else { continue };
        waits.entry(queued.thread).or_insert(Waiting {
            thread: queued.thread,
            lock: queued.object,
            kind,
            mode: queued.mode,
            queued: Queued::At(queued.place),
            evidence: Evidence::WaiterRecord,
        });
    }
    for direct in direct {
        let queued = if direct.evidence == Evidence::PiBlockedOn {
            Queued::Somewhere
        } else {
            Queued::Unknown
        };
        let wait = waits.entry(direct.thread).or_insert(Waiting {
            thread: direct.thread,
            lock: direct.lock,
            kind: direct.kind,
            mode: direct.mode.unwrap_or(Mode::Exclusive),
            queued,
            evidence: direct.evidence,
        });
        if wait.lock == direct.lock {
            wait.evidence = direct.evidence;
            wait.kind = wait.kind.max(direct.kind);
        }
    }
    for &Draining { thread, lock, kind } in draining {
        waits.entry(thread).or_insert(Waiting {
            thread,
            lock,
            kind,
            mode: Mode::Exclusive,
            queued: Queued::Somewhere,
            evidence: Evidence::WaiterRecord,
        });
    }
    waits
}

/// An owner word may dangle, and its memory may have been given to a new task: one that came into being after the waiters fell
/// asleep is not accused.
fn refuse_impossible_owners(locks: &mut BTreeMap<u64, Lock>, waits: &BTreeMap<ThreadIx, Waiting>, threads: &Threads) {
    let mut first_asleep: BTreeMap<u64, Timestamp> = BTreeMap::new();
    for wait in waits
        .values()
        .filter(|wait| matches!(wait.queued, Queued::At(0) | Queued::Somewhere))
    {
        if let Some(asleep) = threads.get(wait.thread).and_then(|thread| threads.last_switch(thread)) {
            let known = first_asleep.entry(wait.lock).or_insert(asleep);
            *known = asleep.max(*known);
        }
    }
    for (address, lock) in locks {
        let started = match &lock.owner {
            Named::Thread(ix) => threads.get(*ix).map_or(0, |thread| thread.record.task.start),
            Named::Exited(record) => record.start,
            Named::Nobody | Named::Unreadable(_) => continue,
        };
        if first_asleep
            .get(address)
            .is_some_and(|&asleep| Timestamp(started) > asleep + IMPOSSIBLE_OWNER)
        {
            lock.owner = Named::Unreadable(owner_word::task(lock.kind, lock.owner_word));
        }
    }
}

/// The locks whose holder their own words do not tell.
fn wanted(
    locks: &BTreeMap<u64, Lock>,
    waits: &BTreeMap<ThreadIx, Waiting>,
    kernel: &Kernel<'_>,
) -> BTreeMap<u64, Wanted> {
    let sizes = &kernel.offsets.sizes;
    let mut wanted: BTreeMap<u64, Wanted> = locks
        .iter()
        .filter_map(|(&address, lock)| {
            let named = || Owner::NotRecorded;
            let by_readers = matches!(
                owner_word::meaning(lock.kind, lock.owner_word, lock.count, false, named),
                Owner::Readers { .. }
            );
            let (mode, size) = match lock.kind {
                LockKind::Rwsem if by_readers => (Mode::Shared, sizes.rwsem),
                LockKind::Semaphore => (Mode::Exclusive, sizes.semaphore),
                // A writer that drains readers is named by the lock, and waits for those who read.
                LockKind::PercpuRwsem if lock.owner_word != 0 => (Mode::Shared, None),
                LockKind::PercpuRwsem => (Mode::Exclusive, None),
                _ => return None,
            };
            let hint = match (&lock.owner, lock.kind) {
                (Named::Thread(ix), LockKind::Rwsem) => Some(*ix),
                _ => None,
            };
            let entry = Wanted {
                kind: lock.kind,
                mode,
                size: size.unwrap_or(8).into(),
                is_static: (kernel.is_static)(address),
                waiters: BTreeSet::new(),
                hint,
            };
            Some((address, entry))
        })
        .collect();
    for wait in waits.values() {
        if let Some(entry) = wanted.get_mut(&wait.lock) {
            entry.waiters.insert(wait.thread);
        }
    }
    wanted
}
