//! Identity and state of threads.

use tracer_common::{config::ABSENT, kind::task_field, record::TaskRecord};

use crate::{
    layout::off,
    mem::{field, read_into},
};

/// Fills `to` with what can be read of the `task_struct` at `task`; `task == 0` gives an empty record.
///
/// The pointer may come from an owner word and so be stale: reads never fault, and what could not be read is not marked.
#[inline(always)]
pub fn fill(to: &mut TaskRecord, task: u64) {
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
    let mut fields = 0;
    let comm = off!(task_comm);
    match (field(task, off!(task_pid)), field(task, off!(task_tgid))) {
        (Some(tid), Some(tgid)) if comm != ABSENT && read_into(task + u64::from(comm), &mut to.comm) => {
            to.tid = tid;
            to.tgid = tgid;
            fields |= task_field::IDENTITY;
        }
        _ => {
            to.fields = task_field::UNREADABLE;
            return;
        }
    }
    if let Some(start) = field(task, off!(task_start)) {
        to.start = start;
        fields |= task_field::START;
    }
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
