//! What records say of threads: who owns a lock, and in which state somebody is.

use super::*;

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
            "sleeping spinlock",
            lock_kind::RT_SPINLOCK,
            holder | 1,
            0,
            named.clone(),
        ),
        ("sleeping rwlock", lock_kind::RT_RWBASE, 0, 0, Owner::NotRecorded),
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
        let Body::Wait(found) = only(record.as_bytes()) else {
            panic!("{what}: no wait")
        };
        assert_eq!(found.owner, expected, "{what}");
    }
}

#[test]
fn an_owner_that_cannot_be_read_is_not_named() {
    let mut record = wait(record_kind::WAIT_BEGIN);
    record.owner.fields = task_field::UNREADABLE;
    let Body::Wait(found) = only(record.as_bytes()) else {
        panic!("no wait")
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
        (0x8000, 0, 0, TaskState::Uninterruptible),
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
        let Body::Task(found) = only(record.as_bytes()) else {
            panic!("no thread")
        };
        assert_eq!(
            found.state, expected,
            "state {state:#x} on_cpu {on_cpu} iowait {in_iowait}"
        );
    }
}

#[test]
fn a_thread_name_needs_neither_nul_nor_utf8() {
    assert_eq!(&*comm(b"kworker/1:2\0junk"), "kworker/1:2");
    assert_eq!(&*comm(b"sixteen-bytes-xx"), "sixteen-bytes-xx");
    assert_eq!(&*comm(&[0xff; 16]), "\u{fffd}".repeat(16));
    assert_eq!(&*comm(&[0; 16]), "");
}
