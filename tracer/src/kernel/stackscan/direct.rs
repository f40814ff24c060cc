//! Kernels that keep in the `task_struct` itself what a thread is blocked on.

use anyhow::Result;

use super::code::{Class, CodeMap};
use super::memory::{Words, is_pointer};
use super::thread::{Thread, ThreadIx, Threads};
use crate::event::{Evidence, LockKind, Mode};
use crate::kernel::offsets::KernelOffsets;

/// A wait that a field of the thread names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Direct {
    /// Who waits.
    pub thread: ThreadIx,
    /// For which lock.
    pub lock: u64,
    /// Of which kind.
    pub kind: LockKind,
    /// Wanted how; `None` when the field does not tell.
    pub mode: Option<Mode>,
    /// Which field says so.
    pub evidence: Evidence,
}

/// What `task_struct.blocker` says, if it says anything.
///
/// KERNEL: include/linux/hung_task.h: the two low bits are 0 for a mutex, 1 for a semaphore, 2 and 3 for a rwsem wanted by a
/// reader and by a writer. 6.16 knows the first two, 6.17 all; `blocker_mutex` of 6.15 has no type bits and means a mutex.
#[must_use]
pub fn blocker(word: u64) -> Option<(u64, LockKind, Option<Mode>)> {
    let lock = word & !3;
    if !is_pointer(lock) {
        return None;
    }
    Some(match word & 3 {
        0 => (lock, LockKind::Mutex, Some(Mode::Exclusive)),
        1 => (lock, LockKind::Semaphore, Some(Mode::Exclusive)),
        2 => (lock, LockKind::Rwsem, Some(Mode::Shared)),
        _ => (lock, LockKind::Rwsem, Some(Mode::Exclusive)),
    })
}

/// What the fields of all threads off their CPUs say.
///
/// # Errors
/// When kernel memory cannot be read at all.
pub fn read(
    threads: &Threads,
    o: &KernelOffsets,
    blocked_on_mutex: bool,
    code: &CodeMap,
    words: &mut Words<'_>,
) -> Result<Vec<Direct>> {
    let mut found = Vec::new();
    for (ix, thread) in threads.iter().filter(|(_, thread)| thread.is_off_cpu()) {
        let direct = |(lock, kind, mode)| Direct {
            thread: ix,
            lock,
            kind: if kind == LockKind::Mutex {
                mutex_kind(thread, code)
            } else {
                kind
            },
            mode,
            evidence: Evidence::BlockedOnField,
        };
        let by_blocked_on = || {
            let lock = thread.record.blocked_on;
            (blocked_on_mutex && is_pointer(lock)).then_some((lock, LockKind::Mutex, Some(Mode::Exclusive)))
        };
        found.extend(blocker(thread.record.blocker).or_else(by_blocked_on).map(direct));
    }
    found.extend(pi(threads, o, code, words)?);
    Ok(found)
}

/// KERNEL: `task->pi_blocked_on` -> `rt_mutex_waiter` on the waiter's stack -> `lock` (kernel/locking/rtmutex.c), 5.10 to 6.18.
fn pi(threads: &Threads, o: &KernelOffsets, code: &CodeMap, words: &mut Words<'_>) -> Result<Vec<Direct>> {
    let (Some(task_at), Some(lock_at)) = (o.rt_mutex_waiter.task, o.rt_mutex_waiter.lock) else {
        return Ok(Vec::new());
    };
    let blocked = || {
        threads
            .iter()
            .filter(|(_, thread)| thread.is_off_cpu() && is_pointer(thread.record.pi_blocked_on))
    };
    let at = |thread: &Thread, offset: u32| thread.record.pi_blocked_on + u64::from(offset);
    words.fetch(blocked().flat_map(|(_, thread)| [at(thread, task_at), at(thread, lock_at)]))?;
    Ok(blocked()
        .filter_map(|(ix, thread)| {
            let base = words.get(at(thread, lock_at)).filter(|&lock| is_pointer(lock))?;
            // The record must name its waiter, or it is a stale one.
            words
                .get(at(thread, task_at))
                .filter(|&task| task == thread.record.task.task)?;
            let (lock, kind, mode) = around(base, thread, o, code);
            Some(Direct {
                thread: ix,
                lock,
                kind,
                mode: Some(mode),
                evidence: Evidence::PiBlockedOn,
            })
        })
        .collect())
}

/// The lock around an rt_mutex: PREEMPT_RT builds mutexes, rwsems and sleeping spinlocks from them, with the rt_mutex inside.
fn around(base: u64, thread: &Thread, o: &KernelOffsets, code: &CodeMap) -> (u64, LockKind, Mode) {
    let alone = |lock, kind| (lock, kind, Mode::Exclusive);
    let (Some(in_mutex), in_rwsem) = (o.mutex.rtmutex, o.rwsem.rt_rtmutex) else {
        return alone(base, LockKind::RtMutex);
    };
    let (_, stack) = thread.stack();
    let mut classes = stack.iter().filter_map(|&word| code.class(word));
    if classes.clone().any(|class| class == Class::RtSpinlock) {
        return alone(base, LockKind::RtSpinlock);
    }
    // The function that was called last tells.
    let lock = classes.find_map(|class| match class {
        Class::Mutex | Class::WwMutex => Some(alone(base.wrapping_sub(in_mutex.into()), mutex_kind(thread, code))),
        Class::RwsemRead => Some((base.wrapping_sub(in_rwsem?.into()), LockKind::Rwsem, Mode::Shared)),
        Class::RwsemWrite => Some(alone(base.wrapping_sub(in_rwsem?.into()), LockKind::Rwsem)),
        _ => None,
    });
    lock.unwrap_or_else(|| alone(base, LockKind::RtMutex))
}

/// A mutex, or the ww_mutex around it (same address): the slowpath on the stack tells.
fn mutex_kind(thread: &Thread, code: &CodeMap) -> LockKind {
    let (_, stack) = thread.stack();
    let first = stack
        .iter()
        .filter_map(|&word| code.class(word))
        .find(|class| matches!(class, Class::Mutex | Class::WwMutex));
    if first == Some(Class::WwMutex) {
        LockKind::WwMutex
    } else {
        LockKind::Mutex
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_blocker_word_tells_kind_and_mode() {
        const LOCK: u64 = 0xffff_8880_1234_5678;
        let of = |bits| blocker(LOCK | bits).map(|(lock, kind, mode)| (lock == LOCK, kind, mode));
        assert_eq!(of(0), Some((true, LockKind::Mutex, Some(Mode::Exclusive))));
        assert_eq!(of(1), Some((true, LockKind::Semaphore, Some(Mode::Exclusive))));
        assert_eq!(of(2), Some((true, LockKind::Rwsem, Some(Mode::Shared))));
        assert_eq!(of(3), Some((true, LockKind::Rwsem, Some(Mode::Exclusive))));
        for word in [0, 1, 2, 3, u64::MAX, 0x1000, LOCK | 4] {
            assert_eq!(blocker(word), None, "{word:#x}");
        }
    }
}
