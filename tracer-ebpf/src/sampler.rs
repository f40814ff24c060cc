//! What a CPU does at this moment: registers, what they point to, and the kernel stack across contexts.
//!
//! Runs from a timer interrupt in the middle of whatever the CPU does, spinning with locks held included: it writes to this CPU's own
//! array slot and to nothing else. `bpf_get_stack` unwinds into that slot; it takes no lock (KERNEL: `get_perf_callchain`,
//! kernel/events/callchain.c, 5.10 to 6.18: per-CPU buffers with a recursion counter).

use core::ffi::c_void;

use aya_ebpf::helpers::generated::{bpf_get_smp_processor_id, bpf_get_stack, bpf_ktime_get_ns, bpf_probe_read_kernel};
#[cfg(bpf_target_arch = "aarch64")]
use tracer_common::sample::AARCH64 as REGS;
#[cfg(not(bpf_target_arch = "aarch64"))]
use tracer_common::sample::X86_64 as REGS;
use tracer_common::{
    counter,
    sample::{CpuSample, SAMPLE_FRAMES},
};

use crate::{maps::SAMPLES, mem::lost, spin, task, wait::current_task};

/// Takes one sample. `ctx` is a `struct bpf_perf_event_data`, which begins with the interrupted registers.
#[inline(always)]
pub fn take(ctx: *mut c_void) {
    let cpu = unsafe { bpf_get_smp_processor_id() };
    let Some(sample) = SAMPLES.get_ptr_mut(cpu) else { return };
    // SAFETY: just looked up; only this CPU writes it, and the program does not nest in itself.
    unsafe {
        let number = (*sample).count + 1;
        core::ptr::write_volatile(&raw mut (*sample).seq, 0);
        let before = (
            (*sample).task.task,
            (*sample).registers[REGS.stack],
            (*sample).registers[REGS.argument],
        );
        (*sample).count = number;
        registers(ctx, sample);
        let now = bpf_ktime_get_ns();
        (*sample).time = now;
        let current = current_task();
        let same = before
            == (
                current,
                (*sample).registers[REGS.stack],
                (*sample).registers[REGS.argument],
            );
        if same && (*sample).streak != 0 {
            (*sample).streak += 1;
        } else {
            (*sample).streak = 1;
            (*sample).streak_since = now;
        }
        task::fill(&mut (*sample).task, current);
        let count = spin::preempt_count(cpu);
        (*sample).has_preempt_count = u32::from(count.is_some());
        (*sample).preempt_count = count.unwrap_or(0);
        (*sample).pad = 0;
        pointees(sample);
        let bytes = bpf_get_stack(ctx, (&raw mut (*sample).frames).cast(), (SAMPLE_FRAMES * 8) as u32, 0);
        if bytes < 0 {
            // In user mode there is no kernel stack to take.
            if (*sample).registers[REGS.mode] & REGS.mode_mask != REGS.user {
                lost(counter::STACK_LOST);
            }
            (*sample).stack_len = 0;
        } else {
            (*sample).stack_len = bytes as u32 / 8;
        }
        core::ptr::write_volatile(&raw mut (*sample).seq, number);
    }
}

/// The verifier wants each word of the context read at a constant offset.
macro_rules! copy_words {
    ($from:ident, $to:ident, $($word:literal)*) => {$(
        if $word < REGS.words {
            (*$to).registers[$word] = core::ptr::read_volatile($from.add($word));
        }
    )*};
}

/// # Safety
/// `ctx` is the program's context and `sample` points into a live map value.
#[inline(always)]
unsafe fn registers(ctx: *mut c_void, sample: *mut CpuSample) {
    let from = ctx.cast::<u64>();
    // SAFETY: by contract; the words are those of this architecture's registers.
    unsafe {
        copy_words!(from, sample, 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33);
    }
}

/// # Safety
/// `sample` points into a live map value.
#[inline(always)]
unsafe fn pointees(sample: *mut CpuSample) {
    let mut i = 0;
    while i < REGS.general {
        // SAFETY: the index is below the array's length; the helper zeroes the word when there is nothing to read.
        unsafe {
            let at = (*sample).registers[i] as *const c_void;
            bpf_probe_read_kernel((&raw mut (*sample).pointees[i]).cast(), 8, at);
        }
        i += 1;
    }
}
