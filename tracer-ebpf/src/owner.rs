//! Owner words: where they are, whom they name, and whether a waiter stands on the lock's wait list.

use tracer_common::{
    config::ABSENT,
    kind::{lock_kind, queue},
};

use crate::{
    layout::off,
    mem::{field, read},
};

/// The raw owner word of a lock, 0 where its kind records none.
///
/// KERNEL: `mutex.owner` (kernel/locking/mutex.c), `rw_semaphore.owner` (rwsem.c), `rt_mutex_base.owner` (rtmutex.c),
/// `percpu_rw_semaphore.writer.task` (percpu-rwsem.c: set only while a writer drains readers); 5.15 to 6.18.
#[inline(always)]
pub fn word(kind: u8, lock: u64) -> u64 {
    let offset = match kind {
        lock_kind::MUTEX | lock_kind::WW_MUTEX => off!(mutex_owner),
        lock_kind::RWSEM => off!(rwsem_owner),
        lock_kind::RT_MUTEX | lock_kind::RT_SPINLOCK => off!(rt_mutex_owner),
        lock_kind::PERCPU_RWSEM => off!(percpu_writer),
        _ => ABSENT,
    };
    field(lock, offset).unwrap_or(0)
}

/// Address of the `task_struct` in an owner word; for a reader-owned rwsem the last reader.
#[inline(always)]
pub fn task(kind: u8, word: u64) -> u64 {
    match kind {
        lock_kind::MUTEX | lock_kind::WW_MUTEX | lock_kind::RWSEM => word & !7,
        lock_kind::RT_MUTEX | lock_kind::RT_SPINLOCK => word & !1,
        lock_kind::PERCPU_RWSEM => word,
        _ => 0,
    }
}

/// The count word of rwsems and semaphores, 0 for others.
#[inline(always)]
pub fn count(kind: u8, lock: u64) -> u64 {
    match kind {
        lock_kind::RWSEM => field(lock, off!(rwsem_count)).unwrap_or(0),
        lock_kind::SEMAPHORE => field::<u32>(lock, off!(sem_count)).unwrap_or(0) as u64,
        _ => 0,
    }
}

/// Position of `waiter` (a `task_struct`) on the lock's wait list, or a code of [`queue`].
///
/// Looks at `limit` waiters at most; a list that changes under the walk ends in [`queue::UNKNOWN`] or in a position that was true at one moment.
#[inline(always)]
pub fn queue_position(kind: u8, lock: u64, waiter: u64, limit: u32) -> u32 {
    let (head, node, task) = match kind {
        lock_kind::MUTEX | lock_kind::WW_MUTEX => {
            (off!(mutex_wait_list), off!(mutex_waiter_list), off!(mutex_waiter_task))
        }
        lock_kind::RWSEM => (off!(rwsem_wait_list), off!(rwsem_waiter_list), off!(rwsem_waiter_task)),
        lock_kind::SEMAPHORE => (off!(sem_wait_list), off!(sem_waiter_list), off!(sem_waiter_task)),
        lock_kind::RT_MUTEX | lock_kind::RT_SPINLOCK => return rt_queued(lock, waiter),
        _ => return queue::UNKNOWN,
    };
    if head == ABSENT || node == ABSENT || task == ABSENT {
        return queue::UNKNOWN;
    }
    walk(lock + u64::from(head), node, task, waiter, limit)
}

#[inline(always)]
fn walk(head: u64, node: u32, task: u32, waiter: u64, limit: u32) -> u32 {
    let mut at: u64 = match read(head) {
        Some(first) => first,
        None => return queue::UNKNOWN,
    };
    let mut position = 0;
    while position < limit {
        if at == head {
            return queue::ABSENT;
        }
        match read::<u64>(at.wrapping_sub(u64::from(node)).wrapping_add(u64::from(task))) {
            Some(found) if found == waiter => return position,
            Some(_) => {}
            None => return queue::UNKNOWN,
        }
        at = match read(at) {
            Some(next) => next,
            None => return queue::UNKNOWN,
        };
        position += 1;
    }
    queue::UNKNOWN
}

/// rt_mutex waiters sit in a tree; the waiter's own `pi_blocked_on` names its lock instead.
///
/// KERNEL: `rt_mutex_waiter.lock` (kernel/locking/rtmutex_common.h), 5.15 to 6.18.
#[inline(always)]
fn rt_queued(lock: u64, waiter: u64) -> u32 {
    let Some(record) = field::<u64>(waiter, off!(task_pi_blocked_on)) else {
        return queue::UNKNOWN;
    };
    if record == 0 {
        return queue::ABSENT;
    }
    match field::<u64>(record, off!(rt_waiter_lock)) {
        Some(found) if found == lock => queue::SOMEWHERE,
        Some(_) => queue::ABSENT,
        None => queue::UNKNOWN,
    }
}
