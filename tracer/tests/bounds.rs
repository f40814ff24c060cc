//! Memory bounds: churn over ever new tasks, locks and stacks keeps every table near its bound.

#![allow(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::sync::Arc;

use tracer::event::{
    Actor, Body, Event, Evidence, LockKind, LossCause, Mode, Owner, Phase, Queued, TaskRef, WaitEnd, WaitSample,
};
use tracer::ids::{LockAddr, Nanos, StackId, TaskKey, Tgid, Tid, Timestamp};
use tracer::model::{Model, Settings};

fn settings() -> Settings {
    Settings {
        max_tasks: 1_000,
        max_locks: 500,
        max_waits: 800,
        ..Settings::default()
    }
}

fn task(n: u32) -> TaskRef {
    TaskRef {
        key: TaskKey {
            tid: Tid(n),
            start: Timestamp(1),
        },
        tgid: Tgid(n),
        comm: Arc::from("t"),
    }
}

fn begin(n: u32) -> Event {
    Event {
        time: Timestamp(u64::from(n) * 1_000),
        body: Body::Wait(WaitSample {
            waiter: Actor::Task(task(n).key),
            task: Some(task(n)),
            lock: LockAddr(0x1000 + u64::from(n) * 8),
            kind: LockKind::Mutex,
            mode: Mode::Exclusive,
            phase: Phase::Sleeping,
            since: Some(Timestamp(u64::from(n) * 1_000)),
            owner_word: 8,
            owner: Owner::Task(task(n + 1_000_000)),
            queued: Queued::Unknown,
            cpu: None,
            stack: StackId(0),
            evidence: Evidence::Tracepoint,
        }),
    }
}

fn end(n: u32) -> Event {
    let end = WaitEnd {
        waiter: Actor::Task(task(n).key),
        lock: LockAddr(0x1000 + u64::from(n) * 8),
        result: 0,
        waited: Nanos(500),
    };
    Event {
        time: Timestamp(u64::from(n) * 1_000 + 500),
        body: Body::WaitEnd(end),
    }
}

#[test]
fn waits_that_end_leave_the_tables_within_their_bounds() {
    let mut model = Model::new(settings());
    for n in 1..50_000 {
        model.apply(&begin(n));
        model.apply(&end(n));
        assert!(
            model.actors().len() <= 1_000 + 2,
            "{} tasks after {n} waits",
            model.actors().len()
        );
        assert!(
            model.locks().len() <= 500 + 1,
            "{} locks after {n} waits",
            model.locks().len()
        );
    }
    assert_eq!(model.waits().len(), 0);
    assert_eq!(
        model.losses().totals().count(),
        0,
        "what has ended may be forgotten without loss"
    );
}

#[test]
fn waits_that_never_end_are_given_up_oldest_first_and_counted() {
    let mut model = Model::new(settings());
    let total = 20_000;
    for n in 1..=total {
        model.apply(&begin(n));
    }
    assert!(model.waits().len() <= 800);
    let lost: u64 = model
        .losses()
        .totals()
        .filter(|(cause, _)| *cause == LossCause::WaitTableFull)
        .map(|(_, n)| n)
        .sum();
    assert_eq!(
        lost + model.waits().len() as u64,
        u64::from(total),
        "each wait is either there or counted as lost"
    );
    let oldest = model
        .waits()
        .iter()
        .filter_map(|(_, w)| w.since)
        .min()
        .expect("some wait is left");
    assert!(
        oldest > Timestamp(u64::from(total - 900) * 1_000),
        "the oldest go first"
    );
    assert!(
        model.actors().len() <= 2_000 && model.locks().len() <= 1_000,
        "waits in use may exceed the other bounds a little"
    );
}
