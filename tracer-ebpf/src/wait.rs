//! Waits on sleeping locks: one slot per waiting thread in a lock-free table.

use core::ffi::c_void;

use aya_ebpf::helpers::{
    bpf_get_current_pid_tgid,
    generated::{bpf_get_current_task, bpf_ktime_get_ns},
};
use tracer_common::{
    counter,
    kind::{lock_kind, phase, record_kind, seen_by},
    table::{BUCKET_SLOTS, Wait, WaitSlot},
};

use crate::{
    emit,
    layout::setting,
    maps::{WAIT_BUCKETS, WAITS},
    mem::{cas, lost},
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

/// Bucket of a thread, and its words.
#[inline(always)]
fn bucket(tid: u64) -> Option<(u32, *mut [u64; BUCKET_SLOTS])> {
    let index = tid as u32 & setting!(wait_mask);
    let bucket = WAIT_BUCKETS.get_ptr_mut(index)?;
    // SAFETY: just looked up.
    Some((index * BUCKET_SLOTS as u32, unsafe { &raw mut (*bucket).tids }))
}

/// A slot and the word that says whose it is.
pub struct Place {
    slot: *mut WaitSlot,
    tid: *mut u64,
}

impl Place {
    /// The slot, to read.
    #[inline(always)]
    pub fn slot(&self) -> *const WaitSlot {
        self.slot
    }
}

/// The slot of `tid`, if it has one.
#[inline(always)]
pub fn find(tid: u64) -> Option<Place> {
    let (first, tids) = bucket(tid)?;
    let mut i = 0;
    while i < BUCKET_SLOTS {
        // SAFETY: i < BUCKET_SLOTS; a word another CPU may change, read once.
        let word = unsafe { (&raw mut *tids).cast::<u64>().add(i) };
        // SAFETY: as above.
        if unsafe { core::ptr::read_volatile(word) } == tid {
            let slot = WAITS.get_ptr_mut(first + i as u32)?;
            return Some(Place { slot, tid: word });
        }
        i += 1;
    }
    None
}

/// The slot of `tid`, claimed if need be.
#[inline(always)]
fn claim(tid: u64) -> Option<Place> {
    if let Some(place) = find(tid) {
        return Some(place);
    }
    let (first, tids) = bucket(tid)?;
    let mut i = 0;
    while i < BUCKET_SLOTS {
        // SAFETY: i < BUCKET_SLOTS.
        let word = unsafe { (&raw mut *tids).cast::<u64>().add(i) };
        // SAFETY: within the bucket just looked up.
        if unsafe { core::ptr::read_volatile(word) == 0 && cas(word, 0, tid) } {
            // Whoever had the slot before left it without a wait.
            let slot = WAITS.get_ptr_mut(first + i as u32)?;
            return Some(Place { slot, tid: word });
        }
        i += 1;
    }
    None
}

/// Whether the owner word of a wait of the current thread names that thread.
#[inline(always)]
fn owns(wait: &Wait) -> bool {
    owner::task(wait.kind, wait.owner_word) == current_task()
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
    let Some(place) = claim(tid) else {
        lost(counter::WAIT_TABLE_FULL);
        return;
    };
    // SAFETY: only the thread itself writes its slot, and it is us.
    let slot = unsafe { &mut *place.slot };
    if slot.wait.lock == begin.lock {
        if continues(&slot.wait, begin) {
            slot.wait.phase = begin.phase;
            slot.wait.flags = begin.flags;
            return;
        }
        lost(counter::MISSED_END);
    } else if slot.wait.lock != 0 {
        nest(slot);
    }
    // The lock is written last: until then a reader of the table sees no wait.
    slot.wait.since = unsafe { bpf_ktime_get_ns() };
    slot.wait.owner_word = owner::word(begin.kind, begin.lock);
    slot.wait.kind = begin.kind;
    slot.wait.mode = begin.mode;
    slot.wait.phase = begin.phase;
    slot.wait.seen_by = begin.seen_by;
    slot.wait.flags = begin.flags;
    // SAFETY: volatile only orders the store after the ones above.
    unsafe { core::ptr::write_volatile(&raw mut slot.wait.lock, begin.lock) };
    // A thread that waits for a lock which names it as its owner is worth an event at once.
    let own = owns(&slot.wait);
    if own || setting!(emit_all) != 0 {
        emit::wait(ctx, record_kind::WAIT_BEGIN, &slot.wait, 0, own);
    }
}

/// Whether a begin for the lock that is already waited for is another phase of the same wait; if not, the end of the wait before was
/// missed, and its start must not be taken for the new one's.
///
/// KERNEL: kernel/locking/mutex.c, 5.19 to 6.18: a wait begins with MUTEX|SPIN; MUTEX follows when it queues; MUTEX|SPIN comes again
/// only while it is first in the queue. Other locks begin once.
#[inline(always)]
fn continues(wait: &Wait, begin: &Begin) -> bool {
    if begin.seen_by == seen_by::KPROBE {
        // The outer and the inner slowpath of an rt_mutex.
        return begin.kind == lock_kind::RT_MUTEX;
    }
    if begin.kind != lock_kind::MUTEX {
        return false;
    }
    begin.phase == phase::SLEEPING
        || (wait.phase == phase::SLEEPING && owner::queue_position(begin.kind, begin.lock, current_task(), 1) == 0)
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
    let Some(place) = find(tid) else {
        return;
    };
    // SAFETY: only the thread itself writes its slot, and it is us.
    let slot = unsafe { &mut *place.slot };
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
    // A begin that was sent at once needs its end, however short the wait.
    if long || owns(&slot.wait) || setting!(emit_all) != 0 {
        emit::wait(ctx, record_kind::WAIT_END, &slot.wait, result, long);
    }
    slot.wait = slot.outer;
    slot.outer = Wait::NONE;
    if slot.wait.lock == 0 {
        // SAFETY: the last store to the slot: from here on another thread may claim it.
        unsafe { core::ptr::write_volatile(place.tid, 0) };
    }
}

/// Address of the `task_struct` of the thread that runs.
#[inline(always)]
pub fn current_task() -> u64 {
    unsafe { bpf_get_current_task() }
}
