//! Waits on sleeping locks: one slot per waiting thread in a lock-free table.

use core::ffi::c_void;

use aya_ebpf::helpers::{
    bpf_get_current_pid_tgid,
    generated::{bpf_get_current_task, bpf_get_current_task_btf, bpf_ktime_get_ns},
};
use tracer_common::{
    config::ABSENT,
    counter,
    kind::{lock_kind, phase, record_kind, seen_by},
    table::{BUCKET_SLOTS, Wait, WaitSlot},
};

use crate::{
    emit,
    layout::{off, setting},
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
fn bucket(tid: u64) -> Option<(u32, *mut u64)> {
    let index = tid as u32 & setting!(wait_mask);
    let bucket = WAIT_BUCKETS.get_ptr_mut(index)?;
    // SAFETY: just looked up.
    Some((index * BUCKET_SLOTS as u32, unsafe { (&raw mut (*bucket).tids).cast() }))
}

/// Word `i` of a bucket.
///
/// # Safety
/// `tids` comes from [`bucket`] and `i` is less than [`BUCKET_SLOTS`].
#[inline(always)]
unsafe fn word(tids: *mut u64, i: usize) -> (*mut u64, u64) {
    // SAFETY: by contract; a word another CPU may change, read once.
    unsafe { (tids.add(i), core::ptr::read_volatile(tids.add(i))) }
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

    #[inline(always)]
    fn at(first: u32, i: usize, tid: *mut u64) -> Option<Self> {
        let slot = WAITS.get_ptr_mut(first + i as u32)?;
        Some(Self { slot, tid })
    }
}

/// The slot of `tid`, if it has one.
#[inline(always)]
pub fn find(tid: u64) -> Option<Place> {
    let (first, tids) = bucket(tid)?;
    let mut i = 0;
    while i < BUCKET_SLOTS {
        // SAFETY: just looked up; i < BUCKET_SLOTS.
        let (word, owner) = unsafe { word(tids, i) };
        if owner == tid {
            return Place::at(first, i, word);
        }
        i += 1;
    }
    None
}

/// The slot of `tid`, claimed if need be.
///
/// One pass over the bucket: nobody else claims a slot for this thread, so what was free when it was read is as good as any.
#[inline(always)]
fn claim(tid: u64) -> Option<Place> {
    let (first, tids) = bucket(tid)?;
    let mut free = BUCKET_SLOTS;
    let mut i = 0;
    while i < BUCKET_SLOTS {
        // SAFETY: just looked up; i < BUCKET_SLOTS.
        let (word, owner) = unsafe { word(tids, i) };
        if owner == tid {
            return Place::at(first, i, word);
        }
        if owner == 0 && free == BUCKET_SLOTS {
            free = i;
        }
        i += 1;
    }
    // Losing the race for a slot is rare: only threads whose ids are a whole table apart share a bucket.
    while free < BUCKET_SLOTS {
        // SAFETY: as above.
        let (word, _) = unsafe { word(tids, free) };
        // SAFETY: within the bucket just looked up.
        if unsafe { cas(word, 0, tid) } {
            // Whoever had the slot before left it without a wait.
            return Place::at(first, free, word);
        }
        free += 1;
    }
    None
}

/// The thread that runs.
struct Current {
    /// Address of its `task_struct`.
    task: u64,
    /// Its thread id, 0 for an idle task.
    tid: u64,
}

impl Current {
    /// One helper call and one load, where asking for the id costs a second call: calls are what a program pays for most.
    #[inline(always)]
    fn get() -> Self {
        // SAFETY: a helper without arguments.
        let task = unsafe { bpf_get_current_task_btf() };
        let offset = off!(task_pid);
        let tid = if offset == ABSENT {
            bpf_get_current_pid_tgid() as u32
        } else {
            // SAFETY: the verifier knows the pointer's type and the offset's value: it is `task_struct.pid`.
            unsafe { core::ptr::read_volatile(task.byte_add(offset as usize).cast::<u32>()) }
        };
        Self {
            task: task as u64,
            tid: u64::from(tid),
        }
    }

    /// Whether the owner word of a wait of this thread names itself.
    #[inline(always)]
    fn owns(&self, wait: &Wait) -> bool {
        owner::task(wait.kind, wait.owner_word) == self.task
    }
}

/// A thread starts to wait, or the phase of its wait changes.
///
/// The tracepoint fires again whenever a mutex waiter goes from sleeping to spinning and back (KERNEL: kernel/locking/mutex.c,
/// `__mutex_lock_common`), so a begin for the same lock keeps the first start.
#[inline(always)]
pub fn begin(ctx: *mut c_void, begin: &Begin) {
    let current = Current::get();
    if current.tid == 0 {
        return;
    }
    let Some(place) = claim(current.tid) else {
        lost(counter::WAIT_TABLE_FULL);
        return;
    };
    // SAFETY: only the thread itself writes its slot, and it is us.
    let slot = unsafe { &mut *place.slot };
    if slot.wait.lock == begin.lock {
        if continues(&slot.wait, begin, &current) {
            slot.wait.phase = begin.phase;
            slot.wait.flags = begin.flags;
            return;
        }
        lost(counter::MISSED_END);
    } else if slot.wait.lock != 0 {
        nest(slot);
    }
    // The lock is written last: until then a reader of the table sees no wait.
    slot.wait.owner_word = owner::word(begin.kind, begin.lock);
    slot.wait.since = unsafe { bpf_ktime_get_ns() };
    slot.wait.kind = begin.kind;
    slot.wait.mode = begin.mode;
    slot.wait.phase = begin.phase;
    slot.wait.seen_by = begin.seen_by;
    slot.wait.flags = begin.flags;
    // SAFETY: volatile only orders the store after the ones above.
    unsafe { core::ptr::write_volatile(&raw mut slot.wait.lock, begin.lock) };
    // A thread that waits for a lock which names it as its owner is worth an event at once.
    let own = current.owns(&slot.wait);
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
fn continues(wait: &Wait, begin: &Begin, current: &Current) -> bool {
    if begin.seen_by == seen_by::KPROBE {
        // The outer and the inner slowpath of an rt_mutex.
        return begin.kind == lock_kind::RT_MUTEX;
    }
    if begin.kind != lock_kind::MUTEX {
        return false;
    }
    begin.phase == phase::SLEEPING
        || (wait.phase == phase::SLEEPING && owner::queue_position(begin.kind, begin.lock, current.task, 1) == 0)
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
    let current = Current::get();
    if current.tid == 0 {
        return;
    }
    // No slot: the wait began before we were attached, or its begin was counted as lost.
    let Some(place) = find(current.tid) else {
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
    if long || current.owns(&slot.wait) || setting!(emit_all) != 0 {
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
