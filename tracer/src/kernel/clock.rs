//! The kernel's clocks, and what ties their readings to the calendar.
//!
//! Every event carries CLOCK_MONOTONIC, as `bpf_ktime_get_ns` reads it. Two facts turn it into something a person can use:
//! the boot it belongs to, and an [`Anchor`] to the wall clock.

use std::io;

use rustix::time::{ClockId, Timespec, clock_gettime};
use serde::{Deserialize, Serialize};

use super::sysroot::Sysroot;
use crate::ids::{Nanos, Timestamp};

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// Now, on the clock of the events.
pub fn monotonic() -> Timestamp {
    Timestamp(nanos(clock_gettime(ClockId::Monotonic)))
}

/// One moment on three clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anchor {
    /// The clock of the events: stands still while the machine sleeps.
    pub monotonic: Timestamp,
    /// Nanoseconds since 1970 (UTC).
    pub realtime_ns: u64,
    /// Nanoseconds since boot, including sleep.
    pub boottime_ns: u64,
    /// The three were read within this time.
    pub within: Nanos,
}

impl Anchor {
    /// Reads the three clocks, a few times, and keeps the tightest reading: a switch to another task in between would
    /// shift them against each other.
    pub fn now() -> Self {
        let mut best = Self::read();
        for _ in 0..3 {
            let next = Self::read();
            if next.within.0 < best.within.0 {
                best = next;
            }
        }
        best
    }

    /// The wall-clock time of an event in nanoseconds since 1970, as long as nobody set the clock and the machine did
    /// not sleep in between.
    pub fn wall_ns(&self, at: Timestamp) -> u64 {
        if at.0 >= self.monotonic.0 {
            self.realtime_ns.saturating_add(at.0 - self.monotonic.0)
        } else {
            self.realtime_ns.saturating_sub(self.monotonic.0 - at.0)
        }
    }

    fn read() -> Self {
        let before = monotonic();
        let realtime_ns = nanos(clock_gettime(ClockId::Realtime));
        let boottime_ns = nanos(clock_gettime(ClockId::Boottime));
        let after = monotonic();
        let within = after.since(before);
        Self {
            monotonic: before + Nanos(within.0 / 2),
            realtime_ns,
            boottime_ns,
            within,
        }
    }
}

/// The random id that this boot was given: events of two boots must never be compared.
///
/// # Errors
/// `/proc/sys/kernel/random/boot_id` cannot be read.
pub fn boot_id(root: &Sysroot) -> io::Result<String> {
    root.text("/proc/sys/kernel/random/boot_id")
}

/// Times before the clock's zero (a wall clock before 1970) count as zero.
fn nanos(t: Timespec) -> u64 {
    let seconds = u64::try_from(t.tv_sec).unwrap_or(0);
    seconds
        .saturating_mul(NANOS_PER_SECOND)
        .saturating_add(u64::try_from(t.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::testing::Tree;

    #[test]
    fn wall_time_follows_the_events_clock_both_ways() {
        let anchor = Anchor {
            monotonic: Timestamp(5_000),
            realtime_ns: 1_000_000,
            boottime_ns: 6_000,
            within: Nanos(10),
        };
        for (at, expected) in [
            (5_000, 1_000_000),
            (6_500, 1_001_500),
            (4_000, 999_000),
            (u64::MAX, u64::MAX),
        ] {
            assert_eq!(anchor.wall_ns(Timestamp(at)), expected, "{at}");
        }
        let early = Anchor {
            realtime_ns: 10,
            ..anchor
        };
        assert_eq!(early.wall_ns(Timestamp(0)), 0, "not before 1970");
    }

    #[test]
    fn timespecs_become_nanoseconds() {
        let t = |tv_sec, tv_nsec| nanos(Timespec { tv_sec, tv_nsec });
        assert_eq!((t(2, 7), t(-1, 5), t(i64::MAX, 0)), (2_000_000_007, 5, u64::MAX));
    }

    #[test]
    fn clocks_run_forward_and_agree() {
        let first = Anchor::now();
        let second = Anchor::now();
        assert!(second.monotonic >= first.monotonic);
        assert!(
            first.boottime_ns + first.within.0 >= first.monotonic.0,
            "boot time includes what monotonic time leaves out"
        );
        assert!(monotonic() >= second.monotonic);
    }

    #[test]
    fn the_boot_id_is_read_trimmed() {
        let tree = Tree::new();
        assert!(boot_id(&tree.root()).is_err());
        tree.file(
            "/proc/sys/kernel/random/boot_id",
            "9d9a0f5e-1111-2222-3333-444455556666\n",
        );
        assert_eq!(
            boot_id(&tree.root()).expect("it is there"),
            "9d9a0f5e-1111-2222-3333-444455556666"
        );
    }
}
