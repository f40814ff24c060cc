use std::collections::BTreeMap;

use super::*;
use crate::event::{Evidence, Mode, Phase, Queued, Release};
use crate::ids::{CpuId, Nanos, StackId, Tgid, Tid};
use crate::model::Settings;

fn task(tid: u32) -> TaskRef {
    let key = TaskKey {
        tid: Tid(tid),
        start: Timestamp(1),
    };
    TaskRef {
        key,
        tgid: Tgid(10),
        comm: format!("t{tid}").into(),
    }
}

fn wait(time: u64, tid: u32, since: u64, owner: Option<u32>) -> Event {
    let wait = WaitSample {
        waiter: Actor::Task(task(tid).key),
        task: Some(task(tid)),
        lock: LockAddr(0x1000),
        kind: LockKind::Mutex,
        mode: Mode::Exclusive,
        phase: Phase::Sleeping,
        since: Some(Timestamp(since)),
        owner_word: 0,
        owner: owner.map_or(Owner::Nobody, |owner| Owner::Task(task(owner))),
        queued: Queued::Unknown,
        cpu: Some(CpuId(0)),
        stack: StackId(0),
        evidence: Evidence::Tracepoint,
    };
    Event {
        time: Timestamp(time),
        body: Body::Wait(wait),
    }
}

fn end(time: u64, tid: u32, waited: u64) -> Event {
    let end = WaitEnd {
        waiter: Actor::Task(task(tid).key),
        lock: LockAddr(0x1000),
        result: 0,
        waited: Nanos(waited),
    };
    Event {
        time: Timestamp(time),
        body: Body::WaitEnd(end),
    }
}

fn release(time: u64, tid: u32) -> Event {
    let release = Release {
        task: task(tid),
        lock: LockAddr(0x1000),
        kind: LockKind::Mutex,
        stack: StackId(0),
    };
    Event {
        time: Timestamp(time),
        body: Body::Release(release),
    }
}

/// A trace as a reader sees it: slices and instants by the name of their track.
#[derive(Debug, Default, PartialEq)]
struct Seen {
    slices: Vec<(String, String, u64, u64)>,
    instants: Vec<(String, String, u64)>,
    /// Where an arrow starts and where it ends: track and time.
    arrows: Vec<((String, u64), (String, u64))>,
}

fn seen(events: &[Event]) -> Seen {
    let mut model = Model::new(Settings::default());
    let mut bytes = Vec::new();
    let mut trace = Perfetto::new(&mut bytes, &Meta::default()).unwrap();
    for event in events {
        model.apply(event);
        trace.event(event, &[], &model).unwrap();
    }
    trace.finish(&model).unwrap();
    read(&bytes)
}

fn read(bytes: &[u8]) -> Seen {
    let trace = proto::Trace::decode(bytes).unwrap();
    let mut names = BTreeMap::new();
    let mut packets = Vec::new();
    assert_eq!(trace.packet[0].sequence_flags, Some(1));
    for packet in trace.packet {
        assert_eq!(packet.trusted_packet_sequence_id, Some(1));
        if let Some(track) = &packet.track_descriptor {
            let parent = track.parent_uuid.unwrap_or(0);
            assert!(
                parent == 0 || names.contains_key(&parent),
                "a track comes before its parent"
            );
            let thread = track.thread.as_ref().and_then(|thread| thread.thread_name.clone());
            let name = thread.or_else(|| track.name.clone()).unwrap_or_default();
            assert_eq!(names.insert(track.uuid.unwrap(), name), None, "described twice");
        }
        if let Some(event) = packet.track_event {
            assert!(
                names.contains_key(&event.track_uuid.unwrap()),
                "used before it is described"
            );
            packets.push((packet.timestamp.unwrap(), event));
        }
    }
    // As Perfetto sorts: by time, else in the order of the file.
    packets.sort_by_key(|(time, _)| *time);
    let (mut seen, mut open) = (Seen::default(), BTreeMap::<u64, Vec<(String, u64)>>::new());
    let (mut starts, mut ends) = (BTreeMap::new(), BTreeMap::new());
    for (time, event) in packets {
        let uuid = event.track_uuid.unwrap();
        let track = names[&uuid].clone();
        starts.extend(event.flow_ids.iter().map(|&flow| (flow, (track.clone(), time))));
        ends.extend(
            event
                .terminating_flow_ids
                .iter()
                .map(|&flow| (flow, (track.clone(), time))),
        );
        match Type::try_from(event.r#type.unwrap()).unwrap() {
            Type::SliceBegin => open.entry(uuid).or_default().push((event.name.unwrap(), time)),
            Type::SliceEnd => {
                let (name, from) = open.get_mut(&uuid).and_then(Vec::pop).expect("an end without a begin");
                seen.slices.push((track, name, from, time));
            }
            Type::Instant => seen.instants.push((track, event.name.unwrap(), time)),
            Type::Unspecified => panic!("an event without a type"),
        }
    }
    assert!(open.values().all(Vec::is_empty), "a slice that does not end");
    seen.arrows = ends
        .into_iter()
        .map(|(flow, end)| (starts.remove(&flow).expect("an arrow from nowhere"), end))
        .collect();
    seen
}

fn row(track: &str, name: &str, from: u64, to: u64) -> (String, String, u64, u64) {
    (track.to_owned(), name.to_owned(), from, to)
}

const LOCK: &str = "mutex 0x0000000000001000";

#[test]
fn a_wait_is_a_slice_of_its_thread_and_the_owner_one_of_the_lock() {
    let seen = seen(&[wait(100, 1, 100, Some(2)), wait(150, 1, 100, Some(2)), end(180, 1, 80)]);
    assert_eq!(seen.slices, [row(LOCK, "t2 (2)", 100, 180), row("t1", LOCK, 100, 180)]);
    assert_eq!(
        seen.arrows,
        [((LOCK.into(), 100), ("t1".into(), 180))],
        "from the holder to whoever got it"
    );
}

#[test]
fn a_release_that_was_seen_is_where_the_arrow_starts() {
    let seen = seen(&[wait(100, 1, 100, Some(2)), release(170, 2), end(180, 1, 80)]);
    assert_eq!(seen.slices, [row(LOCK, "t2 (2)", 100, 170), row("t1", LOCK, 100, 180)]);
    assert_eq!(seen.arrows, [(("t2".into(), 170), ("t1".into(), 180))]);
}

#[test]
fn nothing_is_drawn_where_nobody_looked() {
    // Task 1 gets the lock at 180; at 500 another task is seen to own it. When 1 let it go nobody knows.
    let events = [
        wait(100, 1, 100, Some(2)),
        end(180, 1, 80),
        wait(500, 3, 500, Some(4)),
        wait(600, 3, 500, Some(4)),
    ];
    let seen = seen(&events);
    let holders: Vec<_> = seen
        .slices
        .iter()
        .filter(|(track, ..)| track == LOCK)
        .cloned()
        .collect();
    assert_eq!(holders, [row(LOCK, "t2 (2)", 100, 180), row(LOCK, "t4 (4)", 500, 600)]);
    assert!(seen.slices.contains(&row("t3", &format!("{LOCK}, not over"), 500, 600)));
}

#[test]
fn looks_that_come_late_do_not_make_spans_overlap() {
    // Ends come with the owner of the begin: the second wait is told after the first, but began before.
    let events = [
        wait(200, 1, 200, Some(2)),
        end(300, 1, 100),
        wait(100, 3, 100, Some(5)),
        end(400, 3, 300),
        wait(350, 6, 350, Some(1)),
        end(450, 6, 100),
    ];
    let seen = seen(&events);
    let mut holders: Vec<_> = seen.slices.iter().filter(|(track, ..)| track == LOCK).collect();
    holders.sort_by_key(|(_, _, from, _)| *from);
    assert!(holders.windows(2).all(|pair| pair[0].3 <= pair[1].2), "{holders:?}");
}
