//! Locks: their kinds, what their words say, and their contention.

use serde::{Deserialize, Serialize};

use super::{Actor, Evidence, TaskRef};
use crate::ids::{KernelAddr, LockAddr, Nanos, StackId};

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
