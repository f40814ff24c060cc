//! Captures as wholes: what was written is what is read, and what happens to files happens to them here.

mod damage;
mod golden;
mod hostile;
mod parts;
mod records;
mod round;

use std::sync::Arc;

use bytes::Bytes;

use super::codec::every::Every;
use super::{Content, Health, Items, Memory, Meta, ReadError, Writer};
use crate::event::{
    Actor, Body, Event, Evidence, LockKind, LockName, Mode, Owner, Phase, Queued, StackFrames, SymbolName, TaskRef,
    WaitEnd, WaitSample,
};
use crate::ids::{CpuId, KernelAddr, LockAddr, Nanos, StackId, TaskKey, Tgid, Tid, Timestamp};

/// Small numbers that look random and are the same each time.
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        // xorshift64
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

/// One event of every kind with every value that matters.
pub fn every_event() -> Vec<Event> {
    let times = [1_000, 2_000, 1_500, u64::MAX, 0, 7_000_000_000];
    let bodies = Body::every().into_iter().enumerate();
    bodies
        .map(|(n, body)| Event {
            time: Timestamp(times[n % times.len()]),
            body,
        })
        .collect()
}

pub fn task(tid: u32) -> TaskRef {
    let key = TaskKey {
        tid: Tid(tid),
        start: Timestamp(1_000_000 * u64::from(tid)),
    };
    TaskRef {
        key,
        tgid: Tgid(tid / 4),
        comm: format!("worker/{}", tid % 16).into(),
    }
}

/// The begin and the end of a wait, as a probe tells them.
pub fn wait(tid: u32, lock: u64, since: u64, waited: u64) -> [Event; 2] {
    let waiter = Actor::Task(task(tid).key);
    let begin = WaitSample {
        waiter,
        task: Some(task(tid)),
        lock: LockAddr(lock),
        kind: LockKind::Mutex,
        mode: Mode::Exclusive,
        phase: Phase::Sleeping,
        since: Some(Timestamp(since)),
        owner_word: 0xffff_8880_0000_0000 + u64::from(tid + 1) * 0x1340,
        owner: Owner::Task(task(tid + 1)),
        queued: Queued::At(0),
        cpu: Some(CpuId(tid % 4)),
        stack: StackId(lock.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
        evidence: Evidence::Tracepoint,
    };
    let end = WaitEnd {
        waiter,
        lock: LockAddr(lock),
        result: 0,
        waited: Nanos(waited),
    };
    [
        Event {
            time: Timestamp(since),
            body: Body::Wait(begin),
        },
        Event {
            time: Timestamp(since + waited),
            body: Body::WaitEnd(end),
        },
    ]
}

/// The names that [`wait`] needs.
pub fn names(lock: u64) -> Vec<Event> {
    let stack = StackId(lock.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let frame = KernelAddr(0xffff_ffff_8100_0000 + (lock & 0xffff));
    let symbol = SymbolName {
        addr: frame,
        name: "mutex_lock".into(),
        offset: 0x12,
        module: None,
    };
    let frames: Arc<[KernelAddr]> = [frame].into();
    let name = LockName {
        lock: LockAddr(lock),
        name: format!("lock_{lock:x}").into(),
        source: "kernel symbol".into(),
        class: None,
    };
    [
        Body::Symbol(symbol),
        Body::Stack(StackFrames {
            id: stack,
            frames,
            pieced: false,
        }),
        Body::LockName(name),
    ]
    .map(|body| Event {
        time: Timestamp(1),
        body,
    })
    .into()
}

/// A stream of contention of some tasks on some locks.
pub fn contention(waits: usize) -> Vec<Event> {
    let mut rng = Rng(0x1234_5678_9abc_def1);
    let mut now = 10_000_000_000;
    let lock = |n: usize| 0xffff_8880_4400_0000 + n as u64 * 0x1c0;
    let mut events: Vec<Event> = (0..8).flat_map(|n| names(lock(n))).collect();
    for _ in 0..waits {
        now += rng.next() % 40_000;
        let waited = 300 + rng.next() % 100_000;
        events.extend(wait(100 + rng.below(16) as u32, lock(rng.below(8)), now, waited));
    }
    events
}

pub fn meta() -> Meta {
    Meta {
        tool: "0.1.0".into(),
        host: "box".into(),
        kernel: "6.1.0".into(),
        recording: "r".into(),
        ..Meta::default()
    }
}

/// A finished capture with `frame` events in each frame.
pub fn capture(events: &[Event], frame: usize) -> Bytes {
    let mut writer = Writer::new(Memory::default(), meta(), None).unwrap();
    for events in events.chunks(frame) {
        for event in events {
            match &event.body {
                Body::Record(record) => writer.record(record, &()).unwrap(),
                _ => writer.event(event, &()).unwrap(),
            }
        }
        writer.found(0, &()).unwrap();
    }
    let (memory, _) = writer.finish().unwrap();
    memory.files.into_iter().next().unwrap().freeze()
}

/// Everything that can be read: events, items known to be lost, state.
pub fn read(bytes: &[u8]) -> Result<(Vec<Event>, u64, Health), ReadError> {
    let mut items = Items::new(bytes);
    let (mut events, mut lost) = (Vec::new(), 0);
    while let Some(content) = items.next_content()? {
        match content {
            Content::Item(item) => events.push(item.event),
            Content::Lost(count) => lost += count,
            Content::Meta(_) | Content::Record(_) => {}
        }
    }
    Ok((events, lost, *items.health()))
}
