//! Waits for locks, and who holds them.

use std::collections::BTreeMap;

use super::super::code::Class;
use super::super::{Candidate, Lock, Named};
use super::rig::{INTERRUPTIBLE, PERCPU_WAKE, Rig, UNINTERRUPTIBLE, ix, waits};
use crate::event::{Evidence, LockKind, Mode};

const LOCK: u64 = 0xffff_8881_0000_0088;
const STATIC_LOCK: u64 = 0xffff_ffff_c012_3400;

#[test]
fn waiters_of_a_mutex_stand_in_queue_order_and_the_owner_is_read_without_its_flags() {
    let mut rig = Rig::default();
    let owner = rig.task(10, UNINTERRUPTIBLE);
    let waiters: Vec<usize> = [11, 12, 13].map(|tid| rig.task(tid, UNINTERRUPTIBLE)).into();
    let records: Vec<u64> = waiters.iter().map(|&w| rig.waiter(w, Class::Mutex, 0)).collect();
    let word = rig.tasks[owner].addr | 1;
    rig.lock(LOCK, 16, &[(0, word)], &[records[2], records[0], records[1]]);
    let found = rig.scan();
    let told = |place| format!("{LOCK:#x} Mutex Exclusive At({place}) WaiterRecord");
    assert_eq!(
        waits(&found),
        BTreeMap::from([(1, told(1)), (2, told(2)), (3, told(0))])
    );
    let lock = Lock {
        kind: LockKind::Mutex,
        owner_word: word,
        count: 0,
        owner: Named::Thread(ix(owner)),
    };
    assert_eq!(found.locks, BTreeMap::from([(LOCK, lock)]));
    assert_eq!(
        (found.changing, found.restless.len(), found.candidates.len()),
        (0, 0, 0)
    );
}

#[test]
fn one_waiter_that_shows_a_ww_mutex_names_the_kind_for_all() {
    let mut rig = Rig::default();
    let (a, b) = (rig.task(10, UNINTERRUPTIBLE), rig.task(11, UNINTERRUPTIBLE));
    let records = [rig.waiter(a, Class::Mutex, 0), rig.waiter(b, Class::WwMutex, 0)];
    let owner = rig.tasks[a].addr | 1;
    rig.lock(LOCK, 16, &[(0, owner)], &records);
    let found = rig.scan();
    assert_eq!(
        waits(&found)[&0],
        format!("{LOCK:#x} WwMutex Exclusive At(0) WaiterRecord")
    );
    assert_eq!(found.locks[&LOCK].owner, Named::Thread(ix(a)), "it waits for itself");
}

/// A reader asleep in I/O, a writer first in the queue, readers behind it; the hint names a reader that has left.
fn reader_io(lock: u64, holder_words: &[u64]) -> (Rig, [usize; 4]) {
    let mut rig = Rig::default();
    let holder = rig.task(10, UNINTERRUPTIBLE);
    rig.tasks[holder].record.task.in_iowait = 1;
    rig.push(holder, holder_words);
    let (writer, reader, left) = (rig.task(11, 2), rig.task(12, 2), rig.task(13, INTERRUPTIBLE));
    for waiter in [writer, reader] {
        rig.push(waiter, &[lock, lock - 0x88]);
    }
    let records = [
        rig.waiter(writer, Class::RwsemWrite, 0),
        rig.waiter(reader, Class::RwsemRead, 1),
    ];
    let hint = rig.tasks[left].addr | 1;
    rig.lock(lock, 24, &[(0, 0x102), (8, hint)], &records);
    (rig, [holder, writer, reader, left])
}

fn candidate(lock: u64, task: usize, rank: u32, evidence: Evidence) -> Candidate {
    Candidate {
        lock,
        kind: LockKind::Rwsem,
        mode: Mode::Shared,
        thread: ix(task),
        rank,
        evidence,
    }
}

#[test]
fn the_reader_that_holds_a_rwsem_is_the_one_with_its_address_that_does_not_wait() {
    let (mut rig, [holder, _, _, left]) = reader_io(LOCK, &[7, LOCK, 8]);
    let found = rig.scan();
    assert_eq!(
        waits(&found),
        BTreeMap::from([
            (1, format!("{LOCK:#x} Rwsem Exclusive At(0) WaiterRecord")),
            (2, format!("{LOCK:#x} Rwsem Shared At(1) WaiterRecord")),
        ])
    );
    assert_eq!(
        found.candidates,
        [
            candidate(LOCK, holder, 0, Evidence::StackWord),
            candidate(LOCK, left, 1, Evidence::OwnerHint)
        ]
    );
}

#[test]
fn a_pointer_to_the_object_around_the_lock_counts_if_the_waiters_have_it_too() {
    let (mut rig, [holder, _, _, left]) = reader_io(LOCK, &[LOCK - 0x88]);
    let found = rig.scan();
    assert_eq!(
        found.candidates,
        [
            candidate(LOCK, holder, 0, Evidence::StackNear),
            candidate(LOCK, left, 1, Evidence::OwnerHint)
        ]
    );
    // Another distance says nothing where there is a hint, nor does what lies before a static lock.
    for (lock, words) in [(LOCK, LOCK - 0x80), (STATIC_LOCK, STATIC_LOCK - 0x88)] {
        let (mut rig, [.., left]) = reader_io(lock, &[words]);
        assert_eq!(rig.scan().candidates, [candidate(lock, left, 0, Evidence::OwnerHint)]);
    }
}

#[test]
fn old_words_on_the_stack_of_an_interruptible_sleeper_make_the_worst_candidate() {
    let (mut rig, [holder, _, _, left]) = reader_io(LOCK, &[LOCK - 0x88]);
    rig.push(left, &[LOCK]);
    assert_eq!(
        rig.scan().candidates,
        [
            candidate(LOCK, holder, 0, Evidence::StackNear),
            candidate(LOCK, left, 1, Evidence::StackWord)
        ]
    );
    // Among those who sleep deeply, the hint decides.
    rig.tasks[left].record.task.state = UNINTERRUPTIBLE;
    let ranked: Vec<_> = rig.scan().candidates.iter().map(|c| c.thread).collect();
    assert_eq!(ranked, [ix(left), ix(holder)]);
}

#[test]
fn a_fault_in_the_address_space_of_an_mmap_lock_makes_a_candidate() {
    let (mut rig, [holder, .., left]) = reader_io(LOCK, &[]);
    rig.tasks[holder].record.mm = LOCK - 0x78;
    assert_eq!(rig.scan().candidates, [candidate(LOCK, left, 0, Evidence::OwnerHint)]);
    rig.frame(holder, Class::PageFault);
    assert_eq!(
        rig.scan().candidates,
        [
            candidate(LOCK, holder, 0, Evidence::StackFrames),
            candidate(LOCK, left, 1, Evidence::OwnerHint)
        ]
    );
}

#[test]
fn semaphores_have_candidates_but_no_owner() {
    let mut rig = Rig::default();
    let (holder, waiter) = (rig.task(10, UNINTERRUPTIBLE), rig.task(11, UNINTERRUPTIBLE));
    rig.push(holder, &[LOCK]);
    let record = rig.waiter(waiter, Class::Semaphore, 0);
    rig.lock(LOCK, 8, &[(4, 0xdead_beef_0000_0000)], &[record]);
    let found = rig.scan();
    assert_eq!(
        waits(&found),
        BTreeMap::from([(1, format!("{LOCK:#x} Semaphore Exclusive At(0) WaiterRecord"))])
    );
    let semaphore = Candidate {
        kind: LockKind::Semaphore,
        mode: Mode::Exclusive,
        ..candidate(LOCK, holder, 0, Evidence::StackWord)
    };
    assert_eq!(found.candidates, [semaphore]);
    assert_eq!(
        (found.locks[&LOCK].count, &found.locks[&LOCK].owner),
        (0, &Named::Nobody)
    );
}

#[test]
fn percpu_rwsems_queue_readers_and_writers_and_name_a_draining_writer() {
    let mut rig = Rig::default();
    let (writer, reader, next) = (rig.task(10, 2), rig.task(11, 2), rig.task(12, 2));
    let mut entries = Vec::new();
    for (task, flags) in [(reader, 5), (next, 1)] {
        let own = rig.tasks[task].addr;
        let entry = rig.push(task, &[0, 0, PERCPU_WAKE, own, flags]);
        entries.push(entry + 24);
        rig.push(task, &[super::rig::ret(Class::PercpuWait)]);
    }
    rig.push(
        writer,
        &[0, 0xffff_8880_dead_0000, LOCK, super::rig::ret(Class::PercpuWrite)],
    );
    let own = rig.tasks[writer].addr;
    rig.lock(LOCK, 80, &[(64, own)], &entries);
    let found = rig.scan();
    assert_eq!(
        waits(&found),
        BTreeMap::from([
            (0, format!("{LOCK:#x} PercpuRwsem Exclusive Somewhere WaiterRecord")),
            (1, format!("{LOCK:#x} PercpuRwsem Shared At(0) WaiterRecord")),
            (2, format!("{LOCK:#x} PercpuRwsem Exclusive At(1) WaiterRecord")),
        ])
    );
    assert_eq!(found.locks[&LOCK].owner, Named::Thread(ix(writer)));
}

#[test]
fn fields_of_the_thread_name_the_lock_and_the_record_its_place() {
    let mut rig = Rig::default();
    let (a, b, c, d) = (rig.task(10, 2), rig.task(11, 2), rig.task(12, 2), rig.task(13, 2));
    let record = rig.waiter(a, Class::Mutex, 0);
    rig.lock(LOCK, 16, &[(0, 0)], &[record]);
    rig.tasks[a].record.blocker = LOCK;
    rig.tasks[b].record.blocker = (LOCK + 0x100) | 2;
    rig.tasks[c].record.blocked_on = LOCK + 0x200;
    let pi = rig.push(d, &[LOCK + 0x300, 0, 0, 0, 0, 0, 0, 0]);
    let own = rig.tasks[d].addr;
    rig.words.insert(pi + 48, own);
    rig.words.insert(pi + 56, LOCK + 0x300);
    rig.tasks[d].record.pi_blocked_on = pi;
    let found = rig.scan();
    let told = |offset, rest| format!("{:#x} {rest}", LOCK + offset);
    assert_eq!(
        waits(&found),
        BTreeMap::from([
            (0, told(0, "Mutex Exclusive At(0) BlockedOnField")),
            (1, told(0x100, "Rwsem Shared Unknown BlockedOnField")),
            (2, told(0x200, "Mutex Exclusive Unknown BlockedOnField")),
            (3, told(0x300, "RtMutex Exclusive Somewhere PiBlockedOn")),
        ])
    );
    // A record that names somebody else is stale.
    rig.words.insert(pi + 48, own + 0x40);
    assert!(!waits(&rig.scan()).contains_key(&3));
}

#[test]
fn an_owner_that_exited_is_named_and_one_that_came_too_late_is_not_accused() {
    let dead = 0xffff_8889_0000_4000;
    let mut rig = Rig::default();
    let waiter = rig.task(10, UNINTERRUPTIBLE);
    let record = rig.waiter(waiter, Class::Mutex, 0);
    rig.lock(LOCK, 16, &[(0, dead | 1)], &[record]);
    assert_eq!(rig.scan().locks[&LOCK].owner, Named::Unreadable(dead));
    let comm = u64::from_ne_bytes(*b"gone\0\0\0\0");
    for (offset, word) in [
        (0x100, 99),
        (0x104, 98),
        (0x110, comm),
        (0x118, 0),
        (0x120, 5),
        (0x128, 0x10),
    ] {
        rig.words.insert(dead + offset, word);
    }
    let Named::Exited(owner) = &rig.scan().locks[&LOCK].owner else {
        panic!("not exited")
    };
    assert_eq!(
        (owner.tid, owner.tgid, owner.state, &owner.comm[..5]),
        (99, 98, 0x10, &b"gone\0"[..])
    );
    for (offset, word) in [(0x128, 0), (0x128, 0xff10), (0x100, 0), (0x118, u64::MAX)] {
        let good = rig.words.insert(dead + offset, word).unwrap();
        assert_eq!(
            rig.scan().locks[&LOCK].owner,
            Named::Unreadable(dead),
            "{offset:#x} {word:#x}"
        );
        rig.words.insert(dead + offset, good);
    }
    // The memory has become a new task, which started after the waiter fell asleep.
    let newcomer = rig.task(11, INTERRUPTIBLE);
    let word = rig.tasks[newcomer].addr;
    rig.words.insert(LOCK, word | 1);
    assert_eq!(rig.scan().locks[&LOCK].owner, Named::Thread(ix(newcomer)));
    rig.tasks[newcomer].record.exec_start = 700_000_000_000;
    rig.tasks[newcomer].record.task.start = 999_000_000_000;
    assert_eq!(rig.scan().locks[&LOCK].owner, Named::Unreadable(word));
}
