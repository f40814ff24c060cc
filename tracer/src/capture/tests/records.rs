//! Records of the kernel: they come out as they went in, and decoded they are what was seen live.

use tracer_common::kind::{lock_kind, object, phase, record_kind, seen_by, task_field};
use tracer_common::record::{
    Header, MAX_FRAMES, ReinitRecord, ReleaseRecord, TaskRecord, TaskSampleRecord, WaitRecord,
};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes};

use super::super::codec::{CodecError, Decoder, Encoder, Item, Piece};
use super::super::{Known as _, Overview, VERSION};
use super::*;
use crate::event::{Activity, CgroupName, Doing, RawRecord, TaskSample};
use crate::ids::CgroupId;
use crate::model::{Model, Settings};
use crate::source::live::records::Records;
use crate::wire::Again;

const START: u64 = 10_000_000_000;
/// In no record.
const STRANGE: LockAddr = LockAddr(0x1000);

fn thread(tid: u32, rng: &mut Rng, filled: bool) -> TaskRecord {
    let mut comm = [0; 16];
    comm[..3].copy_from_slice(&[b'w', b'0' + (tid % 10) as u8, 0]);
    // The kernel pads with zeros; if it did not, the bytes must come back.
    comm[15] = (tid % 3) as u8;
    let state = TaskRecord {
        switches: rng.next() % 4,
        cgroup: 3,
        state: [0, 1, 2, 0x402][rng.below(4)],
        pf_flags: 0x0040_0040,
        cpu: rng.below(4) as u32,
        on_cpu: rng.below(2) as u8,
        in_iowait: rng.below(2) as u8,
        fields: 0x7f,
        ..TaskRecord::new_zeroed()
    };
    TaskRecord {
        task: 0xffff_8880_0000_0000 + u64::from(tid) * 0x1340,
        start: u64::from(tid) * 1_000_000,
        tid,
        tgid: tid / 4,
        comm,
        fields: if filled {
            0x7f
        } else {
            task_field::IDENTITY | task_field::START
        },
        ..if filled { state } else { TaskRecord::new_zeroed() }
    }
}

/// With a stack, in a room for more frames where the ring buffer has one.
fn bytes<T: IntoBytes + Immutable>(mut record: T, frames: u64, room: bool, set: impl Fn(&mut T, u16, u32)) -> Vec<u8> {
    let places = if room { MAX_FRAMES } else { frames as usize };
    set(&mut record, (size_of::<T>() + places * 8) as u16, frames as u32);
    let mut bytes = record.as_bytes().to_vec();
    let stack = (0..places as u64).map(|n| {
        if n < frames {
            0xffff_ffff_8100_0000 + n * 0x123 * frames
        } else {
            0
        }
    });
    bytes.extend(stack.flat_map(u64::to_ne_bytes));
    bytes
}

/// A record as the programs write them, one after the other.
fn record(rng: &mut Rng, now: &mut u64) -> Vec<u8> {
    *now += rng.next() % 40_000;
    let kind = [1, 2, 2, 2, 2, 3, 3, 4, 5, 7][rng.below(10)];
    let pending = kind == record_kind::WAIT_PENDING;
    let header = Header {
        kind,
        size: 0,
        cpu: rng.below(4) as u32,
        time: *now,
    };
    let (frames, room) = (
        [0, 0, 3, 5, MAX_FRAMES as u64][rng.below(5)],
        !pending && kind != record_kind::TASK,
    );
    let lock = 0xffff_8880_4400_0000 + rng.below(6) as u64 * 0x1c0;
    let tid = 100 + rng.below(12) as u32;
    let owner = thread(300, rng, pending);
    match kind {
        record_kind::TASK => {
            let record = TaskSampleRecord {
                header,
                task: thread(tid, rng, true),
                stack_len: 0,
                pad: 0,
            };
            bytes(record, frames, room, |r, size, frames| {
                (r.header.size, r.stack_len) = (size, frames)
            })
        }
        record_kind::RELEASE => {
            let record = ReleaseRecord {
                header,
                lock,
                task: thread(tid, rng, false),
                kind: lock_kind::MUTEX,
                pad: [0; 3],
                stack_len: 0,
            };
            bytes(record, frames, room, |r, size, frames| {
                (r.header.size, r.stack_len) = (size, frames)
            })
        }
        record_kind::REINIT => {
            let record = ReinitRecord {
                header,
                lock: lock + 8 * rng.below(2) as u64,
                owner_word: owner.task,
                count_word: 0,
                task: thread(tid, rng, false),
                owner,
                waiter: thread(tid + 1, rng, true),
                waiters: 2,
                stack_len: 0,
                kind: [lock_kind::MUTEX, lock_kind::PERCPU_RWSEM][rng.below(2)],
                object: [object::LOCK, object::COMPLETION, object::WAIT_QUEUE][rng.below(3)],
                pad: [0; 6],
            };
            bytes(record, frames, room, |r, size, frames| {
                (r.header.size, r.stack_len) = (size, frames)
            })
        }
        _ => {
            let record = WaitRecord {
                header,
                lock,
                since: *now - rng.next() % 100_000,
                owner_word: owner.task | 1,
                count_word: 0,
                waiter: thread(tid, rng, pending),
                owner,
                result: -(rng.below(2) as i32),
                queue: [u32::MAX, 0, 2, u32::MAX - 1][rng.below(4)],
                flags: 32,
                kind: [lock_kind::MUTEX, lock_kind::RWSEM][rng.below(2)],
                mode: rng.below(2) as u8,
                phase: [phase::SPINNING, phase::SLEEPING][rng.below(2)],
                seen_by: seen_by::TRACEPOINT,
                stack_len: 0,
                pad: 0,
            };
            bytes(record, frames, room, |r, size, frames| {
                (r.header.size, r.stack_len) = (size, frames)
            })
        }
    }
}

/// What a live run gives: records and their events, and what user space makes of these.
pub fn stream(records: usize) -> Vec<Event> {
    let (mut rng, mut now) = (Rng(0x5eed), START);
    let mut decoder = Records::new(true);
    let mut events = Vec::new();
    for _ in 0..records {
        decoder.decode(&record(&mut rng, &mut now), &mut events).unwrap();
    }
    events
}

/// The same after a live run has worked on it: waits left out, threads told more of, names on the way, markers without events.
fn worked_on(events: Vec<Event>, rng: &mut Rng) -> Vec<Event> {
    let mut out = Vec::new();
    for mut event in events {
        let time = event.time;
        if rng.below(5) > 0 {
            out.push(event);
            continue;
        }
        match &mut event.body {
            Body::Task(TaskSample { work, task, .. }) => {
                let task = task.key;
                if rng.below(2) == 0 {
                    *work = Some(KernelAddr(0xffff_ffff_8100_4000));
                }
                let cgroup = CgroupName {
                    cgroup: CgroupId(3),
                    path: "/system.slice".into(),
                };
                let doing = Doing {
                    task,
                    activity: Activity::Exception,
                };
                out.push(Event {
                    time,
                    body: Body::CgroupName(cgroup),
                });
                out.push(event);
                out.push(Event {
                    time,
                    body: Body::Doing(doing),
                });
            }
            Body::Wait(_) | Body::WaitEnd(_) | Body::Release(_) => {}
            _ => out.extend([event, wait(7, STRANGE.0, time.0, 5)[0].clone()]),
        }
    }
    out
}

/// Everything that can be read: events and records.
fn read_all(bytes: &[u8]) -> (Vec<Event>, Vec<Bytes>) {
    let mut items = Items::new(bytes).with_records();
    let (mut events, mut records) = (Vec::new(), Vec::new());
    while let Some(content) = items.next_content().unwrap() {
        match content {
            Content::Item(Item { event, carried: false }) => events.push(event),
            Content::Record(record) => records.push(record),
            Content::Lost(count) => panic!("{count} lost"),
            Content::Item(_) | Content::Meta(_) => {}
        }
    }
    assert!(items.health().is_sound());
    (events, records)
}

/// A record without room that holds nothing, as a capture gives it back.
fn trimmed(record: &[u8]) -> Vec<u8> {
    let (header, _) = Header::read_from_prefix(record).unwrap();
    let fixed = match header.kind {
        record_kind::TASK => size_of::<TaskSampleRecord>(),
        record_kind::RELEASE => size_of::<ReleaseRecord>(),
        record_kind::REINIT => size_of::<ReinitRecord>(),
        _ => size_of::<WaitRecord>(),
    };
    let frames = match header.kind {
        record_kind::TASK => TaskSampleRecord::read_from_prefix(record).unwrap().0.stack_len,
        record_kind::RELEASE => ReleaseRecord::read_from_prefix(record).unwrap().0.stack_len,
        record_kind::REINIT => ReinitRecord::read_from_prefix(record).unwrap().0.stack_len,
        _ => WaitRecord::read_from_prefix(record).unwrap().0.stack_len,
    };
    let mut trimmed = record[..fixed + frames as usize * 8].to_vec();
    let size = trimmed.len() as u16;
    trimmed[2..4].copy_from_slice(&size.to_ne_bytes());
    trimmed
}

fn records_in(events: &[Event]) -> Vec<&Bytes> {
    events
        .iter()
        .filter_map(|event| match &event.body {
            Body::Record(RawRecord(bytes)) => Some(bytes),
            _ => None,
        })
        .collect()
}

pub fn without_records(events: &[Event]) -> Vec<Event> {
    let event = |event: &&Event| !matches!(event.body, Body::Record(_));
    events.iter().filter(event).cloned().collect()
}

#[test]
fn any_bytes_of_a_record_come_back() {
    let sizes = [
        (1, size_of::<WaitRecord>()),
        (4, size_of::<TaskSampleRecord>()),
        (5, size_of::<ReleaseRecord>()),
        (7, size_of::<ReinitRecord>()),
    ];
    let frames_at = [
        std::mem::offset_of!(WaitRecord, stack_len),
        std::mem::offset_of!(TaskSampleRecord, stack_len),
        std::mem::offset_of!(ReleaseRecord, stack_len),
        std::mem::offset_of!(ReinitRecord, stack_len),
    ];
    let mut rng = Rng(0xbeef);
    for _ in 0..2_000 {
        let mut encoder = Encoder::default();
        let mut written = Vec::new();
        for _ in 0..8 {
            let which = rng.below(sizes.len());
            let (kind, size) = sizes[which];
            let frames = rng.below(MAX_FRAMES + 1);
            let total = size + frames * 8;
            let mut record: Vec<u8> = (0..total)
                .map(|_| if rng.below(3) == 0 { rng.next() as u8 } else { 0 })
                .collect();
            record[..2].copy_from_slice(&(kind as u16).to_ne_bytes());
            record[2..4].copy_from_slice(&(total as u16).to_ne_bytes());
            record[frames_at[which]..][..4].copy_from_slice(&(frames as u32).to_ne_bytes());
            assert!(encoder.record(&record, rng.below(2) == 0, false));
            written.push(record);
        }
        let mut decoder = Decoder::new(encoder.take().into(), VERSION);
        let mut read = Vec::new();
        loop {
            match decoder.next_piece() {
                Ok(Some(Piece::Record)) => read.push(decoder.record().to_vec()),
                Ok(Some(Piece::Item(_))) | Err(CodecError::Refused(_)) => {}
                Ok(None) => break,
                Err(error) => panic!("{error}"),
            }
        }
        assert!(read == written);
    }
}

#[test]
fn a_capture_gives_back_the_records_and_the_events_that_were_seen() {
    let events = stream(600);
    let live = without_records(&events);
    let records: Vec<Vec<u8>> = records_in(&events).into_iter().map(|record| trimmed(record)).collect();
    assert!(
        records.len() > 550 && live.len() > records.len(),
        "{} and {}",
        records.len(),
        live.len()
    );
    for frame in [1, 3, 50, events.len()] {
        let bytes = capture(&events, frame);
        let (read, raw) = read_all(&bytes);
        assert!(read == live, "frames of {frame}");
        assert!(raw == records, "frames of {frame}");
    }
}

#[test]
fn what_user_space_made_of_the_events_is_what_comes_back() {
    for seed in 1..200 {
        let mut rng = Rng(seed);
        let (mut decoder, mut events, mut now) = (Records::new(true), Vec::new(), START);
        for _ in 0..60 {
            decoder.decode(&record(&mut rng, &mut now), &mut events).unwrap();
        }
        let events = worked_on(events, &mut rng);
        let bytes = capture(&events, 1 + rng.below(40));
        let (read, raw) = read_all(&bytes);
        assert!(read == without_records(&events), "seed {seed}");
        let told: Vec<Vec<u8>> = told(&events).into_iter().map(|record| trimmed(record)).collect();
        assert!(
            raw == told && told.len() > 30,
            "seed {seed}: {} of {}",
            raw.len(),
            told.len()
        );
    }
}

/// The records of which anything but the stack came as decoded: the others are not stored.
fn told(events: &[Event]) -> Vec<&Bytes> {
    let mut told = Vec::new();
    for (at, event) in events.iter().enumerate() {
        let Body::Record(RawRecord(bytes)) = &event.body else {
            continue;
        };
        let mut decoded = Vec::new();
        Again::default().decode(bytes, true, &mut decoded).unwrap();
        let came = events[at + 1..]
            .iter()
            // What has nothing to do with it ends it.
            .take_while(|event| match &event.body {
                Body::Record(_) => false,
                Body::Wait(wait) => wait.lock != STRANGE,
                _ => true,
            })
            .any(|event| !matches!(event.body, Body::Stack(_)) && decoded.contains(event));
        told.extend(came.then_some(bytes));
    }
    told
}

#[test]
fn the_index_counts_events_and_times_of_records() {
    use std::io::Write as _;
    let events = stream(300);
    let live = without_records(&events);
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&capture(&events, 40)).unwrap();
    let overview = Overview::of(file.path()).unwrap();
    assert_eq!(overview.items(), live.len() as u64);
    let times = || live.iter().map(|event| event.time);
    assert_eq!(overview.span(), times().min().zip(times().max()));
}

#[test]
fn with_rotation_every_file_stands_alone_and_together_they_are_the_whole() {
    let events = stream(3_000);
    let mut writer = Writer::new(Memory::default(), meta(), Some(8_192)).unwrap();
    let mut model = Model::new(Settings::default());
    for (n, event) in events.iter().enumerate() {
        if let Body::Record(record) = &event.body {
            writer.record(record, &model).unwrap();
            continue;
        }
        model.apply(event);
        writer.event(event, &model).unwrap();
        if n % 50 == 49 {
            writer.found(0, &model).unwrap();
        }
    }
    let files = writer.finish().unwrap().0.files;
    assert!(files.len() > 4, "{}", files.len());
    let (mut all, mut raw) = (Vec::new(), Vec::new());
    for (part, file) in files.iter().enumerate() {
        let (fresh, records) = read_all(file);
        let mut alone = Model::new(Settings::default());
        let mut items = Items::new(file.as_ref());
        while let Some(content) = items.next_content().unwrap() {
            let Content::Item(item) = content else { continue };
            alone.apply(&item.event);
            if let Body::Wait(wait) = &item.event.body {
                assert!(
                    wait.stack == StackId(0) || alone.stack(wait.stack).is_some(),
                    "file {part} lacks a stack"
                );
            }
        }
        all.extend(fresh);
        raw.extend(records);
    }
    assert!(all == without_records(&events));
    assert_eq!(raw.len(), records_in(&events).len());
}

#[test]
fn a_record_that_cannot_be_decoded_costs_itself_and_is_counted() {
    let events = stream(3);
    let mut bad = records_in(&stream(40))
        .into_iter()
        .find(|record| record[0] == 2)
        .unwrap()
        .to_vec();
    bad[std::mem::offset_of!(WaitRecord, phase)] = 77;
    let mut encoder = Encoder::default();
    let [before, after] = wait(5, 0x1000, START, 9);
    encoder.event(&before, false);
    assert!(encoder.record(&bad, true, false));
    encoder.event(&after, false);
    let mut head = super::super::frame::Head::new(super::super::frame::Kind::Items, 1);
    head.items = 3;
    let bytes = [capture(&events, 9), head.seal(&encoder.take()).unwrap()].concat();
    let (read, lost, health) = read(&bytes).unwrap();
    assert!(read.ends_with(&[before, after]));
    assert_eq!((lost, health.refused, health.is_sound()), (1, 1, false));
    assert!(health.to_string().contains("1 records of the kernel"), "{health}");
}

#[test]
fn older_versions_have_no_records() {
    let mut encoder = Encoder::default();
    assert!(encoder.record(records_in(&stream(1))[0], true, false));
    assert!(Decoder::new(encoder.take().into(), VERSION - 1).next_item().is_err());
}

#[test]
fn records_take_few_bytes() {
    let events = stream(20_000);
    let live = without_records(&events);
    let per_event = |events: &[Event]| capture(events, events.len()).len() as f64 / live.len() as f64;
    let (raw, plain) = (per_event(&events), per_event(&live));
    assert!(raw < plain * 1.5, "{raw} bytes per event with records, {plain} without");
}
