//! Newtypes for every identity and quantity that comes from the kernel.
//!
//! They exist so that a thread id is never taken for a CPU, an address for a time, or an instant for a duration.

use std::fmt;
use std::ops::{Add, AddAssign, Sub};
use std::time::Duration;

use serde::{Deserialize, Serialize};

macro_rules! id {
    ($(#[$meta:meta])* $name:ident($inner:ty), $format:literal) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, $format, self.0)
            }
        }
    };
}

id!(
    /// A thread id, as the kernel's `task_struct.pid` in the initial pid namespace.
    Tid(u32), "{}"
);
id!(
    /// A process id: the kernel's `task_struct.tgid`.
    Tgid(u32), "{}"
);
id!(
    /// A logical CPU number.
    CpuId(u32), "{}"
);
id!(
    /// The kernel address of a lock.
    LockAddr(u64), "{:#018x}"
);
id!(
    /// A kernel text or data address.
    KernelAddr(u64), "{:#018x}"
);
id!(
    /// Identity of a stack: a hash of its frames, equal for equal stacks; 0 means "no stack".
    StackId(u64), "{:016x}"
);
id!(
    /// A cgroup v2 id (inode number of its directory in cgroupfs); 0 when unknown.
    CgroupId(u64), "{}"
);
id!(
    /// An instant on the kernel's CLOCK_MONOTONIC, in nanoseconds since boot (`bpf_ktime_get_ns`).
    Timestamp(u64), "{}"
);
id!(
    /// A duration in nanoseconds.
    Nanos(u64), "{}"
);

impl Timestamp {
    /// Time from `earlier` to `self`; zero if the events arrived out of order.
    #[must_use]
    pub fn since(self, earlier: Self) -> Nanos {
        Nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Nanos> for Timestamp {
    type Output = Self;
    fn add(self, rhs: Nanos) -> Self {
        Self(self.0.saturating_add(rhs.0))
    }
}

impl Sub<Nanos> for Timestamp {
    type Output = Self;
    fn sub(self, rhs: Nanos) -> Self {
        Self(self.0.saturating_sub(rhs.0))
    }
}

impl Add for Nanos {
    type Output = Self;
    fn add(self, rhs: Self) -> Self {
        Self(self.0.saturating_add(rhs.0))
    }
}

impl AddAssign for Nanos {
    fn add_assign(&mut self, rhs: Self) {
        *self = *self + rhs;
    }
}

impl Nanos {
    /// Whole milliseconds as nanoseconds.
    #[must_use]
    pub const fn from_millis(ms: u64) -> Self {
        Self(ms.saturating_mul(1_000_000))
    }

    /// Whole seconds as nanoseconds.
    #[must_use]
    pub const fn from_secs(s: u64) -> Self {
        Self(s.saturating_mul(1_000_000_000))
    }
}

impl From<Duration> for Nanos {
    fn from(d: Duration) -> Self {
        Self(u64::try_from(d.as_nanos()).unwrap_or(u64::MAX))
    }
}

impl From<Nanos> for Duration {
    fn from(n: Nanos) -> Self {
        Self::from_nanos(n.0)
    }
}

/// Identity of a thread for as long as the machine is up: thread ids are reused, start times are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TaskKey {
    /// Thread id.
    pub tid: Tid,
    /// `task_struct.start_time`, nanoseconds of CLOCK_MONOTONIC at fork; 0 when the kernel's layout hides it.
    pub start: Timestamp,
}

impl fmt::Display for TaskKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.tid)
    }
}
