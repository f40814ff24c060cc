//! Lock-free tables in shared (memory-mapped) BPF arrays.
//!
//! Contention programs run while the kernel's own locks are contended, so nothing here may need a lock: slots are claimed by
//! compare-and-swap on one word, and every slot has a single writer (its thread, or its CPU and context).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// How many neighbouring cells the statistics of a lock may land in.
pub const PROBES: u32 = 8;

/// Slots of a [`WaitBucket`].
pub const BUCKET_SLOTS: usize = 8;

/// Which threads own the wait slots of one bucket: one cache line, so that finding or claiming a slot touches no more. Bucket `b`
/// has the slots `b * BUCKET_SLOTS` and on of the wait table.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct WaitBucket {
    /// Thread ids; 0 = free. Claimed by compare-and-swap.
    pub tids: [u64; BUCKET_SLOTS],
}

/// A wait of one thread: one cache line. Written only by that thread; freed by it.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct WaitSlot {
    /// The innermost wait; `lock == 0` means none.
    pub wait: Wait,
    /// The wait around it, where lock slowpaths nest (rwbase and its inner rtmutex).
    pub outer: Wait,
}

/// One wait in a [`WaitSlot`].
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Wait {
    /// Lock address; 0 = none.
    pub lock: u64,
    /// Begin of the wait, `bpf_ktime_get_ns`.
    pub since: u64,
    /// Owner word at the begin.
    pub owner_word: u64,
    /// See [`crate::kind::lock_kind`].
    pub kind: u8,
    /// See [`crate::kind::mode`].
    pub mode: u8,
    /// See [`crate::kind::phase`]; changes while the wait lasts.
    pub phase: u8,
    /// See [`crate::kind::seen_by`].
    pub seen_by: u8,
    /// Raw tracepoint flags, 0 for kprobes.
    pub flags: u32,
}

impl Wait {
    /// No wait.
    pub const NONE: Self = Self {
        lock: 0,
        since: 0,
        owner_word: 0,
        kind: 0,
        mode: 0,
        phase: 0,
        seen_by: 0,
        flags: 0,
    };
}

/// Spin state of one CPU: one slot per context, because a context can only spin on one lock.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SpinCpu {
    /// Indexed by [`crate::kind::context`].
    pub slots: [SpinSlot; crate::kind::context::COUNT],
    /// Number of entries ever written to this CPU's part of the spin log.
    pub logged: u64,
}

/// A spinning wait in progress.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SpinSlot {
    /// Lock address; 0 = not spinning.
    pub lock: u64,
    /// Begin.
    pub since: u64,
    /// Lock word at the begin; 0 unless every wait is shown.
    pub word: u64,
    /// Thread that spins or was interrupted.
    pub tid: u32,
    /// Its process.
    pub tgid: u32,
    /// See [`crate::kind::lock_kind`].
    pub kind: u8,
    /// See [`crate::kind::mode`].
    pub mode: u8,
    /// See [`crate::kind::seen_by`].
    pub seen_by: u8,
    /// Explicit padding.
    pub pad: u8,
    /// Raw tracepoint flags.
    pub flags: u32,
}

/// A spinning wait, logged per CPU when it ended (tracepoints) or began (kprobes). Entries are overwritten oldest first; user
/// space counts the overwritten ones by their sequence numbers.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SpinLogEntry {
    /// 1 + sequence number on this CPU; 0 while being written.
    pub seq: u64,
    /// Lock address.
    pub lock: u64,
    /// Begin.
    pub since: u64,
    /// End; equal to `since` when the end is not seen.
    pub until: u64,
    /// Lock word at the begin; 0 unless every wait is shown.
    pub word: u64,
    /// Thread.
    pub tid: u32,
    /// Process.
    pub tgid: u32,
    /// Thread name.
    pub comm: [u8; 16],
    /// See [`crate::kind::lock_kind`].
    pub kind: u8,
    /// See [`crate::kind::mode`].
    pub mode: u8,
    /// See [`crate::kind::context`].
    pub context: u8,
    /// See [`crate::kind::seen_by`].
    pub seen_by: u8,
    /// Raw tracepoint flags.
    pub flags: u32,
}

/// Number of histogram buckets in a [`LockCell`].
pub const BUCKETS: usize = 32;
/// log2 of the lower bound of bucket 1, in nanoseconds: bucket 0 is everything below 512 ns, bucket i is `[2^(i+8), 2^(i+9))`.
pub const BUCKET_SHIFT: u32 = 8;

/// Contention of one lock on one CPU since the bank was last cleared.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct LockCell {
    /// Lock address with bit 0 set for shared mode; 0 = free. Claimed by compare-and-swap.
    pub key: u64,
    /// See [`crate::kind::lock_kind`].
    pub kind: u64,
    /// Waits that ended.
    pub waits: u64,
    /// Their summed time, ns.
    pub total: u64,
    /// The longest of them, ns.
    pub max: u64,
    /// See [`BUCKET_SHIFT`].
    pub buckets: [u64; BUCKETS],
}

/// Words user space changes while the programs run.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Control {
    /// Which of the two banks of lock cells is written.
    pub bank: u64,
    /// 1: acquisitions and releases of watched locks are logged. 0 while it is measured what the others cost.
    pub watching: u64,
}

/// Facts about one CPU, found out by the first program that needs them.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct CpuFacts {
    /// Kernel address of this CPU's preempt count; 0 when not looked up yet.
    pub preempt_count: u64,
}

/// What a thread does, in [`HolderSlot::state`]; also the index of its sum in [`HolderSlot::spent`].
pub mod holder_state {
    /// Nothing was seen since it is followed.
    pub const UNKNOWN: u64 = 0;
    /// It has a CPU.
    pub const RUNNING: u64 = 1;
    /// It wants one.
    pub const RUNNABLE: u64 = 2;
    /// It sleeps, but not in I/O.
    pub const SLEEPING: u64 = 3;
    /// It sleeps in I/O (`in_iowait`).
    pub const IO: u64 = 4;
    /// Sums; a power of two, so that an index can be masked.
    pub const COUNT: usize = 8;
}

/// Where a thread that others wait for spends its time. User space claims and frees it; the scheduler's programs write the rest.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct HolderSlot {
    /// Thread id; 0 = free.
    pub tid: u64,
    /// See [`holder_state`].
    pub state: u64,
    /// Since when it is in this state, or is followed.
    pub changed: u64,
    /// Explicit padding.
    pub pad: u64,
    /// Time in each state before that, ns.
    pub spent: [u64; holder_state::COUNT],
}

impl HolderSlot {
    /// A free one.
    pub const NONE: Self = Self {
        tid: 0,
        state: holder_state::UNKNOWN,
        changed: 0,
        pad: 0,
        spent: [0; holder_state::COUNT],
    };
}

/// Slots for threads that are followed; a power of two.
pub const HOLDER_SLOTS: u32 = 1024;

/// The only slot in which a thread may stand.
#[must_use]
pub const fn holder_slot(tid: u32) -> u32 {
    tid & (HOLDER_SLOTS - 1)
}

const _: () = assert!(core::mem::size_of::<HolderSlot>() == 32 + 8 * holder_state::COUNT);
const _: () = assert!(core::mem::size_of::<Wait>() == 32);
const _: () = assert!(core::mem::size_of::<WaitSlot>() == 64);
const _: () = assert!(core::mem::size_of::<SpinSlot>() == 40);
const _: () = assert!(core::mem::size_of::<SpinLogEntry>() == 72);
const _: () = assert!(core::mem::size_of::<LockCell>() == 40 + 8 * BUCKETS);
