//! Throughput of the decoder and the model, and the cost of a diagnosis of a large hang.
//!
//! `cargo bench -p tracer --bench model`. `items/s` of the `apply` and `decode` groups is events per second on one core; the
//! `update` and `report` groups show the time of one full look at so many waiting tasks. Memory is printed once before the timings.

use std::sync::Arc;

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use tracer::diagnosis::Engine;
use tracer::event::{
    Actor, Body, Event, Evidence, LockKind, Mode, Owner, Phase, Queued, Round, RoundEdge, RoundScope, TaskRef,
    TaskSample, TaskState, WaitEnd, WaitSample,
};
use tracer::ids::{CgroupId, LockAddr, Nanos, StackId, TaskKey, Tgid, Tid, Timestamp};
use tracer::model::{Model, Settings};
use tracer::report::Report;
use tracer::wire::Decoder;
use tracer_common::kind::{lock_kind, mode, phase, queue, record_kind, seen_by, task_field};
use tracer_common::record::{Header, TaskRecord, WaitRecord};
use zerocopy::IntoBytes;

const SECOND: u64 = 1_000_000_000;

fn main() {
    memory();
    divan::main();
}

/// Resident memory of this process in KiB, 0 where it cannot be read.
fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    line.and_then(|l| l.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

/// What the model and the diagnosis of a large hang, and one that endures churn, keep in memory.
fn memory() {
    let events = hang(100_000, 1_000);
    let before = resident_kib();
    let model = modelled(&events);
    let mut engine = Engine::new();
    engine.update(&model);
    println!(
        "memory: {} KiB for 100000 waiting tasks on 1000 locks",
        resident_kib().saturating_sub(before)
    );
    drop((events, model, engine));
    let mut model = Model::new(Settings::default());
    let before = resident_kib();
    for turn in 1..=10_u64 {
        churn(turn * 3_000_000, turn * 1_000_000, 1_000_000)
            .iter()
            .for_each(|e| model.apply(e));
        println!(
            "memory: {} KiB after {} million events over ever new tasks and locks",
            resident_kib().saturating_sub(before),
            turn
        );
    }
}

fn task(n: u32) -> TaskRef {
    TaskRef {
        key: TaskKey {
            tid: Tid(n + 1),
            start: Timestamp(5),
        },
        tgid: Tgid(n + 1),
        comm: Arc::from("worker"),
    }
}

fn wait(time: u64, waiter: u32, lock: u64, owner: &TaskRef, evidence: Evidence) -> Event {
    let task = task(waiter);
    let begin = evidence == Evidence::Tracepoint;
    Event {
        time: Timestamp(time),
        body: Body::Wait(WaitSample {
            waiter: Actor::Task(task.key),
            task: Some(task),
            lock: LockAddr(0xffff_8880_0000_0000 + lock * 64),
            kind: LockKind::Mutex,
            mode: Mode::Exclusive,
            phase: Phase::Sleeping,
            since: Some(Timestamp(if begin { time } else { 10 * SECOND })),
            owner_word: 0x1000 + u64::from(owner.key.tid.0),
            owner: Owner::Task(owner.clone()),
            queued: if begin { Queued::Unknown } else { Queued::At(0) },
            cpu: None,
            stack: StackId(0),
            evidence,
        }),
    }
}

fn end(time: u64, waiter: u32, lock: u64) -> Event {
    Event {
        time: Timestamp(time),
        body: Body::WaitEnd(WaitEnd {
            waiter: Actor::Task(task(waiter).key),
            lock: LockAddr(0xffff_8880_0000_0000 + lock * 64),
            result: 0,
            waited: Nanos(20_000),
        }),
    }
}

fn asleep(time: u64, who: u32) -> Event {
    let sample = TaskSample {
        switches: Some(7),
        cgroup: CgroupId(u64::from(who % 50) + 1),
        ..TaskSample::of(task(who), TaskState::Uninterruptible)
    };
    Event {
        time: Timestamp(time),
        body: Body::Task(sample),
    }
}

/// A cheap pseudo-random sequence; the same in every run.
fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// Begins and ends of waits of `tasks` tasks on `locks` locks, every wait by itself.
fn churn(tasks: u64, locks: u64, events: usize) -> Vec<Event> {
    let mut seed = 0x9e37_79b9_7f4a_7c15;
    let mut stream = Vec::with_capacity(events);
    let owner = task(4_000_000);
    for i in 0..events as u64 / 2 {
        let (waiter, lock) = ((random(&mut seed) % tasks) as u32, random(&mut seed) % locks);
        let time = 10 * SECOND + i * 1_000;
        stream.push(wait(time, waiter, lock, &owner, Evidence::Tracepoint));
        stream.push(end(time + 500, waiter, lock));
    }
    stream
}

/// Two complete rounds over `waiting` tasks that wait for `locks` locks. Each lock is owned by a task that waits for the next
/// lock, in chains of ten; every hundredth chain is closed to a cycle.
fn hang(waiting: u32, locks: u32) -> Vec<Event> {
    let mut stream = Vec::new();
    for (number, time) in [(1, 20 * SECOND), (2, 21 * SECOND)] {
        let marker = |edge| Event {
            time: Timestamp(time),
            body: Body::Round(Round {
                number,
                edge,
                scope: RoundScope::Pending,
            }),
        };
        stream.push(marker(RoundEdge::Begin));
        let owner = |lock: u32| task(1_000_000 + lock);
        for lock in 0..locks {
            let (chain, place) = (lock / 10, lock % 10);
            let next = if place < 9 {
                Some(lock + 1)
            } else {
                (chain % 100 == 0).then_some(chain * 10)
            };
            stream.push(asleep(time, 1_000_000 + lock));
            if let Some(next) = next.filter(|&n| n < locks) {
                stream.push(wait(
                    time,
                    1_000_000 + lock,
                    u64::from(next),
                    &owner(next),
                    Evidence::Reread,
                ));
            }
        }
        for waiter in 0..waiting {
            let lock = waiter % locks;
            stream.push(asleep(time, waiter));
            stream.push(wait(time, waiter, u64::from(lock), &owner(lock), Evidence::Reread));
        }
        stream.push(marker(RoundEdge::End));
    }
    stream
}

fn modelled(events: &[Event]) -> Model {
    let mut model = Model::new(Settings::default());
    events.iter().for_each(|e| model.apply(e));
    model
}

/// Begin and end of waits: few tasks and locks, many, and so many that the bounds are in force.
#[divan::bench(args = [(64, 16), (10_000, 1_000), (3_000_000, 1_000_000)])]
fn apply_churn(bencher: Bencher<'_, '_>, (tasks, locks): (u64, u64)) {
    let events = churn(tasks, locks, 400_000);
    bencher
        .counter(ItemsCount::new(events.len()))
        .with_inputs(|| Model::new(Settings::default()))
        .bench_local_refs(|model| events.iter().for_each(|e| model.apply(black_box(e))));
}

/// Records of waits that ended, as they stand in the ring buffer, `frames` deep: each is a begin and an end. Four stacks a lock.
fn records(tasks: u64, locks: u64, events: usize, frames: usize) -> Vec<u8> {
    let mut seed = 0x9e37_79b9_7f4a_7c15;
    let mut bytes = Vec::new();
    for i in 0..events as u64 / 2 {
        let (waiter, lock) = ((random(&mut seed) % tasks) as u32, random(&mut seed) % locks);
        let (since, path) = (10 * SECOND + i * 1_000, random(&mut seed) % 4);
        let record = WaitRecord {
            header: Header {
                kind: record_kind::WAIT_END,
                size: (size_of::<WaitRecord>() + frames * 8) as u16,
                cpu: 0,
                time: since + 500,
            },
            lock: 0xffff_8880_0000_0000 + lock * 64,
            since,
            owner_word: 0xffff_8881_0000_0000,
            count_word: 0,
            waiter: task_record(waiter),
            owner: task_record(4_000_000),
            result: 0,
            queue: queue::UNKNOWN,
            flags: 32,
            kind: lock_kind::MUTEX,
            mode: mode::EXCLUSIVE,
            phase: phase::SLEEPING,
            seen_by: seen_by::TRACEPOINT,
            stack_len: frames as u32,
            pad: 0,
        };
        bytes.extend_from_slice(record.as_bytes());
        for frame in 0..frames as u64 {
            let word = 0xffff_ffff_8100_0000 + lock * 0x1000 + path * 0x100 + frame * 8;
            bytes.extend_from_slice(&word.to_ne_bytes());
        }
    }
    bytes
}

fn task_record(n: u32) -> TaskRecord {
    TaskRecord {
        task: 0xffff_8881_0000_0000 + u64::from(n) * 0x2000,
        start: 5,
        switches: 7,
        cgroup: 3,
        tid: n + 1,
        tgid: n + 1,
        comm: *b"worker\0\0\0\0\0\0\0\0\0\0",
        state: 2,
        pf_flags: 0,
        cpu: 1,
        on_cpu: 0,
        in_iowait: 0,
        fields: !task_field::UNREADABLE,
    }
}

/// From the bytes of the ring buffer into the model: `frames` return addresses with each record.
#[divan::bench(args = [(64, 16, 0), (64, 16, 12), (10_000, 1_000, 0), (10_000, 1_000, 12)])]
fn decode_and_apply(bencher: Bencher<'_, '_>, (tasks, locks, frames): (u64, u64, usize)) {
    const EVENTS: usize = 400_000;
    let bytes = records(tasks, locks, EVENTS, frames);
    bencher
        .counter(ItemsCount::new(EVENTS))
        .with_inputs(|| (Decoder::default(), Model::new(Settings::default()), Vec::new()))
        .bench_local_refs(|(decoder, model, events)| {
            let mut rest = black_box(bytes.as_slice());
            while !rest.is_empty() {
                let taken = decoder.decode(rest, events).unwrap_or(rest.len());
                events.drain(..).for_each(|event| model.apply(&event));
                rest = rest.get(taken..).unwrap_or_default();
            }
            // An error would have ended it early.
            assert!(model.events() >= EVENTS as u64);
        });
}

/// Re-reads of many waiting tasks in rounds.
#[divan::bench(args = [1_000, 100_000])]
fn apply_rounds(bencher: Bencher<'_, '_>, waiting: u32) {
    let events = hang(waiting, 1_000);
    bencher
        .counter(ItemsCount::new(events.len()))
        .with_inputs(|| Model::new(Settings::default()))
        .bench_local_refs(|model| events.iter().for_each(|e| model.apply(black_box(e))));
}

/// A full diagnosis.
#[divan::bench(args = [1_000, 10_000, 100_000])]
fn update(bencher: Bencher<'_, '_>, waiting: u32) {
    let model = modelled(&hang(waiting, 1_000));
    bencher
        .with_inputs(Engine::new)
        .bench_local_refs(|engine| engine.update(black_box(&model)));
}

/// The second diagnosis of an unchanged model.
#[divan::bench(args = [1_000, 10_000, 100_000])]
fn update_again(bencher: Bencher<'_, '_>, waiting: u32) {
    let model = modelled(&hang(waiting, 1_000));
    let mut engine = Engine::new();
    engine.update(&model);
    bencher.bench_local(|| engine.update(black_box(&model)));
}

/// A report, as the outputs get it.
#[divan::bench(args = [1_000, 10_000, 100_000])]
fn report(bencher: Bencher<'_, '_>, waiting: u32) {
    let model = modelled(&hang(waiting, 1_000));
    let mut engine = Engine::new();
    engine.update(&model);
    bencher.bench_local(|| Report::build(black_box(&model), &engine));
}
