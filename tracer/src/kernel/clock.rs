//! The clock of every event.

use rustix::time::{ClockId, clock_gettime};

use crate::ids::Timestamp;

/// Now, on the clock of `bpf_ktime_get_ns` (CLOCK_MONOTONIC).
#[must_use]
pub fn monotonic() -> Timestamp {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(now.tv_nsec).unwrap_or(0);
    Timestamp(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
}
