//! Writers which have got in and wait for the readers to leave.
//!
//! They stand on no list. The lock is one of the addresses on the writer's stack, and names the writer back.

use anyhow::Result;

use super::code::{Class, CodeMap};
use super::memory::{Words, is_pointer};
use super::thread::{ThreadIx, Threads};
use crate::event::LockKind;
use crate::kernel::offsets::KernelOffsets;

/// Words of a stack that may be the lock.
const MAX_CANDIDATES: usize = 256;
/// `RT_MUTEX_HAS_WAITERS` (kernel/locking/rtmutex_common.h).
const HAS_WAITERS: u64 = 1;
/// `WRITER_BIAS` (include/linux/rwbase_rt.h): the count of a rwsem of PREEMPT_RT that is held for writing.
const WRITER_BIAS: u32 = 1 << 30;

/// A writer and its lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Draining {
    /// Who waits.
    pub thread: ThreadIx,
    /// For the readers of this lock.
    pub lock: u64,
    /// Its kind.
    pub kind: LockKind,
}

/// Writers that drain readers, each with its lock.
///
/// KERNEL: `percpu_down_write` (kernel/locking/percpu-rwsem.c) waits through `sem->writer`, a `struct rcuwait` that names the
/// writer; 5.7 to 6.18. `rwbase_write_lock` of PREEMPT_RT (kernel/locking/rwbase_rt.c) owns the rt_mutex inside; 5.15 to 6.18.
///
/// # Errors
/// When kernel memory cannot be read at all.
pub fn draining(threads: &Threads, o: &KernelOffsets, code: &CodeMap, words: &mut Words<'_>) -> Result<Vec<Draining>> {
    let mut found = Vec::new();
    if let Some(owner) = o.percpu_rwsem.writer_task {
        found = writers(threads, code, words, (Class::PercpuWrite, LockKind::PercpuRwsem, owner))?;
    }
    if let (Some(owner), Some(readers)) = (o.rwsem.rt_owner, o.rwsem.rt_readers) {
        let mut all = writers(threads, code, words, (Class::RwsemWrite, LockKind::Rwsem, owner))?;
        let at = |writer: &Draining| writer.lock.wrapping_add(readers.into());
        words.fetch(all.iter().map(at))?;
        // Once they have left, the count is that of a lock held for writing.
        all.retain(|writer| words.low(at(writer)).is_some_and(|n| (1..WRITER_BIAS).contains(&n)));
        found.extend(all);
    }
    found.sort_unstable();
    found.dedup_by_key(|writer| writer.thread);
    Ok(found)
}

/// Those in a function of this class, with the locks on their stacks that name them at the offset of the writer.
fn writers(
    threads: &Threads,
    code: &CodeMap,
    words: &mut Words<'_>,
    (class, kind, owner): (Class, LockKind, u32),
) -> Result<Vec<Draining>> {
    let mut candidates = Vec::new();
    for (thread, it) in threads.iter().filter(|(_, thread)| thread.is_off_cpu()) {
        let (_, stack) = it.stack();
        if it.record.pi_blocked_on == 0 && stack.iter().any(|&word| code.class(word) == Some(class)) {
            let pointers = stack
                .iter()
                .copied()
                .filter(|&word| is_pointer(word) && code.class(word).is_none());
            candidates.extend(
                pointers
                    .take(MAX_CANDIDATES)
                    .map(|lock| Draining { thread, lock, kind }),
            );
        }
    }
    let at = |lock: u64| lock.wrapping_add(owner.into());
    words.fetch(candidates.iter().map(|candidate| at(candidate.lock)))?;
    candidates.retain(|&Draining { thread, lock, .. }| {
        let own = threads.get(thread).map(|thread| thread.record.task.task);
        words.get(at(lock)).map(|word| word & !HAS_WAITERS) == own
    });
    Ok(candidates)
}
