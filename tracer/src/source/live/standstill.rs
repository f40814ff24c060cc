//! What one CPU sample says: the context, and the lock that the CPU spins on.

use tracer_common::sample::{CpuSample, Registers};

use crate::event::{Context, LockKind, Mode, Owner};
use crate::ids::{CpuId, KernelAddr, LockAddr, Timestamp};
use crate::kernel::stacks::interrupt_entry;
use crate::kernel::symbols::Symbols;
use crate::spin_word::{self, WordState};

#[cfg(target_arch = "aarch64")]
pub const REGS: Registers = tracer_common::sample::AARCH64;
#[cfg(not(target_arch = "aarch64"))]
pub const REGS: Registers = tracer_common::sample::X86_64;

/// KERNEL: include/linux/preempt.h, 5.10 to 6.18.
const PREEMPT: u32 = 0xff;
const SERVING_SOFTIRQ: u32 = 0x100;
const SOFTIRQ: u32 = 0xff00;
const HARDIRQ: u32 = 0xf_0000;
const ONE_HARDIRQ: u32 = 0x1_0000;
const NMI: u32 = 0xf0_0000;

/// Innermost frames in which the spinning function may be: a paravirtual one calls the hypervisor from there.
const SPIN_FRAMES: usize = 2;

/// A CPU that spins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spin {
    pub lock: LockAddr,
    pub kind: LockKind,
    pub mode: Mode,
    pub word: u32,
    pub owner: Owner,
    /// It stands in the queue inside of a rwlock, behind the first waiter.
    pub behind: bool,
}

/// What is known of the words of spinning locks here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Locks {
    /// Possible CPUs.
    pub cpus: u32,
    /// Offset of the inner spinlock of a rwlock.
    pub rwlock_queue: Option<u32>,
}

/// The preempt count of what was interrupted by the sampling.
#[must_use]
pub fn preempt_count(sample: &CpuSample) -> Option<u32> {
    if sample.has_preempt_count == 0 {
        return None;
    }
    // The sampling timer is an interrupt itself; where an NMI samples, that counts in its own place.
    let count = sample.preempt_count & (PREEMPT | SOFTIRQ | HARDIRQ | NMI);
    Some(if count & NMI != 0 {
        count & !NMI
    } else {
        count.saturating_sub(ONE_HARDIRQ)
    })
}

/// Whether a CPU with this preempt count is in an interrupt, above its thread.
#[must_use]
pub fn serves_interrupt(count: u32) -> bool {
    count & (HARDIRQ | NMI | SERVING_SOFTIRQ) != 0
}

/// Whether a CPU with this preempt count is in a hard interrupt, and in no NMI above it.
#[must_use]
pub fn in_hard_interrupt(count: u32) -> bool {
    count & HARDIRQ != 0 && count & NMI == 0
}

/// Spinlocks that the CPU holds or waits for, as its preempt count says; 0 also where the kernel does not count them.
#[must_use]
pub fn spinlocks(sample: &CpuSample) -> Option<u32> {
    Some(preempt_count(sample)? & PREEMPT)
}

/// The context of code that runs with this preempt count; NMIs apart.
#[must_use]
pub fn context_of(count: u32) -> Context {
    if count & HARDIRQ != 0 {
        Context::Hardirq
    } else if count & SERVING_SOFTIRQ != 0 {
        Context::Softirq
    } else {
        Context::Task
    }
}

/// In which context the CPU is; by its stack where the preempt count is not readable.
#[must_use]
pub fn context(sample: &CpuSample, frames: &[KernelAddr], symbols: Option<&Symbols>) -> Context {
    if let Some(count) = preempt_count(sample) {
        return context_of(count);
    }
    let names = names(frames, symbols);
    match interrupt_entry(names.iter().copied()) {
        None => Context::Task,
        Some(entry) => {
            let softirq = names
                .iter()
                .take(entry)
                .any(|name| name.is_some_and(|n| matches!(n, "__do_softirq" | "handle_softirqs")));
            if softirq { Context::Softirq } else { Context::Hardirq }
        }
    }
}

/// Whether the CPU could have switched to another thread when it was sampled, so that it held no spinlock: in user space, idle,
/// or with preemption on. `counted`: this kernel counts spinlocks in its preempt count.
#[must_use]
pub fn is_free(sample: &CpuSample, counted: bool) -> bool {
    let user = sample
        .registers
        .get(REGS.mode)
        .is_some_and(|word| word & REGS.mode_mask == REGS.user);
    if user {
        return true;
    }
    let Some(count) = preempt_count(sample) else {
        return false;
    };
    if sample.task.tid == 0 {
        return count & (SOFTIRQ | HARDIRQ) == 0;
    }
    counted && count == 0
}

/// The valid frames.
#[must_use]
pub fn frames(sample: &CpuSample) -> Vec<KernelAddr> {
    let frames = sample.frames.iter().take(sample.stack_len as usize);
    frames.copied().filter(|&frame| frame != 0).map(KernelAddr).collect()
}

fn names<'a>(frames: &[KernelAddr], symbols: Option<&'a Symbols>) -> Vec<Option<&'a str>> {
    let name = |(position, &frame)| {
        crate::kernel::stacks::symbol_of_frame(symbols?, position, frame).map(|symbol| symbol.name)
    };
    frames.iter().enumerate().map(name).collect()
}

/// The lock that the CPU spins on, if it does.
///
/// The slowpaths keep the lock's address in a register all the time they spin; which one is the compiler's choice. The first
/// argument is tried first; a candidate counts only if the word it points to is that of a lock with a waiter. A word that says
/// "held" goes before one that does not; the latter must also name this CPU, as the last in its queue or, where there is none, by the
/// pending flag, which names nobody: any number in memory may look like a word that is wrong.
#[must_use]
pub fn spin(cpu: CpuId, sample: &CpuSample, frames: &[KernelAddr], symbols: &Symbols, locks: Locks) -> Option<Spin> {
    let names = names(frames, Some(symbols));
    let slow = |name: &Option<&str>| slowpath((*name)?);
    let at = names.iter().take(SPIN_FRAMES).position(|name| slow(name).is_some())?;
    let (kind, mode) = names.get(at).and_then(slow)?;
    let outer = names
        .get(at + 1)
        .and_then(slow)
        .filter(|&(kind, _)| kind == LockKind::Rwlock);
    let order = std::iter::once(REGS.argument).chain((0..REGS.general).filter(|&r| r != REGS.argument));
    let fits = |register: usize| {
        let lock = *sample.registers.get(register)?;
        #[expect(clippy::cast_possible_truncation, reason = "the lock word is the lower half")]
        let word = *sample.pointees.get(register)? as u32;
        let owner = match kind {
            LockKind::Rwlock => {
                let next = (*sample.pointees.get(register)? >> 32) as u32;
                let queue = (locks.rwlock_queue == Some(4)).then(|| spin_word::spinlock(next, locks.cpus).state);
                let is_there = spin_word::rwlock_word(word).shows(mode) && queue != Some(WordState::Impossible);
                is_there.then_some(())?;
                spin_word::rwlock(word)
            }
            _ => {
                let word = spin_word::spinlock(word, locks.cpus);
                let is_there =
                    word.has_waiter() && (word.state == WordState::Held || word.tail.is_none_or(|t| t == cpu));
                is_there.then_some(())?;
                word.owner()
            }
        };
        let on_stack = sample
            .registers
            .get(REGS.stack)
            .is_some_and(|&sp| lock.abs_diff(sp) < 0x1000);
        let is_kernel = lock >= 0xff00_0000_0000_0000 && lock.is_multiple_of(4);
        (is_kernel && !on_stack).then_some(Spin {
            lock: LockAddr(lock),
            kind,
            mode,
            word,
            owner,
            behind: false,
        })
    };
    let found: Vec<Spin> = order.into_iter().filter_map(fits).collect();
    let held = found.iter().find(|spin| spin.owner != Owner::Nobody);
    let spin = held.or(found.first()).cloned()?;
    Some(match (outer, locks.rwlock_queue) {
        // Who waits for the inner spinlock waits for the rwlock, whose own word no register points to.
        (Some((kind, mode)), Some(queue)) => Spin {
            lock: LockAddr(spin.lock.0.wrapping_sub(queue.into())),
            kind,
            mode,
            word: 0,
            owner: Owner::NotRecorded,
            behind: true,
        },
        _ => spin,
    })
}

/// Whether the CPU waits for another one to answer an inter-processor interrupt.
///
/// KERNEL: kernel/smp.c: `csd_lock_wait` is inlined into its callers where CSD_LOCK_WAIT_DEBUG is off; 5.10 to 6.18.
#[must_use]
pub fn waits_for_answer(frames: &[KernelAddr], symbols: &Symbols) -> bool {
    names(frames, Some(symbols))
        .into_iter()
        .take(SPIN_FRAMES)
        .flatten()
        .any(|name| {
            name.starts_with("smp_call_function")
                || name.starts_with("csd_lock_wait")
                || name.starts_with("__csd_lock_wait")
        })
}

/// KERNEL: kernel/locking/qspinlock.c and qrwlock.c, 5.10 to 6.18.
pub fn slowpath(name: &str) -> Option<(LockKind, Mode)> {
    match name {
        "native_queued_spin_lock_slowpath" | "__pv_queued_spin_lock_slowpath" | "queued_spin_lock_slowpath" => {
            Some((LockKind::Spinlock, Mode::Exclusive))
        }
        "queued_read_lock_slowpath" => Some((LockKind::Rwlock, Mode::Shared)),
        "queued_write_lock_slowpath" => Some((LockKind::Rwlock, Mode::Exclusive)),
        _ => None,
    }
}

/// Since when the CPU has stood still.
#[must_use]
pub fn still_since(sample: &CpuSample) -> Timestamp {
    Timestamp(sample.streak_since)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;
    use zerocopy::FromZeros;

    const LOCK: u64 = 0xffff_8880_1234_5670;
    const SPIN: u64 = 0xffff_ffff_8100_0010;

    fn symbols() -> Symbols {
        let text = "ffffffff81000000 T native_queued_spin_lock_slowpath\nffffffff81001000 T queued_write_lock_slowpath\n\
            ffffffff81002000 T _raw_spin_lock\nffffffff81003000 T asm_sysvec_apic_timer_interrupt\nffffffff81004000 T kthread\n";
        Symbols::parse(Path::new("test"), text.as_bytes()).unwrap()
    }

    /// A CPU in a slowpath, with the lock in this register, sampled in this context.
    fn sample(ip: u64, register: usize, word: u64, count: u32) -> CpuSample {
        let mut sample = CpuSample::new_zeroed();
        sample.frames[0] = ip;
        sample.frames[1] = 0xffff_ffff_8100_2010;
        sample.stack_len = 2;
        sample.registers[register] = LOCK;
        sample.pointees[register] = 0xabcd_0000_0000_0000 | word;
        sample.registers[REGS.stack] = 0xffff_c900_0000_1000;
        (sample.preempt_count, sample.has_preempt_count) = (count, 1);
        sample
    }

    fn found(sample: &CpuSample) -> Option<(u64, LockKind, Owner)> {
        let locks = Locks {
            cpus: 4,
            rwlock_queue: Some(4),
        };
        let spin = spin(CpuId(1), sample, &frames(sample), &symbols(), locks)?;
        Some((spin.lock.0, spin.kind, spin.owner))
    }

    #[test]
    fn the_lock_is_found_in_any_register_by_its_word() {
        for register in [REGS.argument, 3] {
            let held = sample(SPIN, register, 0x101, 0x1_0101);
            assert_eq!(found(&held), Some((LOCK, LockKind::Spinlock, Owner::NotRecorded)));
        }
        let free = sample(SPIN, 3, 0x100, 0x1_0101);
        assert_eq!(found(&free), Some((LOCK, LockKind::Spinlock, Owner::Nobody)));
    }

    #[test]
    fn the_first_waiter_of_a_rwlock_is_seen_in_its_word_and_the_others_in_its_queue() {
        let first = |words: u64| {
            let mut sample = sample(0xffff_ffff_8100_1010, REGS.argument, 0, 0x1_0101);
            sample.pointees[REGS.argument] = words;
            found(&sample)
        };
        let written = (LOCK, LockKind::Rwlock, Owner::NotRecorded);
        let read = Owner::Readers {
            hint: None,
            count: Some(2),
        };
        assert_eq!(first(1 << 32 | 0x1ff), Some(written.clone()));
        assert_eq!(first(1 << 32 | 0x500), Some((LOCK, LockKind::Rwlock, read)));
        assert_eq!(first(1 << 32 | 0x0ff), None, "no writer waits by this word");
        assert_eq!(first(0xabcd_0001_0000_01ff), None, "no queue");
        let mut behind = sample(SPIN, 3, 0x101, 0x1_0101);
        behind.frames[1] = 0xffff_ffff_8100_1010;
        behind.registers[3] = LOCK + 4;
        assert_eq!(found(&behind), Some(written));
    }

    #[test]
    fn what_is_no_contended_lock_is_none() {
        assert_eq!(
            found(&sample(SPIN, REGS.argument, 1, 0x1_0001)),
            None,
            "nobody waits by this word"
        );
        assert_eq!(
            found(&sample(0xffff_ffff_8100_4010, REGS.argument, 0x101, 0)),
            None,
            "no slowpath"
        );
        // What is no lock at all may have a waiter by its word, and nobody who holds it.
        assert_eq!(
            found(&sample(SPIN, 3, 0x10_0000, 0x1_0001)),
            None,
            "another CPU's place"
        );
        let own = (LOCK, LockKind::Spinlock, Owner::Nobody);
        assert_eq!(
            found(&sample(SPIN, 3, 0x8_0000, 0x1_0001)),
            Some(own),
            "this CPU's place"
        );
        let mut both = sample(SPIN, 3, 0x101, 0x1_0001);
        both.registers[REGS.argument] = LOCK + 0x100;
        both.pointees[REGS.argument] = 0x8_0000;
        assert_eq!(found(&both).map(|f| f.0), Some(LOCK), "held goes before dead");
        let mut stack = sample(SPIN, REGS.argument, 0x101, 0x1_0001);
        stack.registers[REGS.stack] = LOCK - 0x40;
        assert_eq!(found(&stack), None, "a local variable");
    }

    #[test]
    fn contexts_by_preempt_count_and_by_stack() {
        let of = |count| {
            let sample = sample(SPIN, 0, 0, count);
            (context(&sample, &frames(&sample), None), spinlocks(&sample))
        };
        assert_eq!(of(0x1_0002), (Context::Task, Some(2)));
        assert_eq!(of(0x8001_0102), (Context::Softirq, Some(2)));
        assert_eq!(of(0x1_0202), (Context::Task, Some(2)), "softirqs disabled, not served");
        assert_eq!(of(0x2_0001), (Context::Hardirq, Some(1)));
        let mut blind = sample(SPIN, 0, 0, 0);
        blind.has_preempt_count = 0;
        (blind.frames[2], blind.stack_len) = (0xffff_ffff_8100_3010, 3);
        assert_eq!(context(&blind, &frames(&blind), Some(&symbols())), Context::Hardirq);
        assert_eq!(spinlocks(&blind), None);
    }

    #[test]
    fn a_cpu_is_free_in_user_space_idle_or_with_preemption_on() {
        let at = |tid, count, user: bool| {
            let mut sample = sample(0, 0, 0, count);
            sample.task.tid = tid;
            sample.registers[REGS.mode] = if user { REGS.user } else { !REGS.user & REGS.mode_mask };
            sample
        };
        assert!(is_free(&at(5, 0x1_0001, true), true));
        assert!(is_free(&at(0, 0x1_0001, false), true), "idle");
        assert!(
            !is_free(&at(0, 0x1_0101, false), true),
            "a softirq above the idle thread"
        );
        assert!(is_free(&at(5, 0x8001_0000, false), true));
        assert!(!is_free(&at(5, 0x1_0000, false), false), "this kernel does not count");
        assert!(!is_free(&at(5, 0x1_0001, false), true));
    }
}
