//! Threads, interrupts, and what they do.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::ids::{CgroupId, CpuId, KernelAddr, Nanos, StackId, TaskKey, Tgid, Timestamp};

/// Who acts: a thread, or an interrupt context that runs above whatever thread it interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Actor {
    /// A thread in process context.
    Task(TaskKey),
    /// A softirq, hardirq or NMI on a CPU.
    Interrupt {
        /// The CPU it runs on.
        cpu: CpuId,
        /// Which kind of interrupt context; never [`Context::Task`].
        context: Context,
        /// The thread it interrupted, if known.
        interrupted: Option<TaskKey>,
    },
}

/// Execution context on a CPU, outermost last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Context {
    /// Process context.
    Task,
    /// Serving a softirq.
    Softirq,
    /// Serving a hardware interrupt.
    Hardirq,
    /// Non-maskable interrupt.
    Nmi,
}

/// Name and process of a thread; the newest one seen for a [`TaskKey`] wins.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TaskRef {
    /// Identity.
    pub key: TaskKey,
    /// Process id.
    pub tgid: Tgid,
    /// `task_struct.comm`, lossy UTF-8.
    pub comm: Arc<str>,
}

/// The state of one thread, as an iterator saw it or as it was read through an owner word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskSample {
    /// Who.
    pub task: TaskRef,
    /// Running, runnable or asleep.
    pub state: TaskState,
    /// CPU it runs on or ran on last.
    pub cpu: Option<CpuId>,
    /// Voluntary plus involuntary context switches (`nvcsw + nivcsw`): unchanged means that it has not run in between.
    pub switches: Option<u64>,
    /// Last time it left or entered a CPU, where the kernel tells.
    pub last_switch: Option<Timestamp>,
    /// No user-space part (`PF_KTHREAD`).
    pub kernel_thread: bool,
    /// cgroup, 0 when unknown.
    pub cgroup: CgroupId,
    /// Its kernel stack, 0 when not taken.
    pub stack: StackId,
    /// For a workqueue worker: the function it is executing.
    pub work: Option<KernelAddr>,
}

impl TaskSample {
    /// A sample that tells no more than the state.
    #[must_use]
    pub fn of(task: TaskRef, state: TaskState) -> Self {
        Self {
            task,
            state,
            cpu: None,
            switches: None,
            last_switch: None,
            kernel_thread: false,
            cgroup: CgroupId(0),
            stack: StackId(0),
            work: None,
        }
    }
}

/// Scheduler state of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TaskState {
    /// On a CPU (`on_cpu`).
    Running,
    /// Wants to run and has no CPU.
    Runnable,
    /// Uninterruptible sleep in block I/O (`in_iowait`).
    InIo,
    /// Uninterruptible sleep.
    Uninterruptible,
    /// Interruptible sleep.
    Interruptible,
    /// Idle kernel thread (`TASK_IDLE`): asleep by design.
    Idle,
    /// Stopped or traced.
    Stopped,
    /// Exited (zombie or dead).
    Exited,
    /// Not readable.
    Unknown,
}

/// Where a thread that holds others up has spent its time since it was first followed, as the scheduler told. What is missing of the time
/// in between is not known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeSpent {
    /// Who.
    pub task: TaskRef,
    /// Since when it was followed.
    pub since: Timestamp,
    /// On a CPU.
    pub running: Nanos,
    /// Wanting a CPU.
    pub runnable: Nanos,
    /// Asleep, not in I/O.
    pub sleeping: Nanos,
    /// Asleep in I/O.
    pub io: Nanos,
}
