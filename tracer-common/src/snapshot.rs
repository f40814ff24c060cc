//! What the walk over all threads writes, and the slots through which user space reads kernel words.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::record::{Header, TaskRecord};

/// Words of a stack that are copied at a time; the copied part of a stack is a multiple of it.
pub const CHUNK_WORDS: usize = 64;
/// Chunks copied of one stack at most: 16 KiB, a whole stack of x86-64 and arm64 (include/asm/thread_info.h) without KASAN.
pub const MAX_CHUNKS: usize = 32;

/// One thread: its state, its kernel stack as frames, and the raw words of its kernel stack.
///
/// `stack_len` return addresses follow, then `words_len` words of the stack from `words_from` on.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ThreadRecord {
    /// Start; [`crate::kind::record_kind::THREAD`].
    pub header: Header,
    /// Identity and state.
    pub task: TaskRecord,
    /// Lowest address of the kernel stack, 0 when unknown.
    pub stack_base: u64,
    /// Stack pointer saved when the thread left its CPU. For a thread on a CPU it is stale.
    pub saved_sp: u64,
    /// Address of the first word that follows; up to a chunk below `saved_sp`.
    pub words_from: u64,
    /// `task_struct.blocker`, 0 where this kernel has no such field.
    pub blocker: u64,
    /// `task_struct.blocked_on`, likewise.
    pub blocked_on: u64,
    /// `task_struct.pi_blocked_on`, likewise.
    pub pi_blocked_on: u64,
    /// `struct kthread *` of a kernel thread, 0 for others.
    pub kthread: u64,
    /// `struct mm_struct *`, 0 for kernel threads.
    pub mm: u64,
    /// Run-queue clock when its run time was last updated, ns; 0 when unknown. For a thread off its CPU: when it left it.
    pub exec_start: u64,
    /// Number of frames that follow.
    pub stack_len: u32,
    /// Number of words that follow the frames.
    pub words_len: u32,
}

/// A thread and the objects it uses, by which locks inside of them are told apart.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct UserRecord {
    /// Start; [`crate::kind::record_kind::USER`].
    pub header: Header,
    /// Its `task_struct`.
    pub task: u64,
    /// Lowest address of its kernel stack, 0 when unknown.
    pub stack: u64,
    /// `mm_struct`, `signal_struct`, `sighand_struct`, `files_struct`, `fs_struct`; 0 where it has none.
    pub objects: [u64; USED_OBJECTS],
    /// Thread id.
    pub tid: u32,
    /// Process id.
    pub tgid: u32,
    /// Name, NUL padded.
    pub comm: [u8; 16],
}

/// Objects in a [`UserRecord`].
pub const USED_OBJECTS: usize = 5;

/// A word to be read from kernel memory. User space writes `addr` and clears `state`; the program writes the rest.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PeekSlot {
    /// Address of the word; 0 ends the list.
    pub addr: u64,
    /// Its value.
    pub value: u64,
    /// See [`peek_state`].
    pub state: u64,
}

/// Values of [`PeekSlot::state`].
pub mod peek_state {
    /// Not served yet.
    pub const PENDING: u64 = 0;
    /// `value` holds the word.
    pub const READ: u64 = 1;
    /// There is nothing readable at this address.
    pub const FAULT: u64 = 2;
}

/// Slots served in one run of the program: a bound that the verifier walks through.
pub const PEEK_RUN: usize = 512;
/// Slots in the table. The program runs once for each BPF map of the machine, and holdup alone has more than this needs.
pub const PEEK_SLOTS: usize = 8 * PEEK_RUN;

/// A thread in uninterruptible sleep.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct BlockedRecord {
    /// Thread id.
    pub tid: u64,
    /// `nvcsw + nivcsw`.
    pub switches: u64,
}

const _: () = assert!(size_of::<ThreadRecord>() == 16 + 72 + 9 * 8 + 8);
const _: () = assert!(size_of::<PeekSlot>() == 24);
const _: () = assert!(size_of::<UserRecord>() == 16 + 16 + 40 + 24);
const _: () = assert!(
    size_of::<ThreadRecord>() + 8 * (crate::record::MAX_FRAMES + CHUNK_WORDS * MAX_CHUNKS) <= u16::MAX as usize
);
