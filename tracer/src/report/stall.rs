//! What the kernel's own watchers know of a CPU that neither schedules nor ticks.

use serde::Serialize;

use crate::event::CpuStall;
use crate::ids::{Nanos, Timestamp};
use crate::view::units::duration;

/// `None` where nothing is wrong, or where the kernel does not tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct StallRow {
    /// For how long, at least, the softlockup watchdog has not run on it: it does not schedule.
    #[serde(rename = "watchdog_silent_ns")]
    pub watchdog_silent: Option<Nanos>,
    /// For how long a timer interrupt has been due that it has not taken: it does not tick.
    #[serde(rename = "timer_overdue_ns")]
    pub timer_overdue: Option<Nanos>,
    /// How old, at least, the RCU grace period is that waits for it.
    #[serde(rename = "grace_period_ns")]
    pub grace_period: Option<Nanos>,
}

impl StallRow {
    /// As of `now`.
    #[must_use]
    pub fn of(stall: &CpuStall, now: Timestamp) -> Self {
        let ago = |since: Option<Timestamp>| since.map(|since| now.since(since));
        Self {
            watchdog_silent: ago(stall.watchdog),
            timer_overdue: ago(stall.timer),
            grace_period: ago(stall.grace_period),
        }
    }

    /// The same in words, a clause each.
    #[must_use]
    pub fn words(&self) -> Vec<String> {
        let timer = self.timer_overdue.map(|due| {
            format!(
                "has not taken a timer interrupt that has been due for {}",
                duration(due)
            )
        });
        let watchdog = self
            .watchdog_silent
            .map(|silent| format!("has not run the softlockup watchdog for at least {}", duration(silent)));
        let period = self
            .grace_period
            .map(|age| format!("holds up an RCU grace period that began at least {} ago", duration(age)));
        [timer, watchdog, period].into_iter().flatten().collect()
    }
}
