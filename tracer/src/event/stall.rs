//! What the kernel's own watchers know of a CPU.

use serde::{Deserialize, Serialize};

use crate::ids::{CpuId, Timestamp};

/// Signs that a CPU neither schedules nor ticks, as words of the kernel's own watchers show them. `None` where nothing is wrong, or
/// where the kernel does not tell. One without any sign says that it is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuStall {
    /// The CPU.
    pub cpu: CpuId,
    /// When the softlockup watchdog last got it, at the latest: since then it has not run what goes before every thread.
    pub watchdog: Option<Timestamp>,
    /// When the timer interrupt was due that it has not taken.
    pub timer: Option<Timestamp>,
    /// When the RCU grace period began that waits for it, at the latest.
    pub grace_period: Option<Timestamp>,
}

impl CpuStall {
    /// No sign.
    #[must_use]
    pub fn none(cpu: CpuId) -> Self {
        Self {
            cpu,
            watchdog: None,
            timer: None,
            grace_period: None,
        }
    }

    /// Whether there is no sign any more.
    #[must_use]
    pub fn is_over(&self) -> bool {
        *self == Self::none(self.cpu)
    }
}
