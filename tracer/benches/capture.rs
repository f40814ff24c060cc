//! What a capture costs: events per second written and read on one core, and bytes per event.
//!
//! `cargo bench -p tracer --bench capture`. The events are those of the checked-in captures, over and over.

use std::path::Path;

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use tracer::capture::{Content, Items, Memory, Meta, Writer};
use tracer::event::Event;

/// Events per recording.
const EVENTS: usize = 100_000;

fn main() {
    for name in NAMES {
        let events = events(name);
        let bytes = recorded(&events);
        println!(
            "{name}: {:.1} bytes per event",
            bytes.len() as f64 / events.len() as f64
        );
    }
    divan::main();
}

const NAMES: [&str; 2] = ["mutex-abba-6.1", "contend-rwsem-6.1"];

/// The events of a capture, repeated with later times.
fn events(name: &str) -> Vec<Event> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/captures")
        .join(format!("{name}.holdup"));
    let bytes = std::fs::read(path).unwrap_or_default();
    let mut items = Items::new(bytes.as_slice());
    let mut events = Vec::new();
    while let Ok(Some(content)) = items.next_content() {
        if let Content::Item(item) = content {
            events.push(item.event);
        }
    }
    let length = events.iter().map(|event| event.time.0).max().unwrap_or(0) - events.first().map_or(0, |e| e.time.0);
    let one = events.len();
    (0..EVENTS)
        .map(|n| {
            let mut event = events[n % one].clone();
            event.time.0 += (n / one) as u64 * length;
            event
        })
        .collect()
}

fn recorded(events: &[Event]) -> Vec<u8> {
    let written = Writer::new(Memory::default(), Meta::default(), None).and_then(|mut writer| {
        events.iter().try_for_each(|event| writer.event(event, &()))?;
        writer.finish()
    });
    written.map(|(memory, _)| memory.files.concat()).unwrap_or_default()
}

#[divan::bench(args = NAMES)]
fn write(bencher: Bencher<'_, '_>, name: &str) {
    let events = events(name);
    bencher
        .counter(ItemsCount::new(events.len()))
        .bench(|| recorded(black_box(&events)));
}

#[divan::bench(args = NAMES)]
fn read(bencher: Bencher<'_, '_>, name: &str) {
    let bytes = recorded(&events(name));
    bencher.counter(ItemsCount::new(EVENTS)).bench(|| {
        let mut items = Items::new(black_box(bytes.as_slice()));
        let mut count = 0;
        while let Ok(Some(content)) = items.next_content() {
            count += usize::from(matches!(content, Content::Item(_)));
        }
        assert_eq!(count, EVENTS);
    });
}
