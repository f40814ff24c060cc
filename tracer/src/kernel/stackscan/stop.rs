//! Threads that do not get on because somebody has stopped them.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;

use super::memory::Words;
use super::thread::{Thread, ThreadIx, Threads};
use crate::event::TaskState;
use crate::kernel::offsets::KernelOffsets;

/// `JOBCTL_TRAP_FREEZE` (include/linux/sched/jobctl.h), 5.2 to 6.18: set for as long as a cgroup (v2) is frozen.
const TRAP_FREEZE: u64 = 1 << 23;
/// `TASK_FROZEN` (include/linux/sched.h), 6.1 to 6.18: in the freezer of a cgroup (v1) or of a suspend.
const FROZEN: u32 = 0x8000;

/// Those of the sleepers that are stopped or frozen, each with its tracer if it has one.
///
/// KERNEL: `ptrace_link` (kernel/ptrace.c) makes the tracer the `parent` of who is traced; `do_freezer_trap` (kernel/signal.c)
/// sleeps interruptibly. 5.10 to 6.18.
///
/// # Errors
/// When kernel memory cannot be read at all.
pub fn stops(
    sleepers: &BTreeSet<ThreadIx>,
    threads: &Threads,
    o: &KernelOffsets,
    words: &mut Words<'_>,
) -> Result<BTreeMap<ThreadIx, Option<ThreadIx>>> {
    let t = &o.task;
    let (Some(ptrace), Some(parent), Some(jobctl)) = (t.ptrace, t.parent, t.jobctl) else {
        return Ok(BTreeMap::new());
    };
    let asked = || {
        let all = sleepers.iter().filter_map(|&ix| Some((ix, threads.get(ix)?)));
        all.filter(|(_, thread)| {
            matches!(thread.state(), TaskState::Stopped | TaskState::Interruptible) || is_frozen(thread)
        })
    };
    let at = |thread: &Thread, offset: u32| thread.record.task.task.wrapping_add(offset.into());
    words.fetch(asked().flat_map(|(_, thread)| [ptrace, parent, jobctl].map(|offset| at(thread, offset))))?;
    Ok(asked()
        .filter_map(|(ix, thread)| match thread.state() {
            TaskState::Stopped => {
                let is_traced = words.low(at(thread, ptrace))? != 0;
                let tracer = || threads.by_task(words.get(at(thread, parent))?);
                Some((ix, if is_traced { tracer() } else { None }))
            }
            TaskState::Interruptible => (words.get(at(thread, jobctl))? & TRAP_FREEZE != 0).then_some((ix, None)),
            _ => Some((ix, None)),
        })
        .collect())
}

fn is_frozen(thread: &Thread) -> bool {
    thread.record.task.state & FROZEN != 0
}
