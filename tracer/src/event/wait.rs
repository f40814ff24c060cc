//! Waits for locks.

use serde::{Deserialize, Serialize};

use super::{Actor, Evidence, LockKind, Mode, Owner, TaskRef};
use crate::ids::{CpuId, LockAddr, Nanos, StackId, Timestamp};

/// What the waiter does while it waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Burns a CPU.
    Spinning,
    /// Off the CPU, or about to be.
    Sleeping,
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
    /// The raw owner word, for evidence lines; 0 also where the lock records no owner and its word was not read.
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
