//! What a capture costs: events per second written and read on one core, and bytes per event.
//!
//! `cargo bench -p tracer --bench capture`. The events are those of the checked-in captures, over and over; `records` has most of
//! its events as records of the kernel.

use std::path::Path;

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use tracer::capture::{Content, Items, Memory, Meta, Writer};
use tracer::event::{Body, Event, RawRecord};
use tracer::ids::Timestamp;

/// Events and records per recording.
const EVENTS: usize = 100_000;

fn main() {
    for name in NAMES {
        let events = events(name);
        let bytes = recorded(&events);
        println!(
            "{name}: {:.1} bytes per event",
            bytes.len() as f64 / count(&events) as f64
        );
    }
    divan::main();
}

const NAMES: [&str; 3] = ["mutex-abba-6.1", "contend-rwsem-6.1", "contend-rwsem-records-6.12"];

/// The events of a capture, repeated, with later times where no record says the time. Records come along.
fn events(name: &str) -> Vec<Event> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/captures")
        .join(format!("{name}.holdup"));
    let bytes = std::fs::read(path).unwrap_or_default();
    let mut items = Items::new(bytes.as_slice()).with_records();
    let mut events = Vec::new();
    while let Ok(Some(content)) = items.next_content() {
        match content {
            Content::Item(item) => events.push(item.event),
            Content::Record(record) => events.push(Event {
                time: Timestamp(0),
                body: Body::Record(RawRecord(record)),
            }),
            Content::Meta(_) | Content::Lost(_) => {}
        }
    }
    let records = events.iter().any(is_record);
    let length = events.iter().map(|event| event.time.0).max().unwrap_or(0) - events.first().map_or(0, |e| e.time.0);
    let one = events.len();
    (0..EVENTS)
        .map(|n| {
            let mut event = events[n % one].clone();
            event.time.0 += if records { 0 } else { (n / one) as u64 * length };
            event
        })
        .collect()
}

fn is_record(event: &Event) -> bool {
    matches!(event.body, Body::Record(_))
}

/// How many of them are events.
fn count(events: &[Event]) -> usize {
    events.iter().filter(|event| !is_record(event)).count()
}

fn recorded(events: &[Event]) -> Vec<u8> {
    let written = Writer::new(Memory::default(), Meta::default(), None).and_then(|mut writer| {
        events.iter().try_for_each(|event| match &event.body {
            Body::Record(record) => writer.record(record, &()),
            _ => writer.event(event, &()),
        })?;
        writer.finish()
    });
    written.map(|(memory, _)| memory.files.concat()).unwrap_or_default()
}

#[divan::bench(args = NAMES)]
fn write(bencher: Bencher<'_, '_>, name: &str) {
    let events = events(name);
    bencher
        .counter(ItemsCount::new(count(&events)))
        .bench(|| recorded(black_box(&events)));
}

#[divan::bench(args = NAMES)]
fn read(bencher: Bencher<'_, '_>, name: &str) {
    let events = events(name);
    let (bytes, all) = (recorded(&events), count(&events));
    bencher.counter(ItemsCount::new(all)).bench(|| {
        let mut items = Items::new(black_box(bytes.as_slice()));
        let mut count = 0;
        while let Ok(Some(content)) = items.next_content() {
            count += usize::from(matches!(content, Content::Item(_)));
        }
        assert_eq!(count, all);
    });
}
