//! Waits on sleeping locks: one slot per waiting thread in a lock-free table.

use core::ffi::c_void;

use aya_ebpf::helpers::{
    bpf_get_current_pid_tgid,
    generated::{bpf_get_current_task, bpf_ktime_get_ns},
};
use tracer_common::{
    counter,
    kind::record_kind,
    table::{PROBES, Wait, WaitSlot},
};

use crate::{
    emit,
    layout::{off, setting},
    maps::WAITS,
    mem::{cas, field, lost},
    owner, spin,
};

/// What a probe knows when a wait begins.
pub struct Begin {
    pub lock: u64,
    pub kind: u8,
    pub mode: u8,
    pub phase: u8,
    pub seen_by: u8,
    pub flags: u32,
}

/// The slot of `tid`, if it has one.
#[inline(always)]
pub fn find(tid: u64) -> Option<*mut WaitSlot> {
    let mask = setting!(wait_mask);
    let mut i = 0;
    while i < PROBES {
        let slot = WAITS.get_ptr_mut((tid as u32).wrapping_add(i) & mask)?;
        // SAFETY: just looked up; a word another CPU may change, read once.
        if unsafe { core::ptr::read_volatile(&raw const (*slot).tid) } == tid {
            return Some(slot);
        }
        i += 1;
    }
    None
}

/// The slot of `tid`, claimed if need be.
#[inline(always)]
fn claim(tid: u64) -> Option<*mut WaitSlot> {
    if let Some(slot) = find(tid) {
        return Some(slot);
    }
    let mask = setting!(wait_mask);
    let mut i = 0;
    while i < PROBES {
        let slot = WAITS.get_ptr_mut((tid as u32).wrapping_add(i) & mask)?;
        // SAFETY: just looked up.
        if unsafe { cas(&raw mut (*slot).tid, 0, tid) } {
            // SAFETY: claimed: this thread is the only writer.
            unsafe {
                (*slot).wait = Wait::NONE;
                (*slot).outer = Wait::NONE;
            }
            return Some(slot);
        }
        i += 1;
    }
    None
}

/// A thread starts to wait, or the phase of its wait changes.
///
/// The tracepoint fires again whenever a mutex waiter goes from sleeping to spinning and back (KERNEL: kernel/locking/mutex.c,
/// `__mutex_lock_common`), so a begin for the same lock keeps the first start.
#[inline(always)]
pub fn begin(ctx: *mut c_void, begin: &Begin) {
    let tid = bpf_get_current_pid_tgid() & 0xffff_ffff;
    if tid == 0 {
        return;
    }
    let Some(slot) = claim(tid) else {
        lost(counter::WAIT_TABLE_FULL);
        return;
    };
    // SAFETY: only the thread itself writes its slot, and it is us.
    let slot = unsafe { &mut *slot };
    if slot.wait.lock == begin.lock {
        slot.wait.phase = begin.phase;
        slot.wait.flags = begin.flags;
        return;
    }
    if slot.wait.lock != 0 {
        nest(slot);
    }
    let owner_word = owner::word(begin.kind, begin.lock);
    let owner = owner::task(begin.kind, owner_word);
    let (owner_tid, owner_tgid) = if owner == 0 {
        (0, 0)
    } else {
        (
            field(owner, off!(task_pid)).unwrap_or(0),
            field(owner, off!(task_tgid)).unwrap_or(0),
        )
    };
    // The lock is written last: until then a reader of the table sees no wait.
    slot.wait.since = unsafe { bpf_ktime_get_ns() };
    slot.wait.owner_word = owner_word;
    slot.wait.owner_tid = owner_tid;
    slot.wait.owner_tgid = owner_tgid;
    slot.wait.kind = begin.kind;
    slot.wait.mode = begin.mode;
    slot.wait.phase = begin.phase;
    slot.wait.seen_by = begin.seen_by;
    slot.wait.flags = begin.flags;
    // SAFETY: volatile only orders the store after the ones above.
    unsafe { core::ptr::write_volatile(&raw mut slot.wait.lock, begin.lock) };
    // A thread that waits for a lock which names it as its owner is worth an event at once.
    let own = u64::from(owner_tid) == tid;
    if own || setting!(emit_all) != 0 {
        emit::wait(ctx, record_kind::WAIT_BEGIN, &slot.wait, 0, own);
    }
}

/// A second lock while the first is still waited for: either slowpaths nest (rwbase on PREEMPT_RT), or the end of the first was
/// missed. The outer one is kept; a third is counted as lost.
#[inline(always)]
fn nest(slot: &mut WaitSlot) {
    if slot.outer.lock != 0 {
        lost(counter::NESTING);
    }
    slot.outer = slot.wait;
}

/// A wait of the current thread ends: that for `lock`, or the innermost one where the probe does not know the lock.
#[inline(always)]
pub fn end(ctx: *mut c_void, lock: Option<u64>, result: i32) {
    let tid = bpf_get_current_pid_tgid() & 0xffff_ffff;
    if tid == 0 {
        return;
    }
    // No slot: the wait began before we were attached, or its begin was counted as lost.
    let Some(slot) = find(tid) else { return };
    // SAFETY: only the thread itself writes its slot, and it is us.
    let slot = unsafe { &mut *slot };
    if let Some(lock) = lock
        && slot.wait.lock != lock
    {
        if slot.outer.lock != lock {
            return;
        }
        lost(counter::MISSED_END);
        slot.wait = slot.outer;
        slot.outer = Wait::NONE;
    }
    if slot.wait.lock == 0 {
        return;
    }
    let now = unsafe { bpf_ktime_get_ns() };
    let waited = now.saturating_sub(slot.wait.since);
    spin::count(slot.wait.lock, slot.wait.kind, slot.wait.mode, waited);
    let long = waited >= setting!(min_wait_ns);
    if long || setting!(emit_all) != 0 {
        emit::wait(ctx, record_kind::WAIT_END, &slot.wait, result, long);
    }
    slot.wait = slot.outer;
    slot.outer = Wait::NONE;
    if slot.wait.lock == 0 {
        // SAFETY: the last store to the slot: from here on another thread may claim it.
        unsafe { core::ptr::write_volatile(&raw mut slot.tid, 0) };
    }
}

/// Whether the thread that runs is the one an owner word names.
#[inline(always)]
pub fn current_task() -> u64 {
    unsafe { bpf_get_current_task() }
}
