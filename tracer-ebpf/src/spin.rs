//! Spinning waits and lock statistics: arrays only. Nothing here may take a lock or allocate (see main.rs).

use aya_ebpf::helpers::{
    bpf_get_current_comm, bpf_get_current_pid_tgid,
    generated::{bpf_get_smp_processor_id, bpf_ktime_get_ns},
};
use tracer_common::{
    counter,
    kind::{context, lock_kind, mode},
    table::{BUCKET_SHIFT, BUCKETS, LockCell, PROBES, SpinCpu, SpinSlot},
};

use crate::{
    layout::setting,
    maps::{CELLS, CONTROL, CPUS, SPIN_LOG, SPINS},
    mem::{add, cas, lost, read},
    wait::Begin,
    watch,
};

/// This CPU's preempt count.
///
/// KERNEL: include/linux/preempt.h: softirq bits 8-15 (odd = serving), hardirq 16-19, NMI 20-23; x86 keeps the count in a per-CPU
/// variable; 5.10 to 6.18.
#[inline(always)]
pub fn preempt_count(cpu: u32) -> Option<u32> {
    if setting!(per_cpu_offset) == 0 {
        return None;
    }
    let facts = CPUS.get_ptr_mut(cpu)?;
    // SAFETY: just looked up; everybody who writes it writes the same value.
    let mut addr = unsafe { core::ptr::read_volatile(&raw const (*facts).preempt_count) };
    if addr == 0 {
        let base = read::<u64>(setting!(per_cpu_offset) + u64::from(cpu) * 8)?;
        addr = base.wrapping_add(setting!(preempt_count));
        // SAFETY: as above.
        unsafe { core::ptr::write_volatile(&raw mut (*facts).preempt_count, addr) };
    }
    read(addr)
}

/// The context this CPU is in.
#[inline(always)]
pub fn current_context(cpu: u32) -> u8 {
    let Some(count) = preempt_count(cpu) else {
        return context::UNKNOWN;
    };
    if count & 0x00f0_0000 != 0 {
        context::NMI
    } else if count & 0x000f_0000 != 0 {
        context::HARDIRQ
    } else if count & 0x0000_0100 != 0 {
        context::SOFTIRQ
    } else {
        context::TASK
    }
}

/// A CPU starts to spin.
#[inline(always)]
pub fn begin(begin: &Begin) {
    let cpu = unsafe { bpf_get_smp_processor_id() };
    let Some(spins) = SPINS.get_ptr_mut(cpu) else { return };
    let current = current_context(cpu);
    let index = current as usize;
    if index >= context::COUNT {
        return;
    }
    let pid_tgid = bpf_get_current_pid_tgid();
    let slot = SpinSlot {
        lock: begin.lock,
        since: unsafe { bpf_ktime_get_ns() },
        word: word(begin.lock),
        tid: pid_tgid as u32,
        tgid: (pid_tgid >> 32) as u32,
        kind: begin.kind,
        mode: begin.mode,
        seen_by: begin.seen_by,
        pad: 0,
        flags: begin.flags,
    };
    drop_stale(spins, index);
    // SAFETY: a context spins on one lock at a time and cannot be preempted meanwhile, so its slot has one writer.
    unsafe {
        let place = &raw mut (*spins).slots[index];
        if setting!(spin_begin_only) == 0 && (*place).lock != 0 {
            if is_inside(&*place, begin) {
                return;
            }
            lost(counter::MISSED_END);
        }
        core::ptr::write(place, slot);
        if setting!(spin_begin_only) != 0 {
            count(begin.lock, begin.kind, begin.mode, 0);
            log(spins, cpu, &slot, slot.since, current);
        }
    }
}

/// The lock's word, where every wait is shown; else 0. It is what all who wait for this lock write to: reading it costs more than
/// the rest of a begin, and of a wait that is still going on the word is read again anyway.
#[inline(always)]
fn word(lock: u64) -> u64 {
    if setting!(emit_all) == 0 {
        return 0;
    }
    read::<u32>(lock).unwrap_or(0).into()
}

/// A rwlock's waiters queue on a spinlock inside of it: whoever waits for that one waits for the rwlock, which its end tells of.
///
/// KERNEL: `struct qrwlock` (include/asm-generic/qrwlock_types.h), 5.10 to 6.18: `cnts` and then `wait_lock`.
#[inline(always)]
fn is_inside(outer: &SpinSlot, begin: &Begin) -> bool {
    const QRWLOCK_BYTES: u64 = 8;
    outer.kind == lock_kind::RWLOCK
        && begin.kind == lock_kind::SPINLOCK
        && begin.lock.wrapping_sub(outer.lock) < QRWLOCK_BYTES
}

/// Contexts above the one that runs now are over: if one of them seems to spin, its end was missed (the kernel skips a program
/// that is already running on this CPU).
#[inline(always)]
fn drop_stale(spins: *mut SpinCpu, current: usize) {
    let mut index = context::NMI as usize;
    while index > current {
        // SAFETY: just looked up by the caller; index < COUNT.
        let lock = unsafe { &raw mut (*spins).slots[index].lock };
        // SAFETY: as above.
        if unsafe { core::ptr::read_volatile(lock) } != 0 {
            // SAFETY: as above.
            unsafe { core::ptr::write_volatile(lock, 0) };
            if setting!(spin_begin_only) == 0 {
                lost(counter::MISSED_END);
            }
        }
        index -= 1;
    }
}

/// The end of a contention, if it is one of a spinning wait on this CPU.
#[inline(always)]
pub fn end(lock: u64) -> bool {
    let cpu = unsafe { bpf_get_smp_processor_id() };
    let Some(spins) = SPINS.get_ptr_mut(cpu) else {
        return false;
    };
    let mut index = context::COUNT;
    // The innermost context first: it is the one that runs.
    while index > 0 {
        index -= 1;
        // SAFETY: as in `begin`; index < COUNT.
        let slot = unsafe { &mut (*spins).slots[index] };
        if slot.lock == lock {
            let ended = *slot;
            slot.lock = 0;
            let now = unsafe { bpf_ktime_get_ns() };
            let waited = now.saturating_sub(ended.since);
            count(lock, ended.kind, ended.mode, waited);
            if setting!(emit_all) != 0 || waited >= setting!(min_wait_ns) || watch::is_watched(lock) {
                log(spins, cpu, &ended, now, index as u8);
            }
            return true;
        }
    }
    false
}

/// Appends to this CPU's part of the spin log, overwriting the oldest entry.
#[inline(always)]
fn log(spins: *mut SpinCpu, cpu: u32, slot: &SpinSlot, until: u64, current: u8) {
    // SAFETY: `spins` was just looked up; the add is atomic against interrupts on this CPU.
    let number = unsafe {
        core::intrinsics::atomic_xadd::<u64, u64, { core::intrinsics::AtomicOrdering::SeqCst }>(
            &raw mut (*spins).logged,
            1,
        )
    };
    let mask = setting!(spin_log_mask);
    let at = cpu
        .wrapping_mul(mask.wrapping_add(1))
        .wrapping_add(number as u32 & mask);
    let Some(entry) = SPIN_LOG.get_ptr_mut(at) else { return };
    // SAFETY: the number is ours alone, so is the entry until the log wraps; readers check `seq` before and after.
    unsafe {
        core::ptr::write_volatile(&raw mut (*entry).seq, 0);
        (*entry).lock = slot.lock;
        (*entry).since = slot.since;
        (*entry).until = until;
        (*entry).word = slot.word;
        (*entry).tid = slot.tid;
        (*entry).tgid = slot.tgid;
        (*entry).comm = bpf_get_current_comm().unwrap_or([0; 16]);
        (*entry).kind = slot.kind;
        (*entry).mode = slot.mode;
        (*entry).context = current;
        (*entry).seen_by = slot.seen_by;
        (*entry).flags = slot.flags;
        core::ptr::write_volatile(&raw mut (*entry).seq, number + 1);
    }
}

/// Counts one ended wait in the statistics of its lock.
#[inline(always)]
pub fn count(lock: u64, kind: u8, wanted: u8, waited: u64) {
    let Some(control) = CONTROL.get(0) else { return };
    let cpu = unsafe { bpf_get_smp_processor_id() };
    let mask = setting!(cell_mask);
    let bank = (control.bank & 1) as u32;
    let base = bank
        .wrapping_mul(setting!(cpus))
        .wrapping_add(cpu)
        .wrapping_mul(mask.wrapping_add(1));
    let key = lock | u64::from(wanted == mode::SHARED);
    let hash = (key >> 3).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    let mut i = 0;
    while i < PROBES {
        let Some(cell) = CELLS.get_ptr_mut(base.wrapping_add((hash as u32).wrapping_add(i) & mask)) else {
            return;
        };
        // SAFETY: just looked up; cells of this CPU are shared only with interrupts that nest here, hence atomics.
        unsafe {
            let found = core::ptr::read_volatile(&raw const (*cell).key);
            if found == key || (found == 0 && cas(&raw mut (*cell).key, 0, key)) {
                update(cell, kind, waited);
                return;
            }
        }
        i += 1;
    }
    lost(counter::LOCK_TABLE_FULL);
}

/// # Safety
/// `cell` points into a live map value.
#[inline(always)]
unsafe fn update(cell: *mut LockCell, kind: u8, waited: u64) {
    // SAFETY: by contract; the index is masked to the array.
    unsafe {
        (*cell).kind = u64::from(kind);
        add(&raw mut (*cell).waits, 1);
        add(&raw mut (*cell).total, waited);
        let max = core::ptr::read_volatile(&raw const (*cell).max);
        if waited > max && !cas(&raw mut (*cell).max, max, waited) {
            let max = core::ptr::read_volatile(&raw const (*cell).max);
            if waited > max {
                cas(&raw mut (*cell).max, max, waited);
            }
        }
        let bucket = bucket(waited) as usize & (BUCKETS - 1);
        add(&raw mut (*cell).buckets[bucket], 1);
    }
}

/// log2 bucket of a duration (see [`BUCKET_SHIFT`]), branch-free search.
#[inline(always)]
fn bucket(ns: u64) -> u32 {
    let mut v = ns >> BUCKET_SHIFT;
    let mut log = 0;
    if v >> 32 != 0 {
        return BUCKETS as u32 - 1;
    }
    if v >> 16 != 0 {
        v >>= 16;
        log += 16;
    }
    if v >> 8 != 0 {
        v >>= 8;
        log += 8;
    }
    if v >> 4 != 0 {
        v >>= 4;
        log += 4;
    }
    if v >> 2 != 0 {
        v >>= 2;
        log += 2;
    }
    if v >> 1 != 0 {
        log += 1;
    }
    log
}
