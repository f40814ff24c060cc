//! The kernel's variables that say that a CPU neither schedules nor ticks, and what cannot be told where it has none of that name.

use super::symbols::Symbols;

/// Variables that say one thing together.
#[derive(Clone, Copy, Debug)]
pub struct Variables<const N: usize> {
    /// What cannot be told without them, as a clause.
    pub loses: &'static str,
    /// Their names.
    pub names: [&'static str; N],
}

/// KERNEL: kernel/watchdog.c with CONFIG_SOFTLOCKUP_DETECTOR, 5.10 to 6.18: when it last ran (per CPU), whether it is on, its threshold, and
/// on which CPUs.
pub const WATCHDOG: Variables<4> = Variables {
    loses: "since when the softlockup watchdog has not run on a CPU is not shown",
    names: [
        "watchdog_touch_ts",
        "watchdog_enabled",
        "watchdog_thresh",
        "watchdog_allowed_mask",
    ],
};

/// KERNEL: kernel/time/hrtimer.c (per CPU), 5.10 to 6.18.
pub const TIMERS: Variables<1> = Variables {
    loses: "timers that a CPU does not serve are not shown",
    names: ["hrtimer_bases"],
};

/// KERNEL: kernel/rcu/tree.c, kernel/time/{timer,ntp}.c, 5.10 to 6.18; `rcu_data` is per CPU.
pub const RCU: Variables<4> = Variables {
    loses: "CPUs that hold up RCU's grace period are not shown",
    names: ["rcu_state", "rcu_data", "jiffies", "tick_nsec"],
};

impl<const N: usize> Variables<N> {
    /// Where they lie; of a per-CPU variable relative to a CPU's area. `None` if one of them is not there.
    #[must_use]
    pub fn addresses(&self, symbols: &Symbols) -> Option<[u64; N]> {
        let mut found = [0; N];
        for (to, name) in found.iter_mut().zip(self.names) {
            *to = symbols.find(name).next()?.address.0;
        }
        Some(found)
    }

    fn absent(&self, symbols: &Symbols) -> Option<Absent> {
        let gone = self
            .names
            .into_iter()
            .filter(|name| symbols.find(name).next().is_none());
        let names: Vec<_> = gone.collect();
        (!names.is_empty()).then_some(Absent {
            loses: self.loses,
            names,
        })
    }
}

/// Variables that this kernel does not have, or does not show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Absent {
    /// What cannot be told without them, as a clause.
    pub loses: &'static str,
    /// Their names.
    pub names: Vec<&'static str>,
}

/// What is missing.
#[must_use]
pub fn absent(symbols: &Symbols) -> Vec<Absent> {
    [WATCHDOG.absent(symbols), TIMERS.absent(symbols), RCU.absent(symbols)]
        .into_iter()
        .flatten()
        .collect()
}
