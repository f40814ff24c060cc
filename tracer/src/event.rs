//! What happened in the kernel, as every source tells it: live probes, iterators, a capture, or a scenario text.
//!
//! Events are observations, never conclusions: each says who saw it ([`Evidence`]) and leaves judgement to the model and the
//! diagnosis. Time comes only from [`Event::time`], so that a replay yields the same findings as the live run.

mod code_line;
mod coverage;
mod dependency;
mod doing;
mod lock;
mod name;
mod raw;
mod stall;
mod task;
mod user_stack;
mod wait;
mod watch;

use serde::{Deserialize, Serialize};

pub use code_line::{CodeLine, Inlined, Place};
pub use coverage::{LossCause, LossReport, Round, RoundEdge, RoundScope};
pub use dependency::{Dependency, DependencySample};
pub use doing::{Activity, Argument, CgroupName, Doing, FileKind};
pub use lock::{HolderCandidate, LockKind, LockSample, LockStats, Mode, Owner, Reinit, Release};
pub use name::{LockName, StackFrames, SymbolName};
pub use raw::RawRecord;
pub use stall::CpuStall;
pub use task::{Actor, Context, TaskRef, TaskSample, TaskState, TimeSpent};
pub use user_stack::{UserFile, UserFrame, UserFunction, UserStack};
pub use wait::{Phase, Queued, WaitEnd, WaitSample};
pub use watch::{Act, Watched};

use crate::ids::{TaskKey, Timestamp};

/// One observation at one instant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When the kernel (or the sampler) saw it.
    pub time: Timestamp,
    /// What was seen.
    pub body: Body,
}

/// What was seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    /// The state of one thread.
    Task(TaskSample),
    /// A thread was found to be gone (exited and reaped).
    TaskGone(TaskKey),
    /// Somebody waits for a lock: at the begin of the wait, or re-read while it lasts.
    Wait(WaitSample),
    /// A wait ended.
    WaitEnd(WaitEnd),
    /// A holder released a lock that had waiters.
    Release(Release),
    /// The owner word of a lock was read without a waiter at hand.
    Lock(LockSample),
    /// Somebody waits for something that is no lock.
    Dependency(DependencySample),
    /// Somebody may hold a lock that does not record its holder.
    Holder(HolderCandidate),
    /// Contention of one lock since the previous report of the same lock, kind and mode.
    Stats(LockStats),
    /// Frames of a stack, sent before the first event that names its id.
    Stack(StackFrames),
    /// A kernel address has this name.
    Symbol(SymbolName),
    /// A kernel address comes from this place in the source.
    CodeLine(CodeLine),
    /// A lock has this name.
    LockName(LockName),
    /// What a thread is about.
    Doing(Doing),
    /// Where a sleeping thread came from in user space.
    UserStack(UserStack),
    /// A cgroup has this path.
    CgroupName(CgroupName),
    /// A lock was initialised again while it was held or waited on.
    Reinit(Reinit),
    /// Where a thread that holds others up has spent its time.
    TimeSpent(TimeSpent),
    /// A watched lock was acquired or released.
    Watch(Watched),
    /// The kernel's own watchers say that a CPU neither schedules nor ticks, or that it does again.
    Stall(CpuStall),
    /// Counters of what was not seen, cumulative since the source started.
    Loss(LossReport),
    /// A sampling round starts or ends.
    Round(Round),
    /// The record that the events behind it were decoded from, for the capture. No event of its own: only [`crate::capture`] looks at
    /// it, and only a source that is being recorded sends it.
    #[serde(skip)]
    Record(RawRecord),
}

/// Who says so. Shown in evidence lines; decides how certain a finding may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Evidence {
    /// `lock:contention_begin` / `contention_end` tracepoint.
    Tracepoint,
    /// Kprobe on the lock's slowpath.
    Kprobe,
    /// Wait seen by a probe before, owner and wait list re-read from the lock now.
    Reread,
    /// The waiter record on the waiter's kernel stack, validated against the lock's wait list.
    WaiterRecord,
    /// `task_struct.blocker` / `blocked_on`; of who is stopped, `ptrace`, `parent` and `jobctl`.
    BlockedOnField,
    /// `task_struct.pi_blocked_on`.
    PiBlockedOn,
    /// Function names on the stack only.
    StackFrames,
    /// The exact address of the object stands on the stack.
    StackWord,
    /// A pointer into the object that contains the lock stands on the stack.
    StackNear,
    /// The exact address of the object stands in a register of a CPU.
    RegisterWord,
    /// A pointer into the object that contains the lock stands in a register of a CPU.
    RegisterNear,
    /// The last-reader hint of a rwsem.
    OwnerHint,
    /// CPU sampler: registers or crossing stack of an interrupted context.
    CpuSample,
    /// The acquisition itself was seen (watched lock).
    Acquisition,
    /// Scenario text.
    Script,
}
