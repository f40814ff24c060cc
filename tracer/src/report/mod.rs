//! What the outputs read: an immutable, sorted picture of the model and its findings at one time.
//!
//! A report owns everything it shows and borrows nothing from the model, so that an output may keep it while events go on.
//! Its size is linear in the number of tasks that wait or hold something.

mod build;
mod coverage;
mod stall;
mod user_stack;
mod watched;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

pub use coverage::{Coverage, Unexplained};
pub use stall::StallRow;
pub use user_stack::{UserFrameRow, UserStackRow};
pub use watched::{HolderRow, LongestRow, WatchedRow};

use crate::diagnosis::{About, Closed, Finding, LockRef, Name};
use crate::diagnosis::{kernel_addr, stack_id};
use crate::event::{LossCause, Mode, Phase, TaskState};
use crate::ids::{CgroupId, CpuId, KernelAddr, Nanos, StackId, Timestamp};
use crate::model::Model;

/// Where the events come from, as shown in headers. Filled in by the session, not by the model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SourceFacts {
    /// `live`, `snapshot`, `replay` or `script`.
    pub mode: String,
    /// Host name.
    pub host: String,
    /// Kernel release.
    pub kernel: String,
    /// Probes in use, as one line each.
    pub probes: Vec<String>,
    /// What this source cannot see, as one line each.
    pub limits: Vec<String>,
    /// What the programs have cost so far, where the source has programs.
    pub programs: Vec<ProgramCost>,
}

/// What a BPF program has cost. The kernel counts runs and time only while `kernel.bpf_stats_enabled` is 1.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ProgramCost {
    /// Its name.
    pub program: String,
    /// Runs.
    pub runs: u64,
    /// Time spent in them.
    #[serde(rename = "run_time_ns")]
    pub run_time: Nanos,
    /// Runs the kernel skipped because the program was already running on that CPU.
    pub skipped: u64,
}

/// Everything the outputs show.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Time of the newest event.
    #[serde(rename = "time_ns")]
    pub time: Timestamp,
    /// Where the events come from.
    pub source: SourceFacts,
    /// Open findings, most severe first.
    pub findings: Vec<Finding>,
    /// Findings beyond the bound of a rule, which are not listed.
    pub findings_left_out: usize,
    /// Recently closed findings, newest first.
    pub closed: Vec<ClosedRow>,
    /// Contended locks: most waiters first, then most waited time.
    pub locks: Vec<LockRow>,
    /// Contended locks beyond the bound, which are not listed.
    pub locks_left_out: usize,
    /// Tasks and interrupts that wait or hold somebody up: the tree of the wait-for graph in rows.
    pub tasks: Vec<TaskRow>,
    /// Where the trees of the wait-for graph start, most victims first.
    pub roots: Vec<TreeRoot>,
    /// What each CPU was last seen doing.
    pub cpus: Vec<CpuRow>,
    /// Locks of which every acquisition and release was to be seen.
    pub watched: Vec<WatchedRow>,
    /// How many of the waiting tasks are explained.
    pub coverage: Coverage,
    /// What was not seen, by cause, since the source started.
    pub losses: Vec<LossRow>,
    /// Sizes of the model.
    pub totals: TotalsRow,
    /// Frames of every stack that the rows name.
    #[serde(serialize_with = "stacks")]
    pub stacks: BTreeMap<StackId, Vec<Frame>>,
}

/// A closed finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClosedRow {
    /// As it was last seen.
    pub finding: Finding,
    /// When it was found to be over.
    #[serde(rename = "closed_ns")]
    pub closed: Timestamp,
    /// How long it lasted, at least.
    #[serde(rename = "lasted_ns")]
    pub lasted: Nanos,
}

impl From<&Closed> for ClosedRow {
    fn from(closed: &Closed) -> Self {
        Self {
            finding: closed.finding.clone(),
            closed: closed.closed,
            lasted: closed.lasted,
        }
    }
}

/// A contended lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LockRow {
    /// Address, kind, name, direct waiters.
    #[serde(flatten)]
    pub lock: LockRef,
    /// Who holds it.
    pub owner: OwnerRow,
    /// Waiters that want it for reading.
    pub readers_waiting: usize,
    /// Longest wait that is pending.
    #[serde(rename = "longest_wait_ns")]
    pub longest_wait: Nanos,
    /// Waits that ended.
    pub waits: u64,
    /// Their summed time.
    #[serde(rename = "total_ns")]
    pub total: Nanos,
    /// The longest.
    #[serde(rename = "max_ns")]
    pub max: Nanos,
    /// Upper bound of the median.
    #[serde(rename = "p50_ns")]
    pub p50: Option<Nanos>,
    /// Upper bound of the 99th percentile.
    #[serde(rename = "p99_ns")]
    pub p99: Option<Nanos>,
    /// How long it was held while somebody waited; only where releases are seen (`--releases`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held: Option<HeldRow>,
    /// Ended waits per second over the last seconds.
    pub rate: u64,
    /// Waited time per second over the last seconds.
    #[serde(rename = "wait_per_second_ns")]
    pub wait_per_second: Nanos,
    /// Ended waits in each of the last seconds, oldest first.
    pub history: Vec<u32>,
    /// Ended waits per power of two of nanoseconds.
    pub histogram: Vec<u64>,
}

/// Holds of a lock from the end of a wait to the release, as far as somebody waited meanwhile: lower bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct HeldRow {
    /// How many.
    pub times: u64,
    /// Their summed time.
    #[serde(rename = "total_ns")]
    pub total: Nanos,
    /// The longest.
    #[serde(rename = "max_ns")]
    pub max: Nanos,
}

/// Who holds a lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum OwnerRow {
    /// Nobody, says its owner word.
    Nobody,
    /// One task, exclusively.
    Task {
        /// Who.
        name: Name,
    },
    /// Handed to a task that has not taken it yet.
    Handed {
        /// To whom.
        name: Name,
    },
    /// A task that could not be read.
    Unreadable {
        /// Its address.
        #[serde(serialize_with = "kernel_addr")]
        address: KernelAddr,
    },
    /// Readers, or an owner that the lock does not record.
    Unrecorded {
        /// Number of readers, where known.
        readers: Option<u32>,
        /// Who may hold it, best first, at most four.
        candidates: Vec<Name>,
    },
}

/// A task or interrupt that waits or holds somebody up. Other rows are named by their position in [`Report::tasks`] and
/// [`Report::locks`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TaskRow {
    /// Who.
    #[serde(flatten)]
    pub name: Name,
    /// Scheduler state.
    pub state: TaskState,
    /// CPU it runs on or ran on last.
    pub cpu: Option<CpuId>,
    /// cgroup, 0 when unknown.
    pub cgroup: CgroupId,
    /// What it is about, and where it belongs.
    #[serde(flatten)]
    pub about: About,
    /// No user-space part.
    pub kernel_thread: bool,
    /// How long it has been asleep without a break, at least; `None` while it is not asleep.
    #[serde(rename = "asleep_ns")]
    pub asleep: Option<Nanos>,
    /// What it waits for.
    pub wait: Option<WaitRow>,
    /// Contended locks that it holds.
    pub holds: Vec<LockRef>,
    /// Row of the one it waits for.
    pub blocked_by: Option<usize>,
    /// Rows of those that wait for it.
    pub blocks: Vec<usize>,
    /// Call site.
    pub site: Option<Arc<str>>,
    /// Its stack.
    #[serde(serialize_with = "stack_id")]
    pub stack: StackId,
    /// Where it came from in user space, where that was asked for and found.
    pub user_stack: Option<UserStackRow>,
}

/// A pending wait.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WaitRow {
    /// The lock, when it is one.
    pub lock: Option<LockRef>,
    /// What else, in words.
    pub dependency: Option<String>,
    /// How a lock is wanted.
    pub mode: Mode,
    /// Spinning or sleeping.
    pub phase: Phase,
    /// How long already.
    #[serde(rename = "waited_ns")]
    pub waited: Nanos,
    /// `waited` is a lower bound.
    pub waited_is_lower_bound: bool,
    /// Place in the queue, 0 = next, where known.
    pub place: Option<u32>,
}

/// The start of a tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum TreeRoot {
    /// A task that waits for nobody known.
    Task {
        /// Its row.
        row: usize,
        /// Everybody behind it.
        victims: usize,
    },
    /// A lock of which no holder is known.
    Lock {
        /// Which.
        lock: LockRef,
        /// Rows of its waiters, in queue order.
        waiters: Vec<usize>,
        /// Everybody behind it.
        victims: usize,
    },
    /// Tasks that wait for each other; the first waits for the second, the last for the first.
    Cycle {
        /// Their rows.
        rows: Vec<usize>,
        /// Everybody behind them, themselves not counted.
        victims: usize,
    },
}

impl TreeRoot {
    /// Everybody behind it.
    #[must_use]
    pub fn victims(&self) -> usize {
        match self {
            Self::Task { victims, .. } | Self::Lock { victims, .. } | Self::Cycle { victims, .. } => *victims,
        }
    }
}

/// What a CPU was last seen doing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CpuRow {
    /// The CPU.
    pub cpu: CpuId,
    /// The thread that was last seen running on it.
    pub task: Option<Name>,
    /// When that was.
    #[serde(rename = "seen_ns")]
    pub seen: Timestamp,
    /// What spins on it, outermost last.
    pub spins: Vec<SpinRow>,
    /// What the kernel's own watchers know of it, if that is anything bad.
    pub stall: Option<StallRow>,
}

/// A spin on a CPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SpinRow {
    /// Who spins.
    pub who: Name,
    /// On what.
    pub lock: LockRef,
    /// How long already.
    #[serde(rename = "waited_ns")]
    pub waited: Nanos,
}

/// Losses by one cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct LossRow {
    /// The cause.
    pub cause: LossCause,
    /// How many.
    pub count: u64,
}

impl LossRow {
    /// Every cause with losses.
    #[must_use]
    pub fn of(model: &Model) -> Vec<Self> {
        let totals = model.losses().totals().filter(|&(_, n)| n > 0);
        totals.map(|(cause, count)| Self { cause, count }).collect()
    }
}

/// Sizes of the model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TotalsRow {
    /// Events taken in.
    pub events: u64,
    /// Tasks known.
    pub tasks: usize,
    /// Locks known.
    pub locks: usize,
    /// Waits pending.
    pub waits: usize,
    /// Waits whose end was not told and followed from another event.
    pub missed_ends: u64,
    /// Waits that a complete round did not report any more.
    pub unseen_ends: u64,
}

impl TotalsRow {
    /// The present sizes.
    #[must_use]
    pub fn of(model: &Model) -> Self {
        Self {
            events: model.events(),
            tasks: model.actors().len(),
            locks: model.locks().len(),
            waits: model.waits().len(),
            missed_ends: model.missed_ends(),
            unseen_ends: model.unseen_ends(),
        }
    }
}

/// One frame of a stack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Frame {
    /// Return address.
    #[serde(serialize_with = "kernel_addr")]
    pub address: KernelAddr,
    /// Symbol, where known.
    pub symbol: Option<Arc<str>>,
    /// Offset into the symbol.
    pub offset: u64,
    /// Module, where not the kernel proper.
    pub module: Option<Arc<str>>,
    /// Scheduler, lock and tracing: further in than the caller that matters.
    pub machinery: bool,
    /// Source file, where debug information was at hand.
    pub file: Option<Arc<str>>,
    /// Line in that file.
    pub line: Option<u32>,
    /// Functions that the compiler put into this one, outermost first.
    pub inlined: Vec<InlinedRow>,
}

/// A function that the compiler put into another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InlinedRow {
    /// Its name.
    pub name: Arc<str>,
    /// Source file.
    pub file: Option<Arc<str>>,
    /// Line in that file.
    pub line: Option<u32>,
}

fn stacks<S: serde::Serializer>(stacks: &BTreeMap<StackId, Vec<Frame>>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(stacks.iter().map(|(id, frames)| (id.to_string(), frames)))
}
