//! The only path to the ring buffer.
//!
//! `bpf_ringbuf_reserve` takes a spinlock (plain up to 6.12, an rqspinlock later). If its contention were traced into the same ring,
//! the program would wait for a lock that the program below it holds. The busy word makes that impossible: it is taken before
//! the ring and released after, by every program of ours on this CPU, in whatever context; who finds it taken drops and counts.

use core::ffi::c_void;

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::helpers::generated::{bpf_get_smp_processor_id, bpf_get_stack, bpf_ktime_get_ns};
use aya_log_ebpf::info;
use tracer_common::{
    counter,
    kind::{queue, record_kind, task_field},
    record::{Header, MAX_FRAMES, ReinitRecord, ReleaseRecord, WaitRecord},
    table::Wait,
};

use crate::{
    layout::setting,
    maps::{BUSY, RING},
    mem::{cas, lost},
    owner,
    reinit::Use,
    task,
    wait::current_task,
};

/// A body followed by its stack.
#[repr(C)]
struct WithStack<T> {
    body: T,
    frames: [u64; MAX_FRAMES],
}

/// Emits a wait record of the current thread; with its kernel stack where `stack` and the settings ask for one.
#[inline(always)]
pub fn wait(ctx: *mut c_void, kind: u16, wait: &Wait, result: i32, stack: bool) {
    guarded(|| {
        // Diagnostics (`--bpf-log`): a ring of their own, under the same busy word; no code at all when the level is off.
        if kind == record_kind::WAIT_BEGIN && stack {
            info!(
                &ctx,
                "thread {} waits for {:x}, whose owner word names itself",
                bpf_get_current_pid_tgid() as u32,
                wait.lock
            );
        }
        if stack && setting!(stacks) != 0 {
            let Some(mut entry) = RING.reserve::<WithStack<WaitRecord>>(0) else {
                return lost(counter::RING_FULL);
            };
            let to = entry.as_mut_ptr();
            // SAFETY: reserved memory of exactly this type; every field is written before submit.
            unsafe {
                (*to).frames = [0; MAX_FRAMES];
                let frames = take_stack(ctx, &raw mut (*to).frames);
                fill_wait(
                    &raw mut (*to).body,
                    kind,
                    wait,
                    result,
                    size_of::<WithStack<WaitRecord>>() as u16,
                    frames,
                );
            }
            entry.submit(0);
        } else {
            let Some(mut entry) = RING.reserve::<WaitRecord>(0) else {
                return lost(counter::RING_FULL);
            };
            // SAFETY: as above.
            unsafe {
                fill_wait(
                    entry.as_mut_ptr(),
                    kind,
                    wait,
                    result,
                    size_of::<WaitRecord>() as u16,
                    0,
                )
            };
            entry.submit(0);
        }
    });
}

/// Emits a release by the current thread.
#[inline(always)]
pub fn release(ctx: *mut c_void, lock: u64, kind: u8) {
    guarded(|| {
        let Some(mut entry) = RING.reserve::<WithStack<ReleaseRecord>>(0) else {
            return lost(counter::RING_FULL);
        };
        let to = entry.as_mut_ptr();
        // SAFETY: reserved memory of exactly this type; every field is written before submit.
        unsafe {
            (*to).frames = [0; MAX_FRAMES];
            let frames = if setting!(stacks) != 0 {
                take_stack(ctx, &raw mut (*to).frames)
            } else {
                0
            };
            (*to).body.header = header(record_kind::RELEASE, size_of::<WithStack<ReleaseRecord>>() as u16);
            (*to).body.lock = lock;
            task::identify(&mut (*to).body.task, current_task());
            (*to).body.kind = kind;
            (*to).body.pad = [0; 3];
            (*to).body.stack_len = frames;
        }
        entry.submit(0);
    });
}

/// Emits the initialisation of a lock in use by the current thread, with its stack.
#[inline(always)]
pub fn reinit(ctx: *mut c_void, found: &Use) {
    guarded(|| {
        let Some(mut entry) = RING.reserve::<WithStack<ReinitRecord>>(0) else {
            return lost(counter::RING_FULL);
        };
        let to = entry.as_mut_ptr();
        // SAFETY: reserved memory of exactly this type; every field is written before submit.
        unsafe {
            (*to).frames = [0; MAX_FRAMES];
            (*to).body.stack_len = if setting!(stacks) != 0 {
                take_stack(ctx, &raw mut (*to).frames)
            } else {
                0
            };
            (*to).body.header = header(record_kind::REINIT, size_of::<WithStack<ReinitRecord>>() as u16);
            (*to).body.lock = found.lock;
            (*to).body.owner_word = found.owner_word;
            (*to).body.count_word = found.count_word;
            task::identify(&mut (*to).body.task, current_task());
            task::identify(&mut (*to).body.owner, owner::task(found.kind, found.owner_word));
            task::fill(&mut (*to).body.waiter, found.waiter);
            (*to).body.waiters = found.waiters;
            (*to).body.kind = found.kind;
            (*to).body.object = found.object;
            (*to).body.pad = [0; 6];
        }
        entry.submit(0);
    });
}

#[inline(always)]
fn guarded(f: impl FnOnce()) {
    let Some(busy) = BUSY.get_ptr_mut(0) else { return };
    // SAFETY: just looked up; per-CPU, and we do not migrate while a program runs.
    if !unsafe { cas(busy, 0, 1) } {
        lost(counter::BUSY);
        return;
    }
    f();
    // SAFETY: as above; we own the word.
    unsafe { core::ptr::write_volatile(busy, 0) };
}

#[inline(always)]
pub fn header(kind: u16, size: u16) -> Header {
    // SAFETY: helpers without arguments.
    unsafe {
        Header {
            kind,
            size,
            cpu: bpf_get_smp_processor_id(),
            time: bpf_ktime_get_ns(),
        }
    }
}

/// # Safety
/// `frames` points to writable memory; `ctx` is the program's context.
#[inline(always)]
unsafe fn take_stack(ctx: *mut c_void, frames: *mut [u64; MAX_FRAMES]) -> u32 {
    // SAFETY: by contract; the helper writes at most the given size.
    let bytes = unsafe { bpf_get_stack(ctx, frames.cast(), (MAX_FRAMES * 8) as u32, 0) };
    if bytes < 0 {
        lost(counter::STACK_LOST);
        return 0;
    }
    (bytes as u32) / 8
}

/// # Safety
/// `to` points to writable memory of that type.
#[inline(always)]
unsafe fn fill_wait(to: *mut WaitRecord, kind: u16, wait: &Wait, result: i32, size: u16, frames: u32) {
    // SAFETY: by contract.
    let to = unsafe { &mut *to };
    to.header = header(kind, size);
    to.lock = wait.lock;
    to.since = wait.since;
    to.owner_word = wait.owner_word;
    to.count_word = if kind == record_kind::WAIT_BEGIN {
        owner::count(wait.kind, wait.lock)
    } else {
        0
    };
    task::identify(&mut to.waiter, current_task());
    task::identify(&mut to.owner, owner::task(wait.kind, wait.owner_word));
    // The owner word was read at the begin. If its task has gone since, the memory may be another's by now: whoever was not there
    // when the wait began is not told as the owner.
    if kind == record_kind::WAIT_END && to.owner.task != 0 && !(to.owner.start != 0 && to.owner.start <= wait.since) {
        (to.owner.tid, to.owner.tgid) = (0, 0);
        to.owner.fields = task_field::UNREADABLE;
    }
    to.result = result;
    to.queue = queue::UNKNOWN;
    to.flags = wait.flags;
    to.kind = wait.kind;
    to.mode = wait.mode;
    to.phase = wait.phase;
    to.seen_by = wait.seen_by;
    to.stack_len = frames;
    to.pad = 0;
}
