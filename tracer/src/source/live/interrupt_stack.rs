//! What a hard interrupt spins on, on a CPU that gives no sample: read from the CPU's interrupt stack.
//!
//! While a hard interrupt spins nothing samples its CPU. But its stack stands still: a return address into `_raw_spin_lock`,
//! behind it the return address of a call of exactly that function. The lock is what that caller loaded right before the call
//! (a static lock is an operand of the code), or what the spinning function saved of its caller's registers; either counts only
//! if the word found there is that of a lock with a waiter, and only if a single lock fits.
//!
//! KERNEL: x86-64 runs hard interrupts on a stack of their own, whose last word holds the interrupted stack pointer
//! (`call_on_irqstack`, arch/x86/include/asm/irq_stack.h, 5.12 to 6.18). Elsewhere nothing is found.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;

use super::percpu::Running;
use crate::event::{LockKind, Mode};
use crate::ids::{KernelAddr, LockAddr};
use crate::kernel::stacks::interrupt_entry;
use crate::kernel::stackscan::{Memory, is_pointer};
use crate::kernel::symbols::Symbols;
use crate::spin_word::{self, WordState};

/// KERNEL: IRQ_STACK_SIZE (arch/x86/include/asm/page_64_types.h), without KASAN, 5.10 to 6.18. A larger one is read in part.
const STACK_SIZE: u64 = 16 << 10;
/// Words between the return address into the spinning function and that of its caller, at most: registers that it saved, or the frame
/// of a trampoline where the function is traced.
const SAVED_BY_LOCK: usize = 24;
/// Words of code that are read before a return address.
const CODE_WORDS: usize = 5;
/// Words below and above in which registers of the callers may have been saved.
const SAVED_BELOW: usize = 8;
const SAVED_ABOVE: usize = 16;
/// How far into an object its lock is looked for, in bytes.
const REACH: u64 = 0x60;
/// KERNEL: `struct pt_regs` of x86-64 in words (arch/x86/include/asm/ptrace.h).
const REGS_IP: usize = 16;
const REGS_CS: usize = 17;
const REGS_SP: usize = 19;

/// A spinning interrupt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// What it spins on.
    pub lock: LockAddr,
    /// Its kind.
    pub kind: LockKind,
    /// How it is wanted.
    pub mode: Mode,
    /// The stack across both contexts, innermost first, of return addresses that calls have left.
    pub frames: Vec<KernelAddr>,
}

/// One place on the stack where somebody may be spinning.
pub(super) struct Place {
    /// Index of the return address into the locking function, and of that into its caller.
    pub(super) at: usize,
    pub(super) caller: usize,
    pub(super) kind: LockKind,
    mode: Mode,
}

impl Place {
    /// The words around it in which registers of the callers may have been saved.
    fn saved<'a>(&self, stack: &'a [u64]) -> &'a [u64] {
        let saved = self.at.saturating_sub(SAVED_BELOW)..(self.caller + SAVED_ABOVE).min(stack.len());
        stack.get(saved).unwrap_or_default()
    }

    /// Whether this lock was an operand of the call, or a saved register points to it or to the object around it.
    pub(super) fn has(&self, lock: LockAddr, stack: &[u64], code: &Code) -> bool {
        let operands = stack.get(self.caller).map(|&ret| code.operands(ret));
        let near = |&word: &u64| lock.0.checked_sub(word).is_some_and(|offset| offset < REACH);
        operands.unwrap_or_default().contains(&lock.0) || self.saved(stack).iter().any(near)
    }
}

/// What the interrupt on this CPU spins on; `None` if that cannot be told.
///
/// # Errors
/// When kernel memory cannot be read at all.
pub fn spins_on(memory: &mut dyn Memory, running: &Running, symbols: &Symbols, cpus: u32) -> Result<Option<Found>> {
    let Some(top) = running.interrupt_stack else {
        return Ok(None);
    };
    let from = top.saturating_sub(STACK_SIZE - 8);
    let stack = words(memory, (from..=top).step_by(8))?;
    let code = Code::around(memory, symbols, &stack)?;
    let mut found: BTreeMap<LockAddr, Place> = BTreeMap::new();
    for place in places(&stack, symbols, &code) {
        if let Some(lock) = lock_at(memory, &stack, &place, &code, cpus)? {
            // The outermost one is alive; what lies below it may be left over from earlier.
            found.insert(lock, place);
        }
    }
    let mut found = found.into_iter();
    let (Some((lock, place)), None) = (found.next(), found.next()) else {
        return Ok(None);
    };
    let live = stack.get(place.at..stack.len().saturating_sub(1)).unwrap_or_default();
    let mut frames: Vec<KernelAddr> = live
        .iter()
        .copied()
        .filter(|&w| code.calls(w))
        .map(KernelAddr)
        .collect();
    frames.extend(interrupted(
        memory,
        running,
        symbols,
        stack.last().copied().unwrap_or(0),
    )?);
    Ok(Some(Found {
        lock,
        kind: place.kind,
        mode: place.mode,
        frames,
    }))
}

/// Where the stack shows a call of a locking function that has called its slowpath, innermost first.
pub(super) fn places(stack: &[u64], symbols: &Symbols, code: &Code) -> Vec<Place> {
    let place = |(at, &word): (usize, &u64)| {
        let function = symbols
            .resolve(KernelAddr(word))
            .filter(|s| s.offset > 0 && s.module.is_none())?;
        let (kind, mode) = spinning(function.name)?;
        let caller = (at + 1..=at + 1 + SAVED_BY_LOCK)
            .find(|&i| stack.get(i).and_then(|&w| code.target(w)) == Some(function.address.0))?;
        Some(Place { at, caller, kind, mode })
    };
    stack.iter().enumerate().filter_map(place).collect()
}

/// KERNEL: kernel/locking/spinlock.c, 5.10 to 6.18.
fn spinning(name: &str) -> Option<(LockKind, Mode)> {
    for (stem, kind, mode) in [
        ("_raw_spin_lock", LockKind::Spinlock, Mode::Exclusive),
        ("_raw_read_lock", LockKind::Rwlock, Mode::Shared),
        ("_raw_write_lock", LockKind::Rwlock, Mode::Exclusive),
    ] {
        if name
            .strip_prefix(stem)
            .is_some_and(|rest| matches!(rest, "" | "_bh" | "_irq" | "_irqsave"))
        {
            return Some((kind, mode));
        }
    }
    None
}

/// The contended lock of one place: the operand before the call, or else the only one near a saved register.
fn lock_at(memory: &mut dyn Memory, stack: &[u64], place: &Place, code: &Code, cpus: u32) -> Result<Option<LockAddr>> {
    let operands = stack
        .get(place.caller)
        .map(|&ret| code.operands(ret))
        .unwrap_or_default();
    for lock in operands {
        if contended(memory, &[lock], place, cpus)?.contains(&lock) {
            return Ok(Some(LockAddr(lock)));
        }
    }
    let places: BTreeSet<u64> = place
        .saved(stack)
        .iter()
        .filter(|&&word| is_pointer(word) && !code.known(word))
        .flat_map(|&word| (0..REACH).step_by(4).map(move |offset| word.wrapping_add(offset)))
        .collect();
    let places: Vec<u64> = places.into_iter().collect();
    let mut fitting = contended(memory, &places, place, cpus)?.into_iter();
    Ok(match (fitting.next(), fitting.next()) {
        (Some(only), None) => Some(LockAddr(only)),
        _ => None,
    })
}

/// Those of the addresses at which a lock with a waiter stands.
fn contended(memory: &mut dyn Memory, addrs: &[u64], place: &Place, cpus: u32) -> Result<BTreeSet<u64>> {
    let words = memory.read(addrs)?;
    let is_contended = |word: u64| {
        let word = u32::try_from(word & 0xffff_ffff).unwrap_or_default();
        match place.kind {
            LockKind::Rwlock => spin_word::rwlock_word(word).shows(place.mode),
            _ => {
                let word = spin_word::spinlock(word, cpus);
                word.has_waiter() && word.state == WordState::Held
            }
        }
    };
    let with_words = addrs.iter().zip(words);
    Ok(with_words
        .filter(|(_, word)| word.is_some_and(is_contended))
        .map(|(&addr, _)| addr)
        .collect())
}

/// Words of a stack; 0 where it cannot be read.
pub(super) fn words(memory: &mut dyn Memory, addrs: impl Iterator<Item = u64>) -> Result<Vec<u64>> {
    let words = memory.read(&addrs.collect::<Vec<u64>>())?;
    Ok(words.into_iter().map(Option::unwrap_or_default).collect())
}

/// The frames of the thread below, from the stack pointer at which the interrupt left its stack.
fn interrupted(memory: &mut dyn Memory, running: &Running, symbols: &Symbols, sp: u64) -> Result<Vec<KernelAddr>> {
    let (from, to) = running.stack;
    if !(from..to).contains(&sp) || !sp.is_multiple_of(8) {
        return Ok(Vec::new());
    }
    let stack = words(memory, (sp..to).step_by(8))?;
    let code = Code::around(memory, symbols, &stack)?;
    let name = |word: u64| symbols.resolve(KernelAddr(word)).map(|s| s.name);
    let mut frames = Vec::new();
    let mut at = 0;
    while let Some(&word) = stack.get(at) {
        if code.calls(word) {
            frames.push(KernelAddr(word));
            let register = |index: usize| stack.get(at + 1 + index).copied();
            // Of user space there is no more to see.
            if interrupt_entry([name(word)]).is_some() && register(REGS_CS).is_some_and(|cs| cs & 3 == 0) {
                frames.extend(register(REGS_IP).map(KernelAddr));
                let Some(bytes) = register(REGS_SP).and_then(|saved| saved.checked_sub(sp)) else {
                    break;
                };
                let next = usize::try_from(bytes / 8).unwrap_or(usize::MAX);
                at = next.max(at + 1 + REGS_SP);
                continue;
            }
        }
        at += 1;
    }
    Ok(frames)
}

/// The instructions before the return addresses of a stack.
pub(super) struct Code(BTreeMap<u64, [u8; CODE_WORDS * 8]>);

impl Code {
    pub(super) fn around(memory: &mut dyn Memory, symbols: &Symbols, stack: &[u64]) -> Result<Self> {
        let is_code = |word: u64| {
            symbols
                .resolve(KernelAddr(word))
                .is_some_and(|s| s.is_code() && s.offset > 0)
        };
        let words: BTreeSet<u64> = stack.iter().copied().filter(|&word| is_code(word)).collect();
        let before = |word: u64| (1..=CODE_WORDS as u64).rev().map(move |n| word.wrapping_sub(8 * n));
        let addrs: Vec<u64> = words.iter().flat_map(|&word| before(word)).collect();
        let read = memory.read(&addrs)?;
        let mut code = BTreeMap::new();
        for (&word, instructions) in words.iter().zip(read.chunks_exact(CODE_WORDS)) {
            let mut bytes = [0; CODE_WORDS * 8];
            for (to, from) in bytes.chunks_exact_mut(8).zip(instructions) {
                to.copy_from_slice(&from.unwrap_or(0).to_le_bytes());
            }
            code.insert(word, bytes);
        }
        Ok(Self(code))
    }

    /// Whether this word points into code.
    fn known(&self, word: u64) -> bool {
        self.0.contains_key(&word)
    }

    /// Where the direct call before this address goes.
    pub(super) fn target(&self, ret: u64) -> Option<u64> {
        let [.., 0xe8, a, b, c, d] = *self.0.get(&ret)? else {
            return None;
        };
        Some(ret.wrapping_add_signed(i32::from_le_bytes([a, b, c, d]).into()))
    }

    /// Whether a call ends right before this address: direct, through a register, or through memory.
    pub(super) fn calls(&self, ret: u64) -> bool {
        let Some(bytes) = self.0.get(&ret) else { return false };
        matches!(
            *bytes,
            [.., 0xe8, _, _, _, _]
                | [.., 0xff, 0xd0..=0xd7]
                | [.., 0xff, 0x15, _, _, _, _]
                | [.., 0xff, 0x14, 0x25, _, _, _, _]
        )
    }

    /// Addresses that were loaded as first argument shortly before the call, the latest first: `mov $imm32, %rdi`.
    fn operands(&self, ret: u64) -> Vec<u64> {
        const LOAD: [u8; 3] = [0x48, 0xc7, 0xc7];
        let Some(before) = self.0.get(&ret).and_then(|bytes| bytes.get(..bytes.len() - 5)) else {
            return Vec::new();
        };
        let operand = |load: &[u8]| match *load {
            [x, y, z, a, b, c, d] if [x, y, z] == LOAD => {
                let address = i64::from(i32::from_le_bytes([a, b, c, d])).cast_unsigned();
                (address >> 32 == 0xffff_ffff).then_some(address)
            }
            _ => None,
        };
        before.windows(7).rev().filter_map(operand).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::TaskRef;
    use crate::ids::CpuId;
    use std::collections::HashMap;
    use std::path::Path;

    const TOP: u64 = 0xffff_c900_0100_3ff8;
    const THREAD: u64 = 0xffff_c900_0200_0000;
    const LOCK: u64 = 0xffff_ffff_c000_2000;
    const SPIN: u64 = 0xffff_ffff_8100_1000;
    const HANDLER: u64 = 0xffff_ffff_c000_1000;
    const RUN: u64 = 0xffff_ffff_8100_2000;
    const ENTRY: u64 = 0xffff_ffff_8100_3000;
    const SECTION: u64 = 0xffff_ffff_c000_1100;
    const KTHREAD: u64 = 0xffff_ffff_8100_4000;

    struct Bytes(HashMap<u64, u8>);

    impl Memory for Bytes {
        fn read(&mut self, addrs: &[u64]) -> Result<Vec<Option<u64>>> {
            let word = |addr: u64| {
                let bytes: Option<Vec<u8>> = (0..8).map(|i| self.0.get(&(addr + i)).copied()).collect();
                bytes.map(|b| u64::from_le_bytes(b.try_into().unwrap()))
            };
            Ok(addrs.iter().map(|&addr| word(addr)).collect())
        }
    }

    impl Bytes {
        fn put(&mut self, addr: u64, bytes: &[u8]) {
            self.0.extend((addr..).zip(bytes.iter().copied()));
        }

        fn word(&mut self, addr: u64, word: u64) {
            self.put(addr, &word.to_le_bytes());
        }

        /// A direct call that returns to `ret`, after these instructions.
        fn call(&mut self, ret: u64, target: u64, before: &[u8]) {
            self.put(ret - 40, &[0x90; 40]);
            self.put(ret - 5 - before.len() as u64, before);
            self.put(ret - 5, &[0xe8]);
            self.put(
                ret - 4,
                &i32::try_from(target.wrapping_sub(ret).cast_signed())
                    .unwrap()
                    .to_le_bytes(),
            );
        }
    }

    fn symbols() -> Symbols {
        let text = "ffffffff81000000 T native_queued_spin_lock_slowpath\nffffffff81001000 T _raw_spin_lock\n\
            ffffffff81002000 t __hrtimer_run_queues\nffffffff81003000 T asm_sysvec_apic_timer_interrupt\n\
            ffffffff81004000 t kthread\nffffffff81005000 T printk\nffffffffc0001000 t handler\t[m]\nffffffffc0001100 t section\t[m]\n\
            ffffffffc0002000 b lock\t[m]\n";
        Symbols::parse(Path::new("test"), text.as_bytes()).unwrap()
    }

    /// A timer that spins on `lock` above a thread; `before` is what the handler does before its call.
    fn machine(before: &[u8], word: u32) -> Bytes {
        let mut memory = Bytes(HashMap::new());
        for addr in (TOP - (STACK_SIZE - 8)..=TOP).chain(THREAD..THREAD + 0x4000).step_by(8) {
            memory.word(addr, 0);
        }
        memory.put(LOCK, &[0; 0x80]);
        memory.put(LOCK, &word.to_le_bytes());
        memory.call(SPIN + 0x20, 0xffff_ffff_8100_0000, &[]);
        memory.call(HANDLER + 0x20, SPIN, before);
        memory.call(RUN + 0x20, HANDLER, &[]);
        memory.call(ENTRY + 0x20, RUN, &[]);
        memory.call(KTHREAD + 0x20, SECTION, &[]);
        for (offset, word) in [
            (0x100, SPIN + 0x20),
            (0xf8, HANDLER + 0x20),
            (0x40, RUN + 0x20),
            (0, THREAD + 0x3000),
        ] {
            memory.word(TOP - offset, word);
        }
        let regs = THREAD + 0x3010;
        memory.word(regs - 8, ENTRY + 0x20);
        memory.word(regs + 8 * 16, SECTION + 0x10);
        memory.word(regs + 8 * 17, 0x10);
        memory.word(regs + 8 * 19, THREAD + 0x3100);
        memory.word(THREAD + 0x3108, KTHREAD + 0x20);
        memory
    }

    fn found(memory: &mut Bytes) -> Option<Found> {
        let running = Running {
            cpu: CpuId(1),
            task: None::<TaskRef>,
            stack: (THREAD, THREAD + 0x4000),
            interrupt_stack: Some(TOP),
            ..Running::default()
        };
        spins_on(memory, &running, &symbols(), 4).unwrap()
    }

    /// `mov $LOCK, %rdi`.
    fn load() -> Vec<u8> {
        let low = (LOCK & 0xffff_ffff) as u32;
        // An instruction of the caller stands between the load and the call, as compilers do it.
        [&[0x48, 0xc7, 0xc7], low.to_le_bytes().as_slice(), &[0x90; 7]].concat()
    }

    #[test]
    fn a_static_lock_is_the_operand_before_the_call() {
        let found = found(&mut machine(&load(), 0x101)).unwrap();
        assert_eq!((found.lock, found.kind), (LockAddr(LOCK), LockKind::Spinlock));
        let frames = [
            SPIN + 0x20,
            HANDLER + 0x20,
            RUN + 0x20,
            ENTRY + 0x20,
            SECTION + 0x10,
            KTHREAD + 0x20,
        ];
        assert_eq!(found.frames, frames.map(KernelAddr));
    }

    #[test]
    fn a_lock_in_an_object_is_found_through_a_saved_register() {
        let mut memory = machine(&[], 0);
        let object = 0xffff_8880_0000_1000;
        memory.put(object, &[0; 0x100]);
        memory.put(object + 0x24, &0x101_u32.to_le_bytes());
        memory.word(TOP - 0x110, object);
        assert_eq!(found(&mut memory).map(|f| f.lock.0), Some(object + 0x24));
        memory.put(object + 0x30, &0x101_u32.to_le_bytes());
        assert_eq!(found(&mut memory), None, "two that look like it");
    }

    #[test]
    fn a_lock_without_a_waiter_is_not_what_it_spins_on() {
        assert_eq!(found(&mut machine(&load(), 1)), None);
        assert_eq!(found(&mut machine(&load(), 0)), None);
    }

    #[test]
    fn a_return_address_without_the_call_of_the_lock_function_is_left_over() {
        let mut memory = machine(&load(), 0x101);
        memory.call(HANDLER + 0x20, 0xffff_ffff_8100_5000, &load());
        assert_eq!(found(&mut memory), None);
    }
}
