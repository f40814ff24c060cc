//! Good records give exactly the events they mean.

mod malformed;
mod threads;

use tracer_common::kind::{lock_kind, mode};
use zerocopy::{FromZeros, IntoBytes};

use super::*;
use crate::event::{Mode, TaskSample, TaskState};
use crate::ids::{CgroupId, TaskKey, Tgid};

const ALL_FIELDS: u16 = task_field::IDENTITY
    | task_field::START
    | task_field::STATE
    | task_field::SWITCHES
    | task_field::CGROUP
    | task_field::CPU
    | task_field::FLAGS;

fn task(tid: u32, name: &str) -> TaskRecord {
    let mut comm = [0; 16];
    comm[..name.len()].copy_from_slice(name.as_bytes());
    TaskRecord {
        task: 0xffff_8880_0000_0000 + u64::from(tid) * 0x1000,
        start: u64::from(tid) * 10,
        switches: 7,
        cgroup: 3,
        tid,
        tgid: tid,
        comm,
        state: 2,
        pf_flags: 0,
        cpu: 1,
        on_cpu: 0,
        in_iowait: 0,
        fields: ALL_FIELDS,
    }
}

fn key(tid: u32) -> TaskKey {
    TaskKey {
        tid: Tid(tid),
        start: Timestamp(u64::from(tid) * 10),
    }
}

fn reference(tid: u32, name: &str) -> TaskRef {
    TaskRef {
        key: key(tid),
        tgid: Tgid(tid),
        comm: name.into(),
    }
}

fn wait(kind: u16) -> WaitRecord {
    let owner = task(2, "holder");
    WaitRecord {
        header: Header {
            kind,
            size: size_of::<WaitRecord>() as u16,
            cpu: 3,
            time: 5_000,
        },
        lock: 0xffff_8881_0000_1000,
        since: 1_000,
        owner_word: owner.task | 1,
        count_word: 0,
        waiter: task(1, "waiter"),
        owner,
        result: 0,
        queue: queue::UNKNOWN,
        flags: 32,
        kind: lock_kind::MUTEX,
        mode: mode::EXCLUSIVE,
        phase: phase::SLEEPING,
        seen_by: seen_by::TRACEPOINT,
        stack_len: 0,
        pad: 0,
    }
}

fn decode(bytes: &[u8]) -> (Result<usize, WireError>, Vec<Event>) {
    let mut out = Vec::new();
    let taken = Decoder::default().decode(bytes, &mut out);
    (taken, out)
}

/// The only event of a record.
fn only(bytes: &[u8]) -> Body {
    let (_, mut events) = decode(bytes);
    assert_eq!(events.len(), 1, "{events:?}");
    events.remove(0).body
}

fn sample() -> WaitSample {
    WaitSample {
        waiter: Actor::Task(key(1)),
        task: Some(reference(1, "waiter")),
        lock: LockAddr(0xffff_8881_0000_1000),
        kind: LockKind::Mutex,
        mode: Mode::Exclusive,
        phase: Phase::Sleeping,
        since: Some(Timestamp(1_000)),
        owner_word: task(2, "holder").task | 1,
        owner: Owner::Task(reference(2, "holder")),
        queued: Queued::Unknown,
        cpu: Some(CpuId(3)),
        stack: StackId(0),
        evidence: Evidence::Tracepoint,
    }
}

#[test]
fn a_begin_is_dated_when_its_owner_word_was_read() {
    let record = wait(record_kind::WAIT_BEGIN);
    let (taken, events) = decode(record.as_bytes());
    assert_eq!(taken, Ok(size_of::<WaitRecord>()));
    assert_eq!(
        events,
        [Event {
            time: Timestamp(1_000),
            body: Body::Wait(sample())
        }]
    );
}

#[test]
fn an_end_is_the_wait_and_its_end() {
    let mut record = wait(record_kind::WAIT_END);
    record.result = -4;
    let (_, events) = decode(record.as_bytes());
    let end = WaitEnd {
        waiter: Actor::Task(key(1)),
        lock: sample().lock,
        result: -4,
        waited: Nanos(4_000),
    };
    assert_eq!(
        events,
        [
            Event {
                time: Timestamp(1_000),
                body: Body::Wait(sample())
            },
            Event {
                time: Timestamp(5_000),
                body: Body::WaitEnd(end)
            }
        ]
    );
}

#[test]
fn a_pending_wait_brings_both_threads_and_its_stack_once() {
    let mut record = wait(record_kind::WAIT_PENDING);
    record.queue = 4;
    record.stack_len = 2;
    record.header.size += 16;
    let mut bytes = record.as_bytes().to_vec();
    bytes.extend([0x10u64, 0x20].map(u64::to_ne_bytes).concat());
    let mut decoder = Decoder::default();
    let mut events = Vec::new();
    assert_eq!(decoder.decode(&bytes, &mut events), Ok(bytes.len()));
    let frames: Arc<[KernelAddr]> = [KernelAddr(0x10), KernelAddr(0x20)].into();
    let id = stack_id(&frames);
    let thread = |tid, name, stack| {
        Body::Task(TaskSample {
            task: reference(tid, name),
            state: TaskState::Uninterruptible,
            cpu: Some(CpuId(1)),
            switches: Some(7),
            last_switch: None,
            kernel_thread: false,
            cgroup: CgroupId(3),
            stack,
            work: None,
        })
    };
    let at = |body| Event {
        time: Timestamp(5_000),
        body,
    };
    let expected = [
        at(Body::Stack(StackFrames {
            id,
            frames,
            pieced: false,
        })),
        at(thread(1, "waiter", id)),
        at(thread(2, "holder", StackId(0))),
        at(Body::Wait(WaitSample {
            queued: Queued::At(4),
            cpu: None,
            stack: id,
            evidence: Evidence::Reread,
            ..sample()
        })),
    ];
    assert_eq!(events, expected);
    events.clear();
    decoder.decode(&bytes, &mut events).unwrap();
    assert_eq!(events, expected[1..], "a stack is announced once");
}

fn reinit(object: u8, kind: u8, lock: u64) -> ReinitRecord {
    ReinitRecord {
        header: Header {
            kind: record_kind::REINIT,
            size: size_of::<ReinitRecord>() as u16,
            cpu: 0,
            time: 5_000,
        },
        lock,
        owner_word: 0,
        count_word: 0,
        task: task(3, "insmod"),
        owner: TaskRecord::new_zeroed(),
        waiter: task(1, "waiter"),
        waiters: 2,
        stack_len: 0,
        kind,
        object,
        pad: [0; 6],
    }
}

#[test]
fn an_initialisation_in_use_names_holder_and_waiters() {
    let owner = task(2, "holder");
    let mut record = reinit(object::LOCK, lock_kind::MUTEX, 0x1000);
    (record.owner_word, record.owner) = (owner.task | 1, owner);
    let (_, events) = decode(record.as_bytes());
    let [waiter, told] = events.as_slice() else {
        panic!("{events:?}")
    };
    assert!(matches!(&waiter.body, Body::Task(sample) if sample.task == reference(1, "waiter")));
    let expected = Reinit {
        lock: LockAddr(0x1000),
        kind: LockKind::Mutex,
        task: reference(3, "insmod"),
        stack: StackId(0),
        waiters: 2,
        owner: Owner::Task(reference(2, "holder")),
    };
    assert_eq!(told.body, Body::Reinit(expected));
}

#[test]
fn who_waits_for_an_initialised_completion_or_wait_queue_is_told_with_it() {
    let addr = KernelAddr(0x1000);
    let what = [
        (object::COMPLETION, Dependency::Completion { completion: addr }),
        (object::WAIT_QUEUE, Dependency::WaitQueueHead { queue: addr }),
    ];
    for (object, dependency) in what {
        let (_, events) = decode(reinit(object, lock_kind::UNKNOWN, addr.0).as_bytes());
        let waits = events.iter().any(|event| {
            matches!(&event.body, Body::Dependency(d) if d.waiter == Actor::Task(key(1)) && d.dependency == dependency)
        });
        assert!(waits, "{events:?}");
    }
}

#[test]
fn the_wait_queue_inside_of_a_percpu_rwsem_is_told_once() {
    let mut decoder = Decoder::default();
    let mut told = |record: ReinitRecord| {
        let mut out = Vec::new();
        decoder.decode(record.as_bytes(), &mut out).unwrap();
        !out.is_empty()
    };
    assert!(
        told(reinit(object::WAIT_QUEUE, lock_kind::UNKNOWN, 0x1040)),
        "of its own"
    );
    assert!(told(reinit(object::LOCK, lock_kind::PERCPU_RWSEM, 0x1000)));
    assert!(!told(reinit(object::WAIT_QUEUE, lock_kind::UNKNOWN, 0x1040)));
    assert!(
        told(reinit(object::WAIT_QUEUE, lock_kind::UNKNOWN, 0x1040)),
        "once more, by itself"
    );
    assert!(told(reinit(object::LOCK, lock_kind::PERCPU_RWSEM, 0x1000)));
    let mut other = reinit(object::WAIT_QUEUE, lock_kind::UNKNOWN, 0x1040);
    other.task = task(4, "other");
    assert!(told(other));
}

#[test]
fn a_release_names_releaser_and_lock() {
    let record = ReleaseRecord {
        header: Header {
            kind: record_kind::RELEASE,
            size: size_of::<ReleaseRecord>() as u16,
            cpu: 0,
            time: 9,
        },
        lock: 0x1000,
        task: task(5, "r"),
        kind: lock_kind::RWSEM,
        pad: [0; 3],
        stack_len: 0,
    };
    let (_, events) = decode(record.as_bytes());
    let release = Release {
        task: reference(5, "r"),
        lock: LockAddr(0x1000),
        kind: LockKind::Rwsem,
        stack: StackId(0),
    };
    assert_eq!(
        events,
        [Event {
            time: Timestamp(9),
            body: Body::Release(release)
        }]
    );
}
