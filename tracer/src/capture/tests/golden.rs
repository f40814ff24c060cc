//! The checked-in captures: every version ever written stays readable, and the current one does not change by accident.
//!
//! `HOLDUP_BLESS=1 cargo test -p tracer capture::tests::golden` writes the golden file of the current [`VERSION`] anew. Do
//! that when the version was raised, or was never released; the older files are never touched.

use std::path::PathBuf;

use super::super::VERSION;
use super::*;

fn file(version: u16, extension: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/captures/format-v{version}.{extension}"))
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
        std::fs::write(file(VERSION, "holdup"), capture(&every_event(), 64)).unwrap();
        std::fs::write(file(VERSION, "jsonl"), json_lines(&every_event())).unwrap();
    }
    for version in 1..=VERSION {
        let bytes = std::fs::read(file(version, "holdup")).unwrap();
        let (events, lost, health) = read(&bytes).unwrap();
        assert_eq!((lost, health.is_sound(), health.finished), (0, true, true));
        let expected = std::fs::read_to_string(file(version, "jsonl")).unwrap();
        assert!(
            json_lines(&events) == expected,
            "format version {version} reads differently now"
        );
    }
}

#[test]
fn the_current_version_is_written_as_it_always_was() {
    let golden = read(&std::fs::read(file(VERSION, "holdup")).unwrap()).unwrap().0;
    assert!(
        golden == every_event(),
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
        golden == blocks(&capture(&every_event(), 64)),
        "the bytes of format version {VERSION} have changed"
    );
}
