//! Every map. Sizes given here are placeholders where user space sets the real ones before load.

use aya_ebpf::{
    macros::map,
    maps::{Array, HashMap, PerCpuArray, RingBuf},
};
use tracer_common::{
    counter,
    record::{MAX_FRAMES, WaitRecord},
    sample::CpuSample,
    snapshot::{CHUNK_WORDS, PEEK_SLOTS, PeekSlot, ThreadRecord},
    table::{Control, CpuFacts, HOLDER_SLOTS, HolderSlot, LockCell, SpinCpu, SpinLogEntry, WaitBucket, WaitSlot},
    watch::{WatchCpu, WatchEntry},
};

/// `BPF_F_MMAPABLE`: user space reads the array in place.
const MMAPABLE: u32 = 1 << 10;

/// Events of sleeping locks.
#[map]
pub static RING: RingBuf = RingBuf::with_byte_size(1 << 20, 0);

/// Owners of the slots of [`WAITS`], in buckets. Nobody maps it: the flag makes it start at a page, so that a bucket is one cache
/// line and not parts of two.
#[map]
pub static WAIT_BUCKETS: Array<WaitBucket> = Array::with_max_entries(1, MMAPABLE);

/// Pending waits by thread.
#[map]
pub static WAITS: Array<WaitSlot> = Array::with_max_entries(1, MMAPABLE);

/// Spin state by CPU.
#[map]
pub static SPINS: Array<SpinCpu> = Array::with_max_entries(1, MMAPABLE);

/// Spin log, one part per CPU.
#[map]
pub static SPIN_LOG: Array<SpinLogEntry> = Array::with_max_entries(1, MMAPABLE);

/// Log of watched locks, one part per CPU.
#[map]
pub static WATCH_LOG: Array<WatchEntry> = Array::with_max_entries(1, MMAPABLE);

/// Each CPU's place in [`WATCH_LOG`].
#[map]
pub static WATCH_CPUS: Array<WatchCpu> = Array::with_max_entries(1, MMAPABLE);

/// Newest sample of each CPU.
#[map]
pub static SAMPLES: Array<CpuSample> = Array::with_max_entries(1, MMAPABLE);

/// Threads that others wait for.
#[map]
pub static HOLDERS: Array<HolderSlot> = Array::with_max_entries(HOLDER_SLOTS, MMAPABLE);

/// Lock statistics: two banks, in each one part per CPU.
#[map]
pub static CELLS: Array<LockCell> = Array::with_max_entries(1, MMAPABLE);

/// What user space changes at run time.
#[map]
pub static CONTROL: Array<Control> = Array::with_max_entries(1, MMAPABLE);

/// Facts by CPU.
#[map]
pub static CPUS: Array<CpuFacts> = Array::with_max_entries(1, 0);

/// Loss counters.
#[map]
pub static LOSS: PerCpuArray<u64> = PerCpuArray::with_max_entries(counter::COUNT, 0);

/// Non-zero while a program of ours is at the ring buffer on this CPU.
#[map]
pub static BUSY: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// Threads whose state the iterator reports although they do not wait. Looked up by the iterator only.
#[map]
pub static INTEREST: HashMap<u32, u32> = HashMap::with_max_entries(8192, 0);

/// Where the iterator builds a record.
#[map]
pub static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);

/// A record with room for its stack.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Scratch {
    pub wait: WaitRecord,
    pub frames: [u64; MAX_FRAMES],
}

/// Where the walk over all threads builds a record.
#[map]
pub static THREAD: PerCpuArray<ThreadScratch> = PerCpuArray::with_max_entries(1, 0);

/// Where the walk over all threads copies a part of a stack.
#[map]
pub static CHUNK: PerCpuArray<[u64; CHUNK_WORDS]> = PerCpuArray::with_max_entries(1, 0);

/// Words of kernel memory that user space wants.
#[map]
pub static PEEKS: Array<PeekSlot> = Array::with_max_entries(PEEK_SLOTS as u32, MMAPABLE);

/// A thread with room for its frames.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ThreadScratch {
    pub thread: ThreadRecord,
    pub frames: [u64; MAX_FRAMES],
}
