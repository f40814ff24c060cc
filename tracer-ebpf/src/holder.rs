//! Where the threads that others wait for spend their time: on a CPU, waiting for one, asleep, or in I/O.
//!
//! These programs run at every switch and wake-up of the machine, so almost always for a thread that nobody waits for: one look into a
//! small array, and out. User space puts threads into the array and takes them out again.

use aya_ebpf::{bindings::task_struct, helpers::generated::bpf_ktime_get_ns};
use tracer_common::{
    config::ABSENT,
    table::{HolderSlot, holder_slot, holder_state},
};

use crate::{layout::off, maps::HOLDERS, mem::field};

/// An argument of the tracepoint, of a type that the verifier knows.
pub type Task = *const task_struct;

/// The slot of a thread, if it is followed.
#[inline(always)]
fn find(task: Task) -> Option<*mut HolderSlot> {
    let offset = off!(task_pid);
    if offset == ABSENT {
        return None;
    }
    // SAFETY: the tracepoint's argument is a live thread, and the verifier checks that there is a field at the offset. A plain load
    // instead of a helper's call: this runs at every switch.
    let tid = unsafe { core::ptr::read_volatile(task.cast::<u8>().wrapping_add(offset as usize).cast::<u32>()) };
    let slot = HOLDERS.get_ptr_mut(holder_slot(tid))?;
    // SAFETY: just looked up; a word that user space may change, read once.
    let followed = unsafe { core::ptr::read_volatile(&raw const (*slot).tid) };
    (followed != 0 && followed == u64::from(tid)).then_some(slot)
}

/// A CPU goes from `previous` to `next`; `preempted`: `previous` did not want to stop.
#[inline(always)]
pub fn switched(preempted: bool, previous: Task, next: Task) {
    if let Some(slot) = find(previous) {
        let state = if preempted {
            holder_state::RUNNABLE
        } else {
            stopped(previous)
        };
        change(slot, holder_state::RUNNING, state);
    }
    if let Some(slot) = find(next) {
        change(slot, holder_state::RUNNABLE, holder_state::RUNNING);
    }
}

/// Somebody wakes `task`.
#[inline(always)]
pub fn woken(task: Task) {
    let Some(slot) = find(task) else { return };
    // SAFETY: just looked up.
    let state = unsafe { core::ptr::read_volatile(&raw const (*slot).state) };
    // KERNEL: `ttwu_runnable` (kernel/sched/core.c, 5.10 to 6.18) tells of threads, too, that have not left their CPU yet.
    if state == holder_state::RUNNING || state == holder_state::RUNNABLE {
        return;
    }
    if state == holder_state::UNKNOWN && field::<u32>(task as u64, off!(task_on_cpu)).unwrap_or(1) != 0 {
        return;
    }
    let before = if in_io(task) {
        holder_state::IO
    } else {
        holder_state::SLEEPING
    };
    change(slot, before, holder_state::RUNNABLE);
}

/// What a thread does that leaves its CPU of its own accord. One that was woken meanwhile is running already.
#[inline(always)]
fn stopped(task: Task) -> u64 {
    if field::<u32>(task as u64, off!(task_state)).unwrap_or(0) == 0 {
        holder_state::RUNNABLE
    } else if in_io(task) {
        holder_state::IO
    } else {
        holder_state::SLEEPING
    }
}

#[inline(always)]
fn in_io(task: Task) -> bool {
    let byte: u8 = field(task as u64, off!(task_iowait_byte)).unwrap_or(0);
    u32::from(byte) & off!(task_iowait_mask) != 0
}

/// The state becomes `to`; the time since the last change goes to the state before, which is `implied` when nothing was seen before.
#[inline(always)]
fn change(slot: *mut HolderSlot, implied: u64, to: u64) {
    let now = unsafe { bpf_ktime_get_ns() };
    // SAFETY: just looked up. The scheduler changes the state of a thread under one lock at a time, so there is one writer; user space
    // only takes the slot away, and reads the sums.
    unsafe {
        let known = core::ptr::read_volatile(&raw const (*slot).state);
        let before = if known == holder_state::UNKNOWN { implied } else { known };
        let spent = now.saturating_sub(core::ptr::read_volatile(&raw const (*slot).changed));
        let at = before as usize & (holder_state::COUNT - 1);
        let sum = &raw mut (*slot).spent[at];
        core::ptr::write_volatile(sum, core::ptr::read_volatile(sum).wrapping_add(spent));
        core::ptr::write_volatile(&raw mut (*slot).changed, now);
        core::ptr::write_volatile(&raw mut (*slot).state, to);
    }
}
