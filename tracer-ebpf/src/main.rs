//! BPF programs of holdup: entry points only.
//!
//! # Why these programs cannot deadlock the kernel
//!
//! A contention tracepoint fires while kernel locks are contended or held, among them the locks inside BPF's own maps. So:
//!
//! * **Spinning paths** (`spin.rs`) touch memory-mapped arrays only. An array lookup takes no lock and allocates nothing; slots are
//!   claimed by compare-and-swap. Whatever lock BPF itself contends on, its contention events end here.
//! * **Sleeping paths** (`wait.rs`) keep their state in the same kind of lock-free array. Only a wait that is to be shown touches the
//!   ring buffer, whose reserve takes a spinlock: that happens in `emit.rs` alone, under one per-CPU busy word shared by all
//!   programs, so a program that interrupts or nests in another never reaches the ring's lock; the drop is counted.
//! * **The CPU sampler** (`sampler.rs`) interrupts code that may hold any lock: it writes to its CPU's array slot and nothing else.
//! * **Scheduler programs** (`holder.rs`, only when asked for) run with a run queue locked: one array slot, nothing else.
//! * No hash, LRU, stack-map, task-storage or printk is used outside iterators, which run in process context for the reader.
//! * Every loop has a constant bound.
#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![allow(
    internal_features,
    reason = "atomics: the bpf target has no compare-and-swap in core::sync::atomic"
)]

mod blocked;
mod emit;
mod holder;
mod layout;
mod maps;
mod mem;
mod owner;
mod reinit;
mod release;
mod sampler;
mod snapshot;
mod spin;
mod task;
mod tasks_iter;
mod users;
mod wait;
mod watch;

use aya_ebpf::{
    EbpfContext,
    macros::{btf_tracepoint, kprobe, kretprobe, perf_event},
    programs::{BtfTracePointContext, PerfEventContext, ProbeContext, RetProbeContext},
};
use tracer_common::kind::{lcb, lock_kind, mode, phase, seen_by};

use crate::wait::Begin;

#[btf_tracepoint(function = "contention_begin")]
pub fn tp_contention_begin(ctx: BtfTracePointContext) -> i32 {
    let lock: u64 = ctx.arg(0);
    let flags: u32 = ctx.arg(1);
    let begin = Begin {
        lock,
        kind: kind_of(flags),
        mode: if flags & lcb::READ != 0 {
            mode::SHARED
        } else {
            mode::EXCLUSIVE
        },
        phase: if flags & lcb::SPIN != 0 {
            phase::SPINNING
        } else {
            phase::SLEEPING
        },
        seen_by: seen_by::TRACEPOINT,
        flags,
    };
    if spins(flags) {
        spin::begin(&begin)
    } else {
        wait::begin(ctx.as_ptr(), &begin)
    }
    0
}

#[btf_tracepoint(function = "contention_end")]
pub fn tp_contention_end(ctx: BtfTracePointContext) -> i32 {
    let lock: u64 = ctx.arg(0);
    let result: i32 = ctx.arg(1);
    if !spin::end(lock) {
        wait::end(ctx.as_ptr(), Some(lock), result);
    }
    0
}

/// Spins with preemption off, possibly in an interrupt: everything flagged SPIN except a mutex's optimistic spin.
#[inline(always)]
fn spins(flags: u32) -> bool {
    flags & (lcb::SPIN | lcb::MUTEX) == lcb::SPIN
}

/// Whether the current thread is about to sleep for a spinlock of PREEMPT_RT, and not for a mutex.
///
/// KERNEL: TASK_RTLOCK_WAIT (include/linux/sched.h), set before the tracepoint by `rtlock_slowlock_locked` (kernel/locking/rtmutex.c),
/// 5.15 to 6.18.
#[inline(always)]
fn waits_for_spinlock() -> bool {
    const TASK_RTLOCK_WAIT: u32 = 0x1000;
    let state = mem::field::<u32>(wait::current_task(), layout::off!(task_state));
    state.is_some_and(|state| state & TASK_RTLOCK_WAIT != 0)
}

/// Kind of the lock behind tracepoint flags (KERNEL: include/trace/events/lock.h and its callers, 5.19 to 6.18).
#[inline(always)]
fn kind_of(flags: u32) -> u8 {
    if flags & lcb::MUTEX != 0 {
        lock_kind::MUTEX
    } else if flags & lcb::PERCPU != 0 {
        lock_kind::PERCPU_RWSEM
    } else if flags & lcb::RT != 0 {
        if flags & (lcb::READ | lcb::WRITE) != 0 {
            lock_kind::RT_RWBASE
        } else if waits_for_spinlock() {
            lock_kind::RT_SPINLOCK
        } else {
            lock_kind::RT_MUTEX
        }
    } else if flags & lcb::SPIN != 0 {
        if flags & (lcb::READ | lcb::WRITE) != 0 {
            lock_kind::RWLOCK
        } else {
            lock_kind::SPINLOCK
        }
    } else if flags & (lcb::READ | lcb::WRITE) != 0 {
        lock_kind::RWSEM
    } else {
        lock_kind::SEMAPHORE
    }
}

macro_rules! kprobe_begin {
    ($($name:ident: $kind:ident, $mode:ident;)*) => {$(
        #[kprobe]
        pub fn $name(ctx: ProbeContext) -> u32 {
            let Some(lock) = ctx.arg::<u64>(0) else { return 0 };
            wait::begin(ctx.as_ptr(), &Begin {
                lock,
                kind: lock_kind::$kind,
                mode: mode::$mode,
                phase: phase::SLEEPING,
                seen_by: seen_by::KPROBE,
                flags: 0,
            });
            0
        }
    )*};
}

kprobe_begin! {
    kp_mutex: MUTEX, EXCLUSIVE;
    kp_ww_mutex: WW_MUTEX, EXCLUSIVE;
    kp_rwsem_read: RWSEM, SHARED;
    kp_rwsem_write: RWSEM, EXCLUSIVE;
    kp_semaphore: SEMAPHORE, EXCLUSIVE;
    kp_rt_mutex: RT_MUTEX, EXCLUSIVE;
}

/// `percpu_rwsem_wait(sem, reader)`: the second argument tells the mode.
#[kprobe]
pub fn kp_percpu_rwsem(ctx: ProbeContext) -> u32 {
    let Some(lock) = ctx.arg::<u64>(0) else { return 0 };
    let reader = ctx.arg::<u64>(1).unwrap_or(0) & 0xff != 0;
    wait::begin(
        ctx.as_ptr(),
        &Begin {
            lock,
            kind: lock_kind::PERCPU_RWSEM,
            mode: if reader { mode::SHARED } else { mode::EXCLUSIVE },
            phase: phase::SLEEPING,
            seen_by: seen_by::KPROBE,
            flags: 0,
        },
    );
    0
}

macro_rules! kprobe_spin {
    ($($name:ident: $kind:ident, $mode:ident;)*) => {$(
        #[kprobe]
        pub fn $name(ctx: ProbeContext) -> u32 {
            let Some(lock) = ctx.arg::<u64>(0) else { return 0 };
            spin::begin(&Begin {
                lock,
                kind: lock_kind::$kind,
                mode: mode::$mode,
                phase: phase::SPINNING,
                seen_by: seen_by::KPROBE,
                flags: 0,
            });
            0
        }
    )*};
}

kprobe_spin! {
    kp_spinlock: SPINLOCK, EXCLUSIVE;
    kp_rwlock_read: RWLOCK, SHARED;
    kp_rwlock_write: RWLOCK, EXCLUSIVE;
}

/// Return of a slowpath without a result (`__mutex_lock_slowpath`, `__down`).
#[kretprobe]
pub fn krp_void(ctx: RetProbeContext) -> u32 {
    wait::end(ctx.as_ptr(), None, 0);
    0
}

/// Return of a slowpath with an `int` result (`__mutex_lock_killable_slowpath`, `__down_interruptible`).
#[kretprobe]
pub fn krp_int(ctx: RetProbeContext) -> u32 {
    wait::end(ctx.as_ptr(), None, ctx.ret::<u64>() as i32);
    0
}

/// Return of a slowpath that gives the lock or an `ERR_PTR` (`rwsem_down_*_slowpath`).
#[kretprobe]
pub fn krp_ptr(ctx: RetProbeContext) -> u32 {
    const MAX_ERRNO: u64 = 4095;
    let value: u64 = ctx.ret();
    let result = if value > u64::MAX - MAX_ERRNO { value as i32 } else { 0 };
    wait::end(ctx.as_ptr(), None, result);
    0
}

macro_rules! kprobe_release {
    ($($name:ident: $kind:ident;)*) => {$(
        #[kprobe]
        pub fn $name(ctx: ProbeContext) -> u32 {
            let Some(lock) = ctx.arg::<u64>(0) else { return 0 };
            release::release(ctx.as_ptr(), lock, lock_kind::$kind);
            0
        }
    )*};
}

kprobe_release! {
    kp_mutex_unlock: MUTEX;
    kp_rwsem_wake: RWSEM;
    kp_up: SEMAPHORE;
    kp_rt_mutex_unlock: RT_MUTEX;
}

macro_rules! kprobe_init {
    ($($name:ident: $check:ident;)*) => {$(
        #[kprobe]
        pub fn $name(ctx: ProbeContext) -> u32 {
            if let Some(lock) = ctx.arg::<u64>(0) {
                reinit::$check(ctx.as_ptr(), lock);
            }
            0
        }
    )*};
}

kprobe_init! {
    kp_init_mutex: mutex;
    kp_init_rwsem: rwsem;
    kp_init_completion: completion;
    kp_init_wait_queue: wait_queue;
    kp_init_rt_mutex: rt_mutex;
    kp_init_percpu_rwsem: percpu_rwsem;
}

/// `sched_switch(preempt, prev, next, ...)`. KERNEL: include/trace/events/sched.h, 5.10 to 6.18 without 5.18.
#[btf_tracepoint(function = "sched_switch")]
pub fn tp_sched_switch(ctx: BtfTracePointContext) -> i32 {
    let preempted: u64 = ctx.arg(0);
    holder::switched(preempted & 0xff != 0, ctx.arg(1), ctx.arg(2));
    0
}

/// `sched_wakeup(task)`.
#[btf_tracepoint(function = "sched_wakeup")]
pub fn tp_sched_wakeup(ctx: BtfTracePointContext) -> i32 {
    holder::woken(ctx.arg(0));
    0
}

/// The CPU sampler, on a timer of each CPU that is to be watched.
#[perf_event]
pub fn cpu_sample(ctx: PerfEventContext) -> u32 {
    sampler::take(ctx.as_ptr());
    0
}

/// An empty program: what an event costs before we do anything. Attached by `xtask bench probes` only.
#[btf_tracepoint(function = "contention_begin")]
pub fn tp_empty(_ctx: BtfTracePointContext) -> i32 {
    0
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // Never reached: the verifier rejects a reachable endless loop.
    loop {}
}
