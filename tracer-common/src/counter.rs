//! Loss counters: one cell per cause and CPU in the `LOSS` map. Nothing is lost without being counted in one of them.

/// `reserve` failed: the ring buffer was full.
pub const RING_FULL: u32 = 0;
/// Another of our programs was at work on this CPU, so the ring buffer could not be touched.
pub const BUSY: u32 = 1;
/// No free slot for a pending wait.
pub const WAIT_TABLE_FULL: u32 = 2;
/// No free cell for a lock's statistics.
pub const LOCK_TABLE_FULL: u32 = 3;
/// A wait began while an older one of the same thread or context had not been seen to end.
pub const MISSED_END: u32 = 4;
/// A read of kernel memory failed.
pub const READ_FAILED: u32 = 5;
/// A stack could not be taken.
pub const STACK_LOST: u32 = 6;
/// More nested lock waits of one thread than a slot can hold.
pub const NESTING: u32 = 7;
/// Number of counters.
pub const COUNT: u32 = 8;

/// Names of the counters in index order, as reports print them.
pub const NAMES: [&str; COUNT as usize] = [
    "ring-full",
    "busy",
    "wait-table-full",
    "lock-table-full",
    "missed-end",
    "read-failed",
    "stack-lost",
    "nesting",
];
