//! Threads as records tell of them.

use std::sync::Arc;

use tracer_common::kind::task_field;
use tracer_common::record::TaskRecord;

use crate::event::{Body, Event, TaskRef, TaskSample, TaskState};
use crate::ids::{CgroupId, CpuId, StackId, TaskKey, Tgid, Tid, Timestamp};

/// A kernel `comm`: up to the first NUL, lossy UTF-8.
#[must_use]
pub fn comm(bytes: &[u8; 16]) -> Arc<str> {
    let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into()
}

/// Identity of the thread in a record.
pub(crate) fn task_ref(record: &TaskRecord) -> TaskRef {
    named_task(record, comm(&record.comm))
}

pub(super) fn named_task(record: &TaskRecord, comm: Arc<str>) -> TaskRef {
    TaskRef {
        key: TaskKey {
            tid: Tid(record.tid),
            start: Timestamp(record.start),
        },
        tgid: Tgid(record.tgid),
        comm,
    }
}

/// The state of the thread in a record as an event; `None` when it could not even be identified.
pub(crate) fn task_event(record: &TaskRecord, stack: StackId, time: Timestamp) -> Option<Event> {
    let has = |field| record.fields & field != 0;
    if !has(task_field::IDENTITY) || record.tid == 0 {
        return None;
    }
    Some(Event {
        time,
        body: Body::Task(TaskSample {
            task: task_ref(record),
            state: if has(task_field::STATE) {
                task_state(record)
            } else {
                TaskState::Unknown
            },
            cpu: has(task_field::CPU).then_some(CpuId(record.cpu)),
            switches: has(task_field::SWITCHES).then_some(record.switches),
            last_switch: None,
            kernel_thread: has(task_field::FLAGS) && record.pf_flags & PF_KTHREAD != 0,
            cgroup: CgroupId(record.cgroup),
            stack,
            work: None,
        }),
    })
}

/// KERNEL: include/linux/sched.h, 5.10 to 6.18.
const PF_KTHREAD: u32 = 0x0020_0000;

/// KERNEL: `TASK_*` and `EXIT_*` in include/linux/sched.h; the low bits used here are the same from 5.10 to 6.18.
pub(crate) fn task_state(record: &TaskRecord) -> TaskState {
    const INTERRUPTIBLE: u32 = 0x1;
    const UNINTERRUPTIBLE: u32 = 0x2;
    const STOPPED_OR_TRACED: u32 = 0x4 | 0x8;
    const DEAD_OR_ZOMBIE: u32 = 0x10 | 0x20 | 0x80;
    const WAKING_OR_NEW: u32 = 0x200 | 0x800;
    const NOLOAD: u32 = 0x400;
    const RTLOCK_WAIT: u32 = 0x1000;
    // 6.1 and newer; D to user space (`__task_state_index`).
    const FROZEN: u32 = 0x8000;
    let state = record.state;
    if state & DEAD_OR_ZOMBIE != 0 {
        TaskState::Exited
    } else if record.on_cpu != 0 {
        TaskState::Running
    } else if state == 0 || state & WAKING_OR_NEW != 0 {
        TaskState::Runnable
    } else if state & STOPPED_OR_TRACED != 0 {
        TaskState::Stopped
    } else if state & UNINTERRUPTIBLE != 0 && state & NOLOAD != 0 {
        TaskState::Idle
    } else if state & (UNINTERRUPTIBLE | RTLOCK_WAIT | FROZEN) != 0 {
        if record.in_iowait != 0 {
            TaskState::InIo
        } else {
            TaskState::Uninterruptible
        }
    } else if state & INTERRUPTIBLE != 0 {
        TaskState::Interruptible
    } else {
        TaskState::Unknown
    }
}
