//! Codes shared by both sides. Values are part of the capture format: never reuse one.

/// What a record is; [`crate::record::Header::kind`].
pub mod record_kind {
    /// A wait began ([`crate::record::WaitRecord`]).
    pub const WAIT_BEGIN: u16 = 1;
    /// A wait ended ([`crate::record::WaitRecord`]).
    pub const WAIT_END: u16 = 2;
    /// A wait that still lasts, owner and queue re-read now ([`crate::record::WaitRecord`]).
    pub const WAIT_PENDING: u16 = 3;
    /// The state of a thread ([`crate::record::TaskSampleRecord`]).
    pub const TASK: u16 = 4;
    /// A holder entered an unlock slowpath ([`crate::record::ReleaseRecord`]).
    pub const RELEASE: u16 = 5;
    /// A thread with its kernel stack ([`crate::snapshot::ThreadRecord`]).
    pub const THREAD: u16 = 6;
    /// A lock in use is initialised ([`crate::record::ReinitRecord`]).
    pub const REINIT: u16 = 7;
    /// What a thread uses ([`crate::snapshot::UserRecord`]).
    pub const USER: u16 = 8;
}

/// Kind of a lock.
pub mod lock_kind {
    /// Not known.
    pub const UNKNOWN: u8 = 0;
    /// `struct mutex`, or a `ww_mutex` where the probe cannot tell them apart.
    pub const MUTEX: u8 = 1;
    /// `struct ww_mutex`.
    pub const WW_MUTEX: u8 = 2;
    /// `struct rw_semaphore`.
    pub const RWSEM: u8 = 3;
    /// `struct rt_mutex`.
    pub const RT_MUTEX: u8 = 4;
    /// `struct percpu_rw_semaphore`.
    pub const PERCPU_RWSEM: u8 = 5;
    /// `struct semaphore`.
    pub const SEMAPHORE: u8 = 6;
    /// `spinlock_t`, `raw_spinlock_t`.
    pub const SPINLOCK: u8 = 7;
    /// `rwlock_t`.
    pub const RWLOCK: u8 = 8;
    /// `spinlock_t` of PREEMPT_RT, by its rt_mutex; also that inside of a `rwlock_t`.
    pub const RT_SPINLOCK: u8 = 9;
    /// `rwlock_t` or rwsem of PREEMPT_RT, by its `struct rwbase_rt`.
    pub const RT_RWBASE: u8 = 10;
}

/// What is initialised, where that is no lock: [`crate::record::ReinitRecord::object`].
pub mod object {
    /// The lock that [`crate::record::ReinitRecord::kind`] names.
    pub const LOCK: u8 = 0;
    /// A completion, by its `struct swait_queue_head`.
    pub const COMPLETION: u8 = 1;
    /// `struct wait_queue_head`.
    pub const WAIT_QUEUE: u8 = 2;
}

/// How a lock is wanted.
pub mod mode {
    /// Alone.
    pub const EXCLUSIVE: u8 = 0;
    /// For reading.
    pub const SHARED: u8 = 1;
}

/// What the waiter does.
pub mod phase {
    /// Burns a CPU.
    pub const SPINNING: u8 = 0;
    /// Off the CPU or about to be.
    pub const SLEEPING: u8 = 1;
}

/// Which probe saw it.
pub mod seen_by {
    /// `lock:contention_begin` / `contention_end`.
    pub const TRACEPOINT: u8 = 0;
    /// Kprobe on the slowpath.
    pub const KPROBE: u8 = 1;
}

/// Execution context.
pub mod context {
    /// Process context.
    pub const TASK: u8 = 0;
    /// Serving a softirq.
    pub const SOFTIRQ: u8 = 1;
    /// Serving a hardirq.
    pub const HARDIRQ: u8 = 2;
    /// NMI.
    pub const NMI: u8 = 3;
    /// The kernel's preempt count is not readable here.
    pub const UNKNOWN: u8 = 4;
    /// Number of codes, and of spin slots per CPU.
    pub const COUNT: usize = 5;
}

/// Values of [`crate::record::WaitRecord::queue`] that are no position.
pub mod queue {
    /// The list was not looked at, too long, or changed under the walk.
    pub const UNKNOWN: u32 = u32::MAX;
    /// The whole list was walked; the waiter is not on it.
    pub const ABSENT: u32 = u32::MAX - 1;
    /// On the list, position not known.
    pub const SOMEWHERE: u32 = u32::MAX - 2;
    /// At most this many waiters are walked in one program run.
    pub const WALK_LIMIT: u32 = 64;
}

/// Bits of [`crate::record::TaskRecord::fields`]: what could be read.
pub mod task_field {
    /// `tid`, `tgid`, `comm`.
    pub const IDENTITY: u16 = 1;
    /// `start`.
    pub const START: u16 = 2;
    /// `state`, `on_cpu`, `in_iowait`.
    pub const STATE: u16 = 4;
    /// `switches`.
    pub const SWITCHES: u16 = 8;
    /// `cgroup`.
    pub const CGROUP: u16 = 16;
    /// `cpu`.
    pub const CPU: u16 = 32;
    /// `pf_flags`.
    pub const FLAGS: u16 = 64;
    /// The owner word's task pointer could not be read at all.
    pub const UNREADABLE: u16 = 0x8000;
}

/// `LCB_F_*` flags of the contention tracepoints (include/trace/events/lock.h, since 5.19).
pub mod lcb {
    /// Spinning.
    pub const SPIN: u32 = 1;
    /// For reading.
    pub const READ: u32 = 2;
    /// For writing.
    pub const WRITE: u32 = 4;
    /// rtmutex based.
    pub const RT: u32 = 8;
    /// percpu-rwsem.
    pub const PERCPU: u32 = 16;
    /// Mutex.
    pub const MUTEX: u32 = 32;
}
