//! Decoding tables: good records give exactly the events they mean, bad bytes give exactly the error that names them.

use proptest::prelude::*;
use tracer_common::kind::{lock_kind, mode, object, phase, queue, record_kind, seen_by, task_field};
use tracer_common::record::{Header, ReinitRecord, ReleaseRecord, TaskRecord, TaskSampleRecord, WaitRecord};
use zerocopy::{FromZeros, IntoBytes};

use super::*;
use crate::ids::Nanos;

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
        at(Body::Stack(StackFrames { id, frames })),
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

#[test]
fn owner_words_mean_what_the_kernel_means() {
    let holder = task(2, "holder").task;
    let named = Owner::Task(reference(2, "holder"));
    let readers = |hint: bool, count| Owner::Readers {
        hint: hint.then(|| reference(2, "holder")),
        count,
    };
    for (what, kind, word, count, expected) in [
        ("mutex, handoff to nobody", lock_kind::MUTEX, 7, 0, Owner::Nobody),
        ("mutex, all flags", lock_kind::MUTEX, holder | 7, 0, named.clone()),
        ("ww_mutex", lock_kind::WW_MUTEX, holder, 0, named.clone()),
        ("rwsem writer", lock_kind::RWSEM, holder, 0x3, named.clone()),
        (
            "rwsem, non-spinnable writer",
            lock_kind::RWSEM,
            holder | 2,
            0x3,
            named.clone(),
        ),
        (
            "rwsem, two readers",
            lock_kind::RWSEM,
            holder | 1,
            0x202,
            readers(true, Some(2)),
        ),
        (
            "rwsem, readers without a hint",
            lock_kind::RWSEM,
            0,
            0x102,
            readers(false, Some(1)),
        ),
        ("rwsem, free with waiters", lock_kind::RWSEM, 0, 0x2, Owner::Nobody),
        ("rt_mutex, transitional", lock_kind::RT_MUTEX, 1, 0, Owner::Nobody),
        ("rt_mutex", lock_kind::RT_MUTEX, holder | 1, 0, named.clone()),
        (
            "percpu-rwsem, draining writer",
            lock_kind::PERCPU_RWSEM,
            holder,
            0,
            named,
        ),
        (
            "percpu-rwsem, no writer",
            lock_kind::PERCPU_RWSEM,
            0,
            0,
            Owner::NotRecorded,
        ),
        ("semaphore", lock_kind::SEMAPHORE, 0, 0, Owner::NotRecorded),
        ("spinlock", lock_kind::SPINLOCK, 0, 0, Owner::NotRecorded),
    ] {
        let mut record = wait(record_kind::WAIT_BEGIN);
        (record.kind, record.owner_word, record.count_word) = (kind, word, count);
        if word & !7 == 0 {
            record.owner = TaskRecord::new_zeroed();
        }
        let (_, events) = decode(record.as_bytes());
        let [
            Event {
                body: Body::Wait(found),
                ..
            },
        ] = events.as_slice()
        else {
            panic!("{what}: {events:?}")
        };
        assert_eq!(found.owner, expected, "{what}");
    }
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
fn who_waits_for_an_initialised_completion_is_told_with_it() {
    let (_, events) = decode(reinit(object::COMPLETION, lock_kind::UNKNOWN, 0x1000).as_bytes());
    let waits = events.iter().any(|event| {
        matches!(&event.body, Body::Dependency(d) if d.waiter == Actor::Task(key(1))
            && d.dependency == Dependency::Completion { completion: KernelAddr(0x1000) })
    });
    assert!(waits, "{events:?}");
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
    let mut other = reinit(object::WAIT_QUEUE, lock_kind::UNKNOWN, 0x1040);
    other.task = task(4, "other");
    assert!(told(other));
}

#[test]
fn an_owner_that_cannot_be_read_is_not_named() {
    let mut record = wait(record_kind::WAIT_BEGIN);
    record.owner.fields = task_field::UNREADABLE;
    let (_, events) = decode(record.as_bytes());
    let [
        Event {
            body: Body::Wait(found),
            ..
        },
    ] = events.as_slice()
    else {
        panic!("{events:?}")
    };
    assert_eq!(found.owner, Owner::Unreadable(KernelAddr(record.owner.task)));
}

#[test]
fn thread_states() {
    for (state, on_cpu, in_iowait, expected) in [
        (0, 1, 0, TaskState::Running),
        (2, 1, 0, TaskState::Running),
        (0, 0, 0, TaskState::Runnable),
        (0x200, 0, 0, TaskState::Runnable),
        (1, 0, 0, TaskState::Interruptible),
        (2, 0, 0, TaskState::Uninterruptible),
        (0x102, 0, 0, TaskState::Uninterruptible),
        (2, 0, 1, TaskState::InIo),
        (0x402, 0, 0, TaskState::Idle),
        (0x1000, 0, 0, TaskState::Uninterruptible),
        (4, 0, 0, TaskState::Stopped),
        (8, 0, 0, TaskState::Stopped),
        (0x10, 0, 0, TaskState::Exited),
        (0x80, 0, 0, TaskState::Exited),
        (0x40, 0, 0, TaskState::Unknown),
    ] {
        let mut record = TaskSampleRecord {
            header: Header {
                kind: record_kind::TASK,
                size: size_of::<TaskSampleRecord>() as u16,
                cpu: 0,
                time: 1,
            },
            task: task(1, "t"),
            stack_len: 0,
            pad: 0,
        };
        (record.task.state, record.task.on_cpu, record.task.in_iowait) = (state, on_cpu, in_iowait);
        let (_, events) = decode(record.as_bytes());
        let [
            Event {
                body: Body::Task(found),
                ..
            },
        ] = events.as_slice()
        else {
            panic!("{events:?}")
        };
        assert_eq!(
            found.state, expected,
            "state {state:#x} on_cpu {on_cpu} iowait {in_iowait}"
        );
    }
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

#[test]
fn malformed_bytes_are_rejected_by_name_and_give_nothing() {
    const WAIT: usize = size_of::<WaitRecord>();
    let change = |f: &dyn Fn(&mut WaitRecord)| {
        let mut record = wait(record_kind::WAIT_END);
        f(&mut record);
        record.as_bytes().to_vec()
    };
    let kind = record_kind::WAIT_END;
    let size = WAIT as u16;
    for (what, bytes, expected) in [
        (
            "nothing",
            vec![],
            WireError::Short {
                kind: 0,
                have: 0,
                need: 16,
            },
        ),
        (
            "half a header",
            vec![0; 15],
            WireError::Short {
                kind: 0,
                have: 15,
                need: 16,
            },
        ),
        ("kind 0", vec![0; 16], WireError::UnknownKind(0)),
        (
            "unknown kind",
            change(&|r| r.header.kind = 99),
            WireError::UnknownKind(99),
        ),
        (
            "cut body",
            change(&|_| ())[..WAIT - 1].to_vec(),
            WireError::Short {
                kind,
                have: WAIT - 1,
                need: WAIT,
            },
        ),
        (
            "size 0",
            change(&|r| r.header.size = 0),
            WireError::BadSize {
                kind,
                size: 0,
                frames: 0,
            },
        ),
        (
            "size too small",
            change(&|r| r.header.size -= 1),
            WireError::BadSize {
                kind,
                size: size - 1,
                frames: 0,
            },
        ),
        (
            "size too large",
            change(&|r| r.header.size = u16::MAX),
            WireError::BadSize {
                kind,
                size: u16::MAX,
                frames: 0,
            },
        ),
        (
            "size beyond the bytes",
            change(&|r| r.header.size += 8),
            WireError::Short {
                kind,
                have: WAIT,
                need: WAIT + 8,
            },
        ),
        (
            "frames without size",
            change(&|r| r.stack_len = 1),
            WireError::BadSize { kind, size, frames: 1 },
        ),
        (
            "absurd frames",
            change(&|r| r.stack_len = u32::MAX),
            WireError::BadSize {
                kind,
                size,
                frames: u32::MAX,
            },
        ),
        (
            "lock kind",
            change(&|r| r.kind = 200),
            WireError::BadCode {
                kind,
                field: "lock kind",
                value: 200,
            },
        ),
        (
            "mode",
            change(&|r| r.mode = 9),
            WireError::BadCode {
                kind,
                field: "mode",
                value: 9,
            },
        ),
        (
            "phase",
            change(&|r| r.phase = 9),
            WireError::BadCode {
                kind,
                field: "phase",
                value: 9,
            },
        ),
        (
            "probe",
            change(&|r| r.seen_by = 9),
            WireError::BadCode {
                kind,
                field: "seen_by",
                value: 9,
            },
        ),
    ] {
        assert_eq!(decode(&bytes), (Err(expected), vec![]), "{what}");
    }
}

#[test]
fn a_thread_name_needs_neither_nul_nor_utf8() {
    assert_eq!(&*comm(b"kworker/1:2\0junk"), "kworker/1:2");
    assert_eq!(&*comm(b"sixteen-bytes-xx"), "sixteen-bytes-xx");
    assert_eq!(&*comm(&[0xff; 16]), "\u{fffd}".repeat(16));
    assert_eq!(&*comm(&[0; 16]), "");
}

proptest! {
    #[test]
    fn no_bytes_panic_and_what_is_taken_was_there(mut bytes in proptest::collection::vec(any::<u8>(), 0..600), kind in 0u16..8) {
        if let Some(place) = bytes.get_mut(..2) {
            place.copy_from_slice(&kind.to_ne_bytes());
        }
        let (taken, events) = decode(&bytes);
        match taken {
            Ok(taken) => prop_assert!(taken > 0 && taken <= bytes.len()),
            Err(_) => prop_assert!(events.is_empty()),
        }
    }
}
