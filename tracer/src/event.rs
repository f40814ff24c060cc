//! What happened in the kernel, as every source tells it: live probes, iterators, a capture, or a scenario text.
//!
//! Events are observations, never conclusions: each says who saw it ([`Evidence`]) and leaves judgement to the model and the
//! diagnosis. Time comes only from [`Event::time`], so that a replay yields the same findings as the live run.

mod code_line;
mod doing;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use code_line::{CodeLine, Inlined, Place};
pub use doing::{Activity, Argument, CgroupName, Doing, FileKind};

use crate::ids::{CgroupId, CpuId, KernelAddr, LockAddr, Nanos, StackId, TaskKey, Tgid, Timestamp};

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
    /// A cgroup has this path.
    CgroupName(CgroupName),
    /// A lock was initialised again while it was held or waited on.
    Reinit(Reinit),
    /// Where a thread that holds others up has spent its time.
    TimeSpent(TimeSpent),
    /// Counters of what was not seen, cumulative since the source started.
    Loss(LossReport),
    /// A sampling round starts or ends.
    Round(Round),
}

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

/// Kind of a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LockKind {
    /// `struct mutex`.
    Mutex,
    /// `struct ww_mutex`: may end a cycle by itself with -EDEADLK.
    WwMutex,
    /// `struct rw_semaphore`.
    Rwsem,
    /// `struct rt_mutex`.
    RtMutex,
    /// `struct percpu_rw_semaphore`.
    PercpuRwsem,
    /// `struct semaphore`.
    Semaphore,
    /// `spinlock_t` / `raw_spinlock_t`.
    Spinlock,
    /// `rwlock_t`.
    Rwlock,
    /// `spinlock_t` or `rwlock_t` on PREEMPT_RT: sleeps, has an owner.
    RtSpinlock,
    /// Some lock whose kind the evidence does not tell.
    Unknown,
}

impl LockKind {
    /// Whether who waits for it burns a CPU: then it is another lock than a sleeping one at the same address. A semaphore and an
    /// rt_mutex begin with the raw spinlock that protects them (include/linux/semaphore.h, rtmutex.h; 5.15 to 6.18).
    #[must_use]
    pub fn spins(self) -> bool {
        matches!(self, Self::Spinlock | Self::Rwlock)
    }
}

/// How a lock is wanted or held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Alone.
    Exclusive,
    /// For reading, together with other readers.
    Shared,
}

/// What the waiter does while it waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Burns a CPU.
    Spinning,
    /// Off the CPU, or about to be.
    Sleeping,
}

/// Who holds a lock, as its own words say at one instant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Owner {
    /// The owner word names nobody.
    Nobody,
    /// The owner word names this thread as exclusive owner.
    Task(TaskRef),
    /// Exclusive owner whose identity could not be read (freed or unreadable task).
    Unreadable(KernelAddr),
    /// Held for reading; who holds it is not recorded.
    Readers {
        /// The last reader to acquire, which may have left again: a hint only.
        hint: Option<TaskRef>,
        /// Number of readers, where the count word tells.
        count: Option<u32>,
    },
    /// This kind of lock records no owner.
    NotRecorded,
}

/// Whether the waiter's own record was found on the lock's wait list at this instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Queued {
    /// Found, this many waiters stand before it.
    At(u32),
    /// Found, but not how many stand before it (rt_mutex waiters sit in a tree).
    Somewhere,
    /// The whole list was walked and the waiter is not on it (a spinner, or a wait that has ended).
    Absent,
    /// Not looked at, or the list was too long or changing.
    Unknown,
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
    /// `task_struct.blocker` / `blocked_on`.
    BlockedOnField,
    /// `task_struct.pi_blocked_on`.
    PiBlockedOn,
    /// Function names on the stack only.
    StackFrames,
    /// The exact address of the object stands on the stack.
    StackWord,
    /// A pointer into the object that contains the lock stands on the stack.
    StackNear,
    /// The last-reader hint of a rwsem.
    OwnerHint,
    /// CPU sampler: registers or crossing stack of an interrupted context.
    CpuSample,
    /// The acquisition itself was seen (watched lock).
    Acquisition,
    /// Scenario text.
    Script,
}

/// An owner/waiter tuple.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitSample {
    /// Who waits.
    pub waiter: Actor,
    /// Name of the waiter when it is a thread (or the interrupted thread, for an interrupt).
    pub task: Option<TaskRef>,
    /// What for.
    pub lock: LockAddr,
    /// Kind of the lock.
    pub kind: LockKind,
    /// How it is wanted.
    pub mode: Mode,
    /// Spinning or sleeping.
    pub phase: Phase,
    /// When the wait began; `None` when it is older than the tool and the kernel does not tell.
    pub since: Option<Timestamp>,
    /// The raw owner word, for evidence lines.
    pub owner_word: u64,
    /// Its meaning.
    pub owner: Owner,
    /// Whether the waiter stands on the lock's own wait list.
    pub queued: Queued,
    /// CPU on which it was seen.
    pub cpu: Option<CpuId>,
    /// Stack of the waiter, 0 when not taken.
    pub stack: StackId,
    /// Who says so.
    pub evidence: Evidence,
}

/// The end of a wait.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitEnd {
    /// Who waited.
    pub waiter: Actor,
    /// What for.
    pub lock: LockAddr,
    /// 0 when the lock was acquired, else the negative errno (`-EINTR`, `-ETIME`, `-EDEADLK`) that ended the wait.
    pub result: i32,
    /// How long it took.
    pub waited: Nanos,
}

/// A release seen in an unlock slowpath.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// Who released.
    pub task: TaskRef,
    /// What.
    pub lock: LockAddr,
    /// Kind of the lock.
    pub kind: LockKind,
    /// Stack of the releaser, 0 when not taken.
    pub stack: StackId,
}

/// The words of a lock, read at one instant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockSample {
    /// Which lock.
    pub lock: LockAddr,
    /// Kind of the lock.
    pub kind: LockKind,
    /// The raw owner word (spinlocks: the lock word).
    pub owner_word: u64,
    /// Its meaning.
    pub owner: Owner,
}

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
    /// A signal stop or a tracer.
    Stop,
    /// A wait queue, named by its caller on the stack.
    WaitQueue,
    /// This wait queue, on whose list the waiter stands.
    WaitQueueHead {
        /// Address of the `wait_queue_head`.
        queue: KernelAddr,
    },
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

/// Evidence that somebody holds a lock which records no holder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HolderCandidate {
    /// Which lock.
    pub lock: LockAddr,
    /// Kind of the lock.
    pub kind: LockKind,
    /// How it would be held.
    pub mode: Mode,
    /// Who may hold it.
    pub holder: Actor,
    /// Name of the holder when it is a thread.
    pub task: Option<TaskRef>,
    /// Rank among the candidates of this lock in this round, 0 = best.
    pub rank: u32,
    /// Who says so.
    pub evidence: Evidence,
}

/// Contention of one lock since the previous report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockStats {
    /// Which lock.
    pub lock: LockAddr,
    /// Kind of the lock.
    pub kind: LockKind,
    /// How it was wanted.
    pub mode: Mode,
    /// Waits that ended in the interval.
    pub waits: u64,
    /// Their summed time.
    pub total: Nanos,
    /// The longest of them.
    pub max: Nanos,
    /// Waits per power of two of nanoseconds: `histogram[i]` counts waits in `[2^i, 2^(i+1))` ns.
    pub histogram: Vec<u64>,
}

/// Frames of a stack, innermost first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StackFrames {
    /// Identity of the stack.
    pub id: StackId,
    /// Return addresses, innermost first.
    pub frames: Arc<[KernelAddr]>,
}

/// Name of a kernel address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SymbolName {
    /// The address as it stands in a stack.
    pub addr: KernelAddr,
    /// Symbol name without offset.
    pub name: Arc<str>,
    /// Offset into the symbol.
    pub offset: u64,
    /// Module, where not the kernel proper.
    pub module: Option<Arc<str>>,
}

/// Name of a lock and how it is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockName {
    /// Which lock.
    pub lock: LockAddr,
    /// E.g. `rtnl_mutex`, `inode.i_rwsem`.
    pub name: Arc<str>,
    /// How it is known, e.g. `kernel symbol`, `object of the slab cache ext4_inode_cache`.
    pub source: Arc<str>,
    /// What it has in common with others of its kind, e.g. `inode.i_rwsem`; `None` in captures of version 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<Arc<str>>,
}

/// A lock or completion was initialised again while in use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reinit {
    /// Which object.
    pub lock: LockAddr,
    /// Its kind; completions and wait queues are [`LockKind::Unknown`].
    pub kind: LockKind,
    /// Who did it.
    pub task: TaskRef,
    /// Where.
    pub stack: StackId,
    /// Waiters found on its wait list at that moment (lower bound), if any.
    pub waiters: u32,
    /// Owner at that moment.
    pub owner: Owner,
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

/// Counters of what was not seen, cumulative since the source started, by cause.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LossReport {
    /// `(cause, events lost)`, sorted by cause; causes with zero losses are left out.
    pub by_cause: Vec<(LossCause, u64)>,
}

/// Why something was not seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LossCause {
    /// The ring buffer was full.
    RingFull,
    /// Another of our programs was at work on this CPU.
    Busy,
    /// No free slot for a pending wait.
    WaitTableFull,
    /// No free cell for a lock's statistics.
    LockTableFull,
    /// An interrupt nested deeper than there are slots.
    SpinNesting,
    /// The end of a wait was never seen.
    MissedEnd,
    /// The kernel skipped one of our programs (recursion).
    ProgramSkipped,
    /// A record that could not be decoded.
    Malformed,
    /// A read of kernel memory failed.
    ReadFailed,
    /// User space dropped events because it could not keep up.
    Overrun,
    /// A stack could not be taken.
    StackLost,
}

/// Marks a sampling round. Between begin and end every wait that is still pending and older than the source's threshold is
/// reported again; one that is not reported has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Round {
    /// Number of the round, increasing.
    pub number: u64,
    /// Begin or end.
    pub edge: RoundEdge,
    /// What the round covers.
    pub scope: RoundScope,
}

/// Begin or end of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RoundEdge {
    /// The round starts.
    Begin,
    /// The round is over and was complete.
    End,
    /// The round was cut short: absence proves nothing.
    Aborted,
}

/// What a round covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RoundScope {
    /// Waits which probes saw begin and that last at least the source's threshold.
    Pending,
    /// Every thread of the machine (snapshot).
    AllTasks,
}
