//! Stacks and lists that change, lie, or are garbage.

use proptest::prelude::*;

use super::super::code::Class;
use super::rig::{BARRIER, Rig, UNINTERRUPTIBLE, comm, ix, ret, waits};

const LOCK: u64 = 0xffff_8881_0000_0088;

/// Two waiters of one mutex, with their records.
fn two_waiters() -> (Rig, [usize; 2], [u64; 2]) {
    let mut rig = Rig::default();
    let tasks = [rig.task(10, UNINTERRUPTIBLE), rig.task(11, UNINTERRUPTIBLE)];
    let records = tasks.map(|task| rig.waiter(task, Class::Mutex, 0));
    let owner = rig.tasks[0].addr | 1;
    rig.lock(LOCK, 16, &[(0, owner)], &records);
    (rig, tasks, records)
}

#[test]
fn a_thread_that_ran_meanwhile_is_not_explained() {
    let (mut rig, tasks, _) = two_waiters();
    assert_eq!(waits(&rig.scan()).len(), 2);
    let counter = rig.tasks[tasks[1]].addr + 0x130;
    rig.words.insert(counter, 8);
    let found = rig.scan();
    assert_eq!(
        (waits(&found).into_keys().collect::<Vec<_>>(), found.restless.len()),
        (vec![0], 1)
    );
}

#[test]
fn a_waiter_that_was_woken_is_believed_only_while_it_stands_on_the_list_and_has_not_run() {
    let (mut rig, tasks, _) = two_waiters();
    let woken = tasks[1];
    rig.tasks[woken].record.task.state = 0;
    assert_eq!(waits(&rig.scan()).len(), 2, "woken, without a CPU, still on the list");
    let on_cpu = rig.tasks[woken].addr + 0x140;
    rig.words.insert(on_cpu, 1);
    assert_eq!(waits(&rig.scan()).into_keys().collect::<Vec<_>>(), [0]);
    let mut rig = Rig::default();
    let task = rig.task(10, 0);
    rig.tasks[task].record.blocker = LOCK;
    assert!(waits(&rig.scan()).is_empty(), "a field without a record");
    rig.tasks[task].record.task.state = UNINTERRUPTIBLE;
    assert_eq!(waits(&rig.scan()).len(), 1);
}

#[test]
fn an_owner_that_ran_after_it_was_written_down_is_known_to_have() {
    let (mut rig, ..) = two_waiters();
    let owner = rig.task(12, UNINTERRUPTIBLE);
    let word = rig.tasks[owner].addr;
    rig.words.insert(LOCK, word | 1);
    assert!(rig.scan().restless.is_empty());
    // It got the lock after its stack was copied, and what it sleeps in by now is not what it slept in then.
    rig.words.insert(word + 0x138, 1);
    let found = rig.scan();
    assert_eq!(found.restless.into_iter().collect::<Vec<_>>(), [ix(owner)]);
    assert!(found.involved.contains(&ix(owner)));
}

#[test]
fn the_name_is_that_of_the_last_look_unless_the_memory_is_another_threads_by_then() {
    let (mut rig, tasks, _) = two_waiters();
    let [renamed, replaced] = tasks.map(|task| rig.tasks[task].addr);
    rig.rename(renamed, "lf_rec_reinit");
    rig.rename(replaced, "a stranger");
    rig.words.insert(replaced + 0x120, 5000);
    let found = rig.scan();
    assert_eq!(found.comms, [(ix(tasks[0]), comm("lf_rec_reinit"))].into());
}

#[test]
fn a_waiter_whose_stack_was_not_copied_still_has_its_place() {
    let (mut rig, tasks, records) = two_waiters();
    let own = rig.tasks[tasks[0]].addr;
    // Its stack was copied before it began to wait; its record is there now.
    let at = records[0] + 16;
    rig.tasks[tasks[0]].record.task.on_cpu = 1;
    assert_eq!(rig.words[&at], own);
    let found = rig.scan();
    let told = format!("{LOCK:#x} Mutex Exclusive At(1) WaiterRecord");
    assert_eq!(waits(&found).get(&ix(tasks[1]).0), Some(&told));
}

#[test]
fn corrupt_lists_are_counted_and_name_no_lock() {
    for (offset, word) in [
        (0, 0),
        (0, 0x1000),
        (0, LOCK + 0x400),
        (8, 0xffff_8880_dead_beef),
        (0, u64::MAX),
    ] {
        for node in 0..2 {
            let (mut rig, _, records) = two_waiters();
            rig.words.insert(records[node] + offset, word);
            let found = rig.scan();
            assert!(waits(&found).is_empty(), "{offset} {word:#x}: {:?}", waits(&found));
            // The copy of the stack may show already that one of them is no record.
            assert!(
                (1..=2).contains(&found.changing),
                "{offset} {word:#x}: {}",
                found.changing
            );
        }
    }
    let (mut rig, _, records) = two_waiters();
    for record in records {
        rig.list(record, &[]);
    }
    assert_eq!(rig.scan().changing, 2, "each is a list of its own, without a lock");
    let (mut rig, ..) = two_waiters();
    rig.list(LOCK + 16, &[]);
    assert_eq!(rig.scan().changing, 2, "they point to each other, the lock to neither");
}

#[test]
fn a_record_that_names_another_task_by_now_is_dropped() {
    let (mut rig, _, records) = two_waiters();
    // A granted reader, or a stack that has been given to somebody else.
    rig.later.insert(records[0] + 16, 0);
    let before = rig.words.clone();
    rig.words.insert(records[0] + 16, 0);
    let found = rig.scan();
    assert!(waits(&found).is_empty(), "its node makes the list one with a stranger");
    rig.words = before;
    assert_eq!(waits(&rig.scan()).len(), 2);
}

#[test]
fn a_record_outside_of_a_slowpath_is_no_record() {
    let mut rig = Rig::default();
    let task = rig.task(10, UNINTERRUPTIBLE);
    let own = rig.tasks[task].addr;
    let record = rig.push(task, &[0, own, 0, 0]);
    rig.list(LOCK + 16, &[record]);
    assert!(waits(&rig.scan()).is_empty());
}

/// Words that look like something.
fn word() -> impl Strategy<Value = u64> {
    let task = (10..14u64).prop_map(|tid| 0xffff_8880_0000_0000 + 0x4000 * tid);
    let stack = (10..14u64, 0..64u64).prop_map(|(tid, i)| 0xffff_c900_0000_0000 + 0x8000 * tid + 0x4000 - 8 * i);
    let heap = (0..64u64).prop_map(|i| LOCK + 8 * i);
    let code = prop::sample::select(vec![
        ret(Class::Mutex),
        ret(Class::RwsemRead),
        ret(Class::Semaphore),
        ret(Class::Completion),
        ret(Class::PercpuWait),
        ret(Class::PercpuWrite),
        ret(Class::FlushWorkqueue),
        BARRIER,
    ]);
    prop_oneof![
        task.clone(),
        task,
        stack.clone(),
        stack,
        heap,
        code,
        any::<u64>(),
        0..4u64
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn garbage_ends_without_panic(
        stacks in prop::collection::vec(prop::collection::vec(word(), 0..64), 4),
        heap in prop::collection::vec(word(), 128),
        fields in prop::collection::vec(word(), 16),
    ) {
        let mut rig = Rig::default();
        for (i, stack) in stacks.iter().enumerate() {
            let task = rig.task(10 + i as u32, UNINTERRUPTIBLE);
            rig.push(task, stack);
            let record = &mut rig.tasks[task].record;
            let [blocker, blocked_on, pi, kthread] = [0, 1, 2, 3].map(|f| fields[4 * i + f]);
            (record.blocker, record.blocked_on, record.pi_blocked_on, record.kthread) = (blocker, blocked_on, pi, kthread);
            record.task.pf_flags = 0x20 * (i as u32 & 1);
        }
        rig.words.extend(heap.iter().enumerate().map(|(i, word)| (LOCK + 8 * i as u64 - 256, *word)));
        let found = rig.scan();
        for wait in &found.waits {
            prop_assert!(found.locks.contains_key(&wait.lock));
        }
    }
}
