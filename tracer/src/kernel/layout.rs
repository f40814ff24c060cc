//! The part of the kernel's layout that the BPF programs need, taken from BTF.

use tracer_common::config::{ABSENT, Layout};

use super::btf::{Btf, MemberOffset};

/// Looks every field of [`Layout`] up; a field this kernel lacks becomes [`ABSENT`], which disables what needs it.
#[must_use]
pub fn bpf_layout(btf: &Btf) -> Layout {
    let find = |alternatives: &[(&str, &str)]| -> Option<MemberOffset> {
        alternatives.iter().find_map(|(strukt, path)| btf.member_offset(strukt, path).ok())
    };
    let offset = |alternatives: &[(&str, &str)]| find(alternatives).map_or(ABSENT, |member| member.bytes);
    let one = |strukt: &str, path: &str| offset(&[(strukt, path)]);
    let iowait = find(&[("task_struct", "in_iowait")]);
    // On PREEMPT_RT mutex and rw_semaphore are built on rtmutexes: no owner word of their own, no wait list.
    Layout {
        task_pid: one("task_struct", "pid"),
        task_tgid: one("task_struct", "tgid"),
        task_comm: one("task_struct", "comm"),
        task_start: one("task_struct", "start_time"),
        task_state: offset(&[("task_struct", "__state"), ("task_struct", "state")]),
        task_exit_state: one("task_struct", "exit_state"),
        task_on_cpu: one("task_struct", "on_cpu"),
        task_cpu: offset(&[("task_struct", "thread_info.cpu"), ("task_struct", "cpu")]),
        task_flags: one("task_struct", "flags"),
        task_nvcsw: one("task_struct", "nvcsw"),
        task_nivcsw: one("task_struct", "nivcsw"),
        task_iowait_byte: iowait.as_ref().map_or(ABSENT, |member| member.bytes),
        task_iowait_mask: iowait.as_ref().map_or(ABSENT, bit_mask),
        task_cgroups: one("task_struct", "cgroups"),
        css_set_dfl_cgrp: one("css_set", "dfl_cgrp"),
        cgroup_kn: one("cgroup", "kn"),
        kernfs_node_id: one("kernfs_node", "id"),
        task_pi_blocked_on: one("task_struct", "pi_blocked_on"),
        rt_waiter_lock: one("rt_mutex_waiter", "lock"),
        mutex_owner: offset(&[("mutex", "owner"), ("mutex", "rtmutex.owner")]),
        mutex_wait_list: one("mutex", "wait_list"),
        mutex_waiter_list: one("mutex_waiter", "list"),
        mutex_waiter_task: one("mutex_waiter", "task"),
        rwsem_count: one("rw_semaphore", "count"),
        rwsem_owner: one("rw_semaphore", "owner"),
        rwsem_wait_list: one("rw_semaphore", "wait_list"),
        rwsem_waiter_list: one("rwsem_waiter", "list"),
        rwsem_waiter_task: one("rwsem_waiter", "task"),
        sem_count: one("semaphore", "count"),
        sem_wait_list: one("semaphore", "wait_list"),
        sem_waiter_list: one("semaphore_waiter", "list"),
        sem_waiter_task: one("semaphore_waiter", "task"),
        rt_mutex_owner: offset(&[("rt_mutex_base", "owner"), ("rt_mutex", "owner")]),
        percpu_writer: one("percpu_rw_semaphore", "writer.task"),
    }
}

fn bit_mask(member: &MemberOffset) -> u32 {
    // A plain member counts as true when any bit of its first byte is set.
    member.bits.map_or(0xff, |bits| 1u32.checked_shl(bits.shift.into()).unwrap_or(0))
}
