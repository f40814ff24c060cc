//! Runs every scenario in `tests/scenarios/` and compares everything the diagnosis says with the text in the same file.
//!
//! `UPDATE_SCENARIOS=1 cargo test -p tracer --test scenarios` writes what is said now into the files; read the difference
//! before committing it.

#![allow(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use tracer::diagnosis::Engine;
use tracer::model::{Model, Settings};
use tracer::source::script::{Script, Step};
use tracer::view::{json, text};

fn files() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut files: Vec<PathBuf> = fs::read_dir(dir)
        .expect("scenario directory")
        .map(|entry| entry.expect("directory entry").path())
        .filter(|path| path.extension().is_some_and(|e| e == "scn"))
        .collect();
    files.sort();
    files
}

/// What is said at each `expect`, with its line.
fn run(script: &Script) -> Vec<(usize, String, String)> {
    let mut model = Model::new(Settings::default());
    let mut engine = Engine::new();
    let mut said = Vec::new();
    let mut results = Vec::new();
    let update = |model: &Model, engine: &mut Engine, said: &mut Vec<u8>| {
        for change in engine.update(model) {
            text::change(said, model.now(), &change).expect("writing to memory");
            json::change(&mut std::io::sink(), model.now(), &change).expect("writing nowhere");
        }
    };
    for step in &script.steps {
        match step {
            Step::Event(event) => model.apply(event),
            Step::Update => update(&model, &mut engine, &mut said),
            Step::Expect { text, line } => {
                update(&model, &mut engine, &mut said);
                let actual = String::from_utf8(std::mem::take(&mut said)).expect("text is UTF-8");
                results.push((*line, text.clone(), actual));
            }
        }
    }
    assert!(
        said.is_empty(),
        "not compared with anything: {}",
        String::from_utf8_lossy(&said)
    );
    results
}

/// The file with its expected texts replaced.
fn with_actual(source: &str, results: &[(usize, String, String)]) -> String {
    let mut out = String::new();
    for (i, line) in source.lines().enumerate() {
        if line.starts_with('>') {
            continue;
        }
        writeln!(out, "{line}").expect("writing to a string");
        if let Some((_, _, actual)) = results.iter().find(|(at, _, _)| *at == i + 1) {
            for said in actual.lines() {
                writeln!(out, "> {said}").expect("writing to a string");
            }
        }
    }
    out
}

#[test]
fn every_scenario_says_exactly_what_its_file_says() {
    let update = std::env::var_os("UPDATE_SCENARIOS").is_some();
    let files = files();
    assert!(!files.is_empty());
    let mut wrong = String::new();
    for path in files {
        let source = fs::read_to_string(&path).expect("scenario");
        let script = Script::parse(&source).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let results = run(&script);
        assert!(!results.is_empty(), "{} expects nothing", path.display());
        if update {
            fs::write(&path, with_actual(&source, &results)).expect("writing the scenario");
            continue;
        }
        for (line, expected, actual) in results.iter().filter(|(_, expected, actual)| expected != actual) {
            let name = path.display();
            writeln!(wrong, "{name}:{line}: expected\n{expected}--- but said\n{actual}---")
                .expect("writing to a string");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}
