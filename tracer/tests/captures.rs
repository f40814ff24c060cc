//! The checked-in captures of real kernels, through the library and through the command line.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests: what fails shall fail the test"
)]

#[path = "captures/fixtures.rs"]
mod fixtures;

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use fixtures::{FIXTURES, Fixture};
use tracer::capture::{Content, Items, ReadError};
use tracer::diagnosis::{Certainty, Kind};
use tracer::event::{Actor, Body, Event};
use tracer::player::{Player, Reached};
use tracer::source::replay::Replay;
use tracer_common::record::WaitRecord;
use zerocopy::FromBytes as _;

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/captures")
        .join(format!("{name}.holdup"))
}

fn bytes(name: &str) -> Vec<u8> {
    std::fs::read(path(name)).unwrap()
}

fn holdup(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_holdup"))
        .args(arguments)
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn events(bytes: &[u8]) -> Result<Vec<Event>, ReadError> {
    let mut items = Items::new(bytes);
    let mut events = Vec::new();
    while let Some(content) = items.next_content()? {
        if let Content::Item(item) = content {
            events.push(item.event);
        }
    }
    Ok(events)
}

#[test]
fn they_still_tell_what_happened() {
    for fixture in FIXTURES {
        let mut player = Player::new(Replay::open(&[path(fixture.name)]).unwrap());
        let mut changes = Vec::new();
        assert_eq!(
            player
                .advance(tracer::ids::Timestamp(u64::MAX), usize::MAX, &mut changes)
                .unwrap(),
            Reached::End
        );
        let report = player.pipeline().report();
        let open: Vec<(Kind, Certainty)> = report.findings.iter().map(|f| (f.kind, f.certainty)).collect();
        assert_eq!(open, fixture.open, "{}", fixture.name);
        let names: Vec<&str> = report.locks.iter().filter_map(|row| row.lock.name.as_deref()).collect();
        assert!(
            fixture.lock.is_none_or(|lock| names.contains(&lock)),
            "{}: {names:?}",
            fixture.name
        );
        assert!(player.replay().damage().is_empty());
        assert!(
            player.replay().meta().kernel.starts_with("6."),
            "{:?}",
            player.replay().meta()
        );
        assert!(!player.replay().meta().offsets.is_empty() && !player.replay().meta().probes.is_empty());
    }
}

#[test]
fn cut_at_every_offset_they_give_a_prefix() {
    for name in [
        "mutex-abba-6.1",
        "mutex-abba-records-6.12",
        "contend-rwsem-records-6.12",
    ] {
        cut_at_every_offset(&bytes(name));
    }
}

fn cut_at_every_offset(whole: &[u8]) {
    let all = events(whole).unwrap();
    let mut lengths = vec![0];
    for end in 0..whole.len() {
        match events(&whole[..end]) {
            Ok(some) => {
                assert!(all.starts_with(&some), "cut at {end}");
                lengths.push(some.len());
            }
            Err(ReadError::NoCapture(_)) => assert!(lengths.len() == 1, "cut at {end}: it was one before"),
            Err(other) => panic!("cut at {end}: {other}"),
        }
    }
    assert!(lengths.is_sorted(), "more bytes never give less");
    assert_eq!(
        lengths.last(),
        Some(&all.len()),
        "only the index is behind the last event"
    );
}

/// What the probes and iterators wrote, told by its own bytes, against the events of the same capture.
#[test]
fn captures_hold_the_records_of_the_kernel() {
    let schema = include_str!("../schema/holdup.v1.schema.json");
    let schema = jsonschema::validator_for(&serde_json::from_str(schema).unwrap()).unwrap();
    let export = |name: &str| {
        let output = holdup(&["export", path(name).to_str().unwrap(), "--format", "records"]);
        assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
        let lines = text(&output.stdout);
        let lines: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert!(lines.iter().all(|line| schema.is_valid(line)), "{lines:?}");
        lines
    };
    let of_kind = |lines: &[serde_json::Value], kind| lines.iter().filter(|line| line["kind"] == kind).count();
    let lines = export("contend-rwsem-records-6.12");
    let kinds = ["wait-begin", "wait-end", "wait-pending", "release"].map(|kind| of_kind(&lines, kind));
    assert_eq!((kinds, lines.len()), ([17, 17, 3, 46], 83));
    let mut ends = Vec::new();
    for line in lines.iter().filter(|line| line["kind"] == "wait-end") {
        let hex = line["bytes"].as_str().unwrap();
        let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        let bytes: Vec<u8> = (0..hex.len()).step_by(2).map(byte).collect();
        let (record, stack) = WaitRecord::read_from_prefix(&bytes).unwrap();
        assert_eq!(usize::from(record.header.size), bytes.len());
        assert_eq!(stack.len(), record.stack_len as usize * 8);
        assert_eq!(line["time_ns"], record.header.time);
        ends.push((
            record.header.time,
            record.waiter.tid,
            record.lock,
            record.header.time - record.since,
        ));
    }
    let told = events(&bytes("contend-rwsem-records-6.12")).unwrap();
    let told: Vec<(u64, u32, u64, u64)> = told
        .iter()
        .filter_map(|event| match &event.body {
            Body::WaitEnd(end) => match end.waiter {
                Actor::Task(key) => Some((event.time.0, key.tid.0, end.lock.0, end.waited.0)),
                Actor::Interrupt { .. } => None,
            },
            _ => None,
        })
        .collect();
    assert_eq!(ends, told);
    assert_eq!(of_kind(&export("mutex-abba-records-6.12"), "wait-pending"), 4);
    assert!(export("mutex-abba-6.1").is_empty(), "an older capture has none");
}

#[test]
fn commands_end_with_the_codes_that_help_documents() {
    for fixture in FIXTURES {
        let file = path(fixture.name);
        let file = file.to_str().unwrap();
        for arguments in [
            vec!["replay", "--text", file],
            vec!["report", file],
            vec!["report", "--json", file],
        ] {
            let output = holdup(&arguments);
            assert_eq!(output.status.code(), Some(fixture.code), "{arguments:?}: {output:?}");
            assert!(output.stderr.is_empty(), "{output:?}");
        }
        let document: serde_json::Value = serde_json::from_slice(&holdup(&["report", "--json", file]).stdout).unwrap();
        assert_eq!(document["source"]["mode"], "replay");
        assert_eq!(document["findings"].as_array().unwrap().len(), fixture.open.len());
    }
    let unknown = holdup(&["replay", "--text", "/no/such/capture"]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(text(&unknown.stderr).contains("/no/such/capture"), "{unknown:?}");
    assert_eq!(holdup(&["export", "x", "--format", "sculpture"]).status.code(), Some(2));
    let other = holdup(&["report", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")]);
    assert_eq!((other.status.code(), other.stdout.as_slice()), (Some(1), &b""[..]));
    assert!(text(&other.stderr).contains("no capture of holdup"), "{other:?}");
}

#[test]
fn damage_is_told_on_stderr_and_the_rest_is_shown() {
    let mut broken = tempfile::NamedTempFile::new().unwrap();
    let mut bytes = bytes("contend-rwsem-6.1");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    broken.write_all(&bytes).unwrap();
    let output = holdup(&["report", broken.path().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(
        text(&output.stderr).contains("recovered") && text(&output.stderr).contains("1 damaged"),
        "{output:?}"
    );
    assert!(
        text(&output.stdout).contains("lost: "),
        "the loss is in the report: {output:?}"
    );
}

#[test]
fn a_capture_is_read_from_a_pipe_and_a_closed_pipe_is_success() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_holdup"))
        .args(["replay", "-", "--text", "--tuples"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&bytes("mutex-abba-6.1")).unwrap();
    let output = child.wait_with_output().unwrap();
    let file = path("mutex-abba-6.1");
    assert_eq!(
        output.stdout,
        holdup(&["replay", file.to_str().unwrap(), "--text", "--tuples"]).stdout
    );
    // More than a pipe holds, to a reader that takes ten bytes.
    let file = path("contend-rwsem-6.1");
    let mut child = Command::new(env!("CARGO_BIN_EXE_holdup"))
        .args(["export", file.to_str().unwrap(), "--format", "jsonl"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut [0; 10]).unwrap();
    drop(stdout);
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
}

#[test]
fn exports_are_what_their_readers_expect() {
    let schema = include_str!("../schema/holdup.v1.schema.json");
    let schema = jsonschema::validator_for(&serde_json::from_str(schema).unwrap()).unwrap();
    for fixture in FIXTURES {
        let file = path(fixture.name);
        let export = |arguments: &[&str]| {
            let output = holdup(&[&["export", file.to_str().unwrap()], arguments].concat());
            assert_eq!(output.status.code(), Some(0), "{arguments:?}: {output:?}");
            output.stdout
        };
        let lines = text(&export(&["--format", "jsonl"]));
        let all = events(&bytes(fixture.name)).unwrap();
        assert_eq!(lines.lines().count(), all.len());
        for line in lines.lines() {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            assert!(line["type"] == "event" && schema.is_valid(&line), "{line}");
        }
        let folded = text(&export(&["--format", "folded"]));
        let waits = all.iter().filter(|event| matches!(event.body, Body::Wait(_))).count();
        match fixture.waits_in {
            // Other waits than those for locks are in no flame graph.
            None => assert!(waits == 0 && folded.is_empty(), "{}: {folded}", fixture.name),
            Some(waits_in) => {
                assert!(waits > 0);
                stacks_are_right(fixture, waits_in, &folded);
            }
        }
        let dot = text(&export(&["--format", "dot"]));
        let svg = graphviz(&dot);
        if fixture.name == "mutex-abba-6.1" {
            assert!(
                fixture.lock.is_none_or(|lock| dot.contains(lock)) && dot.contains("held by"),
                "{dot}"
            );
            assert!(svg.is_none_or(|svg| svg.contains("lockfault_abba_a")));
            assert_eq!(
                graphviz(&text(&export(&["--format", "dot", "--finding", "1"]))).is_some(),
                graphviz(&dot).is_some()
            );
        }
        // Without a wait for a lock and without a finding, there is nothing to draw.
        let nothing = waits == 0 && fixture.open.is_empty();
        assert_eq!(
            export(&["--format", "perfetto"]).len() > 200,
            !nothing,
            "{}",
            fixture.name
        );
    }
    let file = path("mutex-abba-6.1");
    let missing = holdup(&["export", file.to_str().unwrap(), "--format", "dot", "--finding", "7"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(
        text(&missing.stderr).contains("cycle:"),
        "it names those that there are: {missing:?}"
    );
}

/// Folded stacks, and the flame graph that is made of them.
fn stacks_are_right(fixture: &Fixture, waits_in: &str, folded: &str) {
    for line in folded.lines() {
        let (stack, micros) = line.rsplit_once(' ').unwrap();
        assert!(
            stack.split(';').count() >= 2 && !stack.split(';').any(str::is_empty),
            "{line}"
        );
        assert!(micros.parse::<u64>().unwrap() > 0, "{line}");
    }
    assert!(
        folded.contains(waits_in) && fixture.lock.is_none_or(|lock| folded.contains(lock)),
        "{folded}"
    );
    assert!(!folded.contains("bpf_trace_run"), "holdup's own frames: {folded}");
    let micros = |line: &str| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap();
    let flames = flames(folded);
    assert!(flames.contains(waits_in), "{}", fixture.name);
    assert!(
        flames.contains(&format!(
            "total_samples=\"{}\"",
            folded.lines().map(micros).sum::<u64>()
        )),
        "{}: another sum of waiting",
        fixture.name
    );
}

/// The flame graph of folded stacks.
fn flames(folded: &str) -> String {
    let mut options = inferno::flamegraph::Options::default();
    // Every function, however little it waited.
    options.min_width = 0.0;
    let mut svg = Vec::new();
    inferno::flamegraph::from_lines(&mut options, folded.lines(), &mut svg).unwrap();
    text(&svg)
}

/// The drawing of a graph, where Graphviz is installed; with `HOLDUP_TEST_GRAPHVIZ` it must be.
fn graphviz(graph: &str) -> Option<String> {
    let dot = Command::new("dot")
        .arg("-Tsvg")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    if std::env::var_os("HOLDUP_TEST_GRAPHVIZ").is_none() && dot.is_err() {
        return None;
    }
    let mut dot = dot.unwrap();
    dot.stdin.take().unwrap().write_all(graph.as_bytes()).unwrap();
    let output = dot.wait_with_output().unwrap();
    assert!(output.status.success(), "Graphviz does not take it:\n{graph}");
    Some(text(&output.stdout))
}
