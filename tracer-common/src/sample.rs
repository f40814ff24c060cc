//! What the CPU sampler sees: one slot per CPU, overwritten by each sample.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::record::TaskRecord;

/// Registers kept; no supported architecture has more in `struct pt_regs`.
pub const REGISTERS: usize = 34;
/// Frames kept: a stack that crosses from a thread through an interrupt into a softirq is longer than a plain one.
pub const SAMPLE_FRAMES: usize = 64;

/// Where registers stand in `struct pt_regs`, in 64-bit words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registers {
    /// Words in the structure.
    pub words: usize,
    /// The first this many words are general registers.
    pub general: usize,
    /// First argument of a function.
    pub argument: usize,
    /// Stack pointer.
    pub stack: usize,
    /// Word that tells user mode from kernel mode, and the bits of it that do.
    pub mode: usize,
    /// See [`Registers::mode`].
    pub mode_mask: u64,
    /// Value of those bits in user mode.
    pub user: u64,
}

/// KERNEL: arch/x86/include/asm/ptrace.h: r15 r14 r13 r12 bp bx r11 r10 r9 r8 ax cx dx si di orig_ax ip cs flags sp ss; 5.10 to 6.18.
pub const X86_64: Registers = Registers {
    words: 21,
    general: 15,
    argument: 14,
    stack: 19,
    mode: 17,
    mode_mask: 3,
    user: 3,
};

/// KERNEL: arch/arm64/include/uapi/asm/ptrace.h: x0 to x30, sp, pc, pstate; 5.10 to 6.18.
pub const AARCH64: Registers = Registers {
    words: 34,
    general: 31,
    argument: 0,
    stack: 31,
    mode: 33,
    mode_mask: 0xf,
    user: 0,
};

/// The newest sample of one CPU. Written by that CPU alone.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct CpuSample {
    /// Equal to [`CpuSample::count`] when the sample is whole; 0 while it is written.
    pub seq: u64,
    /// Number of this sample on this CPU, from 1 on.
    pub count: u64,
    /// When.
    pub time: u64,
    /// Samples in a row, this one included, with the same thread, stack pointer and first-argument register: the CPU has stood still.
    pub streak: u64,
    /// Time of the first of them.
    pub streak_since: u64,
    /// The thread that runs or was interrupted.
    pub task: TaskRecord,
    /// Preempt count, the sampling interrupt included; only valid with [`CpuSample::has_preempt_count`].
    pub preempt_count: u32,
    /// Non-zero when the preempt count could be read.
    pub has_preempt_count: u32,
    /// Number of valid frames.
    pub stack_len: u32,
    /// Explicit padding.
    pub pad: u32,
    /// `struct pt_regs` of what was interrupted.
    pub registers: [u64; REGISTERS],
    /// What the general registers point to, read at once; 0 where nothing is readable.
    pub pointees: [u64; REGISTERS],
    /// Return addresses across contexts, innermost first.
    pub frames: [u64; SAMPLE_FRAMES],
}

const _: () = assert!(core::mem::size_of::<CpuSample>() == 5 * 8 + 72 + 16 + 2 * 8 * REGISTERS + 8 * SAMPLE_FRAMES);
