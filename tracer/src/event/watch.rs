//! Locks that are watched by name.

use serde::{Deserialize, Serialize};

use super::{Actor, LockKind, Mode, TaskRef};
use crate::ids::{CpuId, LockAddr, StackId};

/// One acquisition or release of a watched lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watched {
    /// Which lock.
    pub lock: LockAddr,
    /// Its kind.
    pub kind: LockKind,
    /// How it is held.
    pub mode: Mode,
    /// What happened.
    pub act: Act,
    /// Who did it.
    pub by: Actor,
    /// Name of the thread (or of the interrupted one, for an interrupt).
    pub task: Option<TaskRef>,
    /// Where it ran.
    pub cpu: CpuId,
    /// Its stack, 0 when not taken.
    pub stack: StackId,
}

/// What happened to a watched lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Act {
    /// Taken: it was held from then on.
    Acquired,
    /// About to be given back: it was held until then.
    Released,
}
