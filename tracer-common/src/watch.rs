//! Locks that are watched by name: every acquisition and release of exactly these.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Locks that can be watched at once.
pub const MAX_WATCHED: usize = 8;
/// Frames of an entry's stack.
pub const WATCH_FRAMES: usize = 16;

/// What happened to a watched lock; [`WatchEntry::act`].
pub mod act {
    /// It was taken: the function that takes it has returned.
    pub const ACQUIRED: u8 = 0;
    /// It is about to be given back: the function that does it is entered.
    pub const RELEASED: u8 = 1;
}

/// One CPU's place in the log.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct WatchCpu {
    /// Entries that this CPU has begun to write.
    pub logged: u64,
}

/// One acquisition or release.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct WatchEntry {
    /// Number of the entry, from 1; 0 while it is written.
    pub seq: u64,
    /// `bpf_ktime_get_ns`.
    pub time: u64,
    /// Address of the lock.
    pub lock: u64,
    /// Thread on the CPU.
    pub tid: u32,
    /// Its process.
    pub tgid: u32,
    /// Its name, NUL padded.
    pub comm: [u8; 16],
    /// See [`act`].
    pub act: u8,
    /// See [`crate::kind::lock_kind`].
    pub kind: u8,
    /// See [`crate::kind::mode`].
    pub mode: u8,
    /// See [`crate::kind::context`].
    pub context: u8,
    /// Valid frames.
    pub stack_len: u32,
    /// Return addresses, innermost first.
    pub frames: [u64; WATCH_FRAMES],
}

const _: () = assert!(core::mem::size_of::<WatchEntry>() == 56 + 8 * WATCH_FRAMES);
