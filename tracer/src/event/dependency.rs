//! Waits for what is no lock.

use serde::{Deserialize, Serialize};

use super::{Actor, Evidence, TaskRef};
use crate::ids::{CpuId, KernelAddr, StackId, Timestamp};

/// What somebody waits for when it is no lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dependency {
    /// `flush_work`, `cancel_work_sync`: until this work has run.
    WorkFlush {
        /// The work's function.
        function: KernelAddr,
    },
    /// `flush_workqueue`, `drain_workqueue`.
    WorkqueueFlush {
        /// Address of the `workqueue_struct`.
        workqueue: KernelAddr,
    },
    /// `wait_for_completion`.
    Completion {
        /// Address of the completion.
        completion: KernelAddr,
    },
    /// An inter-processor interrupt that this CPU must answer.
    Ipi {
        /// The CPU.
        cpu: CpuId,
    },
    /// Block I/O.
    BlockIo,
    /// A locked page or folio.
    PageLock,
    /// An RCU grace period.
    RcuGracePeriod,
    /// A signal stop, a tracer, or a freezer.
    Stop,
    /// A wait queue, named by its caller on the stack.
    WaitQueue,
    /// This wait queue, on whose list the waiter stands.
    WaitQueueHead {
        /// Address of the `wait_queue_head`.
        queue: KernelAddr,
    },
}

impl Dependency {
    /// Address of the completion or wait queue that is waited for.
    #[must_use]
    pub const fn object(&self) -> Option<KernelAddr> {
        match *self {
            Self::Completion { completion: addr } | Self::WaitQueueHead { queue: addr } => Some(addr),
            _ => None,
        }
    }
}

/// Somebody waits for something that is no lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DependencySample {
    /// Who waits.
    pub waiter: Actor,
    /// Name of the waiter when it is a thread.
    pub task: Option<TaskRef>,
    /// What for.
    pub dependency: Dependency,
    /// Who has to act, where known.
    pub on: Option<Actor>,
    /// Name of the one who has to act, when it is a thread.
    pub on_task: Option<TaskRef>,
    /// When the wait began, where known.
    pub since: Option<Timestamp>,
    /// Stack of the waiter, 0 when not taken.
    pub stack: StackId,
    /// Who says so.
    pub evidence: Evidence,
}
