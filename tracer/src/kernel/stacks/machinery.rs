//! Which functions are machinery.
//!
//! Names are those of Linux 5.10 to 6.18, with and without PREEMPT_RT and lock debugging, x86-64 and arm64. Only functions of
//! the kernel itself are meant: a module's `down` is its own.

use super::FrameName;

/// How much of a name an entry fixes.
enum Pattern {
    /// The name itself (compiler suffixes aside).
    Is(&'static str),
    /// The name, followed by nothing or by words of [`VARIANTS`]: `mutex_lock` and `mutex_lock_io_nested`.
    Family(&'static str),
    /// Whatever begins so.
    Begins(&'static str),
}
use Pattern::{Begins, Family, Is};

/// Words that make a variant of a lock function.
const VARIANTS: [&str; 16] = [
    "_bh",
    "_common",
    "_interruptible",
    "_io",
    "_irq",
    "_irqrestore",
    "_irqsave",
    "_killable",
    "_nest_lock",
    "_nested",
    "_non_owner",
    "_slowpath",
    "_state",
    "_timeout",
    "_trylock",
    "_uninterruptible",
];

/// The scheduler and the sleeping and spinning paths of locks.
#[rustfmt::skip]
const WAIT: &[Pattern] = &[
    // kernel/sched/core.c; preemption while spinning or before sleeping
    Is("__schedule"), Is("schedule"), Is("schedule_preempt_disabled"), Is("schedule_rtlock"),
    Is("__switch_to"), Is("__switch_to_asm"), Is("finish_task_switch"), Is("io_schedule"), Is("io_schedule_timeout"),
    Family("schedule_timeout"), Begins("schedule_hrtimeout"), Begins("preempt_schedule"), Is("__cond_resched"), Is("_cond_resched"),
    Is("rt_mutex_schedule"), Begins("dynamic_preempt_schedule"), Begins("dynamic_cond_resched"),
    // kernel/locking/mutex.c, ww_mutex.h, osq_lock.c
    Family("mutex_lock"), Family("_mutex_lock"), Begins("__mutex_lock"), Family("mutex_unlock"), Begins("__mutex_unlock"),
    Is("mutex_trylock"), Is("mutex_optimistic_spin"), Is("mutex_spin_on_owner"), Is("osq_lock"),
    Family("ww_mutex_lock"), Begins("__ww_mutex_"), Is("ww_mutex_trylock"), Is("ww_mutex_unlock"), Family("ww_rt_mutex_lock"),
    // kernel/locking/rwsem.c
    Family("down_read"), Family("down_write"), Family("__down_read"), Family("__down_write"), Family("up_read"), Is("up_write"),
    Is("__up_read"), Is("__up_write"), Is("downgrade_write"), Begins("rwsem_down_"), Is("rwsem_optimistic_spin"),
    Is("rwsem_spin_on_owner"), Is("rwsem_wake"), Is("rwsem_mark_wake"),
    // kernel/locking/rtmutex.c, rtmutex_api.c, rwbase_rt.c, spinlock_rt.c
    Family("rt_mutex_lock"), Begins("rt_mutex_slow"), Begins("__rt_mutex_slow"), Begins("__rt_mutex_lock"),
    Is("rt_mutex_unlock"), Begins("__rt_mutex_futex"), Is("rt_mutex_trylock"), Is("rt_mutex_wait_proxy_lock"),
    Is("rtmutex_spin_on_owner"), Begins("rtlock_"), Begins("rwbase_"), Begins("__rwbase_"),
    Family("rt_spin_lock"), Is("rt_spin_unlock"), Family("rt_read_lock"), Family("rt_write_lock"), Is("rt_read_unlock"),
    Is("rt_write_unlock"),
    // kernel/locking/semaphore.c
    Family("down"), Begins("__down_common"), Begins("___down_common"), Family("__down"), Is("up"), Is("__up"),
    // kernel/locking/percpu-rwsem.c
    Is("percpu_down_read"), Is("__percpu_down_read"), Is("percpu_down_write"), Is("percpu_up_read"), Is("percpu_up_write"),
    Is("percpu_rwsem_wait"), Is("percpu_rwsem_wake_function"), Is("__percpu_rwsem_trylock"),
    // kernel/locking/spinlock.c, qspinlock.c, qrwlock.c, spinlock_debug.c; paravirtual and arm64 spinning
    Family("_raw_spin_lock"), Family("_raw_spin_unlock"), Family("_raw_read_lock"), Family("_raw_read_unlock"),
    Family("_raw_write_lock"), Family("_raw_write_unlock"), Family("_raw_spin"), Family("_raw_spin_rq_lock"),
    Family("raw_spin_rq_lock"), Family("__raw_spin_lock"), Family("do_raw_spin_lock"), Family("do_raw_read_lock"),
    Family("do_raw_write_lock"), Begins("queued_spin_lock_"), Begins("native_queued_spin_lock_"),
    Begins("__pv_queued_spin_"), Begins("queued_read_lock_"), Begins("queued_write_lock_"), Is("pv_wait_node"),
    Is("pv_wait_head_or_lock"), Is("pv_kick_node"), Is("kvm_wait"), Is("xen_qlock_wait"), Is("hv_qlock_wait"),
    // kernel/locking/lockdep.c
    Is("lock_acquire"), Is("__lock_acquire"), Is("lock_contended"), Is("lock_release"),
    // kernel/sched/completion.c, wait_bit.c
    Family("wait_for_completion"), Family("wait_for_completion_interruptible"), Family("wait_for_completion_killable"),
    Is("__wait_for_common"), Is("wait_for_common"), Is("do_wait_for_common"), Is("wait_for_common_io"), Family("bit_wait"),
    Is("__wait_on_bit"), Is("__wait_on_bit_lock"), Is("out_of_line_wait_on_bit"), Is("out_of_line_wait_on_bit_lock"),
    // kernel/locking/lock_events.h, trace points of lock.h out of line
    Begins("__traceiter_contention_"), Begins("trace_contention_"),
];

/// What takes the stack, between the traced function and the program. Exact where the same prefix names functions that
/// wait for locks of their own (`kprobe_register`, `ftrace_set_filter`, `bpf_trampoline_update`).
#[rustfmt::skip]
const TRACING: &[Pattern] = &[
    // trace points
    Begins("__traceiter_"), Begins("__bpf_trace_"), Begins("bpf_trace_run"), Begins("perf_trace_contention_"),
    Is("perf_trace_run_bpf_submit"), Is("trace_call_bpf"),
    // taking the stack
    Begins("bpf_get_stack"), Begins("__bpf_get_stack"), Begins("bpf_get_task_stack"), Begins("__bpf_get_task_stack"),
    Is("get_perf_callchain"), Begins("perf_callchain_"), Begins("stack_trace_save"), Begins("arch_stack_walk"),
    // around a program
    Begins("__bpf_prog_enter"), Begins("__bpf_prog_exit"), Is("__bpf_tramp_enter"), Is("__bpf_tramp_exit"),
    Is("bpf_dispatcher_nop_func"), Begins("__bpf_prog_run"),
    // kprobes and ftrace
    Is("kprobe_dispatcher"), Is("kprobe_perf_func"), Is("kprobe_ftrace_handler"), Is("kprobe_int3_handler"),
    Is("kprobe_breakpoint_handler"), Is("kprobe_exceptions_notify"), Is("kretprobe_dispatcher"), Is("kretprobe_perf_func"),
    Is("kretprobe_rethook_handler"), Is("aggr_pre_handler"), Is("opt_pre_handler"), Is("optimized_callback"),
    Begins("ftrace_ops_"), Begins("arch_ftrace_ops_"), Is("ftrace_caller"), Is("ftrace_call"), Is("ftrace_regs_caller"),
    Is("ftrace_regs_call"), Is("fprobe_handler"), Is("fprobe_exit_handler"),
    // breakpoint traps, x86-64 and arm64
    Is("do_int3"), Is("exc_int3"), Is("asm_exc_int3"), Is("int3"), Is("notify_die"), Is("atomic_notifier_call_chain"),
    Is("brk_handler"), Is("call_break_hook"), Is("do_debug_exception"), Begins("el1h_64_sync"), Is("el1_dbg"), Begins("el1_brk"),
];

/// Whether a function only waits for, or gives back, what its caller wanted.
pub(super) fn is_wait(frame: FrameName<'_>) -> bool {
    frame.module.is_none() && matches(WAIT, frame.name)
}

/// Whether a function belongs to the tracing that took the stack. BPF programs and trampolines count as a module `bpf`,
/// ftrace's trampolines as `__builtin__ftrace`, kprobes' as `__builtin__kprobes`.
pub(super) fn is_tracing(frame: FrameName<'_>) -> bool {
    match frame.module {
        None => matches(TRACING, frame.name),
        Some(module) => matches!(module, "bpf" | "__builtin__ftrace" | "__builtin__kprobes"),
    }
}

/// Whether a frame is that of a BPF trampoline (KERNEL: `bpf_trampoline_%llu`, kernel/bpf/trampoline.c, 5.5 to 6.18).
pub(super) fn is_trampoline(frame: FrameName<'_>) -> bool {
    frame.module == Some("bpf") && frame.name.starts_with("bpf_trampoline_")
}

fn matches(table: &[Pattern], name: &str) -> bool {
    let base = match name.find('.') {
        Some(0) | None => name,
        Some(dot) => name.split_at(dot).0,
    };
    table.iter().any(|pattern| match pattern {
        Is(exact) => base == *exact,
        Family(stem) => base.strip_prefix(stem).is_some_and(only_variants),
        Begins(start) => base.starts_with(start),
    })
}

/// Whether the rest of a name is made of variant words. Words may begin alike (`_io`, `_irq`, `_irqsave`): the longest that
/// fits is taken, which is right because no word is another one followed by a third.
fn only_variants(mut rest: &str) -> bool {
    while !rest.is_empty() {
        let longest = VARIANTS
            .iter()
            .filter_map(|word| rest.strip_prefix(word))
            .min_by_key(|left| left.len());
        let Some(left) = longest else { return false };
        rest = left;
    }
    true
}
