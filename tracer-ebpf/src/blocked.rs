//! Who is in uninterruptible sleep: a walk over all threads that is cheap enough to be repeated all the time.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_seq_write;
use tracer_common::snapshot::BlockedRecord;

use crate::{layout::off, mem::field, snapshot::IterTask};

/// KERNEL: include/linux/sched.h, 5.10 to 6.18: `TASK_UNINTERRUPTIBLE`, and with it `TASK_NOLOAD` for threads asleep by design.
const UNINTERRUPTIBLE: u32 = 2;
const NOLOAD: u32 = 0x400;

/// Writes thread id and switch count of every thread in uninterruptible sleep.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task")]
pub extern "C" fn iter_blocked(ctx: *const IterTask) -> i32 {
    // SAFETY: the kernel passes a valid context; task is null at the end of the iteration.
    let (seq, task) = unsafe { ((*(*ctx).meta).seq, (*ctx).task as u64) };
    let state: u32 = field(task, off!(task_state)).unwrap_or(0);
    if state & (UNINTERRUPTIBLE | NOLOAD) != UNINTERRUPTIBLE {
        return 0;
    }
    let voluntary: u64 = field(task, off!(task_nvcsw)).unwrap_or(0);
    let involuntary: u64 = field(task, off!(task_nivcsw)).unwrap_or(0);
    let record = BlockedRecord {
        tid: field::<u32>(task, off!(task_pid)).unwrap_or(0).into(),
        switches: voluntary.wrapping_add(involuntary),
    };
    // SAFETY: the record is valid for its size.
    unsafe {
        bpf_seq_write(
            seq,
            (&raw const record).cast::<c_void>(),
            size_of::<BlockedRecord>() as u32,
        )
    };
    0
}
