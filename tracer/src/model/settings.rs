//! Thresholds and bounds. Every value that decides what is called a finding is here.

use crate::ids::Nanos;

/// Thresholds of the diagnosis and memory bounds of the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Span over which every edge of a cycle must have been re-read unchanged before it is *proven*.
    pub proof_interval: Nanos,
    /// The same for cycles through a ww_mutex, which the kernel may dissolve by itself with -EDEADLK.
    pub ww_interval: Nanos,
    /// Span over which every edge of a cycle must have been valid at the same time before it is even *likely*.
    pub likely_interval: Nanos,
    /// A wait at least this long makes its root a finding of severity info.
    pub long_wait: Nanos,
    /// A wait at least this long makes its root a finding of severity warning.
    pub warn_wait: Nanos,
    /// A wait at least this long that keeps a CPU busy makes its root a finding of severity warning: that CPU does nothing else, and
    /// no code of the kernel holds a spinning lock for a hundredth of it.
    pub warn_spin: Nanos,
    /// This many victims make a long wait a warning before [`Settings::warn_wait`].
    pub warn_victims: usize,
    /// Readers behind a queued writer from which on they are called a pile-up.
    pub pile_up_readers: usize,
    /// Waits per second of one lock from which on it is called hot.
    pub hot_rate: u64,
    /// Summed wait per second of one lock from which on it is called hot.
    pub hot_wait_per_second: Nanos,
    /// A pending wait older than this is re-read in every complete round; see [`crate::event::Round`].
    pub pending_threshold: Nanos,
    /// How long a sample of a thread is trusted for the coverage line.
    pub sample_age: Nanos,
    /// Tasks kept; the longest unseen are forgotten first.
    pub max_tasks: usize,
    /// Locks kept; the longest unseen without waiters are forgotten first.
    pub max_locks: usize,
    /// Pending waits kept; what exceeds this is counted as lost.
    pub max_waits: usize,
    /// Stacks kept.
    pub max_stacks: usize,
    /// (held, wanted) pairs kept.
    pub max_orders: usize,
    /// Findings reported per rule; more are counted, not listed.
    pub max_findings: usize,
    /// Closed findings kept for display.
    pub max_closed: usize,
    /// Victims listed by name in a finding; all are counted.
    pub max_victims_listed: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            proof_interval: Nanos::from_millis(100),
            ww_interval: Nanos::from_secs(1),
            likely_interval: Nanos::from_millis(10),
            long_wait: Nanos::from_secs(1),
            warn_wait: Nanos::from_secs(5),
            warn_spin: Nanos::from_secs(1),
            warn_victims: 20,
            pile_up_readers: 2,
            hot_rate: 1_000,
            hot_wait_per_second: Nanos::from_millis(500),
            pending_threshold: Nanos::from_secs(1),
            sample_age: Nanos::from_secs(10),
            max_tasks: 200_000,
            max_locks: 65_536,
            max_waits: 500_000,
            max_stacks: 65_536,
            max_orders: 16_384,
            max_findings: 100,
            max_closed: 64,
            max_victims_listed: 16,
        }
    }
}
