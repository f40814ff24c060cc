//! Who may hold a spinlock. It records no holder, but whoever holds it keeps its CPU.
//!
//! So a CPU that could have switched to another thread since the wait began holds none; and one that stands still holds no more
//! than its preempt count says, less the lock that it waits for itself, and less the count with which it waits for another CPU's
//! answer. If one CPU is left, it is the holder. Each one that is left is also searched: for the lock's address, and for pointers
//! into the object around it that the lock's waiters have, too, in its registers and on its stack.

use std::collections::BTreeSet;

use anyhow::Result;
use tracer_common::sample::CpuSample;

use super::super::percpu::Running;
use super::super::spin::LongSpin;
use super::super::standstill::{self, REGS};
use super::{Board, SPINLOCKS, Sampled};
use crate::event::{Actor, Body, Event, Evidence, HolderCandidate, LockKind, Mode};
use crate::ids::{CpuId, LockAddr, Nanos, StackId, Timestamp};
use crate::kernel::stackscan::{Memory, is_pointer};
use crate::wire;

/// CPUs searched for one lock at most.
const MAX_SEARCHED: usize = 16;
/// How far behind the begin of its object a lock is looked for, in bytes.
const OBJECT: u64 = 0x1000;
/// KERNEL: IRQ_STACK_SIZE (arch/x86/include/asm/page_64_types.h), without KASAN, 5.10 to 6.18.
const INTERRUPT_STACK: u64 = 16 << 10;

/// Within this time the other CPUs have been seen to be free, where they are.
const ELIMINATION: Nanos = Nanos::from_secs(5);

/// A lock whose holder is sought.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sought {
    pub lock: LockAddr,
    pub kind: LockKind,
    /// How it is held.
    pub mode: Mode,
    /// Since when all its known waiters have waited.
    pub since: Timestamp,
}

/// What is known of a round.
#[derive(Clone, Copy)]
pub(super) struct Seen<'r> {
    pub running: &'r [Running],
    pub sampled: &'r [Sampled],
    pub long: &'r [LongSpin],
    pub now: Timestamp,
}

impl Seen<'_> {
    fn sample(&self, cpu: CpuId) -> Option<&Sampled> {
        self.sampled.iter().find(|s| s.cpu == cpu)
    }
}

/// Words in which somebody may have left a trace of a lock.
#[derive(Default)]
struct Words {
    registers: Vec<u64>,
    stack: Vec<u64>,
    /// Where the part of the stack in use begins is not known: words may be left over from earlier.
    may_be_old: bool,
}

impl Board {
    /// Tells who can hold this lock and why, the best candidate first by rank.
    pub(super) fn holders(
        &mut self,
        memory: &mut dyn Memory,
        sought: &Sought,
        seen: &Seen<'_>,
        out: &mut Vec<Event>,
    ) -> Result<()> {
        let suspects: Vec<&Running> = seen.running.iter().filter(|r| self.can_hold(r, sought, seen)).collect();
        let near = self.pointers_near(memory, sought, seen)?;
        for r in suspects.iter().take(MAX_SEARCHED) {
            let Some(task) = r.task.clone() else { continue };
            let mut signs = Vec::new();
            if suspects.len() == 1 {
                signs.push((0, Evidence::CpuSample));
            }
            signs.extend(traces(&self.words(memory, r, sought, seen)?, sought.lock, &near));
            if signs.is_empty() {
                continue;
            }
            let holder = match self.spinning.get(&r.cpu) {
                Some(s) if s.lock != sought.lock => s.who,
                _ => Actor::Task(task.key),
            };
            self.at_work(r, seen, out);
            out.extend(signs.into_iter().map(|(rank, evidence)| Event {
                time: seen.now,
                body: Body::Holder(HolderCandidate {
                    lock: sought.lock,
                    kind: sought.kind,
                    mode: sought.mode,
                    holder,
                    task: Some(task.clone()),
                    rank,
                    evidence,
                }),
            }));
        }
        Ok(())
    }

    /// Whether this CPU can hold the lock.
    fn can_hold(&self, r: &Running, sought: &Sought, seen: &Seen<'_>) -> bool {
        if self.free.get(&r.cpu).is_some_and(|&free| free > sought.since) {
            return false;
        }
        let spins = self.spinning.contains_key(&r.cpu) || seen.long.iter().any(|l| l.cpu == r.cpu);
        let asks = seen.sample(r.cpu).is_some_and(|s| s.asks);
        let own = u32::from(spins) + u32::from(asks);
        let spinlocks = r.preempt_count.map(|count| count & SPINLOCKS);
        // Of a CPU that does not stand still the count is that of a moment.
        !(own > 0 && self.counted && spinlocks.is_some_and(|n| n <= own))
    }

    /// Who waits for the lock on this CPU.
    fn waiter(&self, cpu: CpuId, sought: &Sought, seen: &Seen<'_>) -> Option<Waiter> {
        let sampled = seen.sample(cpu);
        if let Some(s) = sampled.filter(|s| s.spin.as_ref().is_some_and(|spin| spin.lock == sought.lock)) {
            let in_interrupt = standstill::preempt_count(&s.sample).is_some_and(standstill::serves_interrupt);
            return Some(if in_interrupt {
                Waiter::Interrupt
            } else {
                Waiter::Thread
            });
        }
        let told = seen.long.iter().find(|l| l.cpu == cpu && l.lock == sought.lock);
        let found = self.spinning.get(&cpu).filter(|s| s.lock == sought.lock);
        match (found.map(|s| s.who), told.map(|l| l.in_task)) {
            (Some(Actor::Interrupt { .. }), _) | (None, Some(false)) => Some(Waiter::Interrupt),
            (Some(Actor::Task(_)), _) | (None, Some(true)) => Some(Waiter::Thread),
            (None, None) => None,
        }
    }

    /// Pointers to shortly before the lock that its waiters have in registers or on their stacks: to the object that it lies in.
    fn pointers_near(&self, memory: &mut dyn Memory, sought: &Sought, seen: &Seen<'_>) -> Result<BTreeSet<u64>> {
        let mut near = BTreeSet::new();
        let waiters = seen
            .running
            .iter()
            .filter(|r| self.waiter(r.cpu, sought, seen).is_some());
        for r in waiters.take(MAX_SEARCHED) {
            let words = all_words(memory, r, seen.sample(r.cpu).map(|s| &s.sample))?;
            let pointers = words.registers.into_iter().chain(words.stack);
            near.extend(pointers.filter(|&word| {
                is_pointer(word) && word < sought.lock.0 && sought.lock.0 - word < OBJECT && word.is_multiple_of(8)
            }));
        }
        Ok(near)
    }

    /// Where a CPU that can hold the lock may show it. A waiter's own words say nothing; those of the thread below one do.
    fn words(&self, memory: &mut dyn Memory, r: &Running, sought: &Sought, seen: &Seen<'_>) -> Result<Words> {
        let sample = seen.sample(r.cpu).map(|s| &s.sample);
        match self.waiter(r.cpu, sought, seen) {
            // A CPU that gives samples may do something else by now.
            None if sample.is_none() && self.times.silent(r.cpu, seen.now).is_none() => Ok(Words::default()),
            None => all_words(memory, r, sample),
            Some(Waiter::Thread) => Ok(Words::default()),
            // Whom elimination finds is found with less doubt: it gets its time.
            Some(Waiter::Interrupt) if seen.now.since(sought.since) < ELIMINATION => Ok(Words::default()),
            Some(Waiter::Interrupt) => Ok(Words {
                stack: match below_interrupt(memory, r)? {
                    Some(sp) => read(memory, sp, r.stack.1)?,
                    None => Vec::new(),
                },
                ..Words::default()
            }),
        }
    }

    /// Says that the thread of this CPU has it, and where it is, as far as a sample shows that.
    fn at_work(&mut self, r: &Running, seen: &Seen<'_>, out: &mut Vec<Event>) {
        let Some(s) = seen.sample(r.cpu).filter(|_| !self.spinning.contains_key(&r.cpu)) else {
            return;
        };
        let time = Timestamp(s.sample.time);
        let in_task = standstill::preempt_count(&s.sample).is_none_or(|count| !standstill::serves_interrupt(count));
        let stack = if in_task {
            self.stack(&s.frames, time, out)
        } else {
            StackId(0)
        };
        out.extend(wire::task_event(&s.sample.task, stack, time));
    }
}

/// Who waits on a CPU.
enum Waiter {
    Thread,
    Interrupt,
}

/// Registers and stack of what runs on a CPU.
fn all_words(memory: &mut dyn Memory, r: &Running, sample: Option<&CpuSample>) -> Result<Words> {
    let in_interrupt = r.preempt_count.is_some_and(standstill::serves_interrupt);
    let on_stack = |sp: &u64| (r.stack.0..r.stack.1).contains(sp) && sp.is_multiple_of(8);
    let sp = sample.and_then(|sample| sample.registers.get(REGS.stack).copied());
    let mut words = Words {
        registers: sample.map_or_else(Vec::new, |sample| {
            sample.registers.iter().take(REGS.general).copied().collect()
        }),
        ..Words::default()
    };
    if let Some(sp) = sp.filter(on_stack) {
        words.stack = read(memory, sp, r.stack.1)?;
        return Ok(words);
    }
    if let (Some(sp), Some(last)) = (sp, r.interrupt_stack)
        && sp <= last
        && last - sp < INTERRUPT_STACK
        && sp.is_multiple_of(8)
    {
        words.stack = read(memory, sp, last)?;
    }
    match below_interrupt(memory, r)?.filter(|_| in_interrupt) {
        Some(sp) => words.stack.extend(read(memory, sp, r.stack.1)?),
        None => {
            words.stack.extend(read(memory, r.stack.0, r.stack.1)?);
            words.may_be_old = true;
        }
    }
    Ok(words)
}

/// Where the stack of the thread below an interrupt begins: its registers, as interrupted, are the first that lies there.
///
/// KERNEL: x86-64 runs interrupts on a stack of their own, whose last word holds the interrupted stack pointer
/// (`call_on_irqstack`, arch/x86/include/asm/irq_stack.h, 5.12 to 6.18). Elsewhere nothing is found.
fn below_interrupt(memory: &mut dyn Memory, r: &Running) -> Result<Option<u64>> {
    let Some(last) = r.interrupt_stack else { return Ok(None) };
    let saved = memory.read(&[last])?.first().copied().flatten();
    Ok(saved.filter(|sp| (r.stack.0..r.stack.1).contains(sp) && sp.is_multiple_of(8)))
}

fn read(memory: &mut dyn Memory, from: u64, to: u64) -> Result<Vec<u64>> {
    let addrs: Vec<u64> = (from..to).step_by(8).collect();
    Ok(memory.read(&addrs)?.into_iter().flatten().collect())
}

/// What these words show of the lock, each kind of sign once, with its rank. Pointers to its neighbourhood add nothing to its own
/// address.
fn traces(words: &Words, lock: LockAddr, near: &BTreeSet<u64>) -> Vec<(u32, Evidence)> {
    let exact = |words: &[u64]| words.contains(&lock.0);
    let object = |words: &[u64]| words.iter().any(|word| near.contains(word));
    let old = if words.may_be_old { 4 } else { 0 };
    let anywhere = exact(&words.registers) || exact(&words.stack);
    let signs = [
        (exact(&words.registers), 1, Evidence::RegisterWord),
        (exact(&words.stack), 2 + old, Evidence::StackWord),
        (!anywhere && object(&words.registers), 3, Evidence::RegisterNear),
        (!anywhere && object(&words.stack), 4 + old, Evidence::StackNear),
    ];
    signs
        .into_iter()
        .filter(|&(found, ..)| found)
        .map(|(_, rank, evidence)| (rank, evidence))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    const LOCK: u64 = 0xffff_8880_0000_1050;
    const OBJ: u64 = 0xffff_8880_0000_1000;
    const STACK: u64 = 0xffff_c900_0000_0000;
    const IRQ_LAST: u64 = 0xffff_c900_1000_3ff8;

    struct Words_(HashMap<u64, u64>);

    impl Memory for Words_ {
        fn read(&mut self, addrs: &[u64]) -> Result<Vec<Option<u64>>> {
            Ok(addrs.iter().map(|addr| self.0.get(addr).copied()).collect())
        }
    }

    fn cpu(count: u32) -> Running {
        Running {
            stack: (STACK, STACK + 0x4000),
            interrupt_stack: Some(IRQ_LAST),
            preempt_count: Some(count),
            ..Running::default()
        }
    }

    fn sample(sp: u64, registers: &[u64]) -> CpuSample {
        let mut sample: CpuSample = zerocopy::FromZeros::new_zeroed();
        sample.registers[..registers.len()].copy_from_slice(registers);
        sample.registers[REGS.stack] = sp;
        sample
    }

    fn found(words: &[(u64, u64)], count: u32, sample: Option<&CpuSample>) -> Vec<(u32, Evidence)> {
        let mut memory = Words_(words.iter().copied().collect());
        let words = all_words(&mut memory, &cpu(count), sample).unwrap();
        traces(&words, LockAddr(LOCK), &BTreeSet::from([OBJ]))
    }

    #[test]
    fn registers_go_before_the_stack_and_the_lock_counts_more_than_its_object() {
        let both = sample(STACK + 0x3000, &[0, LOCK, OBJ]);
        let stack = [(STACK + 0x3008, LOCK), (STACK + 0x3010, OBJ)];
        assert_eq!(
            found(&stack, 1, Some(&both)),
            [(1, Evidence::RegisterWord), (2, Evidence::StackWord)]
        );
        let object = sample(STACK + 0x3000, &[0, OBJ]);
        assert_eq!(
            found(&[(STACK + 0x3010, OBJ)], 1, Some(&object)),
            [(3, Evidence::RegisterNear), (4, Evidence::StackNear)]
        );
        assert_eq!(found(&[], 1, Some(&sample(STACK + 0x3000, &[1, 2]))), []);
    }

    #[test]
    fn what_lies_below_the_stack_pointer_does_not_count() {
        let old = [(STACK + 0x2ff8, LOCK)];
        assert_eq!(found(&old, 1, Some(&sample(STACK + 0x3000, &[]))), []);
        // Without a sample it cannot be told from what is in use, and comes last.
        assert_eq!(found(&old, 1, None), [(6, Evidence::StackWord)]);
    }

    #[test]
    fn below_an_interrupt_the_thread_is_searched_from_where_it_was_interrupted() {
        let words = [
            (IRQ_LAST, STACK + 0x3000),
            (STACK + 0x2ff8, LOCK),
            (STACK + 0x3008, OBJ),
        ];
        let hardirq = 0x1_0001;
        assert_eq!(found(&words, hardirq, None), [(4, Evidence::StackNear)]);
        let on_irq_stack = sample(IRQ_LAST - 0x100, &[]);
        assert_eq!(found(&words, hardirq, Some(&on_irq_stack)), [(4, Evidence::StackNear)]);
    }
}
