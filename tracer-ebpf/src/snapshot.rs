//! Iterators over threads. They run in process context on behalf of the reader: plain maps are safe here.
//!
//! aya-ebpf has no iterator macro, so the section is written by hand.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::{seq_file, task_struct},
    helpers::generated::{bpf_get_task_stack, bpf_ktime_get_ns, bpf_seq_write},
};
use aya_log_ebpf::debug;
use tracer_common::{
    counter,
    kind::{queue, record_kind},
    record::{MAX_FRAMES, TaskSampleRecord, WaitRecord},
    table::Wait,
};

use crate::{
    emit::header,
    layout::{off, setting},
    maps::{INTEREST, SCRATCH, Scratch},
    mem::{field, lost},
    owner, task, wait,
};

/// KERNEL: `struct bpf_iter_meta` (include/linux/bpf.h), 5.8 to 6.18.
#[repr(C)]
pub struct IterMeta {
    pub seq: *mut seq_file,
    pub session_id: u64,
    pub seq_num: u64,
}

/// KERNEL: `struct bpf_iter__task` (kernel/bpf/task_iter.c), 5.8 to 6.18.
#[repr(C)]
pub struct IterTask {
    pub meta: *const IterMeta,
    pub task: *mut task_struct,
}

/// Reports every thread whose wait is at least `pending_ns` old, with owner and queue re-read now, and every thread of interest.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task")]
pub extern "C" fn iter_waits(ctx: *const IterTask) -> i32 {
    // SAFETY: the kernel passes a valid context; task is null at the end of the iteration.
    let (seq, task) = unsafe { ((*(*ctx).meta).seq, (*ctx).task) };
    if task.is_null() {
        return 0;
    }
    let Some(tid) = field::<u32>(task as u64, off!(task_pid)) else {
        return 0;
    };
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else {
        return 0;
    };
    let mut reported = false;
    if let Some(place) = wait::find(u64::from(tid)) {
        let slot = place.slot();
        // SAFETY: just looked up. The thread may be changing its slot under us: the copy is judged by the re-read below.
        let (inner, outer) = unsafe {
            (
                core::ptr::read_volatile(&raw const (*slot).wait),
                core::ptr::read_volatile(&raw const (*slot).outer),
            )
        };
        reported = pending(seq, task, scratch, &inner);
        if outer.lock != 0 {
            reported |= pending(seq, task, scratch, &outer);
        }
    }
    // SAFETY: map lookup in process context.
    if !reported && unsafe { INTEREST.get(tid) }.is_some() {
        sample(seq, task, scratch);
    }
    0
}

#[inline(always)]
fn pending(seq: *mut seq_file, task: *mut task_struct, scratch: *mut Scratch, wait: &Wait) -> bool {
    if wait.lock == 0 || unsafe { bpf_ktime_get_ns() }.saturating_sub(wait.since) < setting!(pending_ns) {
        return false;
    }
    // SAFETY: per-CPU scratch, one reader per load.
    let to = unsafe { &mut *scratch };
    let frames = take_stack(task, &mut to.frames);
    let record = &mut to.wait;
    let size = size_of::<WaitRecord>() as u32 + frames * 8;
    record.header = header(record_kind::WAIT_PENDING, size as u16);
    record.lock = wait.lock;
    record.since = wait.since;
    record.owner_word = owner::word(wait.kind, wait.lock);
    record.count_word = owner::count(wait.kind, wait.lock);
    task::fill(&mut record.waiter, task as u64);
    task::fill(&mut record.owner, owner::task(wait.kind, record.owner_word));
    record.result = 0;
    record.queue = owner::queue_position(wait.kind, wait.lock, task as u64, queue::WALK_LIMIT);
    record.flags = wait.flags;
    record.kind = wait.kind;
    record.mode = wait.mode;
    record.phase = wait.phase;
    record.seen_by = wait.seen_by;
    record.stack_len = frames;
    record.pad = 0;
    debug!(
        &seq,
        "thread {} still waits for {:x}, queue {}", record.waiter.tid, record.lock, record.queue
    );
    // SAFETY: size is at most that of the scratch: frames <= MAX_FRAMES.
    unsafe { bpf_seq_write(seq, scratch.cast::<c_void>(), size.min(size_of::<Scratch>() as u32)) };
    true
}

#[inline(always)]
fn sample(seq: *mut seq_file, task: *mut task_struct, scratch: *mut Scratch) {
    // SAFETY: the sample record is smaller than the wait record it shares the scratch with.
    let frames_at = unsafe { &mut (*scratch).frames };
    let frames = take_stack(task, frames_at);
    let mut record = TaskSampleRecord {
        header: header(
            record_kind::TASK,
            (size_of::<TaskSampleRecord>() as u32 + frames * 8) as u16,
        ),
        // SAFETY: integers only.
        task: unsafe { core::mem::zeroed() },
        stack_len: frames,
        pad: 0,
    };
    task::fill(&mut record.task, task as u64);
    // SAFETY: both ranges are valid; frames <= MAX_FRAMES.
    unsafe {
        bpf_seq_write(
            seq,
            (&raw const record).cast::<c_void>(),
            size_of::<TaskSampleRecord>() as u32,
        );
        if frames > 0 {
            bpf_seq_write(
                seq,
                (&raw const (*scratch).frames).cast::<c_void>(),
                (frames * 8).min((MAX_FRAMES * 8) as u32),
            );
        }
    }
}

/// The kernel stack of a sleeping thread; none of one that runs or could run.
///
/// KERNEL: `bpf_get_task_stack` (kernel/bpf/stackmap.c), since 5.9; leaves out scheduler frames. Unwinding a thread in TASK_RUNNING
/// while kretprobes are in use makes the kernel warn (`rethook_find_ret_addr`, kernel/trace/rethook.c, seen on 6.1), and the result
/// would be a mix of moments anyway.
#[inline(always)]
pub fn take_stack(task: *mut task_struct, frames: &mut [u64; MAX_FRAMES]) -> u32 {
    const TASK_RUNNING: u32 = 0;
    /// KERNEL: include/linux/sched.h, 5.10 to 6.18. An exited thread has it from before its stack is given back.
    const TASK_DEAD: u32 = 0x80;
    if field::<u32>(task as u64, off!(task_state)).unwrap_or(TASK_RUNNING) == TASK_RUNNING {
        return 0;
    }
    // SAFETY: the helper writes at most the given size.
    let bytes = unsafe { bpf_get_task_stack(task, frames.as_mut_ptr().cast(), (MAX_FRAMES * 8) as u32, 0) };
    if bytes < 0 {
        // Nothing is lost of a thread that has exited and waits for its parent: it has no stack any more.
        if field::<u32>(task as u64, off!(task_state)).is_none_or(|state| state & TASK_DEAD == 0) {
            lost(counter::STACK_LOST);
        }
        return 0;
    }
    (bytes as u32 / 8).min(MAX_FRAMES as u32)
}
