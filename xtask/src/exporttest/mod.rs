//! Exports judged by the tools they are for, over the checked-in captures of real kernels.
//!
//! Perfetto's trace processor is no package anywhere; its schema is, with the classes that Google's protocol buffers make of
//! it. [`check_trace.py`](self) decodes a trace with those and holds it against the events that went into it.

use crate::setup::{self, Part};
use crate::test::{Line, Single};
use crate::{build, paths, process, ui};
use anyhow::{Context as _, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;

pub const TEST: Single = Single {
    name: "export/perfetto",
    run: || match schema() {
        Ok(schema) => Line::from(perfetto(&schema)),
        Err(why) => Line::Skipped(format!("no schema to check by: {why:#}")),
    },
};

/// On PyPI: Perfetto's schema as Python classes.
const SCHEMA: &str = "perfetto==0.59.1";
const JUDGE: &str = include_str!("check_trace.py");

/// Where Perfetto's classes are, fetched once.
fn schema() -> Result<PathBuf> {
    setup::ensure(&[Part::Traces])?;
    let directory = paths::target().join("python");
    if !directory.join("perfetto/protos").exists() {
        let fetch = ["-m", "pip", "install", "--quiet", "--target"];
        process::capture(Command::new("python3").args(fetch).arg(&directory).arg(SCHEMA))?;
    }
    Ok(directory)
}

fn perfetto(schema: &Path) -> Result<()> {
    let holdup = build::host()?;
    let directory = paths::target().join("export");
    std::fs::create_dir_all(&directory)?;
    let captures = paths::root().join("tracer/tests/captures");
    let mut judged = 0;
    for entry in std::fs::read_dir(&captures).with_context(|| format!("reading {}", captures.display()))? {
        let capture = entry?.path();
        let name = capture.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        // The golden files of the format hold every value there is, and tell no story.
        if capture.extension().is_none_or(|extension| extension != "holdup") || name.starts_with("format-") {
            continue;
        }
        let export = |format: &str| -> Result<PathBuf> {
            let path = directory.join(format!("{name}.{format}"));
            let mut command = Command::new(&holdup);
            command
                .arg("export")
                .arg(&capture)
                .args(["--format", format, "-o"])
                .arg(&path);
            process::run(&mut command)?;
            Ok(path)
        };
        let report = directory.join(format!("{name}.report.json"));
        // Its exit code says what was found.
        let output = Command::new(&holdup)
            .args(["report", "--json"])
            .arg(&capture)
            .output()?;
        std::fs::write(&report, output.stdout)?;
        let mut judge = Command::new("python3");
        judge.env("PYTHONPATH", schema).args(["-c", JUDGE]);
        let said = process::capture(judge.arg(export("perfetto")?).arg(export("jsonl")?).arg(report))?;
        ui::step(said.trim());
        judged += 1;
    }
    ensure!(judged > 5, "only {judged} captures in {}", captures.display());
    Ok(())
}
