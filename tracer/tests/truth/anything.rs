//! Streams of events without any sense: nothing panics, the tables stay consistent, every output can be written.

use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::*;
use tracer::diagnosis::Engine;
use tracer::event::{
    Act, Actor, Body, Context, CpuStall, Dependency, DependencySample, Event, Evidence, HolderCandidate, LockKind,
    LockName, LockSample, LockStats, LossCause, LossReport, Mode, Owner, Phase, Queued, Reinit, Release, Round,
    RoundEdge, RoundScope, StackFrames, TaskRef, TaskSample, TaskState, TimeSpent, WaitEnd, WaitSample, Watched,
};
use tracer::ids::{CgroupId, CpuId, KernelAddr, LockAddr, Nanos, StackId, TaskKey, Tgid, Tid, Timestamp};
use tracer::model::{Held, Model, Settings};
use tracer::report::Report;
use tracer::view::{json, text};

/// Every index in every table leads to an entry that leads back.
pub fn check_invariants(model: &Model) {
    for (ix, wait) in model.waits().iter() {
        let actor = model.actors().get(wait.waiter).expect("a waiter is known");
        let lock = model.locks().get(wait.lock).expect("what is waited for is known");
        assert_eq!(
            actor.waits.iter().filter(|&&w| w == ix).count(),
            1,
            "the waiter knows its wait"
        );
        assert_eq!(
            lock.waiters.iter().filter(|&&w| w == ix).count(),
            1,
            "the lock knows its waiter"
        );
        assert!(wait.seen.first <= wait.seen.last);
    }
    for (ix, actor) in model.actors().iter() {
        let mut locks = BTreeSet::new();
        for &wait in &actor.waits {
            let wait = model.waits().get(wait).expect("a wait of an actor exists");
            assert!(locks.insert(wait.lock), "one wait for one lock");
            assert_eq!(wait.waiter, ix);
        }
        for &lock in &actor.holds {
            let lock = model.locks().get(lock).expect("a held lock exists");
            assert_eq!(lock.held(), Held::By(ix), "who holds a lock is its owner");
        }
        if let Some(on) = actor.dependency.as_ref().and_then(|d| d.on) {
            assert!(model.actors().get(on).is_some(), "who is depended upon is known");
        }
    }
    for (ix, lock) in model.locks().iter() {
        for &wait in &lock.waiters {
            assert_eq!(model.waits().get(wait).expect("a waiter's wait exists").lock, ix);
        }
        if let Held::By(owner) = lock.held() {
            let owner = model.actors().get(owner).expect("an owner is known");
            assert_eq!(
                owner.holds.iter().filter(|&&l| l == ix).count(),
                1,
                "an owner knows what it holds"
            );
        }
        for candidate in &lock.candidates {
            assert!(model.actors().get(candidate.holder).is_some(), "a candidate is known");
        }
    }
}

fn key() -> impl Strategy<Value = TaskKey> + Clone {
    (1..6_u32, 0..3_u64).prop_map(|(tid, start)| TaskKey {
        tid: Tid(tid),
        start: Timestamp(start * 500),
    })
}

fn task() -> impl Strategy<Value = TaskRef> + Clone {
    key().prop_map(|key| TaskRef {
        key,
        tgid: Tgid(key.tid.0),
        comm: Arc::from(format!("c{}", key.tid)),
    })
}

fn actor() -> impl Strategy<Value = Actor> + Clone {
    prop_oneof![
        5 => key().prop_map(Actor::Task),
        1 => (0..2_u32, prop::option::of(key()), any::<bool>()).prop_map(|(cpu, interrupted, hard)| Actor::Interrupt {
            cpu: CpuId(cpu),
            context: if hard { Context::Hardirq } else { Context::Softirq },
            interrupted,
        }),
    ]
}

fn lock() -> impl Strategy<Value = LockAddr> + Clone {
    (1..5_u64).prop_map(LockAddr)
}

fn kind() -> impl Strategy<Value = LockKind> + Clone {
    prop::sample::select(vec![
        LockKind::Mutex,
        LockKind::WwMutex,
        LockKind::Rwsem,
        LockKind::RtMutex,
        LockKind::Semaphore,
        LockKind::Spinlock,
        LockKind::Unknown,
    ])
}

fn mode() -> impl Strategy<Value = Mode> + Clone {
    any::<bool>().prop_map(|shared| if shared { Mode::Shared } else { Mode::Exclusive })
}

fn owner() -> impl Strategy<Value = Owner> + Clone {
    prop_oneof![
        Just(Owner::Nobody),
        Just(Owner::NotRecorded),
        Just(Owner::Unreadable(KernelAddr(9))),
        task().prop_map(Owner::Task),
        (prop::option::of(task()), prop::option::of(0..3_u32)).prop_map(|(hint, count)| Owner::Readers { hint, count }),
    ]
}

fn evidence() -> impl Strategy<Value = Evidence> + Clone {
    prop::sample::select(vec![
        Evidence::Tracepoint,
        Evidence::Reread,
        Evidence::WaiterRecord,
        Evidence::PiBlockedOn,
        Evidence::StackWord,
        Evidence::OwnerHint,
    ])
}

fn queued() -> impl Strategy<Value = Queued> + Clone {
    prop_oneof![
        (0..4_u32).prop_map(Queued::At),
        Just(Queued::Somewhere),
        Just(Queued::Absent),
        Just(Queued::Unknown)
    ]
}

fn since() -> impl Strategy<Value = Option<Timestamp>> + Clone {
    prop::option::of((0..3_000_u64).prop_map(|ms| Timestamp(ms * 1_000_000)))
}

fn wait() -> impl Strategy<Value = Body> {
    let who = (actor(), prop::option::of(task()), lock(), kind(), mode(), any::<bool>());
    (who, since(), 0..9_u64, owner(), queued(), evidence()).prop_map(
        |((waiter, task, lock, kind, mode, spins), since, owner_word, owner, queued, evidence)| {
            let phase = if spins { Phase::Spinning } else { Phase::Sleeping };
            Body::Wait(WaitSample {
                waiter,
                task,
                lock,
                kind,
                mode,
                phase,
                since,
                owner_word,
                owner,
                queued,
                cpu: None,
                stack: StackId(3),
                evidence,
            })
        },
    )
}

fn sample() -> impl Strategy<Value = Body> {
    let states = vec![
        TaskState::Running,
        TaskState::Runnable,
        TaskState::Uninterruptible,
        TaskState::Exited,
        TaskState::InIo,
    ];
    (
        task(),
        prop::sample::select(states),
        prop::option::of(0..3_u64),
        since(),
    )
        .prop_map(|(task, state, switches, last_switch)| {
            Body::Task(TaskSample {
                task,
                state,
                cpu: Some(CpuId(1)),
                switches,
                last_switch,
                kernel_thread: false,
                cgroup: CgroupId(2),
                stack: StackId(3),
                work: None,
            })
        })
}

fn dependency() -> impl Strategy<Value = Body> {
    (actor(), prop::option::of(actor()), since(), evidence(), any::<bool>()).prop_map(
        |(waiter, on, since, evidence, io)| {
            let dependency = if io {
                Dependency::BlockIo
            } else {
                Dependency::Completion {
                    completion: KernelAddr(4),
                }
            };
            let (task, on_task) = (None, None);
            Body::Dependency(DependencySample {
                waiter,
                task,
                dependency,
                on,
                on_task,
                since,
                stack: StackId(0),
                evidence,
            })
        },
    )
}

fn round() -> impl Strategy<Value = Body> {
    let edges = vec![RoundEdge::Begin, RoundEdge::End, RoundEdge::Aborted];
    (0..5_u64, prop::sample::select(edges), any::<bool>()).prop_map(|(number, edge, all)| {
        let scope = if all { RoundScope::AllTasks } else { RoundScope::Pending };
        Body::Round(Round { number, edge, scope })
    })
}

fn other() -> impl Strategy<Value = Body> {
    prop_oneof![
        key().prop_map(Body::TaskGone),
        (actor(), lock(), -40..1_i32, any::<u64>()).prop_map(|(waiter, lock, result, waited)| Body::WaitEnd(WaitEnd {
            waiter,
            lock,
            result,
            waited: Nanos(waited)
        })),
        (task(), lock(), kind()).prop_map(|(task, lock, kind)| Body::Release(Release {
            task,
            lock,
            kind,
            stack: StackId(0)
        })),
        (lock(), kind(), 0..9_u64, owner()).prop_map(|(lock, kind, owner_word, owner)| Body::Lock(LockSample {
            lock,
            kind,
            owner_word,
            owner
        })),
        (lock(), kind(), mode(), actor(), evidence()).prop_map(|(lock, kind, mode, holder, evidence)| {
            Body::Holder(HolderCandidate {
                lock,
                kind,
                mode,
                holder,
                task: None,
                rank: 1,
                evidence,
            })
        }),
        (
            lock(),
            kind(),
            mode(),
            any::<u64>(),
            prop::collection::vec(any::<u64>(), 0..70)
        )
            .prop_map(|(lock, kind, mode, n, histogram)| {
                let (total, max) = (Nanos(n), Nanos(n));
                Body::Stats(LockStats {
                    lock,
                    kind,
                    mode,
                    waits: n,
                    total,
                    max,
                    histogram,
                })
            }),
        (task(), lock(), kind(), owner(), 0..3_u32).prop_map(|(task, lock, kind, owner, waiters)| {
            Body::Reinit(Reinit {
                lock,
                kind,
                task,
                stack: StackId(3),
                waiters,
                owner,
            })
        }),
        (task(), (0..9_u64).prop_map(Timestamp), 0..9_u64).prop_map(|(task, since, n)| {
            Body::TimeSpent(TimeSpent {
                task,
                since,
                running: Nanos(n),
                runnable: Nanos(n * 1_000_000),
                sleeping: Nanos(u64::MAX - n),
                io: Nanos(0),
            })
        }),
        (lock(), kind(), mode(), actor(), any::<bool>()).prop_map(|(lock, kind, mode, by, acquired)| {
            Body::Watch(Watched {
                lock,
                kind,
                mode,
                act: if acquired { Act::Acquired } else { Act::Released },
                by,
                task: None,
                cpu: CpuId(1),
                stack: StackId(3),
            })
        }),
        (0..3_u32, proptest::option::of((0..9_u64).prop_map(Timestamp))).prop_map(|(cpu, since)| {
            Body::Stall(CpuStall {
                timer: since,
                grace_period: since,
                ..CpuStall::none(CpuId(cpu))
            })
        }),
        (0..9_u64).prop_map(|n| Body::Loss(LossReport {
            by_cause: vec![(LossCause::ReadFailed, n)]
        })),
        lock().prop_map(|lock| Body::LockName(LockName {
            lock,
            name: Arc::from("n"),
            source: Arc::from("s"),
            class: None,
        })),
        Just(Body::Stack(StackFrames {
            id: StackId(3),
            frames: Arc::from([KernelAddr(1), KernelAddr(2)]),
            pieced: false,
        })),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    let body = prop_oneof![6 => wait(), 4 => sample(), 1 => dependency(), 1 => round(), 4 => other()];
    (0..3_000_u64, body).prop_map(|(ms, body)| Event {
        time: Timestamp(ms * 1_000_000),
        body,
    })
}

proptest! {
    #[test]
    fn nothing_panics_and_the_tables_stay_consistent(events in prop::collection::vec(event(), 1..200), small in any::<bool>()) {
        let settings = if small {
            // Bounds so small that everything is evicted all the time.
            Settings { max_tasks: 3, max_locks: 2, max_waits: 3, max_stacks: 1, max_orders: 1, max_findings: 1, max_closed: 1, ..Settings::default() }
        } else {
            Settings::default()
        };
        let (mut model, mut engine, mut out) = (Model::new(settings), Engine::new(), Vec::new());
        for event in &events {
            model.apply(event);
            check_invariants(&model);
        }
        for change in engine.update(&model) {
            text::change(&mut out, model.now(), &change).unwrap();
            json::change(&mut out, model.now(), &change).unwrap();
        }
        let report = Report::build(&model, &engine);
        text::report(&mut out, &report).unwrap();
        json::report(&mut out, &report).unwrap();
        prop_assert!(report.coverage.explained <= report.coverage.waiting);
        for row in &report.tasks {
            prop_assert!(row.blocked_by.is_none_or(|by| by < report.tasks.len()));
        }
    }
}
