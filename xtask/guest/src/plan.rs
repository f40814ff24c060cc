//! The plan: what PID 1 shall do, written by the host into the initramfs as JSON.

use serde::{Deserialize, Serialize};

/// Where the plan lies in the initramfs.
pub const PLAN_PATH: &str = "/plan.json";
/// Whatever the guest leaves here comes back to the host.
pub const OUT_DIR: &str = "/out";
/// The fault module's control file.
pub const LOCKFAULT: &str = "/proc/lockfault";
/// I/O port of QEMU's `isa-debugcon`, the channel to the host.
pub const CHANNEL_PORT: u16 = 0xe9;
/// I/O port of QEMU's `isa-debug-exit`; a write ends the machine at once, however broken its kernel is.
pub const EXIT_PORT: u16 = 0xf4;

/// Number of a command, unique within a plan. Output and exit status refer to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CommandId(pub u16);

/// Number of a job, unique within a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct JobId(pub u16);

/// Everything PID 1 has to do, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Kernel modules to load first, as paths in the initramfs, in this order. A failure ends the plan.
    pub modules: Vec<String>,
    /// Independent pieces of work: an error ends its job and the next one starts.
    pub jobs: Vec<Job>,
}

/// Steps that belong together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Job {
    pub id: JobId,
    pub steps: Vec<Step>,
}

/// One thing to do. All times are milliseconds and all of them are upper bounds on a condition, never a sleep.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Step {
    /// Write `text` to [`LOCKFAULT`].
    Trigger { text: String },
    /// Wait until [`LOCKFAULT`] has the line `state SCENARIO STATE`.
    AwaitState {
        scenario: String,
        state: String,
        within_ms: u64,
    },
    /// Start a command. With `ready`, wait until a line of its standard error contains that text.
    Start { command: Command, ready: Option<Ready> },
    /// Wait for the end of a command that was started.
    Wait { id: CommandId },
    /// Send a signal (a name such as `INT`) to a started command.
    Signal { id: CommandId, signal: String },
    /// Run a command on the console, which the user's terminal is connected to. Its output is not captured. With
    /// `ready` and `trigger`, write the one to [`LOCKFAULT`] as soon as the other holds.
    Console {
        argv: Vec<String>,
        rows: u16,
        columns: u16,
        ready: Option<Ready>,
        trigger: Option<String>,
    },
}

/// A command of the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Command {
    pub id: CommandId,
    pub argv: Vec<String>,
    /// Counted from its start. Then it gets SIGTERM, and SIGKILL 5 s later.
    pub timeout_ms: u64,
}

/// The condition under which a started command counts as started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ready {
    pub text: String,
    pub within_ms: u64,
}
