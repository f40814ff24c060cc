use super::*;
use crate::ids::CpuId;
use std::collections::HashMap;
use std::path::Path;

const STACK: u64 = 0xffff_c900_0200_0000;
const TOP: u64 = STACK + 0x4000;
const OBJECT: u64 = 0xffff_8880_0000_1000;
const LOCK: u64 = OBJECT + 0x30;
const SLOW: u64 = 0xffff_ffff_8100_0000;
const SPIN: u64 = 0xffff_ffff_8100_1000;
const COMMON: u64 = 0xffff_ffff_8100_2000;
const WAIT: u64 = 0xffff_ffff_8100_3000;
const KTHREAD: u64 = 0xffff_ffff_8100_4000;
const OTHER: u64 = 0xffff_ffff_8100_5000;
const DRIVER: u64 = 0xffff_ffff_c000_1000;

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

    fn branch(&mut self, code: u8, end: u64, target: u64) {
        let distance = i32::try_from(target.wrapping_sub(end).cast_signed()).unwrap();
        self.put(end - 5, &[code]);
        self.put(end - 4, &distance.to_le_bytes());
    }

    fn call(&mut self, ret: u64, target: u64) {
        self.branch(0xe8, ret, target);
    }
}

/// A thread in `_raw_spin_lock_irq`, called by a function to which another one jumps, called by a module's function.
fn machine() -> Bytes {
    let mut memory = Bytes(HashMap::new());
    for function in [SLOW, SPIN, COMMON, WAIT, KTHREAD, OTHER, DRIVER] {
        memory.put(function - 64, &[0x90; 0x300]);
    }
    for addr in (STACK..TOP).step_by(8) {
        memory.word(addr, 0);
    }
    memory.call(SPIN + 0x20, SLOW);
    memory.call(COMMON + 0x20, SPIN);
    memory.branch(0xe9, WAIT + 0x10, COMMON);
    memory.call(DRIVER + 0x40, WAIT);
    // `call *%rax`
    memory.put(KTHREAD + 0x1e, &[0xff, 0xd0]);
    memory.call(OTHER + 0x20, OTHER);
    memory.call(OTHER + 0x60, SPIN);
    for (below, word) in [
        // Left over from an earlier wait for the same lock.
        (0x400, SPIN + 0x20),
        (0x3f8, OTHER + 0x60),
        (0x3f0, LOCK),
        // Registers that the slowpath saved, the lock among them.
        (0x110, LOCK),
        (0x100, SPIN + 0x20),
        (0xf8, COMMON + 0x20),
        // Left over: a call of something else.
        (0xe0, OTHER + 0x20),
        (0xc0, DRIVER + 0x40),
        (0x40, KTHREAD + 0x20),
    ] {
        memory.word(TOP - below, word);
    }
    memory
}

fn found(memory: &mut Bytes, lock: u64, kind: LockKind) -> Vec<u64> {
    let text = "ffffffff81000000 T native_queued_spin_lock_slowpath\nffffffff81001000 T _raw_spin_lock_irq\n\
        ffffffff81002000 t __wait_for_common\nffffffff81003000 T wait_for_completion_timeout\nffffffff81004000 t kthread\n\
        ffffffff81005000 T other\nffffffffc0001000 t driver\t[m]\n";
    let symbols = Symbols::parse(Path::new("test"), text.as_bytes()).unwrap();
    let running = Running {
        cpu: CpuId(1),
        stack: (STACK, TOP),
        ..Running::default()
    };
    let frames = spinning_at(memory, &running, (LockAddr(lock), kind), &symbols).unwrap();
    frames.into_iter().map(|frame| frame.0).collect()
}

#[test]
fn callers_are_followed_through_calls_jumps_and_pointers_and_leftovers_are_skipped() {
    let expected = [SPIN + 0x20, COMMON + 0x20, DRIVER + 0x40, KTHREAD + 0x20];
    assert_eq!(found(&mut machine(), LOCK, LockKind::Spinlock), expected);
}

#[test]
fn another_lock_or_another_kind_is_not_where_it_spins() {
    assert_eq!(found(&mut machine(), OBJECT + 0x2000, LockKind::Spinlock), [0; 0]);
    assert_eq!(found(&mut machine(), LOCK, LockKind::Rwlock), [0; 0]);
}

#[test]
fn a_caller_that_neither_calls_nor_jumps_there_is_left_over() {
    let mut memory = machine();
    memory.branch(0xe9, WAIT + 0x10, OTHER);
    let expected = [SPIN + 0x20, COMMON + 0x20, KTHREAD + 0x20];
    assert_eq!(found(&mut memory, LOCK, LockKind::Spinlock), expected);
}

#[test]
fn a_stack_that_cannot_be_read_shows_nothing() {
    assert_eq!(found(&mut Bytes(HashMap::new()), LOCK, LockKind::Spinlock), [0; 0]);
}
