//! What a CPU spins on that gives no sample and was not seen to begin: the lock whose queue names that CPU as its last.
//!
//! The registers of a CPU that takes no interrupts cannot be had. But the slowpath saves its caller's registers on the stack, and
//! one of them points to the lock or to the object around it (KERNEL: kernel/locking/qspinlock.c, 5.10 to 6.18). A word on the
//! stack proves nothing; a lock word that names this very CPU as its last waiter does.

use std::collections::BTreeSet;

use anyhow::Result;

use super::percpu::Running;
use super::standstill::{self, Locks};
use crate::event::{LockKind, Mode};
use crate::ids::{KernelAddr, LockAddr};
use crate::kernel::stackscan::{Memory, is_pointer};
use crate::kernel::symbols::Symbols;
use crate::spin_word::{self, WordState};

/// Pointers from one stack that are followed at most.
const MAX_POINTERS: usize = 512;
/// How far into an object its lock is looked for, in bytes.
const REACH: u64 = 0x60;

/// A lock in whose queue a CPU stands, and how it is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueuedOn {
    pub lock: LockAddr,
    pub kind: LockKind,
    pub mode: Mode,
}

/// The only lock reachable from the stack of what runs on this CPU whose queue ends with this CPU; `None` if there is none, or if
/// several look like it.
///
/// Where the stack also shows the slowpath of a rwlock, and the word before the lock's is that of a rwlock which somebody has, it is
/// that rwlock's queue.
///
/// # Errors
/// When kernel memory cannot be read at all.
pub fn queued_on(
    memory: &mut dyn Memory,
    running: &Running,
    symbols: Option<&Symbols>,
    locks: Locks,
) -> Result<Option<QueuedOn>> {
    let (from, to) = running.stack;
    let stack: Vec<u64> = (from..to).step_by(8).collect();
    let is_code = |word| {
        symbols
            .and_then(|s| s.resolve(KernelAddr(word)))
            .is_some_and(|s| s.is_code())
    };
    let words: Vec<u64> = memory.read(&stack)?.into_iter().flatten().collect();
    let pointers: BTreeSet<u64> = words
        .iter()
        .copied()
        .filter(|&word| is_pointer(word) && !(from..to).contains(&word) && !is_code(word))
        .collect();
    let places: Vec<u64> = pointers
        .into_iter()
        .take(MAX_POINTERS)
        .flat_map(|pointer| (0..REACH).step_by(8).map(move |offset| pointer.wrapping_add(offset)))
        .collect::<BTreeSet<u64>>()
        .into_iter()
        .collect();
    let mut found = BTreeSet::new();
    for (&place, word) in places.iter().zip(memory.read(&places)?) {
        let Some(word) = word else { continue };
        for (offset, half) in [(0, word & 0xffff_ffff), (4, word >> 32)] {
            let half = u32::try_from(half).unwrap_or_default();
            let decoded = spin_word::spinlock(half, locks.cpus);
            if decoded.tail == Some(running.cpu) && decoded.state != WordState::Impossible {
                found.insert(place + offset);
            }
        }
    }
    let mut found = found.into_iter();
    let (Some(only), None) = (found.next(), found.next()) else {
        return Ok(None);
    };
    if let Some(rwlock) = around(memory, only, &words, symbols, locks)? {
        return Ok(Some(rwlock));
    }
    Ok(Some(QueuedOn {
        lock: LockAddr(only),
        kind: LockKind::Spinlock,
        mode: Mode::Exclusive,
    }))
}

/// The rwlock that has this spinlock inside.
fn around(
    memory: &mut dyn Memory,
    lock: u64,
    stack: &[u64],
    symbols: Option<&Symbols>,
    locks: Locks,
) -> Result<Option<QueuedOn>> {
    let (Some(symbols), Some(offset)) = (symbols, locks.rwlock_queue) else {
        return Ok(None);
    };
    let slowpath = |&word: &u64| {
        let function = symbols.resolve(KernelAddr(word)).filter(|s| s.offset > 0)?;
        standstill::slowpath(function.name).filter(|&(kind, _)| kind == LockKind::Rwlock)
    };
    let Some((kind, mode)) = stack.iter().find_map(slowpath) else {
        return Ok(None);
    };
    let rwlock = lock.wrapping_sub(offset.into());
    let counts = memory.read(&[rwlock])?.first().copied().flatten().unwrap_or(0);
    #[expect(clippy::cast_possible_truncation, reason = "the counter is the lower half")]
    let held = spin_word::rwlock_word(counts as u32).state == WordState::Held;
    Ok(held.then_some(QueuedOn {
        lock: LockAddr(rwlock),
        kind,
        mode,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::CpuId;
    use std::collections::HashMap;

    const STACK: u64 = 0xffff_c900_0000_0000;
    const OBJECT: u64 = 0xffff_8880_0000_1000;

    struct Words(HashMap<u64, u64>);

    impl Memory for Words {
        fn read(&mut self, addrs: &[u64]) -> Result<Vec<Option<u64>>> {
            Ok(addrs.iter().map(|addr| self.0.get(addr).copied()).collect())
        }
    }

    const LOCKS: Locks = Locks {
        cpus: 4,
        rwlock_queue: Some(4),
    };

    fn search(words: &[(u64, u64)]) -> Option<u64> {
        let running = Running {
            cpu: CpuId(1),
            stack: (STACK, STACK + 0x4000),
            ..Running::default()
        };
        let mut memory = Words(words.iter().copied().collect());
        queued_on(&mut memory, &running, None, LOCKS)
            .unwrap()
            .map(|found| found.lock.0)
    }

    #[test]
    fn the_lock_that_names_the_cpu_is_found_inside_its_object() {
        let pointer = (STACK + 0x3f00, OBJECT);
        assert_eq!(search(&[pointer, (OBJECT + 8, 0x8_0100)]), Some(OBJECT + 8));
        assert_eq!(search(&[pointer, (OBJECT + 8, 0x8_0001 << 32)]), Some(OBJECT + 12));
        assert_eq!(search(&[pointer, (OBJECT + 8, 0xc_0100)]), None, "another CPU's place");
        assert_eq!(search(&[pointer, (OBJECT + 8, 0x101)]), None, "nobody's place");
        assert_eq!(search(&[pointer, (OBJECT + REACH, 0x8_0100)]), None, "too far");
        assert_eq!(search(&[(STACK, OBJECT | 1), (OBJECT, 0x8_0100)]), None, "no pointer");
    }

    #[test]
    fn the_queue_inside_of_a_rwlock_is_that_of_the_rwlock() {
        const SLOWPATH: u64 = 0xffff_ffff_8100_0000;
        let text = "ffffffff81000000 T queued_read_lock_slowpath\nffffffff81001000 T kthread\n";
        let symbols = Symbols::parse(std::path::Path::new("test"), text.as_bytes()).unwrap();
        let search = |counts: u64, code: u64| {
            let running = Running {
                cpu: CpuId(1),
                stack: (STACK, STACK + 0x4000),
                ..Running::default()
            };
            let words = [
                (STACK, OBJECT),
                (STACK + 8, code),
                (OBJECT + 8, 0x8_0001 << 32 | counts),
            ];
            let mut memory = Words(words.into());
            let found = queued_on(&mut memory, &running, Some(&symbols), LOCKS)
                .unwrap()
                .unwrap();
            (found.lock.0 - OBJECT, found.kind, found.mode)
        };
        let rwlock = (8, LockKind::Rwlock, Mode::Shared);
        let alone = (12, LockKind::Spinlock, Mode::Exclusive);
        assert_eq!(search(0x1ff, SLOWPATH + 0x40), rwlock);
        assert_eq!(search(0, SLOWPATH + 0x40), alone, "nobody has that rwlock");
        assert_eq!(search(0x1ff, SLOWPATH + 0x1010), alone, "another function");
    }

    #[test]
    fn two_that_look_like_it_are_none() {
        let words = [(STACK, OBJECT), (OBJECT, 0x8_0100), (OBJECT + 16, 0x8_0000)];
        assert_eq!(search(&words), None);
    }
}
