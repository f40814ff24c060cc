//! Reads of kernel memory, atomics and loss counting.

use core::ffi::c_void;
use core::intrinsics::{AtomicOrdering, atomic_cxchg, atomic_xadd};

use aya_ebpf::helpers::generated::bpf_probe_read_kernel;
use tracer_common::{config::ABSENT, counter};

use crate::maps::LOSS;

/// Reads a `T` at a kernel address; `None` if the page is not there.
#[inline(always)]
pub fn read<T: Copy + Default>(addr: u64) -> Option<T> {
    let mut value = T::default();
    if read_into(addr, &mut value) { Some(value) } else { None }
}

/// Reads a field at an offset that may be absent in this kernel.
#[inline(always)]
pub fn field<T: Copy + Default>(base: u64, offset: u32) -> Option<T> {
    if offset == ABSENT || base == 0 {
        return None;
    }
    read(base + u64::from(offset))
}

/// Reads into existing memory; `false` if the page is not there (the helper zeroes the destination then).
#[inline(always)]
pub fn read_into<T: Copy>(addr: u64, to: &mut T) -> bool {
    // SAFETY: the helper writes exactly size_of::<T>() bytes and never faults; every T used here is made of integers.
    unsafe {
        bpf_probe_read_kernel(
            (to as *mut T).cast::<c_void>(),
            size_of::<T>() as u32,
            addr as *const c_void,
        ) == 0
    }
}

/// Adds to a word that other contexts of this CPU, or other CPUs, may add to at the same time.
///
/// # Safety
/// `word` points into a live map value.
#[inline(always)]
pub unsafe fn add(word: *mut u64, n: u64) {
    // SAFETY: by contract.
    unsafe {
        atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(word, n);
    }
}

/// Compare-and-swap; true when `word` was `old` and is now `new`.
///
/// # Safety
/// `word` points into a live map value.
#[inline(always)]
pub unsafe fn cas(word: *mut u64, old: u64, new: u64) -> bool {
    // SAFETY: by contract.
    unsafe { atomic_cxchg::<u64, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(word, old, new).1 }
}

/// Counts one loss.
#[inline(always)]
pub fn lost(cause: u32) {
    if cause < counter::COUNT
        && let Some(cell) = LOSS.get_ptr_mut(cause)
    {
        // SAFETY: just looked up.
        unsafe { add(cell, 1) }
    }
}
