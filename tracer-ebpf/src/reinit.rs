//! Initialisations of locks that are in use.
//!
//! An init function is called mostly on memory of which nothing is known: whatever stood there before must not look like a lock
//! in use. So a waiter counts only if the list leads to it and back, its record lies on its own kernel stack, and it is asleep;
//! a holder only if it is a live thread and the list is a list. All reads are checked, all loops bounded.

use core::ffi::c_void;

use tracer_common::{
    config::ABSENT,
    kind::{lock_kind, object},
};

use crate::{
    emit,
    layout::off,
    mem::{field, read},
    owner,
};

/// Waiters that are looked at.
const MAX_WAITERS: u32 = 16;
/// KERNEL: `STACK_END_MAGIC` (include/uapi/linux/magic.h) stands at the lowest address of every kernel stack, 5.10 to 6.18.
const STACK_END_MAGIC: u32 = 0x57ac_6e9d;
/// KERNEL: `TASK_INTERRUPTIBLE | TASK_UNINTERRUPTIBLE | TASK_RTLOCK_WAIT` (include/linux/sched.h), 5.10 to 6.18.
const ASLEEP: u32 = 0x1003;
/// KERNEL: `RWSEM_WRITER_LOCKED`, `RWSEM_READER_OWNED`, and where the readers are counted (kernel/locking/rwsem.c), 5.10 to 6.18.
const RWSEM_WRITER: u64 = 1;
const RWSEM_READER_OWNED: u64 = 1;
const RWSEM_READERS: u64 = !0x8000_0000_0000_00ff;
/// More readers than threads can be are none.
const MAX_READERS: u64 = 1 << 22;

/// What is in use, and how.
pub struct Use {
    pub lock: u64,
    pub kind: u8,
    pub object: u8,
    pub waiters: u32,
    /// `task_struct` of the first waiter.
    pub waiter: u64,
    pub owner_word: u64,
    pub count_word: u64,
}

/// A wait list with what is known of its nodes.
struct List {
    head: u64,
    /// Place of the node in a waiter's record.
    node: u32,
    /// Place of the waiter's `task_struct *` in it.
    task: u32,
}

/// What stands on a wait list.
struct Waiters {
    /// It is a list, possibly an empty one.
    sound: bool,
    count: u32,
    first: u64,
}

#[inline(always)]
pub fn mutex(ctx: *mut c_void, lock: u64) {
    // PREEMPT_RT builds it from an rt_mutex.
    if off!(mutex_wait_list) == ABSENT {
        return rt_mutex(ctx, lock);
    }
    let found = walk(&List {
        head: lock.wrapping_add(u64::from(off!(mutex_wait_list))),
        node: off!(mutex_waiter_list),
        task: off!(mutex_waiter_task),
    });
    let word = owner::word(lock_kind::MUTEX, lock);
    report(ctx, lock, lock_kind::MUTEX, &found, word, 0);
}

#[inline(always)]
pub fn rwsem(ctx: *mut c_void, lock: u64) {
    if off!(rwsem_wait_list) == ABSENT {
        return;
    }
    let found = walk(&List {
        head: lock.wrapping_add(u64::from(off!(rwsem_wait_list))),
        node: off!(rwsem_waiter_list),
        task: off!(rwsem_waiter_task),
    });
    let word = owner::word(lock_kind::RWSEM, lock);
    let count = owner::count(lock_kind::RWSEM, lock);
    let readers = (count & RWSEM_READERS) >> 8;
    // The owner word stays when readers leave: the count says whether it means anything.
    let held = if count & RWSEM_WRITER != 0 {
        readers == 0 && word & RWSEM_READER_OWNED == 0
    } else {
        readers != 0 && readers < MAX_READERS && word & RWSEM_READER_OWNED != 0
    };
    report(ctx, lock, lock_kind::RWSEM, &found, if held { word } else { 0 }, count);
}

/// The argument is the wait queue inside of the completion.
///
/// KERNEL: `__init_swait_queue_head` (kernel/sched/swait.c) has few callers besides `init_completion`, 5.10 to 6.18; for those the
/// address told lies before the queue by the place that it has in a completion.
#[inline(always)]
pub fn completion(ctx: *mut c_void, queue: u64) {
    let (wait, list) = (off!(completion_wait), off!(completion_wait_list));
    if wait == ABSENT || list == ABSENT {
        return;
    }
    let lock = queue.wrapping_sub(u64::from(wait));
    let found = walk(&List {
        head: lock.wrapping_add(u64::from(list)),
        node: off!(swait_list),
        task: off!(swait_task),
    });
    in_use(ctx, lock, object::COMPLETION, lock_kind::UNKNOWN, &found);
}

#[inline(always)]
pub fn wait_queue(ctx: *mut c_void, queue: u64) {
    let found = walk_queue(queue);
    in_use(ctx, queue, object::WAIT_QUEUE, lock_kind::UNKNOWN, &found);
}

#[inline(always)]
pub fn percpu_rwsem(ctx: *mut c_void, lock: u64) {
    if off!(percpu_waiters) == ABSENT {
        return;
    }
    let found = walk_queue(lock.wrapping_add(u64::from(off!(percpu_waiters))));
    in_use(ctx, lock, object::LOCK, lock_kind::PERCPU_RWSEM, &found);
}

/// The leftmost waiter of the tree names its lock itself.
///
/// KERNEL: `struct rb_root_cached { rb_root { rb_node }; rb_leftmost; }` (include/linux/rbtree_types.h), 5.10 to 6.18.
#[inline(always)]
pub fn rt_mutex(ctx: *mut c_void, lock: u64) {
    const LEFTMOST: u64 = 8;
    if off!(rt_mutex_waiters) == ABSENT || off!(rt_waiter_tree) == ABSENT {
        return;
    }
    let tree = lock.wrapping_add(u64::from(off!(rt_mutex_waiters)));
    let (Some(root), Some(leftmost)) = (read::<u64>(tree), read::<u64>(tree + LEFTMOST)) else {
        return;
    };
    let mut found = Waiters {
        // An empty tree is zeros: it proves nothing of the memory, so a holder alone does not count.
        sound: false,
        count: 0,
        first: 0,
    };
    if root != 0 && leftmost != 0 {
        let record = leftmost.wrapping_sub(u64::from(off!(rt_waiter_tree)));
        let task = field::<u64>(record, off!(rt_waiter_task)).unwrap_or(0);
        if field::<u64>(record, off!(rt_waiter_lock)) == Some(lock) && sleeps_on(task, record) {
            found = Waiters {
                sound: true,
                count: 1,
                first: task,
            };
        }
    }
    let word = owner::word(lock_kind::RT_MUTEX, lock);
    report(ctx, lock, lock_kind::RT_MUTEX, &found, word, 0);
}

#[inline(always)]
fn walk_queue(queue: u64) -> Waiters {
    walk(&List {
        head: queue.wrapping_add(u64::from(off!(wait_queue_head))),
        node: off!(wait_entry_list),
        task: off!(wait_entry_private),
    })
}

#[inline(always)]
fn in_use(ctx: *mut c_void, lock: u64, object: u8, kind: u8, found: &Waiters) {
    if found.count > 0 {
        emit::reinit(
            ctx,
            &Use {
                lock,
                kind,
                object,
                waiters: found.count,
                waiter: found.first,
                owner_word: 0,
                count_word: 0,
            },
        );
    }
}

#[inline(always)]
fn report(ctx: *mut c_void, lock: u64, kind: u8, found: &Waiters, word: u64, count: u64) {
    let held = found.sound && is_thread(owner::task(kind, word));
    if found.count == 0 && !held {
        return;
    }
    emit::reinit(
        ctx,
        &Use {
            lock,
            kind,
            object: object::LOCK,
            waiters: found.count,
            waiter: found.first,
            owner_word: if held { word } else { 0 },
            count_word: count,
        },
    );
}

/// Counts the sleepers on a wait list.
#[inline(always)]
fn walk(list: &List) -> Waiters {
    const PREV: u64 = 8;
    let mut found = Waiters {
        sound: false,
        count: 0,
        first: 0,
    };
    if list.node == ABSENT || list.task == ABSENT {
        return found;
    }
    let (Some(mut at), Some(last)) = (read::<u64>(list.head), read::<u64>(list.head + PREV)) else {
        return found;
    };
    if at == 0 || last == 0 || read::<u64>(last) != Some(list.head) {
        return found;
    }
    let mut before = list.head;
    let mut steps = 0;
    while steps < MAX_WAITERS {
        if at == list.head {
            found.sound = true;
            return found;
        }
        if read::<u64>(at.wrapping_add(PREV)) != Some(before) {
            return found;
        }
        let record = at.wrapping_sub(u64::from(list.node));
        let task = field::<u64>(record, list.task).unwrap_or(0);
        if sleeps_on(task, record) {
            found.count += 1;
            if found.first == 0 {
                found.first = task;
            }
        }
        before = at;
        let Some(next) = read::<u64>(at) else { return found };
        at = next;
        steps += 1;
    }
    found.sound = found.count > 0;
    found
}

/// Whether this is a thread that sleeps and on whose kernel stack the record lies.
#[inline(always)]
fn sleeps_on(task: u64, record: u64) -> bool {
    let Some(stack) = stack_of(task) else { return false };
    let on_stack = record > stack && record < stack.wrapping_add(u64::from(off!(stack_size)));
    on_stack && field::<u32>(task, off!(task_state)).is_some_and(|state| state & ASLEEP != 0)
}

/// Whether a pointer leads to a thread that has a kernel stack.
#[inline(always)]
fn is_thread(task: u64) -> bool {
    stack_of(task).is_some()
}

#[inline(always)]
fn stack_of(task: u64) -> Option<u64> {
    if task & 7 != 0 {
        return None;
    }
    let stack = field::<u64>(task, off!(task_stack))?;
    (stack != 0 && read::<u32>(stack) == Some(STACK_END_MAGIC)).then_some(stack)
}
