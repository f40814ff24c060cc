//! What the owner word of a lock means. One decoder for every source: events of probes, re-reads, and the walk over all threads.

use crate::event::{LockKind, Owner};

/// Flag bits below the task pointer in a mutex's owner word (kernel/locking/mutex.h: WAITERS, HANDOFF, PICKUP) and in a rwsem's
/// (kernel/locking/rwsem.c: READER_OWNED, NONSPINNABLE); 5.10 to 6.18.
const MUTEX_OR_RWSEM_FLAGS: u64 = 7;
/// `RWSEM_READER_OWNED`.
const RWSEM_READER_OWNED: u64 = 1;
/// `RT_MUTEX_HAS_WAITERS` (kernel/locking/rtmutex_common.h).
const RT_HAS_WAITERS: u64 = 1;
/// `RWSEM_WRITER_LOCKED` in the count word.
const RWSEM_WRITER_LOCKED: u64 = 1;
/// `RWSEM_READER_SHIFT` of the count word.
const RWSEM_READER_SHIFT: u32 = 8;

/// Address of the `task_struct` in an owner word, 0 when there is none; for a reader-owned rwsem the last reader.
#[must_use]
pub fn task(kind: LockKind, word: u64) -> u64 {
    match kind {
        LockKind::Mutex | LockKind::WwMutex | LockKind::Rwsem => word & !MUTEX_OR_RWSEM_FLAGS,
        LockKind::RtMutex | LockKind::RtSpinlock => word & !RT_HAS_WAITERS,
        LockKind::PercpuRwsem => word,
        LockKind::Semaphore | LockKind::Spinlock | LockKind::Rwlock | LockKind::Unknown => 0,
    }
}

/// The meaning of an owner word. `named` gives the task it points to, as [`Owner::Task`] or [`Owner::Unreadable`]; it is asked
/// only when the word points to one. `is_waiter`: that task is the waiter through whose eyes the lock is read.
#[must_use]
pub fn meaning(kind: LockKind, word: u64, count: u64, is_waiter: bool, named: impl Fn() -> Owner) -> Owner {
    let nobody = task(kind, word) == 0;
    match kind {
        LockKind::Mutex | LockKind::WwMutex | LockKind::RtMutex if nobody => Owner::Nobody,
        LockKind::Mutex | LockKind::WwMutex | LockKind::RtMutex => named(),
        LockKind::Rwsem => {
            let readers = rwsem_readers(count);
            if word & RWSEM_READER_OWNED != 0 || (nobody && readers.is_some_and(|n| n > 0)) {
                let hint = match named() {
                    Owner::Task(task) => Some(task),
                    _ => None,
                };
                Owner::Readers { hint, count: readers }
            } else if nobody {
                Owner::Nobody
            } else {
                named()
            }
        }
        // A rwlock_t of PREEMPT_RT has no such word.
        LockKind::RtSpinlock if !nobody => named(),
        // percpu_rw_semaphore.writer names a writer that drains readers; for that writer itself the readers are unknown.
        LockKind::PercpuRwsem if word != 0 && !is_waiter => named(),
        _ => Owner::NotRecorded,
    }
}

/// Readers in a rwsem count word: bits 8 to 62 (kernel/locking/rwsem.c); `None` when the word was not read, or a writer is in.
fn rwsem_readers(count: u64) -> Option<u32> {
    if count == 0 || count & RWSEM_WRITER_LOCKED != 0 {
        return None;
    }
    u32::try_from((count & (u64::MAX >> 1)) >> RWSEM_READER_SHIFT).ok()
}

/// The words of a rwsem of PREEMPT_RT (the owner of its rt_mutex, and its readers), as the owner word and the count word of another
/// kernel that say the same.
///
/// KERNEL: `struct rwbase_rt` (include/linux/rwbase_rt.h), 5.15 to 6.18: the readers' bias is away while a writer is in or waits for
/// the readers, in both of which cases it owns the rt_mutex.
#[must_use]
pub fn of_rwbase(owner: u64, readers: u64) -> (u64, u64) {
    const READER_BIAS: u64 = 1 << 31;
    const WRITER_BIAS: u64 = 1 << 30;
    let readers = readers & 0xffff_ffff;
    match readers & !READER_BIAS {
        0 if readers == READER_BIAS => (0, 0),
        0 | WRITER_BIAS => (owner & !RT_HAS_WAITERS, RWSEM_WRITER_LOCKED),
        n => (RWSEM_READER_OWNED, n << RWSEM_READER_SHIFT),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::KernelAddr;

    #[test]
    fn a_rwsem_of_preempt_rt_names_its_writer_or_counts_its_readers() {
        const TASK: u64 = 0xffff_8880_0000_4000;
        let told = |owner, readers| {
            let (word, count) = of_rwbase(owner, readers);
            meaning(LockKind::Rwsem, word, count, false, || {
                Owner::Unreadable(KernelAddr(task(LockKind::Rwsem, word)))
            })
        };
        let readers = |n| Owner::Readers {
            hint: None,
            count: Some(n),
        };
        let writer = || Owner::Unreadable(KernelAddr(TASK));
        // What follows in memory is not part of the number.
        const JUNK: u64 = 0xdead_0000_0000;
        for (owner, word, expected) in [
            (0, 0x8000_0000, Owner::Nobody),
            (0, 0x8000_0003, readers(3)),
            (TASK, 2, readers(2)),
            (TASK | 1, 1, readers(1)),
            (TASK | 1, 0x4000_0000, writer()),
            (TASK, 0, writer()),
        ] {
            assert_eq!(told(owner, word | JUNK), expected, "{owner:#x} {word:#x}");
        }
    }
}
