//! Unlock slowpaths. They run only when somebody waits, so an uncontended unlock costs nothing.

use core::ffi::c_void;

use tracer_common::{config::ABSENT, counter, kind::lock_kind};

use crate::{
    emit,
    layout::off,
    mem::{lost, read},
};

/// The current thread enters an unlock slowpath with `argument` as its first argument: the lock, or what the compiler has made of it.
#[inline(always)]
pub fn release(ctx: *mut c_void, argument: u64, kind: u8) {
    match lock_of(argument, kind) {
        Some(lock) => emit::release(ctx, lock, kind),
        None => lost(counter::READ_FAILED),
    }
}

/// The lock behind the first argument, validated by its wait list: `head->next->prev == head`.
///
/// The compiler's `.isra.0` clones may take a part of the argument instead: `__up.isra.0` takes the first waiter (seen on Debian's 6.1
/// and 6.12), which is on the list by then, so that the node before it is the list head in the semaphore.
#[inline(always)]
fn lock_of(argument: u64, kind: u8) -> Option<u64> {
    let list = match kind {
        lock_kind::MUTEX => off!(mutex_wait_list),
        lock_kind::RWSEM => off!(rwsem_wait_list),
        lock_kind::SEMAPHORE => off!(sem_wait_list),
        // Waiters in a tree: nothing to validate by, and no clone has been seen to change the argument.
        _ => return Some(argument),
    };
    if list == ABSENT {
        return None;
    }
    let list = u64::from(list);
    if is_on_list(argument.wrapping_add(list)) {
        return Some(argument);
    }
    if kind == lock_kind::SEMAPHORE && is_on_list(argument) {
        let head: u64 = read(argument.wrapping_add(PREV))?;
        return Some(head.wrapping_sub(list));
    }
    None
}

/// `list_head.prev`.
const PREV: u64 = 8;

/// Whether a list node (or head) stands at `node`: its next one points back.
#[inline(always)]
fn is_on_list(node: u64) -> bool {
    match read::<u64>(node) {
        Some(next) if next != 0 => read::<u64>(next.wrapping_add(PREV)) == Some(node),
        _ => false,
    }
}
