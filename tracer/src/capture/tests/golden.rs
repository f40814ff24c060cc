//! The checked-in captures: every version ever written stays readable, and the current one does not change by accident.
//!
//! `HOLDUP_BLESS=1 cargo test -p tracer capture::tests::golden` writes the golden file of the current [`VERSION`] anew. Do
//! that when the version was raised; the older files are never touched.

use std::path::PathBuf;

use serde_json::Value;

use super::super::VERSION;
use super::records::without_records;
use super::*;

fn file(version: u16, extension: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/captures/format-v{version}.{extension}"))
}

/// Every event, and records of every kind with theirs.
fn everything() -> Vec<Event> {
    [every_event(), records::stream(40)].concat()
}

fn json_lines(events: &[Event]) -> String {
    events
        .iter()
        .map(|event| serde_json::to_string(event).unwrap() + "\n")
        .collect()
}

#[test]
fn every_version_reads_as_it_was_written() {
    if std::env::var_os("HOLDUP_BLESS").is_some() {
        std::fs::write(file(VERSION, "holdup"), capture(&everything(), 64)).unwrap();
        std::fs::write(file(VERSION, "jsonl"), json_lines(&without_records(&everything()))).unwrap();
    }
    for version in 1..=VERSION {
        let bytes = std::fs::read(file(version, "holdup")).unwrap();
        let (events, lost, health) = read(&bytes).unwrap();
        assert_eq!((lost, health.is_sound(), health.finished), (0, true, true));
        let expected = std::fs::read_to_string(file(version, "jsonl")).unwrap();
        assert_eq!(events.len(), expected.lines().count(), "format version {version}");
        for (read, written) in json_lines(&events).lines().zip(expected.lines()) {
            let [now, then] = [read, written].map(|line| serde_json::from_str(line).unwrap());
            assert!(
                now == then || (version < VERSION && holds(&now, &then)),
                "format version {version} reads differently now:\n{written}\n{read}"
            );
        }
    }
}

/// Whether everything of an older version is still there; fields may have been added.
fn holds(now: &Value, then: &Value) -> bool {
    match (now, then) {
        (Value::Object(now), Value::Object(then)) => then
            .iter()
            .all(|(name, value)| now.get(name).is_some_and(|now| holds(now, value))),
        (Value::Array(now), Value::Array(then)) => {
            now.len() == then.len() && now.iter().zip(then).all(|(now, then)| holds(now, then))
        }
        _ => now == then,
    }
}

#[test]
fn the_current_version_is_written_as_it_always_was() {
    let golden = read(&std::fs::read(file(VERSION, "holdup")).unwrap()).unwrap().0;
    assert!(
        golden == without_records(&everything()),
        "the events have changed: raise capture::VERSION, read the older files with defaults, and bless a new golden file"
    );
    // Compression may differ from one zstd to the next, what is compressed may not.
    let blocks = |bytes: &[u8]| {
        let mut frames = super::super::scan::Frames::new(bytes, 0);
        let mut blocks = Vec::new();
        while let Some(super::super::scan::Piece::Frame { head, stored, .. }) = frames.next_piece().unwrap() {
            if head.kind == super::super::frame::Kind::Items {
                blocks.push(head.open(&stored).unwrap());
            }
        }
        blocks
    };
    let golden = blocks(&std::fs::read(file(VERSION, "holdup")).unwrap());
    assert!(
        golden == blocks(&capture(&everything(), 64)),
        "the bytes of format version {VERSION} have changed"
    );
}
