//! The words of a lock, and whom they name.

use std::collections::BTreeMap;

use anyhow::Result;
use tracer_common::kind::task_field;
use tracer_common::record::TaskRecord;

use super::memory::{Words, is_pointer};
use super::thread::{ThreadIx, Threads};
use crate::event::LockKind;
use crate::kernel::offsets::KernelOffsets;
use crate::owner_word;

/// What a lock says of itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Lock {
    /// Its kind.
    pub kind: LockKind,
    /// The owner word, 0 where its kind has none.
    pub owner_word: u64,
    /// The count word of rwsems and semaphores, 0 for others.
    pub count: u64,
    /// Whom the owner word names.
    pub owner: Named,
}

/// Whom an owner word names.
#[derive(Clone, Debug)]
pub enum Named {
    /// Nobody.
    Nobody,
    /// A thread of the walk.
    Thread(ThreadIx),
    /// A task that exited and is no longer among the threads; its memory is still there.
    Exited(Box<TaskRecord>),
    /// A pointer that leads to no task, or to one that cannot have taken the lock.
    Unreadable(u64),
}

impl PartialEq for Named {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Nobody, Self::Nobody) => true,
            (Self::Thread(a), Self::Thread(b)) => a == b,
            (Self::Exited(a), Self::Exited(b)) => (a.task, a.tid, a.start) == (b.task, b.tid, b.start),
            (Self::Unreadable(a), Self::Unreadable(b)) => a == b,
            _ => false,
        }
    }
}

/// Locks by address, with their kinds.
pub type Kinds = BTreeMap<u64, LockKind>;

fn owner_at(kind: LockKind, o: &KernelOffsets) -> Option<u32> {
    match kind {
        LockKind::Mutex | LockKind::WwMutex => o.mutex.owner,
        LockKind::Rwsem => o.rwsem.owner.or(o.rwsem.rt_owner),
        LockKind::RtMutex | LockKind::RtSpinlock => o.rt_mutex.owner,
        LockKind::PercpuRwsem => o.percpu_rwsem.writer_task,
        LockKind::Semaphore | LockKind::Spinlock | LockKind::Rwlock | LockKind::Unknown => None,
    }
}

fn count_at(kind: LockKind, o: &KernelOffsets) -> Option<u32> {
    match kind {
        LockKind::Rwsem => o.rwsem.count.or(o.rwsem.rt_readers),
        LockKind::Semaphore => o.semaphore.count,
        _ => None,
    }
}

/// Reads the words of locks and finds out whom they name.
///
/// # Errors
/// When kernel memory cannot be read at all.
pub fn read(kinds: &Kinds, threads: &Threads, o: &KernelOffsets, words: &mut Words<'_>) -> Result<BTreeMap<u64, Lock>> {
    let at = |lock: u64, offset: Option<u32>| offset.map(|offset| lock.wrapping_add(offset.into()));
    let wanted = kinds
        .iter()
        .flat_map(|(&lock, &kind)| [at(lock, owner_at(kind, o)), at(lock, count_at(kind, o))]);
    words.fetch(wanted.flatten())?;
    let mut locks = BTreeMap::new();
    let mut strangers = Vec::new();
    for (&lock, &kind) in kinds {
        let word = |offset| at(lock, offset).and_then(|at| words.get(at)).unwrap_or(0);
        let mut owner_word = word(owner_at(kind, o));
        let mut count = word(count_at(kind, o));
        if kind == LockKind::Semaphore {
            // `unsigned int count` (include/linux/semaphore.h).
            count &= 0xffff_ffff;
        }
        if kind == LockKind::Rwsem && o.rwsem.rt_readers.is_some() {
            (owner_word, count) = owner_word::of_rwbase(owner_word, count);
        }
        let task = owner_word::task(kind, owner_word);
        let owner = match (task, threads.by_task(task)) {
            (0, _) => Named::Nobody,
            (_, Some(thread)) => Named::Thread(thread),
            (task, None) => {
                strangers.push(task);
                Named::Unreadable(task)
            }
        };
        locks.insert(
            lock,
            Lock {
                kind,
                owner_word,
                count,
                owner,
            },
        );
    }
    let exited = exited(&strangers, o, words)?;
    for lock in locks.values_mut() {
        if let Named::Unreadable(task) = lock.owner
            && let Some(record) = exited.get(&task)
        {
            lock.owner = Named::Exited(Box::new(*record));
        }
    }
    Ok(locks)
}

/// What is left of tasks which an owner word names and which are not among the threads. They exited, and their memory may have
/// been given to anything since; only what still looks like a dead task is believed.
fn exited(tasks: &[u64], o: &KernelOffsets, words: &mut Words<'_>) -> Result<BTreeMap<u64, TaskRecord>> {
    let t = &o.task;
    let (Some(pid), Some(tgid), Some(comm), Some(start), Some(exit_state)) =
        (t.pid, t.tgid, t.comm, t.start_time, t.exit_state)
    else {
        return Ok(BTreeMap::new());
    };
    let offsets = [pid, tgid, comm, comm + 8, start, exit_state];
    let tasks = || tasks.iter().copied().filter(|&task| is_pointer(task));
    words.fetch(tasks().flat_map(|task| offsets.map(|offset| task + u64::from(offset))))?;
    let record = |task: u64| {
        let at = |offset: u32| task + u64::from(offset);
        let (tid, tgid) = (words.low(at(pid))?, words.low(at(tgid))?);
        let state = words.low(at(exit_state))?;
        let name = [words.get(at(comm))?, words.get(at(comm + 8))?]
            .map(u64::to_ne_bytes)
            .concat();
        let comm: [u8; 16] = name.try_into().ok()?;
        // EXIT_DEAD, EXIT_ZOMBIE (include/linux/sched.h, 5.10 to 6.18) and nothing else; a name that ends; a possible id.
        let plausible = state & 0x30 != 0
            && state & !0x30 == 0
            && (1..=MAX_PID).contains(&tid)
            && (1..=MAX_PID).contains(&tgid)
            && comm.last() == Some(&0)
            && comm.first() != Some(&0);
        plausible.then_some(())?;
        Some(TaskRecord {
            task,
            start: words.get(at(start))?,
            switches: 0,
            cgroup: 0,
            tid,
            tgid,
            comm,
            state,
            pf_flags: 0,
            cpu: 0,
            on_cpu: 0,
            in_iowait: 0,
            fields: task_field::IDENTITY | task_field::START | task_field::STATE,
        })
    };
    Ok(tasks().filter_map(|task| Some((task, record(task)?))).collect())
}

/// `PID_MAX_LIMIT` of 64-bit kernels (include/linux/threads.h).
const MAX_PID: u32 = 4 * 1024 * 1024;
