//! Records as they leave the kernel, through the ring buffer or an iterator.
//!
//! A record is a [`Header`], a fixed body chosen by [`Header::kind`], then `stack_len` return addresses.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Most frames a record carries.
pub const MAX_FRAMES: usize = 32;

/// Start of every record.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Header {
    /// See [`crate::kind::record_kind`].
    pub kind: u16,
    /// Size of the whole record in bytes, stack included.
    pub size: u16,
    /// CPU the program ran on.
    pub cpu: u32,
    /// `bpf_ktime_get_ns`.
    pub time: u64,
}

/// A thread, as far as it could be read.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct TaskRecord {
    /// Address of the `task_struct`; 0 = no thread.
    pub task: u64,
    /// `task_struct.start_time`, ns of CLOCK_MONOTONIC.
    pub start: u64,
    /// `nvcsw + nivcsw`.
    pub switches: u64,
    /// cgroup v2 id.
    pub cgroup: u64,
    /// Thread id.
    pub tid: u32,
    /// Process id.
    pub tgid: u32,
    /// Name, NUL padded.
    pub comm: [u8; 16],
    /// `task_struct.__state | exit_state`.
    pub state: u32,
    /// `PF_*`.
    pub pf_flags: u32,
    /// CPU.
    pub cpu: u32,
    /// Non-zero when on a CPU.
    pub on_cpu: u8,
    /// Non-zero when in I/O wait.
    pub in_iowait: u8,
    /// See [`crate::kind::task_field`].
    pub fields: u16,
}

/// An owner/waiter tuple.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct WaitRecord {
    /// Start.
    pub header: Header,
    /// Lock address.
    pub lock: u64,
    /// Begin of the wait.
    pub since: u64,
    /// Owner word: at the begin for begin and end records, now for pending ones.
    pub owner_word: u64,
    /// rwsem and semaphore: the count word, else 0.
    pub count_word: u64,
    /// Who waits.
    pub waiter: TaskRecord,
    /// Whom the owner word names.
    pub owner: TaskRecord,
    /// Result of the wait (end records).
    pub result: i32,
    /// Position on the wait list; see [`crate::kind::queue`].
    pub queue: u32,
    /// Raw tracepoint flags.
    pub flags: u32,
    /// See [`crate::kind::lock_kind`].
    pub kind: u8,
    /// See [`crate::kind::mode`].
    pub mode: u8,
    /// See [`crate::kind::phase`].
    pub phase: u8,
    /// See [`crate::kind::seen_by`].
    pub seen_by: u8,
    /// Number of frames that follow.
    pub stack_len: u32,
    /// Explicit padding.
    pub pad: u32,
}

/// The state of a thread.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct TaskSampleRecord {
    /// Start.
    pub header: Header,
    /// Who.
    pub task: TaskRecord,
    /// Number of frames that follow.
    pub stack_len: u32,
    /// Explicit padding.
    pub pad: u32,
}

/// A holder entered an unlock slowpath: somebody waits.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ReleaseRecord {
    /// Start.
    pub header: Header,
    /// Lock address.
    pub lock: u64,
    /// Who releases.
    pub task: TaskRecord,
    /// See [`crate::kind::lock_kind`].
    pub kind: u8,
    /// Explicit padding.
    pub pad: [u8; 3],
    /// Number of frames that follow.
    pub stack_len: u32,
}

/// Somebody initialises a lock that has waiters or a holder.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ReinitRecord {
    /// Start.
    pub header: Header,
    /// Address of the lock or completion.
    pub lock: u64,
    /// Owner word, before it is overwritten.
    pub owner_word: u64,
    /// rwsem: the count word, else 0.
    pub count_word: u64,
    /// Who initialises it.
    pub task: TaskRecord,
    /// Whom the owner word names.
    pub owner: TaskRecord,
    /// The first waiter.
    pub waiter: TaskRecord,
    /// Waiters found, each asleep and with its record on its own stack; a lower bound.
    pub waiters: u32,
    /// Number of frames that follow.
    pub stack_len: u32,
    /// See [`crate::kind::lock_kind`].
    pub kind: u8,
    /// See [`crate::kind::object`].
    pub object: u8,
    /// Explicit padding.
    pub pad: [u8; 6],
}

const _: () = assert!(core::mem::size_of::<Header>() == 16);
const _: () = assert!(core::mem::size_of::<TaskRecord>() == 72);
const _: () = assert!(core::mem::size_of::<WaitRecord>() == 16 + 32 + 2 * 72 + 24);
const _: () = assert!(core::mem::size_of::<TaskSampleRecord>() == 16 + 72 + 8);
const _: () = assert!(core::mem::size_of::<ReleaseRecord>() == 16 + 8 + 72 + 8);
const _: () = assert!(core::mem::size_of::<ReinitRecord>() == 16 + 24 + 3 * 72 + 16);
