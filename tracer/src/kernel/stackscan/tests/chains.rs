//! Waits for something that is no lock, and who is told of.

use super::super::code::Class;
use super::super::{Depends, Found};
use super::rig::{BARRIER, INTERRUPTIBLE, QUEUE_WAKE, Rig, UNINTERRUPTIBLE, ix, ret, waits};
use crate::event::{Dependency, Evidence};
use crate::ids::KernelAddr;

const LOCK: u64 = 0xffff_8881_0000_0100;
const WORKER: u64 = 0xffff_8882_0000_0000;
const KTHREAD: u64 = 0xffff_8883_0000_0000;
const POOL: u64 = 0xffff_8884_0000_0000;
const PWQ: u64 = 0xffff_8885_0000_0000;
const WQ: u64 = 0xffff_8886_0000_0000;
const FUNCTION: u64 = 0xffff_ffff_c000_1000;

/// A worker that executes [`FUNCTION`] and waits for a mutex that it holds.
fn busy_worker(rig: &mut Rig) -> usize {
    let task = rig.task(20, UNINTERRUPTIBLE);
    let addr = rig.tasks[task].addr;
    rig.tasks[task].record.task.pf_flags = 0x20;
    rig.tasks[task].record.kthread = KTHREAD;
    let words = [
        (KTHREAD + 8, WORKER),
        (WORKER, addr),
        (WORKER + 8, FUNCTION),
        (WORKER + 16, PWQ),
        (WORKER + 40, POOL),
    ];
    rig.words.extend(words);
    rig.words.insert(PWQ + 8, WQ);
    let record = rig.waiter(task, Class::Mutex, 0);
    rig.lock(LOCK, 16, &[(0, addr | 1)], &[record]);
    task
}

/// A task in `flush_work`; returns it with the list entry of its barrier.
fn flusher(rig: &mut Rig, tid: u32) -> (usize, u64) {
    let task = rig.task(tid, UNINTERRUPTIBLE);
    let own = rig.tasks[task].addr;
    let barrier = rig.push(task, &[own, 0, 0, 0, 0, BARRIER, 0, 0, 0]);
    rig.push(task, &[ret(Class::Completion)]);
    (task, barrier + 8)
}

fn depends(found: &Found, task: usize) -> Option<(Dependency, Option<u32>, Evidence)> {
    let depends: Option<&Depends> = found.depends.iter().find(|depends| depends.thread == ix(task));
    depends.map(|depends| (depends.dependency, depends.on.map(|on| on.0), depends.evidence))
}

#[test]
fn flush_work_leads_to_the_worker_that_executes_it() {
    let mut rig = Rig::default();
    let worker = busy_worker(&mut rig);
    let flushers: Vec<(usize, u64)> = (30..36).map(|tid| flusher(&mut rig, tid)).collect();
    let entries: Vec<u64> = flushers.iter().map(|(_, entry)| *entry).collect();
    rig.list(WORKER + 24, &entries);
    let found = rig.scan();
    let function = KernelAddr(FUNCTION);
    for (task, _) in flushers {
        let expected = (
            Dependency::WorkFlush { function },
            Some(ix(worker).0),
            Evidence::WaiterRecord,
        );
        assert_eq!(depends(&found, task), Some(expected));
    }
    assert_eq!(found.work.get(&ix(worker)), Some(&FUNCTION));
}

#[test]
fn flush_of_pending_work_leads_to_the_pool_s_longest_sleeper() {
    let mut rig = Rig::default();
    let worker = busy_worker(&mut rig);
    let (task, entry) = flusher(&mut rig, 30);
    let pending = 0xffff_8887_0000_0000;
    rig.words.insert(pending + 24, FUNCTION + 0x500);
    rig.list(POOL + 16, &[pending + 8, entry]);
    let function = KernelAddr(FUNCTION + 0x500);
    let expected = (
        Dependency::WorkFlush { function },
        Some(ix(worker).0),
        Evidence::WaiterRecord,
    );
    assert_eq!(depends(&rig.scan(), task), Some(expected));
}

#[test]
fn a_barrier_on_a_broken_list_explains_nothing() {
    let mut rig = Rig::default();
    busy_worker(&mut rig);
    let (task, entry) = flusher(&mut rig, 30);
    for prev in [0, entry, 0xffff_8887_0000_0000, LOCK] {
        rig.words.insert(entry + 8, prev);
        assert_eq!(depends(&rig.scan(), task), None, "{prev:#x}");
    }
}

#[test]
fn flush_workqueue_leads_to_its_worker() {
    let mut rig = Rig::default();
    let worker = busy_worker(&mut rig);
    let task = rig.task(30, UNINTERRUPTIBLE);
    let own = rig.tasks[task].addr;
    // struct wq_flusher { list, color, done { done, lock, list } }
    let flusher = rig.push(task, &[0, 0, 0, 0, 0, 0, 0]);
    rig.push(task, &[WQ, ret(Class::FlushWorkqueue)]);
    let record = rig.push(task, &[0, 0, own]);
    rig.push(task, &[ret(Class::Completion)]);
    rig.list(flusher + 24 + 16, &[record + 8]);
    rig.words.insert(WQ + 8, flusher);
    let workqueue = KernelAddr(WQ);
    let expected = (
        Dependency::WorkqueueFlush { workqueue },
        Some(ix(worker).0),
        Evidence::WaiterRecord,
    );
    assert_eq!(depends(&rig.scan(), task), Some(expected));
    rig.words.insert(WQ + 8, flusher + 8);
    let completion = KernelAddr(flusher + 24);
    let unknown = (Dependency::Completion { completion }, None, Evidence::WaiterRecord);
    assert_eq!(depends(&rig.scan(), task), Some(unknown), "another flusher's workqueue");
}

#[test]
fn kthread_stop_waits_for_the_thread_to_exit() {
    let mut rig = Rig::default();
    let worker = busy_worker(&mut rig);
    let task = rig.task(30, UNINTERRUPTIBLE);
    let own = rig.tasks[task].addr;
    let record = rig.push(task, &[0, 0, own]);
    rig.push(task, &[ret(Class::Completion)]);
    rig.list(KTHREAD + 32 + 16, &[record + 8]);
    let completion = KernelAddr(KTHREAD + 32);
    let expected = (
        Dependency::Completion { completion },
        Some(ix(worker).0),
        Evidence::WaiterRecord,
    );
    assert_eq!(depends(&rig.scan(), task), Some(expected));
}

#[test]
fn an_entry_on_a_wait_queue_leads_to_the_queue() {
    let mut rig = Rig::default();
    let queue = 0xffff_ffff_c000_2000;
    let sleepers = [rig.task(30, UNINTERRUPTIBLE), rig.task(31, UNINTERRUPTIBLE)];
    // `{flags, private, func, entry}`, its lowest word last.
    let entries = sleepers.map(|task| {
        let own = rig.tasks[task].addr;
        let entry = rig.push(task, &[0, 0, QUEUE_WAKE, own, 0]) + 24;
        // Its caller waits for a completion as well, later.
        rig.push(task, &[ret(Class::Completion)]);
        entry
    });
    rig.list(queue + 8, &entries);
    let expected = (
        Dependency::WaitQueueHead {
            queue: KernelAddr(queue),
        },
        None,
        Evidence::WaiterRecord,
    );
    let found = rig.scan();
    for task in sleepers {
        assert_eq!(depends(&found, task), Some(expected));
    }
    // Something that is no thread stands in between: the queue cannot be walked, and nothing is wrong with it.
    let foreign = 0xffff_8888_0000_0000;
    rig.list(queue + 8, &[entries[0], foreign, entries[1]]);
    let found = rig.scan();
    assert_eq!((depends(&found, sleepers[0]), found.changing), (None, 0));
}

#[test]
fn functions_on_the_stack_name_rcu_pages_and_io() {
    let mut rig = Rig::default();
    let tasks: Vec<usize> = (30..35).map(|tid| rig.task(tid, UNINTERRUPTIBLE)).collect();
    let frames: [&[Class]; 5] = [
        &[Class::Rcu],
        &[Class::Page],
        &[Class::Page, Class::BlockIo],
        &[],
        &[Class::Mutex],
    ];
    for (&task, frames) in tasks.iter().zip(frames) {
        frames.iter().for_each(|&class| rig.frame(task, class));
    }
    rig.tasks[tasks[3]].record.task.in_iowait = 1;
    let found = rig.scan();
    let told: Vec<_> = tasks.iter().map(|&task| depends(&found, task).map(|d| d.0)).collect();
    let (rcu, page, io) = (Dependency::RcuGracePeriod, Dependency::PageLock, Dependency::BlockIo);
    assert_eq!(
        told,
        [Some(rcu), Some(page), Some(io), Some(io), None],
        "the last is not explained"
    );
}

#[test]
fn interruptible_sleepers_are_told_of_only_where_they_matter() {
    let mut rig = Rig::default();
    let (alone, holder, queued, waiter) = (
        rig.task(10, INTERRUPTIBLE),
        rig.task(11, INTERRUPTIBLE),
        rig.task(12, INTERRUPTIBLE),
        rig.task(13, 2),
    );
    let other = LOCK + 0x1000;
    let record = rig.waiter(alone, Class::Semaphore, 0);
    rig.lock(LOCK + 0x2000, 8, &[], &[record]);
    // The holder waits for another lock: it is a part of the chain.
    let record = rig.waiter(holder, Class::Mutex, 0);
    rig.lock(other, 16, &[(0, 0)], &[record]);
    let records = [rig.waiter(queued, Class::Mutex, 0), rig.waiter(waiter, Class::Mutex, 0)];
    let owner = rig.tasks[holder].addr | 1;
    rig.lock(LOCK, 16, &[(0, owner)], &records);
    assert_eq!(waits(&rig.scan()).into_keys().collect::<Vec<_>>(), [1, 2, 3]);
    rig.all = true;
    assert_eq!(waits(&rig.scan()).into_keys().collect::<Vec<_>>(), [0, 1, 2, 3]);
}

/// A holder of [`LOCK`] in this state, with a waiter.
fn held_by(rig: &mut Rig, state: u32) -> usize {
    let (holder, waiter) = (rig.task(40, state), rig.task(41, UNINTERRUPTIBLE));
    let record = rig.waiter(waiter, Class::Mutex, 0);
    let owner = rig.tasks[holder].addr;
    rig.lock(LOCK, 16, &[(0, owner | 1)], &[record]);
    rig.words
        .extend([(owner + 0x148, 0), (owner + 0x150, 0), (owner + 0x158, 0)]);
    holder
}

#[test]
fn a_holder_that_is_stopped_waits_for_its_tracer_or_for_a_signal() {
    const STOPPED: u32 = 4;
    const TRACED: u32 = 8;
    let told = |on: Option<usize>| Some((Dependency::Stop, on.map(|on| ix(on).0), Evidence::BlockedOnField));
    let mut rig = Rig::default();
    let holder = held_by(&mut rig, STOPPED);
    assert_eq!(depends(&rig.scan(), holder), told(None));
    // Its parent becomes its tracer by the flags.
    let (own, parent) = (rig.tasks[holder].addr, rig.task(42, INTERRUPTIBLE));
    rig.words.insert(own + 0x150, rig.tasks[parent].addr);
    assert_eq!(depends(&rig.scan(), holder), told(None));
    rig.words.insert(own + 0x148, 0xdead_0001_0001);
    rig.tasks[holder].record.task.state = TRACED;
    assert_eq!(depends(&rig.scan(), holder), told(Some(parent)));
    // A tracer in another pid namespace is not among the threads.
    rig.words.insert(own + 0x150, 0xffff_8887_0000_0000);
    assert_eq!(depends(&rig.scan(), holder), told(None));
    // Who has run since is not told of.
    rig.words.insert(own + 0x130, 8);
    assert_eq!(depends(&rig.scan(), holder), None);
}

#[test]
fn a_stop_that_holds_nobody_up_is_not_told() {
    let mut rig = Rig::default();
    let alone = rig.task(40, 4);
    assert_eq!(depends(&rig.scan(), alone), None);
}

#[test]
fn a_frozen_holder_sleeps_by_its_job_control_flags_or_its_state() {
    let told = Some((Dependency::Stop, None, Evidence::BlockedOnField));
    let mut rig = Rig::default();
    let holder = held_by(&mut rig, INTERRUPTIBLE);
    assert_eq!(depends(&rig.scan(), holder), None);
    rig.words.insert(rig.tasks[holder].addr + 0x158, 1 << 23);
    assert_eq!(depends(&rig.scan(), holder), told);
    let mut rig = Rig::default();
    let holder = held_by(&mut rig, 0x8000);
    assert_eq!(depends(&rig.scan(), holder), told);
}

#[test]
fn vfork_waits_for_the_child_which_has_the_address_of_the_completion() {
    let mut rig = Rig::default();
    let (parent, child, other) = (
        rig.task(30, UNINTERRUPTIBLE),
        rig.task(31, 8),
        rig.task(32, INTERRUPTIBLE),
    );
    let own = rig.tasks[parent].addr;
    let done = rig.push(parent, &[0, 0, 0, 0]);
    rig.push(parent, &[ret(Class::Fork)]);
    let record = rig.push(parent, &[0, 0, own]);
    rig.push(parent, &[ret(Class::Completion)]);
    rig.list(done + 16, &[record + 8]);
    for (task, completion) in [(parent, 0), (child, done), (other, done + 8)] {
        rig.tasks[task].record.mm = 0xffff_8889_0000_0000;
        rig.words.insert(rig.tasks[task].addr + 0x160, completion);
    }
    let tracer = rig.tasks[other].addr;
    let stopped = rig.tasks[child].addr;
    rig.words
        .extend([(stopped + 0x148, 1), (stopped + 0x150, tracer), (stopped + 0x158, 0)]);
    let completion = KernelAddr(done);
    let found = rig.scan();
    assert_eq!(
        [parent, child].map(|task| depends(&found, task)),
        [
            Some((
                Dependency::Completion { completion },
                Some(ix(child).0),
                Evidence::WaiterRecord
            )),
            Some((Dependency::Stop, Some(ix(other).0), Evidence::BlockedOnField)),
        ]
    );
}
