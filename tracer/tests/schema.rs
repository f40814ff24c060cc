//! Every JSON line of every scenario must fit the documented schema, and must hold no field that the schema does not know.

#![allow(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use jsonschema::Validator;
use serde_json::{Value, json};
use tracer::diagnosis::{Engine, Kind};
use tracer::event::Body;
use tracer::ids::Timestamp;
use tracer::model::{Model, Settings};
use tracer::report::{ProgramCost, Report, SourceFacts};
use tracer::source::replay::{Next, Replay};
use tracer::source::script::{Script, Step};
use tracer::view::{json, jsonl, loss, records, tuple};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn schema() -> Value {
    let text = fs::read_to_string(root().join("schema/holdup.v1.schema.json")).expect("schema");
    serde_json::from_str(&text).expect("the schema is JSON")
}

/// Forbids fields that are not documented. The published schema allows them, so that readers do not break when one is added.
fn strict(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            if map.contains_key("properties") && !map.contains_key("additionalProperties") {
                map.insert("additionalProperties".to_owned(), json!(false));
            }
            map.values_mut().for_each(strict);
        }
        Value::Array(items) => items.iter_mut().for_each(strict),
        _ => {}
    }
}

/// Facts with every list filled, so that their items are compared as well.
fn facts() -> SourceFacts {
    SourceFacts {
        mode: "script".to_owned(),
        probes: vec!["probe".to_owned()],
        limits: vec!["limit".to_owned()],
        programs: vec![ProgramCost::default()],
        ..SourceFacts::default()
    }
}

/// All lines that a scenario gives: every event and tuple and what was lost, every change, and a report after every look.
fn lines(script: &Script) -> Vec<Value> {
    let mut model = Model::new(Settings::default());
    let mut engine = Engine::new();
    let mut out = Vec::new();
    for step in &script.steps {
        if let Step::Event(event) = step {
            model.apply(event);
            tuple::json(event, &mut out).expect("writing to memory");
            jsonl::event(event, &mut out).expect("writing to memory");
            if let Body::Loss(report) = &event.body {
                loss::json(event.time, report, &mut out).expect("writing to memory");
            }
            continue;
        }
        for change in engine.update(&model) {
            json::change(&mut out, model.now(), &change).expect("writing to memory");
        }
        let report = Report {
            source: facts(),
            ..Report::build(&model, &engine)
        };
        json::report(&mut out, &report).expect("writing to memory");
    }
    let text = String::from_utf8(out).expect("JSON is UTF-8");
    text.lines()
        .map(|line| serde_json::from_str(line).expect("each line is JSON"))
        .collect()
}

/// Lines of the records in a capture.
fn record_lines() -> Vec<Value> {
    let path = root().join("tests/captures/format-v8.holdup");
    let mut replay = Replay::with_records(&[path]).expect("a capture");
    let mut out = Vec::new();
    while let Next::Event(event) = replay.next_until(Timestamp(u64::MAX)).expect("it can be read") {
        if let Body::Record(record) = &event.body {
            records::json(record, &mut out).expect("writing to memory");
        }
    }
    let text = String::from_utf8(out).expect("JSON is UTF-8");
    text.lines()
        .map(|line| serde_json::from_str(line).expect("each line is JSON"))
        .collect()
}

fn scenarios() -> Vec<(String, Script)> {
    let dir = fs::read_dir(root().join("tests/scenarios")).expect("scenario directory");
    let paths = dir
        .map(|e| e.expect("entry").path())
        .filter(|p| p.extension().is_some_and(|e| e == "scn"));
    paths
        .map(|path| {
            let script = Script::parse(&fs::read_to_string(&path).expect("scenario")).expect("it parses");
            (path.display().to_string(), script)
        })
        .collect()
}

#[test]
fn every_line_of_every_scenario_fits_the_schema() {
    let mut schema = schema();
    strict(&mut schema);
    let validator = jsonschema::validator_for(&schema).expect("the schema is a schema");
    // By its type first: else every error is only "fits none of them".
    let parts: BTreeMap<&str, Validator> = [
        ("finding", "change_line"),
        ("report", "report_line"),
        ("event", "event_line"),
        ("tuple", "tuple_line"),
        ("loss", "loss_line"),
        ("record", "record_line"),
    ]
    .into_iter()
    .map(|(kind, part)| {
        let mut part_schema = schema.clone();
        part_schema["oneOf"] = json!([{ "$ref": format!("#/$defs/{part}") }]);
        (
            kind,
            jsonschema::validator_for(&part_schema).expect("the part is a schema"),
        )
    })
    .collect();
    let (mut kinds, mut types) = (BTreeSet::new(), BTreeSet::new());
    let scenarios = scenarios().into_iter().map(|(name, script)| (name, lines(&script)));
    for (name, lines) in scenarios.chain([("records".to_owned(), record_lines())]) {
        for line in lines {
            let kind = line["type"].as_str().expect("every line says what it is").to_owned();
            let errors: Vec<String> = parts[kind.as_str()]
                .iter_errors(&line)
                .map(|e| format!("{}: {e}", e.instance_path()))
                .collect();
            assert!(errors.is_empty(), "{name}: {kind}: {errors:#?}\n{line:#}");
            assert!(
                validator.is_valid(&line),
                "{name}: no line of the schema, or several: {line:#}"
            );
            kinds.extend(line["finding"]["kind"].as_str().map(str::to_owned));
            types.insert(kind);
        }
    }
    assert!(kinds.len() >= 8, "the scenarios show only {kinds:?}");
    assert_eq!(
        types,
        parts.keys().map(|&kind| kind.to_owned()).collect(),
        "not every type of line was seen"
    );
}

#[test]
fn the_schema_lists_exactly_the_kinds_of_the_contract() {
    let listed: BTreeSet<String> = schema()["$defs"]["kind"]["enum"]
        .as_array()
        .expect("kinds")
        .iter()
        .map(|k| k.as_str().expect("a kind is a string").to_owned())
        .collect();
    let kinds = [
        Kind::SelfDeadlock,
        Kind::Cycle,
        Kind::ContextDeadlock,
        Kind::DeadLockWord,
        Kind::OrphanedLock,
        Kind::ReinitInUse,
        Kind::RootBlocker,
        Kind::ReaderPileUp,
        Kind::HotLock,
        Kind::OrderInversion,
    ];
    assert_eq!(listed, kinds.iter().map(ToString::to_string).collect());
}

#[test]
fn the_strict_schema_refuses_what_is_not_documented() {
    let mut schema = schema();
    strict(&mut schema);
    let validator = jsonschema::validator_for(&schema).expect("the schema is a schema");
    let (_, script) = scenarios().into_iter().next().expect("a scenario");
    let mut found = lines(&script).into_iter();
    let mut line = found.find(|line| line["type"] == "report").expect("a report");
    assert!(validator.is_valid(&line));
    line["surprise"] = json!(1);
    assert!(!validator.is_valid(&line));
}
