//! The walk over all threads, for machines that hung before holdup came, and reads of kernel memory on behalf of user space.
//!
//! The programs only copy: what the words mean is found out in user space (`tracer/src/kernel/stackscan`), where lists may be
//! walked with care and the analysis can be tested without a kernel.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::seq_file,
    helpers::generated::{bpf_probe_read_kernel, bpf_seq_write},
};
use tracer_common::{
    config::ABSENT,
    counter,
    kind::record_kind,
    record::MAX_FRAMES,
    snapshot::{CHUNK_WORDS, MAX_CHUNKS, PEEK_RUN, PEEK_SLOTS, ThreadRecord, peek_state},
};

use crate::{
    emit::header,
    layout::{constant, off},
    maps::{CHUNK, PEEKS, THREAD},
    mem::{field, lost},
    snapshot::{IterMeta, IterTask, take_stack},
    task,
};

/// `TASK_IDLE` = `TASK_UNINTERRUPTIBLE | TASK_NOLOAD` (include/linux/sched.h, 5.10 to 6.18): asleep by design, holds nothing.
const TASK_IDLE: u32 = 0x402;
const CHUNK_BYTES: u64 = (CHUNK_WORDS * 8) as u64;

/// KERNEL: `struct bpf_iter__bpf_map` (kernel/bpf/map_iter.c), 5.8 to 6.18.
#[repr(C)]
pub struct IterMap {
    meta: *const IterMeta,
    map: *mut c_void,
}

/// Writes every thread; with frames and raw words of its kernel stack unless it idles by design.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task")]
pub extern "C" fn iter_threads(ctx: *const IterTask) -> i32 {
    // SAFETY: the kernel passes a valid context; task is null at the end of the iteration.
    let (seq, task) = unsafe { ((*(*ctx).meta).seq, (*ctx).task) };
    if task.is_null() {
        return 0;
    }
    let Some(scratch) = THREAD.get_ptr_mut(0) else {
        return 0;
    };
    // SAFETY: per-CPU scratch of a program that runs for one reader.
    let to = unsafe { &mut *scratch };
    let at = task as u64;
    let record = &mut to.thread;
    // The time first: what is read may be newer, never older.
    record.header = header(record_kind::THREAD, 0);
    task::fill(&mut record.task, at);
    record.stack_base = field(at, off!(task_stack)).unwrap_or(0);
    record.saved_sp = field(at, off!(task_saved_sp)).unwrap_or(0);
    record.blocker = field(at, off!(task_blocker)).unwrap_or(0);
    record.blocked_on = field(at, off!(task_blocked_on)).unwrap_or(0);
    record.pi_blocked_on = field(at, off!(task_pi_blocked_on)).unwrap_or(0);
    record.kthread = field(at, off!(task_kthread)).unwrap_or(0);
    record.mm = field(at, off!(task_mm)).unwrap_or(0);
    record.exec_start = field(at, off!(task_exec_start)).unwrap_or(0);
    let idle = record.task.state & TASK_IDLE == TASK_IDLE;
    let (from, chunks) = if idle { (0, 0) } else { part(record) };
    let frames = if idle { 0 } else { take_stack(task, &mut to.frames) };
    let fixed = size_of::<ThreadRecord>() as u32 + frames * 8;
    let record = &mut to.thread;
    record.words_from = from;
    record.stack_len = frames;
    record.words_len = chunks * CHUNK_WORDS as u32;
    record.header.size = (fixed + record.words_len * 8) as u16;
    let limit = (size_of::<ThreadRecord>() + MAX_FRAMES * 8) as u32;
    // SAFETY: the size is at most that of the scratch: frames <= MAX_FRAMES.
    unsafe { bpf_seq_write(seq, scratch.cast::<c_void>(), fixed.min(limit)) };
    copy(seq, from, chunks);
    0
}

/// Which part of the stack is in use: its first address and its number of chunks, counted back from the stack's end.
#[inline(always)]
fn part(record: &ThreadRecord) -> (u64, u32) {
    let size = off!(stack_size);
    if size == ABSENT || record.stack_base == 0 {
        return (0, 0);
    }
    let end = record.stack_base + u64::from(size);
    if record.saved_sp < record.stack_base || record.saved_sp >= end {
        return (0, 0);
    }
    let chunks = (end - record.saved_sp).div_ceil(CHUNK_BYTES);
    (end - chunks * CHUNK_BYTES, chunks.min(MAX_CHUNKS as u64) as u32)
}

#[inline(always)]
fn copy(seq: *mut seq_file, from: u64, chunks: u32) {
    let Some(chunk) = CHUNK.get_ptr_mut(0) else { return };
    let mut i = 0;
    while i < MAX_CHUNKS as u64 {
        if i >= u64::from(chunks) {
            return;
        }
        let at = from + i * CHUNK_BYTES;
        // SAFETY: both helpers stay within the chunk; the first zeroes it when there is nothing to read.
        unsafe {
            if bpf_probe_read_kernel(chunk.cast(), CHUNK_BYTES as u32, at as *const c_void) != 0 {
                lost(counter::READ_FAILED);
            }
            bpf_seq_write(seq, chunk.cast::<c_void>(), CHUNK_BYTES as u32);
        }
        i += 1;
    }
}

/// Serves the slots of [`PEEKS`], a run of them for each BPF map of the machine: an iteration that needs no argument and is short.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/bpf_map")]
pub extern "C" fn iter_peek(ctx: *const IterMap) -> i32 {
    // SAFETY: the kernel passes a valid context; map is null at the end of the iteration.
    let (round, map) = unsafe { ((*(*ctx).meta).seq_num, (*ctx).map) };
    if map.is_null() || round >= (PEEK_SLOTS / PEEK_RUN) as u64 {
        return 0;
    }
    let first = round as u32 * PEEK_RUN as u32;
    let mut i = 0;
    while i < PEEK_RUN as u32 {
        let Some(slot) = PEEKS.get_ptr_mut(first + i) else {
            return 0;
        };
        // SAFETY: just looked up; user space does not touch the slots while it waits for us.
        unsafe {
            let addr = constant(&(*slot).addr);
            if addr == 0 {
                return 0;
            }
            let failed = bpf_probe_read_kernel((&raw mut (*slot).value).cast(), 8, addr as *const c_void) != 0;
            (*slot).state = if failed { peek_state::FAULT } else { peek_state::READ };
        }
        i += 1;
    }
    0
}
