//! The part of the kernel's layout that the BPF programs need, as the record they are given before load.

use tracer_common::config::{ABSENT, Layout};

use super::offsets::KernelOffsets;

/// Converts the looked-up offsets; a field this kernel lacks becomes [`ABSENT`], which disables what needs it.
#[must_use]
pub fn bpf_layout(o: &KernelOffsets) -> Layout {
    let or_absent = |offset: Option<u32>| offset.unwrap_or(ABSENT);
    Layout {
        task_pid: or_absent(o.task.pid),
        task_tgid: or_absent(o.task.tgid),
        task_comm: or_absent(o.task.comm),
        task_start: or_absent(o.task.start_time),
        task_state: or_absent(o.task.state),
        task_exit_state: or_absent(o.task.exit_state),
        task_on_cpu: or_absent(o.task.on_cpu),
        task_cpu: or_absent(o.task.cpu),
        task_flags: or_absent(o.task.flags),
        task_nvcsw: or_absent(o.task.nvcsw),
        task_nivcsw: or_absent(o.task.nivcsw),
        task_iowait_byte: or_absent(o.task.in_iowait.map(|bit| bit.byte)),
        task_iowait_mask: o
            .task
            .in_iowait
            .map_or(0, |bit| 1u32.checked_shl(bit.shift.into()).unwrap_or(0)),
        task_cgroups: or_absent(o.task.cgroups),
        css_set_dfl_cgrp: or_absent(o.cgroup.dfl_cgrp),
        cgroup_kn: or_absent(o.cgroup.kn),
        kernfs_node_id: or_absent(o.cgroup.id),
        task_pi_blocked_on: or_absent(o.task.pi_blocked_on),
        rt_waiter_lock: or_absent(o.rt_mutex_waiter.lock),
        mutex_owner: or_absent(o.mutex.owner),
        mutex_wait_list: or_absent(o.mutex.wait_list),
        mutex_waiter_list: or_absent(o.mutex_waiter.list),
        mutex_waiter_task: or_absent(o.mutex_waiter.task),
        rwsem_count: or_absent(o.rwsem.count),
        rwsem_owner: or_absent(o.rwsem.owner),
        rwsem_wait_list: or_absent(o.rwsem.wait_list),
        rwsem_waiter_list: or_absent(o.rwsem_waiter.list),
        rwsem_waiter_task: or_absent(o.rwsem_waiter.task),
        sem_count: or_absent(o.semaphore.count),
        sem_wait_list: or_absent(o.semaphore.wait_list),
        sem_waiter_list: or_absent(o.semaphore_waiter.list),
        sem_waiter_task: or_absent(o.semaphore_waiter.task),
        rt_mutex_owner: or_absent(o.rt_mutex.owner),
        percpu_writer: or_absent(o.percpu_rwsem.writer_task),
        task_stack: or_absent(o.task.stack),
        task_saved_sp: or_absent(o.task.saved_sp),
        task_blocker: or_absent(o.task.blocker),
        task_blocked_on: or_absent(o.task.blocked_on),
        task_kthread: or_absent(o.task.kthread),
        task_mm: or_absent(o.task.mm),
        task_exec_start: or_absent(o.task.exec_start),
        completion_wait: or_absent(o.completion.wait),
        completion_wait_list: or_absent(o.completion.wait_list),
        swait_task: or_absent(o.swait.task),
        swait_list: or_absent(o.swait.list),
        wait_queue_head: or_absent(o.wait_queue.head),
        wait_entry_private: or_absent(o.wait_queue.private),
        wait_entry_list: or_absent(o.wait_queue.entry),
        percpu_waiters: or_absent(o.percpu_rwsem.waiters),
        rt_mutex_waiters: or_absent(o.rt_mutex.waiters),
        rt_waiter_tree: or_absent(o.rt_mutex_waiter.tree),
        rt_waiter_task: or_absent(o.rt_mutex_waiter.task),
        task_signal: or_absent(o.task.signal),
        task_sighand: or_absent(o.task.sighand),
        task_files: or_absent(o.task.files),
        task_fs: or_absent(o.task.fs),
        stack_size: stack_size(o),
    }
}

/// KERNEL: THREAD_SIZE (arch/x86/include/asm/page_64_types.h, arch/arm64/include/asm/memory.h), 5.10 to 6.18: 16 KiB, twice
/// that with KASAN. No type tells it.
pub(super) fn stack_size(o: &KernelOffsets) -> u32 {
    const THREAD_SIZE: u32 = 16 << 10;
    if o.task.kasan_depth.is_some() {
        2 * THREAD_SIZE
    } else {
        THREAD_SIZE
    }
}
