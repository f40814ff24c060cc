//! What a source has looked at, and what it has missed.

use serde::{Deserialize, Serialize};

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
