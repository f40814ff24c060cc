//! Locks of PREEMPT_RT.

use std::collections::BTreeMap;

use super::super::code::Class;
use super::super::{Candidate, Named};
use super::rig::{Rig, UNINTERRUPTIBLE, ix, ret, waits};
use crate::event::{Evidence, LockKind, Mode};

const LOCK: u64 = 0xffff_8881_0000_0088;
/// Of the rt_mutex in a rwsem, and of its owner in that.
const RT_MUTEX: u64 = 8;
const OWNER: u64 = 24;

fn rig() -> Rig {
    let mut rig = Rig::default();
    rig.rt = true;
    rig
}

/// A task that waits for an rt_mutex in a function of a class.
fn waiter(rig: &mut Rig, tid: u32, class: Class, rt_mutex: u64) -> usize {
    let task = rig.task(tid, UNINTERRUPTIBLE);
    let own = rig.tasks[task].addr;
    rig.push(task, &[ret(class)]);
    let record = rig.push(task, &[rt_mutex, own, 0, 0, 0, 0, 0, 0]);
    rig.push(task, &[ret(Class::RtMutex)]);
    rig.tasks[task].record.pi_blocked_on = record;
    task
}

#[test]
fn a_rwsem_held_for_writing_names_its_owner_through_the_rt_mutex_inside() {
    let mut rig = rig();
    let owner = rig.task(10, UNINTERRUPTIBLE);
    let (reader, writer) = (
        waiter(&mut rig, 11, Class::RwsemRead, LOCK + RT_MUTEX),
        waiter(&mut rig, 12, Class::RwsemWrite, LOCK + RT_MUTEX),
    );
    let word = rig.tasks[owner].addr | 1;
    rig.words.extend([(LOCK, 1 << 30), (LOCK + RT_MUTEX + OWNER, word)]);
    let found = rig.scan();
    assert_eq!(
        waits(&found),
        BTreeMap::from([
            (ix(reader).0, format!("{LOCK:#x} Rwsem Shared Somewhere PiBlockedOn")),
            (ix(writer).0, format!("{LOCK:#x} Rwsem Exclusive Somewhere PiBlockedOn")),
        ])
    );
    assert_eq!(found.locks[&LOCK].owner, Named::Thread(ix(owner)));
    assert_eq!(found.candidates, []);
}

#[test]
fn a_writer_that_waits_for_readers_is_found_by_the_rt_mutex_it_owns_and_they_by_their_stacks() {
    let mut rig = rig();
    let (writer, reader) = (rig.task(10, UNINTERRUPTIBLE), rig.task(11, UNINTERRUPTIBLE));
    rig.push(reader, &[LOCK]);
    let mutex = LOCK + 0x1000 - RT_MUTEX;
    rig.push(writer, &[mutex, LOCK, ret(Class::RwsemWrite)]);
    let own = rig.tasks[writer].addr;
    let behind = waiter(&mut rig, 12, Class::RwsemWrite, LOCK + RT_MUTEX);
    rig.words.extend([(LOCK, 1), (LOCK + RT_MUTEX + OWNER, own | 1)]);
    // A mutex that it holds, too: what stands before it is no count of readers.
    rig.words
        .extend([(mutex, 0xffff_8888), (mutex + RT_MUTEX + OWNER, own)]);
    let told = |how| format!("{LOCK:#x} Rwsem Exclusive Somewhere {how}");
    let found = rig.scan();
    assert_eq!(
        waits(&found),
        BTreeMap::from([
            (ix(writer).0, told("WaiterRecord")),
            (ix(behind).0, told("PiBlockedOn"))
        ])
    );
    assert_eq!(
        found.candidates,
        [Candidate {
            lock: LOCK,
            kind: LockKind::Rwsem,
            mode: Mode::Shared,
            thread: ix(reader),
            rank: 0,
            evidence: Evidence::StackWord,
        }]
    );
    // The last reader has left.
    rig.words.insert(LOCK, 1 << 30);
    let found = rig.scan();
    assert!(!waits(&found).contains_key(&ix(writer).0), "it holds the lock");
    assert_eq!(found.locks[&LOCK].owner, Named::Thread(ix(writer)));
}

#[test]
fn a_mutex_is_the_lock_around_its_rt_mutex() {
    let mut rig = rig();
    let task = waiter(&mut rig, 11, Class::Mutex, LOCK);
    let own = rig.tasks[task].addr;
    rig.words.insert(LOCK + OWNER, own | 1);
    let found = rig.scan();
    assert_eq!(
        waits(&found),
        BTreeMap::from([(0, format!("{LOCK:#x} Mutex Exclusive Somewhere PiBlockedOn"))])
    );
    assert_eq!(found.locks[&LOCK].owner, Named::Thread(ix(task)), "it waits for itself");
}
