//! Identity and state of threads.

use tracer_common::{config::ABSENT, kind::task_field, record::TaskRecord};

use crate::{
    layout::off,
    mem::{field, read_into},
};

/// Thread and process id of a `task_struct`; zeros when there is none or it cannot be read.
///
/// KERNEL: `pid` and `tgid` have stood next to each other in `task_struct` for as long as there is BTF; where they do not, two reads
/// do it.
#[inline(always)]
pub fn ids(task: u64) -> (u32, u32) {
    if off!(task_tgid) == off!(task_pid).wrapping_add(4) {
        let both: u64 = field(task, off!(task_pid)).unwrap_or(0);
        (both as u32, (both >> 32) as u32)
    } else {
        (
            field(task, off!(task_pid)).unwrap_or(0),
            field(task, off!(task_tgid)).unwrap_or(0),
        )
    }
}

/// Fills `to` with the identity of the `task_struct` at `task`; `task == 0` gives an empty record.
///
/// The pointer may come from an owner word and so be stale: reads never fault, and what could not be read is not marked.
#[inline(always)]
pub fn identify(to: &mut TaskRecord, task: u64) {
    *to = TaskRecord {
        task,
        start: 0,
        switches: 0,
        cgroup: 0,
        tid: 0,
        tgid: 0,
        comm: [0; 16],
        state: 0,
        pf_flags: 0,
        cpu: 0,
        on_cpu: 0,
        in_iowait: 0,
        fields: 0,
    };
    if task == 0 {
        return;
    }
    let comm = off!(task_comm);
    (to.tid, to.tgid) = ids(task);
    if to.tid == 0 || comm == ABSENT || !read_into(task + u64::from(comm), &mut to.comm) {
        to.fields = task_field::UNREADABLE;
        return;
    }
    to.fields = task_field::IDENTITY;
    if let Some(start) = field(task, off!(task_start)) {
        to.start = start;
        to.fields |= task_field::START;
    }
}

/// As [`identify`], and the scheduler's state: for iterators, which can afford the reads.
#[inline(always)]
pub fn fill(to: &mut TaskRecord, task: u64) {
    identify(to, task);
    if to.fields & task_field::IDENTITY == 0 {
        return;
    }
    let mut fields = to.fields;
    if let (Some(state), Some(on_cpu)) = (
        field::<u32>(task, off!(task_state)),
        field::<u32>(task, off!(task_on_cpu)),
    ) {
        to.state = state | field::<u32>(task, off!(task_exit_state)).unwrap_or(0);
        to.on_cpu = u8::from(on_cpu != 0);
        if let Some(byte) = field::<u8>(task, off!(task_iowait_byte)) {
            to.in_iowait = u8::from(u32::from(byte) & off!(task_iowait_mask) != 0);
        }
        fields |= task_field::STATE;
    }
    if let (Some(voluntary), Some(involuntary)) = (
        field::<u64>(task, off!(task_nvcsw)),
        field::<u64>(task, off!(task_nivcsw)),
    ) {
        to.switches = voluntary.wrapping_add(involuntary);
        fields |= task_field::SWITCHES;
    }
    if let Some(cpu) = field(task, off!(task_cpu)) {
        to.cpu = cpu;
        fields |= task_field::CPU;
    }
    if let Some(flags) = field(task, off!(task_flags)) {
        to.pf_flags = flags;
        fields |= task_field::FLAGS;
    }
    if let Some(cgroup) = cgroup(task) {
        to.cgroup = cgroup;
        fields |= task_field::CGROUP;
    }
    to.fields = fields;
}

/// KERNEL: `task->cgroups->dfl_cgrp->kn->id`, as `bpf_get_current_cgroup_id` does for the current task; 5.5 to 6.18.
#[inline(always)]
fn cgroup(task: u64) -> Option<u64> {
    let css_set: u64 = field(task, off!(task_cgroups))?;
    let cgroup: u64 = field(css_set, off!(css_set_dfl_cgrp))?;
    let node: u64 = field(cgroup, off!(cgroup_kn))?;
    field(node, off!(kernfs_node_id))
}
