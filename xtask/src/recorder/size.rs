//! How large a recording is and what it costs, against `perf lock record` of the same waits in the same seconds.

use super::workload::{Workload, during};
use super::{Recorder, number_before};
use crate::{build, process, ui};
use anyhow::{Context as _, Result};
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const TMPFS: &str = "/dev/shm";

/// Figures of one run.
struct Sample {
    /// Directories made in a second with nothing attached, and with holdup alone.
    plain: f64,
    traced: f64,
    events: f64,
    bytes: f64,
    /// Share of one CPU that the recorder took while it recorded.
    cpu: f64,
    /// Bytes for each of perf's samples; `None` without perf.
    perf: Option<f64>,
}

/// Runs `rounds` rounds of `seconds` each and prints a table.
///
/// # Errors
/// holdup cannot be built or run.
pub fn run(rounds: usize, seconds: u32, threads: usize) -> Result<()> {
    let holdup = build::host()?;
    let perf = process::which("perf");
    if perf.is_none() {
        ui::step("no perf here: nothing to compare with");
    }
    let tmpfs = tempfile::tempdir_in(TMPFS).with_context(|| format!("no tmpfs at {TMPFS}"))?;
    let workload = Workload {
        threads,
        rest: None,
        hold_every: None,
    };
    println!("record --all, {threads} threads on tmpfs, {seconds} s each");
    println!(
        "{:>10} {:>12} {:>12} {:>12} {:>10} {:>10} {:>8}",
        "events/s", "bytes/event", "perf bytes", "perf/holdup", "CPU %", "mkdir/s", "of plain"
    );
    for _ in 0..rounds {
        let s = round(&holdup, perf.as_deref(), workload, seconds, tmpfs.path())?;
        let each = s.bytes / s.events;
        println!(
            "{:>10.0} {each:>12.1} {:>12.1} {:>12.1} {:>10.1} {:>10.0} {:>8.2}",
            s.events / f64::from(seconds),
            s.perf.unwrap_or(f64::NAN),
            s.perf.map_or(f64::NAN, |perf| perf / each),
            s.cpu * 100.0,
            s.traced,
            s.traced / s.plain,
        );
    }
    Ok(())
}

fn round(holdup: &Path, perf: Option<&Path>, workload: Workload, seconds: u32, tmpfs: &Path) -> Result<Sample> {
    let (length, rate) = (Duration::from_secs(seconds.into()), f64::from(seconds));
    let ((), plain) = during(workload, tmpfs, || {
        std::thread::sleep(length);
        Ok(())
    })?;
    let directory = tempfile::tempdir()?;
    let capture = directory.path().join("c.holdup");
    let name = capture.to_str().context("a path that is no text")?;
    let arguments = ["-o", name, "--all", "--json"];
    // Attached before the threads start, so that they are counted for as long as without it.
    let recorder = Recorder::start(holdup, directory.path(), &arguments)?;
    let before = recorder.usage()?.cpu;
    let started = Instant::now();
    let ((), traced) = during(workload, tmpfs, || {
        std::thread::sleep(length);
        Ok(())
    })?;
    let cpu = (recorder.usage()?.cpu - before) / started.elapsed().as_secs_f64();
    let (_, said) = recorder.end()?;
    let events = number_before(&said, " events,").with_context(|| format!("no count of events: {said}"))?;
    let bytes = fs::metadata(&capture)?.len();
    let samples = perf
        .map(|perf| against(perf, holdup, workload, seconds, tmpfs))
        .transpose()?;
    Ok(Sample {
        plain: plain as f64 / rate,
        traced: traced as f64 / rate,
        events: events as f64,
        bytes: bytes as f64,
        cpu,
        perf: samples,
    })
}

/// Bytes of each sample of perf, while holdup records the same.
fn against(perf: &Path, holdup: &Path, workload: Workload, seconds: u32, tmpfs: &Path) -> Result<f64> {
    let directory = tempfile::tempdir()?;
    let (data, said) = (directory.path().join("perf.data"), directory.path().join("said"));
    let capture = directory.path().join("c.holdup");
    let name = capture.to_str().context("a path that is no text")?;
    let recorder = Recorder::start(holdup, directory.path(), &["-o", name, "--all", "--json"])?;
    let mut command = Command::new(perf);
    command
        .args(["lock", "record", "-a", "-o"])
        .arg(&data)
        .args(["--", "sleep", &seconds.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(fs::File::create(&said)?);
    let (status, _) = during(workload, tmpfs, || {
        let mut child: Child = command
            .spawn()
            .with_context(|| format!("cannot start: {}", process::shown(&command)))?;
        Ok(child.wait()?)
    })?;
    recorder.end()?;
    let said = fs::read_to_string(&said)?;
    anyhow::ensure!(status.success(), "perf failed ({status}): {said}");
    // "[ perf record: Captured and wrote 12.345 MB perf.data (63333 samples) ]"
    let samples = said.replace('(', " ");
    let samples = number_before(&samples, " samples").with_context(|| format!("no count of samples: {said}"))?;
    Ok(fs::metadata(&data)?.len() as f64 / samples as f64)
}
