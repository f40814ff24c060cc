//! What a finding is. These types are the contract of every output; `schema/holdup.v1.schema.json` documents their JSON form.

use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use super::about::About;
use crate::event::{Context, Evidence, LockKind, LossCause, Mode, TaskState};
use crate::ids::{CgroupId, CpuId, KernelAddr, LockAddr, Nanos, StackId, Tgid, Tid, Timestamp};
use crate::model::LockKey;

/// Kind of a finding. The names are a contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A task waits for a lock that it holds itself.
    SelfDeadlock,
    /// Tasks wait for each other in a circle.
    Cycle,
    /// An interrupt waits for a lock which the thread it interrupted holds.
    ContextDeadlock,
    /// A lock word that no holder explains.
    DeadLockWord,
    /// A lock with waiters, but without a holder that could release it.
    OrphanedLock,
    /// A lock was initialised again while somebody held it or waited for it.
    ReinitInUse,
    /// One task, itself not waiting for a lock, stands before all the others.
    RootBlocker,
    /// Readers queue behind a writer that waits for other readers.
    ReaderPileUp,
    /// A lock that costs much waiting although it is released again and again.
    HotLock,
    /// Two locks were taken in both orders.
    OrderInversion,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Tasks are held up for long, or something looks like a deadlock.
    Warning,
    /// Something will never go on by itself.
    Critical,
}

/// How sure it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Certainty {
    /// A pattern that was seen, or a hint.
    Possible,
    /// Inferred; the evidence says from what.
    Likely,
    /// The kernel's own words say so, read twice, unchanged.
    Proven,
}

macro_rules! kebab_display {
    ($($ty:ty),*) => {$(
        impl fmt::Display for $ty {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.serialize(f)
            }
        }
    )*};
}
kebab_display!(Kind, Severity, Certainty);

/// Stable name of a finding: its kind with its tasks and locks. Two updates about the same thing carry the same id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct FindingId(pub Arc<str>);

impl fmt::Display for FindingId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One thing that is wrong, or worth knowing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Stable name.
    pub id: FindingId,
    /// What kind of thing.
    pub kind: Kind,
    /// How bad.
    pub severity: Severity,
    /// How sure.
    pub certainty: Certainty,
    /// One plain sentence.
    pub title: String,
    /// Since when, as far as is known.
    #[serde(rename = "since_ns")]
    pub since: Timestamp,
    /// `since` is the latest time at which it may have begun; it may be older.
    pub since_is_lower_bound: bool,
    /// When it was first reported.
    #[serde(rename = "opened_ns")]
    pub opened: Timestamp,
    /// The tasks and interrupts that make it up: the cycle, or the root.
    pub tasks: Vec<Party>,
    /// The locks that make it up.
    pub locks: Vec<LockRef>,
    /// Who waits for what held by whom, first waiter first.
    pub chain: Vec<Link>,
    /// Who else is held up.
    pub victims: Victims,
    /// What the finding rests on.
    pub evidence: Vec<EvidenceLine>,
    /// What to do next.
    pub next_steps: Vec<String>,
}

impl Finding {
    /// Its age at `now`: how long it has been true, at least.
    #[must_use]
    pub fn age(&self, now: Timestamp) -> Nanos {
        now.since(self.since)
    }
}

/// Short name of a task or interrupt context.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Name {
    /// Thread id; for an interrupt that of the thread below it, 0 when unknown.
    pub tid: Tid,
    /// Process id, 0 when unknown.
    pub tgid: Tgid,
    /// Thread name, empty when unknown.
    pub comm: Arc<str>,
    /// Execution context.
    pub context: Context,
    /// The CPU of an interrupt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interrupt_cpu: Option<CpuId>,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(cpu) = self.interrupt_cpu {
            self.context.serialize(&mut *f)?;
            write!(f, " on CPU {cpu}")?;
            if self.tid.0 == 0 {
                return Ok(());
            }
            f.write_str(" above ")?;
        }
        if self.comm.is_empty() {
            write!(f, "task {}", self.tid)
        } else {
            write!(f, "{} ({})", self.comm, self.tid)
        }
    }
}

/// A task or interrupt context in a finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Party {
    /// Who.
    #[serde(flatten)]
    pub name: Name,
    /// Start time of the thread, 0 when unknown: tells it from another one with the same id.
    #[serde(rename = "start_ns")]
    pub start: Timestamp,
    /// Scheduler state.
    pub state: TaskState,
    /// CPU it runs on or ran on last.
    pub cpu: Option<CpuId>,
    /// cgroup, 0 when unknown.
    pub cgroup: CgroupId,
    /// What it is about, and where it belongs.
    #[serde(flatten)]
    pub about: About,
    /// Call site of its wait, or of what it does.
    pub site: Option<String>,
    /// Its stack, 0 when not taken.
    #[serde(serialize_with = "stack_id")]
    pub stack: StackId,
}

/// A lock in a finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LockRef {
    /// Where it is.
    #[serde(serialize_with = "lock_addr")]
    pub address: LockAddr,
    /// What it is.
    pub kind: LockKind,
    /// Its name, where known.
    pub name: Option<Arc<str>>,
    /// How the name is known.
    pub name_source: Option<Arc<str>>,
    /// What it has in common with others of its kind: the same variable, the same member of a struct, or the same call site.
    pub class: Option<Arc<str>>,
    /// Tasks that wait for it directly.
    pub waiters: usize,
}

impl LockRef {
    /// Its identity.
    #[must_use]
    pub fn key(&self) -> LockKey {
        LockKey {
            addr: self.address,
            spins: self.kind.spins(),
        }
    }
}

/// Common name of a kind of lock.
#[must_use]
pub fn lock_kind_name(kind: LockKind) -> &'static str {
    match kind {
        LockKind::Mutex => "mutex",
        LockKind::WwMutex => "ww_mutex",
        LockKind::Rwsem => "rw_semaphore",
        LockKind::RtMutex => "rt_mutex",
        LockKind::PercpuRwsem => "percpu_rw_semaphore",
        LockKind::Semaphore => "semaphore",
        LockKind::Spinlock => "spinlock",
        LockKind::Rwlock => "rwlock",
        LockKind::RtSpinlock => "sleeping spinlock",
        LockKind::Unknown => "lock",
    }
}

impl fmt::Display for LockRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{} {name} ({})", lock_kind_name(self.kind), self.address),
            None => write!(f, "{} {}", lock_kind_name(self.kind), self.address),
        }
    }
}

/// One hop of a chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Link {
    /// Who waits.
    pub waiter: Name,
    /// What for.
    pub on: On,
    /// How long already.
    #[serde(rename = "waited_ns")]
    pub waited: Nanos,
    /// `waited` is a lower bound.
    pub waited_is_lower_bound: bool,
    /// Who has to act, where known.
    pub holder: Option<Name>,
    /// Who says that it is the holder.
    pub holder_evidence: Option<Evidence>,
}

/// What a link waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum On {
    /// A lock.
    Lock {
        /// Which.
        #[serde(flatten)]
        lock: LockRef,
        /// How it is wanted.
        mode: Mode,
    },
    /// Something else.
    Dependency {
        /// Its kind, as in the event.
        dependency: &'static str,
        /// In plain words.
        text: String,
    },
}

impl fmt::Display for On {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lock {
                lock,
                mode: Mode::Exclusive,
            } => write!(f, "{lock}"),
            Self::Lock {
                lock,
                mode: Mode::Shared,
            } => write!(f, "{lock} for reading"),
            Self::Dependency { text, .. } => f.write_str(text),
        }
    }
}

/// Everybody who is held up by a finding, directly or through others; the parties themselves are not counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Victims {
    /// How many.
    pub count: usize,
    /// Their summed wait so far.
    #[serde(rename = "total_wait_ns")]
    pub total_wait: Nanos,
    /// The longest wait so far.
    #[serde(rename = "longest_wait_ns")]
    pub longest_wait: Nanos,
    /// Their cgroups, sorted, without the unknown one.
    pub cgroups: Vec<CgroupId>,
    /// The longest waiting of them.
    pub tasks: Vec<Victim>,
}

/// One who is held up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Victim {
    /// Who, on what, behind whom.
    #[serde(flatten)]
    pub link: Link,
    /// cgroup, 0 when unknown.
    pub cgroup: CgroupId,
    /// Call site of the wait.
    pub site: Option<String>,
    /// Stack of the wait, 0 when not taken.
    #[serde(serialize_with = "stack_id")]
    pub stack: StackId,
}

/// One line of evidence with its source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EvidenceLine {
    /// Where it comes from.
    pub source: Source,
    /// What was seen.
    pub text: String,
}

/// Where a line of evidence comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// A probe, iterator or field of the kernel.
    Kernel(Evidence),
    /// Samples of threads: state and context switch counts.
    TaskSamples,
    /// Reads of the lock's own words.
    OwnerWord,
    /// Contention statistics.
    Statistics,
    /// A loss counter: this line weakens the finding.
    Loss(LossCause),
    /// Something was not seen or not checked: this line says what keeps the finding from being more certain.
    Missing,
}

impl Serialize for Source {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Kernel(evidence) => evidence.serialize(serializer),
            Self::TaskSamples => serializer.serialize_str("task-samples"),
            Self::OwnerWord => serializer.serialize_str("owner-word"),
            Self::Statistics => serializer.serialize_str("statistics"),
            Self::Loss(_) => serializer.serialize_str("loss"),
            Self::Missing => serializer.serialize_str("missing"),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

pub(crate) fn lock_addr<S: Serializer>(addr: &LockAddr, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(addr)
}

pub(crate) fn kernel_addr<S: Serializer>(addr: &KernelAddr, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(addr)
}

/// Hexadecimal; `null` for "no stack".
pub(crate) fn stack_id<S: Serializer>(id: &StackId, serializer: S) -> Result<S::Ok, S::Error> {
    if id.0 == 0 {
        serializer.serialize_none()
    } else {
        serializer.collect_str(id)
    }
}
