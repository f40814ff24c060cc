//! The words of spinning locks: who waits, and whether anybody holds.
//!
//! KERNEL: kernel/locking/qspinlock.c and include/asm-generic/{qspinlock,qrwlock}_types.h, 5.10 to 6.18, for kernels built for
//! fewer than 16,384 CPUs (NR_CPUS decides how many bits the pending flag has).

use crate::event::{Mode, Owner};
use crate::ids::CpuId;

const LOCKED: u32 = 0xff;
const LOCKED_VALUE: u32 = 1;
/// `_Q_SLOW_VAL` of paravirtual spinlocks: held, and the first waiter has been put to sleep by the hypervisor.
const PV_SLOW_VALUE: u32 = 3;
const PENDING: u32 = 0x100;
/// The pending byte is a single flag.
const NEVER_SET: u32 = 0xfe00;
const TAIL_INDEX_SHIFT: u32 = 16;
const TAIL_SHIFT: u32 = 18;

const WRITER: u32 = 0xff;
const WRITER_WAITS: u32 = 0x100;
const READER_SHIFT: u32 = 9;

/// Meaning of the word of a `struct qspinlock`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpinWord {
    /// Whether it says that somebody holds the lock.
    pub state: WordState,
    /// A first waiter spins on the pending flag; it is not named.
    pub pending: bool,
    /// The last CPU in the queue.
    pub tail: Option<CpuId>,
}

/// What a lock word says of a holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WordState {
    /// Nobody holds it.
    Free,
    /// Somebody holds it; who is not recorded.
    Held,
    /// No sequence of lock and unlock operations leaves such a word.
    Impossible,
}

/// Decodes the word of a spinlock on a machine with this many possible CPUs.
#[must_use]
pub fn spinlock(word: u32, cpus: u32) -> SpinWord {
    let tail = (word >> TAIL_SHIFT).checked_sub(1).map(CpuId);
    let impossible = word & NEVER_SET != 0 || tail.is_some_and(|cpu| cpu.0 >= cpus);
    let state = match word & LOCKED {
        _ if impossible => WordState::Impossible,
        0 => WordState::Free,
        LOCKED_VALUE | PV_SLOW_VALUE => WordState::Held,
        _ => WordState::Impossible,
    };
    SpinWord {
        state,
        pending: word & PENDING != 0,
        tail,
    }
}

impl SpinWord {
    /// Whether a CPU that waits for this lock could have left its trace in the word: then it is worth taking for what it spins on.
    #[must_use]
    pub fn has_waiter(self) -> bool {
        self.pending || self.tail.is_some()
    }

    /// The same in the terms of events.
    #[must_use]
    pub fn owner(self) -> Owner {
        match self.state {
            WordState::Held => Owner::NotRecorded,
            WordState::Free | WordState::Impossible => Owner::Nobody,
        }
    }
}

/// Which of the last CPU's nodes stands at the end of the queue.
#[must_use]
pub fn tail_index(word: u32) -> u32 {
    word >> TAIL_INDEX_SHIFT & 3
}

/// Meaning of the counter of a `struct qrwlock`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RwWord {
    /// Whether it says that somebody holds the lock.
    pub state: WordState,
    /// A writer has it.
    pub writer: bool,
    /// Readers that have it; while a writer has it, those that wait first for it to leave.
    pub readers: u32,
    /// A writer is the first one that waits.
    pub writer_waits: bool,
}

/// Decodes the counter of a rwlock.
///
/// KERNEL: kernel/locking/qrwlock.c, 5.10 to 6.18: who waits stands in the queue of an inner spinlock; the first one holds that, and is
/// seen in the counter: a writer by its flag, a reader because it counts as if it had the lock. A reader in an interrupt
/// counts, too, and stands in no queue.
#[must_use]
pub fn rwlock_word(counts: u32) -> RwWord {
    let (writer, readers) = (counts & WRITER, counts >> READER_SHIFT);
    let state = match (writer, readers) {
        (0, 0) => WordState::Free,
        (0 | WRITER, _) => WordState::Held,
        _ => WordState::Impossible,
    };
    RwWord {
        state,
        writer: writer == WRITER,
        readers,
        writer_waits: counts & WRITER_WAITS != 0,
    }
}

impl RwWord {
    /// Whether a CPU that waits in this way could be the first one in the queue, by this word.
    #[must_use]
    pub fn shows(self, mode: Mode) -> bool {
        self.state != WordState::Impossible
            && match mode {
                Mode::Exclusive => self.writer_waits,
                Mode::Shared => self.writer && self.readers > 0,
            }
    }
}

/// Who holds a rwlock, by its counter.
#[must_use]
pub fn rwlock(counts: u32) -> Owner {
    let word = rwlock_word(counts);
    match word.state {
        WordState::Free | WordState::Impossible => Owner::Nobody,
        WordState::Held if word.writer => Owner::NotRecorded,
        WordState::Held => Owner::Readers {
            hint: None,
            count: Some(word.readers),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_spinlocks() {
        use WordState::{Free, Held, Impossible};
        let tail = |cpu: u32| (cpu + 1) << 18;
        for (word, state, pending, last) in [
            (0, Free, false, None),
            (1, Held, false, None),
            (0x101, Held, true, None),
            (0x100, Free, true, None),
            (1 | tail(3), Held, false, Some(CpuId(3))),
            (0x101 | tail(0), Held, true, Some(CpuId(0))),
            (tail(1), Free, false, Some(CpuId(1))),
            (3 | tail(2), Held, false, Some(CpuId(2))),
            (2, Impossible, false, None),
            (0x200, Impossible, false, None),
            (1 | tail(4), Impossible, false, Some(CpuId(4))),
        ] {
            let decoded = SpinWord {
                state,
                pending,
                tail: last,
            };
            assert_eq!(spinlock(word, 4), decoded, "{word:#x}");
        }
        assert!(!spinlock(1, 4).has_waiter() && spinlock(0x101, 4).has_waiter());
        assert_eq!(spinlock(2, 4).owner(), Owner::Nobody);
        assert_eq!(spinlock(1, 4).owner(), Owner::NotRecorded);
    }

    #[test]
    fn counters_of_rwlocks() {
        let readers = |count| Owner::Readers {
            hint: None,
            count: Some(count),
        };
        for (counts, owner) in [
            (0, Owner::Nobody),
            (0x100, Owner::Nobody),
            (0xff, Owner::NotRecorded),
            (0x1ff, Owner::NotRecorded),
            (0x200, readers(1)),
            (0x700, readers(3)),
        ] {
            assert_eq!(rwlock(counts), owner, "{counts:#x}");
        }
        // What a waiting reader counts is no reader that has it.
        let word = rwlock_word(0x3ff);
        assert_eq!((word.writer, word.readers, word.writer_waits), (true, 1, true));
        let waits = |counts| [Mode::Exclusive, Mode::Shared].map(|mode| rwlock_word(counts).shows(mode));
        assert_eq!(waits(0x1ff), [true, false]);
        assert_eq!(waits(0x2ff), [false, true]);
        assert_eq!(waits(0x300), [true, false], "readers have it");
        assert_eq!(waits(0x0ff), [false, false], "nobody waits");
        assert_eq!(rwlock_word(0x117).state, WordState::Impossible);
        assert_eq!(waits(0x117), [false, false]);
    }
}
