//! What user space tells the programs before they are loaded: kernel layout and settings. Both are read-only globals, so the
//! verifier removes the code of features that are off.

use crate::watch::MAX_WATCHED;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Offset of a field that this kernel's BTF does not have.
pub const ABSENT: u32 = u32::MAX;

/// Byte offsets of kernel fields, from `/sys/kernel/btf/vmlinux`; [`ABSENT`] disables what needs the field.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Layout {
    /// `task_struct.pid`.
    pub task_pid: u32,
    /// `task_struct.tgid`.
    pub task_tgid: u32,
    /// `task_struct.comm`.
    pub task_comm: u32,
    /// `task_struct.start_time`.
    pub task_start: u32,
    /// `task_struct.__state` (`state` before 5.14).
    pub task_state: u32,
    /// `task_struct.exit_state`.
    pub task_exit_state: u32,
    /// `task_struct.on_cpu`.
    pub task_on_cpu: u32,
    /// `task_struct.cpu` or `task_struct.thread_info.cpu`.
    pub task_cpu: u32,
    /// `task_struct.flags` (`PF_*`).
    pub task_flags: u32,
    /// `task_struct.nvcsw`.
    pub task_nvcsw: u32,
    /// `task_struct.nivcsw`.
    pub task_nivcsw: u32,
    /// Byte that holds `task_struct.in_iowait`.
    pub task_iowait_byte: u32,
    /// Mask of `in_iowait` in that byte.
    pub task_iowait_mask: u32,
    /// `task_struct.cgroups`.
    pub task_cgroups: u32,
    /// `css_set.dfl_cgrp`.
    pub css_set_dfl_cgrp: u32,
    /// `cgroup.kn`.
    pub cgroup_kn: u32,
    /// `kernfs_node.id`.
    pub kernfs_node_id: u32,
    /// `task_struct.pi_blocked_on`.
    pub task_pi_blocked_on: u32,
    /// `rt_mutex_waiter.lock`.
    pub rt_waiter_lock: u32,
    /// `mutex.owner`.
    pub mutex_owner: u32,
    /// `mutex.wait_list`.
    pub mutex_wait_list: u32,
    /// `mutex_waiter.list`.
    pub mutex_waiter_list: u32,
    /// `mutex_waiter.task`.
    pub mutex_waiter_task: u32,
    /// `rw_semaphore.count`.
    pub rwsem_count: u32,
    /// `rw_semaphore.owner`.
    pub rwsem_owner: u32,
    /// `rw_semaphore.wait_list`.
    pub rwsem_wait_list: u32,
    /// `rwsem_waiter.list`.
    pub rwsem_waiter_list: u32,
    /// `rwsem_waiter.task`.
    pub rwsem_waiter_task: u32,
    /// `semaphore.count`.
    pub sem_count: u32,
    /// `semaphore.wait_list`.
    pub sem_wait_list: u32,
    /// `semaphore_waiter.list`.
    pub sem_waiter_list: u32,
    /// `semaphore_waiter.task`.
    pub sem_waiter_task: u32,
    /// `rt_mutex_base.owner` (`rt_mutex.owner` before 5.15).
    pub rt_mutex_owner: u32,
    /// `percpu_rw_semaphore.writer.task`.
    pub percpu_writer: u32,
    /// `task_struct.stack`.
    pub task_stack: u32,
    /// Saved stack pointer of a thread that is off the CPU (`task_struct.thread`).
    pub task_saved_sp: u32,
    /// `task_struct.blocker`.
    pub task_blocker: u32,
    /// `task_struct.blocked_on`.
    pub task_blocked_on: u32,
    /// `struct kthread *` of a kernel thread.
    pub task_kthread: u32,
    /// `task_struct.mm`.
    pub task_mm: u32,
    /// `task_struct.se.exec_start`.
    pub task_exec_start: u32,
    /// `completion.wait`.
    pub completion_wait: u32,
    /// `completion.wait.task_list`.
    pub completion_wait_list: u32,
    /// `swait_queue.task`.
    pub swait_task: u32,
    /// `swait_queue.task_list`.
    pub swait_list: u32,
    /// `wait_queue_head.head`.
    pub wait_queue_head: u32,
    /// `wait_queue_entry.private`.
    pub wait_entry_private: u32,
    /// `wait_queue_entry.entry`.
    pub wait_entry_list: u32,
    /// `percpu_rw_semaphore.waiters`.
    pub percpu_waiters: u32,
    /// `rt_mutex_base.waiters` (`rt_mutex.waiters` before 5.15).
    pub rt_mutex_waiters: u32,
    /// `rt_mutex_waiter.tree.entry` (`tree_entry` up to 5.15).
    pub rt_waiter_tree: u32,
    /// `rt_mutex_waiter.task`.
    pub rt_waiter_task: u32,
    /// `task_struct.signal`.
    pub task_signal: u32,
    /// `task_struct.sighand`.
    pub task_sighand: u32,
    /// `task_struct.files`.
    pub task_files: u32,
    /// `task_struct.fs`.
    pub task_fs: u32,
    /// Size of a kernel stack in bytes.
    pub stack_size: u32,
}

impl Layout {
    /// Number of fields.
    pub const FIELDS: usize = core::mem::size_of::<Self>() / 4;

    /// A layout in which every field is missing.
    pub const NONE: Self = Self {
        task_pid: ABSENT,
        task_tgid: ABSENT,
        task_comm: ABSENT,
        task_start: ABSENT,
        task_state: ABSENT,
        task_exit_state: ABSENT,
        task_on_cpu: ABSENT,
        task_cpu: ABSENT,
        task_flags: ABSENT,
        task_nvcsw: ABSENT,
        task_nivcsw: ABSENT,
        task_iowait_byte: ABSENT,
        task_iowait_mask: ABSENT,
        task_cgroups: ABSENT,
        css_set_dfl_cgrp: ABSENT,
        cgroup_kn: ABSENT,
        kernfs_node_id: ABSENT,
        task_pi_blocked_on: ABSENT,
        rt_waiter_lock: ABSENT,
        mutex_owner: ABSENT,
        mutex_wait_list: ABSENT,
        mutex_waiter_list: ABSENT,
        mutex_waiter_task: ABSENT,
        rwsem_count: ABSENT,
        rwsem_owner: ABSENT,
        rwsem_wait_list: ABSENT,
        rwsem_waiter_list: ABSENT,
        rwsem_waiter_task: ABSENT,
        sem_count: ABSENT,
        sem_wait_list: ABSENT,
        sem_waiter_list: ABSENT,
        sem_waiter_task: ABSENT,
        rt_mutex_owner: ABSENT,
        percpu_writer: ABSENT,
        task_stack: ABSENT,
        task_saved_sp: ABSENT,
        task_blocker: ABSENT,
        task_blocked_on: ABSENT,
        task_kthread: ABSENT,
        task_mm: ABSENT,
        task_exec_start: ABSENT,
        completion_wait: ABSENT,
        completion_wait_list: ABSENT,
        swait_task: ABSENT,
        swait_list: ABSENT,
        wait_queue_head: ABSENT,
        wait_entry_private: ABSENT,
        wait_entry_list: ABSENT,
        percpu_waiters: ABSENT,
        rt_mutex_waiters: ABSENT,
        rt_waiter_tree: ABSENT,
        rt_waiter_task: ABSENT,
        task_signal: ABSENT,
        task_sighand: ABSENT,
        task_files: ABSENT,
        task_fs: ABSENT,
        stack_size: ABSENT,
    };
}

/// Settings of one run.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Settings {
    /// Waits at least this long become events when they end.
    pub min_wait_ns: u64,
    /// The iterator reports waits at least this old.
    pub pending_ns: u64,
    /// Kernel address of the array `__per_cpu_offset`; 0 when unknown.
    pub per_cpu_offset: u64,
    /// Address of the preempt count relative to a CPU's per-CPU offset.
    pub preempt_count: u64,
    /// 1: every begin and end becomes an event.
    pub emit_all: u32,
    /// 1: events carry the waiter's kernel stack.
    pub stacks: u32,
    /// Index mask of the buckets of the wait table (buckets - 1; a power of two).
    pub wait_mask: u32,
    /// Index mask of one CPU's part of the lock table.
    pub cell_mask: u32,
    /// Index mask of one CPU's part of the spin log.
    pub spin_log_mask: u32,
    /// Number of possible CPUs.
    pub cpus: u32,
    /// 1: in kprobe mode the end of a spin is not seen, so the begin is logged.
    pub spin_begin_only: u32,
    /// Index mask of one CPU's part of the log of watched locks.
    pub watch_log_mask: u32,
    /// Addresses of watched locks, 0 where there is none.
    pub watch: [u64; MAX_WATCHED],
}

impl Settings {
    /// Everything off; used only as the initial value that user space overrides.
    pub const NONE: Self = Self {
        min_wait_ns: 0,
        pending_ns: 0,
        per_cpu_offset: 0,
        preempt_count: 0,
        emit_all: 0,
        stacks: 0,
        wait_mask: 0,
        cell_mask: 0,
        spin_log_mask: 0,
        cpus: 0,
        spin_begin_only: 0,
        watch_log_mask: 0,
        watch: [0; MAX_WATCHED],
    };
}
